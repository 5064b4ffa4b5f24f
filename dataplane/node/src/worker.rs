//! One worker: a thread on its core with its ring, its listeners, its journals and its part of the work.
//!
//! A tick collects every completion that is there, lets sessions and machines handle them, and does
//! the batch work once: journal writes, answers, links, deliveries. Nothing here blocks but the ring.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use zen_core::journal::AppendError;
use zen_uring::{Completion, Limits, ListenerId, Reactor, SocketId};

use crate::clock::Clock;
use crate::config::Snapshot;
use crate::control::{Resolver, Shared};
use crate::egress::{Deliveries, Egress, Table, Watermarks};
use crate::ingester::{self, Ingester, Source};
use crate::journal::{self, MakerThread, OpenError, Start, token_role};
use crate::link::{Links, Parts, Side};
use crate::mesh::{JournalRole, Message};
use crate::metrics::WorkerMetrics;
use crate::stream::Stream;
use crate::tls::Tls;

/// Longest sleep of a worker with nothing to do.
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// Deadlines are looked at this often.
const HOUSEKEEPING_MS: u64 = 50;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// After the drain's own deadline, operations get this long to be cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);
/// Links and connections to targets, per worker.
const SOCKETS_BESIDE_SOURCES: u32 = 8192;

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The ring.
    #[error("{0}")]
    Setup(#[from] zen_uring::SetupError),
    /// A listener.
    #[error("{0}")]
    Bind(#[from] zen_uring::BindError),
    /// A listener on the ring.
    #[error("cannot listen: {0}")]
    Listen(#[from] zen_uring::OpError),
    /// A journal.
    #[error("journal: {0}")]
    Journal(#[from] OpenError),
    /// A thread.
    #[error("cannot start a worker thread: {0}; check the process limits (ulimit -u)")]
    Thread(#[from] std::io::Error),
}

/// What a worker gets at its start.
pub struct Launch {
    /// Its index.
    pub index: u16,
    /// Shared with everybody.
    pub shared: Arc<Shared>,
    /// Prepares its segments.
    pub maker: MakerThread,
    /// Resolves names for it.
    pub resolver: Resolver,
    /// Where streams resume.
    pub watermarks: Arc<Watermarks>,
    /// Its counters.
    pub metrics: Arc<WorkerMetrics>,
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
        let thread = std::thread::Builder::new().name(format!("worker-{}", launch.index));
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
    launch: Launch,
    started: &std_mpsc::Sender<Result<(), WorkerError>>,
    done: &mpsc::Sender<bool>,
    barrier: &std::sync::Barrier,
) {
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
    if let Err(error) = worker.listen() {
        let _ = started.send(Err(error));
        return;
    }
    worker.shared.workers_ready.fetch_add(1, Ordering::AcqRel);
    let _ = started.send(Ok(()));
    let clean = worker.serve();
    let _ = done.blocking_send(clean);
}

enum Listening {
    Sources,
    Links(Side),
}

/// The links' view of a worker, without the links themselves.
macro_rules! parts {
    ($worker:ident) => {
        Parts {
            reactor: &mut $worker.reactor,
            ingester: $worker.ingester.as_mut(),
            egress: $worker.egress.as_mut(),
        }
    };
}

struct Worker {
    index: u16,
    reactor: Reactor,
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    listeners: Vec<(ListenerId, Listening)>,
    sources: Vec<Option<(SocketId, Box<Source>)>>,
    sources_open: u32,
    ingester: Option<Ingester>,
    egress: Option<Egress>,
    deliveries: Option<Deliveries>,
    links: Links,
    clock: Clock,
    housekeeping_ms: u64,
    was_full: bool,
    drain_until: Option<Instant>,
    metrics: Arc<WorkerMetrics>,
}

impl Worker {
    fn prepare(launch: Launch) -> Result<Self, WorkerError> {
        let snapshot = launch.shared.snapshot.load_full();
        if snapshot.node.pin_workers {
            pin(launch.index);
        }
        let mut reactor = Reactor::new(&limits(&snapshot))?;
        launch.shared.mesh.attach(launch.index, reactor.waker());
        let ingester = snapshot.ingester.is_some().then(|| open_ingester(&launch, &snapshot, &mut reactor));
        let egress = snapshot.egress.is_some().then(|| open_egress(&launch, &snapshot, &mut reactor));
        let Launch { index, shared, resolver, metrics, .. } = launch;
        let (mesh, counters) = (shared.mesh.for_worker(index), Arc::clone(&metrics));
        let deliveries = snapshot
            .egress
            .is_some()
            .then(|| Deliveries::new(index, Arc::clone(&snapshot), mesh.clone(), resolver.clone(), counters));
        let links = Links::new(index, Arc::clone(&snapshot), mesh, resolver, Arc::clone(&metrics));
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
            housekeeping_ms: 0,
            was_full: true,
            drain_until: None,
            metrics,
        })
    }

    fn listen(&mut self) -> Result<(), WorkerError> {
        let snapshot = Arc::clone(&self.snapshot);
        if let Some(settings) = &snapshot.ingester {
            for address in &settings.listen {
                self.listen_on(*address, Listening::Sources)?;
            }
            if let Some(address) = settings.link_listen {
                self.listen_on(address, Listening::Links(Side::Ingester))?;
            }
        }
        if let Some(address) = snapshot.egress.as_ref().and_then(|settings| settings.link_listen) {
            self.listen_on(address, Listening::Links(Side::Egress))?;
        }
        if let Some(egress) = &mut self.egress {
            egress.restore();
        }
        Ok(())
    }

    fn listen_on(&mut self, address: SocketAddr, kind: Listening) -> Result<(), WorkerError> {
        let fd = zen_uring::bind_reuseport(address, BACKLOG)?;
        let listener = self.reactor.listen(fd)?;
        self.listeners.push((listener, kind));
        Ok(())
    }

    /// Runs until drained; whether everything was finished by then.
    fn serve(&mut self) -> bool {
        let mut completions = Vec::with_capacity(1024);
        loop {
            let wait = self.wait();
            self.round(Some(wait), &mut completions);
            if self.has_open_records() {
                // One more round before the batch is sealed: what is on its way joins it.
                self.round(Some(Duration::ZERO), &mut completions);
            }
            self.batch();
            if let Some(clean) = self.drained() {
                let _ = self.reactor.drain(Instant::now() + CANCEL_TIMEOUT);
                return clean;
            }
        }
    }

    fn round(&mut self, wait: Option<Duration>, completions: &mut Vec<Completion>) {
        self.reactor.tick(wait, completions);
        self.set_clock();
        self.metrics.ring_completions.add(completions.len() as u64);
        for completion in completions.drain(..) {
            self.handle(completion);
        }
        self.read_inbox();
    }

    fn read_inbox(&mut self) {
        while let Some(message) = self.shared.mesh.receive(self.index) {
            self.handle_message(message);
        }
    }

    fn set_clock(&mut self) {
        self.clock = Clock::now();
        self.links.handle_clock(self.clock);
        if let Some(ingester) = &mut self.ingester {
            ingester.handle_clock(self.clock);
        }
        if let Some(egress) = &mut self.egress {
            egress.handle_clock(self.clock);
        }
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.handle_clock(self.clock);
        }
    }

    /// The tick's work that is done once for everything that came.
    fn batch(&mut self) {
        self.take_snapshot();
        if let Some(ingester) = &mut self.ingester {
            ingester.commit(&mut self.reactor);
        }
        self.answer();
        if let Some(egress) = &mut self.egress {
            egress.commit(&mut self.reactor);
        }
        // Deliveries of our own targets start in the tick in which their events became durable.
        self.read_inbox();
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.start_attempts(&mut self.reactor);
        }
        self.links.pump(&mut parts!(self));
        if self.clock.unix_ms >= self.housekeeping_ms {
            self.housekeeping_ms = self.clock.unix_ms + HOUSEKEEPING_MS;
            self.keep_house();
        }
    }

    fn handle(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { listener, socket } => self.handle_accepted(listener, socket),
            Completion::Connected { socket, result } => {
                if self.links.has(socket) {
                    self.links.handle_connected(socket, &result, &mut parts!(self));
                } else if let Some(deliveries) = &mut self.deliveries {
                    deliveries.handle_connected(socket, result, &mut self.reactor);
                }
            }
            Completion::Received { socket, buffer } => self.handle_received(socket, buffer),
            Completion::Closed { socket, error: _ } => self.handle_closed(socket),
            Completion::Sent { socket, buffer, result } => self.handle_sent(socket, buffer, result),
            Completion::Detached { socket, fd } => self.links.handle_detached(socket, fd),
            Completion::Wrote { token, buffer, result, .. } => self.handle_wrote(token, buffer, result),
            Completion::Read { token, buffer, result, .. } => {
                let (role, value) = token_role(token);
                match (role, &mut self.ingester, &mut self.egress) {
                    (JournalRole::Ingester, Some(ingester), _) => ingester.handle_read(value, buffer, result),
                    (JournalRole::Egress, _, Some(egress)) => egress.handle_read(buffer, result),
                    _ => unreachable!("a read belongs to a journal that is open"),
                }
            }
            Completion::Synced { .. } | Completion::Timer { .. } | Completion::Woken => {}
        }
    }

    fn handle_accepted(&mut self, listener: ListenerId, socket: SocketId) {
        let kind = self.listeners.iter().find(|(id, _)| *id == listener).map(|(_, kind)| kind);
        match kind {
            Some(Listening::Sources) => self.accept_source(socket),
            Some(&Listening::Links(side)) => self.links.handle_accepted(socket, side, &mut self.reactor),
            None => self.reactor.close(socket),
        }
    }

    fn accept_source(&mut self, socket: SocketId) {
        let settings = self.snapshot.ingester.as_ref().expect("sources come to an ingester's listener");
        if self.sources_open >= settings.connections_max {
            self.metrics.requests_refused.add("connections");
            self.reactor.close(socket);
            return;
        }
        let Ok(tls) = Tls::accept(&settings.public_tls) else {
            self.reactor.close(socket);
            return;
        };
        let stream = Stream::start(socket, tls, &mut self.reactor);
        let source = Box::new(Source::new(stream, self.clock.unix_ms));
        let index = socket.index();
        if index >= self.sources.len() {
            self.sources.resize_with(index + 1, || None);
        }
        self.sources[index] = Some((socket, source));
        self.sources_open += 1;
    }

    /// The ring lends its buffer for decryption only; then it is free for the next receive.
    fn handle_received(&mut self, socket: SocketId, buffer: zen_uring::ReceiveBuffer) {
        let bytes = self.reactor.bytes(&buffer);
        if let Some(mut source) = take_source(&mut self.sources, socket) {
            let decrypted = source.decrypt(bytes);
            self.reactor.recycle(buffer);
            let ingester = self.ingester.as_mut().expect("sources belong to an ingester");
            source.handle_received(decrypted, ingester, &mut self.reactor, self.clock.unix_ms);
            self.put_source(source);
        } else if self.links.has(socket) {
            let decrypted = self.links.decrypt(socket, bytes);
            self.reactor.recycle(buffer);
            self.links.handle_received(socket, decrypted, &mut parts!(self));
        } else if let Some(deliveries) = &mut self.deliveries {
            let decrypted = deliveries.decrypt(socket, bytes);
            self.reactor.recycle(buffer);
            deliveries.handle_received(socket, decrypted, &mut self.reactor);
        } else {
            self.reactor.recycle(buffer);
        }
    }

    fn handle_closed(&mut self, socket: SocketId) {
        if let Some(mut source) = take_source(&mut self.sources, socket) {
            self.drop_source(&mut source);
        } else if self.links.has(socket) {
            self.links.handle_closed(socket, &mut self.reactor);
        } else if let Some(deliveries) = &mut self.deliveries {
            deliveries.handle_closed(socket, &mut self.reactor);
        }
    }

    fn handle_sent(&mut self, socket: SocketId, buffer: Vec<u8>, result: Result<(), std::io::Error>) {
        if let Some(mut source) = take_source(&mut self.sources, socket) {
            if result.is_err() {
                self.drop_source(&mut source);
                return;
            }
            let ingester = self.ingester.as_mut().expect("sources belong to an ingester");
            source.handle_sent(buffer, ingester, &mut self.reactor, self.clock.unix_ms);
            self.put_source(source);
        } else if self.links.has(socket) {
            self.links.handle_sent(socket, buffer, &result, &mut self.reactor);
        } else if let Some(deliveries) = &mut self.deliveries {
            deliveries.handle_sent(socket, buffer, result, &mut self.reactor);
        }
    }

    fn handle_wrote(
        &mut self,
        token: u64,
        buffer: zen_uring::AlignedBuffer,
        result: Result<(), std::io::Error>,
    ) {
        let failed = result.is_err();
        match (token_role(token).0, &mut self.ingester, &mut self.egress) {
            (JournalRole::Ingester, Some(ingester), _) => {
                ingester.journal_mut().handle_wrote(token, buffer, result, self.clock.unix_ms);
                if failed {
                    ingester.handle_write_error();
                }
            }
            (JournalRole::Egress, _, Some(egress)) => {
                egress.journal_mut().handle_wrote(token, buffer, result, self.clock.unix_ms);
            }
            _ => unreachable!("a write belongs to a journal that is open"),
        }
    }

    fn handle_message(&mut self, message: Message) {
        match message {
            Message::Segment { role, id, file } => {
                let journal = match role {
                    JournalRole::Ingester => self.ingester.as_mut().map(Ingester::journal_mut),
                    JournalRole::Egress => self.egress.as_mut().map(Egress::journal_mut),
                };
                journal.expect("asked for by this journal").handle_segment(&mut self.reactor, id, file);
            }
            Message::Resolved { host, result } => {
                let addresses = result.as_deref().unwrap_or_default();
                self.links.handle_resolved(&host, addresses, &mut self.reactor);
                if let Some(deliveries) = &mut self.deliveries {
                    deliveries.handle_resolved(&host, result, &mut self.reactor);
                }
            }
            Message::Link(handover) => self.links.handle_handover(*handover, &mut parts!(self)),
            Message::Streams { ingester, streams } => self.links.handle_streams(ingester, streams),
            Message::Deliver(handoff) => {
                self.deliveries.as_mut().expect("an egress delivers").handle_handoff(handoff);
            }
            Message::Verdict { key, target_index, verdict } => {
                self.egress.as_mut().expect("an egress holds events").handle_verdict(
                    key,
                    target_index,
                    &verdict,
                );
            }
            Message::Fetch { key, target, reply_to } => {
                self.egress.as_mut().expect("an egress holds events").handle_fetch(key, target, reply_to);
            }
            Message::Fetched { key, target, bytes } => {
                self.deliveries.as_mut().expect("an egress delivers").handle_fetched(key, &target, bytes);
            }
            Message::Drain => self.drain(),
        }
    }

    /// Sends the answers that became due.
    fn answer(&mut self) {
        loop {
            let Some(answer) = self.ingester.as_mut().and_then(Ingester::poll_answer) else { return };
            let Some(mut source) = take_source(&mut self.sources, answer.socket) else { continue };
            let ingester = self.ingester.as_mut().expect("answers come from an ingester");
            let now_ms = self.clock.unix_ms;
            match answer.id {
                Some(id) => source.handle_durable(id, ingester, &mut self.reactor, now_ms),
                None => source.handle_unavailable(ingester, &mut self.reactor, now_ms),
            }
            self.put_source(source);
        }
    }

    fn has_open_records(&self) -> bool {
        self.ingester.as_ref().is_some_and(|ingester| ingester.journal().open_records() > 0)
    }

    fn take_snapshot(&mut self) {
        let current = self.shared.snapshot.load();
        if current.generation == self.snapshot.generation {
            return;
        }
        self.snapshot = Arc::clone(&current);
        drop(current);
        self.links.handle_snapshot(Arc::clone(&self.snapshot));
        if let Some(ingester) = &mut self.ingester {
            ingester.handle_snapshot(Arc::clone(&self.snapshot));
        }
        if let Some(egress) = &mut self.egress {
            egress.handle_snapshot(Arc::clone(&self.snapshot));
        }
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.handle_snapshot(Arc::clone(&self.snapshot), &mut self.reactor);
        }
    }

    /// Deadlines, trimming and gauges, a few times a second.
    fn keep_house(&mut self) {
        self.links.handle_time(&mut parts!(self));
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.handle_time(&mut self.reactor);
        }
        for index in 0..self.sources.len() {
            let Some((_, mut source)) = self.sources[index].take() else { continue };
            let ingester = self.ingester.as_mut().expect("sources belong to an ingester");
            source.handle_time(ingester, &mut self.reactor, self.clock.unix_ms);
            self.put_source(source);
        }
        if let Some(ingester) = &mut self.ingester {
            ingester.trim(&mut self.reactor);
        }
        self.observe();
    }

    fn observe(&mut self) {
        self.metrics.source_connections.set(u64::from(self.sources_open));
        self.metrics.ring_enters.set(self.reactor.counters().enters);
        self.links.observe();
        let (mut live_bytes, mut full) = (0, false);
        if let Some(ingester) = &self.ingester {
            live_bytes += ingester.journal().bytes_live();
            full |= !ingester.has_room();
            self.metrics.link_lag_events.set(ingester.lag());
        }
        if let Some(egress) = &self.egress {
            live_bytes += egress.journal().bytes_live();
            full |= egress.journal().can_append(0) == Err(AppendError::NoSegment);
            egress.observe();
        }
        if let Some(deliveries) = &self.deliveries {
            deliveries.observe();
        }
        self.metrics.journal_live_bytes.set(live_bytes);
        self.metrics.journal_full.set(u64::from(full));
        if full != self.was_full {
            self.was_full = full;
            let change = if full { 1 } else { u16::MAX };
            self.shared.workers_full.fetch_add(change, Ordering::AcqRel);
        }
    }

    /// How long the ring may sleep.
    fn wait(&self) -> Duration {
        if self.shared.mesh.has_messages(self.index) {
            return Duration::ZERO;
        }
        let now_ms = self.clock.unix_ms;
        let due = [self.links.poll_timeout(), self.deliveries.as_ref().and_then(Deliveries::poll_timeout)];
        let due_ms = due.into_iter().flatten().min().map_or(u64::MAX, |due| due.saturating_sub(now_ms));
        IDLE_WAIT.min(Duration::from_millis(due_ms.max(1)))
    }

    fn drain(&mut self) {
        if self.drain_until.is_some() {
            return;
        }
        self.drain_until = Some(Instant::now() + Duration::from_millis(self.snapshot.node.drain_timeout_ms));
        self.metrics.drain.set(1);
        for (listener, _) in self.listeners.drain(..) {
            self.reactor.stop_listening(listener);
        }
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.drain();
        }
        if let Some(ingester) = &mut self.ingester {
            ingester.drain();
        }
        for index in 0..self.sources.len() {
            let Some((_, mut source)) = self.sources[index].take() else { continue };
            let ingester = self.ingester.as_mut().expect("sources belong to an ingester");
            source.handle_drain(ingester, &mut self.reactor);
            self.put_source(source);
        }
        self.links.drain(&mut self.reactor);
    }

    /// Whether a drain ended, and how: with everything finished, or by its deadline.
    fn drained(&mut self) -> Option<bool> {
        let until = self.drain_until?;
        let quiet = self.sources_open == 0
            && self.ingester.as_ref().is_none_or(Ingester::is_quiet)
            && self.egress.as_ref().is_none_or(Egress::is_quiet)
            && self.deliveries.as_ref().is_none_or(Deliveries::is_quiet);
        if quiet {
            return Some(true);
        }
        (Instant::now() >= until).then_some(false)
    }

    /// Puts a source back, or closes it when it has nothing left to say.
    fn put_source(&mut self, mut source: Box<Source>) {
        if source.is_done() {
            self.drop_source(&mut source);
            return;
        }
        let socket = source.stream.socket;
        self.sources[socket.index()] = Some((socket, source));
    }

    fn drop_source(&mut self, source: &mut Source) {
        source.release(self.ingester.as_mut().expect("sources belong to an ingester"));
        self.reactor.close(source.stream.socket);
        self.sources_open -= 1;
    }
}

fn take_source(sources: &mut [Option<(SocketId, Box<Source>)>], socket: SocketId) -> Option<Box<Source>> {
    let slot = sources.get_mut(socket.index())?;
    if slot.as_ref()?.0 != socket {
        return None;
    }
    slot.take().map(|(_, source)| source)
}

fn journal_start<'a>(launch: &Launch, snapshot: &'a Snapshot, role: JournalRole) -> Start<'a> {
    Start {
        data_dir: &snapshot.node.data_dir,
        settings: snapshot.journal,
        recent_bytes_max: snapshot.journal.recent_bytes_max,
        role,
        worker: launch.index,
    }
}

fn open_ingester(
    launch: &Launch,
    snapshot: &Arc<Snapshot>,
    reactor: &mut Reactor,
) -> Result<Ingester, OpenError> {
    let mut outboxes = Vec::new();
    let start = journal_start(launch, snapshot, JournalRole::Ingester);
    let mut record = |record: zen_core::journal::Record<'_>| ingester::recover(&mut outboxes, &record);
    let journal = journal::open(&start, reactor, &launch.maker, Arc::clone(&launch.metrics), &mut record)?;
    Ok(Ingester::new(journal, outboxes, Arc::clone(snapshot), Arc::clone(&launch.metrics)))
}

fn open_egress(
    launch: &Launch,
    snapshot: &Arc<Snapshot>,
    reactor: &mut Reactor,
) -> Result<Egress, OpenError> {
    let mut table = Table::default();
    let start = journal_start(launch, snapshot, JournalRole::Egress);
    let mut record = |record: zen_core::journal::Record<'_>| {
        if let Err(error) = table.handle_recovered(&record) {
            let sequence = record.sequence.0;
            tracing::error!(%error, sequence, "a journal record with a valid checksum cannot be read");
        }
    };
    let journal = journal::open(&start, reactor, &launch.maker, Arc::clone(&launch.metrics), &mut record)?;
    Ok(Egress::new(
        launch.index,
        journal,
        table,
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

fn limits(snapshot: &Snapshot) -> Limits {
    let connections = snapshot.ingester.as_ref().map_or(0, |settings| settings.connections_max);
    Limits { sockets_max: connections + SOCKETS_BESIDE_SOURCES, ..Limits::default() }
}
