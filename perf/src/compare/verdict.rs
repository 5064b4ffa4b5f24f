//! Whether a difference stands out from the noise: paired ratios on a log scale, and an exact sign-flip permutation test.
//!
//! Without a difference, each round's log ratio could as well have had the other sign. The chance is the share of all ways
//! to set the signs whose mean is at least as far from zero. The interval holds every ratio that the same test does not reject.

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// A difference with a smaller chance stands out.
const CHANCE_MAX: f64 = 0.05;
/// With fewer rounds no chance can be so small.
pub(super) const ROUNDS_MIN: u32 = 6;
/// Up to so many rounds all ways are tried; beyond, so many at random.
const EXACT_ROUNDS_MAX: usize = 14;
const RANDOM_WAYS: u64 = 1 << EXACT_ROUNDS_MAX;
const RANDOM_SEED: u64 = 9;
const HALVINGS: u32 = 24;
/// What rounding may do to a mean that equals another.
const ROUNDING: f64 = 1e-12;

/// The second's value as a share of the first's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Verdict {
    /// Geometric mean of the rounds' ratios.
    pub(super) ratio: f64,
    /// Least ratio that the test does not reject.
    pub(super) low: f64,
    /// Most.
    pub(super) high: f64,
    /// Of such a difference without any reason.
    pub(super) chance: f64,
    /// Whether it is a difference.
    pub(super) stands_out: bool,
}

impl Verdict {
    /// Of `(first, second)` of each round; `None` if fewer than [`ROUNDS_MIN`] rounds have two positive values.
    pub(super) fn of(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        let ratios = pairs.into_iter().map(|(first, second)| (second / first).ln());
        let logs: Vec<f64> = ratios.filter(|log| log.is_finite()).collect();
        if logs.len() < ROUNDS_MIN as usize {
            return None;
        }
        let mean = mean(&logs);
        let chance = chance(&logs);
        let ends = logs.iter().fold((mean, mean), |(low, high), &log| (low.min(log), high.max(log)));
        Some(Self {
            ratio: mean.exp(),
            low: edge(&logs, mean, ends.0).exp(),
            high: edge(&logs, mean, ends.1).exp(),
            chance,
            stands_out: chance <= CHANCE_MAX,
        })
    }

    /// `SECOND uses 0.93 (0.91 to 0.95) of FIRST's CPU: stands out`.
    pub(super) fn text(&self, second: &str, verb: &str, first: &str, what: &str) -> String {
        let Self { ratio, low, high, .. } = self;
        let verdict = if self.stands_out { "stands out" } else { "does not stand out from the noise" };
        format!("{second} {verb} {ratio:.3} ({low:.3} to {high:.3}) of {first}'s {what}: {verdict}")
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The share of all ways to set the signs whose mean is as far from zero as that of `logs`.
fn chance(logs: &[f64]) -> f64 {
    let own = logs.iter().sum::<f64>().abs() - ROUNDING;
    let with_signs = |signs: u64| {
        let signed = logs.iter().enumerate().map(|(at, log)| if signs >> at & 1 == 1 { -log } else { *log });
        signed.sum::<f64>().abs()
    };
    if logs.len() <= EXACT_ROUNDS_MAX {
        let ways = 1_u64 << logs.len();
        return (0..ways).filter(|&signs| with_signs(signs) >= own).count() as f64 / ways as f64;
    }
    let mut random = Random::new(RANDOM_SEED);
    // The way that was measured is one of them, so that the chance is never zero.
    let as_far = (0..RANDOM_WAYS).filter(|_| with_signs(random.next()) >= own).count();
    (as_far + 1) as f64 / (RANDOM_WAYS + 1) as f64
}

/// Between the mean and the farthest round on one side, the last shift that the test does not reject.
fn edge(logs: &[f64], mean: f64, farthest: f64) -> f64 {
    let (mut kept, mut rejected) = (mean, farthest);
    let halvings = if (mean - farthest).abs() < ROUNDING { 0 } else { HALVINGS };
    for _ in 0..halvings {
        let middle = kept.midpoint(rejected);
        let shifted: Vec<f64> = logs.iter().map(|log| log - middle).collect();
        if chance(&shifted) > CHANCE_MAX { kept = middle } else { rejected = middle }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nearly normal, with deviation 1.
    fn noise(random: &mut Random) -> f64 {
        let uniform = |random: &mut Random| random.next() as f64 / u64::MAX as f64;
        (0..12).map(|_| uniform(random)).sum::<f64>() - 6.0
    }

    fn pairs(random: &mut Random, rounds: usize, shift: f64, deviation: f64) -> Vec<(f64, f64)> {
        let value = |random: &mut Random, middle: f64| middle * (1.0 + deviation * noise(random));
        (0..rounds).map(|_| (value(random, 20.0), value(random, 20.0 * shift))).collect()
    }

    #[test]
    fn identical_inputs_do_not_differ() {
        for rounds in [6, 9, 14, 20] {
            let same = Verdict::of((0..rounds).map(|at| (f64::from(at) + 3.0, f64::from(at) + 3.0))).unwrap();
            assert_eq!(
                (same.ratio, same.low, same.high, same.stands_out),
                (1.0, 1.0, 1.0, false),
                "{rounds}"
            );
        }
    }

    #[test]
    fn a_tenth_more_stands_out_of_three_percent_noise_in_either_direction() {
        let mut random = Random::new(7);
        for shift in [1.1, 0.9] {
            let found = (0..50).filter_map(|_| Verdict::of(pairs(&mut random, 9, shift, 0.03)));
            let found: Vec<Verdict> = found.collect();
            assert_eq!(found.len(), 50);
            assert!(found.iter().filter(|verdict| verdict.stands_out).count() >= 49);
            let covers = found.iter().filter(|verdict| (verdict.low..=verdict.high).contains(&shift)).count();
            assert!(covers >= 42, "the interval holds the truth in {covers} of 50");
        }
    }

    #[test]
    fn noise_alone_seldom_stands_out() {
        let mut random = Random::new(3);
        let logs = |pairs: Vec<(f64, f64)>| pairs.iter().map(|(a, b)| (b / a).ln()).collect::<Vec<_>>();
        let wrong =
            (0..400).filter(|_| chance(&logs(pairs(&mut random, 9, 1.0, 0.03))) <= CHANCE_MAX).count();
        assert!((5..=35).contains(&wrong), "{wrong} of 400, and one in twenty is what the test allows");
    }

    #[test]
    fn the_chance_is_that_of_all_signs() {
        // Six rounds of one sign: only two of 64 ways are as far.
        assert!((chance(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) - 2.0 / 64.0).abs() < 1e-12);
        // One of six against them, and it is the smallest: two more ways, where it goes with the others.
        assert!((chance(&[-1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) - 4.0 / 64.0).abs() < 1e-12);
        assert!((chance(&[0.0; 6]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_interval_agrees_with_the_verdict() {
        let mut random = Random::new(5);
        for _ in 0..40 {
            let verdict = Verdict::of(pairs(&mut random, 8, 1.03, 0.03)).unwrap();
            let holds_one = verdict.low < 1.0 && 1.0 < verdict.high;
            assert_eq!(holds_one, !verdict.stands_out, "{verdict:?}");
        }
    }

    #[test]
    fn too_few_rounds_have_no_verdict() {
        assert!(Verdict::of(vec![(1.0, 2.0); 5]).is_none());
        let with_holes = [(0.0, 1.0), (f64::NAN, 1.0), (1.0, f64::INFINITY)];
        assert!(Verdict::of(with_holes.into_iter().chain(vec![(1.0, 2.0); 5])).is_none());
        assert!(Verdict::of(vec![(1.0, 2.0); 6]).unwrap().stands_out);
    }

    #[test]
    fn a_verdict_is_a_sentence() {
        let verdict = Verdict { ratio: 0.93, low: 0.91, high: 0.95, chance: 0.004, stands_out: true };
        assert_eq!(
            verdict.text("b", "uses", "a", "CPU"),
            "b uses 0.930 (0.910 to 0.950) of a's CPU: stands out"
        );
        let noise = Verdict { stands_out: false, ..verdict };
        assert!(noise.text("b", "uses", "a", "CPU").ends_with("does not stand out from the noise"));
    }
}
