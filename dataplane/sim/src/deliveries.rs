//! The attempts of an egress: the core's queue per target, the core's signed requests, and what becomes of them.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use zen_core::deliver::{
    self, ConnectFailure, Delivery, EventBytes, Next, Outcome, Table, TargetLimits, TargetQueue,
    TargetSigner, write_delivery,
};
use zen_core::event::Event;
use zen_core::record::HeldEvent;

use crate::checker::Violation;
use crate::context::{Context, Crash, Life, NodeId, Step};
use crate::crypto::{Key, Portable};
use crate::journal::Journal;
use crate::target::signer;

/// Attempts at one target at the same time.
const IN_FLIGHT_MAX: u32 = 4;
/// Deliveries that a target's queue holds.
const QUEUE_MAX: u32 = 1_000;
/// From the start of an attempt to the end of its answer, ms.
const ATTEMPT_TIMEOUT_MS: u64 = 5_000;

/// What became of an attempt, for the journal.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// The target has it.
    Delivered,
    /// Again later.
    Retry { attempt: u32, due_ms: u64 },
    /// It is given up, and kept.
    Dead,
}

struct Owned {
    queue: TargetQueue,
    signer: TargetSigner<Key>,
}

/// The targets of one egress.
pub struct Deliveries {
    node: NodeId,
    life: Life,
    targets: BTreeMap<usize, Owned>,
    /// Attempts in flight, by target and handle.
    attempts: BTreeMap<(usize, u64), u64>,
    last_attempt: u64,
    verdicts: VecDeque<(usize, u64, Verdict)>,
    /// Attempts that wait for their event: its record was carried forward and is not durable there.
    fetches: VecDeque<(usize, Delivery)>,
}

/// What a look for a live event came to.
pub enum Found {
    /// The event.
    Event(EventBytes),
    /// Its record was carried forward and is not durable there yet.
    Later,
    /// The record was there and is not whole any more.
    Damaged,
    /// Nobody waits for it any more.
    Ended,
}

impl core::fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Deliveries").field("attempts", &self.attempts).finish_non_exhaustive()
    }
}

impl Deliveries {
    /// Empty queues for the targets of an egress.
    pub fn new(context: &mut Context, node: NodeId, egress: usize, life: Life) -> Self {
        let ours = (0..context.plan.targets).filter(|target| target % context.plan.egresses == egress);
        let targets = ours.collect::<Vec<_>>().into_iter().map(|target| {
            let limits = context.plan.treatments[target].limits(limits(context.plan.attempts_max));
            let queue = TargetQueue::new(limits, context.prng.draw());
            (target, Owned { queue, signer: signer(target) })
        });
        let targets = targets.collect();
        let (attempts, verdicts, fetches) = (BTreeMap::new(), VecDeque::new(), VecDeque::new());
        Self { node, life, targets, attempts, last_attempt: 0, verdicts, fetches }
    }

    /// Takes a delivery, fresh or after a restart.
    pub fn handle_delivery(&mut self, context: &mut Context, target: usize, delivery: Delivery, due_ms: u64) {
        let steady_ms = context.clock(self.node).steady_ms;
        let queue = self.queue(target);
        let result = match delivery.attempt {
            0 => queue.handle_event(delivery, steady_ms),
            _ => queue.handle_restored(delivery, due_ms),
        };
        if result.is_err() {
            let (name, bound) = ("deliveries of a target", QUEUE_MAX as usize);
            context.checker.blame(Violation::Bound { name, value: bound + 1, bound });
        }
    }

    /// Starts the attempts that may start.
    pub fn start(&mut self, context: &mut Context, journal: &Journal, table: &Table) -> Result<(), Crash> {
        let steady_ms = context.clock(self.node).steady_ms;
        for (target, delivery) in core::mem::take(&mut self.fetches) {
            self.attempt(context, (journal, table), target, delivery);
            context.step(self.node)?;
        }
        let targets: Vec<usize> = self.targets.keys().copied().collect();
        for target in targets {
            while let Some(delivery) = self.queue(target).poll_attempt(steady_ms) {
                self.attempt(context, (journal, table), target, delivery);
                context.step(self.node)?;
            }
            let in_flight = self.queue(target).in_flight();
            context.checker.check_bound("attempts in flight", in_flight, IN_FLIGHT_MAX as usize);
        }
        Ok(())
    }

    fn attempt(
        &mut self,
        context: &mut Context,
        (journal, table): (&Journal, &Table),
        target: usize,
        delivery: Delivery,
    ) {
        let found = match find(journal, table, delivery.key) {
            Found::Event(encoded) => Some(encoded),
            Found::Damaged => None,
            Found::Later => return self.fetches.push_back((target, delivery)),
            Found::Ended => {
                let steady_ms = context.clock(self.node).steady_ms;
                let next =
                    self.queue(target).handle_outcome(delivery.key, &Outcome::TargetRemoved, steady_ms);
                return assert!(matches!(next, Next::Dead { .. }), "it is not tried again");
            }
        };
        self.last_attempt += 1;
        let attempt = self.last_attempt;
        self.attempts.insert((target, delivery.key), attempt);
        let (egress, life, handle) = (self.node, self.life, delivery.key);
        let end = |outcome| Step::Outcome { egress, life, target, handle, attempt, outcome };
        let live = table.live(handle).expect("looked at just now");
        let name = format!("target-{target}");
        let place =
            live.targets.iter().position(|life| *life.name == *name).expect("it is one of its targets");
        context.checker.handle_attempt(egress, target, handle, place as u8);
        let Some(encoded) = found else { return context.schedule(0, end(Outcome::Unreadable)) };
        let replay = live.targets[place].replay;
        let request = request(context, &encoded, &self.targets[&target].signer, (delivery, replay), egress);
        send(context, end, request);
    }

    fn queue(&mut self, target: usize) -> &mut TargetQueue {
        &mut self.targets.get_mut(&target).expect("routes name the targets of an egress").queue
    }

    /// An attempt ended; late news of it mean nothing.
    pub fn handle_outcome(
        &mut self,
        context: &mut Context,
        (target, handle): (usize, u64),
        attempt: u64,
        outcome: &Outcome,
    ) {
        if self.attempts.get(&(target, handle)) != Some(&attempt) {
            return;
        }
        self.attempts.remove(&(target, handle));
        let steady_ms = context.clock(self.node).steady_ms;
        let next = self.queue(target).handle_outcome(handle, outcome, steady_ms);
        context.note(format_args!(
            "node {}: event {handle} at target {target}: {outcome:?}, {next:?}",
            self.node.0
        ));
        let verdict = match next {
            Next::Delivered => Verdict::Delivered,
            Next::Retry { attempt, due_ms } | Next::Disabled { attempt, due_ms } => {
                Verdict::Retry { attempt, due_ms }
            }
            Next::Dead { .. } => {
                context.checker.handle_dead(self.node, target, handle);
                Verdict::Dead
            }
        };
        self.verdicts.push_back((target, handle, verdict));
    }

    /// What became of attempts, in order.
    pub fn poll_verdict(&mut self) -> Option<(usize, u64, Verdict)> {
        self.verdicts.pop_front()
    }

    /// An operator resumes targets that answered 410.
    pub fn resume(&mut self, context: &Context) {
        let steady_ms = context.clock(self.node).steady_ms;
        self.targets.values_mut().for_each(|owned| owned.queue.resume(steady_ms));
    }
}

/// Sends a request; its end is an answer, a refused connection, or the timeout.
fn send(context: &mut Context, end: impl Fn(Outcome) -> Step, request: Rc<[u8]>) {
    let delay_ms = context.delay_ms();
    if context.is_lost() && context.prng.chance(500) {
        return context.schedule(delay_ms, end(Outcome::ConnectFailed(ConnectFailure::Refused)));
    }
    let timeout = end(Outcome::TimedOut);
    let Step::Outcome { egress, life, target, handle, attempt, .. } = timeout else { return };
    context.schedule(ATTEMPT_TIMEOUT_MS, timeout);
    if !context.is_lost() {
        context.schedule(delay_ms, Step::Deliver { egress, life, target, handle, attempt, request });
    }
}

/// The event of a handle, from memory or from disk.
pub fn find(journal: &Journal, table: &Table, handle: u64) -> Found {
    let Some(live) = table.live(handle) else { return Found::Ended };
    if let Some(bytes) = &live.bytes {
        return Found::Event(EventBytes::clone(bytes));
    }
    if live.record > journal.durable() {
        return Found::Later;
    }
    let Some(found) = journal.read(live.record) else { return Found::Damaged };
    let held = HeldEvent::decode(&found.payload).expect("an egress encodes its records");
    Found::Event(held.event.into())
}

/// The signed request of an attempt.
fn request(
    context: &mut Context,
    encoded: &[u8],
    signer: &TargetSigner<Key>,
    (delivery, replay): (Delivery, u8),
    egress: NodeId,
) -> Rc<[u8]> {
    let event = Event::decode(encoded).expect("journaled events are in their encoding");
    let nonce = context.prng.bytes();
    let time_ms = context.clock(egress).wall_ms;
    let attempt = deliver::Attempt { made: delivery.attempt, replay, time_ms, nonce };
    let mut request = Vec::with_capacity(1024 + event.body.len());
    write_delivery(&Portable, signer, &event, attempt, &mut request).expect("decoded events fit a request");
    request.extend_from_slice(event.body);
    request.into()
}

fn limits(attempts_max: usize) -> TargetLimits {
    let mut retry_schedule_ms = vec![200, 1_000, 4_000];
    retry_schedule_ms.resize(attempts_max - 1, 15_000);
    TargetLimits {
        in_flight_max: IN_FLIGHT_MAX,
        queue_max: QUEUE_MAX,
        retry_schedule_ms,
        attempt_timeout_ms: ATTEMPT_TIMEOUT_MS,
        ..TargetLimits::default()
    }
}
