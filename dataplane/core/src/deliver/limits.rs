//! Bounds and schedule of one target, with their defaults.

use alloc::vec;
use alloc::vec::Vec;

use super::breaker::BreakerLimits;
use super::rate::RateLimit;
use super::status::StatusSet;
use super::throttle::ThrottleLimits;

/// Bounds and schedule of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetLimits {
    /// Attempts at the same time; at least 1.
    pub in_flight_max: u32,
    /// Deliveries held, waiting and in flight; at least 1. About 80 bytes each are reserved at start.
    pub queue_max: u32,
    /// Delay after each failed attempt, ms. After one failure more than it has entries, a delivery is dead.
    pub retry_schedule_ms: Vec<u64>,
    /// How much sooner or later a retry may come, percent of its delay; also the pauses of a whole target.
    pub retry_jitter_percent: u8,
    /// Longest delay that a target may ask for, ms.
    pub retry_after_ms_max: u64,
    /// Longest time from the start of an attempt to the end of its answer, ms; kept by who makes the attempt.
    pub attempt_timeout_ms: u64,
    /// Answers after which a delivery is dead at once.
    pub permanent: StatusSet,
    /// What a 429 or 503 does.
    pub throttle: ThrottleLimits,
    /// When a target that does not work is left alone; without it never.
    pub breaker: Option<BreakerLimits>,
    /// Attempts a second; without it as fast as they come.
    pub rate: Option<RateLimit>,
    /// Slowest attempt that is no sign of overload, ms: attempts at the same time adapt to it, from 1 up to
    /// `in_flight_max`; without it `in_flight_max` alone counts.
    pub answer_ms_max: Option<u64>,
}

impl Default for TargetLimits {
    fn default() -> Self {
        const SECOND: u64 = 1000;
        const MINUTE: u64 = 60 * SECOND;
        const HOUR: u64 = 60 * MINUTE;
        Self {
            in_flight_max: 32,
            queue_max: 100_000,
            retry_schedule_ms: vec![SECOND, 5 * SECOND, 30 * SECOND, 2 * MINUTE, 10 * MINUTE, HOUR, 6 * HOUR],
            retry_jitter_percent: 20,
            retry_after_ms_max: 24 * HOUR,
            attempt_timeout_ms: 15 * SECOND,
            permanent: StatusSet::default(),
            throttle: ThrottleLimits::default(),
            breaker: None,
            rate: None,
            answer_ms_max: None,
        }
    }
}
