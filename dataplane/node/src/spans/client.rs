//! One POST to the collector, on the thread of the spans alone: a deadline for the whole of it, an answer with a bound.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use zen_core::access::{DestinationRefused, ReachRules};
use zen_core::http1::{Limits, Progress, ResponseError, ResponseParser};

use super::Export;
use crate::reach::COLLECTOR;
use crate::tls::{Tls, TlsError};

/// From the dial to the answer's end; the system's resolver keeps a time of its own.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer body that is read; it is not kept.
const ANSWER_BODY_BYTES_MAX: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The connection.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// None of its addresses may be dialled.
    #[error("not dialled: {0}; name another host in tracing.otlp_endpoint")]
    Forbidden(DestinationRefused),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What came is no HTTP/1.1.
    #[error(transparent)]
    Answer(#[from] ResponseError),
}

/// Posts a message and returns the answer's status.
pub fn post(export: &Export, reach: &ReachRules, body: &[u8]) -> Result<u16, PostError> {
    let until = Instant::now() + TIMEOUT;
    let host = export.address.host.as_str();
    let addresses = (host, export.address.port).to_socket_addrs()?;
    let first = reach.first_of(&COLLECTOR, host, addresses).map_err(PostError::Forbidden)?;
    let address = first.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut socket = TcpStream::connect_timeout(&address, left(until)?)?;
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        export.path,
        export.host,
        body.len()
    );
    let mut tls = match &export.tls {
        None => None,
        Some((config, name)) => Some(Tls::connect(config, name.clone())?),
    };
    match &mut tls {
        None => send(&mut socket, &[head.as_bytes(), body].concat(), until)?,
        Some(tls) => tls.write(&[head.as_bytes(), body].concat()),
    }
    answer(&mut socket, tls.as_mut(), until)
}

/// Drives the connection until the answer is whole.
fn answer(socket: &mut TcpStream, mut tls: Option<&mut Tls>, until: Instant) -> Result<u16, PostError> {
    let limits = Limits { body_bytes_max: ANSWER_BODY_BYTES_MAX, ..Limits::default() };
    let mut parser = ResponseParser::new(limits);
    parser.start();
    let (mut buffer, mut plaintext) = ([0; 16 * 1024], Vec::new());
    loop {
        if let Some(tls) = &mut tls {
            let mut ciphertext = Vec::new();
            tls.take_ciphertext(&mut ciphertext);
            send(socket, &ciphertext, until)?;
        }
        socket.set_read_timeout(Some(left(until)?))?;
        let count = socket.read(&mut buffer)?;
        plaintext.clear();
        match &mut tls {
            None => plaintext.extend_from_slice(&buffer[..count]),
            Some(tls) => {
                tls.handle_ciphertext(&mut buffer[..count], &mut |piece| plaintext.extend_from_slice(piece))?;
            }
        }
        let mut input = &plaintext[..];
        loop {
            match parser.handle_bytes(&mut input)? {
                Progress::End => return Ok(parser.status()),
                Progress::NeedMore => break,
                Progress::Head | Progress::Body(_) => {}
            }
        }
        if count == 0 {
            parser.handle_eof()?;
            return Ok(parser.status());
        }
    }
}

fn send(socket: &mut TcpStream, bytes: &[u8], until: Instant) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        socket.set_write_timeout(Some(left(until)?))?;
        let written = socket.write(rest)?;
        rest = &rest[written..];
    }
    Ok(())
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
