//! The events at the egress that are not done: which targets are open, and where the record is.
//!
//! A handle names an event for good: the sequence of its first record. When the record is carried
//! forward to a newer segment, the handle stays and the record moves. Records of the egress's journal enter,
//! from recovery or as they are written, and endings; open deliveries and the oldest record needed leave.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;

use smallvec::SmallVec;

use crate::event::Event;
use crate::id::EventId;
use crate::journal::{Kind, Record, Sequence};
use crate::record::{
    Ending, HeldEvent, OutcomeRecord, RecordError, RetryRecord, StreamId, decode_checkpoint,
};

/// An event's encoding, shared by all its deliveries.
pub type EventBytes = Arc<[u8]>;

/// Bytes of an event's record beside the event and the targets' names.
const RECORD_BYTES: usize = 64;

/// Room that an ordered map takes for an entry, entries: its nodes are five elevenths full at least, and point at each other.
const ORDERED_ROOM: usize = 3;
/// A live event with one target, bytes: entry with its target, order, dead letter.
pub const LIVE_BYTES: usize = ORDERED_ROOM * (8 + size_of::<Live>()) + 48 + 2 * size_of::<(u64, u8)>();

/// One target of an event.
#[derive(Clone, Debug)]
pub struct TargetLife {
    /// Its name.
    pub name: Arc<str>,
    /// How far it is.
    pub state: DeliveryState,
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
    Dead,
    /// Delivered, or dropped.
    Done,
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
    record_bytes: u64,
}

/// All events of one worker that are not done.
#[derive(Debug, Default)]
pub struct Table {
    live: BTreeMap<u64, Live>,
    by_record: BTreeSet<(Sequence, u64)>,
    dead: VecDeque<(u64, u8)>,
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
                self.end(outcome.handle, outcome.target, outcome.ending);
            }
            Kind::Retry => {
                let retry = RetryRecord::decode(record.payload)?;
                let due_ms = due(retry.due_ms, record.time_ms);
                self.retry(retry.handle, retry.target, retry.attempt, due_ms);
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
        if let Some(live) = self.live.get_mut(&handle) {
            self.by_record.remove(&(live.record, handle));
            live.record = record;
            self.by_record.insert((record, handle));
            return;
        }
        let targets: SmallVec<[TargetLife; 1]> =
            held.targets.iter().map(|name| self.target_life(name)).collect();
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
        let live = Live { record, stream, targets, bytes, bytes_len, id, record_bytes };
        self.live.insert(handle, live);
    }

    /// A delivery ended. Returns whether the event is done and gone.
    pub fn end(&mut self, handle: u64, target: u8, ending: Ending) -> bool {
        let Some(live) = self.live.get_mut(&handle) else {
            return false;
        };
        let Some(life) = live.targets.get_mut(usize::from(target)) else {
            return false;
        };
        match ending {
            Ending::Dead if life.state != DeliveryState::Dead => {
                life.state = DeliveryState::Dead;
                self.dead.push_back((handle, target));
            }
            Ending::Dead => {}
            Ending::Delivered | Ending::Dropped => {
                let before = core::mem::replace(&mut life.state, DeliveryState::Done);
                self.deliveries -= usize::from(before != DeliveryState::Done);
                if before == DeliveryState::Dead {
                    // Mostly the oldest; also when recovery reads of it.
                    let at = self.dead.iter().position(|letter| *letter == (handle, target));
                    self.dead.remove(at.expect("every dead letter is in the queue"));
                }
            }
        }
        if live.targets.iter().any(|target| target.state != DeliveryState::Done) {
            return false;
        }
        let live = self.live.remove(&handle).expect("it was there just now");
        self.by_record.remove(&(live.record, handle));
        self.cached_bytes -= live.bytes.map_or(0, |bytes| bytes.len());
        self.live_bytes -= live.record_bytes;
        true
    }

    /// A delivery was put off.
    pub fn retry(&mut self, handle: u64, target: u8, attempt: u32, due_ms: u64) {
        let life = self.live.get_mut(&handle).and_then(|live| live.targets.get_mut(usize::from(target)));
        if let Some(life) = life
            && life.state != DeliveryState::Done
        {
            life.state = DeliveryState::Open { attempt, due_ms };
        }
    }

    /// The oldest dead letter while there are more than `bound`; it stays one until it has ended.
    pub fn poll_surplus_dead(&self, bound: usize) -> Option<(u64, u8)> {
        self.dead.front().filter(|_| self.dead.len() > bound).copied()
    }

    /// Forgets the event's bytes in memory, unless other targets may still hold them: what is held is
    /// counted here. It can be read back.
    pub fn uncache(&mut self, handle: u64) {
        let Some(live) = self.live.get_mut(&handle) else { return };
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
        self.live.get(&handle)
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
        self.live.is_empty()
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

    fn target_life(&mut self, name: &str) -> TargetLife {
        if name.is_empty() {
            return TargetLife { name: Arc::from(""), state: DeliveryState::Done };
        }
        let known = self.names.get(name).cloned().unwrap_or_else(|| {
            let name: Arc<str> = Arc::from(name);
            self.names.insert(Arc::clone(&name));
            name
        });
        TargetLife { name: known, state: DeliveryState::Open { attempt: 0, due_ms: 0 } }
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
        HeldEvent::encode_head(payload, &[1; 16], link_sequence, handle, targets.iter().copied());
        payload.extend_from_slice(b"event");
        HeldEvent::decode(payload).unwrap()
    }

    #[test]
    fn an_event_lives_until_its_last_target_is_done() {
        let mut table = Table::default();
        table.insert(Sequence(10), &held(&mut Vec::new(), 4, 0, &["a", "b"]), None);
        assert!(!table.end(10, 0, Ending::Delivered));
        assert_eq!(table.oldest(), Some(Sequence(10)));
        assert_eq!(table.live_bytes(), 64 + 2 + 2 + 5);
        assert!(table.end(10, 1, Ending::Delivered));
        assert_eq!((table.len(), table.oldest(), table.live_bytes()), (0, None, 0));
        assert_eq!(table.streams().get(&[1; 16]), Some(&4));
        assert!(!table.end(10, 1, Ending::Delivered), "an end twice changes nothing");
    }

    #[test]
    fn a_carried_event_keeps_its_handle_and_its_state() {
        let mut table = Table::default();
        table.insert(Sequence(10), &held(&mut Vec::new(), 4, 0, &["a", "b"]), None);
        table.end(10, 0, Ending::Delivered);
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
            assert!(!table.end(sequence, 0, Ending::Dead));
        }
        assert_eq!((table.len(), table.dead_len()), (3, 3));
        assert_eq!(table.poll_surplus_dead(2), Some((1, 0)));
        assert!(table.end(1, 0, Ending::Dropped));
        assert_eq!(table.dead_len(), 2);
        assert_eq!(table.poll_surplus_dead(2), None);
        assert_eq!(table.oldest(), Some(Sequence(2)));
    }

    #[test]
    fn a_dead_letter_that_was_dropped_before_a_restart_does_not_count() {
        let (mut table, mut payload) = (Table::default(), Vec::new());
        held(&mut payload, 1, 0, &["a", "b"]);
        let dead = OutcomeRecord { handle: 7, target: 1, ending: Ending::Dead }.encode();
        let dropped = OutcomeRecord { handle: 7, target: 1, ending: Ending::Dropped }.encode();
        let records = [(Kind::Event, &payload[..]), (Kind::Outcome, &dead), (Kind::Outcome, &dropped)];
        for (sequence, (kind, payload)) in (7..).map(Sequence).zip(records) {
            let segment = SegmentId(1);
            let record = Record { sequence, kind, time_ms: 0, payload, segment, offset: 0 };
            table.handle_recovered(&record, |due_ms, _| due_ms).unwrap();
        }
        assert_eq!((table.len(), table.dead_len(), table.poll_surplus_dead(0)), (1, 0, None));
        assert!(table.end(7, 0, Ending::Delivered));
    }
}
