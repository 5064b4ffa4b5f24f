//! Metrics for whoever is on this host: `GET /metrics` over a unix socket or loopback, and nothing else.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::Server;
use crate::metrics::Gauges;
use crate::settings::MetricsPlace;
use crate::{ControlError, Refusal};

/// Most that ask at a time; more are closed.
pub(crate) const SCRAPES_MAX: usize = 4;
/// How long one may take.
pub(crate) const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);
/// Its mode: who is in the socket's group may ask.
const SOCKET_MODE: u32 = 0o660;

/// A socket that has its address.
pub(super) enum Scraped {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Scraped {
    /// Takes the address; a socket that a server has left is replaced.
    pub(super) async fn bind(place: &MetricsPlace) -> Result<Self, ControlError> {
        match place {
            MetricsPlace::Loopback(address) => {
                let bound = TcpListener::bind(address).await;
                bound.map(Self::Tcp).map_err(ControlError::file(address.to_string()))
            }
            MetricsPlace::Socket(path) => {
                if std::os::unix::net::UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                let bound = UnixListener::bind(path).map_err(ControlError::file(path))?;
                let mode = std::fs::Permissions::from_mode(SOCKET_MODE);
                std::fs::set_permissions(path, mode).map_err(ControlError::file(path))?;
                Ok(Self::Unix(bound))
            }
        }
    }

    /// Answers as long as the server runs.
    pub(super) async fn run(self, server: Arc<Server>) {
        let places = Arc::new(Semaphore::new(SCRAPES_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let server = server.clone();
            let taken = match &self {
                Self::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                    tokio::spawn(async move {
                        let _place = place;
                        answer(server, stream).await;
                    })
                }),
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    tokio::spawn(async move {
                        let _place = place;
                        answer(server, stream).await;
                    })
                }),
            };
            if taken.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(server: Arc<Server>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(move |request: Request<Incoming>| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(respond(&server, &request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(SCRAPE_TIMEOUT).keep_alive(false);
    let _ = tokio::time::timeout(SCRAPE_TIMEOUT, http.serve_connection(TokioIo::new(stream), service)).await;
}

async fn respond(server: &Arc<Server>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match text(server).await {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        },
        _ => (StatusCode::NOT_FOUND, "GET /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

async fn text(server: &Arc<Server>) -> Result<String, Refusal> {
    let kept = server.work(|control, _| control.kept()).await?;
    let taken = |places: &Semaphore, max: usize| (max - places.available_permits().min(max)) as u64;
    let gauges = Gauges {
        connections: taken(&server.connections, server.connections_max),
        arrivals: taken(&server.arrivals, super::ARRIVALS_MAX),
        // Whoever asks for a configuration listens for news until it is answered.
        waiting: server.news.receiver_count() as u64,
        kept,
        issuing_end_ms: server.control.authority().not_after_ms(),
    };
    Ok(server.metrics.text(&gauges))
}
