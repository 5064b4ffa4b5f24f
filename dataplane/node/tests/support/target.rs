//! A target in the test process: HTTPS on blocking threads, with a client certificate required or not.
//!
//! Enters: deliveries of an egress. Leaves: a record of each, and answers from a script. Standard
//! Webhooks signatures are computed here from the specification alone, not by the node's code.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zen_core::crypto::{Digest, Mac, MacJob, Tag};
use zen_core::envelope::{DeliveryError, DeliveryVerifier, ReceivedDelivery, write_forwarded_headers};
use zen_hmac::PreparedKey;

use crate::support::node::PATIENCE;

/// A connection of a target that says nothing for this long is given up.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The request line.
    pub line: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    /// When it was whole.
    pub at: Instant,
    /// The SPIFFE id of the client's certificate.
    pub peer: Option<String>,
}

impl Delivery {
    /// The value of a header that must be there once.
    pub fn header(&self, name: &str) -> &str {
        let values: Vec<&str> = self.values(name);
        assert_eq!(values.len(), 1, "{name} in {:?}", self.headers);
        values[0]
    }

    /// All values of a header.
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|line| line.0 == name).map(|line| line.1.as_str()).collect()
    }

    /// The event's id.
    pub fn event_id(&self) -> &str {
        self.header("zen-event-id")
    }

    /// Verifies `zen-signature` as a target does.
    pub fn verify(&self, verifier: &mut DeliveryVerifier<PreparedKey>) -> Result<String, DeliveryError> {
        let mut headers = String::new();
        let lines = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        write_forwarded_headers(lines, &mut headers);
        let received = ReceivedDelivery {
            signature: self.header("zen-signature"),
            event_id: self.event_id(),
            endpoint: self.header("zen-endpoint"),
            content_type: self.values("content-type").first().copied().unwrap_or_default(),
            headers: &headers,
            body: &self.body,
        };
        verifier.verify(&TestCrypto, &received, unix_ms()).map(|id| id.to_string())
    }

    /// Checks the Standard Webhooks signature (specification 1.0.0) under a `whsec_` secret.
    pub fn check_standard_webhooks(&self, secret: &str) {
        let key =
            STANDARD.decode(secret.strip_prefix("whsec_").expect("a Standard Webhooks secret")).unwrap();
        let (id, time) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        let age_ms = (time.parse::<u64>().unwrap() * 1000).abs_diff(unix_ms());
        assert!(age_ms < 60_000, "webhook-timestamp {time} is {age_ms} ms from now");
        let signed = [id.as_bytes(), b".", time.as_bytes(), b".", &self.body].concat();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed);
        let expected = format!("v1,{}", STANDARD.encode(tag));
        let found = self.header("webhook-signature").split(' ').any(|value| value == expected);
        assert!(found, "webhook-signature {} is not {expected}", self.header("webhook-signature"));
    }
}

/// What a target says.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code; 0 closes the connection without an answer.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// What says how long that is, instead of a `content-length` that is right.
    pub framing: Option<&'static str>,
    /// More header lines.
    pub headers: Vec<(&'static str, String)>,
    /// Waits before it answers.
    pub delay: Duration,
    /// What follows the answer.
    pub then: Then,
    /// Bytes that are sent instead, whatever they are, and how many more of `x`.
    pub raw: Option<(Vec<u8>, u64)>,
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The connection stays.
    Keep,
    /// The connection is closed although the answer did not say so.
    CloseSilently,
}

impl Answer {
    /// A status and nothing else.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            body: Vec::new(),
            framing: None,
            headers: Vec::new(),
            delay: Duration::ZERO,
            then: Then::Keep,
            raw: None,
        }
    }

    /// These bytes, then `fill` more.
    pub fn raw(bytes: impl Into<Vec<u8>>, fill: u64) -> Self {
        Self { raw: Some((bytes.into(), fill)), ..Self::status(200) }
    }

    /// With a status and a body.
    pub fn body(status: u16, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n\r\n", body.len());
        Self::raw([head.as_bytes(), body].concat(), 0)
    }

    /// With a header line.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a body.
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// With a line in place of `content-length`.
    pub fn framing(mut self, line: &'static str) -> Self {
        self.framing = Some(line);
        self
    }

    /// After a delay.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Closes behind the answer.
    pub fn closing(mut self) -> Self {
        self.then = Then::CloseSilently;
        self
    }
}

/// What a target shows, and of whom it wants a certificate.
#[derive(Clone, Copy, Debug)]
pub struct TargetTls<'a> {
    /// PEM chain.
    pub certificate: &'a Path,
    /// PEM key.
    pub key: &'a Path,
    /// Requires a client certificate of this CA.
    pub client_ca: Option<&'a Path>,
}

type Script = dyn Fn(usize, &Delivery) -> Answer + Send + Sync;

/// A running target; its threads end with the test process.
#[derive(Clone)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<Arc<Script>>,
    deliveries: Mutex<Vec<Delivery>>,
    arrived: Condvar,
    connections: AtomicUsize,
    handshakes_failed: AtomicUsize,
    busy: AtomicUsize,
    busy_max: AtomicUsize,
    filled: AtomicUsize,
}

impl Target {
    /// Starts to listen; the script gets the delivery's number, from 0, and the delivery.
    pub fn start(
        tls: TargetTls<'_>,
        script: impl Fn(usize, &Delivery) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), tls, script)
    }

    /// As [`Target::start`], at an address that was picked before.
    pub fn start_at(
        address: SocketAddr,
        tls: TargetTls<'_>,
        script: impl Fn(usize, &Delivery) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::new(Arc::new(script)));
        let (config, accepting) = (server_config(tls), Arc::clone(&shared));
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (config, shared) = (Arc::clone(&config), Arc::clone(&accepting));
                let connection = shared.connections.fetch_add(1, Ordering::AcqRel);
                std::thread::spawn(move || {
                    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
                    // How a connection ends is the peer's business; what came over it was recorded.
                    let _ = greet(&mut stream, connection, &shared);
                });
            }
        });
        Self { address, shared }
    }

    /// Plain HTTP on a unix socket; its address leads nowhere.
    pub fn start_unix(
        path: &Path,
        script: impl Fn(usize, &Delivery) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let shared = Arc::new(Shared::new(Arc::new(script)));
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepting);
                let connection = shared.connections.fetch_add(1, Ordering::AcqRel);
                std::thread::spawn(move || {
                    let _ = socket.set_read_timeout(Some(READ_TIMEOUT));
                    let _ = serve(&mut socket, None, connection, &shared);
                });
            }
        });
        Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), shared }
    }

    /// Answers differently from now on.
    pub fn script(&self, script: impl Fn(usize, &Delivery) -> Answer + Send + Sync + 'static) {
        *lock(&self.shared.script) = Arc::new(script);
    }

    /// Everything that came so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.shared.deliveries).clone()
    }

    /// Waits until at least `count` requests came.
    pub fn wait(&self, count: usize) -> Vec<Delivery> {
        let until = Instant::now() + PATIENCE;
        let mut deliveries = lock(&self.shared.deliveries);
        while deliveries.len() < count {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} of {count} deliveries came", deliveries.len());
            deliveries = self.shared.arrived.wait_timeout(deliveries, left).unwrap().0;
        }
        deliveries.clone()
    }

    /// TCP connections that were accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// Connections that ended before a request.
    pub fn handshakes_failed(&self) -> usize {
        self.shared.handshakes_failed.load(Ordering::Acquire)
    }

    /// Bytes of raw answers' fill that were sent.
    pub fn filled(&self) -> usize {
        self.shared.filled.load(Ordering::Acquire)
    }

    /// Most requests that were being answered at once.
    pub fn busy_max(&self) -> usize {
        self.shared.busy_max.load(Ordering::Acquire)
    }
}

impl Shared {
    fn new(script: Arc<Script>) -> Self {
        Self {
            script: Mutex::new(script),
            deliveries: Mutex::default(),
            arrived: Condvar::new(),
            connections: AtomicUsize::new(0),
            handshakes_failed: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            busy_max: AtomicUsize::new(0),
            filled: AtomicUsize::new(0),
        }
    }
}

fn greet(
    stream: &mut StreamOwned<ServerConnection, TcpStream>,
    connection: usize,
    shared: &Shared,
) -> io::Result<()> {
    stream.sock.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.sock.set_nodelay(true)?;
    if let Err(error) = stream.conn.complete_io(&mut stream.sock) {
        shared.handshakes_failed.fetch_add(1, Ordering::AcqRel);
        return Err(error);
    }
    let peer = zen_identity::peer_id(stream.conn.peer_certificates()).map(|id| id.to_string());
    serve(stream, peer, connection, shared)
}

fn serve(
    stream: &mut (impl Read + Write),
    peer: Option<String>,
    connection: usize,
    shared: &Shared,
) -> io::Result<()> {
    let mut buffered = Vec::new();
    loop {
        let (line, headers, body) = read_request(stream, &mut buffered)?;
        let delivery = Delivery { line, headers, body, connection, at: Instant::now(), peer: peer.clone() };
        let busy = shared.busy.fetch_add(1, Ordering::AcqRel) + 1;
        shared.busy_max.fetch_max(busy, Ordering::AcqRel);
        let number = {
            let mut deliveries = lock(&shared.deliveries);
            deliveries.push(delivery.clone());
            shared.arrived.notify_all();
            deliveries.len() - 1
        };
        let script = Arc::clone(&lock(&shared.script));
        let answer = script(number, &delivery);
        std::thread::sleep(answer.delay);
        shared.busy.fetch_sub(1, Ordering::AcqRel);
        if answer.status == 0 {
            return Ok(());
        }
        if let Some((bytes, fill)) = &answer.raw {
            stream.write_all(bytes)?;
            stream.flush()?;
            fill_up(stream, *fill, shared)?;
            continue;
        }
        let length = format!("content-length: {}\r\n", answer.body.len());
        let framing = answer.framing.unwrap_or(&length);
        let mut text = format!("HTTP/1.1 {} Scripted\r\n{framing}", answer.status);
        for (name, value) in &answer.headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        text.push_str("\r\n");
        stream.write_all(&[text.as_bytes(), &answer.body].concat())?;
        stream.flush()?;
        if answer.then == Then::CloseSilently {
            return Ok(());
        }
    }
}

/// Sends what the peer takes of `fill` bytes.
fn fill_up(stream: &mut impl Write, fill: u64, shared: &Shared) -> io::Result<()> {
    let piece = [b'x'; 16 * 1024];
    let mut left = fill;
    while left > 0 {
        let length = left.min(piece.len() as u64) as usize;
        stream.write_all(&piece[..length])?;
        shared.filled.fetch_add(length, Ordering::AcqRel);
        left -= length as u64;
    }
    stream.flush()
}

/// Request line, header lines, body.
type Request = (String, Vec<(String, String)>, Vec<u8>);

fn read_request(stream: &mut impl Read, buffered: &mut Vec<u8>) -> io::Result<Request> {
    let head_bytes = loop {
        if let Some(at) = buffered.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        read_more(stream, buffered)?;
    };
    let head = String::from_utf8(buffered.drain(..head_bytes).collect()).map_err(io::Error::other)?;
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    while buffered.len() < length {
        read_more(stream, buffered)?;
    }
    Ok((line, headers, buffered.drain(..length).collect()))
}

fn read_more(stream: &mut impl Read, buffered: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 16 * 1024];
    match stream.read(&mut piece)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            buffered.extend_from_slice(&piece[..count]);
            Ok(())
        }
    }
}

fn server_config(tls: TargetTls<'_>) -> Arc<ServerConfig> {
    let provider = zen_identity::provider();
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13]).unwrap();
    let builder = match tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file) {
                roots.add(certificate).unwrap();
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let key = PrivateKeyDer::from_pem_file(tls.key).unwrap();
    Arc::new(builder.with_single_cert(certificates(tls.certificate), key).unwrap())
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file).unwrap().map(Result::unwrap).collect()
}

/// Unix milliseconds.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as u64
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `zen_core`'s cryptography for tests.
#[derive(Clone, Copy, Debug)]
pub struct TestCrypto;

impl Mac for TestCrypto {
    type Key = PreparedKey;

    fn prepare(&self, secret: &[u8]) -> PreparedKey {
        PreparedKey::new(secret)
    }

    fn sign(&self, jobs: &[MacJob<'_, PreparedKey>], tags: &mut Vec<Tag>) {
        tags.clear();
        tags.extend(jobs.iter().map(|job| job.key.sign(&[&job.parts.concat()])[0]));
    }

    fn sha256(&self, bytes: &[u8]) -> Digest {
        digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}
