//! A sliding window over a counter (the idea of RFC 4303 section 3.4.3): each value is taken once.
//!
//! Memory is fixed. Values may come out of order within the window; older ones are refused unseen.

/// How far behind the highest counter a late one may be.
pub const REPLAY_WINDOW_BITS: u64 = 1024;

const WORDS: usize = (REPLAY_WINDOW_BITS / 64) as usize;

/// Counters seen, of the last [`REPLAY_WINDOW_BITS`] ones.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// One above the highest counter taken; 0 before the first.
    next: u64,
    /// Bit `counter % REPLAY_WINDOW_BITS` of the counters below `next`.
    seen: [u64; WORDS],
}

/// Why a counter is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Replay {
    /// Taken before.
    #[error("counter was used before")]
    Seen,
    /// Too far behind the highest one to tell.
    #[error("counter is older than the replay window")]
    Old,
    /// The last counter value, which is never used.
    #[error("counters are used up")]
    Exhausted,
}

impl ReplayWindow {
    /// A window that has seen nothing.
    pub const fn new() -> Self {
        Self { next: 0, seen: [0; WORDS] }
    }

    /// Takes `counter`, once; call it for authentic counters only.
    pub fn accept(&mut self, counter: u64) -> Result<(), Replay> {
        if counter == u64::MAX {
            return Err(Replay::Exhausted);
        }
        if counter >= self.next {
            self.advance(counter);
        } else if self.next - counter > REPLAY_WINDOW_BITS {
            return Err(Replay::Old);
        }
        let (word, bit) = position(counter);
        if self.seen[word] & bit != 0 {
            return Err(Replay::Seen);
        }
        self.seen[word] |= bit;
        Ok(())
    }

    fn advance(&mut self, counter: u64) {
        if counter - self.next >= REPLAY_WINDOW_BITS {
            self.seen = [0; WORDS];
        } else {
            for skipped in self.next..=counter {
                let (word, bit) = position(skipped);
                self.seen[word] &= !bit;
            }
        }
        self.next = counter + 1;
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

fn position(counter: u64) -> (usize, u64) {
    let slot = counter % REPLAY_WINDOW_BITS;
    ((slot / 64) as usize, 1 << (slot % 64))
}

/// Compares the window with a plain set of everything taken, over counters derived from `data`.
#[doc(hidden)]
pub fn fuzz_replay_window(data: &[u8]) {
    let mut window = ReplayWindow::new();
    let mut taken = alloc::collections::BTreeSet::new();
    let mut at = 0_u64;
    for pair in data.chunks_exact(2) {
        let step = u64::from(u16::from_le_bytes([pair[0], pair[1]]));
        at = if step & 1 == 0 { at.saturating_add(step >> 5) } else { at.saturating_sub(step >> 5) };
        let highest = taken.last().copied();
        let old = highest.is_some_and(|highest: u64| highest >= at + REPLAY_WINDOW_BITS);
        let expected = match (old, taken.contains(&at)) {
            (true, _) => Err(Replay::Old),
            (false, true) => Err(Replay::Seen),
            (false, false) => Ok(()),
        };
        assert_eq!(window.accept(at), expected, "counter {at} after {highest:?}");
        if expected.is_ok() {
            taken.insert(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_of_the_window() {
        let mut window = ReplayWindow::new();
        assert_eq!(window.accept(0), Ok(()));
        assert_eq!(window.accept(0), Err(Replay::Seen));
        assert_eq!(window.accept(1024), Ok(()));
        assert_eq!(window.accept(0), Err(Replay::Old));
        assert_eq!(window.accept(1), Ok(()));
        assert_eq!(window.accept(1), Err(Replay::Seen));
        assert_eq!(window.accept(u64::MAX - 1), Ok(()));
        assert_eq!(window.accept(u64::MAX), Err(Replay::Exhausted));
        assert_eq!(window.accept(u64::MAX - 1), Err(Replay::Seen));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn agrees_with_a_set(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
            fuzz_replay_window(&data);
        }

        #[test]
        fn dense_sequences_agree_too(steps in proptest::collection::vec(0_u16..256, 0..2000)) {
            let data: Vec<u8> = steps.iter().flat_map(|step| (step * 8 + step % 2).to_le_bytes()).collect();
            fuzz_replay_window(&data);
        }
    }
}
