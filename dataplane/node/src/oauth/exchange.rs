//! One request to a token server: HTTP/1.1 over TLS 1.3, a connection for it alone, no redirect followed.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use zen_core::access::{DestinationPolicy, DestinationRefused, ReachRules};
use zen_core::deliver::{Credentials, USER_AGENT};
use zen_core::http1::{Limits, Progress, ResponseError, ResponseParser};
use zeroize::Zeroizing;

use super::answer::{self, AnswerError, Granted, push_form};
use crate::config::HostPort;
use crate::tls::{ClientTls, HANDSHAKE_BYTES, IDLE_BYTES, Tls, TlsError};

/// From the lookup to the whole answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer body.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Read at once.
const READ_BYTES: usize = 16 * 1024;
/// What a request takes while it is made, bytes.
pub const EXCHANGE_BYTES: usize = IDLE_BYTES + HANDSHAKE_BYTES + 4 * ANSWER_BYTES_MAX + 2 * READ_BYTES;

/// What is asked, of whom.
pub struct TokenRequest {
    /// The server.
    pub address: HostPort,
    /// For SNI and the name check.
    pub server_name: ServerName<'static>,
    /// Under which CAs.
    pub tls: ClientTls,
    /// Head and body.
    pub text: Zeroizing<String>,
}

/// Why there is no new token.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The name has no address.
    #[error("the token server's name is not resolved: {0}")]
    Name(io::Error),
    /// Policy forbids the address; see `egress.target_networks`.
    #[error("the token server is not dialled: {0}; see egress.target_networks")]
    Forbidden(DestinationRefused),
    /// The connection could not be made, or broke.
    #[error("no connection to the token server: {0}")]
    Connection(#[from] io::Error),
    /// No TLS session, or not its name.
    #[error("the token server: {0}")]
    Tls(#[from] TlsError),
    /// Not an HTTP/1.1 answer, or too long.
    #[error("the token server's answer: {0}")]
    Http(#[from] ResponseError),
    /// No whole answer in time.
    #[error("the token server does not answer in time")]
    TimedOut,
    /// An answer without a token.
    #[error("{0}")]
    Answer(#[from] AnswerError),
}

impl TokenRequest {
    /// Whether the other asks the same of the same server, as the same client.
    pub fn asks_as(&self, other: &Self) -> bool {
        self.address == other.address && *self.text == *other.text
    }
}

/// Head and body of the request.
pub fn write_token_request(
    host: &str,
    path: &str,
    credentials: &Credentials,
    scope: &str,
) -> Zeroizing<String> {
    let mut form = String::from("grant_type=client_credentials");
    if !scope.is_empty() {
        form.push_str("&scope=");
        push_form(&mut form, scope);
    }
    // With all its room from the start: what grows leaves a copy behind that nobody wipes.
    let mut text = Zeroizing::new(String::with_capacity(16 * 1024));
    let (value, length) = (credentials.value(), form.len());
    write!(
        text,
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: {value}\r\naccept: application/json\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\
         user-agent: {USER_AGENT}\r\nconnection: close\r\n\r\n{form}"
    )
    .expect("a string takes any text");
    text
}

/// Asks for a token.
pub async fn fetch(
    request: &TokenRequest,
    rules: (&ReachRules, &DestinationPolicy),
    lookups: &Arc<Semaphore>,
) -> Result<Granted, FetchError> {
    let exchange = async {
        let address = resolve(&request.address, rules, lookups).await?;
        let mut socket = TcpStream::connect(address).await?;
        let (status, body) = ask(request, &mut socket).await?;
        Ok(answer::read(status, &body)?)
    };
    tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or(Err(FetchError::TimedOut))
}

/// The first address that policy allows.
async fn resolve(
    server: &HostPort,
    (reach, policy): (&ReachRules, &DestinationPolicy),
    lookups: &Arc<Semaphore>,
) -> Result<SocketAddr, FetchError> {
    let place = Arc::clone(lookups).acquire_owned().await.expect("it is never closed");
    let (host, port) = (server.host.clone(), server.port);
    let lookup = tokio::task::spawn_blocking(move || {
        let _place = place;
        Ok((host.as_str(), port).to_socket_addrs()?.collect::<Vec<_>>())
    });
    let found: Result<Vec<SocketAddr>, io::Error> = lookup.await.map_err(io::Error::other)?;
    let first = reach.first_of(policy, &server.host, found.map_err(FetchError::Name)?);
    let not_found = || FetchError::Name(io::ErrorKind::NotFound.into());
    first.map_err(FetchError::Forbidden)?.ok_or_else(not_found)
}

async fn ask(
    request: &TokenRequest,
    socket: &mut TcpStream,
) -> Result<(u16, Zeroizing<Vec<u8>>), FetchError> {
    let mut tls = Tls::connect(&request.tls, request.server_name.clone())?;
    let limits = Limits { body_bytes_max: ANSWER_BYTES_MAX, ..Limits::default() };
    let mut parser = ResponseParser::new(limits);
    // With all its room from the start: what grows leaves a copy behind that nobody wipes.
    let mut body = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES_MAX));
    let (mut ciphertext, mut plaintext) = (Vec::new(), Zeroizing::new(Vec::with_capacity(2 * READ_BYTES)));
    let mut received = vec![0; READ_BYTES];
    parser.start();
    tls.write(request.text.as_bytes());
    loop {
        ciphertext.clear();
        tls.take_ciphertext(&mut ciphertext);
        socket.write_all(&ciphertext).await?;
        let count = socket.read(&mut received).await?;
        let decrypted =
            tls.handle_ciphertext(&mut received[..count], &mut |piece| plaintext.extend_from_slice(piece));
        let is_over = count == 0 || tls.peer_closed();
        let mut input = plaintext.as_slice();
        loop {
            match parser.handle_bytes(&mut input)? {
                Progress::NeedMore => break,
                Progress::Head => {}
                Progress::Body(piece) => body.extend_from_slice(piece),
                Progress::End => return Ok((parser.status(), body)),
            }
        }
        plaintext.clear();
        decrypted?;
        if is_over {
            parser.handle_eof()?;
            return Ok((parser.status(), body));
        }
    }
}
