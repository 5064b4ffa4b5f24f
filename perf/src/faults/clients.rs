//! Clients that misbehave: slow ones, endless bodies, garbage, handshakes that stop midway.
//!
//! Each function plays one round of many clients and returns what the node did wrong; an answer other
//! than the one that is due, or a connection that was left open, is a complaint.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::arena::{Arena, REQUEST_TIMEOUT};
use crate::error::LabError;
use crate::http::Wire;
use crate::load::unix_ms;
use crate::random::{Random, system_seed};
use crate::samples::{Endpoint, Samples, SchemeName, Sizes, source_id};
use crate::tls::source_config;

const SLOW_CLIENTS: usize = 100;
const ENDLESS_CLIENTS: usize = 16;
const GARBAGE_CLIENTS: usize = 200;
const HALF_HANDSHAKES: usize = 100;
/// What a deadline of the node may be late by on a busy machine.
const SLACK: Duration = Duration::from_secs(10);
/// How long the link's handshake may take, `HANDSHAKE_TIMEOUT_MS` of zen-core.
const LINK_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: usize = 1024 * 1024;
const PIECE_BYTES: usize = 64 * 1024;
/// A body without an end, as far as a test can have one.
const ENDLESS_BYTES: usize = 64 * 1024 * 1024;
const ALERT: u8 = 21;
const ALERT_PROTOCOL_VERSION: u8 = 70;

/// Whom the clients of an arena reach.
#[derive(Clone)]
pub(crate) struct Front {
    public: SocketAddr,
    link: SocketAddr,
    tls: Arc<ClientConfig>,
    endpoint: Endpoint,
}

impl Front {
    /// The ingester of `arena`, its link listener, and an endpoint of the GitHub scheme.
    pub(crate) fn of(arena: &Arena) -> Result<Self, LabError> {
        let mut endpoints = arena.lab.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.scheme == SchemeName::GitHub);
        Ok(Self {
            public: arena.lab.public,
            link: arena.lab.links[0],
            tls: source_config(&arena.lab.pki.public_ca())?,
            endpoint: endpoint.expect("the shape has every scheme").clone(),
        })
    }

    async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.public).await?;
        TlsConnector::from(Arc::clone(&self.tls)).connect(name(), stream).await
    }

    /// A signed request: its head, and its body.
    fn request(&self) -> Result<(Vec<u8>, Vec<u8>), LabError> {
        let samples = Samples::new(Sizes::Fixed(1024))?;
        let webhook = samples.webhook(&self.endpoint, 0, &source_id(system_seed(), 0));
        let mut head = Vec::new();
        webhook.write(&self.endpoint, "localhost", unix_ms() / 1000, &mut head);
        let body = head.split_off(head.len() - webhook.body.len());
        Ok((head, body))
    }

    /// The first flight of a handshake.
    fn hello(&self) -> Vec<u8> {
        let mut hello = Vec::new();
        let mut client = ClientConnection::new(Arc::clone(&self.tls), name()).expect("a valid configuration");
        client.write_tls(&mut hello).expect("a vector takes everything");
        hello
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a valid name")
}

/// Half of them send a head, half a body, a byte a second; each must get 408 and an end.
pub(crate) async fn slow(front: &Front) -> Result<Vec<String>, LabError> {
    let (head, body) = front.request()?;
    let play = |client: usize| {
        let (at_once, slowly) =
            if client.is_multiple_of(2) { (Vec::new(), head.clone()) } else { (head.clone(), body.clone()) };
        expect_status(dawdle(front.clone(), at_once, slowly), 408, REQUEST_TIMEOUT + SLACK)
    };
    Ok(gather(SLOW_CLIENTS, play).await)
}

/// Half of them announce a body over the bound, half send chunks without an end; each must get 413 and an end.
pub(crate) async fn endless(front: &Front) -> Vec<String> {
    let head = |framing: String| {
        let (id, tag) = (&front.endpoint.id, "0".repeat(64));
        format!(
            "POST /hooks/{id} HTTP/1.1\r\nhost: localhost\r\nx-github-event: push\r\nx-github-delivery: 1\r\n\
             x-hub-signature-256: sha256={tag}\r\n{framing}\r\n\r\n"
        )
    };
    let announced = head(format!("content-length: {}", BODY_BYTES_MAX + 1));
    let chunked = head("transfer-encoding: chunked".to_owned());
    let mut chunk = format!("{PIECE_BYTES:x}\r\n").into_bytes();
    chunk.resize(chunk.len() + PIECE_BYTES, b'x');
    chunk.extend_from_slice(b"\r\n");
    let play = |client: usize| {
        let (head, piece) = if client.is_multiple_of(2) {
            (announced.clone(), vec![b'x'; PIECE_BYTES])
        } else {
            (chunked.clone(), chunk.clone())
        };
        expect_status(pour(front.clone(), head, piece), 413, REQUEST_TIMEOUT + SLACK)
    };
    gather(ENDLESS_CLIENTS, play).await
}

/// Random bytes, plain HTTP, a hello of TLS 1.2, half a hello with an end; at most an alert may come back.
pub(crate) async fn garbage(front: &Front) -> Vec<String> {
    let hello = front.hello();
    let play = |client: usize| {
        let (bytes, alert) = match client % 4 {
            0 => (random_bytes(), None),
            1 => (b"POST /hooks/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n".to_vec(), None),
            2 => (tls12_hello(), Some(ALERT_PROTOCOL_VERSION)),
            _ => (hello[..hello.len() / 2].to_vec(), None),
        };
        let ends = client % 4 == 3;
        // A link's listener may also close without a word, when many are in handshake already.
        let (address, may_be_silent) =
            if (client / 4).is_multiple_of(5) { (front.link, true) } else { (front.public, alert.is_none()) };
        async move {
            let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            // A write to a connection that was closed already is as good.
            drop(stream.write_all(&bytes).await);
            if ends {
                drop(stream.shutdown().await);
            }
            let answer = read_to_end(&mut stream, LINK_TIMEOUT + SLACK).await?;
            let is_alert =
                answer.first() == Some(&ALERT) && alert.is_none_or(|kind| answer.last() == Some(&kind));
            if is_alert || answer.is_empty() && may_be_silent {
                return Ok(());
            }
            Err(format!(
                "garbage was answered with {} bytes: {:?}",
                answer.len(),
                &answer[..answer.len().min(16)]
            ))
        }
    };
    gather(GARBAGE_CLIENTS, play).await
}

/// Half of them stop inside the hello, half behind it, a tenth at the link's listener; each must be closed.
pub(crate) async fn half_handshakes(front: &Front) -> Vec<String> {
    let hello = front.hello();
    let play = |client: usize| {
        let bytes = if client.is_multiple_of(2) { hello.clone() } else { hello[..hello.len() / 2].to_vec() };
        let (address, deadline) = if client.is_multiple_of(10) {
            (front.link, LINK_TIMEOUT)
        } else {
            (front.public, REQUEST_TIMEOUT)
        };
        async move {
            let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            stream.write_all(&bytes).await.map_err(|error| error.to_string())?;
            read_to_end(&mut stream, deadline + SLACK).await.map(drop)
        }
    };
    gather(HALF_HANDSHAKES, play).await
}

/// Plays `count` clients at once; each kind of complaint once, with how many had it.
async fn gather<F>(count: usize, play: impl Fn(usize) -> F) -> Vec<String>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let clients: Vec<_> = (0..count).map(|client| tokio::spawn(play(client))).collect();
    let mut complaints = std::collections::BTreeMap::<String, u32>::new();
    for client in clients {
        if let Err(complaint) = client.await.expect("a client does not panic") {
            *complaints.entry(complaint).or_default() += 1;
        }
    }
    complaints.into_iter().map(|(complaint, count)| format!("{count} clients: {complaint}")).collect()
}

async fn expect_status(
    client: impl Future<Output = io::Result<u16>>,
    expected: u16,
    deadline: Duration,
) -> Result<(), String> {
    match timeout(deadline, client).await {
        Ok(Ok(status)) if status == expected => Ok(()),
        Ok(Ok(status)) => Err(format!("status {status} instead of {expected}")),
        Ok(Err(error)) => Err(format!("no status {expected}: {error}")),
        Err(_) => Err(format!("no status {expected} and no end within {} s", deadline.as_secs())),
    }
}

/// Sends a byte a second until there is an answer and the end behind it.
async fn dawdle(front: Front, at_once: Vec<u8>, slowly: Vec<u8>) -> io::Result<u16> {
    let mut wire = Wire::new(front.connect().await?);
    wire.write(&at_once).await?;
    for byte in slowly {
        wire.write(&[byte]).await?;
        if let Ok(answer) = timeout(Duration::from_secs(1), wire.read()).await {
            let status = answer?.and_then(|answer| answer.status()).ok_or(io::ErrorKind::UnexpectedEof)?;
            while let Ok(Some(_)) = wire.read().await {}
            return Ok(status);
        }
    }
    Err(io::Error::other("the request was taken whole"))
}

/// Sends pieces for as long as they are taken, until there is an answer and the end behind it.
async fn pour(front: Front, head: String, piece: Vec<u8>) -> io::Result<u16> {
    let (from, mut to) = tokio::io::split(front.connect().await?);
    let mut wire = Wire::new(tokio::io::join(from, tokio::io::sink()));
    let sending = tokio::spawn(async move {
        to.write_all(head.as_bytes()).await?;
        for _ in 0..ENDLESS_BYTES / piece.len() {
            to.write_all(&piece).await?;
        }
        to.flush().await
    });
    let status = wire.read().await?.and_then(|answer| answer.status());
    while let Ok(Some(_)) = wire.read().await {}
    sending.abort();
    status.ok_or(io::ErrorKind::UnexpectedEof.into())
}

/// What comes until the peer ends the connection, by whatever means.
async fn read_to_end(stream: &mut (impl AsyncRead + Unpin), deadline: Duration) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    match timeout(deadline, stream.read_to_end(&mut answer)).await {
        Ok(_) => Ok(answer),
        Err(_) => Err(format!("still open after {} s", deadline.as_secs())),
    }
}

/// Bytes that do not begin as a TLS record of any kind does.
fn random_bytes() -> Vec<u8> {
    let mut random = Random::new(system_seed());
    let mut bytes: Vec<u8> = (0..1024).map(|_| random.next() as u8).collect();
    bytes[0] |= 0x80;
    bytes
}

/// A `ClientHello` of RFC 5246: no `supported_versions`, so TLS 1.2 is the most it offers.
fn tls12_hello() -> Vec<u8> {
    let extensions =
        [&[0, 10, 0, 4, 0, 2, 0, 29][..], &[0, 11, 0, 2, 1, 0], &[0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1]]
            .concat();
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0, 0, extensions.len() as u8]);
    body.extend_from_slice(&extensions);
    let mut hello = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    hello.extend_from_slice(&body);
    hello
}
