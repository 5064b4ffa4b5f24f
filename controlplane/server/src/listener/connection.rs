//! One connection: a handshake, who it is, then requests until its identity ends.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch as channel;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zen_control_api::{EXPORTER_BYTES, EXPORTER_LABEL, ProblemType};
use zen_identity::{AgentPeer, agent_peer, public_key_hash};

use super::{Arrived, HANDSHAKE_TIMEOUT, Server, now_ms, routes};
use crate::control::Note;
use crate::metrics::Counter;
use crate::{Refusal, SessionKey};

/// How long a client may take for a request's head, or be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest head, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers.
const HEADERS_MAX: usize = 32;
/// Longest enrollment, from handshake to the end.
const ENROLLING_TIMEOUT: Duration = Duration::from_mins(1);
/// How long somebody whose key is no bundle's may take to be told so.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Who a connection is with.
pub(super) enum Peer {
    /// Somebody with an identity.
    Svid(SessionKey),
    /// Somebody with a key.
    Bundle {
        /// Ed25519.
        key: [u8; 32],
        /// Of this connection.
        exporter: [u8; EXPORTER_BYTES],
        /// For the log.
        source: String,
    },
}

/// Serves one connection to its end.
pub(super) async fn serve(server: Arc<Server>, acceptor: TlsAcceptor, arrived: Arrived) {
    let Arrived { stream, source, place } = arrived;
    let Some(stream) = shake_hands(&server, acceptor, stream, source).await else { return };
    drop(place);
    let Ok(_connection) = server.connections.clone().try_acquire_owned() else {
        server.shed("connections", "too many are open");
        return;
    };
    let Some((peer, life)) = identify(&stream, source) else { return };
    match &peer {
        Peer::Svid(key) => {
            let places = server.clone();
            let Some(_place) = places.by_identity.take(&key.id) else {
                server.shed("identity", "its identity has too many");
                return;
            };
            if let Err(error) = keep_first_use(&server, key.clone()).await {
                match error.kind() {
                    ProblemType::Busy => server.shed("notes", "too many are written down"),
                    _ => tracing::error!(%error, "a certificate's use could not be kept"),
                }
                return;
            }
            let _ = tokio::time::timeout(life, answer_all(server, Arc::new(peer), stream)).await;
        }
        Peer::Bundle { key, .. } => {
            let (key, places) = (*key, server.clone());
            let known = server.work(move |control, _| control.is_bundle_key(&key)).await;
            let (places, life) = match known {
                Ok(true) => (&places.enrolling, life),
                _ => (&places.strangers, STRANGER_TIMEOUT),
            };
            let Ok(_place) = places.try_acquire() else {
                server.shed("enrolling", "too many are enrolling");
                return;
            };
            let _ = tokio::time::timeout(life, answer_all(server, Arc::new(peer), stream)).await;
        }
    }
}

/// Waits for a place among those in their handshake; whoever was not let in within the time of both is gone.
async fn shake_hands(
    server: &Arc<Server>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    source: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(_place)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, server.handshakes.acquire()).await else {
        server.shed("handshakes", "too many are in their handshake");
        return None;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            server.metrics.count_as(Counter::Handshakes, "ok");
            Some(stream)
        }
        Ok(Err(error)) => {
            server.metrics.count_as(Counter::Handshakes, log_refusal(source, &error));
            None
        }
        Err(_) => {
            server.metrics.count_as(Counter::Handshakes, "timeout");
            None
        }
    }
}

/// On this rests whether an answer was lost or a key was copied, so it is on the disk before the agent is heard.
async fn keep_first_use(server: &Arc<Server>, key: SessionKey) -> Result<(), Refusal> {
    if server.look(|control, _| control.is_first_use(&key))? {
        server.notes.keep(Note::Seen { key, at_ms: now_ms() }).await?;
    }
    Ok(())
}

async fn answer_all(server: Arc<Server>, peer: Arc<Peer>, stream: TlsStream<TcpStream>) {
    let mut ending = server.ending.subscribe();
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<Response<routes::Body>, Infallible>(routes::answer(server, peer, request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    http.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    serve_until_end(http.serve_connection(TokioIo::new(stream), service), &mut ending).await;
}

/// Answers until the client or the server ends; the request that is on its way then is answered, and is the last.
pub(crate) async fn serve_until_end<S, B>(
    connection: http1::Connection<TokioIo<TlsStream<TcpStream>>, S>,
    ending: &mut channel::Receiver<bool>,
) where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let mut connection = std::pin::pin!(connection);
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = ended(ending) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = done {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Waits until the server is to end.
pub(crate) async fn ended(ending: &mut channel::Receiver<bool>) {
    // A sender that is gone has ended, too.
    let _ = ending.wait_for(|is_ending| *is_ending).await;
}

/// Who it is, and how long the connection may last.
fn identify(stream: &TlsStream<TcpStream>, source: SocketAddr) -> Option<(Peer, Duration)> {
    let (_, tls) = stream.get_ref();
    let certificates = tls.peer_certificates();
    match agent_peer(certificates)? {
        AgentPeer::Svid(svid) => {
            let key = public_key_hash(certificates?.first()?)?;
            let life = (svid.not_after.as_secs() * 1000).saturating_sub(now_ms());
            let session = SessionKey { id: svid.id, serial: svid.serial, key };
            Some((Peer::Svid(session), Duration::from_millis(life)))
        }
        AgentPeer::BundleKey(key) => {
            let exporter = tls.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None).ok()?;
            Some((Peer::Bundle { key, exporter, source: source.to_string() }, ENROLLING_TIMEOUT))
        }
    }
}

/// Our own verdicts are told, and have a label; what is not even a handshake is anybody's noise.
pub(crate) fn log_refusal(source: SocketAddr, error: &std::io::Error) -> &'static str {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<tokio_rustls::rustls::Error>());
    match tls.and_then(zen_identity::peer_refused) {
        Some(refused) => {
            tracing::info!(%source, "a handshake was refused: {refused}");
            refused.label()
        }
        None => {
            tracing::debug!(%source, kind = %error.kind(), "a handshake failed");
            "failed"
        }
    }
}
