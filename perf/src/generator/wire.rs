//! What a connection speaks below HTTP: TLS 1.3, or nothing, which only the check against another generator wants.
//!
//! In: bytes of the socket, and of requests. Out: the reverse. It has no socket.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use rustls_pki_types::ServerName;

/// The name in the lab's public certificates, and in each request.
pub(super) const HOST: &str = "localhost";

/// Either of them.
pub(super) enum Wire {
    /// rustls.
    Tls(Box<ClientConnection>),
    /// What is to be sent.
    Plain(Vec<u8>),
}

impl Wire {
    /// TLS with `config`, or plain without.
    pub(super) fn new(config: Option<&Arc<ClientConfig>>) -> Result<Self, rustls::Error> {
        let Some(config) = config else { return Ok(Self::Plain(Vec::new())) };
        let name = ServerName::try_from(HOST).expect("a valid name");
        let mut connection = ClientConnection::new(Arc::clone(config), name)?;
        connection.set_buffer_limit(None);
        Ok(Self::Tls(Box::new(connection)))
    }

    /// Takes bytes off the socket; pieces of plaintext go to `plaintext`.
    pub(super) fn handle_bytes(
        &mut self,
        mut bytes: &[u8],
        mut plaintext: impl FnMut(&[u8]),
    ) -> Result<(), rustls::Error> {
        let Self::Tls(connection) = self else {
            plaintext(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            let unread = |_| rustls::Error::General("plaintext left unread".to_owned());
            if connection.read_tls(&mut bytes).map_err(unread)? == 0 {
                return Ok(());
            }
            let mut left = connection.process_new_packets()?.plaintext_bytes_to_read();
            let mut reader = connection.reader();
            while left > 0 {
                let Ok(piece) = reader.fill_buf() else { break };
                let taken = piece.len();
                if taken == 0 {
                    break;
                }
                plaintext(piece);
                reader.consume(taken);
                left = left.saturating_sub(taken);
            }
        }
        Ok(())
    }

    /// Bytes of a request; before the end of the handshake they wait for it.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Tls(connection) => {
                connection.writer().write_all(bytes).expect("the outgoing buffer has no limit");
            }
            Self::Plain(out) => out.extend_from_slice(bytes),
        }
    }

    /// Whether there is something to send.
    pub(super) fn wants_write(&self) -> bool {
        match self {
            Self::Tls(connection) => connection.wants_write(),
            Self::Plain(out) => !out.is_empty(),
        }
    }

    /// Moves what is to be sent behind what is in `out`.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Tls(connection) => {
                while connection.wants_write() {
                    connection.write_tls(out).expect("a vector takes everything");
                }
            }
            Self::Plain(bytes) => out.append(bytes),
        }
    }

    /// Says goodbye.
    pub(super) fn finish(&mut self) {
        if let Self::Tls(connection) = self {
            connection.send_close_notify();
        }
    }

    /// Once it can carry requests: whether it resumed a session.
    pub(super) fn opened(&self) -> Option<Resumed> {
        match self {
            Self::Plain(_) => Some(Resumed::No),
            Self::Tls(connection) if connection.is_handshaking() => None,
            Self::Tls(connection) => match connection.handshake_kind() {
                Some(HandshakeKind::Resumed) => Some(Resumed::Yes),
                _ => Some(Resumed::No),
            },
        }
    }
}

/// Whether a connection took up an earlier session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resumed {
    /// It did.
    Yes,
    /// A full handshake, or none.
    No,
}
