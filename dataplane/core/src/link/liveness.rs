//! When a connection pings, and when it is given up. Times are steady: no step of the system's clock moves them.

use alloc::vec::Vec;

use super::error::LinkError;
use super::frame::write_ping;
use super::{HANDSHAKE_TIMEOUT_MS, PING_AFTER_MS, SILENCE_TIMEOUT_MS};

#[derive(Debug)]
pub(super) struct Liveness {
    phase: Phase,
    heard_ms: u64,
    pinged_ms: u64,
}

#[derive(Debug)]
enum Phase {
    Handshake { until_ms: u64 },
    Open,
}

impl Liveness {
    pub(super) fn new(steady_ms: u64) -> Self {
        let until_ms = steady_ms.saturating_add(HANDSHAKE_TIMEOUT_MS);
        Self { phase: Phase::Handshake { until_ms }, heard_ms: steady_ms, pinged_ms: steady_ms }
    }

    pub(super) fn handle_frame(&mut self, steady_ms: u64) {
        self.heard_ms = self.heard_ms.max(steady_ms);
    }

    pub(super) fn handle_open(&mut self) {
        self.phase = Phase::Open;
    }

    /// When [`Self::handle_timeout`] has something to do, steady ms.
    pub(super) fn poll_timeout(&self) -> u64 {
        match self.phase {
            Phase::Handshake { until_ms } => until_ms,
            Phase::Open => self.ping_due_ms().min(self.dead_ms()),
        }
    }

    pub(super) fn handle_timeout(&mut self, steady_ms: u64, out: &mut Vec<u8>) -> Result<(), LinkError> {
        match self.phase {
            Phase::Handshake { until_ms } if steady_ms >= until_ms => Err(LinkError::HandshakeTimeout),
            Phase::Handshake { .. } => Ok(()),
            Phase::Open if steady_ms >= self.dead_ms() => Err(LinkError::PeerSilent),
            Phase::Open => {
                if steady_ms >= self.ping_due_ms() {
                    self.pinged_ms = steady_ms;
                    write_ping(out, steady_ms);
                }
                Ok(())
            }
        }
    }

    fn ping_due_ms(&self) -> u64 {
        self.heard_ms.max(self.pinged_ms).saturating_add(PING_AFTER_MS)
    }

    fn dead_ms(&self) -> u64 {
        self.heard_ms.saturating_add(SILENCE_TIMEOUT_MS)
    }
}
