//! Links that this node dials: one slot each, with a backoff between attempts.

use std::net::{IpAddr, SocketAddr};

use zen_uring::SocketId;

use crate::config::HostPort;

/// First pause after a failed attempt, ms; doubles up to [`BACKOFF_MS_MAX`].
const BACKOFF_MS: u64 = 100;
/// Longest pause, ms.
const BACKOFF_MS_MAX: u64 = 5_000;

/// What a dialled link is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// We are the ingester and send this worker's journal.
    SendTo {
        /// The egress's name.
        egress: String,
    },
    /// We are the egress and want one stream.
    ReceiveFrom {
        /// The ingester's name.
        ingester: String,
        /// Its worker journal.
        stream: u16,
    },
}

/// How far a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { until_ms: u64 },
    Resolving,
    Up(SocketId),
}

/// One link to keep up.
#[derive(Debug)]
pub struct Slot {
    /// What it is for.
    pub purpose: Purpose,
    /// Where to dial.
    pub address: HostPort,
    state: State,
    backoff_ms: u64,
}

/// What a slot wants now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing.
    Nothing,
    /// The name's addresses.
    Resolve,
    /// A connection to here.
    Dial(SocketAddr),
}

impl Slot {
    /// A slot that dials at once.
    pub fn new(purpose: Purpose, address: HostPort) -> Self {
        Self { purpose, address, state: State::Waiting { until_ms: 0 }, backoff_ms: BACKOFF_MS }
    }

    /// What it wants now.
    pub fn poll(&mut self, now_ms: u64) -> Want {
        match self.state {
            State::Waiting { until_ms } if now_ms >= until_ms => match self.address.host.parse::<IpAddr>() {
                Ok(address) => Want::Dial(SocketAddr::new(address, self.address.port)),
                Err(_) => {
                    self.state = State::Resolving;
                    Want::Resolve
                }
            },
            _ => Want::Nothing,
        }
    }

    /// The resolver's answer; `salt` spreads attempts over several addresses.
    pub fn handle_resolved(&mut self, addresses: &[IpAddr], salt: usize, now_ms: u64) -> Option<SocketAddr> {
        if self.state != State::Resolving {
            return None;
        }
        if addresses.is_empty() {
            self.handle_lost(now_ms);
            return None;
        }
        Some(SocketAddr::new(addresses[salt % addresses.len()], self.address.port))
    }

    /// A connection is being made.
    pub fn handle_dialled(&mut self, socket: SocketId) {
        self.state = State::Up(socket);
    }

    /// The link works: the next loss is retried soon again.
    pub fn handle_ready(&mut self) {
        self.backoff_ms = BACKOFF_MS;
    }

    /// The connection is gone, or could not be made.
    pub fn handle_lost(&mut self, now_ms: u64) {
        self.state = State::Waiting { until_ms: now_ms + self.backoff_ms };
        self.backoff_ms = (self.backoff_ms * 2).min(BACKOFF_MS_MAX);
    }

    /// Whether `socket` is this slot's connection.
    pub fn is(&self, socket: SocketId) -> bool {
        self.state == State::Up(socket)
    }

    /// When it dials next, Unix ms.
    pub fn poll_timeout(&self) -> Option<u64> {
        match self.state {
            State::Waiting { until_ms } => Some(until_ms),
            State::Resolving | State::Up(_) => None,
        }
    }
}
