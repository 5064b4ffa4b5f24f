//! One link: TLS, frames, and the sending or receiving machine of `zen_core::link`.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use zen_core::link::{Frame, FrameReader, GoodbyeReason, Hello, LinkError, Receiver, Sender};
use zen_core::record::StreamId;
use zen_hmac::PreparedKey;
use zen_identity::{Denial, DenyList, SpiffeId};
use zen_uring::Reactor;

use crate::quota::Permit;
use crate::stream::Stream;
use crate::tls::{Tls, TlsError};

/// A buffer for frames, in the clear or encrypted, above this is not kept for the next; bytes.
pub const SPARE_OUT_BYTES_MAX: usize = 1 << 20;

/// Which of our listeners or roles a link belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We send.
    Ingester,
    /// We receive.
    Egress,
}

/// How far a link is.
pub enum Machine {
    /// Accepted; the peer has not said hello.
    AwaitHello,
    /// Being dialled.
    Dialling,
    /// On its way to the worker that has the stream.
    Moving(Hello),
    /// Sends this worker's journal.
    Sending {
        /// The machine.
        sender: Box<Sender<PreparedKey>>,
        /// The egress's name.
        egress: String,
    },
    /// Receives a stream.
    Receiving {
        /// The machine.
        receiver: Box<Receiver<PreparedKey>>,
        /// The ingester's name.
        ingester: String,
        /// The stream, once the peer named it.
        stream: Option<StreamId>,
        /// Highest sequence durable here.
        durable: u64,
        /// Credit not given back yet.
        owed: (u64, u64),
    },
}

/// A link whose stream lives on another worker.
#[derive(Debug)]
pub struct LinkHandover {
    /// The socket.
    pub fd: OwnedFd,
    /// Its TLS state.
    pub tls: Tls,
    /// What the peer said.
    pub hello: Hello,
    /// Who the peer is.
    pub peer: SpiffeId,
}

/// One link.
pub struct Link {
    /// The connection; none while TCP is not up.
    pub stream: Option<Stream>,
    /// Our role on it.
    pub side: Side,
    /// Its machine.
    pub machine: Machine,
    /// When it began, steady ms.
    pub since_ms: u64,
    /// Its place among the node's links, once it carries events.
    pub place: Option<Permit>,
    /// Frames to write, kept between uses.
    pub out: Vec<u8>,
    plaintext: Vec<u8>,
    reader: FrameReader,
}

impl Link {
    /// A link at its beginning.
    pub fn new(stream: Option<Stream>, side: Side, machine: Machine, steady_ms: u64) -> Self {
        Self {
            stream,
            side,
            machine,
            since_ms: steady_ms,
            place: None,
            out: Vec::new(),
            plaintext: Vec::new(),
            reader: FrameReader::new(),
        }
    }

    /// Who the peer is, once TLS is up.
    pub fn peer(&self) -> Option<SpiffeId> {
        self.stream.as_ref().and_then(|stream| stream.tls.peer_id())
    }

    /// Decrypts what came.
    pub fn decrypt(&mut self, bytes: &mut [u8]) -> Result<(), TlsError> {
        let stream = self.stream.as_mut().expect("what receives is connected");
        stream.handle_ciphertext(bytes, &mut self.plaintext)
    }

    /// Runs `act` on every whole frame that was decrypted.
    pub fn handle_plaintext(
        &mut self,
        mut act: impl FnMut(&mut Self, Frame<'_>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let mut decrypted = std::mem::take(&mut self.plaintext);
        let mut plaintext = &decrypted[..];
        let mut reader = std::mem::take(&mut self.reader);
        let result = loop {
            let taken = reader.handle_bytes(plaintext);
            plaintext = &plaintext[taken..];
            match poll_all(&mut reader, self, &mut act) {
                Ok(()) if plaintext.is_empty() => break Ok(()),
                Ok(()) => {}
                Err(error) => break Err(error),
            }
        };
        self.reader = reader;
        decrypted.clear();
        self.plaintext = decrypted;
        result
    }

    /// Encrypts and submits the frames written so far.
    pub fn flush(&mut self, reactor: &mut Reactor) {
        let Some(stream) = &mut self.stream else { return };
        if !self.out.is_empty() {
            stream.write(&self.out);
            self.out.clear();
            if self.out.capacity() > SPARE_OUT_BYTES_MAX {
                self.out = Vec::new();
            }
        }
        stream.flush(reactor);
    }

    /// Whether the certificate that the peer showed has run out.
    pub fn is_expired(&self, wall_ms: u64) -> bool {
        let not_after_ms = self.stream.as_ref().and_then(|stream| stream.tls.peer_not_after_ms());
        not_after_ms.is_some_and(|not_after_ms| wall_ms > not_after_ms)
    }

    /// Whether the peer is denied by a list that is new to this link.
    pub fn handle_deny_list(&mut self, list: &Arc<DenyList>, wall_ms: u64) -> Option<Denial> {
        self.stream.as_mut()?.tls.handle_deny_list(list, wall_ms)
    }

    /// Takes leave of the peer before a drain ends.
    pub fn goodbye(&mut self) {
        match &mut self.machine {
            Machine::Sending { sender, .. } => sender.goodbye(GoodbyeReason::Drain, &mut self.out),
            Machine::Receiving { receiver, .. } => receiver.goodbye(GoodbyeReason::Drain, &mut self.out),
            Machine::AwaitHello | Machine::Dialling | Machine::Moving(_) => {}
        }
    }

    /// Whether another send would only pile up.
    pub fn is_sending(&self) -> bool {
        self.stream.as_ref().is_none_or(Stream::is_sending)
    }

    /// Frames that wait behind the send in flight, bytes.
    pub fn queued_bytes(&self) -> usize {
        self.stream.as_ref().map_or(0, Stream::queued_bytes)
    }

    /// Whether events of this egress leave on it.
    pub fn sends_to(&self, name: &str) -> bool {
        matches!(&self.machine, Machine::Sending { egress, .. } if egress == name)
    }
}

fn poll_all(
    reader: &mut FrameReader,
    link: &mut Link,
    act: &mut impl FnMut(&mut Link, Frame<'_>) -> Result<(), LinkError>,
) -> Result<(), LinkError> {
    while let Some(frame) = reader.poll_frame()? {
        act(link, frame)?;
    }
    Ok(())
}
