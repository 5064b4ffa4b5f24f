//! Deadlines in a heap. There is no cancel: a caller ignores a token that no longer means anything.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use crate::completion::Completion;

/// Pending timers, earliest first, those of one moment in the order they were set. As many as the caller sets.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u64, u64)>>,
    count: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, token: u64) {
        self.heap.push(Reverse((at, self.count, token)));
        self.count += 1;
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Moves what is due at `now` into `completions`.
    pub(crate) fn expire(&mut self, now: Instant, completions: &mut Vec<Completion>) {
        while let Some(Reverse((at, _, token))) = self.heap.peek().copied()
            && at <= now
        {
            self.heap.pop();
            completions.push(Completion::Timer { token });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn due_timers_come_in_order_of_time_then_of_setting() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        for (ms, token) in [(30, 1), (10, 2), (20, 3), (10, 4), (40, 5)] {
            timers.set(at(ms), token);
        }
        let mut out = Vec::new();
        timers.expire(at(9), &mut out);
        assert!(out.is_empty());
        timers.expire(at(30), &mut out);
        let tokens: Vec<u64> = out
            .iter()
            .map(|completion| match completion {
                Completion::Timer { token } => *token,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(tokens, [2, 4, 3, 1]);
        assert_eq!(timers.next(), Some(at(40)));
    }
}
