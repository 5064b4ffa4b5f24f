//! What holds a target back as a whole, whatever its deliveries: one machine for each reason, composed.
//!
//! Starts and ends of attempts enter; the earliest time at which another attempt may start leaves.

use super::breaker::{Breaker, BreakerState};
use super::concurrency::Concurrency;
use super::limits::TargetLimits;
use super::outcome::{Outcome, Verdict};
use super::rate::RateLimiter;
use super::schedule::Jitter;
use super::throttle::Throttle;

#[derive(Debug)]
pub(super) struct Gate {
    in_flight_max: u32,
    throttle: Throttle,
    breaker: Option<Breaker>,
    rate: Option<RateLimiter>,
    concurrency: Option<Concurrency>,
    jitter: Jitter,
}

/// Why no attempt at a target starts for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It answered 429 or 503.
    Throttled {
        /// Until then, ms.
        until_ms: u64,
    },
    /// Its circuit breaker is open until the probe.
    BreakerOpen {
        /// When the next delivery is the probe, ms.
        probe_ms: u64,
    },
    /// Its circuit breaker's probe is in flight.
    BreakerHalfOpen,
    /// Its rate is used up.
    RateLimited {
        /// Until then, ms.
        until_ms: u64,
    },
}

/// An attempt that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) key: u64,
    pub(super) started_ms: u64,
}

impl Gate {
    pub(super) fn new(limits: &TargetLimits, jitter: Jitter) -> Self {
        let percent = limits.retry_jitter_percent;
        let throttle = Throttle::new(limits.throttle, limits.retry_after_ms_max, percent);
        let breaker = limits.breaker.map(|breaker| Breaker::new(breaker, percent));
        let rate = limits.rate.map(RateLimiter::new);
        let in_flight_max = limits.in_flight_max;
        let concurrency = limits.answer_ms_max.map(|answer_ms| Concurrency::new(answer_ms, in_flight_max));
        Self { in_flight_max, throttle, breaker, rate, concurrency, jitter }
    }

    /// Takes changed limits: each machine begins anew.
    pub(super) fn handle_limits(&mut self, limits: &TargetLimits) {
        let jitter = core::mem::replace(&mut self.jitter, Jitter::new(0));
        *self = Self::new(limits, jitter);
    }

    /// When an attempt may start beside those in flight, ms; `None` as long as only the end of one can tell.
    pub(super) fn poll_timeout(&self, in_flight: usize) -> Option<u64> {
        if in_flight >= self.in_flight_cap() as usize {
            return None;
        }
        let breaker_ms = self.breaker.as_ref().map_or(Some(0), Breaker::poll_timeout)?;
        let rate_ms = self.rate.as_ref().map_or(0, RateLimiter::poll_timeout);
        Some(self.throttle.until_ms().max(breaker_ms).max(rate_ms))
    }

    /// An attempt starts; so many are in flight with it.
    pub(super) fn handle_start(&mut self, key: u64, in_flight: usize, now_ms: u64) {
        if let Some(breaker) = &mut self.breaker {
            breaker.handle_start(key);
        }
        if let Some(rate) = &mut self.rate {
            rate.handle_start(now_ms);
        }
        if let Some(concurrency) = &mut self.concurrency {
            concurrency.handle_start(in_flight, now_ms);
        }
    }

    /// An attempt at this target ended.
    pub(super) fn handle_outcome(&mut self, ended: Ended, outcome: &Outcome, verdict: Verdict, now_ms: u64) {
        let Ended { key, started_ms } = ended;
        let works = outcome.target_works();
        if let Some(breaker) = &mut self.breaker {
            breaker.handle_outcome(key, works, &mut self.jitter, now_ms);
        }
        if let Verdict::Throttle { retry_after_ms, .. } = verdict {
            self.throttle.handle_throttled(retry_after_ms, &mut self.jitter, now_ms);
        } else if works == Some(true) {
            self.throttle.handle_taken();
        }
        let is_overload = works == Some(false) || matches!(verdict, Verdict::Throttle { .. });
        match (&mut self.concurrency, works) {
            (Some(concurrency), _) if is_overload => concurrency.handle_overload(started_ms, now_ms),
            (Some(concurrency), Some(_)) => concurrency.handle_answer(started_ms, now_ms),
            (Some(_), None) | (None, _) => {}
        }
    }

    /// Another target stands in: what was learnt was learnt of the other.
    pub(super) fn reset(&mut self) {
        self.throttle.reset();
        if let Some(breaker) = &mut self.breaker {
            breaker.reset();
        }
        if let Some(concurrency) = &mut self.concurrency {
            concurrency.reset();
        }
    }

    /// Attempts at the same time, for now.
    pub(super) fn in_flight_cap(&self) -> u32 {
        self.concurrency.as_ref().map_or(self.in_flight_max, Concurrency::cap)
    }

    pub(super) fn breaker(&self) -> BreakerState {
        self.breaker.as_ref().map_or(BreakerState::Closed, Breaker::state)
    }

    /// What keeps attempts from starting now: the breaker before the throttle, the throttle before the rate.
    pub(super) fn hold(&self, now_ms: u64) -> Option<Hold> {
        match self.breaker() {
            BreakerState::Open { probe_ms } if probe_ms > now_ms => {
                return Some(Hold::BreakerOpen { probe_ms });
            }
            BreakerState::HalfOpen => return Some(Hold::BreakerHalfOpen),
            BreakerState::Open { .. } | BreakerState::Closed => {}
        }
        let until_ms = self.throttle.until_ms();
        if until_ms > now_ms {
            return Some(Hold::Throttled { until_ms });
        }
        let until_ms = self.rate.as_ref().map_or(0, RateLimiter::poll_timeout);
        (until_ms > now_ms).then_some(Hold::RateLimited { until_ms })
    }

    /// Until when a 429 or 503 holds the target back, ms.
    pub(super) fn throttled_until_ms(&self) -> u64 {
        self.throttle.until_ms()
    }
}
