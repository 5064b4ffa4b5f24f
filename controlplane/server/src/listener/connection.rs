//! One connection: a handshake, who it is, then requests until its identity ends.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zen_control_api::{EXPORTER_BYTES, EXPORTER_LABEL};
use zen_identity::{AgentPeer, agent_peer, public_key_hash};

use super::{HANDSHAKE_TIMEOUT, Server, now_ms, routes};
use crate::SessionKey;

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
pub(super) async fn serve(server: Arc<Server>, acceptor: TlsAcceptor, stream: TcpStream, source: SocketAddr) {
    let Ok(handshake) = server.handshakes.try_acquire() else {
        server.shed.note("too many are in their handshake");
        return;
    };
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            log_refusal(source, &error);
            return;
        }
        Err(_) => return,
    };
    drop(handshake);
    let Some((peer, life)) = identify(&stream, source) else { return };
    match &peer {
        Peer::Svid(key) => {
            let (seen, places) = (key.clone(), server.clone());
            let Some(_place) = places.by_identity.take(&key.id) else {
                server.shed.note("its identity has too many");
                return;
            };
            if let Err(error) = server.work(move |control, now| control.mark_seen(&seen, now)).await {
                tracing::error!(%error, "a certificate's use could not be kept");
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
                server.shed.note("too many are enrolling");
                return;
            };
            let _ = tokio::time::timeout(life, answer_all(server, Arc::new(peer), stream)).await;
        }
    }
}

async fn answer_all(server: Arc<Server>, peer: Arc<Peer>, stream: TlsStream<TcpStream>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<Response<routes::Body>, Infallible>(routes::answer(server, peer, request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    http.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended");
    }
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

/// Our own verdicts are told; what is not even a handshake is anybody's noise.
fn log_refusal(source: SocketAddr, error: &std::io::Error) {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<tokio_rustls::rustls::Error>());
    match tls.and_then(zen_identity::peer_refused) {
        Some(refused) => tracing::info!(%source, "a handshake was refused: {refused}"),
        None => tracing::debug!(%source, kind = %error.kind(), "a handshake failed"),
    }
}
