//! A connection to lockd: one request at a time, each with a deadline.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use crate::SecretName;
use crate::wire::{
    GREETING_BYTES, Greeting, Nonce, REPLY_HEAD_BYTES, Refusal, ReplyHead, Request, WireError,
};

/// Longest wait for a greeting, a write or a piece of an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Who may listen on the socket: whoever made a socket at its path could hand out secrets of his own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Root, or the user that this process runs as.
    RootOrSelf,
    /// The user with this id, and nobody else.
    User(u32),
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or it may not be reached.
    #[error("{}: {source}; is zen-lockd running, and may this user reach its socket?", socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else's socket.
    #[error("{}: user {uid} listens there, who is not trusted with secrets; give the user that runs zen-lockd", socket.display())]
    Stranger {
        /// Where.
        socket: PathBuf,
        /// Who listens.
        uid: u32,
    },
    /// The connection ended or fell silent.
    #[error("{}: {source}; see the log of zen-lockd", socket.display())]
    Io {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not speak the protocol.
    #[error("{}: {source}", socket.display())]
    Wire {
        /// Where.
        socket: PathBuf,
        /// What was wrong.
        source: WireError,
    },
    /// An answer without a value.
    #[error("{name}: {refusal}")]
    Refused {
        /// Which secret.
        name: SecretName,
        /// Why.
        refusal: Refusal,
    },
}

/// A connection to the host's lockd.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    socket: PathBuf,
    nonce: Nonce,
}

impl Client {
    /// Connects, and looks at who listens before anything is asked.
    pub fn connect(socket: &Path, listener: Listener) -> Result<Self, ClientError> {
        let connect = |source| ClientError::Connect { socket: socket.to_owned(), source };
        let io = |source| ClientError::Io { socket: socket.to_owned(), source };
        let mut stream = UnixStream::connect(socket).map_err(connect)?;
        let uid = getsockopt(&stream, PeerCredentials).map_err(|errno| connect(errno.into()))?.uid();
        let is_trusted = match listener {
            Listener::RootOrSelf => uid == 0 || uid == geteuid().as_raw(),
            Listener::User(user) => uid == user,
        };
        if !is_trusted {
            return Err(ClientError::Stranger { socket: socket.to_owned(), uid });
        }
        stream.set_read_timeout(Some(TIMEOUT)).map_err(io)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(io)?;
        let mut greeting = [0; GREETING_BYTES];
        stream.read_exact(&mut greeting).map_err(io)?;
        let Greeting { nonce } = Greeting::decode(&greeting)
            .map_err(|source| ClientError::Wire { socket: socket.to_owned(), source })?;
        Ok(Self { stream, socket: socket.to_owned(), nonce })
    }

    /// The value of a secret; after an error of the connection only a new one can ask.
    pub fn open(&mut self, name: &SecretName) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let request = Request { nonce: self.nonce, name: name.clone() };
        let written = self.stream.write_all(&request.encode());
        let mut head = [0; REPLY_HEAD_BYTES];
        // Whoever gets no place is told so, and the connection may be gone before the request is written.
        let read = self.stream.read_exact(&mut head);
        read.map_err(|source| self.io(written.err().unwrap_or(source)))?;
        let head = ReplyHead::decode(head)
            .map_err(|source| ClientError::Wire { socket: self.socket.clone(), source })?;
        match head {
            ReplyHead::Refused(refusal) => Err(ClientError::Refused { name: name.clone(), refusal }),
            ReplyHead::Value(length) => {
                let mut value = Zeroizing::new(vec![0; length]);
                self.stream.read_exact(&mut value).map_err(|source| self.io(source))?;
                Ok(value)
            }
        }
    }

    fn io(&self, source: io::Error) -> ClientError {
        ClientError::Io { socket: self.socket.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// A socket whose other end says `bytes` and closes when it was asked once.
    fn said(bytes: &'static [u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = stream.read(&mut [0; 64]);
        });
        (directory, socket)
    }

    fn ask(bytes: &'static [u8]) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let (_directory, socket) = said(bytes);
        Client::connect(&socket, Listener::RootOrSelf)?.open(&SecretName::parse("a/b/c").unwrap())
    }

    #[test]
    fn a_value_is_taken_whole() {
        assert_eq!(*ask(b"zenlock10123456789abcdef\0\0\0\x03\0abc").unwrap(), b"abc");
    }

    #[test]
    fn an_answer_that_is_none_is_refused() {
        assert!(matches!(ask(b"zenlock20123456789abcdef"), Err(ClientError::Wire { .. })));
        assert!(matches!(ask(b"HTTP/1.1 400"), Err(ClientError::Io { .. })), "cut off");
        assert!(matches!(ask(b"zenlock10123456789abcdef\0\0\0\x03\0ab"), Err(ClientError::Io { .. })));
        assert!(matches!(ask(b"zenlock10123456789abcdef\xff\0\0\x03\0ab"), Err(ClientError::Wire { .. })));
        let refused = ask(b"zenlock10123456789abcdef\0\0\0\0\x01").unwrap_err();
        assert_eq!(refused.to_string(), "a/b/c: lockd's policy does not grant it to this process");
    }

    #[test]
    fn a_socket_of_another_user_is_not_asked() {
        let (_directory, socket) = said(b"zenlock10123456789abcdef");
        let stranger = Listener::User(geteuid().as_raw() + 1);
        assert!(matches!(Client::connect(&socket, stranger), Err(ClientError::Stranger { .. })));
        let nobody = Client::connect(Path::new("/nonexistent/socket"), Listener::RootOrSelf);
        assert!(nobody.unwrap_err().to_string().contains("is zen-lockd running"));
    }
}
