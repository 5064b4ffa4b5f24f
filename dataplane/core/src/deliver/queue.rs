//! The deliveries of one target: which may start now, which wait, and what follows from each outcome.
//!
//! Deliveries and outcomes enter with the time; attempts and verdicts leave. Refused: deliveries over
//! `queue_max`. Each delivery is in exactly one place: fresh, waiting for a retry, first after a resume, or
//! in flight. Retries never run out of room, because what is in flight keeps its slot. Times are steady: no
//! step of the system's clock moves them; one that goes backwards counts as standing still.

use alloc::collections::{BinaryHeap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::gate::Gate;
use super::limits::TargetLimits;
use super::outcome::{DeadReason, Next, Outcome, Verdict};
use super::schedule::Jitter;
use super::slots::{SlotId, Slots};

/// What a place of a queue takes, bytes; all are reserved when the queue is made.
pub const PLACE_BYTES: usize = super::slots::SLOT_BYTES + size_of::<SlotId>() + size_of::<Reverse<Retry>>();

/// One event on its way to one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The owner's handle of the event; no two deliveries held by a queue share one.
    pub key: u64,
    /// Attempts already made.
    pub attempt: u32,
    /// Size of the event, bytes.
    pub bytes: u32,
}

/// The queue holds as many deliveries as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the target's queue is full")]
pub struct QueueFull;

/// Whether attempts may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// They may.
    Active,
    /// The target answered 410; events are kept until it is resumed.
    Disabled {
        /// When, ms.
        since_ms: u64,
    },
    /// Held back by an operator.
    Paused,
}

/// The queue of one target; see the module. Operations are O(log n) in the deliveries held; starting and
/// ending an attempt also moves at most `in_flight_max` entries of 16 bytes.
#[derive(Debug)]
pub struct TargetQueue {
    limits: TargetLimits,
    jitter: Jitter,
    now_ms: u64,
    state: TargetState,
    gate: Gate,
    turn: Turn,
    slots: Slots,
    /// Met a 410. Never longer than `in_flight_max`: nothing else starts while it holds any.
    first: VecDeque<SlotId>,
    fresh: VecDeque<SlotId>,
    retries: BinaryHeap<Reverse<Retry>>,
    /// Sorted by key, `in_flight_max` at most.
    in_flight: Vec<(u64, SlotId)>,
}

/// Who goes next when a fresh delivery and a retry may both start.
#[derive(Debug)]
enum Turn {
    Fresh,
    Retry,
}

/// Ordered by time, then by key.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Retry {
    due_ms: u64,
    key: u64,
    slot: SlotId,
}

impl TargetQueue {
    /// An empty, active queue. `seed` spreads the retries; give each target its own.
    ///
    /// # Panics
    /// If `in_flight_max` or `queue_max` is 0.
    pub fn new(limits: TargetLimits, seed: u64) -> Self {
        assert!(limits.in_flight_max > 0 && limits.queue_max > 0, "configuration refuses bounds of 0");
        let queue_max = limits.queue_max as usize;
        let in_flight_max = limits.in_flight_max.min(limits.queue_max) as usize;
        Self {
            jitter: Jitter::new(seed),
            now_ms: 0,
            state: TargetState::Active,
            gate: Gate::new(&limits, Jitter::new(!seed)),
            turn: Turn::Fresh,
            slots: Slots::new(limits.queue_max),
            first: VecDeque::with_capacity(in_flight_max),
            fresh: VecDeque::with_capacity(queue_max),
            retries: BinaryHeap::with_capacity(queue_max),
            in_flight: Vec::with_capacity(in_flight_max),
            limits,
        }
    }

    /// Takes a delivery that may start at once.
    pub fn handle_event(&mut self, delivery: Delivery, now_ms: u64) -> Result<(), QueueFull> {
        let now_ms = self.advance(now_ms);
        let slot = self.slots.insert(delivery, now_ms).ok_or(QueueFull)?;
        self.fresh.push_back(slot);
        Ok(())
    }

    /// Takes a delivery back after a restart, with the attempts made; it may start at `due_ms`.
    pub fn handle_restored(&mut self, delivery: Delivery, due_ms: u64) -> Result<(), QueueFull> {
        let slot = self.slots.insert(delivery, self.now_ms).ok_or(QueueFull)?;
        self.retries.push(Reverse(Retry { due_ms, key: delivery.key, slot }));
        Ok(())
    }

    /// Takes one delivery that may start now. Its outcome comes back through [`Self::handle_outcome`].
    ///
    /// # Panics
    /// If a delivery of the same key is in flight.
    pub fn poll_attempt(&mut self, now_ms: u64) -> Option<Delivery> {
        let now_ms = self.advance(now_ms);
        self.opens_ms().filter(|&opens_ms| opens_ms <= now_ms)?;
        let slot = self.take_ready(now_ms)?;
        let delivery = self.slots.delivery(slot);
        let at = self
            .in_flight
            .binary_search_by_key(&delivery.key, |entry| entry.0)
            .expect_err("no two deliveries share a key");
        self.in_flight.insert(at, (delivery.key, slot));
        Some(delivery)
    }

    /// Ends an attempt.
    ///
    /// # Panics
    /// If no delivery of this key is in flight.
    pub fn handle_outcome(&mut self, key: u64, outcome: &Outcome, now_ms: u64) -> Next {
        let now_ms = self.advance(now_ms);
        let at = self
            .in_flight
            .binary_search_by_key(&key, |entry| entry.0)
            .expect("an outcome belongs to an attempt in flight");
        let (_, slot) = self.in_flight.remove(at);
        let verdict = outcome.verdict(&self.limits.permanent);
        self.gate.handle_outcome(outcome, verdict, now_ms);
        let is_throttled = matches!(verdict, Verdict::Throttle { .. });
        let is_counted =
            !is_throttled || self.slots.count_throttled(slot) > self.limits.throttle.uncounted_max;
        let made = self.slots.delivery(slot).attempt;
        // What was tried at all is told from what is fresh, so the first attempt counts in any case.
        let attempt = made.saturating_add(u32::from(is_counted)).max(1);
        self.slots.set_attempt(slot, attempt);
        match verdict {
            Verdict::Delivered => {
                self.slots.remove(slot);
                Next::Delivered
            }
            Verdict::Dead(reason) => self.bury(slot, reason),
            Verdict::Disable => {
                self.disable(now_ms);
                self.first.push_back(slot);
                Next::Disabled { attempt, due_ms: now_ms }
            }
            Verdict::Retry { reason } | Verdict::Throttle { reason, .. } => {
                let delay_ms = if is_counted { self.retry_delay_ms(attempt) } else { Some(0) };
                let Some(delay_ms) = delay_ms else { return self.bury(slot, reason) };
                let held_ms = if is_throttled { self.gate.throttled_until_ms() } else { 0 };
                let due_ms = now_ms.saturating_add(delay_ms).max(held_ms);
                self.retries.push(Reverse(Retry { due_ms, key, slot }));
                Next::Retry { attempt, due_ms }
            }
        }
    }

    /// Attempts made of a delivery in flight, the one that is under way included.
    ///
    /// # Panics
    /// If no delivery of this key is in flight.
    pub fn attempts(&self, key: u64) -> u32 {
        let at = self.in_flight.binary_search_by_key(&key, |entry| entry.0);
        let (_, slot) = self.in_flight[at.expect("only asked of an attempt in flight")];
        self.slots.delivery(slot).attempt.saturating_add(1)
    }

    /// For a target that was removed: takes waiting deliveries one by one, whatever their time.
    pub fn poll_removed(&mut self) -> Option<Delivery> {
        let slot = self
            .first
            .pop_front()
            .or_else(|| self.retries.pop().map(|Reverse(retry)| retry.slot))
            .or_else(|| self.fresh.pop_front())?;
        Some(self.slots.remove(slot))
    }

    /// When `poll_attempt` may have something, ms; `None` as long as only another call can change that.
    pub fn poll_timeout(&self) -> Option<u64> {
        let opens_ms = self.opens_ms()?;
        let ready_ms = match (self.first.is_empty(), self.fresh.is_empty()) {
            (true, true) => self.retries.peek().map(|Reverse(retry)| retry.due_ms)?,
            _ => self.now_ms,
        };
        Some(ready_ms.max(opens_ms))
    }

    /// Starts no attempt until [`Self::resume`]; a disabled target stays disabled.
    pub fn pause(&mut self, now_ms: u64) {
        self.advance(now_ms);
        if self.state == TargetState::Active {
            self.state = TargetState::Paused;
        }
    }

    /// What a 410 does; also for a target that was disabled before a restart.
    pub fn disable(&mut self, now_ms: u64) {
        let since_ms = self.advance(now_ms);
        if !matches!(self.state, TargetState::Disabled { .. }) {
            self.state = TargetState::Disabled { since_ms };
        }
    }

    /// Starts attempts again, after a pause or a 410.
    pub fn resume(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.state = TargetState::Active;
    }

    /// Another target stands in: what waits for its time need not wait any longer, nor for the other's.
    pub fn hasten(&mut self, now_ms: u64) {
        let now_ms = self.advance(now_ms);
        self.gate.reset();
        let mut retries = core::mem::take(&mut self.retries).into_vec();
        for Reverse(retry) in &mut retries {
            retry.due_ms = retry.due_ms.min(now_ms);
        }
        self.retries = BinaryHeap::from(retries);
    }

    /// Whether attempts may start.
    pub fn state(&self) -> TargetState {
        self.state
    }

    /// Until when a 429 or 503 holds the target back, ms; in the past when none does.
    pub fn throttled_until_ms(&self) -> u64 {
        self.gate.throttled_until_ms()
    }

    /// The bounds it was made with.
    pub fn limits(&self) -> &TargetLimits {
        &self.limits
    }

    /// Deliveries that wait, for their time or for room.
    pub fn waiting(&self) -> usize {
        self.slots.held() as usize - self.in_flight.len()
    }

    /// Attempts that have started and not ended.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Bytes of the events held, waiting and in flight.
    pub fn bytes(&self) -> u64 {
        self.slots.bytes()
    }

    /// When the delivery that was held longest came in, ms; after a restart, from then on.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.slots.oldest_ms()
    }

    fn advance(&mut self, now_ms: u64) -> u64 {
        self.now_ms = self.now_ms.max(now_ms);
        self.now_ms
    }

    /// When another attempt may start if a delivery is ready; `None` as long as only another call can tell.
    fn opens_ms(&self) -> Option<u64> {
        (self.state == TargetState::Active).then(|| self.gate.poll_timeout(self.in_flight.len())).flatten()
    }

    /// First what met a 410, then fresh deliveries and due retries by turns, so that neither starves the other.
    fn take_ready(&mut self, now_ms: u64) -> Option<SlotId> {
        if let Some(slot) = self.first.pop_front() {
            return Some(slot);
        }
        let is_due = self.retries.peek().is_some_and(|Reverse(retry)| retry.due_ms <= now_ms);
        let turn = match (self.fresh.is_empty(), is_due) {
            (true, false) => return None,
            (true, true) => &Turn::Retry,
            (false, false) => &Turn::Fresh,
            (false, true) => &self.turn,
        };
        match turn {
            Turn::Fresh => {
                self.turn = Turn::Retry;
                self.fresh.pop_front()
            }
            Turn::Retry => {
                self.turn = Turn::Fresh;
                self.retries.pop().map(|Reverse(retry)| retry.slot)
            }
        }
    }

    /// `None` when the schedule is over after `attempt` attempts.
    fn retry_delay_ms(&mut self, attempt: u32) -> Option<u64> {
        let scheduled_ms = *self.limits.retry_schedule_ms.get(attempt as usize - 1)?;
        Some(self.jitter.spread(scheduled_ms, self.limits.retry_jitter_percent))
    }

    fn bury(&mut self, slot: SlotId, reason: DeadReason) -> Next {
        self.slots.remove(slot);
        Next::Dead { reason }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::super::outcome::ConnectFailure;
    use super::super::throttle::ThrottleLimits;
    use super::*;

    const OK: Outcome = Outcome::Answered { status: 200, retry_after_ms: None };
    const GONE: Outcome = Outcome::Answered { status: 410, retry_after_ms: None };
    const FAILED: Outcome = Outcome::ConnectFailed(ConnectFailure::Refused);

    fn delivery(key: u64) -> Delivery {
        Delivery { key, attempt: 0, bytes: 100 }
    }

    fn queue(in_flight_max: u32, queue_max: u32) -> TargetQueue {
        TargetQueue::new(TargetLimits { in_flight_max, queue_max, ..TargetLimits::default() }, 1)
    }

    fn next_key(queue: &mut TargetQueue, now_ms: u64) -> Option<u64> {
        queue.poll_attempt(now_ms).map(|delivery| delivery.key)
    }

    #[test]
    fn a_delivery_dies_after_the_whole_schedule() {
        let mut queue = queue(1, 1);
        let schedule = queue.limits().retry_schedule_ms.clone();
        queue.handle_event(delivery(1), 0).unwrap();
        let mut now_ms = 0;
        for (index, scheduled_ms) in schedule.iter().enumerate() {
            assert_eq!(queue.poll_attempt(now_ms).map(|taken| taken.attempt), Some(index as u32));
            let Next::Retry { attempt, due_ms } = queue.handle_outcome(1, &FAILED, now_ms) else {
                panic!("entry {index} of the schedule is a retry");
            };
            assert_eq!(attempt, index as u32 + 1);
            let delay_ms = due_ms - now_ms;
            assert!((scheduled_ms * 8 / 10..=scheduled_ms * 12 / 10).contains(&delay_ms), "{delay_ms}");
            assert_eq!((queue.poll_timeout(), queue.poll_attempt(due_ms - 1)), (Some(due_ms), None));
            now_ms = due_ms;
        }
        assert_eq!(queue.poll_attempt(now_ms).map(|taken| taken.attempt), Some(7));
        let dead = Next::Dead { reason: DeadReason::ConnectFailed };
        assert_eq!(queue.handle_outcome(1, &FAILED, now_ms), dead);
        assert_eq!((queue.waiting(), queue.in_flight(), queue.bytes(), queue.oldest_ms()), (0, 0, 0, None));
    }

    #[test]
    fn a_throttled_answer_holds_the_whole_target_back() {
        for (status, asked_ms, low, high) in [
            (503, Some(60_000), 60_000, 60_000),
            (429, Some(60_000), 60_000, 60_000),
            (429, Some(1), 1_000, 1_000),
            (429, None, 800, 1_200),
            (503, Some(u64::MAX), 24 * 3_600_000, 24 * 3_600_000),
        ] {
            let mut queue = queue(2, 2);
            queue.handle_event(delivery(1), 0).unwrap();
            assert_eq!(next_key(&mut queue, 0), Some(1));
            queue.handle_event(delivery(2), 0).unwrap();
            let outcome = Outcome::Answered { status, retry_after_ms: asked_ms };
            let Next::Retry { attempt: 1, due_ms } = queue.handle_outcome(1, &outcome, 0) else {
                panic!("{status} is a retry");
            };
            assert!((low..=high).contains(&due_ms), "{status} {asked_ms:?}: {due_ms}");
            assert_eq!((queue.poll_timeout(), queue.poll_attempt(due_ms - 1)), (Some(due_ms), None));
            assert_eq!(queue.throttled_until_ms(), due_ms);
            assert!(next_key(&mut queue, due_ms).is_some() && next_key(&mut queue, due_ms).is_some());
        }
        let mut queue = queue(1, 2);
        queue.handle_event(delivery(1), 0).unwrap();
        queue.handle_event(delivery(2), 0).unwrap();
        assert_eq!(next_key(&mut queue, 0), Some(1));
        let outcome = Outcome::Answered { status: 500, retry_after_ms: Some(60_000) };
        assert!(matches!(queue.handle_outcome(1, &outcome, 0), Next::Retry { due_ms: 800..=1_200, .. }));
        assert_eq!(next_key(&mut queue, 0), Some(2), "a 500 is one delivery's");
    }

    #[test]
    fn throttled_attempts_count_from_their_bound_on() {
        let throttle = ThrottleLimits { uncounted_max: 3, ..ThrottleLimits::default() };
        let limits = TargetLimits { retry_schedule_ms: vec![10, 10], throttle, ..TargetLimits::default() };
        let mut queue = TargetQueue::new(limits, 1);
        queue.handle_event(delivery(1), 0).unwrap();
        let outcome = Outcome::Answered { status: 429, retry_after_ms: Some(5_000) };
        for expected in [1, 1, 1, 2] {
            let now_ms = queue.poll_timeout().unwrap();
            assert_eq!(next_key(&mut queue, now_ms), Some(1));
            let next = queue.handle_outcome(1, &outcome, now_ms);
            assert_eq!(next, Next::Retry { attempt: expected, due_ms: now_ms + 5_000 });
        }
        let now_ms = queue.poll_timeout().unwrap();
        assert_eq!(next_key(&mut queue, now_ms), Some(1));
        let dead = Next::Dead { reason: DeadReason::ClientError };
        assert_eq!(queue.handle_outcome(1, &outcome, now_ms), dead);
    }

    #[test]
    fn a_permanent_answer_is_the_last() {
        let mut queue = queue(1, 1);
        queue.handle_event(delivery(1), 0).unwrap();
        assert_eq!(next_key(&mut queue, 0), Some(1));
        let outcome = Outcome::Answered { status: 422, retry_after_ms: None };
        let dead = Next::Dead { reason: DeadReason::ClientError };
        assert_eq!((queue.handle_outcome(1, &outcome, 0), queue.waiting()), (dead, 0));
    }

    #[test]
    fn another_target_need_not_wait_for_the_first_ones_pause() {
        let mut queue = queue(1, 1);
        queue.handle_event(delivery(1), 0).unwrap();
        assert_eq!(next_key(&mut queue, 0), Some(1));
        let outcome = Outcome::Answered { status: 503, retry_after_ms: Some(60_000) };
        assert_eq!(queue.handle_outcome(1, &outcome, 0), Next::Retry { attempt: 1, due_ms: 60_000 });
        queue.hasten(5);
        assert_eq!((queue.poll_timeout(), next_key(&mut queue, 5)), (Some(5), Some(1)));
    }

    #[test]
    fn gone_disables_and_its_events_go_first_after_resume() {
        let mut queue = queue(2, 10);
        for key in 1..=4 {
            queue.handle_event(delivery(key), 5).unwrap();
        }
        assert_eq!((next_key(&mut queue, 5), next_key(&mut queue, 5)), (Some(1), Some(2)));
        assert_eq!(queue.handle_outcome(2, &GONE, 9), Next::Disabled { attempt: 1, due_ms: 9 });
        assert_eq!(queue.state(), TargetState::Disabled { since_ms: 9 });
        assert_eq!((queue.poll_attempt(99), queue.poll_timeout()), (None, None));
        assert_eq!(queue.handle_outcome(1, &GONE, 100), Next::Disabled { attempt: 1, due_ms: 100 });
        queue.pause(100);
        assert_eq!(queue.state(), TargetState::Disabled { since_ms: 9 });
        assert_eq!((queue.waiting(), queue.oldest_ms()), (4, Some(5)));
        queue.handle_event(delivery(5), 100).unwrap();
        queue.resume(200);
        assert_eq!((next_key(&mut queue, 200), next_key(&mut queue, 200)), (Some(2), Some(1)));
        assert_eq!(
            (queue.handle_outcome(1, &OK, 200), next_key(&mut queue, 200)),
            (Next::Delivered, Some(3))
        );
    }

    #[test]
    fn what_waits_for_its_time_is_hastened() {
        let mut queue = queue(2, 10);
        for key in 1..=3 {
            queue.handle_restored(Delivery { attempt: 1, ..delivery(key) }, 1_000 * key).unwrap();
        }
        assert_eq!((queue.poll_attempt(10), queue.poll_timeout()), (None, Some(1_000)));
        queue.hasten(20);
        assert_eq!((queue.poll_timeout(), next_key(&mut queue, 20)), (Some(20), Some(1)));
        assert_eq!((next_key(&mut queue, 20), queue.waiting()), (Some(2), 1));
    }

    #[test]
    fn a_paused_target_keeps_its_deliveries() {
        let mut queue = queue(2, 10);
        queue.pause(0);
        queue.handle_event(delivery(1), 1).unwrap();
        assert_eq!((queue.state(), queue.poll_attempt(2), queue.waiting()), (TargetState::Paused, None, 1));
        queue.resume(3);
        assert_eq!(next_key(&mut queue, 3), Some(1));
        assert_eq!(queue.handle_outcome(1, &GONE, 4), Next::Disabled { attempt: 1, due_ms: 4 });
    }

    #[test]
    fn fresh_deliveries_and_retries_take_turns() {
        let mut queue = queue(8, 100);
        for key in 0..4 {
            queue.handle_restored(Delivery { attempt: 1, ..delivery(key) }, 50 + key).unwrap();
            queue.handle_event(delivery(10 + key), 0).unwrap();
        }
        let order = [10, 0, 11, 1, 12, 2, 13, 3].map(Some);
        assert_eq!([(); 8].map(|()| next_key(&mut queue, 60)), order);
        assert_eq!(next_key(&mut queue, 60), None);
    }

    #[test]
    fn a_failing_delivery_blocks_no_other() {
        let mut queue = queue(1, 10);
        queue.handle_event(delivery(1), 0).unwrap();
        queue.handle_event(delivery(2), 0).unwrap();
        assert_eq!(next_key(&mut queue, 0), Some(1));
        assert_eq!((queue.poll_timeout(), next_key(&mut queue, 0)), (None, None));
        assert!(matches!(queue.handle_outcome(1, &FAILED, 0), Next::Retry { .. }));
        assert_eq!((queue.poll_timeout(), next_key(&mut queue, 0)), (Some(0), Some(2)));
    }

    #[test]
    fn what_is_in_flight_keeps_its_slot() {
        let mut queue = queue(1, 2);
        queue.handle_event(delivery(1), 0).unwrap();
        assert_eq!(next_key(&mut queue, 0), Some(1));
        queue.handle_event(delivery(2), 0).unwrap();
        assert_eq!(queue.handle_event(delivery(3), 0), Err(QueueFull));
        assert_eq!(queue.handle_restored(delivery(3), 0), Err(QueueFull));
        assert!(matches!(queue.handle_outcome(1, &FAILED, 0), Next::Retry { .. }));
        assert_eq!(queue.handle_event(delivery(3), 0), Err(QueueFull));
        assert_eq!((queue.waiting(), queue.in_flight(), queue.bytes()), (2, 0, 200));
    }

    #[test]
    fn time_never_goes_backwards() {
        let mut queue = queue(1, 2);
        queue.handle_event(delivery(1), 1_000).unwrap();
        assert_eq!(next_key(&mut queue, 0), Some(1));
        let Next::Retry { due_ms, .. } = queue.handle_outcome(1, &FAILED, 0) else {
            panic!("a first failure is a retry");
        };
        assert!((1_800..=2_200).contains(&due_ms), "{due_ms}");
    }

    #[test]
    fn a_restored_delivery_goes_on_where_it_was() {
        let mut queue = queue(1, 2);
        queue.handle_restored(Delivery { attempt: 7, ..delivery(1) }, 500).unwrap();
        assert_eq!((queue.poll_timeout(), queue.poll_attempt(499)), (Some(500), None));
        assert_eq!(next_key(&mut queue, 500), Some(1));
        let dead = Next::Dead { reason: DeadReason::TimedOut };
        assert_eq!(queue.handle_outcome(1, &Outcome::TimedOut, 501), dead);
    }

    #[test]
    fn a_removed_target_gives_everything_back() {
        let mut queue = queue(3, 9);
        for key in 1..=3 {
            queue.handle_event(delivery(key), 0).unwrap();
        }
        queue.handle_restored(delivery(4), 1_000).unwrap();
        assert_eq!([(); 2].map(|()| next_key(&mut queue, 0)), [Some(1), Some(2)]);
        assert_eq!(queue.handle_outcome(1, &GONE, 0), Next::Disabled { attempt: 1, due_ms: 0 });
        let removed = [(); 4].map(|()| queue.poll_removed().map(|delivery| delivery.key));
        assert_eq!(removed, [Some(1), Some(4), Some(3), None]);
        let dead = Next::Dead { reason: DeadReason::TargetRemoved };
        assert_eq!(queue.handle_outcome(2, &Outcome::TargetRemoved, 0), dead);
        assert_eq!((queue.waiting(), queue.in_flight()), (0, 0));
    }

    #[test]
    #[should_panic(expected = "an outcome belongs to an attempt in flight")]
    fn an_outcome_without_an_attempt_is_a_bug() {
        let _ = queue(1, 1).handle_outcome(1, &OK, 0);
    }
}
