//! Starting workers: journals recovered, sockets listening, then ready; the first error ends the start.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use zen_core::dedupe::IndexError;
use zen_uring::{Backend, Limits, Reactor};

use super::Worker;
use crate::clock::Clock;
use crate::config::{JournalSettings, Settings, Snapshot};
use crate::control::{Resolver, Shared};
use crate::dedupe::Keys;
use crate::egress::{self, Deliveries, Egress, Held, RecoveringReceipts, Table, Watermarks};
use crate::ingester::{self, Claims, Index, Ingester, Recovering};
use crate::journal::{self, MakerThread, OpenError, RetentionLimits, Start};
use crate::link::Links;
use crate::listeners::Bound;
use crate::mesh::JournalRole;
use crate::metrics::WorkerMetrics;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// Links and connections to targets, per worker.
const SOCKETS_BESIDE_SOURCES: u32 = 4096;
/// Receive buffers of the node; each worker has 128 to 512 of them.
const RECEIVE_BUFFERS: u16 = 1024;
/// What a worker's thread may need of its stack, bytes.
pub const STACK_BYTES: usize = 1 << 20;

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The reactor.
    #[error("{0}")]
    Setup(#[from] zen_uring::SetupError),
    /// A listener.
    #[error("{0}")]
    Bind(#[from] zen_uring::BindError),
    /// A listener in the reactor.
    #[error("cannot listen: {0}")]
    Listen(#[from] zen_uring::OpError),
    /// A journal.
    #[error("journal: {0}")]
    Journal(#[from] OpenError),
    /// The index of keys.
    #[error(
        "{directory}: {source}; restore idempotency.key of the data directory, or remove this directory, which forgets the keys in it"
    )]
    Index {
        /// The journal's directory.
        directory: String,
        /// What is wrong with a record.
        source: IndexError,
    },
    /// Receipts, or the journal that they are made of again.
    #[error("receipts: {0}; check the disk of node.data_dir, and its receipts directory")]
    Receipts(std::io::Error),
    /// A thread.
    #[error("cannot start a worker thread: {0}; check the process limits (ulimit -u)")]
    Thread(#[from] std::io::Error),
}

/// What a worker gets at its start.
pub struct Launch {
    /// Its index.
    pub index: u16,
    /// Its sockets, which do not listen yet.
    pub bound: Vec<Bound>,
    /// Shared with everybody.
    pub shared: Arc<Shared>,
    /// Prepares its segments.
    pub maker: MakerThread,
    /// Resolves names for it.
    pub resolver: Resolver,
    /// Where streams resume.
    pub watermarks: Arc<Watermarks>,
    /// The tables of keys that all workers share.
    pub keys: Tables,
    /// Its counters.
    pub metrics: Arc<WorkerMetrics>,
    /// The same for all.
    pub backend: Backend,
}

/// The tables of keys of a node's roles.
#[derive(Clone)]
pub struct Tables {
    /// Of accepted events.
    pub ingester: Option<Arc<Keys>>,
    /// Ids of taken events.
    pub egress: Option<Arc<Keys>>,
}

/// Starts all workers; returns when each has recovered and listens, or with the first error.
pub fn start_all(
    launches: Vec<Launch>,
    done: &mpsc::Sender<bool>,
) -> Result<Vec<JoinHandle<()>>, WorkerError> {
    let (started, starting) = std_mpsc::channel();
    let count = launches.len();
    let barrier = Arc::new(std::sync::Barrier::new(count));
    let mut threads = Vec::with_capacity(count);
    for launch in launches {
        let (started, done, barrier) = (started.clone(), done.clone(), Arc::clone(&barrier));
        let thread =
            std::thread::Builder::new().name(format!("worker-{}", launch.index)).stack_size(STACK_BYTES);
        threads.push(thread.spawn(move || run(launch, &started, &done, &barrier))?);
    }
    drop(started);
    for _ in 0..count {
        match starting.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(std::io::Error::other("a worker ended while starting").into()),
        }
    }
    Ok(threads)
}

fn run(
    mut launch: Launch,
    started: &std_mpsc::Sender<Result<(), WorkerError>>,
    done: &mpsc::Sender<bool>,
    barrier: &std::sync::Barrier,
) {
    let bound = std::mem::take(&mut launch.bound);
    let prepared = Worker::prepare(launch);
    let mut worker = match prepared {
        Ok(worker) => worker,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    // Links resume only after every worker has told how far its streams are.
    barrier.wait();
    if let Err(error) = worker.listen(bound) {
        let _ = started.send(Err(error));
        return;
    }
    worker.shared.workers_ready.fetch_add(1, Ordering::AcqRel);
    let _ = started.send(Ok(()));
    let clean = worker.serve();
    let _ = done.blocking_send(clean);
}

impl Worker {
    fn prepare(launch: Launch) -> Result<Self, WorkerError> {
        let snapshot = launch.shared.snapshot.load_full();
        if snapshot.node.pin_workers {
            pin(launch.index);
        }
        let mut reactor = Reactor::new(&reactor_limits(&snapshot.settings()), launch.backend)?;
        launch.shared.mesh.attach(launch.index, reactor.waker());
        let ingester = snapshot.ingester.is_some().then(|| open_ingester(&launch, &snapshot, &mut reactor));
        let egress = snapshot.egress.is_some().then(|| open_egress(&launch, &snapshot, &mut reactor));
        let Launch { index, shared, resolver, metrics, .. } = launch;
        let (mesh, counters) = (shared.mesh.for_worker(index), Arc::clone(&metrics));
        let deliveries = snapshot.egress.is_some().then(|| {
            let paused = Arc::clone(&shared.paused);
            Deliveries::new(index, Arc::clone(&snapshot), paused, mesh.clone(), resolver.clone(), counters)
        });
        let places = shared.link_places.clone();
        let links = Links::new(index, Arc::clone(&snapshot), mesh, resolver, places, Arc::clone(&metrics));
        Ok(Self {
            index,
            reactor,
            shared,
            snapshot,
            listeners: Vec::new(),
            sources: Vec::new(),
            sources_open: 0,
            ingester: ingester.transpose()?,
            egress: egress.transpose()?,
            deliveries,
            links,
            clock: Clock::now(),
            housekeeping_at_ms: 0,
            was_full: true,
            drain_until: None,
            attempts_ended: false,
            metrics,
        })
    }

    fn listen(&mut self, bound: Vec<Bound>) -> Result<(), WorkerError> {
        if let Some(ingester) = &mut self.ingester {
            ingester.handle_recovered();
        }
        if let Some(egress) = &mut self.egress {
            egress.restore();
        }
        for Bound { socket, kind } in bound {
            let listener = self.reactor.listen(socket.listen(BACKLOG)?)?;
            self.listeners.push((listener, kind));
        }
        Ok(())
    }
}

fn journal_start<'a>(launch: &Launch, snapshot: &'a Snapshot, role: JournalRole) -> Start<'a> {
    Start {
        data_dir: &snapshot.node.data_dir,
        settings: snapshot.journal,
        recent_bytes_max: snapshot.journal.recent_bytes_max,
        retention: match (role, &snapshot.egress) {
            (JournalRole::Egress, Some(egress)) => egress.retention,
            _ => RetentionLimits::default(),
        },
        role,
        worker: launch.index,
    }
}

fn open_ingester(
    launch: &Launch,
    snapshot: &Arc<Snapshot>,
    reactor: &mut Reactor,
) -> Result<Ingester, WorkerError> {
    let keys = launch.keys.ingester.as_ref().expect("a node with an ingester has its table");
    let mut outboxes = Vec::new();
    let start = journal_start(launch, snapshot, JournalRole::Ingester);
    let (settings, window_ms) = index_settings(snapshot);
    let index_start = Start { settings, recent_bytes_max: 0, role: JournalRole::Index, ..start };
    let (maker, metrics) = (&launch.maker, &launch.metrics);
    let mut recovering = Recovering::new(Arc::clone(keys), window_ms);
    let mut record = |record: zen_core::journal::Record<'_>| recovering.handle_index(&record);
    let index = journal::open(&index_start, reactor, maker, Arc::clone(metrics), &mut record)?;
    if let Some(source) = recovering.error() {
        let directory = journal::directory(start.data_dir, JournalRole::Index, launch.index);
        return Err(WorkerError::Index { directory: directory.display().to_string(), source });
    }
    let mut record = |record: zen_core::journal::Record<'_>| {
        ingester::recover(&mut outboxes, &record);
        recovering.handle_event(&record);
    };
    let journal = journal::open(&start, reactor, maker, Arc::clone(metrics), &mut record)?;
    let claims = Claims::new(Arc::clone(keys), launch.shared.mesh.for_worker(launch.index), launch.index);
    let index = Index::new(index, settings, recovering);
    let access = Arc::clone(&launch.shared.access);
    Ok(Ingester::new(journal, outboxes, claims, index, Arc::clone(snapshot), access, Arc::clone(metrics)))
}

fn index_settings(snapshot: &Snapshot) -> (JournalSettings, u64) {
    let table = snapshot.ingester.as_ref().expect("only an ingester has an index").idempotency;
    (Index::settings(&snapshot.journal, &table, snapshot.node.workers), table.window_ms)
}

fn open_egress(
    launch: &Launch,
    snapshot: &Arc<Snapshot>,
    reactor: &mut Reactor,
) -> Result<Egress, WorkerError> {
    let ids = launch.keys.egress.as_ref().expect("a node with an egress has its table");
    let (mut table, clock) = (Table::default(), Clock::now());
    let start = journal_start(launch, snapshot, JournalRole::Egress);
    let ordering = &snapshot.egress.as_ref().expect("an egress has its section").ordering;
    let receipts = snapshot.egress.as_ref().and_then(|egress| egress.receipts.clone());
    let mut receipts = RecoveringReceipts::new(receipts, launch.index);
    let mut record = |record: zen_core::journal::Record<'_>| {
        egress::recover_id(ids, &record);
        receipts.handle_record(&table, &record);
        if let Err(error) =
            table.handle_recovered(&record, |due_ms, noted_ms| clock.steady_of(due_ms, noted_ms))
        {
            let sequence = record.sequence.0;
            tracing::error!(%error, sequence, "a journal record with a valid checksum cannot be read");
        }
        egress::recover_order(&mut table, ordering, &record);
    };
    let journal = journal::open(&start, reactor, &launch.maker, Arc::clone(&launch.metrics), &mut record)?;
    let directory = journal::directory(start.data_dir, start.role, start.worker);
    let receipts = receipts.finish(&journal, &directory, start.settings.commit_bytes_max);
    let receipts = receipts.map_err(WorkerError::Receipts)?;
    Ok(Egress::new(
        launch.index,
        journal,
        Held { table, ids: Arc::clone(ids), receipts },
        Arc::clone(snapshot),
        launch.shared.mesh.for_worker(launch.index),
        Arc::clone(&launch.watermarks),
        Arc::clone(&launch.metrics),
    ))
}

fn pin(worker: u16) {
    let cores = zen_uring::online_cores();
    let Some(core) = cores.get(usize::from(worker) % cores.len().max(1)) else { return };
    if let Err(error) = zen_uring::pin_to_core(*core) {
        tracing::warn!(%error, worker, "the worker is not pinned");
    }
}

/// The bounds of a worker's reactor.
pub fn reactor_limits(settings: &Settings<'_>) -> Limits {
    let connections = settings.ingester.map_or(0, |ingester| ingester.connections_max);
    let journals = u64::from(settings.ingester.is_some()) + u64::from(settings.egress.is_some());
    let buffers = (RECEIVE_BUFFERS / settings.node.workers).clamp(128, 512).next_power_of_two();
    // Live segments, two prepared ones, and those that are being removed.
    let segments = |journal: &JournalSettings| journal.bytes_max / journal.segment_bytes + 4;
    let index = settings.ingester.map_or(0, |ingester| {
        segments(&Index::settings(&settings.journal, &ingester.idempotency, settings.node.workers))
    });
    let files = journals * segments(&settings.journal) + index;
    Limits {
        sockets_max: connections + SOCKETS_BESIDE_SOURCES,
        receive_buffers: buffers,
        files_max: u16::try_from(files).expect("the configuration bounds the segments"),
        ..Limits::default()
    }
}
