//! The listener for people: who may connect at all, and how many.

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
use zen_identity::{
    AgentPeer, Policy, SharedPolicy, SpiffeId, SpiffePattern, SvidStore, agent_peer, public_key_hash,
};

use super::{Server, answer};
use crate::directory::Directory;
use crate::listener::{DRAIN_TIMEOUT, Places, log_refusal, now_ms, serve_until_end};
use crate::people::{Caller, PEOPLE};
use crate::{ControlError, SessionKey};

/// Most connections at a time; more are closed as they come.
pub(crate) const PERSON_CONNECTIONS_MAX: usize = 256;
/// Most of them that one person has.
pub(crate) const ONE_PERSON_CONNECTIONS_MAX: usize = 32;
/// How long a new connection may take to show who it is.
pub(crate) const PERSON_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take for a request's head, or be idle.
pub(crate) const PERSON_IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest head, bytes.
const PERSON_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers.
const PERSON_HEADERS_MAX: usize = 64;
const ALPN: &[u8] = b"http/1.1";

/// A listener for people that has its address.
pub struct PeopleListening {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
}

struct Shared {
    router: Router,
    connections: Arc<Semaphore>,
    of_person: Places<SpiffeId>,
    ending: channel::Sender<bool>,
}

impl PeopleListening {
    /// Opens the directory and takes the address. `store` is the control plane's own identity, with its deny list.
    pub async fn bind(
        directory: Directory,
        address: SocketAddr,
        store: &Arc<SvidStore>,
    ) -> Result<Self, ControlError> {
        let server = Server::open(directory)?;
        let people = format!("spiffe://{}/{PEOPLE}/*", server.trust_domain);
        let people = SpiffePattern::parse(&people).expect("a trust domain, a segment and all below it");
        let policy = SharedPolicy::new(Policy::new(vec![people], Vec::new()));
        let acceptor = TlsAcceptor::from(store.server_config(policy, &[ALPN])?);
        let listener = TcpListener::bind(address).await.map_err(ControlError::file(address.to_string()))?;
        let shared = Shared {
            router: answer::router(&server),
            connections: Arc::new(Semaphore::new(PERSON_CONNECTIONS_MAX)),
            of_person: Places::of_each(ONE_PERSON_CONNECTIONS_MAX),
            ending: channel::Sender::new(false),
        };
        Ok(Self { listener, acceptor, shared: Arc::new(shared) })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until it is dropped.
    pub async fn run(self) {
        self.run_until(std::future::pending()).await;
    }

    /// Answers until `end`; then takes nobody in, answers requests that are on their way, and closes what is open.
    pub async fn run_until(self, end: impl Future<Output = ()>) {
        tokio::select! {
            () = self.accept_all() => {}
            () = end => {}
        }
        let Self { listener, shared, .. } = self;
        drop(listener);
        shared.ending.send_replace(true);
        let all = shared.connections.acquire_many(PERSON_CONNECTIONS_MAX as u32);
        if tokio::time::timeout(DRAIN_TIMEOUT, all).await.is_err() {
            tracing::warn!("some people's connections were closed before they were answered");
        }
    }

    async fn accept_all(&self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, source)) => self.admit(stream, source),
                Err(error) => {
                    tracing::warn!(%error, "no connection of a person could be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, source: SocketAddr) {
        let Ok(place) = self.shared.connections.clone().try_acquire_owned() else {
            tracing::warn!("a connection of a person was closed because too many are open");
            return;
        };
        let (shared, acceptor) = (self.shared.clone(), self.acceptor.clone());
        tokio::spawn(async move {
            let _place = place;
            serve(&shared, acceptor, stream, source).await;
        });
    }
}

async fn serve(shared: &Shared, acceptor: TlsAcceptor, stream: TcpStream, source: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(PERSON_HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            log_refusal(source, &error);
            return;
        }
        Err(_) => return,
    };
    let Some((session, life)) = identify(&stream) else { return };
    let Some(_place) = shared.of_person.take(&session.id) else {
        tracing::warn!(person = %session.id, "a connection was closed because the person has too many");
        return;
    };
    let _ = tokio::time::timeout(life, answer_all(shared, session, stream)).await;
}

async fn answer_all(shared: &Shared, session: SessionKey, stream: TlsStream<TcpStream>) {
    let mut ending = shared.ending.subscribe();
    let router = TowerToHyperService::new(shared.router.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Caller::Certificate(session.clone()));
        router.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PERSON_IDLE_TIMEOUT);
    http.max_buf_size(PERSON_HEAD_BYTES_MAX).max_headers(PERSON_HEADERS_MAX);
    serve_until_end(http.serve_connection(TokioIo::new(stream), service), &mut ending).await;
}

/// Who it is, and how long the connection may last.
fn identify(stream: &TlsStream<TcpStream>) -> Option<(SessionKey, Duration)> {
    let certificates = stream.get_ref().1.peer_certificates();
    let AgentPeer::Svid(svid) = agent_peer(certificates)? else { return None };
    let key = public_key_hash(certificates?.first()?)?;
    let life = (svid.not_after.as_secs() * 1000).saturating_sub(now_ms());
    Some((SessionKey { id: svid.id, serial: svid.serial, key }, Duration::from_millis(life)))
}
