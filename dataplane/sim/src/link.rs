//! The links of a node: connections, their frames, and the core's machine behind each.
//!
//! Bytes, lost connections and deadlines enter; bytes, closed connections and dialled ones leave. What a node does on
//! its links is its `Role`: an ingester sends, an egress receives. Either may be the one that dials.

use std::collections::BTreeMap;
use std::fmt;

use zen_core::link::{Frame, FrameReader, HANDSHAKE_TIMEOUT_MS, Hello, LinkError};

use crate::context::{Clock, Context, NodeId};
use crate::network::{ConnectionId, Side};

/// Shortest and longest wait before a connection is dialled again, ms.
const REDIAL_MS: (u64, u64) = (50, 2_000);

/// What a node does on its links.
pub trait Role {
    /// The core's machine of one end, with what the node keeps beside it.
    type End: fmt::Debug;

    /// Begins a link that this node dialled.
    fn dial(&mut self, context: &mut Context, peer: NodeId, steady_ms: u64, out: &mut Vec<u8>) -> Self::End;

    /// Begins a link at the first word of a peer that dialled.
    fn accept(
        &mut self,
        context: &mut Context,
        hello: &Hello,
        steady_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Self::End, LinkError>;

    /// A frame of a link that has begun.
    fn handle_frame(
        &mut self,
        context: &mut Context,
        link: (ConnectionId, &mut Self::End),
        frame: Frame<'_>,
        clock: Clock,
        out: &mut Vec<u8>,
    ) -> Result<Progress, LinkError>;

    /// Deadlines of a link that has begun.
    fn handle_timeout(end: &mut Self::End, steady_ms: u64, out: &mut Vec<u8>) -> Result<(), LinkError>;

    /// Whether a link is a leftover of a connection that broke, now that another is ready.
    fn is_leftover(_older: &Self::End, _ready: &Self::End) -> bool {
        false
    }

    /// A link is gone.
    fn handle_gone(&mut self, _connection: ConnectionId) {}
}

/// What a frame came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The link goes on.
    Same,
    /// It is ready from now on; what it replaces may be closed.
    Ready,
}

/// A connection that the node does not know; its other end is told.
#[derive(Clone, Copy, Debug)]
pub struct Unknown;

/// One end of a connection.
#[derive(Debug)]
pub struct Link<E> {
    side: Side,
    reader: FrameReader,
    /// What runs on it; none before the first word of a peer that dialled.
    pub end: Option<E>,
    since_ms: u64,
    /// Bytes to send.
    pub out: Vec<u8>,
}

impl<E> Link<E> {
    fn new(side: Side, end: Option<E>, since_ms: u64, out: Vec<u8>) -> Self {
        Self { side, reader: FrameReader::new(), end, since_ms, out }
    }

    /// Sends what is ready.
    pub fn flush(&mut self, context: &mut Context, connection: ConnectionId) {
        if !self.out.is_empty() {
            context.send(connection, self.side, &self.out);
            self.out.clear();
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Links<R: Role> {
    node: NodeId,
    name: String,
    /// What the node does on them.
    pub role: R,
    /// Those that are open.
    pub open: BTreeMap<ConnectionId, Link<R::End>>,
    slots: Vec<Slot>,
}

impl<R: Role> Links<R> {
    /// None yet; the node called `name` dials `peers` and keeps those links up.
    pub fn new(node: NodeId, name: String, role: R, peers: impl Iterator<Item = NodeId>) -> Self {
        Self { node, name, role, open: BTreeMap::new(), slots: peers.map(Slot::new).collect() }
    }

    /// Bytes of a link.
    pub fn handle_bytes(
        &mut self,
        context: &mut Context,
        connection: ConnectionId,
        to: Side,
        bytes: &[u8],
    ) -> Result<(), Unknown> {
        let clock = context.clock(self.node);
        if to == Side::Acceptor {
            let link = || Link::new(to, None, clock.steady_ms, Vec::new());
            self.open.entry(connection).or_insert_with(link);
        }
        let Some(mut link) = self.open.remove(&connection) else {
            context.reset(connection);
            return Err(Unknown);
        };
        let taken = link.reader.handle_bytes(bytes);
        assert_eq!(taken, bytes.len(), "frames are polled after each piece");
        let result = self.handle_frames(context, connection, &mut link, clock);
        if let Err(error) = &result {
            error.write_refuse(&mut link.out);
        }
        link.flush(context, connection);
        self.open.insert(connection, link);
        if let Err(error) = result {
            self.close(context, connection, &error);
        }
        Ok(())
    }

    /// A link broke.
    pub fn handle_lost(&mut self, context: &mut Context, connection: ConnectionId) {
        self.open.remove(&connection);
        self.role.handle_gone(connection);
        self.slots.iter_mut().for_each(|slot| slot.handle_lost(context, connection));
    }

    /// Deadlines, and dialling.
    pub fn handle_clock(&mut self, context: &mut Context) {
        let steady_ms = context.clock(self.node).steady_ms;
        let mut failed = Vec::new();
        for (connection, link) in &mut self.open {
            let result = match &mut link.end {
                Some(end) => R::handle_timeout(end, steady_ms, &mut link.out),
                None if steady_ms.saturating_sub(link.since_ms) > HANDSHAKE_TIMEOUT_MS => {
                    Err(LinkError::HandshakeTimeout)
                }
                None => Ok(()),
            };
            link.flush(context, *connection);
            failed.extend(result.err().map(|error| (*connection, error)));
        }
        for (connection, error) in failed {
            self.close(context, connection, &error);
        }
        self.dial(context, steady_ms);
    }

    fn handle_frames(
        &mut self,
        context: &mut Context,
        connection: ConnectionId,
        link: &mut Link<R::End>,
        clock: Clock,
    ) -> Result<(), LinkError> {
        while let Some(frame) = link.reader.poll_frame()? {
            let Some(end) = &mut link.end else {
                let Frame::Hello(hello) = frame else {
                    return Err(LinkError::Unexpected(frame.frame_type()));
                };
                link.end = Some(self.role.accept(context, &hello, clock.steady_ms, &mut link.out)?);
                continue;
            };
            match self.role.handle_frame(context, (connection, end), frame, clock, &mut link.out)? {
                Progress::Same => {}
                Progress::Ready => self.close_leftovers(context, end),
            }
        }
        Ok(())
    }

    fn close_leftovers(&mut self, context: &mut Context, ready: &R::End) {
        let is_leftover =
            |link: &Link<R::End>| link.end.as_ref().is_some_and(|end| R::is_leftover(end, ready));
        let leftovers: Vec<ConnectionId> =
            self.open.iter().filter(|(_, link)| is_leftover(link)).map(|(id, _)| *id).collect();
        for connection in leftovers {
            self.close(context, connection, &LinkError::PeerSilent);
        }
    }

    fn dial(&mut self, context: &mut Context, steady_ms: u64) {
        let now_ms = context.now_ms;
        for slot in self.slots.iter_mut().filter(|slot| slot.is_due(now_ms)) {
            let connection = context.dial(self.node, slot.peer);
            slot.connection = Some(connection);
            let mut out = Vec::new();
            let end = self.role.dial(context, slot.peer, steady_ms, &mut out);
            let mut link = Link::new(Side::Dialer, Some(end), steady_ms, out);
            link.flush(context, connection);
            self.open.insert(connection, link);
        }
    }

    fn close(&mut self, context: &mut Context, connection: ConnectionId, error: &LinkError) {
        context.note(format_args!("{} closes {connection:?}: {error}", self.name));
        context.checker.handle_link_closed(self.node, error);
        if let Some(link) = self.open.get(&connection) {
            context.close(connection, link.side);
        }
        self.handle_lost(context, connection);
    }
}

/// A connection that a node keeps up.
#[derive(Debug)]
struct Slot {
    peer: NodeId,
    connection: Option<ConnectionId>,
    /// When to dial again, virtual ms.
    next_ms: u64,
}

impl Slot {
    fn new(peer: NodeId) -> Self {
        Self { peer, connection: None, next_ms: 0 }
    }

    fn is_due(&self, now_ms: u64) -> bool {
        self.connection.is_none() && now_ms >= self.next_ms
    }

    fn handle_lost(&mut self, context: &mut Context, connection: ConnectionId) {
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
