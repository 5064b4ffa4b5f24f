//! An egress: takes events off its links, journals them, acknowledges what is durable, and hands it out.
//!
//! The core's receiver and writer do the work; the glue between them is that of the node, in small.
//! Attempts are made in `deliveries`.

use std::collections::VecDeque;
use std::sync::Arc;

use zen_core::dedupe::{EventKey, KeyHasher, Limits, Restore, Shard, Verdict as Arrived, Waiter};
use zen_core::deliver::{Delivery, DeliveryState, LetterKey, Live, Table};
use zen_core::event::Event;
use zen_core::id::EventId;
use zen_core::journal::{Kind, Record, Sequence};
use zen_core::record::{Ending, HeldEvent, OutcomeRecord, RetryRecord, StreamId};

use crate::checker::number;
use crate::context::{Context, Crash, DiskStep, Life, NodeId};
use crate::deliveries::{Deliveries, Found, Verdict, find};
use crate::disk::Disk;
use crate::journal::Journal;
use crate::link::{Links, ingester_dials};
use crate::network::{ConnectionId, Side};
use crate::notes::Notes;
use crate::plan::{KnownBy, Planted};
use crate::receiving::{CREDIT_EVENTS, Incoming, Receiving};
use crate::retention::Retention;
use crate::treatment::Treatment;
use crate::waker::Waker;

/// Segments of an egress's journal.
const SEGMENTS_MAX: u32 = 16;
/// How long an event's id is remembered, ms.
const EVENT_WINDOW_MS: u64 = 24 * 3_600_000;
#[derive(Debug)]
struct Arrival {
    record: Sequence,
    link: ConnectionId,
    stream: StreamId,
    link_sequence: u64,
    bytes: u64,
    /// The event's key; none when it was in the journal already.
    taken: Option<(EventKey, EventId)>,
}

/// A running egress.
#[derive(Debug)]
pub struct Egress {
    node: NodeId,
    journal: Journal,
    table: Table,
    hasher: KeyHasher,
    keys: Shard,
    arrivals: VecDeque<Arrival>,
    notes: Notes,
    retention: Retention,
    links: Links<Receiving>,
    deliveries: Deliveries,
    waker: Waker,
}

impl Egress {
    /// Starts on what a disk holds.
    pub fn start(context: &mut Context, index: usize, life: Life, disk: Disk) -> Self {
        let node = context.plan.egress(index);
        let mut table = Table::default();
        let hasher = KeyHasher::new([0xee; 16]);
        let clock = context.clock(node);
        let mut restore = Restore::new(&limits(context), clock.wall_ms).expect("in range");
        let treatments = context.plan.treatments.clone();
        let is_forgetful = context.plan.planted == Some(Planted::DiscardForgotten);
        let journal = Journal::open(context, (node, life), disk, SEGMENTS_MAX, &mut |record| {
            if is_forgetful && is_discard(record) {
                return;
            }
            table
                .handle_recovered(record, |due_ms, noted_ms| clock.steady_of(due_ms, noted_ms))
                .expect("an egress encodes its records");
            if record.kind == Kind::Event {
                let held = held(record.payload);
                restore.handle_entry(key(&hasher, held.event).0, key(&hasher, held.event).1, record.time_ms);
                let handle = if held.handle == 0 { record.sequence.0 } else { held.handle };
                give_keys(&mut table, &treatments, handle, held.event);
            }
        });
        let dialled =
            (0..context.plan.ingester_workers()).filter(|ingester| !ingester_dials(*ingester, index));
        let receiving = Receiving::new(node, index, table.streams().clone());
        let mut egress = Self {
            node,
            journal,
            retention: Retention::new(node, index, table.checkpoint()),
            table,
            hasher,
            keys: restore.finish(),
            arrivals: VecDeque::new(),
            notes: Notes::default(),
            links: Links::new(node, format!("egress {index}"), receiving, dialled.map(NodeId)),
            deliveries: Deliveries::new(context, node, index, life),
            waker: Waker::new(node, life),
        };
        let mut handles = egress.table.arrivals();
        if context.plan.planted == Some(Planted::OrderNotRestored) {
            handles.reverse();
        }
        for handle in handles {
            egress.hand_out(context, handle);
        }
        egress
    }

    /// Ends; what it leaves is its disk.
    pub fn stop(self, context: &mut Context) -> Disk {
        self.journal.into_disk(context)
    }

    /// The journal, for faults.
    pub fn journal_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// The deliveries, for outcomes and operators.
    pub fn deliveries_mut(&mut self) -> &mut Deliveries {
        &mut self.deliveries
    }

    /// Whether nothing is left but dead letters, and deliveries of damaged records, which are tried as long
    /// as their schedule says.
    pub fn is_idle(&self) -> bool {
        let is_open = |live: &Live| {
            live.targets.iter().any(|target| matches!(target.state, DeliveryState::Open { .. }))
        };
        let open = self.table.handles().filter(|(_, handle)| self.table.live(*handle).is_some_and(is_open));
        open.map(|(_, handle)| find(&self.journal, &self.table, handle))
            .all(|found| matches!(found, Found::Damaged))
    }

    /// Its dead letters as its journal has them: target and event.
    pub fn dead_letters(&self) -> Vec<(usize, EventId)> {
        let mut letters = Vec::new();
        for live in self.table.handles().filter_map(|(_, handle)| self.table.live(handle)) {
            let Some(found) = self.journal.read(live.record) else { continue };
            let (_, id) = key(&self.hasher, held(&found.payload).event);
            let dead = live.targets.iter().filter(|target| matches!(target.state, DeliveryState::Dead(_)));
            letters.extend(dead.map(|target| (number(&target.name), id)));
        }
        letters
    }

    /// An operator looks at the dead letters: some are sent again, some thrown away, the others stay.
    pub fn handle_operator(&mut self, context: &mut Context) {
        for LetterKey { handle, target, .. } in self.table.letters(None).collect::<Vec<_>>() {
            match context.prng.below(3) {
                0 => self.replay(context, handle, target),
                1 => self.discard(context, handle, target),
                _ => {}
            }
        }
        self.wake(context);
    }

    fn replay(&mut self, context: &mut Context, handle: u64, target: u8) {
        let clock = context.clock(self.node);
        let replay = self.table.replay(handle, target, clock.steady_ms).expect("it is a dead letter");
        let due_ms = clock.unix_of(clock.steady_ms);
        let note = RetryRecord { handle, target, replay, attempt: 0, due_ms };
        self.notes.push(clock, Kind::Retry, &note.encode());
        let number = self.number(handle, target);
        context.checker.handle_sent_again(self.node, number, handle);
        if context.plan.planted != Some(Planted::LetterNotSent) {
            let order_key =
                self.table.live(handle).map_or(0, |live| live.targets[usize::from(target)].order_key);
            let delivery = Delivery { key: handle, attempt: 0, bytes: 1, order_key };
            self.deliveries.handle_delivery(context, number, delivery, clock.steady_ms);
        }
    }

    fn discard(&mut self, context: &mut Context, handle: u64, target: u8) {
        context.checker.handle_dropped(self.node, self.number(handle, target), handle);
        self.end(context, handle, target, Ending::Discarded);
    }

    /// The target at a place of an event's list.
    fn number(&self, handle: u64, target: u8) -> usize {
        let live = self.table.live(handle).expect("a dead letter is live");
        number(&live.targets[usize::from(target)].name)
    }

    /// Lets it work soon, once.
    pub fn wake(&mut self, context: &mut Context) {
        self.waker.wake(context);
    }

    /// A disk operation ended.
    pub fn handle_disk(&mut self, context: &mut Context, step: DiskStep) {
        self.journal.handle_disk(context, step);
        self.wake(context);
    }

    /// Bytes of a link.
    pub fn handle_bytes(&mut self, context: &mut Context, connection: ConnectionId, to: Side, bytes: &[u8]) {
        if self.links.handle_bytes(context, connection, to, bytes).is_ok() {
            self.wake(context);
        }
    }

    /// A link broke.
    pub fn handle_lost(&mut self, context: &mut Context, connection: ConnectionId) {
        self.links.handle_lost(context, connection);
    }

    /// Deadlines of links, and dialling.
    pub fn handle_clock(&mut self, context: &mut Context) {
        self.links.handle_clock(context);
        self.wake(context);
    }

    /// One tick: verdicts, commit, acknowledge, deliver, trim.
    pub fn work(&mut self, context: &mut Context) -> Result<(), Crash> {
        self.waker.handle_work();
        context.step(self.node)?;
        self.take_verdicts(context);
        self.append_all(context);
        context.step(self.node)?;
        self.journal.commit(context);
        context.step(self.node)?;
        self.handle_durable(context);
        context.step(self.node)?;
        self.links.acknowledge(context, self.journal.has_reserve())?;
        self.deliveries.start(context, &self.journal, &self.table)?;
        self.retention.carry(context, &mut self.journal, &mut self.table, &mut self.notes);
        context.step(self.node)?;
        self.retention.trim(context, &mut self.journal, &self.table);
        self.notes.check_bound(context);
        let granted = CREDIT_EVENTS as usize * self.links.open.len();
        context.checker.check_bound("backlog", self.links.role.backlog.len(), granted);
        context.step(self.node)
    }

    fn take_verdicts(&mut self, context: &mut Context) {
        while let Some((target, handle, verdict)) = self.deliveries.poll_verdict() {
            let Some(live) = self.table.live(handle) else { continue };
            let name = format!("target-{target}");
            let place = live.targets.iter().position(|target| *target.name == *name);
            let target = place.expect("a verdict is about an open delivery") as u8;
            match verdict {
                Verdict::Delivered => self.end(context, handle, target, Ending::Delivered),
                Verdict::Retry { attempt, due_ms } => {
                    let replay = self.table.retry(handle, target, attempt, due_ms);
                    self.table.uncache(handle);
                    let clock = context.clock(self.node);
                    let due_ms = clock.unix_of(due_ms);
                    let note = RetryRecord { handle, target, replay, attempt, due_ms };
                    self.notes.push(clock, Kind::Retry, &note.encode());
                }
                Verdict::Dead => {
                    self.end(context, handle, target, Ending::Dead);
                    self.table.uncache(handle);
                    self.drop_surplus(context);
                }
            }
        }
        debug_assert!(self.table.len() < context.plan.events * 1_000);
    }

    fn drop_surplus(&mut self, context: &mut Context) {
        while let Some((handle, place)) = self.table.poll_surplus_dead(context.plan.dead_letters_max) {
            let live = self.table.live(handle).expect("dead letters are live");
            let target = number(&live.targets[usize::from(place)].name);
            context.checker.handle_dropped(self.node, target, handle);
            self.end(context, handle, place, Ending::Dropped);
        }
    }

    fn end(&mut self, context: &Context, handle: u64, target: u8, ending: Ending) {
        let (note, clock) = (OutcomeRecord::new(handle, target, ending), context.clock(self.node));
        let is_dead = ending == Ending::Dead;
        let wall_ms = if is_dead { self.table.dying_ms(clock.wall_ms) } else { clock.wall_ms };
        self.table.end(&note, wall_ms);
        self.notes.push_at(wall_ms, Kind::Outcome, &note.encode());
    }

    fn append_all(&mut self, context: &mut Context) {
        let now_ms = context.clock(self.node).wall_ms;
        self.retention.checkpoint_if_new_segment(context, &mut self.journal, &self.table);
        if self.notes.append_all(&mut self.journal).is_err() {
            return;
        }
        while self.journal.has_reserve() {
            let Some(incoming) = self.links.role.backlog.pop_front() else { return };
            let (key, id) = key(&self.hasher, &incoming.event);
            if self.is_known(context, &incoming) {
                self.arrivals.push_back(arrival(&incoming, self.journal.appended(), None));
                continue;
            }
            match self.keys.handle_arrival(key, now_ms, Waiter(0)) {
                Arrived::New => {}
                Arrived::Duplicate { .. } | Arrived::Pending | Arrived::TooManyWaiters => {
                    self.arrivals.push_back(arrival(&incoming, self.journal.appended(), None));
                    continue;
                }
                Arrived::TooManyPending => return self.links.role.backlog.push_front(incoming),
            }
            let parts = [&incoming.head[..], &incoming.event];
            let Ok(record) = self.journal.append(Kind::Event, now_ms, &parts) else {
                self.keys.handle_failed(key, Waiter(0), &mut Vec::new());
                return self.links.role.backlog.push_front(incoming);
            };
            let held = HeldEvent { event: &incoming.event, ..held(&incoming.head) };
            let is_cached = self.table.cached_bytes() + incoming.event.len() <= context.plan.cached_bytes_max;
            self.table.insert(record, &held, is_cached.then(|| Arc::clone(&incoming.event)));
            give_keys(&mut self.table, &context.plan.treatments, record.0, &incoming.event);
            self.arrivals.push_back(arrival(&incoming, record, Some((key, id))));
        }
    }

    /// Whether an earlier link brought the event, by its place in its stream.
    fn is_known(&self, context: &Context, incoming: &Incoming) -> bool {
        let mark = self.table.streams().get(&incoming.stream);
        context.plan.known_by == KnownBy::StreamAndEvent
            && mark.is_some_and(|mark| incoming.link_sequence <= *mark)
    }

    fn handle_durable(&mut self, context: &mut Context) {
        let durable = self.journal.durable();
        while let Some(arrival) = self.arrivals.pop_front_if(|arrival| arrival.record <= durable) {
            let Arrival { link, stream, link_sequence, bytes, .. } = arrival;
            self.links.handle_durable(link, stream, link_sequence, bytes);
            if let Some((key, id)) = arrival.taken {
                self.keys.handle_durable(key, id, context.clock(self.node).wall_ms, &mut Vec::new());
                self.hand_out(context, arrival.record.0);
            }
        }
    }

    fn hand_out(&mut self, context: &mut Context, handle: u64) {
        let Some(live) = self.table.live(handle) else { return };
        for target in &live.targets {
            if let DeliveryState::Open { attempt, due_ms } = target.state {
                let delivery = Delivery { key: handle, attempt, bytes: 1, order_key: target.order_key };
                self.deliveries.handle_delivery(context, number(&target.name), delivery, due_ms);
            }
        }
    }
}

/// Ordering keys of an event's deliveries, as the node makes them.
fn give_keys(table: &mut Table, treatments: &[Treatment], handle: u64, event: &[u8]) {
    let event = Event::decode(event).expect("what is journaled is an event");
    table.set_order_keys(handle, |target| {
        let order_by = treatments[number(target)].order_by.as_ref();
        order_by.and_then(|order_by| order_by.key(&event)).unwrap_or(0)
    });
}

/// Key and id of an event.
fn key(hasher: &KeyHasher, event: &[u8]) -> (EventKey, EventId) {
    let id = Event::decode(event).expect("links bring events in their encoding").id;
    (hasher.event_key(id), id)
}

fn arrival(incoming: &Incoming, record: Sequence, taken: Option<(EventKey, EventId)>) -> Arrival {
    let Incoming { link, stream, link_sequence, event, .. } = incoming;
    let bytes = event.len() as u64;
    Arrival { record, link: *link, stream: *stream, link_sequence: *link_sequence, bytes, taken }
}

fn limits(context: &Context) -> Limits {
    let events = context.plan.events as u32;
    Limits {
        keys_max: events.max(16),
        window_ms: EVENT_WINDOW_MS,
        pending_max: 2 * CREDIT_EVENTS,
        waiters_per_key_max: 0,
        waiters_max: 0,
    }
}

fn is_discard(record: &Record<'_>) -> bool {
    let outcome =
        (record.kind == Kind::Outcome).then(|| OutcomeRecord::decode(record.payload).ok()).flatten();
    outcome.is_some_and(|outcome| outcome.ending == Ending::Discarded)
}

/// A record, or the head of one, that was encoded here.
fn held(head: &[u8]) -> HeldEvent<'_> {
    HeldEvent::decode(head).expect("encoded by this egress")
}
