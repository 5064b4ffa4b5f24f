//! Starts per second, of attempts at a target or of replays: a token bucket as one number, the time at which it is full
//! again (ITU-T I.371).
//!
//! Starts enter, the time of the earliest next start leaves. A bucket that fills in less than a millisecond,
//! which is the grain of the times, gives no more than its burst in each.

/// How fast something may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Starts a second, 1 to 1 000 000.
    pub per_second: u32,
    /// Starts at once after a rest; at least 1, and a thousandth of `per_second` to reach that.
    pub burst: u32,
}

const MS_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000 * MS_NS;

/// A bucket, full at first.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "units come last")]
pub struct RateLimiter {
    interval_ns: u64,
    burst_ns: u64,
    full_at_ns: u64,
}

impl RateLimiter {
    /// Begins full.
    pub fn new(limit: RateLimit) -> Self {
        let interval_ns = SECOND_NS.div_ceil(limit.per_second.max(1).into());
        Self { interval_ns, burst_ns: interval_ns * u64::from(limit.burst.max(1)), full_at_ns: 0 }
    }

    /// When the next may start, ms.
    pub fn poll_timeout(&self) -> u64 {
        (self.full_at_ns + self.interval_ns).saturating_sub(self.burst_ns).div_ceil(MS_NS)
    }

    /// One starts.
    pub fn handle_start(&mut self, now_ms: u64) {
        self.full_at_ns = self.full_at_ns.max(now_ms.saturating_mul(MS_NS)).saturating_add(self.interval_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(limit: RateLimit, from_ms: u64, until_ms: u64) -> u32 {
        let mut limiter = RateLimiter::new(limit);
        let (mut now_ms, mut starts) = (from_ms, 0);
        loop {
            now_ms = now_ms.max(limiter.poll_timeout());
            if now_ms >= until_ms {
                return starts;
            }
            limiter.handle_start(now_ms);
            starts += 1;
        }
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        for (per_second, burst, in_one_second) in [
            (1, 1, 1),
            (1, 5, 5),
            (10, 1, 10),
            (10, 5, 14),
            (300, 1, 250),
            (5_000, 5, 5_000),
            (5_000, 1, 1_000),
        ] {
            let limit = RateLimit { per_second, burst };
            assert_eq!(starts(limit, 7_000, 8_000), in_one_second, "{limit:?}");
        }
    }

    #[test]
    fn the_next_start_is_told_to_the_millisecond() {
        let mut limiter = RateLimiter::new(RateLimit { per_second: 3, burst: 1 });
        assert_eq!(limiter.poll_timeout(), 0);
        limiter.handle_start(1_000);
        assert_eq!(limiter.poll_timeout(), 1_334);
        limiter.handle_start(5_000);
        assert_eq!(limiter.poll_timeout(), 5_334, "a rest saves up no more than the burst");
    }
}
