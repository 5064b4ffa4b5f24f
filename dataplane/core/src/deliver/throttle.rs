//! A target that says it is asked too much (429, 503) is left alone as a whole, for as long as it wants.
//!
//! Throttled answers enter, the time at which attempts may start again leaves. An answer without `Retry-After` makes a pause that
//! doubles from one to the next; answers to attempts that were under way when a pause began do not lengthen it, unless they ask.
//! `Retry-After` is bounded, and never shorter than the first pause: a target that asks for 0 s is not asked in a loop.

use super::schedule::Jitter;

/// Pauses of a target that throttles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleLimits {
    /// Pause after the first throttled answer, ms; at least 1.
    pub pause_ms: u64,
    /// Longest pause without `Retry-After`, before its jitter, ms.
    pub pause_ms_max: u64,
    /// Throttled attempts of a delivery that its schedule does not count.
    pub uncounted_max: u32,
}

impl Default for ThrottleLimits {
    fn default() -> Self {
        Self { pause_ms: 1_000, pause_ms_max: 60_000, uncounted_max: 16 }
    }
}

#[derive(Debug)]
pub(super) struct Throttle {
    limits: ThrottleLimits,
    retry_after_ms_max: u64,
    jitter_percent: u8,
    until_ms: u64,
    /// Pauses since an answer that was none.
    pauses: u32,
}

impl Throttle {
    pub(super) fn new(limits: ThrottleLimits, retry_after_ms_max: u64, jitter_percent: u8) -> Self {
        Self { limits, retry_after_ms_max, jitter_percent, until_ms: 0, pauses: 0 }
    }

    /// When attempts may start, ms.
    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// The target throttles, and asks for a delay perhaps.
    pub(super) fn handle_throttled(&mut self, asked_ms: Option<u64>, jitter: &mut Jitter, now_ms: u64) {
        let is_new = now_ms >= self.until_ms;
        self.pauses = self.pauses.saturating_add(u32::from(is_new));
        let delay_ms = match asked_ms {
            Some(asked_ms) => asked_ms.min(self.retry_after_ms_max).max(self.limits.pause_ms),
            None if !is_new => return,
            None => {
                let pause_ms = grown_ms(self.limits.pause_ms, self.pauses - 1, self.limits.pause_ms_max);
                jitter.spread(pause_ms, self.jitter_percent)
            }
        };
        self.until_ms = self.until_ms.max(now_ms.saturating_add(delay_ms));
    }

    /// The target takes requests.
    pub(super) fn handle_taken(&mut self) {
        self.pauses = 0;
    }

    /// Another target stands in.
    pub(super) fn reset(&mut self) {
        (self.until_ms, self.pauses) = (0, 0);
    }
}

/// `pause_ms`, doubled `times` times, at most `max_ms`.
pub(super) fn grown_ms(pause_ms: u64, times: u32, max_ms: u64) -> u64 {
    1u64.checked_shl(times).map_or(u64::MAX, |factor| pause_ms.saturating_mul(factor)).min(max_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle() -> (Throttle, Jitter) {
        let limits = ThrottleLimits { pause_ms: 1_000, pause_ms_max: 10_000, uncounted_max: 1 };
        (Throttle::new(limits, 50_000, 0), Jitter::new(1))
    }

    #[test]
    fn pauses_double_up_to_their_bound_and_begin_anew() {
        let (mut throttle, mut jitter) = throttle();
        let mut now_ms = 7;
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
            throttle.handle_throttled(None, &mut jitter, now_ms);
            assert_eq!(throttle.until_ms(), now_ms + pause_ms);
            now_ms = throttle.until_ms();
        }
        throttle.handle_taken();
        throttle.handle_throttled(None, &mut jitter, now_ms);
        assert_eq!(throttle.until_ms(), now_ms + 1_000);
    }

    #[test]
    fn what_was_under_way_lengthens_a_pause_only_if_it_asks() {
        let (mut throttle, mut jitter) = throttle();
        for (now_ms, asked_ms, until_ms) in
            [(0, None, 1_000), (999, None, 1_000), (999, Some(5_000), 5_999), (1_000, Some(2_000), 5_999)]
        {
            throttle.handle_throttled(asked_ms, &mut jitter, now_ms);
            assert_eq!(throttle.until_ms(), until_ms, "{now_ms} {asked_ms:?}");
        }
        throttle.handle_throttled(None, &mut jitter, 5_999);
        assert_eq!(throttle.until_ms(), 7_999, "the second pause");
    }

    #[test]
    fn what_a_target_asks_for_is_bounded_on_both_sides() {
        for (asked_ms, delay_ms) in [(0, 1_000), (1_000, 1_000), (49_999, 49_999), (u64::MAX, 50_000)] {
            let (mut throttle, mut jitter) = throttle();
            throttle.handle_throttled(Some(asked_ms), &mut jitter, 3);
            assert_eq!(throttle.until_ms(), 3 + delay_ms);
        }
    }

    #[test]
    fn many_doublings_do_not_overflow() {
        for times in [63, 64, u32::MAX] {
            assert_eq!(grown_ms(1_000, times, 60_000), 60_000);
        }
    }
}
