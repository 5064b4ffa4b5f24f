//! What holds a target back as a whole, whatever its deliveries: one machine for each reason, composed.
//!
//! Starts and ends of attempts enter; the earliest time at which another attempt may start leaves.

use super::limits::TargetLimits;
use super::outcome::{Outcome, Verdict};
use super::schedule::Jitter;
use super::throttle::Throttle;

#[derive(Debug)]
pub(super) struct Gate {
    in_flight_max: u32,
    throttle: Throttle,
    jitter: Jitter,
}

impl Gate {
    pub(super) fn new(limits: &TargetLimits, jitter: Jitter) -> Self {
        let percent = limits.retry_jitter_percent;
        let throttle = Throttle::new(limits.throttle, limits.retry_after_ms_max, percent);
        Self { in_flight_max: limits.in_flight_max, throttle, jitter }
    }

    /// When an attempt may start beside those in flight, ms; `None` as long as only the end of one can tell.
    pub(super) fn poll_timeout(&self, in_flight: usize) -> Option<u64> {
        (in_flight < self.in_flight_max as usize).then_some(self.throttle.until_ms())
    }

    /// An attempt ended.
    pub(super) fn handle_outcome(&mut self, outcome: &Outcome, verdict: Verdict, now_ms: u64) {
        if let Verdict::Throttle { retry_after_ms, .. } = verdict {
            self.throttle.handle_throttled(retry_after_ms, &mut self.jitter, now_ms);
        } else if outcome.target_works() == Some(true) {
            self.throttle.handle_taken();
        }
    }

    /// Another target stands in: what was learnt was learnt of the other.
    pub(super) fn reset(&mut self) {
        self.throttle.reset();
    }

    /// Until when a 429 or 503 holds the target back, ms.
    pub(super) fn throttled_until_ms(&self) -> u64 {
        self.throttle.until_ms()
    }
}
