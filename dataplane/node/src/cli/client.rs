//! A client of a node's admin socket: one request a connection, an answer with a bound.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// Longest answer, bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Longest silence: a walk over a journal may take its time.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Nothing can be explained.
    #[error(transparent)]
    Route(#[from] super::route::RouteError),
    /// No connection to the node.
    #[error("{socket}: {source}; is the node running, and is this its admin.socket?")]
    Connect {
        /// Path of the socket.
        socket: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("{socket}: {source}")]
    Broken {
        /// Path of the socket.
        socket: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// What came back is no answer of a node.
    #[error("{socket}: what came back is no answer of a node of this version")]
    Answer {
        /// Path of the socket.
        socket: String,
    },
    /// The node refused.
    #[error("refused ({status}): {detail}")]
    Refused {
        /// The answer's status.
        status: u16,
        /// Why.
        detail: String,
    },
    /// The configuration cannot be read, or names no socket.
    #[error("{0}")]
    Config(String),
    /// An argument that cannot be read.
    #[error("{0}")]
    Argument(String),
    /// No node that was asked has it in a journal.
    #[error("{0}: no journal of these nodes has it, or not any more")]
    Unknown(String),
    /// The terminal or the file that is written to.
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
}

/// The admin socket of one node.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Over the socket at `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The answer to a GET, as JSON.
    pub fn get(&self, path: &str) -> Result<Value, CliError> {
        self.ask("GET", path, "").and_then(|body| self.parse(&body))
    }

    /// The answer to a POST, as JSON.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.post_bytes(path, body).and_then(|body| self.parse(&body))
    }

    /// The answer to a POST, as it is.
    pub fn post_bytes(&self, path: &str, body: &Value) -> Result<Vec<u8>, CliError> {
        self.ask("POST", path, &body.to_string())
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Vec<u8>, CliError> {
        let socket = self.socket.display().to_string();
        let mut stream = UnixStream::connect(&self.socket)
            .map_err(|source| CliError::Connect { socket: socket.clone(), source })?;
        let mut answer = Vec::new();
        let exchanged = stream.set_read_timeout(Some(ANSWER_TIMEOUT)).and_then(|()| {
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(body.as_bytes())?;
            stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)
        });
        exchanged.map_err(|source| CliError::Broken { socket, source })?;
        let (status, body) = self.split(&answer)?;
        if (200..300).contains(&status) {
            return Ok(body.to_vec());
        }
        let problem: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = problem["detail"].as_str().map(str::to_owned);
        let detail = text.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
        Err(CliError::Refused { status, detail })
    }

    /// The status of an answer and its body, which its length shows to be whole.
    fn split<'a>(&self, answer: &'a [u8]) -> Result<(u16, &'a [u8]), CliError> {
        let parse = || {
            let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
            let (head, body) = (std::str::from_utf8(&answer[..end]).ok()?, &answer[end + 4..]);
            let status = head.get(9..12)?.parse().ok()?;
            let mut lines = head.lines().filter_map(|line| line.split_once(':'));
            let (_, length) = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
            (length.trim().parse() == Ok(body.len())).then_some((status, body))
        };
        parse().ok_or_else(|| CliError::Answer { socket: self.socket.display().to_string() })
    }

    fn parse(&self, body: &[u8]) -> Result<Value, CliError> {
        let answer = || CliError::Answer { socket: self.socket.display().to_string() };
        serde_json::from_slice(body).map_err(|_| answer())
    }
}
