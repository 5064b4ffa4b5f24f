//! Carrying live events to the head of their journal, so that the segments they lie in can be used again.
//!
//! Enters: how full the journal is. Leaves: whether to carry, the record that takes an event's place, the notes
//! that go behind it, and what ends when its record is damaged. The caller reads records, appends and counts.

use alloc::vec::Vec;

use super::table::{DeliveryState, Live, Table};
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
            DeliveryState::Open { .. } | DeliveryState::Dead(_) => &*target.name,
        });
        HeldEvent::encode_head(head, &live.stream, 0, handle, replay_of(live), names);
    }

    /// The notes that go behind a carried record, each with the time that it bears, Unix ms: attempts made,
    /// replays, and dead letters, which keep the time at which they died. `unix_of` turns the table's time into Unix ms.
    pub fn carried_notes(&self, handle: u64, now_ms: u64, unix_of: impl Fn(u64) -> u64) -> Vec<(u64, Note)> {
        let mut notes = Vec::new();
        let Some(live) = self.live(handle) else { return notes };
        let base = replay_of(live);
        for (target, life) in (0..).zip(&live.targets) {
            let (attempt, due_ms) = match life.state {
                DeliveryState::Open { attempt, due_ms } => (attempt, unix_of(due_ms)),
                DeliveryState::Dead(_) | DeliveryState::Done => (0, 0),
            };
            if life.state != DeliveryState::Done && (attempt > 0 || life.replay != base) {
                let replay = life.replay;
                notes.push((now_ms, Note::Retry(RetryRecord { handle, target, replay, attempt, due_ms })));
            }
            if let DeliveryState::Dead(letter) = life.state {
                notes.push((letter.died_ms, Note::Carried(letter.outcome(handle, target))));
            }
        }
        notes
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
                let outcome = OutcomeRecord::new(handle, target, Ending::Dropped);
                self.end(&outcome, 0);
                outcomes.push(outcome);
            }
        }
        outcomes
    }
}

/// The replays that all targets which are not done have in common.
fn replay_of(live: &Live) -> u8 {
    let left = live.targets.iter().filter(|life| life.state != DeliveryState::Done);
    left.map(|life| life.replay).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::DeadReason;
    use crate::journal::{Record, SegmentId, Sequence};

    fn table(bytes: usize) -> Table {
        let mut payload = Vec::new();
        HeldEvent::encode_head(&mut payload, &[1; 16], 4, 0, 0, ["a", "b", "c", "d"].into_iter());
        payload.resize(payload.len() + bytes, b'x');
        let mut table = Table::default();
        table.insert(Sequence(10), &HeldEvent::decode(&payload).unwrap(), None);
        table.end(&OutcomeRecord::new(10, 0, Ending::Delivered), 0);
        let (reason, status, attempts) = (Some(DeadReason::ServerError), 500, 3);
        for replay in 1..=2 {
            let dead =
                OutcomeRecord { handle: 10, target: 1, ending: Ending::Dead, reason, status, attempts };
            table.end(&dead, 1_000);
            assert_eq!(table.replay(10, 1, 5), Some(replay));
            table.end(&dead, 1_000);
        }
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
        for (sequence, (time_ms, note)) in (51..).zip(before.carried_notes(10, 7, |due_ms| due_ms + 1)) {
            let (payload, segment) = (note.encode(), SegmentId(1));
            let (sequence, kind) = (Sequence(sequence), note.kind());
            let record = Record { sequence, kind, time_ms, payload: &payload, segment, offset: 0 };
            after.handle_recovered(&record, |due_ms, _| due_ms.saturating_sub(1)).unwrap();
        }
        before.insert(Sequence(50), &held, None);
        let states = |table: &Table| -> Vec<(DeliveryState, u8)> {
            let left = table.live(10).unwrap().targets.iter();
            left.map(|life| (life.state, life.replay)).filter(|life| life.0 != DeliveryState::Done).collect()
        };
        assert_eq!(states(&after), states(&before));
        assert_eq!((after.dead_len(), after.oldest()), (1, Some(Sequence(50))));
    }

    #[test]
    fn an_event_that_is_given_up_ends_where_it_had_not_ended() {
        let mut table = table(5);
        let dropped = |target| OutcomeRecord::new(10, target, Ending::Dropped);
        assert_eq!(table.give_up(10), [dropped(1), dropped(2), dropped(3)]);
        assert_eq!((table.len(), table.dead_len(), table.deliveries(), table.oldest()), (0, 0, 0, None));
        assert_eq!(table.give_up(10), []);
    }
}
