//! Segments that a journal does not need any more and keeps for replay, by number and age.
//!
//! They lie in `retained/` beside the live ones, so that recovery does not read them. The oldest leave first:
//! at the bounds, and at once when the disk is full.

use std::collections::VecDeque;

use zen_core::journal::SegmentId;

/// How much a journal keeps beyond what it needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionLimits {
    /// Segments; 0 keeps none.
    pub segments_max: usize,
    /// How long a segment is kept after it was given up, ms.
    pub age_ms_max: u64,
}

/// The segments kept, oldest first, with when each was given up, Unix ms.
#[derive(Debug)]
pub struct Retention {
    limits: RetentionLimits,
    kept: VecDeque<(SegmentId, u64)>,
}

impl Retention {
    /// Goes on with what is on disk.
    pub fn new(limits: RetentionLimits, kept: VecDeque<(SegmentId, u64)>) -> Self {
        Self { limits, kept }
    }

    /// Takes a segment that the journal has given up; answers whether it is kept.
    pub fn handle_trimmed(&mut self, id: SegmentId, wall_ms: u64) -> bool {
        let keeps = self.limits.segments_max > 0 && self.limits.age_ms_max > 0;
        if keeps {
            self.kept.push_back((id, wall_ms));
        }
        keeps
    }

    /// The oldest segment, if it is over a bound.
    pub fn poll_surplus(&mut self, wall_ms: u64) -> Option<SegmentId> {
        let (id, since_ms) = *self.kept.front()?;
        let is_old = wall_ms.saturating_sub(since_ms) >= self.limits.age_ms_max;
        (self.kept.len() > self.limits.segments_max || is_old).then(|| self.kept.pop_front())?;
        Some(id)
    }

    /// The oldest segment, because the disk has no room for a new one.
    pub fn poll_oldest(&mut self) -> Option<SegmentId> {
        self.kept.pop_front().map(|(id, _)| id)
    }

    /// Segments kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(retention: &mut Retention, wall_ms: u64) -> Vec<u64> {
        std::iter::from_fn(|| retention.poll_surplus(wall_ms)).map(|id| id.0).collect()
    }

    #[test]
    fn the_oldest_leave_by_number_and_by_age_and_when_the_disk_is_full() {
        let limits = RetentionLimits { segments_max: 2, age_ms_max: 100 };
        let mut retention = Retention::new(limits, [(SegmentId(1), 0)].into());
        for (id, wall_ms) in [(2, 10), (3, 20), (4, 30)] {
            assert!(retention.handle_trimmed(SegmentId(id), wall_ms));
        }
        assert_eq!(all(&mut retention, 50), [1, 2], "two are kept");
        assert_eq!(all(&mut retention, 119), [0_u64; 0]);
        assert_eq!(all(&mut retention, 120), [3], "given up at 20");
        assert_eq!((retention.poll_oldest(), retention.len()), (Some(SegmentId(4)), 0));
        assert_eq!(retention.poll_oldest(), None);
    }

    #[test]
    fn nothing_is_kept_without_bounds_and_a_clock_that_goes_back_gives_nothing_up() {
        let mut none = Retention::new(RetentionLimits::default(), VecDeque::new());
        assert!(!none.handle_trimmed(SegmentId(1), 5));
        let limits = RetentionLimits { segments_max: 2, age_ms_max: 100 };
        let mut retention = Retention::new(limits, [(SegmentId(1), 1_000)].into());
        assert_eq!(all(&mut retention, 10), [0_u64; 0]);
        let mut lowered = Retention::new(RetentionLimits::default(), [(SegmentId(7), 0)].into());
        assert_eq!(all(&mut lowered, 0), [7], "what an earlier configuration kept goes");
    }
}
