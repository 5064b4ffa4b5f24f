//! Admin over loopback HTTP and a unix socket: health, readiness, metrics, status. It only reads.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::AdminSection;
use crate::control::Shared;
use crate::metrics::{Metrics, NodeMetrics};
use crate::quota::{Permit, Quota};

/// Admin connections at a time, over both listeners; more are closed.
pub const CONNECTIONS_MAX: usize = 16;
/// What one may hold: the HTTP library's buffers and a scrape, bytes.
pub const CONNECTION_BYTES: usize = 256 * 1024;

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

/// Bound listeners.
pub struct Listeners {
    tcp: Option<std::net::TcpListener>,
    unix: Option<std::os::unix::net::UnixListener>,
}

#[derive(Clone)]
struct Admin {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
}

/// Binds what the configuration names; a stale socket file of an earlier life is replaced.
pub fn bind(settings: &AdminSection) -> Result<Listeners, AdminError> {
    let tcp = settings.listen.as_ref().map(|address| {
        let bound = std::net::TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        bound.map_err(|source| AdminError::Listen { address: address.clone(), source })
    });
    let unix = settings.socket.as_ref().map(|path| {
        bind_socket(Path::new(path)).map_err(|source| AdminError::Socket { path: path.clone(), source })
    });
    Ok(Listeners { tcp: tcp.transpose()?, unix: unix.transpose()? })
}

/// Serves until aborted.
pub async fn serve(listeners: Listeners, shared: Arc<Shared>, metrics: Metrics, counts: Arc<NodeMetrics>) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics));
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .route("/status", get(status))
        .with_state(Admin { shared, registry: Arc::new(registry) });
    let tcp = listeners.tcp.and_then(|listener| tokio::net::TcpListener::from_std(listener).ok());
    let unix = listeners.unix.and_then(|listener| tokio::net::UnixListener::from_std(listener).ok());
    let over_unix = router.clone();
    let places = Quota::default();
    let tcp = async {
        if let Some(listener) = tcp {
            let listener = Bounded { listener, places: places.clone(), counts: Arc::clone(&counts) };
            let _ = axum::serve(listener, router).await;
        }
    };
    let unix = async {
        if let Some(listener) = unix {
            let listener = Bounded { listener, places: places.clone(), counts: Arc::clone(&counts) };
            let _ = axum::serve(listener, over_unix).await;
        }
    };
    tokio::join!(tcp, unix);
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
    format!("{}\n", admin.shared.status.load())
}

async fn scrape(State(admin): State<Admin>) -> impl IntoResponse {
    let mut text = String::with_capacity(64 * 1024);
    if prometheus_client::encoding::text::encode(&mut text, &admin.registry).is_err() {
        return (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], text);
    }
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (StatusCode::OK, [(header::CONTENT_TYPE, media)], text)
}
