//! Connections between nodes: ordered bytes in each direction, broken at any time.
//!
//! Bytes arrive in pieces of any size, in order within a connection and in any order between connections. A partition
//! holds them back, and they come when it is over, or the connection breaks. An end that is gone answers with a reset,
//! unless it can say nothing: then the other end finds out by silence.

use std::collections::{BTreeMap, VecDeque};

use crate::context::{Context, NodeId, Step, Weather};

/// Names a connection; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who opened it.
    Dialer,
    /// Who was called.
    Acceptor,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Dialer => 0,
            Self::Acceptor => 1,
        }
    }
}

/// What comes out of a connection.
#[derive(Debug)]
pub enum Arrival {
    /// Bytes.
    Bytes(NodeId, Vec<u8>),
    /// The other end closed.
    Closed(NodeId),
    /// Nothing now.
    Nothing,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    End,
}

#[derive(Debug)]
struct Connection {
    nodes: [NodeId; 2],
    open: [bool; 2],
    /// By the side that reads.
    pieces: [VecDeque<Piece>; 2],
    arrives_ms: [u64; 2],
}

/// All connections and partitions.
#[derive(Debug, Default)]
pub struct Network {
    connections: BTreeMap<ConnectionId, Connection>,
    last: u64,
    /// Pairs of processes, the lower first, and until when they cannot reach each other, ms.
    partitions: BTreeMap<(usize, usize), u64>,
}

impl Network {
    /// Parts two processes.
    pub fn part(&mut self, one: usize, other: usize, until_ms: u64) {
        self.partitions.insert((one.min(other), one.max(other)), until_ms);
    }

    /// Ends all partitions.
    pub fn heal(&mut self) {
        self.partitions.clear();
    }

    /// Connections that are open.
    pub fn connections(&self) -> Vec<ConnectionId> {
        self.connections.keys().copied().collect()
    }

    fn parted_until_ms(&self, processes: [usize; 2]) -> u64 {
        let key = (processes[0].min(processes[1]), processes[0].max(processes[1]));
        self.partitions.get(&key).copied().unwrap_or(0)
    }

    fn forget_if_over(&mut self, id: ConnectionId) {
        if self.connections.get(&id).is_some_and(|connection| connection.open == [false; 2]) {
            self.connections.remove(&id);
        }
    }
}

impl Context {
    /// Opens a connection; the called node sees it with its first bytes.
    pub fn dial(&mut self, from: NodeId, to: NodeId) -> ConnectionId {
        self.network.last += 1;
        let id = ConnectionId(self.network.last);
        let connection = Connection {
            nodes: [from, to],
            open: [true; 2],
            pieces: [VecDeque::new(), VecDeque::new()],
            arrives_ms: [0; 2],
        };
        self.network.connections.insert(id, connection);
        id
    }

    /// Sends bytes from one end, in one to three pieces.
    pub fn send(&mut self, id: ConnectionId, from: Side, bytes: &[u8]) {
        let mut rest = bytes;
        for _ in 0..self.prng.below(3) {
            let (piece, behind) = rest.split_at(self.prng.below(rest.len() + 1));
            self.push_piece(id, from.other(), Piece::Bytes(piece.to_vec()));
            rest = behind;
        }
        self.push_piece(id, from.other(), Piece::Bytes(rest.to_vec()));
    }

    /// Closes one end; the other learns it after all bytes.
    pub fn close(&mut self, id: ConnectionId, from: Side) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        connection.open[from.index()] = false;
        self.network.forget_if_over(id);
        self.push_piece(id, from.other(), Piece::End);
    }

    /// Breaks a connection for both ends.
    pub fn reset(&mut self, id: ConnectionId) {
        for to in [Side::Dialer, Side::Acceptor] {
            let delay_ms = self.delay_ms();
            self.schedule(delay_ms, Step::Lost { connection: id, to });
        }
    }

    /// A node is gone: its peers hear of it, or not.
    pub fn drop_connections_of(&mut self, node: NodeId) {
        for id in self.network.connections() {
            let connection = self.network.connections.get_mut(&id).expect("listed just now");
            for side in [Side::Dialer, Side::Acceptor] {
                if connection.nodes[side.index()] == node && connection.open[side.index()] {
                    connection.open[side.index()] = false;
                    connection.pieces[side.index()].clear();
                }
            }
            let touched = connection.nodes.contains(&node);
            if touched && self.prng.chance(700) {
                self.reset(id);
            }
            self.network.forget_if_over(id);
        }
    }

    /// An end learns that its connection is broken. Answers whose it was, if it was open.
    pub fn handle_lost(&mut self, id: ConnectionId, to: Side) -> Option<NodeId> {
        let connection = self.network.connections.get_mut(&id)?;
        let was_open = core::mem::replace(&mut connection.open[to.index()], false);
        let node = connection.nodes[to.index()];
        self.network.forget_if_over(id);
        was_open.then_some(node)
    }

    /// What arrives at an end now.
    pub fn handle_arrival(&mut self, id: ConnectionId, to: Side) -> Arrival {
        let Some(connection) = self.network.connections.get_mut(&id) else { return Arrival::Nothing };
        let processes = connection.nodes.map(|node| self.plan.process(node));
        let parted_until_ms = self.network.parted_until_ms(processes);
        if self.now_ms < parted_until_ms && self.weather == Weather::Storm {
            if self.prng.chance(100) {
                self.reset(id);
            } else {
                let wait_ms = parted_until_ms - self.now_ms + self.delay_ms();
                self.schedule(wait_ms, Step::Bytes { connection: id, to });
            }
            return Arrival::Nothing;
        }
        let connection = self.network.connections.get_mut(&id).expect("looked at just now");
        if !connection.open[to.index()] {
            let delay_ms = self.delay_ms();
            self.schedule(delay_ms, Step::Lost { connection: id, to: to.other() });
            return Arrival::Nothing;
        }
        let node = connection.nodes[to.index()];
        match connection.pieces[to.index()].pop_front() {
            None => Arrival::Nothing,
            Some(Piece::Bytes(bytes)) => Arrival::Bytes(node, bytes),
            Some(Piece::End) => {
                connection.open[to.index()] = false;
                self.network.forget_if_over(id);
                Arrival::Closed(node)
            }
        }
    }

    fn push_piece(&mut self, id: ConnectionId, to: Side, piece: Piece) {
        let delay_ms = self.delay_ms();
        let arrives_ms = self.now_ms + delay_ms;
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        connection.pieces[to.index()].push_back(piece);
        let latest_ms = &mut connection.arrives_ms[to.index()];
        *latest_ms = arrives_ms.max(*latest_ms);
        let wait_ms = *latest_ms - self.now_ms;
        self.schedule(wait_ms, Step::Bytes { connection: id, to });
    }
}
