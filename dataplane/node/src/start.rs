//! Start-up in order: configuration, certificates, addresses, privileges, journals and sockets on each worker, ready.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, mpsc};
use zen_uring::{Backend, Io};

use crate::admin::{self, AdminError};
use crate::clock::Clock;
use crate::config::{
    self, Certificates, ConfigError, IdempotencySettings, Located, MemoryBound, NodeSettings, Place, Raw,
    Snapshot, mib,
};
use crate::control::{self, Control, Resolver, Shared};
use crate::dedupe::{self, HashKeyError, Keys, Waiting};
use crate::deny_age::DenyListAge;
use crate::ebpf::{Drops, Programs, Stations};
use crate::egress::{Paused, PausedError, Table, Watermarks};
use crate::hmac::Kernels;
use crate::ingester::{self, Access, Recovering};
use crate::journal::{self, OpenError, spawn_segment_maker};
use crate::listeners::Listeners;
use crate::mesh::{JournalRole, Mesh};
use crate::metrics::{Metrics, NodeMetrics, WorkerMetrics};
use crate::privileges::{self, Privileges};
use crate::quota::Quota;
use crate::reload::InForce;
use crate::worker::{self, Launch, Tables, WorkerError};
use crate::{receipts, spans};

/// Why a node did not start, or did not end well. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// A journal.
    #[error("journal: {0}")]
    Journal(#[from] OpenError),
    /// The secret that keys are made with.
    #[error("{0}")]
    HashKey(#[from] HashKeyError),
    /// The file of paused targets.
    #[error("{0}")]
    Paused(#[from] PausedError),
    /// A table of keys.
    #[error("idempotency: {0}")]
    Keys(#[from] zen_core::dedupe::LimitsError),
    /// An address.
    #[error("{0}")]
    Bind(#[from] zen_uring::BindError),
    /// A worker's ring or sockets.
    #[error("{0}")]
    Worker(#[from] WorkerError),
    /// A program in the kernel that is required.
    #[error("ebpf: {0}")]
    Ebpf(#[from] zen_ebpf::EbpfError),
    /// The admin listeners.
    #[error("{0}")]
    Admin(#[from] AdminError),
    /// A thread or the control runtime.
    #[error("cannot start a thread: {0}; check the process limits (ulimit -u)")]
    Thread(#[from] std::io::Error),
    /// Another node uses the data directory.
    #[error("{directory}: another node is using this data directory; stop it, or give node.data_dir its own")]
    Locked {
        /// The directory.
        directory: String,
    },
    /// The effective configuration cannot be printed.
    #[error("cannot print the configuration: {0}")]
    Print(#[from] toml::ser::Error),
    /// A worker did not finish in time.
    #[error("the drain deadline passed before everything was finished; what was accepted is in the journal")]
    Drain,
}

/// Prints the effective configuration.
pub fn print_config(place: &Place) -> Result<(), StartError> {
    let located = place.locate().map_err(ConfigError::from)?;
    let raw = config::read(&located.file)?;
    print!("{}", toml::to_string(&raw)?);
    Ok(())
}

/// Checks a configuration and everything it names.
pub fn check_config(place: &Place) -> Result<(), StartError> {
    let (located, _, snapshot) = load(place)?;
    let endpoints = snapshot.ingester.as_ref().map_or(0, |ingester| ingester.endpoints.len());
    let targets = snapshot.egress.as_ref().map_or(0, |egress| egress.targets.len());
    println!(
        "{}: good: {endpoints} endpoints, {targets} targets, {} workers",
        located.file.display(),
        snapshot.node.workers
    );
    let bound = MemoryBound::of(&snapshot.settings());
    let (total, max) = (mib(bound.total()), snapshot.node.memory_bytes_max >> 20);
    print!("{bound}");
    println!("memory: at most {total} MiB (limit {max} MiB)");
    Ok(())
}

/// Runs a node until it has drained.
pub fn run(place: Place, io: Io, hmac: Kernels) -> Result<(), StartError> {
    let (located, certificates, snapshot) = load(&place)?;
    start_log(&snapshot.raw);
    std::fs::create_dir_all(&snapshot.node.data_dir)?;
    let _lock = lock_data_dir(&snapshot)?;
    let taken = take(&located, &certificates, &snapshot, (io, hmac))?;
    let Taken { programs, drops, mut listeners, groups, admin, privileges, backend } = taken;
    let keys = tables(&snapshot)?;
    remove_orphans(&snapshot, &keys)?;
    let (mesh, paused) = (Mesh::new(snapshot.node.workers), Arc::new(Paused::load(&snapshot.node.data_dir)?));
    let order_places = usize::from(mesh.workers()) * control::ORDERS_MAX;
    let maker = spawn_segment_maker(mesh.clone())?;
    let rate_sources_max =
        snapshot.ingester.as_ref().map_or(0, |ingester| ingester.rate_sources_max as usize);
    let (node_metrics, deny_list_age, [status, deny_list]) = first_look(&snapshot, &certificates);
    let shared = Arc::new(Shared {
        workers_ready: AtomicU16::new(0),
        workers_quiet: AtomicU16::new(0),
        // Each worker takes itself off this count when its first segments are prepared.
        workers_full: AtomicU16::new(mesh.workers()),
        snapshot: ArcSwap::from_pointee(snapshot),
        mesh,
        source_places: Quota::default(),
        access: Arc::new(Access::new(rate_sources_max)),
        link_places: Quota::default(),
        draining: AtomicBool::new(false),
        order_places: Arc::new(Semaphore::new(order_places)),
        paused,
        privileges,
        hmac,
        programs: Arc::new(Mutex::new(programs)),
        drops: Mutex::new(drops),
        status,
        deny_list,
    });
    let (resolver, questions) = Resolver::channel();
    let (done, workers_done) = mpsc::channel(usize::from(shared.mesh.workers()));
    let watermarks = Arc::new(Watermarks::default());
    let metrics: Vec<_> = (0..shared.mesh.workers()).map(|_| Arc::new(WorkerMetrics::default())).collect();
    let (writer, beside) = start_evidence(&shared.snapshot.load())?;
    let launches = metrics.iter().enumerate().map(|(index, metrics)| Launch {
        index: index as u16,
        bound: listeners.take(index as u16),
        shared: Arc::clone(&shared),
        maker: maker.clone(),
        resolver: resolver.clone(),
        watermarks: Arc::clone(&watermarks),
        keys: keys.clone(),
        metrics: Arc::clone(metrics),
        backend,
    });
    let threads = worker::start_all(launches.collect(), &done)?;
    control::lock(&shared.programs).steer(&groups);
    // Held on to, they would go on listening when their workers have drained.
    drop((done, groups));
    let control = Control {
        shared: Arc::clone(&shared),
        admin,
        place,
        refused: None,
        deny_list_age,
        certificates,
        questions,
        metrics: Metrics::new([metrics, beside].concat(), Arc::clone(&node_metrics)),
        node_metrics,
    };
    let clean = runtime()?.block_on(control::run(control, workers_done))?;
    for thread in threads {
        let _ = thread.join();
    }
    writer.into_iter().for_each(receipts::Writer::close);
    tracing::info!(clean, "stopped");
    if clean { Ok(()) } else { Err(StartError::Drain) }
}

/// What there is to see of a node before its first handshake: metrics, the age of its deny list, and the lines of its status.
fn first_look(
    snapshot: &Snapshot,
    certificates: &Certificates,
) -> (Arc<NodeMetrics>, DenyListAge, [ArcSwap<String>; 2]) {
    let metrics = Arc::new(node_metrics(snapshot, certificates));
    let mut age = DenyListAge::default();
    let deny_list = age.handle_time(&snapshot.node, (&certificates.svid, &metrics), SystemTime::now());
    (metrics, age, [InForce::of(snapshot).to_string(), deny_list].map(ArcSwap::from_pointee))
}

/// What is known of a configuration before the first scrape.
fn node_metrics(snapshot: &Snapshot, certificates: &Certificates) -> NodeMetrics {
    let metrics = NodeMetrics { trials: Arc::clone(&certificates.trials), ..NodeMetrics::default() };
    metrics.memory_bound_bytes.set(MemoryBound::of(&snapshot.settings()).total());
    metrics.deny_list_entries.set(snapshot.svid.deny_list().len() as u64);
    if let Some(managed) = snapshot.managed {
        metrics.managed_generation.set(managed);
        tracing::info!(managed, "a managed generation is in force");
    }
    metrics
}

/// The control thread's.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(control::BLOCKING_MAX)
        .thread_stack_size(control::LOOKUP_STACK_BYTES)
        .build()
}

/// What needs privileges, and is there when they are gone.
struct Taken {
    programs: Programs,
    drops: Drops,
    listeners: Listeners,
    /// The same sockets by address, if they are to be steered.
    groups: Vec<(SocketAddr, Vec<OwnedFd>)>,
    admin: Option<TcpSocket>,
    privileges: Privileges,
    backend: Backend,
}

/// The kernel's programs come first: sockets belong to the cgroup in which they are made.
fn take(
    located: &Located,
    certificates: &Certificates,
    snapshot: &Snapshot,
    (io, hmac): (Io, Kernels),
) -> Result<Taken, StartError> {
    let mut programs = Programs::attach(&snapshot.ebpf, &Stations::of(snapshot), Clock::now().wall_ms)?;
    let drops = Drops::new(programs.take_refusals());
    let (listeners, admin) = (Listeners::bind(snapshot)?, admin::bind(&snapshot.raw.admin)?);
    let groups = if programs.steers() { listeners.groups()? } else { Vec::new() };
    let privileges = give_up_privileges(located, certificates, &snapshot.node);
    let backend = choose_backend(&snapshot.node, io, hmac)?;
    Ok(Taken { programs, drops, listeners, groups, admin, privileges, backend })
}

/// Before the first thread. Without capabilities root reads only what modes let it read, reloads included.
fn give_up_privileges(located: &Located, certificates: &Certificates, settings: &NodeSettings) -> Privileges {
    let overrode_modes = privileges::overrides_modes();
    let privileges = Privileges::give_up(settings);
    if overrode_modes && !privileges.has_capabilities() {
        let raw = config::read(&located.file);
        let reloaded = raw.and_then(|raw| {
            config::deny_list(located, &raw)?;
            certificates.prepare(located, &raw)?;
            config::validate(located, raw, certificates, 1)
        });
        if let Err(error) = reloaded {
            tracing::warn!(
                "without capabilities a reload will be refused: {error}; let the node's user read these files, or set \
                 node.drop_capabilities = false"
            );
        }
    }
    privileges
}

fn load(place: &Place) -> Result<(Located, Certificates, Snapshot), StartError> {
    let located = place.locate().map_err(ConfigError::from)?;
    let raw = config::read(&located.file)?;
    let certificates = Certificates::load(&located, &raw)?;
    let snapshot = config::validate(&located, raw, &certificates, 1)?;
    Ok((located, certificates, snapshot))
}

/// Threads for receipts and spans, where they are configured, and what they count.
fn start_evidence(
    snapshot: &Snapshot,
) -> std::io::Result<(Option<receipts::Writer>, Vec<Arc<WorkerMetrics>>)> {
    let receipts = snapshot.egress.as_ref().and_then(|egress| egress.receipts.clone());
    let writer =
        receipts.map(|receipts| receipts::Writer::start(receipts, &snapshot.node.name)).transpose()?;
    let mut beside: Vec<_> = writer.iter().map(|writer| Arc::clone(&writer.metrics)).collect();
    if let Some(export) = snapshot.tracing.export.clone() {
        beside.push(spans::start(export, Arc::clone(&snapshot.reach), snapshot.node.name.clone())?);
    }
    Ok((writer, beside))
}

/// Once for all workers; that `io_uring` is blocked is said here, with the remedy, and nowhere else.
fn choose_backend(node: &NodeSettings, io: Io, hmac: Kernels) -> Result<Backend, WorkerError> {
    let chosen = Backend::choose(io)?;
    tracing::info!(node = node.name, workers = node.workers, io = %chosen, %hmac, "starting");
    hmac.warn();
    if let Some(reason) = &chosen.reason {
        tracing::warn!(%reason, "io_uring is blocked, epoll takes its place and costs more per event");
    }
    Ok(chosen.backend)
}

/// The tables of keys, to be filled by recovery.
fn tables(snapshot: &Snapshot) -> Result<Tables, StartError> {
    let hasher = dedupe::load_hash_key(&snapshot.node.data_dir, snapshot.node.hasher.as_ref())?;
    let now_ms = Clock::now().wall_ms;
    let table = |settings: IdempotencySettings, waiting| {
        let (keys_max, bytes) = (settings.keys_max, dedupe::memory_bytes(&settings, waiting));
        tracing::debug!(keys_max, bytes, "a table of idempotency keys");
        Keys::new(&settings, hasher.clone(), waiting, now_ms).map(Arc::new)
    };
    let ingester = snapshot.ingester.as_ref().map(|settings| table(settings.idempotency, Waiting::Allowed));
    let egress = snapshot.egress.as_ref().map(|settings| table(settings.idempotency, Waiting::Refused));
    Ok(Tables { ingester: ingester.transpose()?, egress: egress.transpose()? })
}

/// After a change to fewer workers: journals that hold nothing go, others stop the start. Their keys count.
fn remove_orphans(snapshot: &Snapshot, keys: &Tables) -> Result<(), OpenError> {
    let NodeSettings { data_dir, workers, .. } = &snapshot.node;
    let window_ms = snapshot.ingester.as_ref().map_or(0, |settings| settings.idempotency.window_ms);
    journal::remove_orphans(data_dir, &snapshot.journal, *workers, |role, read| {
        let (mut outboxes, mut table, clock) = (Vec::new(), Table::default(), Clock::now());
        let mut recovering = keys.ingester.clone().map(|keys| Recovering::new(keys, window_ms));
        read(&mut |record| match (role, &mut recovering) {
            (JournalRole::Ingester, recovering) => {
                ingester::recover(&mut outboxes, &record);
                if let Some(recovering) = recovering {
                    recovering.handle_event(&record);
                }
            }
            (JournalRole::Egress, _) => drop(table.handle_recovered(&record, |due_ms, _| due_ms)),
            (JournalRole::Index, Some(recovering)) => recovering.handle_index(&record),
            (JournalRole::Index, None) => {}
        });
        let has_keys = recovering.is_some_and(|recovering| recovering.has_keys(clock.wall_ms));
        table.is_empty() && !outboxes.iter().any(|outbox| outbox.is_behind()) && !has_keys
    })
}

fn start_log(raw: &Raw) {
    let filter = tracing_subscriber::EnvFilter::try_new(&raw.node.log).expect("checked with all other keys");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}

/// Two nodes on one journal would destroy it: the directory is locked while this one runs.
fn lock_data_dir(snapshot: &Snapshot) -> Result<std::fs::File, StartError> {
    let path = snapshot.node.data_dir.join("lock");
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(path)?;
    file.try_lock()
        .map_err(|_| StartError::Locked { directory: snapshot.node.data_dir.display().to_string() })?;
    Ok(file)
}
