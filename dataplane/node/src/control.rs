//! The control thread: signals, reload, certificates, names, admin. It may hang without stopping a
//! worker; workers only see snapshots, messages and resolved addresses.

use std::net::ToSocketAddrs;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};

use crate::admin;
use crate::config::{Certificates, Place, Snapshot};
use crate::deny_age::DenyListAge;
use crate::ebpf;
use crate::ebpf::{Drops, Programs};
use crate::egress::Paused;
use crate::hmac::Kernels;
use crate::ingester::Access;
use crate::mesh::{Mesh, Message};
use crate::metrics::{Metrics, NodeMetrics};
use crate::oauth::Keepers;
use crate::privileges::Privileges;
use crate::quota::Quota;
use crate::reload::{self, Refused, ReloadOrder};

/// How often the rings of refusals are read.
const DROPS_POLL: Duration = Duration::from_millis(100);
/// Names that may wait to be resolved.
const QUESTIONS_MAX: usize = 1024;
/// A name that takes longer counts as not found.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Names being resolved, those included that took too long: the system's resolver cannot be stopped.
const LOOKUPS_MAX: usize = 8;
/// Orders of operators on their way, per worker.
pub const ORDERS_MAX: usize = 8;
/// Addresses of a name that are used.
const ADDRESSES_MAX: usize = 16;
/// Threads for what may block: lookups, walks over journals, and the file of paused targets.
pub const BLOCKING_MAX: usize = LOOKUPS_MAX + admin::WALKS_MAX + admin::REPLAYS_MAX + admin::HOLDS_MAX;
/// What a thread that resolves may need of its stack, bytes.
pub const LOOKUP_STACK_BYTES: usize = 512 * 1024;

/// What all threads of a node share.
pub struct Shared {
    /// The configuration in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// Ways to the workers.
    pub mesh: Mesh,
    /// Workers that are up: sockets bound, journals recovered.
    pub workers_ready: AtomicU16,
    /// Workers that drain and have ended their last attempt.
    pub workers_quiet: AtomicU16,
    /// Workers without room in a journal.
    pub workers_full: AtomicU16,
    /// Sources connected, over all workers.
    pub source_places: Quota,
    /// Rates of endpoints and sources.
    pub access: Arc<Access>,
    /// Links that carry events, over all workers.
    pub link_places: Quota,
    /// Whether the node is draining.
    pub draining: AtomicBool,
    /// Orders of operators that may be on their way to workers.
    pub order_places: Arc<Semaphore>,
    /// Targets that operators paused.
    pub paused: Arc<Paused>,
    /// Programs in the kernel.
    pub programs: Arc<Mutex<Programs>>,
    /// What they refused last.
    pub drops: Mutex<Drops>,
    /// What the process gave up.
    pub privileges: Privileges,
    /// What computes HMACs.
    pub hmac: Kernels,
    /// What the last reload came to.
    pub status: ArcSwap<String>,
    /// How old the deny list is: a line, or nothing.
    pub deny_list: ArcSwap<String>,
}

impl Shared {
    /// Whether traffic should come here.
    pub fn is_ready(&self) -> bool {
        self.workers_ready.load(Ordering::Acquire) == self.mesh.workers()
            && self.workers_full.load(Ordering::Acquire) == 0
            && !self.draining.load(Ordering::Acquire)
    }
}

/// A worker's way to ask for a name's addresses.
#[derive(Clone)]
pub struct Resolver {
    questions: mpsc::Sender<(Arc<str>, u16)>,
}

impl Resolver {
    /// The asking end, and the end that [`run`] answers.
    pub fn channel() -> (Self, mpsc::Receiver<(Arc<str>, u16)>) {
        let (questions, answers) = mpsc::channel(QUESTIONS_MAX);
        (Self { questions }, answers)
    }

    /// Asks; the answer is a [`Message::Resolved`]. A full queue answers with the next question.
    pub fn ask(&self, host: &str, worker: u16) {
        if self.questions.try_send((Arc::from(host), worker)).is_err() {
            tracing::warn!(host, "too many names wait to be resolved");
        }
    }
}

/// Everything the control thread needs.
pub struct Control {
    /// Shared with the workers.
    pub shared: Arc<Shared>,
    /// The admin address, not listening yet.
    pub admin: Option<TcpSocket>,
    /// Where the configuration is, for reloads.
    pub place: Place,
    /// What the poll could not take.
    pub refused: Option<Refused>,
    /// How old the deny list was at the last look.
    pub deny_list_age: DenyListAge,
    /// Reloaded from their files.
    pub certificates: Certificates,
    /// Questions of the workers.
    pub questions: mpsc::Receiver<(Arc<str>, u16)>,
    /// For scrapes.
    pub metrics: Metrics,
    /// What is not a worker's.
    pub node_metrics: Arc<NodeMetrics>,
}

/// Runs until all workers ended after a drain; returns whether the drain was clean.
pub async fn run(
    mut control: Control,
    mut workers_done: mpsc::Receiver<bool>,
) -> Result<bool, admin::AdminError> {
    let snapshot = control.shared.snapshot.load_full();
    let listeners = admin::listen(control.admin.take(), &snapshot.raw.admin)?;
    control.shared.privileges.confine();
    let metrics = std::mem::replace(&mut control.metrics, Metrics::new(Vec::new(), Arc::default()));
    let (orders, ordered) = mpsc::channel(reload::ORDERS_MAX);
    let admin = tokio::spawn(admin::serve(
        listeners,
        Arc::clone(&control.shared),
        metrics,
        Arc::clone(&control.node_metrics),
        orders,
    ));
    let clean = serve(&mut control, &mut workers_done, ordered).await;
    admin.abort();
    if let Some(socket) = &snapshot.raw.admin.socket {
        let _ = std::fs::remove_file(socket);
    }
    Ok(clean)
}

async fn serve(
    control: &mut Control,
    workers_done: &mut mpsc::Receiver<bool>,
    mut orders: mpsc::Receiver<ReloadOrder>,
) -> bool {
    let signals = [SignalKind::hangup(), SignalKind::terminate(), SignalKind::interrupt()];
    let [mut hangup, mut terminate, mut interrupt] =
        signals.map(|kind| signal(kind).expect("the runtime was built with signals"));
    let poll = Duration::from_millis(control.shared.snapshot.load().node.reload_poll_ms);
    let mut poll = tokio::time::interval(poll);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut drops = tokio::time::interval(DROPS_POLL);
    drops.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let lookups = Arc::new(Semaphore::new(LOOKUPS_MAX));
    let mut keepers = Keepers::default();
    let (mut ended, mut clean) = (0, true);
    let mut is_new = true;
    while ended < control.shared.mesh.workers() {
        if std::mem::take(&mut is_new) {
            control.watch_deny_list();
            keepers.handle_snapshot(&control.shared, &control.node_metrics, &lookups);
        }
        tokio::select! {
            _ = hangup.recv() => is_new |= control.reload().is_ok(),
            Some(answer) = orders.recv() => {
                let loaded = control.reload();
                is_new |= loaded.is_ok();
                // Who has gone does not want to know.
                let _ = answer.send(loaded);
            }
            _ = terminate.recv() => drain(&control.shared),
            _ = interrupt.recv() => drain(&control.shared),
            _ = poll.tick() => {
                is_new |= control.poll();
                control.watch_deny_list();
                lock(&control.shared.programs).handle_time();
            }
            _ = drops.tick() => lock(&control.shared.drops).handle_time(ebpf::now()),
            Some((host, worker)) = control.questions.recv() => resolve(&control.shared, &lookups, host, worker),
            done = workers_done.recv() => match done {
                Some(worker_clean) => {
                    ended += 1;
                    clean &= worker_clean;
                }
                None => return false,
            },
        }
    }
    clean
}

fn resolve(shared: &Arc<Shared>, lookups: &Arc<Semaphore>, host: Arc<str>, worker: u16) {
    let shared = Arc::clone(shared);
    let Ok(place) = Arc::clone(lookups).try_acquire_owned() else {
        tracing::warn!(host = &*host, "too many names are being resolved");
        let result = Err(std::io::ErrorKind::TimedOut.into());
        shared.mesh.send(worker, Message::Resolved { host, result });
        return;
    };
    tokio::spawn(async move {
        let name = Arc::clone(&host);
        let lookup = tokio::task::spawn_blocking(move || {
            let _place = place;
            let found = (&*name, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).take(ADDRESSES_MAX).collect())
        });
        let result: std::io::Result<Vec<_>> = match tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        if let Ok(addresses) = &result {
            lock(&shared.programs).handle_resolved(&host, addresses);
        }
        shared.mesh.send(worker, Message::Resolved { host, result });
    });
}

fn drain(shared: &Shared) {
    if shared.draining.swap(true, Ordering::AcqRel) {
        return;
    }
    tracing::info!("draining: no new connections, what is under way is finished");
    for worker in 0..shared.mesh.workers() {
        shared.mesh.send(worker, Message::Drain);
    }
}

/// A thread that panics ends the process, so nobody left it half done.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
