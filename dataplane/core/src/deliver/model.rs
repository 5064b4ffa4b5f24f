//! Operation sequences of a target's queue against a model that keeps every delivery in exactly one place.
//!
//! The model is the plain form of each machine: no heaps and no slots, and all that happened is kept.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{
    BreakerLimits, BreakerState, ConnectFailure, DeadReason, Delivery, FailureShare, Next, Outcome,
    RateLimit, TargetLimits, TargetQueue, TargetState, ThrottleLimits,
};

const OUTCOMES: [Outcome; 14] = [
    Outcome::Answered { status: 200, retry_after_ms: None },
    Outcome::Answered { status: 410, retry_after_ms: None },
    Outcome::Answered { status: 302, retry_after_ms: None },
    Outcome::Answered { status: 503, retry_after_ms: Some(700) },
    Outcome::Answered { status: 429, retry_after_ms: Some(u64::MAX) },
    Outcome::Answered { status: 429, retry_after_ms: None },
    Outcome::Answered { status: 503, retry_after_ms: None },
    Outcome::Answered { status: 422, retry_after_ms: Some(9) },
    Outcome::ConnectFailed(ConnectFailure::Unreachable),
    Outcome::TimedOut,
    Outcome::Refused,
    Outcome::TargetRemoved,
    Outcome::TransformFailed,
    Outcome::DeadlineOver,
];

/// What no later attempt could change.
const ENDS_AT_ONCE: [Outcome; 4] = [
    Outcome::DeadlineOver,
    Outcome::TargetRemoved,
    Outcome::TransformFailed,
    Outcome::Answered { status: 422, retry_after_ms: Some(9) },
];

/// A sequence of operations, two bytes each, against a model that keeps every delivery in exactly one place.
pub fn fuzz_queue(data: &[u8]) {
    let Some((&[in_flight_max, queue_max, schedule, switches], operations)) = data.split_first_chunk() else {
        return;
    };
    let breaker = BreakerLimits {
        failures_max: u32::from(switches % 4) + 1,
        share: (switches & 4 > 0).then_some(FailureShare { window: 5, percent: 40 }),
        pause_ms: 30,
        pause_ms_max: 200,
    };
    let limits = TargetLimits {
        in_flight_max: u32::from(in_flight_max % 5) + 1,
        queue_max: u32::from(queue_max % 20) + 1,
        retry_schedule_ms: (0..u64::from(schedule % 4)).map(|index| 100 << index).collect(),
        retry_jitter_percent: schedule,
        retry_after_ms_max: 1_000,
        throttle: ThrottleLimits {
            pause_ms: 50,
            pause_ms_max: 200,
            uncounted_max: u32::from(schedule / 4 % 4),
        },
        breaker: (switches & 8 > 0).then_some(breaker),
        rate: (switches & 16 > 0).then_some(RateLimit { per_second: 8, burst: 3 }),
        answer_ms_max: (switches & 32 > 0).then_some(150),
        ..TargetLimits::default()
    };
    let mut model = Model::new(limits, u64::from(schedule), switches & 64 > 0);
    for operation in operations.chunks_exact(2) {
        model.step(operation[0], operation[1]);
        model.check();
    }
    model.finish();
}

/// Where a delivery is.
#[derive(Clone, Copy)]
enum Place {
    Waiting { due_ms: u64 },
    InFlight,
}

#[derive(Clone, Copy)]
struct Known {
    place: Place,
    attempt: u32,
    throttled: u32,
    order_key: u64,
    /// Started before another target stood in.
    is_former: bool,
}

struct Model {
    queue: TargetQueue,
    known: BTreeMap<u64, Known>,
    throttled_until_ms: u64,
    breaker: BreakerModel,
    /// Deliveries of each ordering key, in order.
    lines: BTreeMap<u64, Vec<u64>>,
    has_order: bool,
    /// When attempts started, ms.
    starts: Vec<u64>,
    /// What the queue must take for now: the latest time it was told.
    now_ms: u64,
    state: TargetState,
    next_key: u64,
    ended: u64,
}

impl Model {
    fn new(limits: TargetLimits, seed: u64, has_order: bool) -> Self {
        let queue = TargetQueue::new(limits, seed);
        Self {
            queue,
            known: BTreeMap::new(),
            throttled_until_ms: 0,
            breaker: BreakerModel::default(),
            lines: BTreeMap::new(),
            has_order,
            starts: Vec::new(),
            now_ms: 0,
            state: TargetState::Active,
            next_key: 0,
            ended: 0,
        }
    }

    fn step(&mut self, operation: u8, argument: u8) {
        // Every fourth call is told an earlier time, which must count as no time passing.
        let told_ms = match argument % 4 {
            0 => self.now_ms / 2,
            _ => self.now_ms + u64::from(argument),
        };
        match operation % 16 {
            0..=3 => self.event(told_ms),
            4 => self.restored(argument),
            5..=8 => self.attempt(told_ms),
            9..=12 => self.outcome(argument, told_ms),
            13 => {
                self.at(told_ms);
                self.queue.pause(told_ms);
                if self.state == TargetState::Active {
                    self.state = TargetState::Paused;
                }
            }
            14 => {
                self.at(told_ms);
                self.queue.resume(told_ms);
                self.state = TargetState::Active;
            }
            _ if argument >= 240 => self.hasten(told_ms),
            _ if argument >= 224 => self.change_limits(),
            _ => self.removed(argument),
        }
    }

    fn hasten(&mut self, told_ms: u64) {
        self.at(told_ms);
        self.queue.hasten(told_ms);
        let now_ms = self.now_ms;
        self.throttled_until_ms = 0;
        self.breaker = BreakerModel::default();
        for known in self.known.values_mut() {
            known.is_former = true;
            if let Place::Waiting { due_ms } = &mut known.place {
                *due_ms = now_ms.min(*due_ms);
            }
        }
    }

    /// Other limits: what was learnt is forgotten, and no delivery is lost.
    fn change_limits(&mut self) {
        let mut limits = self.queue.limits().clone();
        limits.in_flight_max = limits.in_flight_max % 5 + 1;
        limits.queue_max += 1;
        let queue_max = self.queue.limits().queue_max;
        self.queue.handle_limits(limits);
        assert_eq!(self.queue.limits().queue_max, queue_max, "its places are reserved");
        self.throttled_until_ms = 0;
        self.breaker = BreakerModel::default();
        self.starts.clear();
    }

    fn at(&mut self, told_ms: u64) {
        self.now_ms = self.now_ms.max(told_ms);
    }

    fn event(&mut self, told_ms: u64) {
        self.at(told_ms);
        let delivery = self.new_delivery(0);
        let taken = self.queue.handle_event(delivery, told_ms).is_ok();
        self.entered(delivery, self.now_ms, taken);
    }

    fn restored(&mut self, argument: u8) {
        let delivery = self.new_delivery(u32::from(argument % 6));
        let due_ms = self.now_ms + u64::from(argument) * 4;
        let taken = self.queue.handle_restored(delivery, due_ms).is_ok();
        self.entered(delivery, due_ms, taken);
    }

    /// Keys out of order: the first of each eight is the highest.
    fn new_delivery(&mut self, attempt: u32) -> Delivery {
        self.next_key += 1;
        let order_key = if self.has_order { self.next_key / 2 % 3 } else { 0 };
        Delivery { key: self.next_key ^ 7, attempt, bytes: 3, order_key }
    }

    fn entered(&mut self, delivery: Delivery, due_ms: u64, taken: bool) {
        assert_eq!(taken, self.known.len() < self.queue.limits().queue_max as usize);
        if !taken {
            self.next_key -= 1;
            return;
        }
        // One behind another is ready as soon as it is the first.
        let order_key = delivery.order_key;
        let due_ms = if self.lines.contains_key(&order_key) { self.now_ms } else { due_ms };
        if order_key > 0 {
            self.lines.entry(order_key).or_default().push(delivery.key);
        }
        let place = Place::Waiting { due_ms };
        let known = Known { place, attempt: delivery.attempt, throttled: 0, order_key, is_former: false };
        self.known.insert(delivery.key, known);
    }

    fn attempt(&mut self, told_ms: u64) {
        self.at(told_ms);
        let may_start = self.expected_ms().is_some_and(|due_ms| due_ms <= self.now_ms);
        let Some(delivery) = self.queue.poll_attempt(told_ms) else {
            assert!(!may_start, "a delivery could have started");
            return;
        };
        assert!(may_start, "in flight only below the cap, in an active target");
        self.started(delivery);
    }

    fn started(&mut self, delivery: Delivery) {
        let known = self.known.get_mut(&delivery.key).expect("only what was put in comes out");
        let is_due = matches!(known.place, Place::Waiting { due_ms } if due_ms <= self.now_ms);
        assert!(is_due, "not before it is due");
        assert_eq!((delivery.attempt, delivery.bytes), (known.attempt, 3));
        let line = self.lines.get(&known.order_key);
        assert!(line.is_none_or(|line| line[0] == delivery.key), "one at a time, in order");
        (known.place, known.is_former) = (Place::InFlight, false);
        self.starts.push(self.now_ms);
        if matches!(self.breaker.state, BreakerState::Open { .. }) {
            (self.breaker.state, self.breaker.probe) = (BreakerState::HalfOpen, delivery.key);
        }
    }

    fn outcome(&mut self, argument: u8, told_ms: u64) {
        let keys = self.flying();
        let Some(&key) = keys.get(usize::from(argument) % keys.len().max(1)) else { return };
        self.at(told_ms);
        let outcome = OUTCOMES[usize::from(argument / 4) % OUTCOMES.len()];
        // Every fifth has a deadline that the longer delays do not meet.
        let deadline_ms = if argument.is_multiple_of(5) { self.now_ms + 150 } else { u64::MAX };
        let next = self.queue.handle_outcome_until(key, &outcome, deadline_ms, told_ms);
        self.settle(key, outcome, next, deadline_ms);
    }

    fn settle(&mut self, key: u64, outcome: Outcome, next: Next, deadline_ms: u64) {
        let mut known = self.known.remove(&key).expect("the attempt was in flight");
        let limits = self.queue.limits().clone();
        let is_throttled = matches!(outcome, Outcome::Answered { status: 429 | 503, .. });
        known.throttled += u32::from(is_throttled);
        let is_counted = !is_throttled || known.throttled > limits.throttle.uncounted_max;
        known.attempt = 1.max(known.attempt + u32::from(is_counted));
        if let Outcome::Answered { retry_after_ms, .. } = outcome
            && is_throttled
            && !known.is_former
        {
            self.throttle(retry_after_ms);
        }
        if !known.is_former {
            self.fuse(key, &outcome);
        }
        let is_over = is_counted && known.attempt as usize > limits.retry_schedule_ms.len();
        match next {
            Next::Delivered => assert_eq!(outcome.label(), "delivered"),
            Next::Dead { reason: DeadReason::DeadlineOver } if outcome != Outcome::DeadlineOver => {
                let longest_ms = self.throttled_until_ms.max(self.now_ms + 1_000);
                assert!(!is_over && longest_ms >= deadline_ms, "it could be tried again in time");
            }
            Next::Dead { reason } => {
                let is_permanent = ENDS_AT_ONCE.contains(&outcome);
                assert!(is_over || is_permanent, "dead only after the whole schedule");
                assert!(reason.label() == outcome.label() || outcome.label().starts_with("connect"));
            }
            Next::Retry { attempt, due_ms } => {
                assert!(!is_over && !ENDS_AT_ONCE.contains(&outcome), "it is over");
                assert!(attempt == known.attempt && due_ms < deadline_ms, "tried again in time");
                let (least_ms, most_ms) = match (is_throttled, is_counted) {
                    (false, _) => (self.now_ms, self.now_ms + 1_000),
                    (true, true) => {
                        (self.throttled_until_ms, self.throttled_until_ms.max(self.now_ms + 1_000))
                    }
                    (true, false) => [self.throttled_until_ms.max(self.now_ms); 2].into(),
                };
                assert!((least_ms..=most_ms).contains(&due_ms), "{least_ms} {due_ms} {most_ms}");
                self.known.insert(key, Known { place: Place::Waiting { due_ms }, ..known });
            }
            Next::Disabled { attempt, due_ms } => {
                assert_eq!((attempt, due_ms, outcome.label()), (known.attempt, self.now_ms, "gone"));
                if !matches!(self.state, TargetState::Disabled { .. }) {
                    self.state = TargetState::Disabled { since_ms: due_ms };
                }
                self.known.insert(key, Known { place: Place::Waiting { due_ms }, ..known });
            }
        }
        if matches!(next, Next::Delivered | Next::Dead { .. }) {
            self.ended += 1;
            self.leave(key, known.order_key);
        }
    }

    /// The pause that a throttled answer made: exact where it asked for one, else within its bounds.
    fn throttle(&mut self, asked_ms: Option<u64>) {
        let (before_ms, until_ms) = (self.throttled_until_ms, self.queue.throttled_until_ms());
        let limits = self.queue.limits();
        let pause = limits.throttle.pause_ms;
        match asked_ms {
            Some(asked_ms) => {
                let delay_ms = asked_ms.min(limits.retry_after_ms_max).max(pause);
                assert_eq!(until_ms, before_ms.max(self.now_ms + delay_ms));
            }
            None if self.now_ms < before_ms => assert_eq!(until_ms, before_ms),
            None => {
                let percent = u64::from(limits.retry_jitter_percent.min(100));
                let most_ms = limits.throttle.pause_ms_max * (100 + percent) / 100;
                let least_ms = pause * (100 - percent) / 100;
                assert!((self.now_ms + least_ms..=self.now_ms + most_ms).contains(&until_ms));
            }
        }
        self.throttled_until_ms = until_ms;
    }

    /// The breaker by its rules, over all that it was told since it closed.
    fn fuse(&mut self, key: u64, outcome: &Outcome) {
        let (Some(limits), model) = (self.queue.limits().breaker, &mut self.breaker) else { return };
        let works = outcome.target_works();
        let opens = match model.state {
            BreakerState::Closed => {
                model.told.extend(works);
                let in_row = model.told.iter().rev().take_while(|works| !**works).count();
                let failed = model.told.iter().rev().take(5).filter(|works| !**works).count();
                let is_share = limits.share.is_some() && model.told.len() >= 5 && failed >= 2;
                in_row >= limits.failures_max as usize || is_share
            }
            BreakerState::HalfOpen if model.probe == key => match works {
                Some(true) => return self.breaker = BreakerModel::default(),
                Some(false) => true,
                None => return model.state = BreakerState::Open { probe_ms: self.now_ms },
            },
            BreakerState::Open { .. } | BreakerState::HalfOpen => false,
        };
        if !opens {
            return;
        }
        let percent = u64::from(self.queue.limits().retry_jitter_percent.min(100));
        let pause_ms = (limits.pause_ms << model.pauses).min(limits.pause_ms_max);
        let reach_ms = pause_ms * percent / 100;
        model.pauses += 1;
        model.state = self.queue.breaker();
        let BreakerState::Open { probe_ms } = model.state else { panic!("it opens") };
        let delay_ms = probe_ms - self.now_ms;
        assert!((pause_ms - reach_ms..=pause_ms + reach_ms).contains(&delay_ms), "{pause_ms} {delay_ms}");
    }

    fn removed(&mut self, argument: u8) {
        if argument >= 16 {
            return;
        }
        let waiting = self.queue.waiting();
        let Some(delivery) = self.queue.poll_removed() else {
            assert_eq!(waiting, 0);
            return;
        };
        let known = self.known.remove(&delivery.key).expect("only what was put in comes out");
        assert!(matches!(known.place, Place::Waiting { .. }));
        self.ended += 1;
        self.leave(delivery.key, known.order_key);
    }

    fn leave(&mut self, key: u64, order_key: u64) {
        let Some(line) = self.lines.get_mut(&order_key) else { return };
        let at = line.iter().position(|known| *known == key).expect("it was in its line");
        assert!(at == 0 || self.known.contains_key(&line[0]), "only a first in flight is left behind");
        line.remove(at);
        if line.is_empty() {
            self.lines.remove(&order_key);
        }
    }

    fn check(&self) {
        let (waiting, in_flight) = (self.queue.waiting(), self.queue.in_flight());
        assert_eq!(in_flight, self.flying().len());
        assert_eq!(waiting + in_flight, self.known.len());
        assert_eq!(self.queue.bytes(), self.known.len() as u64 * 3);
        assert_eq!(self.queue.oldest_ms().is_some(), !self.known.is_empty());
        assert_eq!(self.queue.state(), self.state);
        assert_eq!(self.ended + self.known.len() as u64, self.next_key, "nothing is lost");
        assert_eq!(self.queue.throttled_until_ms(), self.throttled_until_ms);
        assert_eq!(self.queue.breaker(), self.breaker.state);
        let (cap, limits) = (self.queue.in_flight_cap(), self.queue.limits());
        assert!((1..=limits.in_flight_max).contains(&cap));
        assert!(limits.answer_ms_max.is_some() || cap == limits.in_flight_max);
        // What may start now may be reported by any time up to now.
        let reported_ms = self.queue.poll_timeout().map(|at_ms| at_ms.max(self.now_ms));
        assert_eq!(reported_ms, self.expected_ms().map(|at_ms| at_ms.max(self.now_ms)));
    }

    /// Delivers everything that is left: each once, and none is missing.
    fn finish(&mut self) {
        self.queue.resume(0);
        self.state = TargetState::Active;
        for key in self.flying() {
            let next = self.queue.handle_outcome(key, &OUTCOMES[0], self.now_ms);
            self.settle(key, OUTCOMES[0], next, u64::MAX);
        }
        while let Some(at_ms) = self.queue.poll_timeout() {
            self.at(at_ms);
            let delivery = self.queue.poll_attempt(self.now_ms).expect("the timeout said so");
            self.started(delivery);
            let next = self.queue.handle_outcome(delivery.key, &OUTCOMES[0], self.now_ms);
            self.settle(delivery.key, OUTCOMES[0], next, u64::MAX);
        }
        self.check();
        assert!(self.known.is_empty());
    }

    /// When the next attempt may start.
    fn expected_ms(&self) -> Option<u64> {
        let has_room = self.flying().len() < self.queue.in_flight_cap() as usize;
        if self.state != TargetState::Active || !has_room {
            return None;
        }
        let is_first =
            |key, known: &Known| self.lines.get(&known.order_key).is_none_or(|line| line[0] == key);
        let ready_ms = self.known.iter().filter_map(|(&key, known)| match known.place {
            Place::Waiting { due_ms } if is_first(key, known) => Some(due_ms),
            Place::Waiting { .. } | Place::InFlight => None,
        });
        let probe_ms = match self.breaker.state {
            BreakerState::Closed => 0,
            BreakerState::Open { probe_ms } => probe_ms,
            BreakerState::HalfOpen => return None,
        };
        Some(ready_ms.min()?.max(self.throttled_until_ms).max(probe_ms).max(self.rate_ms()))
    }

    /// In no span of time start more than the burst and what the rate gives in it.
    fn rate_ms(&self) -> u64 {
        let Some(rate) = self.queue.limits().rate else { return 0 };
        let interval_ms = 1_000 / u64::from(rate.per_second);
        let spans = self.starts.iter().rev().zip(1..);
        let earliest_ms = spans.map(|(start_ms, count)| {
            start_ms + interval_ms * (count + 1u64).saturating_sub(rate.burst.into())
        });
        earliest_ms.max().unwrap_or(0)
    }

    fn flying(&self) -> Vec<u64> {
        let flying = self.known.iter().filter(|(_, known)| matches!(known.place, Place::InFlight));
        flying.map(|(&key, _)| key).collect()
    }
}

struct BreakerModel {
    state: BreakerState,
    probe: u64,
    pauses: u32,
    told: Vec<bool>,
}

impl Default for BreakerModel {
    fn default() -> Self {
        Self { state: BreakerState::Closed, probe: 0, pauses: 0, told: Vec::new() }
    }
}
