//! The events at the egress that are not done: which targets are open, and where the record is.
//!
//! A handle names an event for good: the sequence of its first record. When the record is carried
//! forward to a newer segment, the handle stays and the record moves. Records of the egress's journal enter,
//! from recovery or as they are written, and endings; open deliveries and the oldest record needed leave.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use smallvec::SmallVec;

use super::lives::{EVENT_BYTES, Lives, ORDERED_ROOM};
use super::outcome::DeadReason;
use crate::event::{Event, QUARANTINE_LINE};
use crate::id::EventId;
use crate::journal::{Kind, Record, Sequence};
use crate::record::{
    Ending, HeldEvent, OutcomeRecord, RecordError, RetryRecord, StreamId, decode_checkpoint,
};

/// An event's encoding, shared by all its deliveries.
pub type EventBytes = Arc<[u8]>;

/// Bytes of an event's record beside the event and the targets' names.
const RECORD_BYTES: usize = 64;

/// A live event with one target, bytes: itself, its place in the order of records, and as a dead letter.
pub const LIVE_BYTES: usize =
    EVENT_BYTES + ORDERED_ROOM * (size_of::<(Sequence, u64)>() + size_of::<LetterKey>());

/// One target of an event.
#[derive(Clone, Debug)]
pub struct TargetLife {
    /// Its name.
    pub name: Arc<str>,
    /// How far it is.
    pub state: DeliveryState,
    /// How often an operator sent it again.
    pub replay: u8,
    /// Deliveries of the target that share it go out in order; 0 is none.
    pub order_key: u64,
}

/// How far a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// To be tried.
    Open {
        /// Attempts made.
        attempt: u32,
        /// When the next is due, ms of whatever clock the caller's deliveries go by.
        due_ms: u64,
    },
    /// A dead letter.
    Dead(DeadLetter),
    /// Delivered, dropped, discarded or moved.
    Done,
}

/// Why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// What its last attempt met.
    pub reason: Option<DeadReason>,
    /// Status of the last answer; 0 if none came.
    pub status: u16,
    /// Attempts made.
    pub attempts: u32,
    /// When, Unix ms.
    pub died_ms: u64,
}

impl DeadLetter {
    /// As its record.
    pub fn outcome(&self, handle: u64, target: u8) -> OutcomeRecord {
        let Self { reason, status, attempts, .. } = *self;
        OutcomeRecord { handle, target, ending: Ending::Dead, reason, status, attempts }
    }
}

/// A dead letter's place: they are ordered by when they died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterKey {
    /// When, Unix ms.
    pub died_ms: u64,
    /// Its event.
    pub handle: u64,
    /// Position in the event's target list.
    pub target: u8,
}

/// An event that is not done.
#[derive(Debug)]
pub struct Live {
    /// Where its record is now.
    pub record: Sequence,
    /// Its stream, for carrying it forward.
    pub stream: StreamId,
    /// Its targets, in the order of the record; one, which nearly every event has, takes no memory of its own.
    pub targets: SmallVec<[TargetLife; 1]>,
    /// The event, while memory allows.
    pub bytes: Option<EventBytes>,
    /// The event's size.
    pub bytes_len: u32,
    /// The event's id, for when nothing else of it can be read.
    pub id: Option<EventId>,
    /// Whether a header rule holds it back until an operator sends it again.
    pub is_quarantined: bool,
    record_bytes: u64,
}

/// All events of one worker that are not done.
#[derive(Debug, Default)]
pub struct Table {
    live: Lives,
    by_record: BTreeSet<(Sequence, u64)>,
    dead: BTreeSet<LetterKey>,
    /// No letter dies earlier, so that who goes through them never meets one again.
    died_ms_min: u64,
    streams: BTreeMap<StreamId, u64>,
    names: BTreeSet<Arc<str>>,
    checkpoint: Option<Sequence>,
    cached_bytes: usize,
    live_bytes: u64,
    /// Targets that are not done, over all events.
    deliveries: usize,
}

impl Table {
    /// Takes a record that recovery read; order is that of the journal.
    ///
    /// `due` turns what a note says into the caller's time: when a retry is due and when that was noted, Unix ms.
    pub fn handle_recovered(
        &mut self,
        record: &Record<'_>,
        due: impl FnOnce(u64, u64) -> u64,
    ) -> Result<(), RecordError> {
        match record.kind {
            Kind::Event => self.insert(record.sequence, &HeldEvent::decode(record.payload)?, None),
            Kind::Outcome => {
                let outcome = OutcomeRecord::decode(record.payload)?;
                self.end(&outcome, record.time_ms);
            }
            Kind::Retry => {
                let retry = RetryRecord::decode(record.payload)?;
                let due_ms = due(retry.due_ms, record.time_ms);
                self.retry(retry.handle, retry.target, retry.attempt, due_ms);
                if let Some(life) = self.life_mut(retry.handle, retry.target) {
                    life.replay = retry.replay;
                }
            }
            Kind::Checkpoint => {
                self.checkpoint = Some(record.sequence);
                for (stream, sequence) in decode_checkpoint(record.payload)? {
                    self.advance(stream, sequence);
                }
            }
            Kind::Dead | Kind::Index | Kind::Other(_) => {}
        }
        Ok(())
    }

    /// Puts an event in, or moves it to a newer record.
    pub fn insert(&mut self, record: Sequence, held: &HeldEvent<'_>, bytes: Option<EventBytes>) {
        self.advance(held.stream, held.link_sequence);
        let handle = if held.handle == 0 { record.0 } else { held.handle };
        let bytes_len = held.event.len() as u32;
        if let Some(live) = self.live.get_mut(handle) {
            self.by_record.remove(&(live.record, handle));
            live.record = record;
            self.by_record.insert((record, handle));
            return;
        }
        let targets: SmallVec<[TargetLife; 1]> =
            held.targets.iter().map(|name| self.target_life(name, held.replay)).collect();
        if targets.iter().all(|target| target.state == DeliveryState::Done) {
            return;
        }
        self.deliveries += targets.iter().filter(|target| target.state != DeliveryState::Done).count();
        self.cached_bytes += bytes.as_ref().map_or(0, |bytes| bytes.len());
        self.by_record.insert((record, handle));
        let names: usize = held.targets.iter().map(|name| 1 + name.len()).sum();
        let record_bytes = (RECORD_BYTES + names + held.event.len()) as u64;
        self.live_bytes += record_bytes;
        let (stream, id) = (held.stream, Event::id_of(held.event));
        let is_quarantined = Event::has_metadata(held.event, QUARANTINE_LINE);
        let live = Live { record, stream, targets, bytes, bytes_len, id, is_quarantined, record_bytes };
        self.live.insert(handle, live);
    }

    /// Gives the deliveries of an event that was put in their ordering keys, those that are done excepted.
    pub fn set_order_keys(&mut self, handle: u64, mut key_of: impl FnMut(&str) -> u64) {
        let Some(live) = self.live.get_mut(handle) else { return };
        let left = live.targets.iter_mut().filter(|target| target.state != DeliveryState::Done);
        left.for_each(|target| target.order_key = key_of(&target.name));
    }

    /// Handles of the events that are not done, in the order of their arrival.
    pub fn arrivals(&self) -> Vec<u64> {
        let mut handles: Vec<u64> = self.by_record.iter().map(|(_, handle)| *handle).collect();
        handles.sort_unstable();
        handles
    }

    /// The time that a dead letter of now bears, Unix ms.
    pub fn dying_ms(&self, now_ms: u64) -> u64 {
        now_ms.max(self.died_ms_min)
    }

    /// A delivery ended, at this Unix ms. Returns whether the event is done and gone.
    pub fn end(&mut self, outcome: &OutcomeRecord, time_ms: u64) -> bool {
        let OutcomeRecord { handle, target, ending, reason, status, attempts } = *outcome;
        let Some(live) = self.live.get_mut(handle) else {
            return false;
        };
        let Some(life) = live.targets.get_mut(usize::from(target)) else {
            return false;
        };
        if ending == Ending::Dead {
            if let DeliveryState::Open { .. } = life.state {
                let died_ms = self.died_ms_min.max(time_ms);
                life.state = DeliveryState::Dead(DeadLetter { reason, status, attempts, died_ms });
                self.dead.insert(LetterKey { died_ms, handle, target });
            }
            return false;
        }
        let before = core::mem::replace(&mut life.state, DeliveryState::Done);
        self.deliveries -= usize::from(before != DeliveryState::Done);
        if let DeliveryState::Dead(DeadLetter { died_ms, .. }) = before {
            self.dead.remove(&LetterKey { died_ms, handle, target });
        }
        if live.targets.iter().any(|target| target.state != DeliveryState::Done) {
            return false;
        }
        let live = self.live.remove(handle).expect("it was there just now");
        self.by_record.remove(&(live.record, handle));
        self.cached_bytes -= live.bytes.map_or(0, |bytes| bytes.len());
        self.live_bytes -= live.record_bytes;
        true
    }

    /// A delivery was put off, or a dead letter is to be tried again. Returns its replays.
    pub fn retry(&mut self, handle: u64, target: u8, attempt: u32, due_ms: u64) -> u8 {
        let Some(life) = self.life_mut(handle, target) else { return 0 };
        let (replay, before) = (life.replay, life.state);
        if before != DeliveryState::Done {
            life.state = DeliveryState::Open { attempt, due_ms };
        }
        if let DeliveryState::Dead(DeadLetter { died_ms, .. }) = before {
            self.dead.remove(&LetterKey { died_ms, handle, target });
        }
        replay
    }

    /// An operator sends a dead letter again: it is open, with a schedule from its beginning. Returns its replays,
    /// this one included; none if it is no dead letter.
    pub fn replay(&mut self, handle: u64, target: u8, due_ms: u64) -> Option<u8> {
        let life = self.life_mut(handle, target)?;
        let DeliveryState::Dead(_) = life.state else { return None };
        life.replay = life.replay.saturating_add(1);
        Some(self.retry(handle, target, 0, due_ms))
    }

    /// The dead letters behind `after`, in the order in which they died.
    pub fn letters(&self, after: Option<LetterKey>) -> impl Iterator<Item = LetterKey> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.dead.range((from, Bound::Unbounded)).copied()
    }

    /// A dead letter, if it is one.
    pub fn letter(&self, handle: u64, target: u8) -> Option<DeadLetter> {
        match self.live.get(handle)?.targets.get(usize::from(target))?.state {
            DeliveryState::Dead(letter) => Some(letter),
            DeliveryState::Open { .. } | DeliveryState::Done => None,
        }
    }

    /// The newest dead letter; whatever dies from now on comes behind it.
    pub fn close_letters(&mut self) -> Option<LetterKey> {
        let newest = self.dead.last().copied()?;
        self.died_ms_min = newest.died_ms + 1;
        Some(newest)
    }

    /// The oldest dead letter while there are more than `bound`; it stays one until it has ended.
    pub fn poll_surplus_dead(&self, bound: usize) -> Option<(u64, u8)> {
        self.dead.first().filter(|_| self.dead.len() > bound).map(|letter| (letter.handle, letter.target))
    }

    /// Forgets the event's bytes in memory, unless other targets may still hold them: what is held is
    /// counted here. It can be read back.
    pub fn uncache(&mut self, handle: u64) {
        let Some(live) = self.live.get_mut(handle) else { return };
        let fresh = |target: &&TargetLife| matches!(target.state, DeliveryState::Open { attempt: 0, .. });
        if live.targets.iter().any(|target| fresh(&target)) {
            return;
        }
        if let Some(bytes) = live.bytes.take() {
            self.cached_bytes -= bytes.len();
        }
    }

    /// A live event.
    pub fn live(&self, handle: u64) -> Option<&Live> {
        self.live.get(handle)
    }

    /// Handles of all live events, oldest record first.
    pub fn handles(&self) -> impl Iterator<Item = (Sequence, u64)> {
        self.by_record.iter().copied()
    }

    /// The oldest record that is still needed.
    pub fn oldest(&self) -> Option<Sequence> {
        self.by_record.first().map(|(record, _)| *record)
    }

    /// Events that are not done.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Targets that are not done, dead letters included, over all events.
    pub fn deliveries(&self) -> usize {
        self.deliveries
    }

    /// Whether nothing is left to do or to keep.
    pub fn is_empty(&self) -> bool {
        self.live.len() == 0
    }

    /// Dead letters.
    pub fn dead_len(&self) -> usize {
        self.dead.len()
    }

    /// Event bytes in memory.
    pub fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }

    /// What the journal needs for the events that are not done, about.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// The newest checkpoint that recovery read.
    pub fn checkpoint(&self) -> Option<Sequence> {
        self.checkpoint
    }

    /// How far each stream's events are in this journal.
    pub fn streams(&self) -> &BTreeMap<StreamId, u64> {
        &self.streams
    }

    fn advance(&mut self, stream: StreamId, link_sequence: u64) {
        if link_sequence > 0 {
            let known = self.streams.entry(stream).or_default();
            *known = (*known).max(link_sequence);
        }
    }

    fn life_mut(&mut self, handle: u64, target: u8) -> Option<&mut TargetLife> {
        self.live.get_mut(handle)?.targets.get_mut(usize::from(target))
    }

    fn target_life(&mut self, name: &str, replay: u8) -> TargetLife {
        if name.is_empty() {
            return TargetLife { name: Arc::from(""), state: DeliveryState::Done, replay, order_key: 0 };
        }
        let known = self.names.get(name).cloned().unwrap_or_else(|| {
            let name: Arc<str> = Arc::from(name);
            self.names.insert(Arc::clone(&name));
            name
        });
        let state = DeliveryState::Open { attempt: 0, due_ms: 0 };
        TargetLife { name: known, state, replay, order_key: 0 }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::journal::SegmentId;

    fn held<'a>(
        payload: &'a mut Vec<u8>,
        link_sequence: u64,
        handle: u64,
        targets: &[&str],
    ) -> HeldEvent<'a> {
        HeldEvent::encode_head(payload, &[1; 16], link_sequence, handle, 0, targets.iter().copied());
        payload.extend_from_slice(b"event");
        HeldEvent::decode(payload).unwrap()
    }

    #[test]
    fn an_event_lives_until_its_last_target_is_done() {
        let mut table = Table::default();
        table.insert(Sequence(10), &held(&mut Vec::new(), 4, 0, &["a", "b"]), None);
        assert!(!table.end(&OutcomeRecord::new(10, 0, Ending::Delivered), 1_000));
        assert_eq!(table.oldest(), Some(Sequence(10)));
        assert_eq!(table.live_bytes(), 64 + 2 + 2 + 5);
        assert!(table.end(&OutcomeRecord::new(10, 1, Ending::Delivered), 1_000));
        assert_eq!((table.len(), table.oldest(), table.live_bytes()), (0, None, 0));
        assert_eq!(table.streams().get(&[1; 16]), Some(&4));
        assert!(
            !table.end(&OutcomeRecord::new(10, 1, Ending::Delivered), 1_000),
            "an end twice changes nothing"
        );
    }

    #[test]
    fn a_carried_event_keeps_its_handle_and_its_state() {
        let mut table = Table::default();
        table.insert(Sequence(10), &held(&mut Vec::new(), 4, 0, &["a", "b"]), None);
        table.end(&OutcomeRecord::new(10, 0, Ending::Delivered), 1_000);
        table.retry(10, 1, 3, 99);
        table.insert(Sequence(50), &held(&mut Vec::new(), 0, 10, &["", "b"]), None);
        assert_eq!((table.oldest(), table.live_bytes()), (Some(Sequence(50)), 64 + 2 + 2 + 5));
        let live = table.live(10).unwrap();
        assert_eq!(live.targets[0].state, DeliveryState::Done);
        assert_eq!(live.targets[1].state, DeliveryState::Open { attempt: 3, due_ms: 99 });
        assert_eq!(table.streams().get(&[1; 16]), Some(&4), "a carried record does not move the stream");
    }

    #[test]
    fn dead_letters_are_kept_up_to_the_bound_and_oldest_go_first() {
        let mut table = Table::default();
        for sequence in 1..=3 {
            table.insert(Sequence(sequence), &held(&mut Vec::new(), sequence, 0, &["a"]), None);
            assert!(!table.end(&OutcomeRecord::new(sequence, 0, Ending::Dead), 1_000));
        }
        assert_eq!((table.len(), table.dead_len()), (3, 3));
        assert_eq!(table.poll_surplus_dead(2), Some((1, 0)));
        assert!(table.end(&OutcomeRecord::new(1, 0, Ending::Dropped), 1_000));
        assert_eq!(table.dead_len(), 2);
        assert_eq!(table.poll_surplus_dead(2), None);
        assert_eq!(table.oldest(), Some(Sequence(2)));
    }

    #[test]
    fn a_dead_letter_that_was_dropped_before_a_restart_does_not_count() {
        let (mut table, mut payload) = (Table::default(), Vec::new());
        held(&mut payload, 1, 0, &["a", "b"]);
        let dead = OutcomeRecord::new(7, 1, Ending::Dead).encode();
        let dropped = OutcomeRecord::new(7, 1, Ending::Dropped).encode();
        let records = [(Kind::Event, &payload[..]), (Kind::Outcome, &dead), (Kind::Outcome, &dropped)];
        for (sequence, (kind, payload)) in (7..).map(Sequence).zip(records) {
            let segment = SegmentId(1);
            let record = Record { sequence, kind, time_ms: 0, payload, segment, offset: 0 };
            table.handle_recovered(&record, |due_ms, _| due_ms).unwrap();
        }
        assert_eq!((table.len(), table.dead_len(), table.poll_surplus_dead(0)), (1, 0, None));
        assert!(table.end(&OutcomeRecord::new(7, 0, Ending::Delivered), 1_000));
    }

    #[test]
    fn a_replayed_letter_is_open_again_and_dies_behind_those_that_were_there() {
        let mut table = Table::default();
        for sequence in 1..=3 {
            table.insert(Sequence(sequence), &held(&mut Vec::new(), sequence, 0, &["a"]), None);
            table.end(&OutcomeRecord::new(sequence, 0, Ending::Dead), 100);
        }
        let newest = table.close_letters().unwrap();
        assert_eq!((newest.handle, newest.died_ms), (3, 100));
        assert_eq!(table.replay(1, 0, 7), Some(1));
        assert_eq!(table.live(1).unwrap().targets[0].state, DeliveryState::Open { attempt: 0, due_ms: 7 });
        assert_eq!(table.replay(1, 0, 7), None, "it is no dead letter now");
        table.end(&OutcomeRecord::new(1, 0, Ending::Dead), 90);
        let handles: Vec<u64> = table.letters(None).map(|letter| letter.handle).collect();
        assert_eq!(handles, [2, 3, 1]);
        assert_eq!(
            table.letters(Some(newest)).count(),
            1,
            "the clock went back, it is behind them all the same"
        );
        assert_eq!(table.replay(1, 0, 7), Some(2));
        assert_eq!((table.letter(1, 0), table.dead_len()), (None, 2));
        assert!(table.end(&OutcomeRecord::new(2, 0, Ending::Discarded), 0));
        assert_eq!((table.letter(2, 0), table.replay(2, 0, 7), table.dead_len()), (None, None, 1));
    }
}
