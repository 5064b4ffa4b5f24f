//! The journal of an origin: events read back, live records carried forward, segments that may go.

use std::sync::Arc;

use zen_core::journal::{Kind, Sequence};
use zen_core::record::{Ending, HeldEvent, OutcomeRecord, StreamId, encode_checkpoint};
use zen_uring::Reactor;

use super::{Egress, held};
use crate::journal::{Next, read_token};
use crate::mesh::{EventBytes, Fetched, JournalRole, Message};

/// Records carried forward in one tick.
const CARRIED_MAX: usize = 64;

impl Egress {
    /// Answers fetches from memory; one read of the journal is under way at a time.
    pub(super) fn serve_fetches(&mut self, reactor: &mut Reactor) {
        while let Some(handle) = self.fetches.front().map(|fetch| fetch.key.handle) {
            let fetched = match self.table.live(handle).map(|live| live.record) {
                None => Fetched::Ended,
                Some(record) => match self.read_event(reactor, handle, record) {
                    Found::Later => return,
                    Found::Event(event) => {
                        self.know(handle, &event);
                        Fetched::Event(event)
                    }
                    Found::Damaged | Found::Unreadable => Fetched::Unreadable,
                },
            };
            let fetch = self.fetches.pop_front().expect("looked at just now");
            let message = Message::Fetched { key: fetch.key, target: fetch.target, fetched };
            self.mesh.send(fetch.reply_to, message);
        }
    }

    /// Carries the oldest live records forward when they keep much of the journal from reuse.
    pub(super) fn carry(&mut self, reactor: &mut Reactor) {
        let Some(oldest) = self.table.oldest() else { return };
        let is_worth_it =
            self.table.wants_carrying(self.journal.bytes_live(), self.snapshot.journal.bytes_max);
        if !is_worth_it || self.journal.is_current(oldest) || !self.fetches.is_empty() {
            return;
        }
        let handles: Vec<(Sequence, u64)> = self.table.handles().take(CARRIED_MAX).collect();
        for (record, handle) in handles {
            if self.journal.is_current(record) {
                return;
            }
            match self.read_event(reactor, handle, record) {
                Found::Event(event) if self.carry_one(handle, record, &event) => {}
                Found::Damaged => self.give_up(handle, record),
                // Nothing behind it can be freed before it is.
                Found::Event(_) | Found::Later | Found::Unreadable => return,
            }
        }
    }

    fn carry_one(&mut self, handle: u64, original: Sequence, event: &[u8]) -> bool {
        let mut head = Vec::with_capacity(256);
        self.table.encode_carried(handle, &mut head);
        let clock = self.clock;
        let notes = self.table.carried_notes(handle, clock.wall_ms, |due_ms| clock.unix_of(due_ms));
        let Ok(record) = self.journal.append(Kind::Event, self.clock.wall_ms, &[&head, event]) else {
            return false;
        };
        self.carried.push_back((record, original));
        self.table.insert(record, &HeldEvent { event, ..held(&head) }, None);
        for (wall_ms, note) in notes {
            self.note_at(wall_ms, note);
        }
        true
    }

    /// A damaged record would keep the journal from reuse for good: what is left of its event ends.
    fn give_up(&mut self, handle: u64, record: Sequence) {
        let Some(live) = self.table.live(handle) else { return };
        let segment = self.journal.segment_of(record);
        let (id, targets) = (live.id.map(|id| id.to_string()), live.targets.len());
        tracing::error!(
            journal = %format_args!("egress/worker-{}", self.worker),
            segment = segment.map(|segment| segment.0),
            record = record.0,
            event = id,
            targets,
            "a live record is damaged and the journal needs its room: its event is lost"
        );
        self.metrics.events_lost.add(1);
        let dropped = |target| OutcomeRecord::new(handle, target, Ending::Dropped);
        let mut receipts: Vec<_> =
            (0..targets as u8).map(|target| self.receipt_of(&dropped(target))).collect();
        for outcome in self.table.give_up(handle) {
            self.orders.handle_verdict(handle, outcome.target);
            let receipt = receipts.get_mut(usize::from(outcome.target)).and_then(Option::take);
            self.note_outcome(self.clock.wall_ms, outcome, receipt);
        }
        self.forget(handle);
    }

    /// A live event, from memory or from disk.
    pub(super) fn read_event(&mut self, reactor: &mut Reactor, handle: u64, record: Sequence) -> Found {
        if let Some(bytes) = self.table.live(handle).and_then(|live| live.bytes.as_ref()) {
            return Found::Event(Arc::clone(bytes));
        }
        // A record that was just carried forward is there after its commit.
        if record > self.journal.durable() {
            return Found::Later;
        }
        let token = read_token(JournalRole::Egress, 0);
        loop {
            let piece = match self.cursor.poll(&self.journal, reactor, record, token) {
                Next::Piece(piece) => Some(piece),
                Next::Nothing => None,
                Next::Reading => return Found::Later,
                Next::Unreadable => return Found::Unreadable,
            };
            let found = piece.as_ref().and_then(|piece| piece.record(record));
            let held = found.and_then(|found| HeldEvent::decode(found.payload).ok());
            if let Some(held) = held {
                return Found::Event(EventBytes::from(held.event));
            }
            if self.cursor.handle_missing(record) {
                return Found::Damaged;
            }
        }
    }

    /// Each segment gets a checkpoint of the streams, so that older ones may go.
    pub(super) fn checkpoint_if_new_segment(&mut self) {
        let segment = self.journal.current_segment();
        if segment == self.checkpoint_segment {
            return;
        }
        let streams: Vec<(StreamId, u64)> =
            self.table.streams().iter().map(|(stream, sequence)| (*stream, *sequence)).collect();
        let mut payload = Vec::new();
        encode_checkpoint(&mut payload, &streams);
        if let Ok(record) = self.journal.append(Kind::Checkpoint, self.clock.wall_ms, &[&payload]) {
            self.checkpoint = Some(record);
            self.checkpoint_segment = segment;
        }
    }

    pub(super) fn trim(&mut self, reactor: &mut Reactor) {
        let Some(checkpoint) = self.checkpoint.filter(|record| *record <= self.journal.durable()) else {
            return;
        };
        let mut needed = self.table.oldest().map_or(checkpoint, |oldest| oldest.min(checkpoint));
        // A record that was carried forward stays until its copy is durable.
        let durable = self.journal.durable();
        while self.carried.front().is_some_and(|(copy, _)| *copy <= durable) {
            self.carried.pop_front();
        }
        if let Some((_, original)) = self.carried.front() {
            needed = needed.min(*original);
        }
        if let Some(oldest) = self.oldest_of_receipts() {
            needed = needed.min(oldest);
        }
        self.journal.trim(reactor, Sequence(needed.0.saturating_sub(1)));
    }
}

/// What a look into the journal came to.
pub(super) enum Found {
    /// A read or a write is under way.
    Later,
    /// The record was there and is not whole any more.
    Damaged,
    /// The disk does not read it now.
    Unreadable,
    /// The event.
    Event(EventBytes),
}
