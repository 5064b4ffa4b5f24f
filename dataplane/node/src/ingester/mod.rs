//! The ingester's part of a worker: accepted events into the journal, 202 after the disk, links fed.
//!
//! An accepted event is appended to the open commit, or held while both commits are in flight and the
//! open one is full. Answers follow the contiguous durable prefix. Each egress has an outbox, a place
//! over the journal; the journal is trimmed up to what every egress has acknowledged and whose keys are
//! in the index.

mod acceptance;
mod access;
mod buffers;
mod claims;
mod index;
mod outbox;
mod refused;
mod request;
mod source;
mod spans;
mod trace;
mod unverified;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

pub use access::{Access, Client, RATE_ENDPOINTS_MAX, SOURCE_TABLES};
pub use buffers::{SCRATCH_BYTES_MAX, SPARE_BUFFER_BYTES_MAX, SPARE_BUFFERS_MAX};
pub use claims::WAITING_BYTES;
pub use claims::{Arrival, Claim, Claims};
use index::Flush;
pub use index::{INDEX_BYTES, Index, Recovering};
pub use outbox::{Outbox, recover};
pub use source::{SOURCE_BYTES, Source};
pub use spans::OPEN_SPANS_BYTES;
use unverified::Unverified;
use zen_core::dedupe::{EventKey, IndexEntry, Waiter};
use zen_core::event::EVENT_BYTES_MAX;
use zen_core::id::{EndpointId, EventId, EventIds};
use zen_core::journal::{AppendError, COMMITS_IN_FLIGHT_MAX, Kind, Sequence};
use zen_rules::Matched;
use zen_uring::{AlignedBuffer, Reactor, SocketId};

use crate::clock::Clock;
use crate::config::{Endpoint, IngesterSettings, Snapshot};
use crate::dedupe::Keys;
use crate::entropy::Entropy;
use crate::journal::{Journal, SMALLEST_RECORD_BYTES};
use crate::metrics::WorkerMetrics;
use crate::spans::OpenSpan;

/// A verified event on its way into the journal.
pub struct Accepted {
    /// Who waits for the answer.
    pub socket: SocketId,
    /// When the request was whole.
    pub since: Instant,
    /// The event's id.
    pub id: EventId,
    /// Its key, if it has one.
    pub claim: Option<Claim>,
    /// Where it came in.
    pub endpoint: Arc<Endpoint>,
    /// Which flows take it.
    pub matched: Matched,
    /// Key, routes and the event's head, encoded.
    pub head: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
    /// If the event is sampled and spans are exported.
    pub span: Option<Box<OpenSpan>>,
}

impl Accepted {
    /// What it holds while it waits for room in the journal.
    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.head.capacity() + self.body.capacity()
    }
}

/// An answer that is due.
#[derive(Debug)]
pub struct Answer {
    /// Who waits for it.
    pub socket: SocketId,
    /// What to say.
    pub outcome: Outcome,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Accepted(EventId),
    /// It is another sending of this one, which is durable.
    Duplicate(EventId),
    /// It could not be kept, or not in time.
    Unavailable,
}

/// Who waits for a record that is being written: one for each record of three commits at most.
pub const PENDING_BYTES: usize = size_of::<Pending>() + claims::DELAYED_BYTES;

/// Records of an open commit and of those in flight, at most.
pub const fn pending_max(commit_bytes_max: usize) -> usize {
    (COMMITS_IN_FLIGHT_MAX + 1) * commit_bytes_max / SMALLEST_RECORD_BYTES
}

struct Pending {
    sequence: Sequence,
    socket: SocketId,
    since: Instant,
    id: EventId,
    claim: Option<Claim>,
    endpoint: Arc<Endpoint>,
    matched: Matched,
    body_bytes: usize,
}

impl Pending {
    /// Tells the outboxes of the event's egresses that its record is in the journal.
    fn route(&self, outboxes: &mut [Outbox]) {
        for egress in self.endpoint.routing.egresses(self.matched) {
            if let Some(outbox) = outboxes.iter_mut().find(|outbox| outbox.egress() == egress) {
                outbox.handle_routed(self.sequence);
            }
        }
    }
}

/// One worker's ingester.
pub struct Ingester {
    journal: Journal,
    snapshot: Arc<Snapshot>,
    pending: VecDeque<Pending>,
    held: VecDeque<Accepted>,
    refused: VecDeque<SocketId>,
    unverified: Unverified,
    spans: VecDeque<(Sequence, OpenSpan)>,
    outboxes: Vec<Outbox>,
    claims: Claims,
    index: Index,
    spare: Vec<Vec<u8>>,
    scratch: Vec<u8>,
    memory_bytes: usize,
    entropy: Entropy,
    ids: EventIds,
    clock: Clock,
    draining: bool,
    noted: Option<Sequence>,
    #[cfg(feature = "fault-early-answer")]
    fault_written_ms: u64,
    access: Arc<Access>,
    metrics: Arc<WorkerMetrics>,
}

impl Ingester {
    /// Over a journal that was opened, and what its recovery found routed to whom.
    pub fn new(
        journal: Journal,
        outboxes: Vec<Outbox>,
        claims: Claims,
        index: Index,
        snapshot: Arc<Snapshot>,
        access: Arc<Access>,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        let pending_max = pending_max(journal.commit_bytes_max());
        let mut ingester = Self {
            journal,
            snapshot: Arc::clone(&snapshot),
            pending: VecDeque::with_capacity(pending_max),
            held: VecDeque::new(),
            refused: VecDeque::new(),
            unverified: Unverified::default(),
            spans: VecDeque::new(),
            outboxes,
            claims,
            index,
            spare: Vec::new(),
            scratch: Vec::new(),
            memory_bytes: 0,
            entropy: Entropy::default(),
            ids: EventIds::default(),
            clock: Clock::now(),
            draining: false,
            noted: None,
            #[cfg(feature = "fault-early-answer")]
            fault_written_ms: 0,
            access,
            metrics,
        };
        ingester.handle_snapshot(snapshot);
        ingester
    }

    /// Every worker has recovered: requests may come.
    pub fn handle_recovered(&mut self) {
        self.claims.keys().finish();
    }

    /// Takes a new configuration; outboxes with events stay even if their egress is gone.
    pub fn handle_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        for peer in &settings(&snapshot).egresses {
            if !self.outboxes.iter().any(|outbox| outbox.egress() == peer.name) {
                self.outboxes.push(Outbox::new(&peer.name));
            }
        }
        let known = |name: &str| settings(&snapshot).egresses.iter().any(|peer| peer.name == name);
        for outbox in self.outboxes.iter().filter(|outbox| outbox.is_behind() && !known(outbox.egress())) {
            tracing::error!(
                egress = outbox.egress(),
                "the journal holds events for an egress that is not configured; they are kept until it is configured again"
            );
        }
        self.snapshot = snapshot;
    }

    /// Sets the tick's clock.
    pub fn handle_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// A verified request brings a key; its answer comes later, unless its event is durable or it is refused.
    pub fn claim(&mut self, key: EventKey, socket: SocketId) -> Arrival {
        let wait_ms = self.request_timeout_ms();
        self.claims.handle_arrival(key, socket, self.clock.wall_ms, wait_ms)
    }

    /// A write that somebody waits for ended, on any worker.
    pub fn handle_settled(&mut self, waiter: Waiter, event_id: Option<EventId>) {
        self.claims.handle_settled(waiter, event_id);
    }

    /// Appends an event to the open commit, or holds it until there is room.
    pub fn accept(&mut self, accepted: Accepted) {
        if self.held.is_empty() {
            if let Some(accepted) = self.try_append(accepted) {
                self.hold(accepted);
            }
        } else {
            self.hold(accepted);
        }
    }

    /// Seals and submits what can be written now.
    pub fn commit(&mut self, reactor: &mut Reactor) {
        #[cfg(feature = "fault-early-answer")]
        if self.writes_later() {
            return;
        }
        self.journal.handle_time(reactor, self.clock.steady_ms);
        self.journal.commit(reactor, self.clock.wall_ms);
        while let Some(accepted) = self.held.pop_front() {
            let bytes = accepted.memory_bytes();
            if let Some(accepted) = self.try_append(accepted) {
                self.held.push_front(accepted);
                break;
            }
            self.give_memory(bytes);
        }
        self.journal.commit(reactor, self.clock.wall_ms);
        let flush = if self.draining { Flush::All } else { Flush::Due };
        self.index.commit(reactor, &self.journal, self.clock, flush);
    }

    /// The next answer that is due.
    pub fn poll_answer(&mut self) -> Option<Answer> {
        if let Some(socket) = self.refused.pop_front() {
            return Some(Answer { socket, outcome: Outcome::Unavailable });
        }
        if let Some(answer) = self.claims.poll_answer() {
            return Some(answer);
        }
        while let Some((sequence, claim, id)) = self.claims.poll_delayed(self.journal.durable()) {
            self.settle(sequence, claim, id);
        }
        if self.pending.front()?.sequence > self.answerable() {
            return None;
        }
        let pending = self.pending.pop_front()?;
        assert!(cfg!(feature = "fault-early-answer") || pending.sequence <= self.journal.durable());
        self.metrics.accept_to_durable.record(pending.since.elapsed());
        self.metrics.events_accepted.add(1);
        self.metrics.bytes_accepted.add(pending.body_bytes as u64);
        pending.route(&mut self.outboxes);
        self.end_spans(pending.sequence);
        if let Some(claim) = pending.claim {
            self.settle(pending.sequence, claim, pending.id);
        }
        Some(Answer { socket: pending.socket, outcome: Outcome::Accepted(pending.id) })
    }

    /// Whether an answer is due that no completion will wake us for.
    pub fn has_answers(&self) -> bool {
        !self.refused.is_empty() || self.claims.has_answers()
    }

    /// The write failed and is being repeated: whoever waits is told to come again. What is in the journal
    /// may still become durable, so its key stays pending; what is not has a free key.
    pub fn handle_write_error(&mut self) {
        self.spans.clear();
        for pending in self.pending.drain(..) {
            pending.route(&mut self.outboxes);
            if let Some(claim) = pending.claim {
                self.claims.handle_delayed(claim, pending.sequence, pending.id);
            }
            self.refused.push_back(pending.socket);
        }
        self.claims.handle_write_error();
        while let Some(accepted) = self.held.pop_front() {
            self.give_memory(accepted.memory_bytes());
            self.refuse(accepted);
        }
    }

    /// Ends waits that took too long.
    pub fn handle_time(&mut self) {
        self.claims.handle_time();
    }

    /// Frees segments that every egress has acknowledged.
    pub fn trim(&mut self, reactor: &mut Reactor) {
        let durable = self.journal.durable();
        let holds = self.outboxes.iter().filter_map(|outbox| outbox.holds()).chain(self.index.holds());
        self.journal.trim(reactor, holds.fold(durable, Sequence::min));
        self.index.trim(reactor, self.clock.wall_ms);
    }

    /// The endpoint of an ingest path `/hooks/<id>`.
    pub fn endpoint(&self, path: &str) -> Option<Arc<Endpoint>> {
        let id: EndpointId = path.strip_prefix("/hooks/")?.parse().ok()?;
        self.settings().endpoints.get(&id).cloned()
    }

    /// The wall clock, Unix ms, for the freshness of signatures.
    pub fn wall_ms(&self) -> u64 {
        self.clock.wall_ms
    }

    /// The steady clock, µs, for rates.
    pub fn steady_us(&self) -> u64 {
        self.clock.steady_ms * 1000
    }

    /// What workers share of access decisions.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// An id for an event accepted now, and the time in Unix µs.
    pub fn new_event_id(&mut self) -> (EventId, u64) {
        let now_us = self.clock.wall_us;
        (self.ids.next(now_us / 1000, self.entropy.bytes()), now_us)
    }

    /// From now on no connection is kept alive.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether the node is draining.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// At the end of a drain: if every egress has everything, the journal says so.
    pub fn note_all_acknowledged(&mut self) {
        let idle = self.pending.is_empty() && self.held.is_empty() && self.journal.open_records() == 0;
        let noted = self.noted == Some(Sequence(self.journal.next_sequence().0 - 1));
        if idle && !noted && !self.outboxes.iter().any(|outbox| outbox.is_behind()) {
            self.noted = self.journal.append(Kind::Checkpoint, self.clock.wall_ms, &[]).ok();
        }
    }

    /// Whether nobody waits for an answer.
    pub fn is_quiet(&self) -> bool {
        self.journal.open_records() == 0
            && self.pending.is_empty()
            && self.held.is_empty()
            && self.refused.is_empty()
            && !self.has_unverified()
            && !self.journal.is_writing()
            && self.index.is_quiet()
    }

    /// Whether events of any size could be taken right now.
    pub fn has_room(&self) -> bool {
        self.index.has_room()
            && !matches!(self.journal.can_append(EVENT_BYTES_MAX), Err(AppendError::NoSegment))
    }

    /// Configuration generation for the journal.
    pub fn generation(&self) -> u64 {
        self.snapshot.generation
    }

    /// A connection without a request may idle this long.
    pub fn idle_timeout_ms(&self) -> u64 {
        self.settings().idle_timeout_ms
    }

    /// A request must be whole within this.
    pub fn request_timeout_ms(&self) -> u64 {
        self.settings().request_timeout_ms
    }

    /// The worker's counters.
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }

    /// The journal, for reading.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The journal, for completions.
    pub fn journal_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// The index's journal, for completions.
    pub fn index_mut(&mut self) -> &mut Journal {
        self.index.journal_mut()
    }

    /// The table of keys.
    pub fn keys(&self) -> &Keys {
        self.claims.keys()
    }

    /// The outbox of an egress, with its index, and the journal it reads.
    pub fn outbox_mut(&mut self, egress: &str) -> Option<(usize, &mut Outbox, &Journal)> {
        let index = self.outboxes.iter().position(|outbox| outbox.egress() == egress)?;
        Some((index, &mut self.outboxes[index], &self.journal))
    }

    /// A link to an egress is ready and resumes after a sequence.
    pub fn handle_link_ready(&mut self, egress: &str, resume_after: Sequence) {
        if let Some((_, outbox, _)) = self.outbox_mut(egress) {
            outbox.handle_ready(resume_after);
        }
    }

    /// An egress has everything up to a sequence.
    pub fn handle_acknowledged(&mut self, egress: &str, durable: Sequence) {
        if let Some((_, outbox, _)) = self.outbox_mut(egress) {
            outbox.handle_acknowledged(durable);
        }
    }

    /// A read for the outbox with this index completed.
    pub fn handle_read(&mut self, index: u64, buffer: AlignedBuffer, result: Result<usize, std::io::Error>) {
        let outbox = usize::try_from(index).ok().and_then(|index| self.outboxes.get_mut(index));
        outbox.expect("outboxes are never removed").handle_read(buffer, result);
    }

    /// Records that some egress has not acknowledged, at most.
    pub fn lag(&self) -> u64 {
        self.outboxes.iter().map(|outbox| outbox.lag()).max().unwrap_or(0)
    }

    fn settings(&self) -> &IngesterSettings {
        settings(&self.snapshot)
    }

    /// The fault of the crash test: answered events are written a few milliseconds later.
    #[cfg(feature = "fault-early-answer")]
    fn writes_later(&mut self) -> bool {
        const WRITE_AFTER_MS: u64 = 5;
        let waits = self.clock.steady_ms < self.fault_written_ms + WRITE_AFTER_MS;
        if !waits {
            self.fault_written_ms = self.clock.steady_ms;
        }
        waits
    }

    fn hold(&mut self, accepted: Accepted) {
        self.memory_bytes += accepted.memory_bytes();
        self.held.push_back(accepted);
    }

    /// Up to which sequence answers may leave.
    fn answerable(&self) -> Sequence {
        if cfg!(feature = "fault-early-answer") {
            return Sequence(self.journal.next_sequence().0 - 1);
        }
        self.journal.durable()
    }

    /// The claimed event at `sequence` is durable: its key is seen, and goes to the index.
    fn settle(&mut self, sequence: Sequence, claim: Claim, event_id: EventId) {
        let time_ms = self.clock.wall_ms;
        self.claims.handle_durable(claim, event_id, time_ms);
        self.index.handle_durable(sequence, IndexEntry { key: claim.key, event_id, time_ms });
    }

    /// The event is not in the journal and will not be.
    fn refuse(&mut self, accepted: Accepted) {
        if let Some(claim) = accepted.claim {
            self.claims.handle_failed(claim);
        }
        self.refused.push_back(accepted.socket);
        self.give_buffer(accepted.head);
        self.give_buffer(accepted.body);
    }

    /// Gives the event back when there is no room right now.
    fn try_append(&mut self, accepted: Accepted) -> Option<Accepted> {
        if !self.index.has_room() {
            self.refuse(accepted);
            return None;
        }
        let appended =
            self.journal.append(Kind::Event, self.clock.wall_ms, &[&accepted.head, &accepted.body]);
        let sequence = match appended {
            Ok(sequence) => sequence,
            Err(AppendError::Full) => return Some(accepted),
            Err(AppendError::NoSegment | AppendError::TooLarge) => {
                self.refuse(accepted);
                return None;
            }
        };
        if let Some(span) = accepted.span {
            self.hold_span(sequence, *span);
        }
        self.pending.push_back(Pending {
            sequence,
            socket: accepted.socket,
            since: accepted.since,
            id: accepted.id,
            claim: accepted.claim,
            endpoint: accepted.endpoint,
            matched: accepted.matched,
            body_bytes: accepted.body.len(),
        });
        self.give_buffer(accepted.head);
        self.give_buffer(accepted.body);
        None
    }
}

fn settings(snapshot: &Snapshot) -> &IngesterSettings {
    snapshot.ingester.as_ref().expect("a worker has an ingester because the configuration has one")
}
