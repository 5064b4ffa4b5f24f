//! Attempts at the same time that adapt to how fast the target answers: additive increase, multiplicative decrease.
//!
//! Ends of attempts enter, the cap on attempts in flight leaves, 1 to `in_flight_max`. It begins at 1 and doubles while answers come
//! in time (slow start), until the first that does not; a slow answer, a failure or a 429 halves it, once for all attempts that were
//! under way together; then it grows by 1 for each cap's worth of answers in time. It grows only where it is used. A gradient against
//! the least time seen would need no figure, but a target that is slow from the start would set its own measure: 30 s is
//! slow whatever came before.

#[derive(Debug)]
pub(super) struct Concurrency {
    answer_ms_max: u64,
    cap_max: u32,
    cap: u32,
    /// Below it the cap doubles.
    slow_start_below: u32,
    /// Answers in time since the cap changed.
    answers: u32,
    halved_ms: Option<u64>,
    /// When attempts in flight last reached the cap.
    reached_ms: Option<u64>,
}

impl Concurrency {
    pub(super) fn new(answer_ms_max: u64, cap_max: u32) -> Self {
        Self {
            answer_ms_max,
            cap_max,
            cap: 1,
            slow_start_below: cap_max,
            answers: 0,
            halved_ms: None,
            reached_ms: None,
        }
    }

    pub(super) fn cap(&self) -> u32 {
        self.cap
    }

    /// An attempt starts; so many are in flight with it.
    pub(super) fn handle_start(&mut self, in_flight: usize, now_ms: u64) {
        if in_flight >= self.cap as usize {
            self.reached_ms = Some(now_ms);
        }
    }

    /// An attempt ended in an answer that says nothing of overload but by its time.
    pub(super) fn handle_answer(&mut self, started_ms: u64, now_ms: u64) {
        if now_ms - started_ms > self.answer_ms_max {
            return self.handle_overload(started_ms, now_ms);
        }
        if self.reached_ms.is_none_or(|reached_ms| reached_ms < started_ms) {
            return;
        }
        self.answers += 1;
        if self.cap < self.slow_start_below || self.answers >= self.cap {
            self.cap = (self.cap + 1).min(self.cap_max);
            self.answers = 0;
        }
    }

    /// An attempt ended that says it was too much; counts once for those that were under way together.
    pub(super) fn handle_overload(&mut self, started_ms: u64, now_ms: u64) {
        if self.halved_ms.is_some_and(|halved_ms| started_ms <= halved_ms) {
            return;
        }
        self.cap = (self.cap / 2).max(1);
        self.slow_start_below = self.cap;
        self.answers = 0;
        self.halved_ms = Some(now_ms);
    }

    /// Another target stands in.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.answer_ms_max, self.cap_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target that answers all that is in flight after `answer_ms`, `rounds` times.
    fn rounds(concurrency: &mut Concurrency, now_ms: &mut u64, answer_ms: u64, rounds: u32) {
        for _ in 0..rounds {
            let (started_ms, in_flight) = (*now_ms, concurrency.cap());
            (1..=in_flight).for_each(|in_flight| concurrency.handle_start(in_flight as usize, started_ms));
            *now_ms += answer_ms;
            (0..in_flight).for_each(|_| concurrency.handle_answer(started_ms, *now_ms));
            *now_ms += 1;
        }
    }

    #[test]
    fn a_slow_target_is_held_low_and_comes_back() {
        let (mut concurrency, mut now_ms) = (Concurrency::new(200, 32), 0);
        for cap in [1, 2, 4, 8, 16, 32, 32] {
            assert_eq!(concurrency.cap(), cap);
            rounds(&mut concurrency, &mut now_ms, 200, 1);
        }
        for cap in [16, 8, 4, 2, 1, 1] {
            rounds(&mut concurrency, &mut now_ms, 30_000, 1);
            assert_eq!(concurrency.cap(), cap);
        }
        for cap in [2, 3, 4] {
            rounds(&mut concurrency, &mut now_ms, 10, 1);
            assert_eq!(concurrency.cap(), cap);
        }
        rounds(&mut concurrency, &mut now_ms, 10, 40);
        assert_eq!(concurrency.cap(), 32);
    }

    #[test]
    fn attempts_that_were_under_way_together_count_once() {
        let (mut concurrency, mut now_ms) = (Concurrency::new(200, 32), 0);
        rounds(&mut concurrency, &mut now_ms, 1, 4);
        assert_eq!(concurrency.cap(), 16);
        concurrency.handle_overload(now_ms, now_ms + 10);
        concurrency.handle_overload(now_ms + 10, now_ms + 20);
        assert_eq!(concurrency.cap(), 8);
        concurrency.handle_overload(now_ms + 11, now_ms + 30);
        assert_eq!(concurrency.cap(), 4);
    }

    #[test]
    fn it_grows_only_where_it_is_used() {
        let (mut concurrency, mut now_ms) = (Concurrency::new(200, 32), 0);
        rounds(&mut concurrency, &mut now_ms, 1, 2);
        for _ in 0..100 {
            concurrency.handle_start(3, now_ms);
            concurrency.handle_answer(now_ms, now_ms);
        }
        assert_eq!(concurrency.cap(), 4);
        concurrency.handle_start(4, now_ms);
        concurrency.handle_answer(now_ms, now_ms);
        assert_eq!(concurrency.cap(), 5);
    }
}
