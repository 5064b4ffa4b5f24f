//! A simulated agent: enrolls with a bundle, asks for configurations and waits, reports. It behaves as zen-agent does (one
//! connection an exchange, a report at each change and every 30 s, longer and longer pauses after failures), but trusts the
//! signature: what is measured is the control plane.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zen_control_api::{
    CONFIGURATION, ENROLL, EXPORTER_BYTES, EXPORTER_LABEL, EnrollmentAnswer, EnrollmentBundle,
    EnrollmentProof, EnrollmentRequest, NONCE, NonceAnswer, STATUS, SigningKey,
};

use super::tls::Authorities;
use crate::error::LabError;
use crate::http::{Message, Wire};
use crate::random::system_bytes;

const REPORT_EVERY: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(150);

/// What happened to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It has this version.
    Version(u64),
    /// It has told so.
    Reported(u64),
    /// The control plane answered its question with a refusal.
    Refused,
    /// An exchange came to nothing.
    Failed,
}

/// An event, of whom, and when.
pub(super) type Told = (usize, Event, Instant);

/// One of many.
pub(super) struct Agent {
    index: usize,
    address: SocketAddr,
    tls: TlsConnector,
    in_force: AtomicU64,
    news: Notify,
}

type Connection = Wire<TlsStream<TcpStream>>;

impl Agent {
    /// With a bundle, as the first exchange of all.
    pub(super) async fn enroll(
        index: usize,
        address: SocketAddr,
        authorities: &Arc<Authorities>,
        bundle: &EnrollmentBundle,
    ) -> Result<Self, LabError> {
        let by_seed = authorities.by_seed(bundle.key().seed())?;
        let failed = |error: io::Error| LabError::Tool {
            what: format!("enrollment of simulated agent {index}"),
            reason: error.to_string(),
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key)?.pem()?;
        let answer = let_in(address, by_seed, bundle, csr).await.map_err(failed)?;
        let tls = authorities.by_svid(&answer.certificate_chain, &key)?.into();
        Ok(Self { index, address, tls, in_force: AtomicU64::new(0), news: Notify::new() })
    }

    /// Asks, waits and reports until it is dropped.
    pub(super) async fn live(&self, told: mpsc::Sender<Told>) {
        tokio::join!(self.follow(&told), self.report_always(&told));
    }

    async fn follow(&self, told: &mpsc::Sender<Told>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let event = match self.ask(self.in_force.load(Ordering::Relaxed)).await {
                Ok(Some(version)) => Event::Version(version),
                Ok(None) => continue,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Event::Refused,
                Err(_) => Event::Failed,
            };
            let _ = told.send((self.index, event, Instant::now())).await;
            match event {
                Event::Version(version) => {
                    self.in_force.store(version, Ordering::Relaxed);
                    self.news.notify_one();
                    pause = FIRST_PAUSE;
                }
                _ => {
                    tokio::time::sleep(spread(pause)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn report_always(&self, told: &mpsc::Sender<Told>) {
        // Agents were not all started at the same moment.
        let mut wait =
            REPORT_EVERY.mul_f64(f64::from(u16::from_le_bytes(system_bytes())) / f64::from(u16::MAX));
        loop {
            let _ = tokio::time::timeout(wait, self.news.notified()).await;
            let version = self.in_force.load(Ordering::Relaxed);
            let event = match self.report(version).await {
                Ok(()) => Event::Reported(version),
                Err(_) => Event::Failed,
            };
            let _ = told.send((self.index, event, Instant::now())).await;
            wait = REPORT_EVERY;
        }
    }

    /// Its number.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Whether the control plane ends a new connection of it. TLS 1.3: the server has looked at the certificate when it answers.
    pub(super) async fn is_refused(&self) -> bool {
        match self.connect().await {
            Ok(mut wire) => exchange(&mut wire, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.is_err(),
            Err(_) => true,
        }
    }

    async fn connect(&self) -> io::Result<Connection> {
        connect(self.address, &self.tls).await
    }

    /// The version of a newer configuration, or none after a while.
    async fn ask(&self, in_force: u64) -> io::Result<Option<u64>> {
        let mut wire = self.connect().await?;
        let head = format!("GET {CONFIGURATION}?after={in_force} HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = exchange(&mut wire, head.as_bytes()).await?;
        match answer.status() {
            Some(200) => version(&answer.body).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into()),
            Some(204) => Ok(None),
            Some(403) => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Err(io::ErrorKind::Other.into()),
        }
    }

    async fn report(&self, version: u64) -> io::Result<()> {
        let member =
            json!({"outcome": {"outcome": "applied", "version": version}, "certificate_not_after_ms": 0});
        let report =
            json!({"agent_version": "0.1.0", "configuration": version, "members": {"node-1": member}});
        let mut wire = self.connect().await?;
        let answer = exchange(&mut wire, &post(STATUS, &report.to_string())).await?;
        if answer.status() == Some(204) { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
    }
}

/// A fifth more or less.
fn spread(time: Duration) -> Duration {
    time.mul_f64(0.8 + 0.4 * f64::from(u16::from_le_bytes(system_bytes())) / f64::from(u16::MAX))
}

async fn let_in(
    address: SocketAddr,
    by_seed: Arc<ClientConfig>,
    bundle: &EnrollmentBundle,
    csr: String,
) -> io::Result<EnrollmentAnswer> {
    let socket = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(by_seed).connect(name(), socket).await?;
    let exporter = stream.get_ref().1.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None);
    let exporter = exporter.map_err(io::Error::other)?;
    let mut wire = Wire::new(stream);
    let head = format!("GET {NONCE}?bundle_id={} HTTP/1.1\r\nHost: x\r\n\r\n", bundle.bundle_id);
    let nonce: NonceAnswer = serde_json::from_slice(&exchange(&mut wire, head.as_bytes()).await?.body)?;
    let binding_key = SigningKey::generate().public();
    let (bundle_id, nonce) = (bundle.bundle_id, nonce.nonce);
    let proof = EnrollmentProof {
        bundle_id,
        nonce: &nonce,
        csr: &csr,
        binding_key: &binding_key,
        exporter: &exporter,
    };
    let signature = proof.sign(&bundle.key());
    let request = EnrollmentRequest { bundle_id, nonce, csr, binding_key, signature };
    let answer = exchange(&mut wire, &post(ENROLL, &serde_json::to_string(&request)?)).await?;
    serde_json::from_slice(&answer.body)
        .map_err(|_| io::Error::other(String::from_utf8_lossy(&answer.body).into_owned()))
}

async fn connect(address: SocketAddr, tls: &TlsConnector) -> io::Result<Connection> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(Wire::new(tls.connect(name(), socket).await?))
}

async fn exchange(wire: &mut Connection, request: &[u8]) -> io::Result<Message> {
    wire.write(request).await?;
    wire.read().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// No certificate of the mesh has a name; none is sent.
fn name() -> ServerName<'static> {
    ServerName::try_from("control.invalid").expect("it is a name")
}

/// The text begins with it, quoted inside JSON.
fn version(body: &[u8]) -> Option<u64> {
    const MARK: &[u8] = br#"\"version\":"#;
    let at = body.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let digits = body[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&body[at..at + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_the_signed_text() {
        let body = br#"{"text":"{\"version\":17,\"tenant\":\"a\",\"deny_list\":\"{\\\"version\\\":1}\"}"}"#;
        assert_eq!(version(body), Some(17));
        assert_eq!(version(b"{}"), None);
    }
}
