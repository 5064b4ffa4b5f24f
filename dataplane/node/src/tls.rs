//! The node's only use of rustls: ciphertext in, plaintext out, and the reverse.
//!
//! A [`Tls`] is a machine without a socket. Ciphertext comes from the reactor's buffers, plaintext
//! goes to a parser; ciphertext to send is taken out once per tick. Verification of peers is in
//! `zen-identity`; TLS 1.3 only (RFC 8446).

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{ServerName, UnixTime};
use zen_identity::{Denial, DenyList, PeerRefused, SpiffeId};

/// TLS settings for connections that we accept.
pub type ServerTls = Arc<rustls::ServerConfig>;
/// TLS settings for connections that we dial.
pub type ClientTls = Arc<rustls::ClientConfig>;

/// Ciphertext that a peer which dialled us may send without a byte of plaintext: a handshake, a record.
const SILENT_BYTES_MAX: usize = 32 * 1024;
/// The same of a peer that we dialled, whose handshake may hold a long chain.
const SILENT_BYTES_MAX_DIALLED: usize = 128 * 1024;

/// An idle connection in rustls: keys, transcript, certificates. Measured in `tests/bounds.rs`; bytes.
pub const IDLE_BYTES: usize = 10 * 1024;
/// What a peer that has not finished its handshake may make us hold beside that, bytes.
pub const HANDSHAKE_BYTES: usize = SILENT_BYTES_MAX_DIALLED / 2;

/// Why a TLS connection failed; the peer's fault, or a policy's refusal of it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The protocol or a certificate check.
    #[error("tls: {}", said(.0))]
    Protocol(#[from] rustls::Error),
    /// The peer sent more than a parser may leave unread.
    #[error("tls: plaintext left unread")]
    Unread,
    /// A handshake without end, or records that carry nothing.
    #[error("tls: too much was sent without any data in it")]
    Silent,
}

impl TlsError {
    /// A label for counting.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Protocol(error) => match zen_identity::peer_refused(error) {
                Some(refused) if refused.denial().is_some() => "denied",
                Some(refused) if refused.is_deny_list_stale() => "deny_list_stale",
                _ => "tls",
            },
            Self::Unread | Self::Silent => "tls",
        }
    }

    /// What of the peer the deny list names, if that is why.
    pub fn denial(&self) -> Option<Denial> {
        match self {
            Self::Protocol(error) => zen_identity::peer_refused(error).and_then(PeerRefused::denial),
            Self::Unread | Self::Silent => None,
        }
    }
}

/// One TLS connection, either side.
pub struct Tls {
    connection: rustls::Connection,
    peer_closed: bool,
    /// Ciphertext since the last plaintext: rustls holds no more of it than this.
    silent_bytes: usize,
    silent_bytes_max: usize,
    /// The deny list that the peer was compared with last.
    compared: Option<Arc<DenyList>>,
}

impl Tls {
    /// The accepting side.
    pub fn accept(config: &ServerTls) -> Result<Self, TlsError> {
        let mut connection = rustls::ServerConnection::new(Arc::clone(config))?;
        connection.set_buffer_limit(None);
        Ok(Self::new(connection.into(), SILENT_BYTES_MAX))
    }

    /// The dialling side.
    pub fn connect(config: &ClientTls, name: ServerName<'static>) -> Result<Self, TlsError> {
        let mut connection = rustls::ClientConnection::new(Arc::clone(config), name)?;
        connection.set_buffer_limit(None);
        Ok(Self::new(connection.into(), SILENT_BYTES_MAX_DIALLED))
    }

    /// Takes ciphertext; each piece of plaintext goes to `plaintext` as it is decrypted.
    ///
    /// An alert for the peer may be waiting in [`Tls::take_ciphertext`] even after an error.
    pub fn handle_ciphertext(
        &mut self,
        mut bytes: &[u8],
        plaintext: &mut impl FnMut(&[u8]),
    ) -> Result<(), TlsError> {
        while !bytes.is_empty() {
            let read = self.connection.read_tls(&mut bytes).map_err(|_| TlsError::Unread)?;
            if read == 0 {
                return Ok(());
            }
            let state = self.connection.process_new_packets()?;
            self.peer_closed |= state.peer_has_closed();
            let mut left = state.plaintext_bytes_to_read();
            self.silent_bytes = if left > 0 { read } else { self.silent_bytes + read };
            if self.silent_bytes > self.silent_bytes_max {
                return Err(TlsError::Silent);
            }
            let mut reader = self.connection.reader();
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

    /// Ciphertext held until its record is whole, at most; bytes.
    pub fn received_bytes(&self) -> usize {
        self.silent_bytes
    }

    /// Encrypts `bytes` into the outgoing buffer.
    pub fn write(&mut self, bytes: &[u8]) {
        self.connection.writer().write_all(bytes).expect("the outgoing buffer has no limit");
    }

    /// Encrypts `parts` one behind the other, in as few records as they fit in.
    pub fn write_parts(&mut self, parts: [&[u8]; 2]) {
        if parts[1].is_empty() {
            return self.write(parts[0]);
        }
        let whole = parts[0].len() + parts[1].len();
        let written = self.connection.writer().write_vectored(&parts.map(std::io::IoSlice::new));
        assert_eq!(written.ok(), Some(whole), "the outgoing buffer has no limit");
    }

    /// Says goodbye to the peer (RFC 8446 section 6.1).
    pub fn close_notify(&mut self) {
        self.connection.send_close_notify();
    }

    /// Appends what is to be sent to `out`.
    pub fn take_ciphertext(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(out).expect("a vector takes everything");
        }
    }

    /// Whether there is ciphertext to send.
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Whether application data cannot flow yet.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the peer said goodbye.
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    fn new(connection: rustls::Connection, silent_bytes_max: usize) -> Self {
        Self { connection, peer_closed: false, silent_bytes: 0, silent_bytes_max, compared: None }
    }

    /// The peer's SPIFFE id, after a handshake that checked it.
    pub fn peer_id(&self) -> Option<SpiffeId> {
        zen_identity::peer_id(self.connection.peer_certificates())
    }

    /// The DNS names of the peer's certificate, after a handshake that checked it.
    pub fn peer_dns_names(&self) -> Vec<String> {
        zen_identity::peer_dns_names(self.connection.peer_certificates())
    }

    /// Whether a list denies the peer with which it was not compared yet; the handshake looks for itself.
    pub fn handle_deny_list(&mut self, list: &Arc<DenyList>, wall_ms: u64) -> Option<Denial> {
        let is_known = self.compared.as_ref().is_some_and(|known| Arc::ptr_eq(known, list));
        if is_known || self.is_handshaking() {
            return None;
        }
        self.compared = Some(Arc::clone(list));
        let now = UnixTime::since_unix_epoch(Duration::from_millis(wall_ms));
        list.denies(self.connection.peer_certificates()?, now)
    }

    /// The last moment of the peer's certificate, Unix ms; the connection ends there.
    pub fn peer_not_after_ms(&self) -> Option<u64> {
        let not_after = zen_identity::peer_not_after(self.connection.peer_certificates())?;
        Some(not_after.as_secs() * 1000 + 999)
    }
}

/// Our own reason in words, if it is one; rustls would show its names in the code.
fn said(error: &rustls::Error) -> String {
    zen_identity::peer_refused(error).map_or_else(|| error.to_string(), ToString::to_string)
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("handshaking", &self.is_handshaking()).finish_non_exhaustive()
    }
}
