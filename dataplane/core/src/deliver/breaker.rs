//! Circuit breaker of a target: after failures nothing is sent for a while, then one attempt finds out.
//!
//! Starts of attempts and what their ends say of the target enter (works, does not, nothing); the earliest time of another start
//! leaves. Closed, it opens after `failures_max` failures in a row, or when a share of the last attempts failed. Open, it waits for a
//! pause that doubles with each failed probe. Half-open, one probe is in flight: its success closes, its failure opens again.
//! Attempts from before the opening decide nothing once it is open: they are the ones it opened for.

use super::schedule::Jitter;
use super::throttle::grown_ms;

/// Widest window of a [`FailureShare`], attempts.
pub const FAILURE_WINDOW_MAX: u32 = 64;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Failures in a row that open it; at least 1.
    pub failures_max: u32,
    /// A share of failures that opens it, whatever their order.
    pub share: Option<FailureShare>,
    /// Pause before the first probe, ms; at least 1.
    pub pause_ms: u64,
    /// Longest pause, before its jitter, ms.
    pub pause_ms_max: u64,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self { failures_max: 10, share: None, pause_ms: 5_000, pause_ms_max: 60_000 }
    }
}

/// So many percent of the last attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureShare {
    /// Attempts looked at, 1 to [`FAILURE_WINDOW_MAX`]; fewer do not open it.
    pub window: u32,
    /// Failures among them that open it, 1 to 100.
    pub percent: u32,
}

/// What a breaker does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Attempts start.
    Closed,
    /// None does until the probe, ms.
    Open {
        /// When the next delivery is the probe.
        probe_ms: u64,
    },
    /// The probe is in flight.
    HalfOpen,
}

#[derive(Debug)]
pub(super) struct Breaker {
    limits: BreakerLimits,
    jitter_percent: u8,
    state: State,
    /// Pauses since it was closed.
    pauses: u32,
}

#[derive(Debug)]
enum State {
    Closed(History),
    Open { probe_ms: u64 },
    HalfOpen { probe: u64 },
}

/// The last attempts; the newest is the lowest bit, 1 a failure.
#[derive(Debug, Default)]
struct History {
    failures_in_row: u32,
    attempts: u32,
    failed: u64,
}

impl Breaker {
    pub(super) fn new(limits: BreakerLimits, jitter_percent: u8) -> Self {
        Self { limits, jitter_percent, state: State::Closed(History::default()), pauses: 0 }
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed(_) => BreakerState::Closed,
            State::Open { probe_ms } => BreakerState::Open { probe_ms },
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// When another attempt may start, ms; `None` while the probe is in flight.
    pub(super) fn poll_timeout(&self) -> Option<u64> {
        match self.state {
            State::Closed(_) => Some(0),
            State::Open { probe_ms } => Some(probe_ms),
            State::HalfOpen { .. } => None,
        }
    }

    /// An attempt starts that it let through.
    pub(super) fn handle_start(&mut self, key: u64) {
        if let State::Open { .. } = self.state {
            self.state = State::HalfOpen { probe: key };
        }
    }

    /// An attempt ended that says something of this target, or nothing.
    pub(super) fn handle_outcome(&mut self, key: u64, works: Option<bool>, jitter: &mut Jitter, now_ms: u64) {
        match (&mut self.state, works) {
            (State::Closed(history), Some(works)) => {
                if history.handle_attempt(works, &self.limits) {
                    self.open(jitter, now_ms);
                }
            }
            (State::HalfOpen { probe }, _) if *probe == key => match works {
                Some(true) => self.reset(),
                Some(false) => self.open(jitter, now_ms),
                // It told nothing; the next one is the probe.
                None => self.state = State::Open { probe_ms: now_ms },
            },
            (State::Closed(_) | State::Open { .. } | State::HalfOpen { .. }, _) => {}
        }
    }

    /// Closed, and nothing known.
    pub(super) fn reset(&mut self) {
        (self.state, self.pauses) = (State::Closed(History::default()), 0);
    }

    fn open(&mut self, jitter: &mut Jitter, now_ms: u64) {
        let pause_ms = grown_ms(self.limits.pause_ms, self.pauses, self.limits.pause_ms_max);
        let pause_ms = jitter.spread(pause_ms, self.jitter_percent);
        self.pauses = self.pauses.saturating_add(1);
        self.state = State::Open { probe_ms: now_ms.saturating_add(pause_ms) };
    }
}

impl History {
    /// Whether the breaker has to open.
    fn handle_attempt(&mut self, works: bool, limits: &BreakerLimits) -> bool {
        self.failures_in_row = if works { 0 } else { self.failures_in_row.saturating_add(1) };
        self.attempts = self.attempts.saturating_add(1);
        self.failed = self.failed << 1 | u64::from(!works);
        self.failures_in_row >= limits.failures_max || limits.share.is_some_and(|share| self.reaches(share))
    }

    fn reaches(&self, share: FailureShare) -> bool {
        let window = share.window.clamp(1, FAILURE_WINDOW_MAX);
        let failed = (self.failed << (FAILURE_WINDOW_MAX - window)).count_ones();
        self.attempts >= window && failed * 100 >= share.percent * window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BreakerLimits =
        BreakerLimits { failures_max: 3, share: None, pause_ms: 100, pause_ms_max: 500 };

    fn breaker(limits: BreakerLimits) -> (Breaker, Jitter) {
        (Breaker::new(limits, 0), Jitter::new(1))
    }

    fn feed(breaker: &mut Breaker, outcomes: &str) {
        for outcome in outcomes.bytes() {
            let works = match outcome {
                b'+' => Some(true),
                b'-' => Some(false),
                _ => None,
            };
            breaker.handle_outcome(1, works, &mut Jitter::new(1), 0);
        }
    }

    #[test]
    fn failures_in_a_row_open_it() {
        for (outcomes, opens) in
            [("--", false), ("---", true), ("--+--", false), ("--0-", true), ("00000", false)]
        {
            let (mut breaker, _) = breaker(LIMITS);
            feed(&mut breaker, outcomes);
            assert_eq!(breaker.state() != BreakerState::Closed, opens, "{outcomes}");
        }
    }

    #[test]
    fn a_share_of_failures_opens_it_over_a_whole_window() {
        let share = Some(FailureShare { window: 4, percent: 50 });
        for (outcomes, opens) in [
            ("-+-", false),
            ("+-+-", true),
            ("+++-", false),
            ("-++++-", false),
            ("-+++-+-", true),
            ("0-+0-0", false),
        ] {
            let (mut breaker, _) = breaker(BreakerLimits { failures_max: 9, share, ..LIMITS });
            feed(&mut breaker, outcomes);
            assert_eq!(breaker.state() != BreakerState::Closed, opens, "{outcomes}");
        }
        let share = Some(FailureShare { window: FAILURE_WINDOW_MAX, percent: 100 });
        let (mut breaker, _) = breaker(BreakerLimits { failures_max: 99, share, ..LIMITS });
        feed(&mut breaker, &"-".repeat(63));
        assert_eq!(breaker.state(), BreakerState::Closed);
        feed(&mut breaker, "-");
        assert_ne!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn one_probe_closes_it_or_opens_it_for_longer() {
        let (mut breaker, mut jitter) = breaker(LIMITS);
        feed(&mut breaker, "---");
        let mut now_ms = 0;
        for pause_ms in [100, 200, 400, 500, 500] {
            let probe_ms = now_ms + pause_ms;
            assert_eq!(breaker.state(), BreakerState::Open { probe_ms });
            now_ms = probe_ms;
            breaker.handle_start(7);
            assert_eq!((breaker.state(), breaker.poll_timeout()), (BreakerState::HalfOpen, None));
            breaker.handle_outcome(7, Some(false), &mut jitter, now_ms);
        }
        breaker.handle_start(8);
        breaker.handle_outcome(8, Some(true), &mut jitter, now_ms);
        assert_eq!((breaker.state(), breaker.poll_timeout()), (BreakerState::Closed, Some(0)));
        feed(&mut breaker, "--");
        assert_eq!(breaker.state(), BreakerState::Closed, "it forgot the failures");
        feed(&mut breaker, "-");
        assert_eq!(breaker.state(), BreakerState::Open { probe_ms: 100 }, "and the pauses");
    }

    #[test]
    fn only_the_probe_decides() {
        let (mut breaker, mut jitter) = breaker(LIMITS);
        feed(&mut breaker, "---");
        breaker.handle_outcome(2, Some(true), &mut jitter, 50);
        assert_eq!(breaker.state(), BreakerState::Open { probe_ms: 100 });
        breaker.handle_start(7);
        for works in [Some(true), Some(false), None] {
            breaker.handle_outcome(2, works, &mut jitter, 100);
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
        }
        breaker.handle_outcome(7, None, &mut jitter, 130);
        assert_eq!(breaker.state(), BreakerState::Open { probe_ms: 130 }, "the next is the probe");
    }
}
