//! One end of a link: a connection, its frames, and the core's machine for that side.

use zen_core::link::{FrameReader, Receiver, Sender};
use zen_core::record::StreamId;

use crate::context::Context;
use crate::crypto::Key;
use crate::network::{ConnectionId, Side};

/// Shortest and longest wait before a connection is dialled again, ms.
pub const REDIAL_MS: (u64, u64) = (50, 2_000);

/// What an end is doing.
#[derive(Debug)]
pub enum Machine {
    /// It was called, and waits for the peer's first word.
    AwaitHello,
    /// It sends to an egress.
    Sending {
        /// The machine.
        sender: Box<Sender<Key>>,
        /// Which egress, from 0.
        egress: usize,
    },
    /// It receives from an ingester.
    Receiving {
        /// The machine.
        receiver: Box<Receiver<Key>>,
        /// The stream, once it is known.
        stream: Option<StreamId>,
        /// What is durable of it.
        durable: u64,
        /// Credit to give back: bytes and events.
        owed: (u64, u64),
    },
}

/// One end of a connection.
#[derive(Debug)]
pub struct Link {
    /// Which end.
    pub side: Side,
    /// Puts frames together.
    pub reader: FrameReader,
    /// Its state.
    pub machine: Machine,
    /// When it began, on the node's clock, ms.
    pub since_ms: u64,
    /// Bytes to send.
    pub out: Vec<u8>,
}

impl Link {
    /// An end that begins now.
    pub fn new(side: Side, machine: Machine, since_ms: u64, out: Vec<u8>) -> Self {
        Self { side, reader: FrameReader::new(), machine, since_ms, out }
    }

    /// Sends what is ready.
    pub fn flush(&mut self, context: &mut Context, connection: ConnectionId) {
        if !self.out.is_empty() {
            context.send(connection, self.side, &self.out);
            self.out.clear();
        }
    }
}

/// A connection that a node keeps up.
#[derive(Debug, Default)]
pub struct Slot {
    /// The connection, if there is one.
    pub connection: Option<ConnectionId>,
    /// When to dial again, virtual ms.
    pub next_ms: u64,
}

impl Slot {
    /// Whether to dial now.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.connection.is_none() && now_ms >= self.next_ms
    }

    /// Its connection is gone.
    pub fn handle_lost(&mut self, context: &mut Context, connection: ConnectionId) {
        if self.connection == Some(connection) {
            self.connection = None;
            self.next_ms = context.now_ms + context.prng.between(REDIAL_MS.0, REDIAL_MS.1);
        }
    }
}

/// Whether the ingester dials in this pair, rather than the egress.
pub fn ingester_dials(ingester: usize, egress: usize) -> bool {
    (ingester + egress).is_multiple_of(2)
}

/// The key of a pair, as both configurations have it.
pub fn link_secret(ingester: usize, egress: usize) -> [u8; 32] {
    let mut secret = [0x5a; 32];
    (secret[0], secret[1]) = (ingester as u8, egress as u8);
    secret
}
