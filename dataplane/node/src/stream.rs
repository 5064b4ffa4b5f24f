//! A TLS connection on a reactor socket: what sources, links and targets have in common.
//!
//! One send is in flight at a time; plaintext written meanwhile is encrypted at once and leaves with
//! the next flush, once per tick.

use zen_uring::{Reactor, SocketId};

use crate::tls::{Tls, TlsError};

/// Buffers above this are not kept for the next send, unless [`Stream::keeping`] says otherwise.
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// A connection that is up, at least as far as TCP.
#[derive(Debug)]
pub struct Stream {
    /// The reactor's name for it.
    pub socket: SocketId,
    /// Its TLS state.
    pub tls: Tls,
    spare_bytes_max: usize,
    /// Plaintext that was encrypted and has not been handed to a send.
    queued_bytes: usize,
    sending: bool,
    finishing: bool,
}

impl Stream {
    /// A stream that starts to receive.
    pub fn start(socket: SocketId, tls: Tls, reactor: &mut Reactor) -> Self {
        reactor.receive(socket);
        let spare_bytes_max = SPARE_BYTES_MAX;
        Self { socket, tls, spare_bytes_max, queued_bytes: 0, sending: false, finishing: false }
    }

    /// Keeps buffers up to this for the next send, bytes.
    pub fn keeping(self, spare_bytes_max: usize) -> Self {
        Self { spare_bytes_max, ..self }
    }

    /// Takes ciphertext off the wire.
    pub fn handle_ciphertext(&mut self, bytes: &mut [u8], plaintext: &mut Vec<u8>) -> Result<(), TlsError> {
        self.tls.handle_ciphertext(bytes, &mut |piece| plaintext.extend_from_slice(piece))
    }

    /// Encrypts `bytes`; they leave with the next [`Stream::flush`].
    pub fn write(&mut self, bytes: &[u8]) {
        debug_assert!(!self.finishing, "nothing follows a goodbye");
        self.tls.write(bytes);
        self.queued_bytes += bytes.len();
    }

    /// As [`Stream::write`], for a head and its body, in records of their own: to join them would copy the body.
    pub fn write_parts(&mut self, parts: [&[u8]; 2]) {
        debug_assert!(!self.finishing, "nothing follows a goodbye");
        for part in parts {
            self.tls.write(part);
        }
    }

    /// Submits what is waiting, unless a send is in flight.
    pub fn flush(&mut self, reactor: &mut Reactor) {
        if self.sending || !self.tls.wants_write() {
            return;
        }
        self.queued_bytes = 0;
        self.sending = true;
        reactor.send(self.socket, self.tls.take_outgoing());
    }

    /// Takes a send's completion and goes on with what came meanwhile.
    pub fn handle_sent(&mut self, buffer: Vec<u8>, reactor: &mut Reactor) {
        self.sending = false;
        if buffer.capacity() <= self.spare_bytes_max {
            self.tls.give_room(buffer);
        }
        self.flush(reactor);
    }

    /// Says goodbye; [`Stream::is_done`] once everything has left.
    pub fn finish(&mut self) {
        if !self.finishing {
            self.tls.close_notify();
            self.finishing = true;
        }
    }

    /// Whether the goodbye was said.
    pub fn is_finishing(&self) -> bool {
        self.finishing
    }

    /// Whether a send is in flight: whoever produces much should wait.
    pub fn is_sending(&self) -> bool {
        self.sending
    }

    /// Plaintext that waits behind the send in flight.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether everything up to the goodbye has left and the socket may be closed.
    pub fn is_done(&self) -> bool {
        self.finishing && !self.sending && !self.tls.wants_write()
    }

    /// Gives up the connection for another worker; nothing may be in flight.
    pub fn into_tls(self) -> Tls {
        debug_assert!(!self.sending, "a send in flight belongs to this reactor");
        self.tls
    }
}
