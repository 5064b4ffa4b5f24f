//! The node's only use of rustls: ciphertext in, plaintext out, and the reverse.
//!
//! A [`Tls`] is a machine without a socket. Ciphertext comes from the reactor's buffers, plaintext
//! goes to a parser; ciphertext to send is taken out once per tick. Verification of peers is in
//! `zen-identity`; TLS 1.3 only (RFC 8446).

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use outgoing::Outgoing;
use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls_pki_types::{ServerName, UnixTime};
use zen_identity::{Denial, DenyList, PeerRefused, SpiffeId};

mod outgoing;

/// TLS settings for connections that we accept.
pub type ServerTls = Arc<rustls::ServerConfig>;
/// TLS settings for connections that we dial.
pub type ClientTls = Arc<rustls::ClientConfig>;

/// Ciphertext that a peer which dialled us may send without a byte of plaintext: a handshake, a record.
const SILENT_BYTES_MAX: usize = 32 * 1024;
/// The same of a peer that we dialled, whose handshake may hold a long chain.
const SILENT_BYTES_MAX_DIALLED: usize = 128 * 1024;

/// An idle connection in rustls: keys, transcript, certificates. Measured in `tests/bounds.rs`; bytes.
pub const IDLE_BYTES: usize = 6 * 1024;
/// What a peer that has not finished its handshake may make us hold beside that, bytes.
pub const HANDSHAKE_BYTES: usize = SILENT_BYTES_MAX_DIALLED / 2;

/// Why a TLS connection failed; the peer's fault, or a policy's refusal of it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The protocol or a certificate check.
    #[error("tls: {}", said(.0))]
    Protocol(#[from] rustls::Error),
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
            Self::Silent => "tls",
        }
    }

    /// What of the peer the deny list names, if that is why.
    pub fn denial(&self) -> Option<Denial> {
        match self {
            Self::Protocol(error) => zen_identity::peer_refused(error).and_then(PeerRefused::denial),
            Self::Silent => None,
        }
    }
}

/// One TLS connection, either side.
///
/// rustls' unbuffered interface: between two records nothing is held but keys.
pub struct Tls {
    side: Side,
    /// Ciphertext of a record that is not whole yet, and what rustls still refers to before it.
    incoming: Vec<u8>,
    /// Plaintext that waits for the end of the handshake.
    waiting: Vec<u8>,
    outgoing: Outgoing,
    peer_closed: bool,
    /// After an error nothing is encrypted any more.
    failed: bool,
    /// Ciphertext since the last plaintext.
    silent_bytes: usize,
    silent_bytes_max: usize,
    /// The deny list that the peer was compared with last.
    compared: Option<Arc<DenyList>>,
}

/// Boxed, since both are large and move with every completion.
enum Side {
    Accepted(Box<UnbufferedServerConnection>),
    Dialled(Box<UnbufferedClientConnection>),
}

/// What is to be encrypted.
#[derive(Clone, Copy)]
enum Said<'a> {
    Data(&'a [u8]),
    Goodbye,
}

/// What a state of rustls asks for next.
enum Turn {
    /// Look again.
    Again,
    /// More bytes from the peer.
    Idle,
}

impl Tls {
    /// The accepting side.
    pub fn accept(config: &ServerTls) -> Result<Self, TlsError> {
        let connection = UnbufferedServerConnection::new(Arc::clone(config))?;
        Ok(Self::new(Side::Accepted(Box::new(connection)), SILENT_BYTES_MAX))
    }

    /// The dialling side.
    pub fn connect(config: &ClientTls, name: ServerName<'static>) -> Result<Self, TlsError> {
        let connection = UnbufferedClientConnection::new(Arc::clone(config), name)?;
        let mut tls = Self::new(Side::Dialled(Box::new(connection)), SILENT_BYTES_MAX_DIALLED);
        let begun = tls.advance(&mut [], &mut |_| {}).1;
        begun.map(|()| tls)
    }

    /// Takes ciphertext, decrypted where it is; each piece of plaintext goes to `plaintext`.
    ///
    /// An alert for the peer may be waiting in [`Tls::take_ciphertext`] even after an error, behind which
    /// nothing is looked at any more.
    pub fn handle_ciphertext(
        &mut self,
        bytes: &mut [u8],
        plaintext: &mut impl FnMut(&[u8]),
    ) -> Result<(), TlsError> {
        if self.failed {
            return Ok(());
        }
        let mut said = 0;
        let mut counted = |piece: &[u8]| {
            said += piece.len();
            plaintext(piece);
        };
        let result = if self.incoming.is_empty() {
            let (taken, result) = self.advance(bytes, &mut counted);
            self.incoming.extend_from_slice(&bytes[taken..]);
            result
        } else {
            let mut incoming = std::mem::take(&mut self.incoming);
            incoming.extend_from_slice(bytes);
            let (taken, result) = self.advance(&mut incoming, &mut counted);
            incoming.drain(..taken);
            // An empty one is freed: an idle connection holds none.
            if !incoming.is_empty() {
                self.incoming = incoming;
            }
            result
        };
        self.silent_bytes = if said > 0 { self.incoming.len() } else { self.silent_bytes + bytes.len() };
        result?;
        if self.silent_bytes > self.silent_bytes_max {
            self.failed = true;
            return Err(TlsError::Silent);
        }
        Ok(())
    }

    /// Ciphertext held until its record is whole, bytes.
    pub fn received_bytes(&self) -> usize {
        self.incoming.capacity()
    }

    /// Encrypts `bytes` into the outgoing buffer.
    pub fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.failed {
            return;
        }
        match self.on_traffic(Said::Data(bytes)) {
            Some(written) => self.failed |= !written,
            None => self.waiting.extend_from_slice(bytes),
        }
    }

    /// Says goodbye to the peer (RFC 8446 section 6.1), if it can be told by now.
    pub fn close_notify(&mut self) {
        if !self.failed {
            self.on_traffic(Said::Goodbye);
        }
    }

    /// Appends what is to be sent to `out`.
    pub fn take_ciphertext(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.outgoing.take());
    }

    /// What is to be sent, in the buffer into which it was encrypted.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        self.outgoing.take()
    }

    /// Gives a buffer to encrypt into, if there is none.
    pub fn give_room(&mut self, buffer: Vec<u8>) {
        self.outgoing.give_room(buffer);
    }

    /// Whether there is ciphertext to send.
    pub fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether application data cannot flow yet.
    pub fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    /// Whether the peer said goodbye.
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    fn new(side: Side, silent_bytes_max: usize) -> Self {
        Self {
            side,
            incoming: Vec::new(),
            waiting: Vec::new(),
            outgoing: Outgoing::default(),
            peer_closed: false,
            failed: false,
            silent_bytes: 0,
            silent_bytes_max,
            compared: None,
        }
    }

    fn common(&self) -> &CommonState {
        match &self.side {
            Side::Accepted(it) => it,
            Side::Dialled(it) => it,
        }
    }

    /// Works until rustls wants more bytes. Returns how many of `bytes` are done with.
    fn advance(
        &mut self,
        bytes: &mut [u8],
        plaintext: &mut impl FnMut(&[u8]),
    ) -> (usize, Result<(), TlsError>) {
        let mut taken = 0;
        let result = loop {
            let (discard, turn) = self.step(&mut bytes[taken..], plaintext);
            taken += discard;
            match turn {
                Ok(Turn::Again) => {}
                Ok(Turn::Idle) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        if result.is_err() {
            self.failed = true;
            self.waiting = Vec::new();
            // The alert; a record that was refused may not be looked at once more.
            while self.common().wants_write() {
                let _ = self.step(&mut bytes[taken..], plaintext);
            }
        }
        // Nothing follows a goodbye or an error, so nothing of it is kept.
        let taken = if self.peer_closed || self.failed { bytes.len() } else { taken };
        (taken, result)
    }

    /// Says it if the handshake is far enough; none if it is not.
    fn on_traffic(&mut self, said: Said<'_>) -> Option<bool> {
        let Self { side, incoming, outgoing, .. } = self;
        loop {
            // What rustls refers to in an incomplete record has to be there, too.
            let (discard, next) = match side {
                Side::Accepted(it) => say(it.process_tls_records(incoming), said, outgoing),
                Side::Dialled(it) => say(it.process_tls_records(incoming), said, outgoing),
            };
            incoming.drain(..discard);
            if let ControlFlow::Break(result) = next {
                return result;
            }
        }
    }

    fn step(
        &mut self,
        bytes: &mut [u8],
        plaintext: &mut impl FnMut(&[u8]),
    ) -> (usize, Result<Turn, rustls::Error>) {
        let Self { side, outgoing, waiting, peer_closed, .. } = self;
        let mut sides = (outgoing, waiting, peer_closed);
        match side {
            Side::Accepted(it) => handle_state(it.process_tls_records(bytes), plaintext, &mut sides),
            Side::Dialled(it) => handle_state(it.process_tls_records(bytes), plaintext, &mut sides),
        }
    }

    /// The peer's SPIFFE id, after a handshake that checked it.
    pub fn peer_id(&self) -> Option<SpiffeId> {
        zen_identity::peer_id(self.common().peer_certificates())
    }

    /// The DNS names of the peer's certificate, after a handshake that checked it.
    pub fn peer_dns_names(&self) -> Vec<String> {
        zen_identity::peer_dns_names(self.common().peer_certificates())
    }

    /// Whether a list denies the peer with which it was not compared yet; the handshake looks for itself.
    pub fn handle_deny_list(&mut self, list: &Arc<DenyList>, wall_ms: u64) -> Option<Denial> {
        let is_known = self.compared.as_ref().is_some_and(|known| Arc::ptr_eq(known, list));
        if is_known || self.is_handshaking() {
            return None;
        }
        self.compared = Some(Arc::clone(list));
        let now = UnixTime::since_unix_epoch(Duration::from_millis(wall_ms));
        list.denies(self.common().peer_certificates()?, now)
    }

    /// The last moment of the peer's certificate, Unix ms; the connection ends there.
    pub fn peer_not_after_ms(&self) -> Option<u64> {
        let not_after = zen_identity::peer_not_after(self.common().peer_certificates())?;
        Some(not_after.as_secs() * 1000 + 999)
    }
}

/// Does what a state asks for: outgoing ciphertext, waiting plaintext and whether the peer has closed.
fn handle_state<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plaintext: &mut impl FnMut(&[u8]),
    (outgoing, waiting, peer_closed): &mut (&mut Outgoing, &mut Vec<u8>, &mut bool),
) -> (usize, Result<Turn, rustls::Error>) {
    let UnbufferedStatus { discard, state, .. } = status;
    let turn = state.and_then(|state| match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                plaintext(record?.payload);
            }
            Ok(Turn::Again)
        }
        ConnectionState::EncodeTlsData(mut data) => {
            outgoing.encode(&mut data);
            Ok(Turn::Again)
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Turn::Again)
        }
        ConnectionState::PeerClosed => {
            **peer_closed = true;
            Ok(Turn::Again)
        }
        ConnectionState::WriteTraffic(traffic) => {
            if !waiting.is_empty() && !outgoing.encrypt(traffic, &std::mem::take(*waiting)) {
                return Err(rustls::Error::EncryptError);
            }
            Ok(Turn::Idle)
        }
        ConnectionState::BlockedHandshake | ConnectionState::Closed => Ok(Turn::Idle),
        _ => Err(rustls::Error::General("early data is not taken".into())),
    });
    (discard, turn)
}

/// Says it now, if it can be: whether that went well. Nothing of a handshake's may be lost on the way.
fn say<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    said: Said<'_>,
    outgoing: &mut Outgoing,
) -> (usize, ControlFlow<Option<bool>>) {
    let next = match (status.state, said) {
        (Ok(ConnectionState::WriteTraffic(traffic)), Said::Data(bytes)) => {
            ControlFlow::Break(Some(outgoing.encrypt(traffic, bytes)))
        }
        (Ok(ConnectionState::WriteTraffic(traffic)), Said::Goodbye) => {
            ControlFlow::Break(Some(outgoing.say_goodbye(traffic)))
        }
        (Ok(ConnectionState::EncodeTlsData(mut data)), _) => {
            outgoing.encode(&mut data);
            ControlFlow::Continue(())
        }
        (Ok(ConnectionState::TransmitTlsData(data)), _) => {
            data.done();
            ControlFlow::Continue(())
        }
        _ => ControlFlow::Break(None),
    };
    (status.discard, next)
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
