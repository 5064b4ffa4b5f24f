//! Links that this node dials: one slot each, with a backoff between attempts.

use std::net::{IpAddr, SocketAddr};

use zen_uring::SocketId;

use crate::config::HostPort;

/// First pause after a failed attempt, ms; doubles up to `node.link_pause_ms_max`. A link that lasted that long is dialled
/// again after the first one.
const BACKOFF_MS: u64 = 100;

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
    /// Longest pause.
    pub pause_ms_max: u64,
    state: State,
    backoff_ms: u64,
    ready_ms: Option<u64>,
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
    pub fn new(purpose: Purpose, address: HostPort, pause_ms_max: u64) -> Self {
        let state = State::Waiting { until_ms: 0 };
        Self { purpose, address, pause_ms_max, state, backoff_ms: BACKOFF_MS, ready_ms: None }
    }

    /// What it wants now.
    pub fn poll(&mut self, steady_ms: u64) -> Want {
        match self.state {
            State::Waiting { until_ms } if steady_ms >= until_ms => match self.address.host.parse::<IpAddr>()
            {
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
    pub fn handle_resolved(
        &mut self,
        addresses: &[IpAddr],
        salt: usize,
        steady_ms: u64,
    ) -> Option<SocketAddr> {
        if self.state != State::Resolving {
            return None;
        }
        if addresses.is_empty() {
            self.handle_lost(steady_ms);
            return None;
        }
        Some(SocketAddr::new(addresses[salt % addresses.len()], self.address.port))
    }

    /// Whether it waits for the resolver.
    pub fn is_resolving(&self) -> bool {
        self.state == State::Resolving
    }

    /// A connection is being made.
    pub fn handle_dialled(&mut self, socket: SocketId) {
        self.state = State::Up(socket);
    }

    /// The link works. Whether its batches are taken is not known yet: only one that lasts is retried soon again.
    pub fn handle_ready(&mut self, steady_ms: u64) {
        self.ready_ms = Some(steady_ms);
    }

    /// The connection is gone, or could not be made.
    pub fn handle_lost(&mut self, steady_ms: u64) {
        if self.ready_ms.take().is_some_and(|ready_ms| steady_ms >= ready_ms + self.pause_ms_max) {
            self.backoff_ms = BACKOFF_MS;
        }
        self.state = State::Waiting { until_ms: steady_ms + self.backoff_ms };
        self.backoff_ms = (self.backoff_ms * 2).min(self.pause_ms_max);
    }

    /// Whether `socket` is this slot's connection.
    pub fn is(&self, socket: SocketId) -> bool {
        self.state == State::Up(socket)
    }

    /// When it dials next, steady ms.
    pub fn poll_timeout(&self) -> Option<u64> {
        match self.state {
            State::Waiting { until_ms } => Some(until_ms),
            State::Resolving | State::Up(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        let purpose = Purpose::SendTo { egress: "inside".to_owned() };
        Slot::new(purpose, HostPort { host: "127.0.0.1".to_owned(), port: 1 }, 5_000)
    }

    /// The pause after a link that was ready for so long.
    fn pause_ms(slot: &mut Slot, now_ms: &mut u64, ready_for_ms: u64) -> u64 {
        slot.handle_ready(*now_ms);
        *now_ms += ready_for_ms;
        slot.handle_lost(*now_ms);
        let until_ms = slot.poll_timeout().expect("a lost slot waits");
        assert_eq!(slot.poll(until_ms - 1), Want::Nothing);
        assert!(matches!(slot.poll(until_ms), Want::Dial(_)));
        let pause_ms = until_ms - *now_ms;
        *now_ms = until_ms;
        pause_ms
    }

    #[test]
    fn a_link_whose_batches_are_refused_is_dialled_less_and_less_often() {
        let (mut slot, mut now_ms) = (slot(), 0);
        let pauses: Vec<u64> = (0..8).map(|_| pause_ms(&mut slot, &mut now_ms, 10)).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(pause_ms(&mut slot, &mut now_ms, 4999), 5000);
        assert_eq!(pause_ms(&mut slot, &mut now_ms, 5000), 100);
        slot.pause_ms_max = 300;
        let pauses: Vec<u64> = (0..4).map(|_| pause_ms(&mut slot, &mut now_ms, 10)).collect();
        assert_eq!(pauses, [200, 300, 300, 300]);
    }
}
