//! An egress: takes events off its links, journals them, acknowledges what is durable, and hands it out.
//!
//! The core's receiver and writer do the work; the glue between them is that of the node, in small.
//! Attempts are made in `deliveries`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use zen_core::crypto::Mac;
use zen_core::dedupe::{EventKey, KeyHasher, Limits, Restore, Shard, Verdict as Arrived, Waiter};
use zen_core::deliver::{DeliveryState, EventBytes, Live, Table};
use zen_core::event::{EVENT_BYTES_MAX, Event};
use zen_core::id::EventId;
use zen_core::journal::{Kind, Sequence};
use zen_core::link::{
    Frame, HANDSHAKE_TIMEOUT_MS, Hello, LinkError, Receiver, ReceiverConfig, ReceiverEvent,
};
use zen_core::record::{Ending, HeldEvent, OutcomeRecord, RetryRecord, StreamId, encode_checkpoint};

use crate::checker::number;
use crate::context::{Clock, Context, Crash, DiskStep, Life, NodeId, Step};
use crate::crypto::{Key, Portable};
use crate::deliveries::{Deliveries, Found, Verdict, find};
use crate::disk::Disk;
use crate::journal::Journal;
use crate::link::{Link, Machine, Slot, ingester_dials, link_secret};
use crate::network::{ConnectionId, Side};
use crate::plan::KnownBy;

/// Segments of an egress's journal.
const SEGMENTS_MAX: u32 = 16;
/// Events granted to a link.
const CREDIT_EVENTS: u32 = 16;
/// Bytes granted to a link.
const CREDIT_BYTES: u64 = 2 * EVENT_BYTES_MAX as u64;
/// Notes that may wait for room in the journal.
const NOTES_MAX: usize = 10_000;
/// How long an event's id is remembered, ms.
const EVENT_WINDOW_MS: u64 = 24 * 3_600_000;
/// Records carried forward in one tick.
const CARRIED_MAX: usize = 16;

#[derive(Debug)]
struct Incoming {
    link: ConnectionId,
    stream: StreamId,
    link_sequence: u64,
    head: Vec<u8>,
    event: EventBytes,
}

/// An outcome or retry, stamped when it was made.
#[derive(Debug)]
struct Note {
    kind: Kind,
    wall_ms: u64,
    payload: Vec<u8>,
}

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
    index: usize,
    life: Life,
    journal: Journal,
    table: Table,
    hasher: KeyHasher,
    keys: Shard,
    marks: BTreeMap<StreamId, u64>,
    backlog: VecDeque<Incoming>,
    arrivals: VecDeque<Arrival>,
    notes: VecDeque<Note>,
    carried: VecDeque<(Sequence, Sequence)>,
    checkpoint: Option<Sequence>,
    checkpoint_segment: u64,
    links: BTreeMap<ConnectionId, Link>,
    slots: Vec<(usize, Slot)>,
    deliveries: Deliveries,
    woken: bool,
}

impl Egress {
    /// Starts on what a disk holds.
    pub fn start(context: &mut Context, index: usize, life: Life, disk: Disk) -> Self {
        let node = context.plan.egress(index);
        let mut table = Table::default();
        let hasher = KeyHasher::new([0xee; 16]);
        let clock = context.clock(node);
        let mut restore = Restore::new(&limits(context), clock.wall_ms).expect("in range");
        let journal = Journal::open(context, (node, life), disk, SEGMENTS_MAX, &mut |record| {
            table
                .handle_recovered(record, |due_ms, noted_ms| clock.steady_of(due_ms, noted_ms))
                .expect("an egress encodes its records");
            if record.kind == Kind::Event {
                let held = held(record.payload);
                restore.handle_entry(key(&hasher, held.event).0, key(&hasher, held.event).1, record.time_ms);
            }
        });
        let dialled =
            (0..context.plan.ingester_workers()).filter(|ingester| !ingester_dials(*ingester, index));
        let mut egress = Self {
            node,
            index,
            life,
            journal,
            marks: table.streams().clone(),
            // A full journal has no place for another checkpoint, and must be trimmed first.
            checkpoint: table.checkpoint(),
            table,
            hasher,
            keys: restore.finish(),
            backlog: VecDeque::new(),
            arrivals: VecDeque::new(),
            notes: VecDeque::new(),
            carried: VecDeque::new(),
            checkpoint_segment: 0,
            links: BTreeMap::new(),
            slots: dialled.map(|ingester| (ingester, Slot::default())).collect(),
            deliveries: Deliveries::new(context, node, index, life),
            woken: false,
        };
        let handles: Vec<u64> = egress.table.handles().map(|(_, handle)| handle).collect();
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

    /// Whether nothing is left but dead letters.
    pub fn is_idle(&self) -> bool {
        let is_open = |live: &Live| {
            live.targets.iter().any(|target| matches!(target.state, DeliveryState::Open { .. }))
        };
        !self.table.handles().any(|(_, handle)| self.table.live(handle).is_some_and(is_open))
    }

    /// Its dead letters as its journal has them: target and event.
    pub fn dead_letters(&self) -> Vec<(usize, EventId)> {
        let mut letters = Vec::new();
        for live in self.table.handles().filter_map(|(_, handle)| self.table.live(handle)) {
            let (records, _) = self.journal.read_from(live.record);
            let Some(found) = records.first().filter(|found| found.sequence == live.record) else { continue };
            let (_, id) = key(&self.hasher, held(&found.payload).event);
            let dead = live.targets.iter().filter(|target| target.state == DeliveryState::Dead);
            letters.extend(dead.map(|target| (number(&target.name), id)));
        }
        letters
    }

    /// Lets it work soon, once.
    pub fn wake(&mut self, context: &mut Context) {
        if !core::mem::replace(&mut self.woken, true) {
            let delay_ms = context.prng.between(0, 1);
            context.schedule(delay_ms, Step::Wake { node: self.node, life: self.life });
        }
    }

    /// A disk operation ended.
    pub fn handle_disk(&mut self, context: &mut Context, step: DiskStep) {
        self.journal.handle_disk(context, step);
        self.wake(context);
    }

    /// Bytes of a link.
    pub fn handle_bytes(&mut self, context: &mut Context, connection: ConnectionId, to: Side, bytes: &[u8]) {
        let clock = context.clock(self.node);
        if to == Side::Acceptor {
            let link = || Link::new(to, Machine::AwaitHello, clock.steady_ms, Vec::new());
            self.links.entry(connection).or_insert_with(link);
        }
        let Some(mut link) = self.links.remove(&connection) else { return context.reset(connection) };
        let taken = link.reader.handle_bytes(bytes);
        assert_eq!(taken, bytes.len(), "frames are polled after each piece");
        let result = self.handle_frames(context, connection, &mut link, clock);
        if let Err(error) = &result {
            error.write_refuse(&mut link.out);
        }
        link.flush(context, connection);
        self.links.insert(connection, link);
        if let Err(error) = result {
            self.close(context, connection, &error);
        }
        self.wake(context);
    }

    /// A link broke.
    pub fn handle_lost(&mut self, context: &mut Context, connection: ConnectionId) {
        self.forget(connection);
        self.slots.iter_mut().for_each(|(_, slot)| slot.handle_lost(context, connection));
    }

    /// Deadlines of links, and dialling.
    pub fn handle_clock(&mut self, context: &mut Context) {
        let clock = context.clock(self.node);
        let mut failed = Vec::new();
        for (connection, link) in &mut self.links {
            let result = match &mut link.machine {
                Machine::Receiving { receiver, .. } => {
                    receiver.handle_timeout(clock.steady_ms, &mut link.out)
                }
                _ if clock.steady_ms.saturating_sub(link.since_ms) > HANDSHAKE_TIMEOUT_MS => {
                    Err(LinkError::HandshakeTimeout)
                }
                _ => Ok(()),
            };
            link.flush(context, *connection);
            failed.extend(result.err().map(|error| (*connection, error)));
        }
        for (connection, error) in failed {
            self.close(context, connection, &error);
        }
        self.dial(context, clock.steady_ms);
        self.wake(context);
    }

    /// One tick: verdicts, commit, acknowledge, deliver, trim.
    pub fn work(&mut self, context: &mut Context) -> Result<(), Crash> {
        self.woken = false;
        context.step(self.node)?;
        self.take_verdicts(context);
        self.append_all(context);
        context.step(self.node)?;
        self.journal.commit(context);
        context.step(self.node)?;
        self.handle_durable(context);
        context.step(self.node)?;
        self.acknowledge(context)?;
        self.deliveries.start(context, &self.journal, &self.table)?;
        self.carry(context);
        context.step(self.node)?;
        self.trim(context);
        context.checker.check_bound("notes", self.notes.len(), NOTES_MAX);
        let granted = CREDIT_EVENTS as usize * self.links.len();
        context.checker.check_bound("backlog", self.backlog.len(), granted);
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
                    self.table.retry(handle, target, attempt, due_ms);
                    self.table.uncache(handle);
                    let clock = context.clock(self.node);
                    let due_ms = clock.unix_of(due_ms);
                    let note = RetryRecord { handle, target, attempt, due_ms };
                    self.note(clock, Kind::Retry, note.encode().to_vec());
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
        self.table.end(handle, target, ending);
        let note = OutcomeRecord { handle, target, ending };
        self.note(context.clock(self.node), Kind::Outcome, note.encode().to_vec());
    }

    fn note(&mut self, clock: Clock, kind: Kind, payload: Vec<u8>) {
        self.notes.push_back(Note { kind, wall_ms: clock.wall_ms, payload });
    }

    fn append_all(&mut self, context: &mut Context) {
        let now_ms = context.clock(self.node).wall_ms;
        self.checkpoint_if_new_segment(now_ms);
        while let Some(note) = self.notes.front() {
            if self.journal.append(note.kind, note.wall_ms, &[&note.payload]).is_err() {
                return;
            }
            self.notes.pop_front();
        }
        while self.journal.has_reserve() {
            let Some(incoming) = self.backlog.pop_front() else { return };
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
                Arrived::TooManyPending => return self.backlog.push_front(incoming),
            }
            let parts = [&incoming.head[..], &incoming.event];
            let Ok(record) = self.journal.append(Kind::Event, now_ms, &parts) else {
                self.keys.handle_failed(key, Waiter(0), &mut Vec::new());
                return self.backlog.push_front(incoming);
            };
            let held = HeldEvent { event: &incoming.event, ..held(&incoming.head) };
            let is_cached = self.table.cached_bytes() + incoming.event.len() <= context.plan.cached_bytes_max;
            self.table.insert(record, &held, is_cached.then(|| Arc::clone(&incoming.event)));
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
            let mark = self.marks.entry(arrival.stream).or_default();
            *mark = (*mark).max(arrival.link_sequence);
            if let Some(Machine::Receiving { durable, owed, .. }) =
                self.links.get_mut(&arrival.link).map(|link| &mut link.machine)
            {
                *durable = (*durable).max(arrival.link_sequence);
                *owed = (owed.0 + arrival.bytes, owed.1 + 1);
            }
            if let Some((key, id)) = arrival.taken {
                self.keys.handle_durable(key, id, context.clock(self.node).wall_ms, &mut Vec::new());
                self.hand_out(context, arrival.record.0);
            }
        }
    }

    fn acknowledge(&mut self, context: &mut Context) -> Result<(), Crash> {
        let has_reserve = self.journal.has_reserve();
        for (connection, link) in &mut self.links {
            let Machine::Receiving { receiver, durable, owed, .. } = &mut link.machine else { continue };
            if !receiver.is_open() {
                continue;
            }
            if has_reserve && owed.1 > 0 {
                receiver.grant(owed.0, owed.1);
                *owed = (0, 0);
            }
            receiver.ack(*durable, &mut link.out);
            link.flush(context, *connection);
            context.step(self.node)?;
        }
        Ok(())
    }

    fn hand_out(&mut self, context: &mut Context, handle: u64) {
        let Some(live) = self.table.live(handle) else { return };
        for target in &live.targets {
            if let DeliveryState::Open { attempt, due_ms } = target.state {
                self.deliveries.handle_delivery(context, number(&target.name), handle, attempt, due_ms);
            }
        }
    }

    /// Carries the oldest live records forward when they keep much of the journal from reuse.
    fn carry(&mut self, context: &mut Context) {
        let Some(oldest) = self.table.oldest() else { return };
        let is_worth_it = self.table.wants_carrying(self.journal.bytes_live(), self.journal.bytes_max());
        if !is_worth_it || self.journal.is_current(oldest) {
            return;
        }
        let handles: Vec<(Sequence, u64)> = self.table.handles().take(CARRIED_MAX).collect();
        for (record, handle) in handles {
            if self.journal.is_current(record) {
                return;
            }
            match find(&self.journal, &self.table, handle) {
                Found::Event(event) if self.carry_one(context, handle, record, &event) => {}
                Found::Damaged => self.give_up(context, handle, record),
                Found::Event(_) | Found::Later | Found::Ended => return,
            }
        }
    }

    fn carry_one(&mut self, context: &mut Context, handle: u64, original: Sequence, event: &[u8]) -> bool {
        let mut head = Vec::new();
        let clock = context.clock(self.node);
        self.table.encode_carried(handle, &mut head);
        let notes = self.table.carried_notes(handle, |due_ms| clock.unix_of(due_ms));
        let appended = self.journal.append(Kind::Event, clock.wall_ms, &[&head, event]);
        let Ok(record) = appended else { return false };
        context.note(format_args!("egress {} carries record {original} forward to {record}", self.index));
        self.carried.push_back((record, original));
        self.table.insert(record, &HeldEvent { event, ..held(&head) }, None);
        for note in notes {
            self.note(clock, note.kind(), note.encode().to_vec());
        }
        true
    }

    /// A damaged record would keep the journal from reuse for good: what is left of its event ends.
    fn give_up(&mut self, context: &mut Context, handle: u64, record: Sequence) {
        context.note(format_args!("egress {} gives up record {record}, which is damaged", self.index));
        context.checker.handle_lost(self.node, record);
        let clock = context.clock(self.node);
        for outcome in self.table.give_up(handle) {
            self.note(clock, Kind::Outcome, outcome.encode().to_vec());
        }
    }

    /// Each segment gets a checkpoint of the streams, so that older ones may go.
    fn checkpoint_if_new_segment(&mut self, now_ms: u64) {
        let segment = self.journal.current_segment();
        if segment == self.checkpoint_segment {
            return;
        }
        let streams: Vec<(StreamId, u64)> =
            self.table.streams().iter().map(|(stream, sequence)| (*stream, *sequence)).collect();
        let mut payload = Vec::new();
        encode_checkpoint(&mut payload, &streams);
        if let Ok(record) = self.journal.append(Kind::Checkpoint, now_ms, &[&payload]) {
            self.checkpoint = Some(record);
            self.checkpoint_segment = segment;
        }
    }

    fn trim(&mut self, context: &mut Context) {
        let durable = self.journal.durable();
        let Some(checkpoint) = self.checkpoint.filter(|record| *record <= durable) else { return };
        let mut needed = self.table.oldest().map_or(checkpoint, |oldest| oldest.min(checkpoint));
        while self.carried.pop_front_if(|(copy, _)| *copy <= durable).is_some() {}
        if let Some((_, original)) = self.carried.front() {
            needed = needed.min(*original);
        }
        self.journal.trim(context, Sequence(needed.0.saturating_sub(1)));
    }

    fn dial(&mut self, context: &mut Context, steady_ms: u64) {
        for (ingester, slot) in &mut self.slots {
            if !slot.is_due(context.now_ms) {
                continue;
            }
            let connection = context.dial(self.node, NodeId(*ingester));
            slot.connection = Some(connection);
            let mut out = Vec::new();
            let worker = (*ingester % context.plan.workers) as u16;
            let config =
                receiver_config(context, context.plan.process(NodeId(*ingester)), worker, self.index);
            let receiver = Box::new(Receiver::dial(config, steady_ms, &mut out));
            let machine = Machine::Receiving { receiver, stream: None, durable: 0, owed: (0, 0) };
            let mut link = Link::new(Side::Dialer, machine, steady_ms, out);
            link.flush(context, connection);
            self.links.insert(connection, link);
        }
    }

    fn handle_frames(
        &mut self,
        context: &mut Context,
        connection: ConnectionId,
        link: &mut Link,
        clock: Clock,
    ) -> Result<(), LinkError> {
        while let Some(frame) = link.reader.poll_frame()? {
            match (&mut link.machine, frame) {
                (Machine::Receiving { receiver, stream, durable, .. }, frame) => {
                    match receiver.handle_frame(frame, clock.steady_ms, &mut link.out)? {
                        ReceiverEvent::None | ReceiverEvent::Goodbye(_) => {}
                        ReceiverEvent::PeerHello(hello) => {
                            *stream = Some(hello.journal_id);
                            *durable = self.marks.get(&hello.journal_id).copied().unwrap_or(0);
                            receiver.start(*durable, &mut link.out);
                        }
                        ReceiverEvent::Batch(batch) => {
                            let mut checked = Vec::with_capacity(batch.count());
                            receiver.open_batch(&Portable, &batch, clock.wall_ms, &mut checked)?;
                            let stream = stream.expect("batches come after the start");
                            for incoming in &checked {
                                let mut head = Vec::new();
                                let targets: Vec<&str> = incoming.targets.iter().collect();
                                HeldEvent::encode_head(
                                    &mut head,
                                    &stream,
                                    incoming.sequence,
                                    0,
                                    targets.into_iter(),
                                );
                                let (link_sequence, event) = (incoming.sequence, incoming.encoded.into());
                                let incoming =
                                    Incoming { link: connection, stream, link_sequence, head, event };
                                self.backlog.push_back(incoming);
                            }
                        }
                    }
                }
                (_, Frame::Hello(hello)) => {
                    link.machine = self.begin_receiving(context, &hello, clock.steady_ms, &mut link.out)?;
                }
                (_, frame) => return Err(LinkError::Unexpected(frame.frame_type())),
            }
        }
        Ok(())
    }

    fn begin_receiving(
        &self,
        context: &mut Context,
        hello: &Hello,
        steady_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Machine, LinkError> {
        let config = receiver_config(context, number(&hello.node), hello.stream, self.index);
        let mut receiver = Box::new(Receiver::accept(config, hello, steady_ms, out)?);
        let durable = self.marks.get(&hello.journal_id).copied().unwrap_or(0);
        receiver.start(durable, out);
        Ok(Machine::Receiving { receiver, stream: Some(hello.journal_id), durable, owed: (0, 0) })
    }

    /// What a link brought and the journal has not taken goes with it: the next link brings it again, on new credit.
    fn forget(&mut self, connection: ConnectionId) -> Option<Link> {
        self.backlog.retain(|incoming| incoming.link != connection);
        self.links.remove(&connection)
    }

    fn close(&mut self, context: &mut Context, connection: ConnectionId, error: &LinkError) {
        context.note(format_args!("egress {} closes {connection:?}: {error}", self.index));
        context.checker.handle_link_closed(self.node, error);
        if let Some(link) = self.forget(connection) {
            context.close(connection, link.side);
        }
        self.slots.iter_mut().for_each(|(_, slot)| slot.handle_lost(context, connection));
    }
}

fn receiver_config(
    context: &mut Context,
    ingester: usize,
    stream: u16,
    egress: usize,
) -> ReceiverConfig<Key> {
    ReceiverConfig {
        node: format!("egress-{egress}"),
        ingester: format!("ingester-{ingester}"),
        stream,
        keys: vec![("link-1".to_owned(), Portable.prepare(&link_secret(ingester, egress)))],
        session: context.prng.bytes(),
        credit_bytes: CREDIT_BYTES,
        credit_events: CREDIT_EVENTS,
    }
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

/// A record, or the head of one, that was encoded here.
fn held(head: &[u8]) -> HeldEvent<'_> {
    HeldEvent::decode(head).expect("encoded by this egress")
}
