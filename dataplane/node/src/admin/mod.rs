//! Admin over loopback HTTP and a unix socket: health, readiness, metrics, status.
//!
//! Loopback only reads that. On the socket, whose mode is 0600, dead letters and events are looked at and sent
//! again, too, targets paused and resumed, the configuration reloaded; each order leaves an audit line with the peer's uid.

mod answer;
mod dead_letters;
mod ebpf;
mod event_replay;
mod events;
mod receipts;
mod reload;
mod targets;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::serve::{IncomingStream, Listener};
pub use dead_letters::{FOUND_BYTES, PAGE_BYTES};
pub use event_replay::COPIES_BYTES;
pub use events::LIFE_BYTES;
use prometheus_client::registry::Registry;
pub use targets::{FAILURE_BYTES, TARGET_BYTES};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::config::AdminSection;
use crate::control::Shared;
use crate::ebpf::EbpfMetrics;
use crate::metrics::{Metrics, NodeMetrics};
use crate::quota::{Permit, Quota};
use crate::reload::ReloadOrder;

/// Admin connections at a time, over both listeners; more are closed.
pub const CONNECTIONS_MAX: usize = 16;
/// What one may hold: the HTTP library's buffers and a scrape, bytes.
pub const CONNECTION_BYTES: usize = 256 * 1024;

/// Pages of dead letters made at a time; who asks for more waits.
const PAGES_MAX: usize = 1;
/// Walks over the journals for one event; who asks for more waits.
pub const WALKS_MAX: usize = 1;
/// Walks for events that are put in once more; others are refused.
pub const REPLAYS_MAX: usize = 1;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;
/// Orders to pause or resume targets worked off at a time; who gives more waits.
pub const HOLDS_MAX: usize = 1;

/// Why the admin listeners do not stand.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The loopback address.
    #[error("admin.listen {address}: {source}; is another node using it?")]
    Listen {
        /// As configured.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The unix socket.
    #[error("admin.socket {path}: {source}; check that its directory exists and is writable")]
    Socket {
        /// As configured.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What listens.
pub struct Listeners {
    tcp: Option<TcpListener>,
    unix: Option<std::os::unix::net::UnixListener>,
}

#[derive(Clone)]
struct Admin {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    /// Pages of letters that may be made at a time.
    pages: Arc<Semaphore>,
    /// Walks over the journals for one event.
    walks: Arc<Semaphore>,
    /// Walks for events that are put in once more.
    replays: Arc<Semaphore>,
    /// Orders to pause or resume.
    holds: Arc<Semaphore>,
    /// To the control thread.
    reloads: mpsc::Sender<ReloadOrder>,
}

impl Admin {
    /// Waits for a place to walk over the journals.
    async fn walk_place(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.walks).acquire_owned().await.expect("it is never closed")
    }
}

/// Who is at the other end of the socket.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    uid: Option<u32>,
    pid: Option<i32>,
}

impl Connected<IncomingStream<'_, Bounded<UnixListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded<UnixListener>>) -> Self {
        let credentials = stream.io().io.peer_cred().ok();
        let uid = credentials.as_ref().map(tokio::net::unix::UCred::uid);
        Self { uid, pid: credentials.and_then(|credentials| credentials.pid()) }
    }
}

/// Takes the loopback address, for which a privilege may be needed.
pub fn bind(settings: &AdminSection) -> Result<Option<TcpSocket>, AdminError> {
    let bind = |listen: &String| {
        let address: SocketAddr = listen.parse().expect("it was validated");
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address).map(|()| socket)
    };
    let bound = settings.listen.as_ref().map(|listen| bind(listen).map_err(refused(listen)));
    bound.transpose()
}

/// Listens on that address and on the socket; a stale socket file of an earlier life is replaced.
pub fn listen(tcp: Option<TcpSocket>, settings: &AdminSection) -> Result<Listeners, AdminError> {
    let tcp = tcp.zip(settings.listen.as_ref());
    let tcp = tcp.map(|(socket, listen)| socket.listen(BACKLOG).map_err(refused(listen)));
    let unix = settings.socket.as_ref().map(|path| {
        bind_socket(Path::new(path)).map_err(|source| AdminError::Socket { path: path.clone(), source })
    });
    Ok(Listeners { tcp: tcp.transpose()?, unix: unix.transpose()? })
}

/// Serves until aborted.
pub async fn serve(
    listeners: Listeners,
    shared: Arc<Shared>,
    metrics: Metrics,
    counts: Arc<NodeMetrics>,
    reloads: mpsc::Sender<ReloadOrder>,
) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics));
    registry.register_collector(Box::new(shared.hmac));
    registry.register_collector(Box::new(EbpfMetrics(Arc::clone(&shared.programs))));
    let places = |most| Arc::new(Semaphore::new(most));
    let admin = Admin {
        shared,
        registry: Arc::new(registry),
        pages: places(PAGES_MAX),
        walks: places(WALKS_MAX),
        replays: places(REPLAYS_MAX),
        holds: places(HOLDS_MAX),
        reloads,
    };
    let unix = listeners.unix.and_then(|listener| tokio::net::UnixListener::from_std(listener).ok());
    let over_unix = orders().merge(pages()).with_state(admin.clone());
    let router = pages().with_state(admin);
    let places = Quota::default();
    let tcp = async {
        if let Some(listener) = listeners.tcp {
            let listener = Bounded { listener, places: places.clone(), counts: Arc::clone(&counts) };
            let _ = axum::serve(listener, router).await;
        }
    };
    let unix = async {
        if let Some(listener) = unix {
            let listener = Bounded { listener, places: places.clone(), counts: Arc::clone(&counts) };
            let _ = axum::serve(listener, over_unix.into_make_service_with_connect_info::<Peer>()).await;
        }
    };
    tokio::join!(tcp, unix);
}

/// What anybody on this host may read.
fn pages() -> Router<Admin> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .route("/status", get(status))
}

/// What the owner of the socket may look at and order.
fn orders() -> Router<Admin> {
    Router::new()
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/{id}", get(dead_letters::show))
        .route("/dead-letters/replay", post(dead_letters::replay))
        .route("/dead-letters/discard", post(dead_letters::discard))
        .route("/drops", get(ebpf::drops))
        .route("/ebpf", get(ebpf::status))
        .route("/events/{id}", get(events::show))
        .route("/events/{id}/body", post(events::body))
        .route("/events/replay", post(event_replay::replay))
        .route("/receipts", get(receipts::list))
        .route("/receipts/digests", get(receipts::digests))
        .route("/receipts/key", get(receipts::key))
        .route("/reload", post(reload::reload))
        .route("/targets", get(targets::list))
        .route("/targets/{name}", get(targets::show))
        .route("/targets/{name}/pause", post(targets::pause))
        .route("/targets/{name}/resume", post(targets::resume))
        .layer(DefaultBodyLimit::max(answer::BODY_BYTES_MAX))
}

/// A listener that keeps to [`CONNECTIONS_MAX`].
struct Bounded<L> {
    listener: L,
    places: Quota,
    counts: Arc<NodeMetrics>,
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Placed<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (io, address) = self.listener.accept().await;
            if let Some(place) = self.places.take(CONNECTIONS_MAX as u32) {
                return (Placed { io, _place: place }, address);
            }
            self.counts.admin_refused.add(1);
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with its place.
struct Placed<T> {
    io: T,
    _place: Permit,
}

impl<T: AsyncRead + Unpin> AsyncRead for Placed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Placed<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

fn refused(address: &str) -> impl FnOnce(std::io::Error) -> AdminError {
    move |source| AdminError::Listen { address: address.to_owned(), source }
}

fn bind_socket(path: &Path) -> std::io::Result<std::os::unix::net::UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_err() {
        let _ = std::fs::remove_file(path);
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    let shared = &admin.shared;
    if shared.is_ready() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let text = format!(
        "not ready: {} of {} workers up, {} without journal room, draining: {}\n",
        shared.workers_ready.load(Ordering::Acquire),
        shared.mesh.workers(),
        shared.workers_full.load(Ordering::Acquire),
        shared.draining.load(Ordering::Acquire),
    );
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

async fn status(State(admin): State<Admin>) -> impl IntoResponse {
    let Shared { status, privileges, hmac, deny_list, .. } = &*admin.shared;
    format!("{}\n{privileges}\nhmac: {hmac}\n{}", status.load(), deny_list.load())
}

async fn scrape(State(admin): State<Admin>) -> impl IntoResponse {
    let mut text = String::with_capacity(64 * 1024);
    if prometheus_client::encoding::text::encode(&mut text, &admin.registry).is_err() {
        return (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], text);
    }
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (StatusCode::OK, [(header::CONTENT_TYPE, media)], text)
}
