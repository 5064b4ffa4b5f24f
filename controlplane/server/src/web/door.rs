//! What the listeners for people have in common: a bounded number of connections, each with a handshake in time and HTTP/1.1
//! within bounds, and an end that answers what is on its way.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch as channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::ControlError;
use crate::listener::{DRAIN_TIMEOUT, log_refusal, serve_until_end};

/// Most connections at a time; more are closed as they come.
pub(crate) const PERSON_CONNECTIONS_MAX: usize = 256;
/// How long a new connection may take to show who it is.
pub(crate) const PERSON_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take for a request's head, or be idle.
pub(crate) const PERSON_IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest head, bytes.
const PERSON_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers.
const PERSON_HEADERS_MAX: usize = 64;

/// An address where connections are taken.
pub(crate) struct Door {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    /// Who comes, for the log.
    whose: &'static str,
    connections: Arc<Semaphore>,
    ending: channel::Sender<bool>,
}

/// A connection whose handshake is done.
pub(crate) struct Guest {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) source: SocketAddr,
    ending: channel::Receiver<bool>,
}

impl Door {
    pub(crate) async fn bind(
        address: SocketAddr,
        acceptor: TlsAcceptor,
        whose: &'static str,
    ) -> Result<Self, ControlError> {
        let listener = TcpListener::bind(address).await.map_err(ControlError::file(address.to_string()))?;
        let connections = Arc::new(Semaphore::new(PERSON_CONNECTIONS_MAX));
        Ok(Self { listener, acceptor, whose, connections, ending: channel::Sender::new(false) })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Lets guests in until `end`; then takes nobody in, waits for those who are answered, and closes what is open.
    pub(crate) async fn run_until<S, F>(self, end: impl Future<Output = ()>, serve: S)
    where
        S: Fn(Guest) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::select! {
            () = self.accept_all(serve) => {}
            () = end => {}
        }
        let Self { listener, whose, connections, ending, .. } = self;
        drop(listener);
        ending.send_replace(true);
        let all = connections.acquire_many(PERSON_CONNECTIONS_MAX as u32);
        if tokio::time::timeout(DRAIN_TIMEOUT, all).await.is_err() {
            tracing::warn!(whose, "some connections were closed before they were answered");
        }
    }

    async fn accept_all<S, F>(&self, serve: S)
    where
        S: Fn(Guest) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let whose = self.whose;
        loop {
            let (stream, source) = match self.listener.accept().await {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::warn!(%error, whose, "no connection could be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = self.connections.clone().try_acquire_owned() else {
                tracing::warn!(whose, "a connection was closed because too many are open");
                continue;
            };
            let (acceptor, ending, serve) = (self.acceptor.clone(), self.ending.subscribe(), serve.clone());
            tokio::spawn(async move {
                let _place = place;
                if let Some(stream) = shake_hands(&acceptor, stream, source).await {
                    serve(Guest { stream, source, ending }).await;
                }
            });
        }
    }
}

impl Guest {
    /// Answers requests until the client or the server ends; `mark` puts into each what the connection showed.
    pub(crate) async fn answer_all<M>(self, router: Router, mark: M)
    where
        M: Fn(&mut Request<Body>) + Send + Sync + 'static,
    {
        let Self { stream, mut ending, .. } = self;
        let router = TowerToHyperService::new(router);
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            mark(&mut request);
            router.call(request)
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(PERSON_IDLE_TIMEOUT);
        http.max_buf_size(PERSON_HEAD_BYTES_MAX).max_headers(PERSON_HEADERS_MAX);
        serve_until_end(http.serve_connection(TokioIo::new(stream), service), &mut ending).await;
    }
}

async fn shake_hands(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    source: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(PERSON_HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.ok()? {
        Ok(stream) => Some(stream),
        Err(error) => {
            log_refusal(source, &error);
            None
        }
    }
}
