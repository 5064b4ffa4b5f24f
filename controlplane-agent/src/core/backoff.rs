//! When to try again: half a second, twice as long each time, at most 150 s, each 20 % more or less.

const FIRST_MS: u64 = 500;
/// Longest wait that nobody asked for.
pub const RETRY_MAX_MS: u64 = 150_000;
/// Longest wait that the control plane may ask for (RFC 9110 section 10.2.3).
pub const RETRY_AFTER_MAX_MS: u64 = 3_600_000;
const JITTER_PERCENT: u64 = 20;
/// The wait is at its maximum by then.
const DOUBLINGS_MAX: u32 = 9;

const _: () = assert!(FIRST_MS << DOUBLINGS_MAX > RETRY_MAX_MS);

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next failure is the first one again.
    pub fn handle_success(&mut self) {
        self.failures = 0;
    }

    /// How long to wait, ms: at least what the other end asked for.
    pub fn handle_failure(&mut self, retry_after_ms: Option<u64>, random: u64) -> u64 {
        let wait = FIRST_MS << self.failures.min(DOUBLINGS_MAX);
        self.failures = self.failures.saturating_add(1);
        let wait = jittered(wait, JITTER_PERCENT, random).min(RETRY_MAX_MS);
        wait.max(retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MAX_MS))
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// `value` with up to `percent` added or taken away, as `random` says.
pub fn jittered(value: u64, percent: u64, random: u64) -> u64 {
    let half = value / 100 * percent + value % 100 * percent / 100;
    value - half + random % (2 * half + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_their_maximum() {
        for (random, first) in [(0, 400), (100, 500), (200, 600)] {
            assert_eq!(Backoff::default().handle_failure(None, random), first);
        }
        let mut backoff = Backoff::default();
        for random in 0..40 {
            let plain = (500_u64 << random.min(9)).min(RETRY_MAX_MS * 2);
            let wait = backoff.handle_failure(None, random * 7919);
            assert!(wait >= (plain * 8 / 10).min(RETRY_MAX_MS), "{random}: {wait}");
            assert!(wait <= (plain * 12 / 10).min(RETRY_MAX_MS), "{random}: {wait}");
        }
        assert_eq!(backoff.failures(), 40);
        backoff.handle_success();
        assert!(backoff.handle_failure(None, 0) < 600);
    }

    #[test]
    fn what_the_other_end_asks_for_is_waited() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.handle_failure(Some(30_000), 0), 30_000);
        assert_eq!(backoff.handle_failure(Some(u64::MAX), 0), RETRY_AFTER_MAX_MS);
        assert_eq!(backoff.handle_failure(Some(1), 0), 1600, "never less than our own");
    }

    #[test]
    fn jitter_stays_within_its_bounds() {
        for (value, percent) in [(0, 20), (1, 20), (99, 10), (38_880_000, 10), (u64::MAX / 4, 20)] {
            for random in [0, 1, u64::MAX / 2, u64::MAX] {
                let found = jittered(value, percent, random);
                let width = value as f64 * percent as f64 / 100.0 + 1.0;
                assert!((found as f64 - value as f64).abs() <= width, "{value} {percent} {random}: {found}");
            }
        }
    }
}
