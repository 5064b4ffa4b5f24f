//! An egress's outbox with its reader of the journal: what it still needs, from memory or from disk.

use std::ops::{Deref, DerefMut};

use zen_core::journal::{Kind, Record, Sequence};
use zen_core::link::{self, Routed};
use zen_uring::{AlignedBuffer, Reactor};

use crate::journal::{Cursor, Journal, Next, Piece};

/// One egress's place in the journal, and what reads it there.
#[derive(Debug)]
pub struct Outbox {
    place: link::Outbox,
    cursor: Cursor,
}

impl Outbox {
    /// An outbox without events.
    pub fn new(egress: &str) -> Self {
        Self { place: link::Outbox::new(egress), cursor: Cursor::default() }
    }

    /// Takes a completed read of the journal.
    pub fn handle_read(&mut self, buffer: AlignedBuffer, result: Result<usize, std::io::Error>) {
        self.cursor.handle_read(buffer, result);
    }

    /// Commits with the next event for this egress, if one is durable and in memory.
    pub fn poll_piece(&mut self, journal: &Journal, reactor: &mut Reactor, token: u64) -> Option<Piece> {
        let next = self.place.poll_next(journal.oldest(), &journal.skipped(), journal.durable())?;
        match self.cursor.poll(journal, reactor, next, token) {
            Next::Piece(piece) => Some(piece),
            Next::Reading | Next::Nothing | Next::Unreadable => None,
        }
    }

    /// The next events in `piece`, at most `count`, and the last sequence that was looked at.
    pub fn routed<'a>(
        &self,
        piece: &'a Piece,
        journal: &Journal,
        count: usize,
    ) -> (Vec<Routed<'a>>, Sequence) {
        self.place.routed(piece.records_from(self.place.next()), journal.durable(), count)
    }
}

impl Deref for Outbox {
    type Target = link::Outbox;

    fn deref(&self) -> &link::Outbox {
        &self.place
    }
}

impl DerefMut for Outbox {
    fn deref_mut(&mut self) -> &mut link::Outbox {
        &mut self.place
    }
}

/// What recovery learns from one record: which egress it waits for.
pub fn recover(outboxes: &mut Vec<Outbox>, record: &Record<'_>) {
    if record.kind == Kind::Checkpoint {
        for outbox in outboxes.iter_mut() {
            outbox.handle_acknowledged(record.sequence);
        }
    }
    if record.kind != Kind::Event {
        return;
    }
    let Ok(egresses) = zen_core::record::decode_egresses(record.payload) else {
        tracing::error!(
            sequence = record.sequence.0,
            "a journal record with a valid checksum cannot be read"
        );
        return;
    };
    for egress in egresses {
        let at = outboxes.iter().position(|outbox| outbox.egress() == egress).unwrap_or_else(|| {
            outboxes.push(Outbox::new(egress));
            outboxes.len() - 1
        });
        outboxes[at].handle_routed(record.sequence);
    }
}
