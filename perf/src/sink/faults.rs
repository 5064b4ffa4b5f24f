//! What a sink does wrong on purpose: slow answers, a share of 503, outages. The seed makes it repeatable.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::random::Random;

const OUTAGE_S_MAX: f64 = 86_400.0;
const HUNDRED: u64 = 100;

/// All of it; by default nothing.
#[derive(Debug, Default)]
pub(super) struct Faults {
    latency: Duration,
    error_percent: u8,
    outages: Vec<Outage>,
    seed: u64,
    turn: AtomicU64,
}

impl Faults {
    /// Outages in any order; which of them overlap is said in words.
    pub(super) fn new(
        latency: Duration,
        error_percent: u8,
        mut outages: Vec<Outage>,
        seed: u64,
    ) -> Result<Self, String> {
        outages.sort_by_key(|outage| outage.at);
        if let Some(pair) = outages.windows(2).find(|pair| pair[0].ends() >= pair[1].at) {
            return Err(format!(
                "the outages at {} s and at {} s overlap",
                pair[0].at.as_secs_f64(),
                pair[1].at.as_secs_f64()
            ));
        }
        Ok(Self { latency, error_percent, outages, seed, turn: AtomicU64::new(0) })
    }

    /// How long each answer waits.
    pub(super) fn latency(&self) -> Option<Duration> {
        (!self.latency.is_zero()).then_some(self.latency)
    }

    /// Whether the next delivery gets a 503: the same deliveries by number for the same seed.
    pub(super) fn refuses_next(&self) -> bool {
        if self.error_percent == 0 {
            return false;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Random::new(Random::new(self.seed).next().wrapping_add(turn)).below(HUNDRED)
            < u64::from(self.error_percent)
    }

    /// In the order of time, none overlapping another.
    pub(super) fn outages(&self) -> &[Outage] {
        &self.outages
    }
}

/// A span in which connections are reset and none is taken, counted from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    at: Duration,
    length: Duration,
}

impl Outage {
    pub(super) fn begins(self) -> Duration {
        self.at
    }

    pub(super) fn ends(self) -> Duration {
        self.at + self.length
    }
}

impl FromStr for Outage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted =
            || format!("wanted AT_S:FOR_S, such as 10:2.5, both below {OUTAGE_S_MAX} s, the second above 0");
        let (at, length) = text.split_once(':').ok_or_else(wanted)?;
        let seconds = |text: &str| {
            let seconds: f64 = text.parse().ok()?;
            (0.0..OUTAGE_S_MAX).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
        };
        let (at, length) = seconds(at).zip(seconds(length)).ok_or_else(wanted)?;
        if length.is_zero() { Err(wanted()) } else { Ok(Self { at, length }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_read_and_put_in_order() {
        for bad in ["", "1", "1:", ":1", "1:0", "-1:2", "1:-2", "nan:1", "1:inf", "90000:1", "1:2:3"] {
            assert!(bad.parse::<Outage>().unwrap_err().contains("AT_S:FOR_S"), "{bad:?}");
        }
        let outages = |texts: [&str; 2]| texts.map(|text| text.parse().unwrap()).to_vec();
        let faults = Faults::new(Duration::ZERO, 0, outages(["5:1", "1:2.5"]), 0).unwrap();
        assert_eq!(faults.outages()[0].ends(), Duration::from_millis(3500));
        let words = Faults::new(Duration::ZERO, 0, outages(["3:1", "1:2"]), 0).unwrap_err();
        assert_eq!(words, "the outages at 1 s and at 3 s overlap");
    }

    #[test]
    fn the_share_of_errors_is_as_asked_and_repeatable() {
        let refused = |percent, seed| {
            let faults = Faults::new(Duration::ZERO, percent, Vec::new(), seed).unwrap();
            (0..10_000).map(|_| faults.refuses_next()).collect::<Vec<_>>()
        };
        let count = |percent, seed| refused(percent, seed).into_iter().filter(|refused| *refused).count();
        assert_eq!((count(0, 1), count(100, 1)), (0, 10_000));
        assert!((900..1100).contains(&count(10, 1)), "{}", count(10, 1));
        assert_eq!(refused(10, 1), refused(10, 1));
        assert_ne!(refused(10, 1), refused(10, 2));
    }
}
