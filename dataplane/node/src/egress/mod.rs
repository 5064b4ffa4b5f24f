//! The egress's part of a worker: events from links into the journal, acknowledged when durable,
//! delivered by the worker that owns the target, and written off when every target is done.
//!
//! The worker whose journal holds an event is its origin; it keeps the table of live events and
//! writes what became of them. Deliveries travel to the owner of their target and verdicts come back.

mod channel;
mod condition;
mod connection;
mod deliveries;
mod evidence;
mod ordering;
mod orders;
mod output;
mod owner;
mod paused;
mod probe;
mod upkeep;
mod watermarks;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use condition::{Condition, EXCERPT_BYTES_MAX, Failure, TargetOrder};
pub use deliveries::{ATTEMPT_COPIES, CONNECTION_BYTES, Deliveries};
pub use evidence::{
    KNOWN_BYTES as RECEIPT_KNOWN_BYTES, Recovering as RecoveringReceipts,
    WAITING_BYTES as RECEIPT_WAITING_BYTES,
};
pub use ordering::recover as recover_order;
use orders::Orders;
pub use orders::{
    Answer, Chosen, Copy, Filter, LETTERS_PAGE_MAX, Letter, ORDERS_BYTES, Order, OrderRefused, Page, Tally,
    Work,
};
pub use owner::PARCEL_BYTES;
pub use paused::{Hold, Paused, PausedError};
pub use probe::PROBE_BYTES;
use upkeep::Found;
pub use watermarks::Watermarks;
use zen_core::dedupe::{IndexEntry, Verdict as CoreVerdict, Waiter};
use zen_core::deliver::{DeadReason, DeliveryState};
pub use zen_core::deliver::{LIVE_BYTES, Table};
use zen_core::event::Event;
use zen_core::id::EventId;
use zen_core::journal::{AppendError, Kind, Record, Sequence};
use zen_core::link::BATCH_EVENTS_MAX;
use zen_core::record::{Ending, HeldEvent, Note, OutcomeRecord, RetryRecord, StreamId};
use zen_uring::{AlignedBuffer, Reactor, SocketId};

use crate::clock::Clock;
use crate::config::{EgressSettings, Snapshot};
use crate::dedupe::Keys;
use crate::journal::{Cursor, Journal};
use crate::mesh::{EventBytes, EventKey, Handoff, Mesh, Message, Verdict};
use crate::metrics::WorkerMetrics;
use crate::receipts::Receipt;

/// At the egress nobody waits for a key, so its owner needs no name.
const ORIGIN: Waiter = Waiter(0);

/// An event that came over a link and was checked there.
#[derive(Debug)]
pub struct Incoming {
    /// The link.
    pub link: SocketId,
    /// Its stream.
    pub stream: StreamId,
    /// Its sequence there.
    pub link_sequence: u64,
    /// The event's id.
    pub id: EventId,
    /// Everything of the record before the event.
    pub head: Vec<u8>,
    /// The event.
    pub event: EventBytes,
}

/// What a link may tell its sender: durable up to here, and this much credit is free again.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledge {
    /// The link.
    pub link: SocketId,
    /// Sequence in its stream.
    pub durable: u64,
    /// Events made durable.
    pub events: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// The names of an event's targets with their lengths, bytes.
pub const TARGET_NAMES_BYTES_MAX: usize = 990;
/// A record's head with such names, at most; buffers grow by doubling.
const LONGEST_HEAD_BYTES: usize = 1024;
/// An event on its way from a link into the journal, beside its own bytes.
pub const INCOMING_BYTES: usize = 2 * (size_of::<Incoming>() + size_of::<Arrival>()) + LONGEST_HEAD_BYTES;
/// An outcome or retry on its way into the journal.
pub const NOTE_BYTES: usize = 2 * size_of::<DatedNote>();
/// Heads of events that are kept for reuse.
const SPARE_HEADS_MAX: usize = 2 * BATCH_EVENTS_MAX;
/// Longest of them, bytes; on its way into the journal each is counted.
const SPARE_HEAD_BYTES_MAX: usize = 1024;
/// Room for a head with few targets, bytes.
const HEAD_BYTES: usize = 128;

/// A note, stamped when it was made: what is due is told from then on, however long it waits for room.
struct DatedNote {
    wall_ms: u64,
    said: Said,
}

/// What a note says. Thousands may wait, so whether a receipt does is in the same word as which note it is.
enum Said {
    /// An outcome whose receipt waits for its record.
    Receipted(OutcomeRecord),
    /// All else.
    Note(Note),
}

const _: () = assert!(size_of::<Said>() == size_of::<Note>());

struct Arrival {
    record: Sequence,
    link: SocketId,
    stream: StreamId,
    link_sequence: u64,
    bytes: u64,
    id: EventId,
    is: Taken,
}

/// Whether an arrival brought a record, or its event was in the journal already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Now,
    Before,
}

struct Fetch {
    key: EventKey,
    target: Arc<str>,
    reply_to: u16,
}

/// What recovery found: the events that are not done, and in a table of all workers the ids of those taken.
pub struct Held {
    /// This worker's events.
    pub table: Table,
    /// Ids of events taken by any worker.
    pub ids: Arc<Keys>,
    /// Receipts of outcomes that have no line.
    pub receipts: Vec<Receipt>,
}

/// One worker's egress, origin side.
pub struct Egress {
    worker: u16,
    journal: Journal,
    table: Table,
    ids: Arc<Keys>,
    snapshot: Arc<Snapshot>,
    mesh: Mesh,
    watermarks: Arc<Watermarks>,
    marks: HashMap<StreamId, Arc<AtomicU64>>,
    backlog: VecDeque<Incoming>,
    arrivals: VecDeque<Arrival>,
    acknowledges: VecDeque<Acknowledge>,
    notes: VecDeque<DatedNote>,
    spare_heads: Vec<Vec<u8>>,
    fetches: VecDeque<Fetch>,
    cursor: Cursor,
    carried: VecDeque<(Sequence, Sequence)>,
    checkpoint: Option<Sequence>,
    checkpoint_segment: u64,
    orders: Orders,
    receipts: evidence::Waiting,
    clock: Clock,
    metrics: Arc<WorkerMetrics>,
}

impl Egress {
    /// Over a journal and table that were recovered; [`Egress::restore`] hands the deliveries out.
    pub fn new(
        worker: u16,
        journal: Journal,
        held: Held,
        snapshot: Arc<Snapshot>,
        mesh: Mesh,
        watermarks: Arc<Watermarks>,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        let Held { table, ids, receipts } = held;
        for (stream, sequence) in table.streams() {
            watermarks.of(*stream).fetch_max(*sequence, Ordering::AcqRel);
        }
        // A full journal has no room for a new checkpoint; the old one is what lets it be trimmed.
        let checkpoint = table.checkpoint();
        Self {
            worker,
            journal,
            table,
            ids,
            snapshot,
            mesh,
            watermarks,
            marks: HashMap::new(),
            backlog: VecDeque::new(),
            arrivals: VecDeque::new(),
            acknowledges: VecDeque::new(),
            notes: VecDeque::new(),
            spare_heads: Vec::new(),
            fetches: VecDeque::new(),
            cursor: Cursor::default(),
            carried: VecDeque::new(),
            checkpoint,
            checkpoint_segment: 0,
            orders: Orders::default(),
            receipts: evidence::Waiting::recovered(receipts),
            clock: Clock::now(),
            metrics,
        }
    }

    /// Hands out the deliveries that recovery found open, in the order of their arrival.
    pub fn restore(&mut self) {
        self.ids.finish();
        for handle in self.table.arrivals() {
            self.hand_out(handle);
        }
    }

    /// Takes a new configuration.
    pub fn handle_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// Sets the tick's clock.
    pub fn handle_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Takes an event off a link; it is acknowledged when it is durable.
    pub fn take(&mut self, incoming: Incoming) {
        self.backlog.push_back(incoming);
    }

    /// An empty buffer for an event's head.
    pub fn take_head(&mut self) -> Vec<u8> {
        self.spare_heads.pop().unwrap_or_else(|| Vec::with_capacity(HEAD_BYTES))
    }

    /// A link is gone: what was not taken off it yet comes again on the next one.
    pub fn handle_link_closed(&mut self, link: SocketId) {
        self.backlog.retain(|incoming| incoming.link != link);
    }

    /// A delivery of ours ended or was put off.
    pub fn handle_verdict(&mut self, key: EventKey, target_index: u8, verdict: &Verdict) {
        debug_assert_eq!(key.origin, self.worker);
        let handle = key.handle;
        self.orders.handle_verdict(handle, target_index);
        match *verdict {
            Verdict::Delivered { status, attempts } => {
                let delivered = OutcomeRecord::new(handle, target_index, Ending::Delivered);
                self.end(OutcomeRecord { status, attempts, ..delivered });
            }
            Verdict::Dead { reason, status, attempts } => {
                let (target, ending, reason) = (target_index, Ending::Dead, Some(reason));
                self.end(OutcomeRecord { handle, target, ending, reason, status, attempts });
                self.table.uncache(handle);
                while let Some((handle, target)) =
                    self.table.poll_surplus_dead(self.settings().dead_letters_max as usize)
                {
                    self.metrics.dead_letters_dropped.add(1);
                    self.end(OutcomeRecord::new(handle, target, Ending::Dropped));
                }
            }
            Verdict::Retry { attempt, due_ms } => {
                let replay = self.table.retry(handle, target_index, attempt, due_ms);
                self.table.uncache(handle);
                let due_ms = self.clock.unix_of(due_ms);
                self.note(Note::Retry(RetryRecord { handle, target: target_index, replay, attempt, due_ms }));
            }
        }
    }

    /// An owner needs an event that is not in memory any more.
    pub fn handle_fetch(&mut self, key: EventKey, target: Arc<str>, reply_to: u16) {
        self.fetches.push_back(Fetch { key, target, reply_to });
    }

    /// Takes a completed read of the journal.
    pub fn handle_read(&mut self, buffer: AlignedBuffer, result: Result<usize, std::io::Error>) {
        self.cursor.handle_read(buffer, result);
    }

    /// The tick's batch work: notes and events into the journal, one write, acknowledgements, trimming.
    pub fn commit(&mut self, reactor: &mut Reactor) {
        self.journal.handle_time(reactor, self.clock.steady_ms);
        self.work_on_orders(reactor);
        self.append_all();
        self.journal.commit(reactor, self.clock.wall_ms);
        self.append_all();
        self.journal.commit(reactor, self.clock.wall_ms);
        self.handle_durable();
        self.give_receipts();
        self.serve_fetches(reactor);
        self.settle_orders();
        self.carry(reactor);
        self.trim(reactor);
    }

    /// What a link may tell its sender.
    pub fn poll_acknowledge(&mut self) -> Option<Acknowledge> {
        self.acknowledges.pop_front()
    }

    /// Whether more events may be asked for.
    pub fn has_room(&self) -> bool {
        let settings = self.settings();
        let reserve = 2 * self.snapshot.journal.segment_bytes;
        self.table.deliveries() < settings.events_max as usize
            && self.receipts.has_room()
            && self.journal.bytes_live() + reserve <= self.snapshot.journal.bytes_max
            && self.journal.can_append(0) != Err(AppendError::NoSegment)
    }

    /// Whether everything that came is durable and noted.
    pub fn is_quiet(&self) -> bool {
        self.backlog.is_empty()
            && self.arrivals.is_empty()
            && self.notes.is_empty()
            && self.receipts.len() == 0
            && !self.journal.is_writing()
    }

    /// The journal, for reading.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The journal, for completions.
    pub fn journal_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Ids of the events taken.
    pub fn ids(&self) -> &Keys {
        &self.ids
    }

    /// Sets gauges.
    pub fn observe(&self) {
        self.metrics.events_live.set(self.table.len() as u64);
        self.metrics.replay_pending.set(self.orders.pending());
        self.metrics.receipts_waiting.set(self.receipts.len() as u64);
        self.metrics.dead_letters_kept.set(self.table.dead_len() as u64);
        self.metrics.retained_segments.set(self.journal.retained_segments() as u64);
    }

    /// The mark where a stream's link resumes; none for a new stream when too many are known.
    pub fn resume_after(&self, stream: StreamId) -> Option<u64> {
        Some(self.watermarks.admit(stream)?.load(Ordering::Acquire))
    }

    fn settings(&self) -> &EgressSettings {
        self.snapshot.egress.as_ref().expect("a worker has an egress because the configuration has one")
    }

    fn end(&mut self, outcome: OutcomeRecord) {
        let is_dead = outcome.ending == Ending::Dead;
        let wall_ms = if is_dead { self.table.dying_ms(self.clock.wall_ms) } else { self.clock.wall_ms };
        let receipt = self.receipt_of(&outcome);
        if self.table.end(&outcome, wall_ms) {
            self.forget(outcome.handle);
        }
        self.note_outcome(wall_ms, outcome, receipt);
    }

    fn note_outcome(&mut self, wall_ms: u64, outcome: OutcomeRecord, receipt: Option<Receipt>) {
        let said = match receipt {
            Some(receipt) => {
                self.receipts.handle_note(receipt);
                Said::Receipted(outcome)
            }
            None => Said::Note(Note::Outcome(outcome)),
        };
        self.push_note(DatedNote { wall_ms, said });
    }

    /// A note for the journal. While that is full the oldest go: a lost one costs a delivery twice at most.
    fn note(&mut self, note: Note) {
        self.note_at(self.clock.wall_ms, note);
    }

    fn note_at(&mut self, wall_ms: u64, note: Note) {
        self.push_note(DatedNote { wall_ms, said: Said::Note(note) });
    }

    fn push_note(&mut self, note: DatedNote) {
        self.notes.push_back(note);
        if self.notes.len() > NOTES_MAX {
            let dropped = self.notes.pop_front();
            self.metrics.notes_dropped.add(1);
            if dropped.is_some_and(|dropped| matches!(dropped.said, Said::Receipted(_))) {
                self.receipts.handle_written(None, false);
            }
        }
    }

    fn append_all(&mut self) {
        let wall_ms = self.clock.wall_ms;
        self.checkpoint_if_new_segment();
        let holds = self.settings().receipts.as_ref().is_some_and(|receipts| receipts.holds_journals());
        while let Some(DatedNote { wall_ms, said }) = self.notes.front() {
            let (note, is_receipted) = match said {
                Said::Receipted(outcome) => (Note::Outcome(*outcome), true),
                Said::Note(note) => (*note, false),
            };
            let Ok(record) = self.journal.append(note.kind(), *wall_ms, &[&note.encode()]) else { return };
            if is_receipted {
                self.receipts.handle_written(Some(record), holds);
            }
            self.notes.pop_front();
        }
        while self.has_room() {
            let Some(incoming) = self.backlog.pop_front() else { return };
            if self
                .table
                .streams()
                .get(&incoming.stream)
                .is_some_and(|known| incoming.link_sequence <= *known)
            {
                self.metrics.duplicates.add(1);
                self.pass_duplicate(incoming);
                continue;
            }
            let bytes = incoming.head.len() + incoming.event.len();
            if self.journal.can_append(bytes).is_err() {
                self.backlog.push_front(incoming);
                return;
            }
            match self.ids.handle_arrival(self.ids.hasher().event_key(incoming.id), wall_ms, ORIGIN) {
                CoreVerdict::New => {}
                CoreVerdict::Duplicate { .. } => {
                    self.metrics.duplicate_event_ids.add(1);
                    self.pass_duplicate(incoming);
                    continue;
                }
                // Another worker writes the same event, or too many are being written: the next tick knows more.
                CoreVerdict::Pending | CoreVerdict::TooManyWaiters | CoreVerdict::TooManyPending => {
                    self.backlog.push_front(incoming);
                    return;
                }
            }
            let record = self.journal.append(Kind::Event, wall_ms, &[&incoming.head, &incoming.event]);
            self.remember(record.expect("there was room just now"), incoming);
        }
    }

    /// An event that is in a journal already; it is acknowledged when everything before it is durable.
    fn pass_duplicate(&mut self, incoming: Incoming) {
        self.arrivals.push_back(Arrival {
            record: Sequence(self.journal.next_sequence().0 - 1),
            link: incoming.link,
            stream: incoming.stream,
            link_sequence: incoming.link_sequence,
            bytes: incoming.event.len() as u64,
            id: incoming.id,
            is: Taken::Before,
        });
        self.give_head(incoming.head);
    }

    fn remember(&mut self, record: Sequence, incoming: Incoming) {
        let held = held(&incoming.head);
        let held = HeldEvent { event: &incoming.event, ..held };
        let cached = self.table.cached_bytes() + incoming.event.len() <= self.settings().cached_bytes_max;
        self.table.insert(record, &held, cached.then(|| Arc::clone(&incoming.event)));
        self.order(record.0, &incoming.event);
        self.arrivals.push_back(Arrival {
            record,
            link: incoming.link,
            stream: incoming.stream,
            link_sequence: incoming.link_sequence,
            bytes: incoming.event.len() as u64,
            id: incoming.id,
            is: Taken::Now,
        });
        self.give_head(incoming.head);
    }

    fn give_head(&mut self, mut head: Vec<u8>) {
        head.clear();
        if self.spare_heads.len() < SPARE_HEADS_MAX && head.capacity() <= SPARE_HEAD_BYTES_MAX {
            self.spare_heads.push(head);
        }
    }

    fn handle_durable(&mut self) {
        let durable = self.journal.durable();
        while self.arrivals.front().is_some_and(|arrival| arrival.record <= durable) {
            let arrival = self.arrivals.pop_front().expect("looked at just now");
            let watermarks = &self.watermarks;
            let mark = self.marks.entry(arrival.stream).or_insert_with(|| watermarks.of(arrival.stream));
            mark.fetch_max(arrival.link_sequence, Ordering::AcqRel);
            self.acknowledge(&arrival);
            if arrival.is == Taken::Now {
                self.metrics.link_events_received.add(1);
                let key = self.ids.hasher().event_key(arrival.id);
                self.ids.handle_durable(key, arrival.id, self.clock.wall_ms, &mut Vec::new());
                self.hand_out(arrival.record.0);
            }
        }
    }

    fn acknowledge(&mut self, arrival: &Arrival) {
        if let Some(last) = self.acknowledges.back_mut().filter(|last| last.link == arrival.link) {
            last.durable = arrival.link_sequence;
            last.events += 1;
            last.bytes += arrival.bytes;
            return;
        }
        self.acknowledges.push_back(Acknowledge {
            link: arrival.link,
            durable: arrival.link_sequence,
            events: 1,
            bytes: arrival.bytes,
        });
    }

    fn hand_out(&mut self, handle: u64) {
        let targets = self.table.live(handle).map_or(0, |live| live.targets.len() as u8);
        for target in 0..targets {
            self.hand_out_one(handle, target);
        }
    }

    fn hand_out_one(&mut self, handle: u64, target_index: u8) {
        let Some(live) = self.table.live(handle) else { return };
        let Some(target) = live.targets.get(usize::from(target_index)) else { return };
        let DeliveryState::Open { attempt, due_ms } = target.state else { return };
        if live.is_quarantined && target.replay == 0 {
            return self.quarantine(handle, target_index);
        }
        let handoff = Handoff {
            key: EventKey { origin: self.worker, handle },
            target_index,
            target: Arc::clone(&target.name),
            attempt,
            due_ms,
            replay: target.replay,
            order_key: target.order_key,
            bytes: live.bytes.clone(),
            bytes_len: live.bytes_len,
        };
        self.mesh.send(self.mesh.owner_of(&target.name), Message::Deliver(handoff));
    }
}

impl Egress {
    /// A dead letter before any attempt; after a restart that lost the note this comes to the same again.
    fn quarantine(&mut self, handle: u64, target_index: u8) {
        self.metrics.dead_letters.add(1);
        let verdict = Verdict::Dead { reason: DeadReason::Quarantined, status: 0, attempts: 0 };
        self.handle_verdict(EventKey { origin: self.worker, handle }, target_index, &verdict);
    }
}

/// What recovery learns from one record: the id of an event that was taken.
pub fn recover_id(ids: &Keys, record: &Record<'_>) {
    if record.kind != Kind::Event {
        return;
    }
    let event_id = HeldEvent::decode(record.payload).ok().and_then(|held| Event::id_of(held.event));
    if let Some(event_id) = event_id {
        let key = ids.hasher().event_key(event_id);
        ids.restore(&IndexEntry { key, event_id, time_ms: record.time_ms });
    }
}

/// Notes that may wait for room in the journal.
pub const NOTES_MAX: usize = 16_384;

/// The head of a record that we encoded ourselves.
fn held(head: &[u8]) -> HeldEvent<'_> {
    HeldEvent::decode(head).expect("encoded by this node")
}
