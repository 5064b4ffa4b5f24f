//! Notes of an egress: outcomes and retries, which wait for room in the journal.

use std::collections::VecDeque;

use zen_core::journal::{AppendError, Kind};

use crate::context::{Clock, Context};
use crate::journal::Journal;

/// Notes that may wait.
const NOTES_MAX: usize = 10_000;

/// A note, stamped when it was made.
#[derive(Debug)]
struct Note {
    kind: Kind,
    wall_ms: u64,
    payload: Vec<u8>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Notes {
    waiting: VecDeque<Note>,
}

impl Notes {
    /// Adds one, made now.
    pub fn push(&mut self, clock: Clock, kind: Kind, payload: &[u8]) {
        self.push_at(clock.wall_ms, kind, payload);
    }

    /// Adds one with a stamp of its own, Unix ms.
    pub fn push_at(&mut self, wall_ms: u64, kind: Kind, payload: &[u8]) {
        self.waiting.push_back(Note { kind, wall_ms, payload: payload.to_vec() });
    }

    /// Appends them in order, as far as there is room.
    pub fn append_all(&mut self, journal: &mut Journal) -> Result<(), AppendError> {
        while let Some(note) = self.waiting.front() {
            journal.append(note.kind, note.wall_ms, &[&note.payload])?;
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Blames too many.
    pub fn check_bound(&self, context: &mut Context) {
        context.checker.check_bound("notes", self.waiting.len(), NOTES_MAX);
    }
}
