//! The deliveries of one target: which may start now, which wait, and what follows from each outcome.
//!
//! Deliveries and outcomes enter with the time; attempts and verdicts leave. Refused: deliveries over
//! `queue_max`. Each delivery is in exactly one place: fresh, waiting for a retry, first after a resume,
//! behind another of its ordering key, or in flight. Retries never run out of room, because what is in flight keeps its slot. Times are steady: no
//! step of the system's clock moves them; one that goes backwards counts as standing still.

use alloc::collections::{BinaryHeap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::breaker::BreakerState;
use super::gate::{Ended, Gate, Hold};
use super::limits::TargetLimits;
use super::order::{Order, Position};
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
    /// Deliveries that share it start one at a time, in the order in which they were given; 0 is none.
    pub order_key: u64,
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
/// ending an attempt also moves at most `in_flight_max` entries of 32 bytes.
#[derive(Debug)]
pub struct TargetQueue {
    limits: TargetLimits,
    jitter: Jitter,
    now_ms: u64,
    state: TargetState,
    gate: Gate,
    turn: Turn,
    slots: Slots,
    order: Order,
    /// Met a 410. Never longer than `in_flight_max`: nothing else starts while it holds any.
    first: VecDeque<SlotId>,
    fresh: VecDeque<SlotId>,
    retries: BinaryHeap<Reverse<Retry>>,
    /// Sorted by key, `in_flight_max` at most.
    in_flight: Vec<Flight>,
}

/// An attempt under way.
#[derive(Debug)]
struct Flight {
    key: u64,
    slot: SlotId,
    started_ms: u64,
    /// At the target that deliveries go to now, and not at one it stands in for.
    at_present: bool,
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
            order: Order::new(limits.queue_max),
            first: VecDeque::with_capacity(in_flight_max),
            fresh: VecDeque::with_capacity(queue_max),
            retries: BinaryHeap::with_capacity(queue_max),
            in_flight: Vec::with_capacity(in_flight_max),
            limits,
        }
    }

    /// Takes changed limits but `queue_max`, whose places are reserved. What was learnt of the target is forgotten.
    ///
    /// # Panics
    /// If `in_flight_max` is 0.
    pub fn handle_limits(&mut self, limits: TargetLimits) {
        let limits = TargetLimits { queue_max: self.limits.queue_max, ..limits };
        if limits == self.limits {
            return;
        }
        assert!(limits.in_flight_max > 0, "configuration refuses bounds of 0");
        self.gate.handle_limits(&limits);
        self.limits = limits;
    }

    /// Takes a delivery that may start at once.
    pub fn handle_event(&mut self, delivery: Delivery, now_ms: u64) -> Result<(), QueueFull> {
        let now_ms = self.advance(now_ms);
        let slot = self.slots.insert(delivery, now_ms).ok_or(QueueFull)?;
        if self.order.handle_arrival(delivery.order_key, slot) == Position::First {
            self.fresh.push_back(slot);
        }
        Ok(())
    }

    /// Takes a delivery back after a restart, with the attempts made; it may start at `due_ms`. Those of an ordering
    /// key come in the order of their handles; one behind another may start when that has ended.
    pub fn handle_restored(&mut self, delivery: Delivery, due_ms: u64) -> Result<(), QueueFull> {
        let slot = self.slots.insert(delivery, self.now_ms).ok_or(QueueFull)?;
        if self.order.handle_arrival(delivery.order_key, slot) == Position::First {
            self.retries.push(Reverse(Retry { due_ms, key: delivery.key, slot }));
        }
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
            .binary_search_by_key(&delivery.key, |flight| flight.key)
            .expect_err("no two deliveries share a key");
        let flight = Flight { key: delivery.key, slot, started_ms: now_ms, at_present: true };
        self.in_flight.insert(at, flight);
        self.gate.handle_start(delivery.key, self.in_flight.len(), now_ms);
        Some(delivery)
    }

    /// Ends an attempt.
    ///
    /// # Panics
    /// If no delivery of this key is in flight.
    pub fn handle_outcome(&mut self, key: u64, outcome: &Outcome, now_ms: u64) -> Next {
        self.handle_outcome_until(key, outcome, u64::MAX, now_ms)
    }

    /// Ends an attempt of a delivery that has a deadline, ms: what would be tried again only then is dead now.
    ///
    /// # Panics
    /// If no delivery of this key is in flight.
    pub fn handle_outcome_until(
        &mut self,
        key: u64,
        outcome: &Outcome,
        deadline_ms: u64,
        now_ms: u64,
    ) -> Next {
        let now_ms = self.advance(now_ms);
        let at = self
            .in_flight
            .binary_search_by_key(&key, |flight| flight.key)
            .expect("an outcome belongs to an attempt in flight");
        let Flight { slot, started_ms, at_present, .. } = self.in_flight.remove(at);
        let verdict = outcome.verdict(&self.limits.permanent);
        if at_present {
            self.gate.handle_outcome(Ended { key, started_ms }, outcome, verdict, now_ms);
        }
        let is_throttled = matches!(verdict, Verdict::Throttle { .. });
        let is_counted =
            !is_throttled || self.slots.count_throttled(slot) > self.limits.throttle.uncounted_max;
        let made = self.slots.delivery(slot).attempt;
        // What was tried at all is told from what is fresh, so the first attempt counts in any case.
        let attempt = made.saturating_add(u32::from(is_counted)).max(1);
        self.slots.set_attempt(slot, attempt);
        match verdict {
            Verdict::Delivered => {
                self.release(slot);
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
                if due_ms >= deadline_ms {
                    return self.bury(slot, DeadReason::DeadlineOver);
                }
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
        let at = self.in_flight.binary_search_by_key(&key, |flight| flight.key);
        let slot = self.in_flight[at.expect("only asked of an attempt in flight")].slot;
        self.slots.delivery(slot).attempt.saturating_add(1)
    }

    /// For a target that was removed: takes waiting deliveries one by one, whatever their time.
    pub fn poll_removed(&mut self) -> Option<Delivery> {
        let slot = self
            .first
            .pop_front()
            .or_else(|| self.retries.pop().map(|Reverse(retry)| retry.slot))
            .or_else(|| self.fresh.pop_front());
        if let Some(slot) = slot {
            return Some(self.release(slot));
        }
        self.order.poll_behind().map(|slot| self.slots.remove(slot))
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
        self.in_flight.iter_mut().for_each(|flight| flight.at_present = false);
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

    /// What holds the target back as a whole now, beside its state and what is in flight.
    pub fn hold(&self, now_ms: u64) -> Option<Hold> {
        self.gate.hold(now_ms)
    }

    /// Until when a 429 or 503 holds the target back, ms; in the past when none does.
    pub fn throttled_until_ms(&self) -> u64 {
        self.gate.throttled_until_ms()
    }

    /// Attempts at the same time, for now: what has adapted, or `in_flight_max`.
    pub fn in_flight_cap(&self) -> u32 {
        self.gate.in_flight_cap()
    }

    /// What the circuit breaker does; closed where there is none.
    pub fn breaker(&self) -> BreakerState {
        self.gate.breaker()
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
        self.release(slot);
        Next::Dead { reason }
    }

    /// Ends the stay of the first of its key; the next one was ready since it came in.
    fn release(&mut self, slot: SlotId) -> Delivery {
        let delivery = self.slots.remove(slot);
        if let Some(slot) = self.order.handle_end(delivery.order_key, slot) {
            let (due_ms, key) = (self.slots.entered_ms(slot), self.slots.delivery(slot).key);
            self.retries.push(Reverse(Retry { due_ms, key, slot }));
        }
        delivery
    }
}

#[cfg(test)]
mod tests;
