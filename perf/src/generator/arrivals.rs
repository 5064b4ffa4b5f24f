//! When events are due: a schedule that knows nothing of answers, which is what makes the loop open.
//!
//! In: a rate, a shape and a seed. Out: one due time after the other, ns since the start, never falling.

use std::str::FromStr;

use crate::random::Random;

/// Most events that a burst may have.
const BURST_EVENTS_MAX: u32 = 1_000_000;

/// How arrivals are spread over time, at the same mean rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrivals {
    /// Independent of each other: exponential gaps.
    Poisson,
    /// At equal gaps.
    Uniform,
    /// So many at one moment, then a pause.
    Burst(u32),
}

impl FromStr for Arrivals {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.strip_prefix("burst:").map(str::parse)) {
            ("poisson", _) => Ok(Self::Poisson),
            ("uniform", _) => Ok(Self::Uniform),
            (_, Some(Ok(events @ 1..=BURST_EVENTS_MAX))) => Ok(Self::Burst(events)),
            _ => Err(format!("must be poisson, uniform or burst:N with N from 1 to {BURST_EVENTS_MAX}")),
        }
    }
}

/// The due times of a run.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    arrivals: Arrivals,
    gap_ns: f64,
    count: u64,
    due_ns: f64,
    random: Random,
}

impl Schedule {
    /// `rate_per_s` is above zero.
    pub(super) fn new(arrivals: Arrivals, rate_per_s: f64, seed: u64) -> Self {
        let random = Random::new(seed);
        let mut schedule = Self { arrivals, gap_ns: 1e9 / rate_per_s, count: 0, due_ns: 0.0, random };
        if arrivals == Arrivals::Poisson {
            schedule.due_ns = schedule.exponential_ns();
        }
        schedule
    }

    /// When the next event is due.
    pub(super) fn due_ns(&self) -> u64 {
        self.due_ns as u64
    }

    /// Goes on to the event behind it.
    pub(super) fn advance(&mut self) {
        self.count += 1;
        // Products, not sums, so that nothing adds up over a long run.
        self.due_ns = match self.arrivals {
            Arrivals::Poisson => self.due_ns + self.exponential_ns(),
            Arrivals::Uniform => self.count as f64 * self.gap_ns,
            Arrivals::Burst(events) => {
                let events = u64::from(events);
                (self.count / events * events) as f64 * self.gap_ns
            }
        };
    }

    fn exponential_ns(&mut self) -> f64 {
        // 53 bits above zero: the logarithm is finite.
        let uniform = ((self.random.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -uniform.ln() * self.gap_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(arrivals: Arrivals, rate_per_s: f64, count: usize) -> Vec<u64> {
        let mut schedule = Schedule::new(arrivals, rate_per_s, 7);
        std::iter::repeat_with(|| {
            let due = schedule.due_ns();
            schedule.advance();
            due
        })
        .take(count)
        .collect()
    }

    #[test]
    fn shapes_are_read_and_others_refused() {
        for (text, shape) in [
            ("poisson", Arrivals::Poisson),
            ("uniform", Arrivals::Uniform),
            ("burst:1", Arrivals::Burst(1)),
            ("burst:1000000", Arrivals::Burst(1_000_000)),
        ] {
            assert_eq!(text.parse(), Ok(shape));
        }
        for text in ["", "Poisson", "burst", "burst:", "burst:0", "burst:-1", "burst:1000001", "burst:x"] {
            assert!(text.parse::<Arrivals>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn equal_gaps_do_not_drift() {
        let all = dues(Arrivals::Uniform, 3.0, 3_000_001);
        assert_eq!(all[..4], [0, 333_333_333, 666_666_666, 1_000_000_000]);
        assert_eq!(all[3_000_000], 1_000_000_000_000_000);
    }

    #[test]
    fn bursts_come_together_at_the_mean_rate() {
        let all = dues(Arrivals::Burst(10), 1000.0, 1000);
        assert!(all[..10].iter().all(|due| *due == 0));
        assert!(all[10..20].iter().all(|due| *due == 10_000_000));
        assert_eq!(all[999], 990_000_000);
    }

    #[test]
    fn exponential_gaps_have_their_mean_and_spread() {
        const COUNT: usize = 200_000;
        let all = dues(Arrivals::Poisson, 1000.0, COUNT);
        assert!(all.is_sorted());
        let gaps: Vec<f64> = all.windows(2).map(|two| (two[1] - two[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Of an exponential distribution the standard deviation is the mean; 1 % is over four standard errors.
        assert!((mean / 1e6 - 1.0).abs() < 0.01, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{}", variance.sqrt() / mean);
        let longer = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
        assert!((longer - (-1.0_f64).exp()).abs() < 0.01, "{longer}");
    }

    #[test]
    fn a_seed_gives_its_schedule() {
        let of = |seed| {
            let mut schedule = Schedule::new(Arrivals::Poisson, 10.0, seed);
            schedule.advance();
            schedule.due_ns()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
