//! The bytes of a connection to a target: TLS over TCP, or plain over a unix socket of this host.

use std::sync::Arc;

use zen_identity::{Denial, DenyList};
use zen_uring::{Reactor, SocketId};

use crate::config::{Target, Transport};
use crate::stream::Stream;
use crate::tls::{Tls, TlsError};

/// Buffers above this are not kept for the next send.
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// A connection that is up, at least as far as the socket.
#[allow(clippy::large_enum_variant, reason = "nearly all of them are TLS")]
pub enum Channel {
    /// TLS.
    Tls(Stream),
    /// As it is.
    Plain(Plain),
}

/// Why a channel was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwilling {
    /// TLS cannot be begun.
    Tls,
    /// Whoever listens is not the user that is configured.
    WrongPeer,
}

impl Channel {
    /// Begins to receive from a target that took our connection.
    pub fn start(target: &Target, socket: SocketId, reactor: &mut Reactor) -> Result<Self, Unwilling> {
        match &target.transport {
            Transport::Tls { tls, server_name } => {
                let tls = Tls::connect(tls, server_name.clone()).map_err(|_| Unwilling::Tls)?;
                Ok(Self::Tls(Stream::start(socket, tls, reactor)))
            }
            Transport::Unix { peer_uid, .. } => {
                if peer_uid.is_some() && reactor.peer_uid(socket) != *peer_uid {
                    return Err(Unwilling::WrongPeer);
                }
                reactor.receive(socket);
                Ok(Self::Plain(Plain { socket, queued: Vec::new(), sending: false }))
            }
        }
    }

    /// Takes bytes off the wire.
    pub fn handle_bytes(&mut self, bytes: &mut [u8], plaintext: &mut Vec<u8>) -> Result<(), TlsError> {
        match self {
            Self::Tls(stream) => stream.handle_ciphertext(bytes, plaintext),
            Self::Plain(_) => {
                plaintext.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// A head and its body; they leave with the next [`Channel::flush`].
    pub fn write_parts(&mut self, parts: [&[u8]; 2]) {
        match self {
            Self::Tls(stream) => stream.write_parts(parts),
            Self::Plain(plain) => {
                plain.queued.reserve_exact(parts[0].len() + parts[1].len());
                for part in parts {
                    plain.queued.extend_from_slice(part);
                }
            }
        }
    }

    /// Submits what is waiting, unless a send is in flight.
    pub fn flush(&mut self, reactor: &mut Reactor) {
        match self {
            Self::Tls(stream) => stream.flush(reactor),
            Self::Plain(plain) => plain.flush(reactor),
        }
    }

    /// Takes a send's completion and goes on with what came meanwhile.
    pub fn handle_sent(&mut self, buffer: Vec<u8>, reactor: &mut Reactor) {
        match self {
            Self::Tls(stream) => stream.handle_sent(buffer, reactor),
            Self::Plain(plain) => plain.handle_sent(buffer, reactor),
        }
    }

    /// Whether the peer said that nothing follows; a plain one only closes.
    pub fn peer_closed(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.tls.peer_closed())
    }

    /// Whether the peer is denied by a list that is new to this connection; who listens on a socket shows none.
    pub fn handle_deny_list(&mut self, list: &Arc<DenyList>, wall_ms: u64) -> Option<Denial> {
        match self {
            Self::Tls(stream) => stream.tls.handle_deny_list(list, wall_ms),
            Self::Plain(_) => None,
        }
    }

    /// The end of the peer's certificate, Unix ms, once it was shown.
    pub fn peer_not_after_ms(&self) -> Option<u64> {
        match self {
            Self::Tls(stream) => stream.tls.peer_not_after_ms(),
            Self::Plain(_) => None,
        }
    }
}

/// Bytes as they are, one send in flight at a time.
pub struct Plain {
    socket: SocketId,
    queued: Vec<u8>,
    sending: bool,
}

impl Plain {
    fn flush(&mut self, reactor: &mut Reactor) {
        if self.sending || self.queued.is_empty() {
            return;
        }
        self.sending = true;
        reactor.send(self.socket, std::mem::take(&mut self.queued));
    }

    fn handle_sent(&mut self, buffer: Vec<u8>, reactor: &mut Reactor) {
        self.sending = false;
        if self.queued.is_empty() && buffer.capacity() <= SPARE_BYTES_MAX {
            self.queued = buffer;
        }
        self.flush(reactor);
    }
}
