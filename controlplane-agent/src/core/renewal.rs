//! When a certificate is renewed: at 30 % of its life, 10 % earlier or later, so that of 36 hours 24 are always left.
//!
//! Both clocks count: the steady one is right when somebody sets the other one, the wall clock when the machine slept.
//! Failing to renew takes nothing away: a certificate is good until it ends.

use super::{Backoff, Now, jittered};

const DUE_PERCENT: u64 = 30;
const JITTER_PERCENT: u64 = 10;
const DEGRADED_PERCENT: u64 = 25;

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Unix ms.
    pub not_before_ms: u64,
    /// Unix ms.
    pub not_after_ms: u64,
}

/// How a certificate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// A quarter of its life or more is left.
    Good,
    /// Less is left: nothing is broken yet, and renewal has failed for long.
    Degraded,
    /// It has ended, or there is none.
    Failing,
}

/// The timer of one identity.
#[derive(Clone, Debug)]
pub struct Renewal {
    validity: Option<Validity>,
    due_wall_ms: u64,
    due_steady_ms: u64,
    retry_steady_ms: u64,
    /// What was issued begins then.
    begins_wall_ms: Option<u64>,
    backoff: Backoff,
}

impl Validity {
    fn life_ms(self) -> u64 {
        self.not_after_ms.saturating_sub(self.not_before_ms)
    }

    /// How it does at `wall_ms`.
    pub fn health(self, wall_ms: u64) -> Health {
        match self.not_after_ms.saturating_sub(wall_ms) {
            0 => Health::Failing,
            left if left < self.life_ms() / 100 * DEGRADED_PERCENT => Health::Degraded,
            _ => Health::Good,
        }
    }
}

impl Health {
    /// As status and metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        }
    }
}

impl Renewal {
    /// Of an identity that has no certificate yet: due at once.
    pub fn absent() -> Self {
        Self {
            validity: None,
            due_wall_ms: 0,
            due_steady_ms: 0,
            retry_steady_ms: 0,
            begins_wall_ms: None,
            backoff: Backoff::default(),
        }
    }

    /// Of a certificate.
    pub fn of(validity: Validity, now: Now, random: u64) -> Self {
        let part = jittered(validity.life_ms() / 100 * DUE_PERCENT, JITTER_PERCENT, random);
        let due_wall_ms = validity.not_before_ms.saturating_add(part);
        let due_steady_ms = now.steady_ms.saturating_add(due_wall_ms.saturating_sub(now.wall_ms));
        Self { validity: Some(validity), due_wall_ms, due_steady_ms, ..Self::absent() }
    }

    /// Makes it due now: the identity must be another one.
    pub fn hasten(&mut self) {
        (self.due_wall_ms, self.due_steady_ms) = (0, 0);
    }

    /// Somebody wants a new one, whatever was waited for.
    pub fn handle_order(&mut self) {
        self.hasten();
        self.retry_steady_ms = 0;
    }

    /// What was issued begins at this time of the wall clock, which may be set until then.
    pub fn handle_early(&mut self, begins_ms: u64) {
        self.begins_wall_ms = Some(begins_ms);
    }

    /// It could not be renewed.
    pub fn handle_failure(&mut self, retry_after_ms: Option<u64>, now: Now, random: u64) {
        self.begins_wall_ms = None;
        let wait = self.backoff.handle_failure(retry_after_ms, random);
        self.retry_steady_ms = now.steady_ms.saturating_add(wait);
    }

    /// Whether to renew now.
    pub fn poll_due(&self, now: Now) -> bool {
        self.wait_ms(now) == 0
    }

    /// Until when nothing is to be done, ms from now; a clock that is set changes it.
    pub fn wait_ms(&self, now: Now) -> u64 {
        if let Some(begins_ms) = self.begins_wall_ms {
            return begins_ms.saturating_sub(now.wall_ms);
        }
        let due = self.due_wall_ms.saturating_sub(now.wall_ms);
        let due = due.min(self.due_steady_ms.saturating_sub(now.steady_ms));
        due.max(self.retry_steady_ms.saturating_sub(now.steady_ms))
    }

    /// How the identity does.
    pub fn health(&self, now: Now) -> Health {
        self.validity.map_or(Health::Failing, |validity| validity.health(now.wall_ms))
    }

    /// The certificate's.
    pub fn validity(&self) -> Option<Validity> {
        self.validity
    }

    /// Attempts that failed in a row.
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const START_MS: u64 = 1_700_000_000_000;
    const LEAF: Validity = Validity { not_before_ms: START_MS, not_after_ms: START_MS + 36 * HOUR_MS };

    fn after(ms: u64) -> Now {
        Now { wall_ms: START_MS + ms, steady_ms: 5000 + ms }
    }

    #[test]
    fn of_36_hours_24_are_always_left() {
        for random in (0..10_000).map(|step: u64| step.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let renewal = Renewal::of(LEAF, after(0), random);
            let due = renewal.wait_ms(after(0));
            assert!((972 * HOUR_MS / 100..=1188 * HOUR_MS / 100).contains(&due), "{random}: {due}");
            assert!(!renewal.poll_due(after(due - 1)) && renewal.poll_due(after(due)));
        }
    }

    #[test]
    fn a_day_without_a_control_plane_costs_nothing() {
        for random in [0, 12_345_678_901, u64::MAX] {
            let mut renewal = Renewal::of(LEAF, after(0), random);
            let away_from = renewal.wait_ms(after(0));
            let mut at = away_from;
            let mut attempts = 0;
            while at < away_from + 24 * HOUR_MS {
                assert!(renewal.poll_due(after(at)));
                assert_ne!(renewal.health(after(at)), Health::Failing, "{at}");
                renewal.handle_failure(None, after(at), random.wrapping_add(attempts));
                let wait = renewal.wait_ms(after(at));
                assert!((1..=150_000).contains(&wait));
                (at, attempts) = (at + wait, attempts + 1);
            }
            assert!(attempts > 24 * 24, "tried all the time: {attempts}");
            assert!(renewal.poll_due(after(at)), "back, and it asks at once");
            assert_ne!(renewal.health(after(at)), Health::Failing, "still good after {at} ms");
            let next = Validity { not_before_ms: START_MS + at, not_after_ms: START_MS + at + 36 * HOUR_MS };
            let renewal = Renewal::of(next, after(at), random);
            assert_eq!((renewal.health(after(at)), renewal.failures()), (Health::Good, 0));
            assert!(renewal.wait_ms(after(at)) > 9 * HOUR_MS);
        }
    }

    #[test]
    fn a_clock_that_is_set_loses_no_renewal() {
        let renewal = Renewal::of(LEAF, after(0), 0);
        let due = renewal.wait_ms(after(0));
        // The machine slept: the steady clock stood still.
        assert!(renewal.poll_due(Now { wall_ms: START_MS + due, steady_ms: 5000 }));
        // Somebody set the wall clock back a day: the steady clock goes on.
        let set_back = |ms: u64| Now { wall_ms: START_MS + ms - 24 * HOUR_MS, steady_ms: 5000 + ms };
        assert!(!renewal.poll_due(set_back(due - 1)) && renewal.poll_due(set_back(due)));
        // And forward: it asks early, which costs one certificate.
        assert!(renewal.poll_due(Now { wall_ms: START_MS + 30 * HOUR_MS, steady_ms: 5001 }));
    }

    #[test]
    fn health_is_what_is_left() {
        for (hours, health) in [
            (0, Health::Good),
            (26, Health::Good),
            (28, Health::Degraded),
            (35, Health::Degraded),
            (36, Health::Failing),
        ] {
            assert_eq!(Renewal::of(LEAF, after(0), 0).health(after(hours * HOUR_MS)), health, "{hours}");
        }
        assert_eq!(Renewal::absent().health(after(0)), Health::Failing);
        assert!(Renewal::absent().poll_due(after(0)));
        let mut hastened = Renewal::of(LEAF, after(0), 0);
        hastened.handle_failure(None, after(0), 0);
        hastened.hasten();
        assert!(!hastened.poll_due(after(0)), "what failed is not tried without a pause");
        hastened.handle_order();
        assert!(hastened.poll_due(after(0)));
    }

    #[test]
    fn a_renewal_waits_as_long_as_it_is_asked_to() {
        let mut renewal = Renewal::absent();
        renewal.handle_failure(Some(60_000), after(0), 0);
        assert_eq!(renewal.wait_ms(after(0)), 60_000);
        assert!(!renewal.poll_due(after(59_999)) && renewal.poll_due(after(60_000)));
    }

    #[test]
    fn what_begins_later_is_waited_for_by_the_wall_clock() {
        let mut renewal = Renewal::of(LEAF, after(0), 0);
        renewal.hasten();
        renewal.handle_early(START_MS + 540_000);
        assert_eq!(renewal.wait_ms(after(0)), 540_000);
        renewal.handle_order();
        assert!(!renewal.poll_due(after(539_999)) && renewal.poll_due(after(540_000)));
        assert!(renewal.poll_due(Now { wall_ms: START_MS + 600_000, steady_ms: 5001 }), "the clock was set");
        renewal.handle_failure(None, after(0), 0);
        assert!(renewal.wait_ms(after(0)) < 1000, "what could not be put in force is asked for again");
    }

    #[test]
    fn times_that_make_no_sense_break_nothing() {
        for (not_before_ms, not_after_ms) in [(0, 0), (5, 0), (0, u64::MAX), (u64::MAX, u64::MAX)] {
            for random in [0, u64::MAX] {
                let renewal = Renewal::of(Validity { not_before_ms, not_after_ms }, after(0), random);
                let _ = (renewal.wait_ms(after(0)), renewal.health(after(0)));
            }
        }
    }
}
