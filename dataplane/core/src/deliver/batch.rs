//! Many deliveries in one request: which of those whose turn has come go together, and when.
//!
//! Items enter with their size in the order of their turns; batches leave in the same order. A batch is closed by the
//! item that does not fit into it any more, or after `linger_ms` at most. An item that is longer than a batch may be goes
//! alone. How many items wait is bounded by whoever lets them have their turn.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Most events of a batch.
pub const BATCH_EVENTS_MAX: u32 = 1000;
/// Longest that an event waits for others, ms.
pub const LINGER_MS_MAX: u64 = 1000;

/// What one request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Items; 1 at least.
    pub events_max: u32,
    /// Their bytes, but for one that is longer.
    pub bytes_max: usize,
    /// How long an item waits for others.
    pub linger_ms: u64,
}

/// Items that wait for others to go with.
#[derive(Debug)]
pub struct Batcher<T> {
    limits: BatchLimits,
    waiting: VecDeque<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    bytes: usize,
    since_ms: u64,
}

impl<T> Batcher<T> {
    /// Nothing waits.
    pub fn new(limits: BatchLimits) -> Self {
        assert!(limits.events_max > 0, "a batch holds something");
        Self { limits, waiting: VecDeque::new() }
    }

    /// Takes an item in, behind the others.
    pub fn handle_item(&mut self, item: T, bytes: usize, now_ms: u64) {
        self.waiting.push_back(Waiting { item, bytes, since_ms: now_ms });
    }

    /// The next batch, if it is full or has waited long enough.
    pub fn poll_batch(&mut self, now_ms: u64) -> Option<Vec<T>> {
        let first = self.waiting.front()?;
        let (count, is_full) = self.next_batch();
        if !is_full && now_ms < first.since_ms.saturating_add(self.limits.linger_ms) {
            return None;
        }
        Some(self.waiting.drain(..count).map(|waiting| waiting.item).collect())
    }

    /// When a batch has waited long enough that is not full before, ms.
    pub fn poll_timeout(&self) -> Option<u64> {
        let first = self.waiting.front()?;
        Some(first.since_ms.saturating_add(self.limits.linger_ms))
    }

    /// Everything that waits, in one go and whatever its size: it will not be a batch.
    pub fn take_all(&mut self) -> Vec<T> {
        self.waiting.drain(..).map(|waiting| waiting.item).collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many of those in front go together, and whether no other would fit in.
    fn next_batch(&self) -> (usize, bool) {
        let BatchLimits { events_max, bytes_max, .. } = self.limits;
        let (mut count, mut bytes) = (0, 0_usize);
        for waiting in &self.waiting {
            bytes = bytes.saturating_add(waiting.bytes);
            if count == events_max as usize || count > 0 && bytes > bytes_max {
                return (count, true);
            }
            count += 1;
        }
        (count, count == events_max as usize || bytes >= bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use proptest::prelude::*;

    use super::*;

    fn batcher(events_max: u32, bytes_max: usize, linger_ms: u64) -> Batcher<u32> {
        Batcher::new(BatchLimits { events_max, bytes_max, linger_ms })
    }

    #[test]
    fn without_lingering_what_is_there_goes() {
        let mut batcher = batcher(3, 100, 0);
        assert_eq!((batcher.poll_batch(5), batcher.poll_timeout()), (None, None));
        for item in 0..4 {
            batcher.handle_item(item, 10, 5);
        }
        assert_eq!(batcher.poll_batch(5), Some(vec![0, 1, 2]));
        assert_eq!(batcher.poll_batch(5), Some(vec![3]));
        assert!(batcher.is_empty());
    }

    #[test]
    fn a_batch_waits_until_it_is_full_or_its_time_is_over() {
        let mut batcher = batcher(3, 100, 50);
        batcher.handle_item(0, 10, 1000);
        batcher.handle_item(1, 10, 1049);
        assert_eq!((batcher.poll_batch(1049), batcher.poll_timeout()), (None, Some(1050)));
        assert_eq!(batcher.poll_batch(1050), Some(vec![0, 1]), "the time of the first counts");
        for item in 2..5 {
            batcher.handle_item(item, 10, 1051);
        }
        assert_eq!(batcher.poll_batch(1051), Some(vec![2, 3, 4]), "full");
        assert_eq!(batcher.poll_timeout(), None);
    }

    #[test]
    fn bytes_close_a_batch_and_a_long_item_goes_alone() {
        let mut batcher = batcher(10, 100, 50);
        for (item, bytes) in [(0, 60), (1, 40), (2, 60), (3, 41), (4, 101), (5, 1)] {
            batcher.handle_item(item, bytes, 0);
        }
        assert_eq!(batcher.poll_batch(0), Some(vec![0, 1]));
        assert_eq!(batcher.poll_batch(0), Some(vec![2]));
        assert_eq!(batcher.poll_batch(0), Some(vec![3]));
        assert_eq!(batcher.poll_batch(0), Some(vec![4]));
        assert_eq!(batcher.poll_batch(0), None);
        batcher.handle_item(6, usize::MAX, 0);
        assert_eq!(batcher.poll_batch(0), Some(vec![5]));
        assert_eq!(batcher.poll_batch(0), Some(vec![6]));
    }

    #[test]
    fn what_is_taken_back_is_everything() {
        let mut batcher = batcher(2, 10, 50);
        (0..5).for_each(|item| batcher.handle_item(item, 10, 0));
        assert_eq!(batcher.take_all(), [0, 1, 2, 3, 4]);
        assert_eq!((batcher.poll_batch(u64::MAX), batcher.poll_timeout()), (None, None));
    }

    proptest! {
        #[test]
        fn every_item_leaves_once_in_order_and_in_time(
            items in prop::collection::vec((0_usize..150, 0_u64..40), 0..200),
            events_max in 1_u32..8,
            linger_ms in 0_u64..30,
        ) {
            const BYTES_MAX: usize = 100;
            let mut batcher = batcher(events_max, BYTES_MAX, linger_ms);
            let (mut now_ms, mut left, mut came) = (0, 0, vec::Vec::new());
            for (index, (bytes, pause_ms)) in items.iter().enumerate() {
                now_ms += pause_ms;
                batcher.handle_item(index as u32, *bytes, now_ms);
                came.push(now_ms);
                while let Some(batch) = batcher.poll_batch(now_ms) {
                    prop_assert!(!batch.is_empty() && batch.len() <= events_max as usize);
                    let sizes: usize = batch.iter().map(|item| items[*item as usize].0).sum();
                    prop_assert!(batch.len() == 1 || sizes <= BYTES_MAX);
                    for item in batch {
                        prop_assert_eq!(item, left);
                        left += 1;
                    }
                }
                let oldest = came.get(left as usize);
                prop_assert_eq!(batcher.poll_timeout(), oldest.map(|since_ms| since_ms + linger_ms));
                prop_assert!(oldest.is_none_or(|since_ms| now_ms < since_ms + linger_ms));
            }
            while let Some(batch) = batcher.poll_batch(now_ms + linger_ms) {
                left += batch.len() as u32;
            }
            prop_assert_eq!(left as usize, items.len());
        }
    }
}
