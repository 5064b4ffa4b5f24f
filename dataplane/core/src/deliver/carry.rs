//! Carrying live events to the head of their journal, so that the segments they lie in can be used again.
//!
//! Enters: how full the journal is. Leaves: whether to carry, the record that takes an event's place, the notes
//! that go behind it, and what ends when its record is damaged. The caller reads records, appends and counts.

use alloc::vec::Vec;

use super::table::{DeliveryState, Table};
use crate::record::{Ending, HeldEvent, Note, OutcomeRecord, RetryRecord};

impl Table {
    /// Whether the oldest live records keep so much of a journal from reuse that they should be carried.
    ///
    /// `bytes` are those of its live segments, `bytes_max` is their bound. What is nearly all live stays: moving it
    /// would free nothing and never end.
    pub fn wants_carrying(&self, bytes: u64, bytes_max: u64) -> bool {
        bytes > bytes_max / 2 && bytes.saturating_sub(self.live_bytes()) > bytes_max / 4
    }

    /// Appends what stands in front of the event in the record that takes its place; done targets have no name there.
    pub fn encode_carried(&self, handle: u64, head: &mut Vec<u8>) {
        let Some(live) = self.live(handle) else { return };
        let names = live.targets.iter().map(|target| match target.state {
            DeliveryState::Done => "",
            DeliveryState::Open { .. } | DeliveryState::Dead => &*target.name,
        });
        HeldEvent::encode_head(head, &live.stream, 0, handle, names);
    }

    /// The notes that go behind a carried record: attempts made, and dead letters. `unix_of` turns the table's
    /// time into Unix ms.
    pub fn carried_notes(&self, handle: u64, unix_of: impl Fn(u64) -> u64) -> Vec<Note> {
        let states = self.live(handle).into_iter().flat_map(|live| &live.targets).map(|target| target.state);
        let notes = (0..).zip(states).filter_map(|(target, state)| match state {
            DeliveryState::Open { attempt: attempt @ 1.., due_ms } => {
                let retry = RetryRecord { handle, target, attempt, due_ms: unix_of(due_ms) };
                Some(Note::Retry(retry))
            }
            DeliveryState::Dead => {
                let outcome = OutcomeRecord { handle, target, ending: Ending::Dead };
                Some(Note::Outcome(outcome))
            }
            DeliveryState::Open { .. } | DeliveryState::Done => None,
        });
        notes.collect()
    }

    /// Ends whatever is left of an event whose record is damaged; the outcomes for the journal.
    pub fn give_up(&mut self, handle: u64) -> Vec<OutcomeRecord> {
        let targets = self.live(handle).map_or(0, |live| live.targets.len() as u8);
        let is_left = |table: &Self, target: u8| {
            let life = table.live(handle).and_then(|live| live.targets.get(usize::from(target)));
            life.is_some_and(|life| life.state != DeliveryState::Done)
        };
        let mut outcomes = Vec::new();
        for target in 0..targets {
            if is_left(self, target) {
                self.end(handle, target, Ending::Dropped);
                outcomes.push(OutcomeRecord { handle, target, ending: Ending::Dropped });
            }
        }
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Sequence;

    fn table(bytes: usize) -> Table {
        let mut payload = Vec::new();
        HeldEvent::encode_head(&mut payload, &[1; 16], 4, 0, ["a", "b", "c", "d"].into_iter());
        payload.resize(payload.len() + bytes, b'x');
        let mut table = Table::default();
        table.insert(Sequence(10), &HeldEvent::decode(&payload).unwrap(), None);
        table.end(10, 0, Ending::Delivered);
        table.end(10, 1, Ending::Dead);
        table.retry(10, 2, 3, 99);
        table
    }

    #[test]
    fn only_a_journal_half_full_of_what_is_done_is_carried() {
        let table = table(900);
        assert!(table.live_bytes() < 1_000);
        for (bytes, wants) in [(0, false), (5_000, false), (5_001, true), (10_000, true)] {
            assert_eq!(table.wants_carrying(bytes, 10_000), wants, "{bytes}");
        }
        for (bytes, wants) in [(1_000, false), (1_250, false), (1_800, true)] {
            assert_eq!(table.wants_carrying(bytes, 2_000), wants, "{bytes}, {} live", table.live_bytes());
        }
    }

    #[test]
    fn a_carried_record_and_its_notes_restore_the_same_state() {
        let mut before = table(5);
        let mut payload = Vec::new();
        before.encode_carried(10, &mut payload);
        payload.extend_from_slice(b"event");
        let held = HeldEvent::decode(&payload).unwrap();
        assert_eq!(
            (held.stream, held.link_sequence, held.handle, held.event),
            ([1; 16], 0, 10, &b"event"[..])
        );
        let mut after = Table::default();
        after.insert(Sequence(50), &held, None);
        for note in before.carried_notes(10, |due_ms| due_ms + 1) {
            match note {
                Note::Retry(note) => after.retry(note.handle, note.target, note.attempt, note.due_ms - 1),
                Note::Outcome(note) => drop(after.end(note.handle, note.target, note.ending)),
            }
        }
        before.insert(Sequence(50), &held, None);
        let states = |table: &Table| -> Vec<DeliveryState> {
            table.live(10).unwrap().targets.iter().map(|target| target.state).collect()
        };
        assert_eq!(states(&after), states(&before));
        assert_eq!((after.dead_len(), after.oldest()), (1, Some(Sequence(50))));
    }

    #[test]
    fn an_event_that_is_given_up_ends_where_it_had_not_ended() {
        let mut table = table(5);
        let dropped = |target| OutcomeRecord { handle: 10, target, ending: Ending::Dropped };
        assert_eq!(table.give_up(10), [dropped(1), dropped(2), dropped(3)]);
        assert_eq!((table.len(), table.dead_len(), table.deliveries(), table.oldest()), (0, 0, 0, None));
        assert_eq!(table.give_up(10), []);
    }
}
