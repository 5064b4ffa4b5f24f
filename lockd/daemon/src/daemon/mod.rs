//! The daemon: a unix socket, a thread for each connection, signals for reload and stop.
//!
//! Memory is locked and core dumps are refused before the own key is read. SIGHUP reads configuration, own key and
//! policy anew, all or nothing; sealed files are read for each opening. SIGTERM ends it.

pub mod caller;
mod config;
mod connection;
mod metrics;
mod places;
mod service;

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use zen_lock::Refusal;

use self::caller::Credentials;
pub(crate) use self::config::policy_of;
pub use self::config::{Changing, Config, ConfigError};
use self::places::{CONNECTIONS_MAX, Place, Places};
use self::service::Service;
use crate::files::replace;
use crate::memory::{LockMemory, MemoryError, lock_pages, refuse_core_dumps};
use crate::receipts::{Act, ReceiptLog, Receipts, ReceiptsError, Stage, Verdict, now_ms};

const STACK_BYTES: usize = 512 * 1024;
const METRICS_PERIOD: Duration = Duration::from_secs(10);
/// How often receipts are brought to the drive, and a segment that is old enough is closed.
const TICK: Duration = Duration::from_secs(1);
/// How long openings may go on after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
const METRICS_MODE: u32 = 0o644;

/// Why a daemon did not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Memory is not guarded.
    #[error("{0}")]
    Memory(#[from] MemoryError),
    /// Receipts cannot be written.
    #[error("receipts: {0}; without receipts nothing is handed out")]
    Receipts(#[from] ReceiptsError),
    /// The socket.
    #[error("socket: {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another lockd.
    #[error("socket: {}: another lockd answers there; stop it, or give this one its own socket", .0.display())]
    Taken(PathBuf),
    /// Threads or signals.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// A connection and its place, on its way to a thread.
type Arrival = (UnixStream, Credentials, Place);

/// Runs until SIGTERM or SIGINT.
pub fn run(file: &Path) -> Result<(), DaemonError> {
    refuse_core_dumps()?;
    let signals = block_signals()?;
    let config = Config::read(file)?;
    lock_memory(config.lock_memory)?;
    let (directory, limits) = &config.receipts;
    let receipts = Arc::new(ReceiptLog::open(directory, *limits)?);
    let Config { socket, socket_mode, metrics_file, changing, .. } = config;
    let listener = listen(&socket, socket_mode)?;
    let service = Arc::new(Service::new(changing, Arc::clone(&receipts) as Arc<dyn Receipts>));
    let places = Arc::new(Places::default());
    let arrivals = start_threads(&service)?;
    receipts.act(&Act::own("start", Stage::Done, None))?;
    tracing::info!(socket = %socket.display(), keys = ?service.in_force().keys, "ready");
    notify("READY=1");
    let (mut metrics_due, mut tick_due) = (Instant::now(), Instant::now() + TICK);
    loop {
        if Instant::now() >= tick_due {
            if let Err(error) = receipts.tick(now_ms()) {
                tracing::error!(%error, "receipts are not on the drive");
            }
            tick_due = Instant::now() + TICK;
        }
        if let Some(file) = metrics_file.as_ref().filter(|_| Instant::now() >= metrics_due) {
            write_metrics(file, &service);
            metrics_due = Instant::now() + METRICS_PERIOD;
        }
        match wait(&listener, &signals)? {
            Event::Connection => accept(&listener, &service, &places, &arrivals),
            Event::Signal(sent) if sent.signal == Signal::SIGHUP => reload(file, &service, &*receipts, &sent),
            Event::Signal(_) => break,
            Event::Nothing => {}
        }
    }
    drop(arrivals);
    stop(&places);
    let _ = fs::remove_file(&socket);
    if let Err(error) = receipts.act(&Act::own("stop", Stage::Done, None)).and_then(|()| receipts.close_now())
    {
        tracing::error!(%error, "the last receipts have no digest");
    }
    tracing::info!("stopped");
    Ok(())
}

enum Event {
    Connection,
    Signal(Sent),
    Nothing,
}

/// A signal, and who sent it by the kernel's word.
struct Sent {
    signal: Signal,
    pid: i32,
    uid: u32,
}

/// Before any thread, so that all of them leave signals to the one that waits for them.
fn block_signals() -> Result<SignalFd, DaemonError> {
    let mask = SigSet::from_iter([Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT]);
    mask.thread_block().map_err(io::Error::from)?;
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(io::Error::from)?)
}

fn lock_memory(lock: LockMemory) -> Result<(), MemoryError> {
    match lock_pages() {
        Err(error) if lock == LockMemory::Try => {
            tracing::warn!(%error, "memory is not locked");
            Ok(())
        }
        locked => locked,
    }
}

/// Takes the place of a socket that nobody listens on any more, and of nothing else.
fn listen(path: &Path, mode: u32) -> Result<UnixListener, DaemonError> {
    let failed = |source| DaemonError::Socket { path: path.to_owned(), source };
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            return Err(DaemonError::Taken(path.to_owned()));
        }
        fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn start_threads(service: &Arc<Service>) -> Result<SyncSender<Arrival>, DaemonError> {
    let (sender, receiver) = sync_channel::<Arrival>(CONNECTIONS_MAX);
    let receiver = Arc::new(Mutex::new(receiver));
    for index in 0..CONNECTIONS_MAX {
        let (receiver, service) = (Arc::clone(&receiver), Arc::clone(service));
        let thread = std::thread::Builder::new().name(format!("caller-{index}")).stack_size(STACK_BYTES);
        thread.spawn(move || {
            while let Some((stream, credentials, _place)) = next(&receiver) {
                connection::serve(stream, credentials, &service);
            }
        })?;
    }
    Ok(sender)
}

fn next(receiver: &Mutex<Receiver<Arrival>>) -> Option<Arrival> {
    receiver.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

fn wait(listener: &UnixListener, signals: &SignalFd) -> Result<Event, DaemonError> {
    let timeout = PollTimeout::try_from(TICK).expect("a second is some milliseconds");
    let mut ready = [listener.as_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match poll(&mut ready, timeout) {
        Err(Errno::EINTR) => return Ok(Event::Nothing),
        ready => ready.map_err(io::Error::from)?,
    };
    if let Some(sent) = signals.read_signal().map_err(io::Error::from)? {
        let signal = Signal::try_from(sent.ssi_signo.cast_signed()).map_err(io::Error::from)?;
        return Ok(Event::Signal(Sent { signal, pid: sent.ssi_pid.cast_signed(), uid: sent.ssi_uid }));
    }
    Ok(if ready[0].any() == Some(true) { Event::Connection } else { Event::Nothing })
}

/// Whoever has no grant at all gets no place.
fn accept(
    listener: &UnixListener,
    service: &Arc<Service>,
    places: &Arc<Places>,
    arrivals: &SyncSender<Arrival>,
) {
    let Ok((stream, _)) = listener.accept() else { return };
    let Ok(credentials) = Credentials::of(&stream) else { return };
    if !service.in_force().policy.knows(credentials.uid, credentials.gid) {
        let _ = service.refuse((credentials, None), Verdict::Denied, "no grant has this user and group");
        return connection::turn_away(stream, Refusal::Denied);
    }
    let Some(place) = places.take(credentials.uid) else {
        let _ = service.refuse((credentials, None), Verdict::Busy, "all places are taken");
        return connection::turn_away(stream, Refusal::Busy);
    };
    // There is a thread for each place, so the queue has room.
    let _ = arrivals.try_send((stream, credentials, place));
}

/// Its line is written before it counts; where that cannot be, the configuration in force stays.
fn reload(file: &Path, service: &Service, receipts: &dyn Receipts, sent: &Sent) {
    let read = Config::read(file).map_err(|error| error.to_string());
    let (stage, reason) = match &read {
        Ok(_) => (Stage::Done, None),
        Err(error) => (Stage::Failed, Some(error.clone())),
    };
    let mut act = Act::own("reload", stage, Some(file.to_string_lossy().into_owned()));
    (act.reason, act.pid, act.uid, act.login_uid) = (reason, sent.pid, sent.uid, None);
    let kept = receipts.act(&act).map_err(|error| error.to_string());
    let read = read.and_then(|config| kept.map(|()| config));
    service.metrics.reloaded(read.is_ok());
    match read {
        Ok(config) => {
            tracing::info!(keys = ?config.changing.keys, "configuration in force; socket and receipts stay as they were");
            service.replace(config.changing);
        }
        Err(error) => tracing::error!("configuration refused, the one in force stays: {error}"),
    }
}

fn write_metrics(file: &Path, service: &Service) {
    let text = service.metrics.encode(service.in_force().keys.count());
    if let Err(error) = replace(file, text.as_bytes(), METRICS_MODE) {
        tracing::warn!(%error, file = %file.display(), "metrics cannot be written");
    }
}

/// Idle connections are dropped with the process; openings that are under way end first.
fn stop(places: &Arc<Places>) {
    let deadline = Instant::now() + STOP_TIMEOUT;
    while !places.are_free() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Tells a service manager (`sd_notify(3)`), if there is one.
fn notify(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let abstract_name = path.to_str().and_then(|path| path.strip_prefix('@'));
    let address = match abstract_name {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
