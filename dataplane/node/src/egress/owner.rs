//! What the worker that owns a target keeps for it: queue, parcels, idle connections, addresses.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use zen_core::deliver::{Delivery, Next, Outcome, QueueFull, TargetQueue, TargetState};
use zen_rules::failover::Switch;
use zen_uring::SocketId;

use super::condition::Failure;
use super::deliveries::Batching;
use super::output::OutputState;
use super::paused::Hold;
use crate::clock::Clock;
use crate::config::{Output, Target};
use crate::mesh::{EventBytes, EventKey, Handoff, Message};

/// Resolved addresses are used for this long.
const RESOLVED_MS: u64 = 30_000;

/// A delivery's event, while the owner waits to send it.
#[derive(Debug)]
pub struct Parcel {
    /// Position of the target in the event's list.
    pub target_index: u8,
    /// How often an operator sent it again.
    pub replay: u8,
    /// The event, or none while it has to be fetched.
    pub bytes: Option<EventBytes>,
    /// Its size.
    pub bytes_len: u32,
}

/// Room that a hash map takes for an entry while it grows: old and new table, three and a half at most.
const HASH_GROWTH_HALVES: usize = 7;
/// What an entry of a hash map takes: key, value, and the map's growth; bytes.
const fn map_entry_bytes(value_bytes: usize) -> usize {
    HASH_GROWTH_HALVES * (8 + value_bytes + 1) / 2
}

/// A delivery at its owner beside the queue's place: in a map that grows by doubling, and as a message.
pub const PARCEL_BYTES: usize = map_entry_bytes(size_of::<Parcel>()) + size_of::<Message>();

/// A delivery whose turn has come.
#[derive(Debug)]
pub enum Turn {
    /// The event is here.
    Ready(Delivery, EventBytes),
    /// The event has to be fetched first.
    Fetch(EventKey),
}

/// Where a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Dial this.
    At(SocketAddr),
    /// Ask the resolver; an answer will come.
    Ask,
    /// The resolver was asked.
    Asked,
}

/// One target, or one output, at its owner.
pub struct Owner {
    /// Where its deliveries go now.
    pub target: Arc<Target>,
    /// Its name, shared with every handoff.
    pub name: Arc<str>,
    /// What an output has beside its target.
    pub output: Option<OutputState>,
    /// Who is next.
    pub queue: TargetQueue,
    /// Connections without a job.
    pub idle: Vec<SocketId>,
    /// Deliveries that wait for others to go with, of a target that takes batches.
    pub batching: Option<Batching>,
    parcels: HashMap<u64, Parcel>,
    waiting_for_bytes: HashMap<u64, Delivery>,
    /// Bytes of the events whose attempts are under way.
    attempt_bytes: u64,
    addresses: Vec<IpAddr>,
    addresses_until_ms: u64,
    resolving: bool,
    /// By an operator; the queue's own state may be another, as after a 410.
    is_paused: bool,
    /// The beginning of the answer whose attempt ends now.
    excerpt: Vec<u8>,
    last_failure: Option<Failure>,
    turn: usize,
    backlog: Arc<AtomicUsize>,
}

impl Owner {
    /// An empty queue for a target.
    pub fn of_target(target: Arc<Target>, seed: u64, backlog: Arc<AtomicUsize>) -> Self {
        Self::new(Arc::from(target.name.as_str()), target, None, seed, backlog)
    }

    /// An empty queue for an output, with its primary's bounds.
    pub fn of_output(output: Arc<Output>, seed: u64, backlog: Arc<AtomicUsize>) -> Self {
        let primary = Arc::clone(&output.targets[0]);
        Self::new(Arc::from(output.rules.name()), primary, Some(OutputState::new(output)), seed, backlog)
    }

    fn new(
        name: Arc<str>,
        target: Arc<Target>,
        output: Option<OutputState>,
        seed: u64,
        backlog: Arc<AtomicUsize>,
    ) -> Self {
        let literal = target.address.host.parse().ok();
        Self {
            name,
            output,
            backlog,
            queue: TargetQueue::new(target.limits.clone(), seed),
            target,
            idle: Vec::new(),
            batching: None,
            parcels: HashMap::new(),
            waiting_for_bytes: HashMap::new(),
            attempt_bytes: 0,
            addresses_until_ms: if literal.is_some() { u64::MAX } else { 0 },
            addresses: literal.into_iter().collect(),
            resolving: false,
            is_paused: false,
            excerpt: Vec::new(),
            last_failure: None,
            turn: 0,
        }
    }

    /// Takes a changed configuration; all limits but `queue_max` count at once.
    pub fn handle_target(&mut self, target: Arc<Target>) {
        self.queue.handle_limits(target.limits.clone());
        self.move_to(target);
    }

    /// Deliveries go there from now on.
    fn move_to(&mut self, target: Arc<Target>) {
        let moved = target.address != self.target.address;
        self.target = target;
        let literal: Option<IpAddr> = self.target.address.host.parse().ok();
        // A name is resolved anew: another policy may hold for its addresses.
        self.addresses_until_ms = if literal.is_some() { u64::MAX } else { 0 };
        if moved {
            self.addresses = literal.into_iter().collect();
        }
    }

    /// Takes a changed configuration of an output; which of its targets is in use is known here only.
    pub fn handle_output(&mut self, output: Arc<Output>) {
        let state = self.output.get_or_insert_with(|| OutputState::new(Arc::clone(&output)));
        self.queue.handle_limits(output.targets[0].limits.clone());
        state.handle_settings(output);
        let target = Arc::clone(state.target());
        self.move_to(target);
    }

    /// Takes in what an attempt said of the target that it was made with.
    pub fn handle_outcome(&mut self, target: &Arc<Target>, outcome: &Outcome, steady_ms: u64) {
        if let (Some(output), Some(works)) = (&mut self.output, outcome.target_works()) {
            output.handle_health(target, works, steady_ms);
        }
    }

    /// An operator pauses or resumes it.
    pub fn handle_hold(&mut self, hold: Hold, steady_ms: u64) {
        self.is_paused = hold == Hold::Pause;
        match hold {
            Hold::Pause => self.queue.pause(steady_ms),
            Hold::Resume => self.queue.resume(steady_ms),
        }
    }

    /// The beginning of an answer, for the failure that its attempt ends with.
    pub fn handle_excerpt(&mut self, excerpt: Vec<u8>) {
        self.excerpt = excerpt;
    }

    /// An attempt did not deliver.
    pub fn handle_failure(&mut self, outcome: &Outcome, steady_ms: u64) {
        self.last_failure = Some(Failure::of(outcome, steady_ms, std::mem::take(&mut self.excerpt)));
    }

    /// The last attempt that did not deliver.
    pub fn last_failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref()
    }

    /// Goes over to another target of the output if it is time; what waits goes there at once.
    pub fn poll_switch(&mut self, steady_ms: u64) -> Option<Switch> {
        let output = self.output.as_mut()?;
        let switch = output.poll_switch(steady_ms)?;
        let target = Arc::clone(output.target());
        self.move_to(target);
        // It was the other target that was gone.
        if self.is_disabled() {
            self.queue.resume(steady_ms);
            if self.is_paused {
                self.queue.pause(steady_ms);
            }
        }
        self.queue.hasten(steady_ms);
        Some(switch)
    }

    /// Takes a delivery into the queue.
    pub fn handle_handoff(&mut self, handoff: Handoff, steady_ms: u64) -> Result<(), QueueFull> {
        let key = handoff.key.packed();
        let Handoff { attempt, order_key, bytes_len: bytes, .. } = handoff;
        let delivery = Delivery { key, attempt, bytes, order_key };
        if handoff.due_ms > steady_ms || handoff.attempt > 0 {
            self.queue.handle_restored(delivery, handoff.due_ms)?;
        } else {
            self.queue.handle_event(delivery, steady_ms)?;
        }
        let Handoff { target_index, replay, bytes, bytes_len, .. } = handoff;
        self.parcels.insert(key, Parcel { target_index, replay, bytes, bytes_len });
        Ok(())
    }

    /// The next delivery that may start, while attempts under way hold less than `bytes_max`.
    pub fn poll_turn(&mut self, steady_ms: u64, bytes_max: u64) -> Option<Turn> {
        if self.attempt_bytes >= bytes_max {
            return None;
        }
        let delivery = self.queue.poll_attempt(steady_ms)?;
        self.attempt_bytes += u64::from(delivery.bytes);
        let parcel = self.parcels.get(&delivery.key).expect("every queued delivery has its parcel");
        if let Some(bytes) = &parcel.bytes {
            return Some(Turn::Ready(delivery, Arc::clone(bytes)));
        }
        self.waiting_for_bytes.insert(delivery.key, delivery);
        Some(Turn::Fetch(EventKey::unpacked(delivery.key)))
    }

    /// How often an operator sent a delivery again.
    pub fn replay(&self, key: u64) -> u8 {
        self.parcels.get(&key).map_or(0, |parcel| parcel.replay)
    }

    /// Tells the other workers how much waits here.
    pub fn observe(&self) {
        self.backlog.store(self.queue.waiting(), Ordering::Relaxed);
    }

    /// An event that was fetched; its delivery starts now.
    pub fn handle_fetched(&mut self, key: EventKey) -> Option<Delivery> {
        self.waiting_for_bytes.remove(&key.packed())
    }

    /// When something may start that cannot now, Unix ms; an end of an attempt is told by itself.
    pub fn poll_timeout(&self, bytes_max: u64) -> Option<u64> {
        (self.attempt_bytes < bytes_max).then(|| self.queue.poll_timeout()).flatten()
    }

    /// When the delivery of an event that was accepted at `accepted_us` is given up, steady ms. What an operator sends
    /// again has no deadline.
    pub fn deadline_ms(&self, key: u64, accepted_us: u64, clock: Clock) -> Option<u64> {
        let deadline_ms = self.target.deadline_ms.filter(|_| accepted_us > 0 && self.replay(key) == 0)?;
        Some(clock.steady_ms + (accepted_us / 1_000 + deadline_ms).saturating_sub(clock.wall_ms))
    }

    /// Ends an attempt, and the delivery's stay here; returns its target index.
    pub fn remove_parcel(&mut self, key: u64) -> u8 {
        let parcel = self.parcels.remove(&key).expect("every queued delivery has its parcel");
        self.attempt_bytes -= u64::from(parcel.bytes_len);
        parcel.target_index
    }

    /// Ends the stay of a delivery whose event its origin has ended: there is nobody to tell.
    pub fn forget(&mut self, key: u64, steady_ms: u64) {
        let next = self.queue.handle_outcome(key, &Outcome::TargetRemoved, steady_ms);
        assert!(matches!(next, Next::Dead { .. }), "it is not tried again");
        self.remove_parcel(key);
    }

    /// Ends every delivery's stay here, waiting or under way: keys and target indexes.
    pub fn into_parcels(self) -> Vec<(u64, u8)> {
        self.parcels.into_iter().map(|(key, parcel)| (key, parcel.target_index)).collect()
    }

    /// Ends an attempt; the delivery waits again: its bytes are fetched anew when its turn comes.
    pub fn put_off(&mut self, key: u64) -> u8 {
        let parcel = self.parcels.get_mut(&key).expect("every queued delivery has its parcel");
        parcel.bytes = None;
        self.attempt_bytes -= u64::from(parcel.bytes_len);
        parcel.target_index
    }

    /// Where to dial now.
    pub fn poll_place(&mut self, steady_ms: u64) -> Place {
        if steady_ms < self.addresses_until_ms && !self.addresses.is_empty() {
            self.turn += 1;
            let address = self.addresses[self.turn % self.addresses.len()];
            return Place::At(SocketAddr::new(address, self.target.address.port));
        }
        if self.resolving {
            return Place::Asked;
        }
        self.resolving = true;
        Place::Ask
    }

    /// The resolver's answer.
    pub fn handle_resolved(&mut self, addresses: Vec<IpAddr>, steady_ms: u64) {
        self.resolving = false;
        self.addresses = addresses;
        self.addresses_until_ms = steady_ms + RESOLVED_MS;
    }

    /// The resolver had no answer.
    pub fn handle_unresolved(&mut self) {
        self.resolving = false;
        self.addresses.clear();
    }

    /// Whether deliveries wait for others to go with.
    pub fn is_batching(&self) -> bool {
        self.batching.as_ref().is_some_and(|batching| !batching.is_empty())
    }

    /// Whether a 410 disabled it.
    pub fn is_disabled(&self) -> bool {
        matches!(self.queue.state(), TargetState::Disabled { .. })
    }
}
