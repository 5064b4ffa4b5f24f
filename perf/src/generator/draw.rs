//! What each sending is: a new event, an earlier one again, one with a wrong signature, or junk.
//!
//! In: shares in percent, a seed, the number of the sending. The same three give the same answer.

use crate::random::Random;

/// Shares are compared in millionths.
const WHOLE: u64 = 1_000_000;

/// What a sending is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// An event that was not sent before.
    New,
    /// One that was accepted before, with the id of its source, signed anew.
    Repeat,
    /// A new event whose signature is wrong in one bit.
    BadSignature,
    /// Bytes that are no HTTP.
    Junk,
}

/// How many of the sendings are what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    seed: u64,
    repeats: u64,
    bad_signatures: u64,
    junk: u64,
}

impl Draw {
    /// Shares in percent; `None` if together they are above 100, or one is below zero.
    pub(super) fn new(seed: u64, repeats: f64, bad_signatures: f64, junk: f64) -> Option<Self> {
        let shares = [repeats, bad_signatures, junk];
        let is_good = shares.iter().all(|share| *share >= 0.0) && shares.iter().sum::<f64>() <= 100.0;
        let [repeats, bad_signatures, junk] = shares.map(|share| (share * WHOLE as f64 / 100.0) as u64);
        is_good.then_some(Self { seed, repeats, bad_signatures, junk })
    }

    /// What sending `number` is.
    pub(super) fn sending(&self, number: u64) -> Sending {
        if self.repeats + self.bad_signatures + self.junk == 0 {
            return Sending::New;
        }
        // SplitMix64 counts by an odd constant, so this is its output `number` without those before.
        let state = self.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let at = Random::new(state).below(WHOLE);
        match at {
            _ if at < self.repeats => Sending::Repeat,
            _ if at < self.repeats + self.bad_signatures => Sending::BadSignature,
            _ if at < self.repeats + self.bad_signatures + self.junk => Sending::Junk,
            _ => Sending::New,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_that_cannot_be_are_refused() {
        for shares in [[100.1, 0.0, 0.0], [50.0, 50.0, 1.0], [-1.0, 0.0, 0.0], [f64::NAN, 0.0, 0.0]] {
            assert!(Draw::new(1, shares[0], shares[1], shares[2]).is_none(), "{shares:?}");
        }
        assert!(Draw::new(1, 50.0, 25.0, 25.0).is_some());
    }

    #[test]
    fn shares_come_out_and_a_seed_repeats_them() {
        const COUNT: u64 = 100_000;
        let draw = |seed| {
            let draw = Draw::new(seed, 10.0, 5.0, 1.0).unwrap();
            (0..COUNT).map(|number| draw.sending(number)).collect::<Vec<_>>()
        };
        let all = draw(3);
        for (kind, percent) in [
            (Sending::Repeat, 10.0),
            (Sending::BadSignature, 5.0),
            (Sending::Junk, 1.0),
            (Sending::New, 84.0),
        ] {
            let found = all.iter().filter(|one| **one == kind).count() as f64 * 100.0 / COUNT as f64;
            assert!((found - percent).abs() < 0.5, "{kind:?}: {found}");
        }
        assert_eq!(all, draw(3));
        assert_ne!(all, draw(4));
        let none = Draw::new(3, 0.0, 0.0, 0.0).unwrap();
        assert!((0..COUNT).all(|number| none.sending(number) == Sending::New));
    }
}
