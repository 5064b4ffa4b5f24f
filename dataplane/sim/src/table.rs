//! The events at an egress that are not done; the node's table of live events, in small.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use zen_core::journal::{Kind, Record, Sequence};
use zen_core::record::{Ending, HeldEvent, OutcomeRecord, RetryRecord, StreamId, decode_checkpoint};

use crate::checker::number;

/// How far a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// To be tried, with attempts made and when the next is due, Unix ms.
    Open { attempt: u32, due_ms: u64 },
    /// Over.
    Done,
}

/// An event that is not done.
#[derive(Debug)]
pub struct Live {
    /// Where its record is now.
    pub record: Sequence,
    /// Its stream.
    pub stream: StreamId,
    /// Its targets, in the order of the record.
    pub targets: Vec<(usize, Life)>,
    /// The event, unless it must be read from the journal.
    pub bytes: Option<Rc<[u8]>>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    live: BTreeMap<u64, Live>,
    by_record: BTreeSet<(Sequence, u64)>,
    streams: BTreeMap<StreamId, u64>,
    live_bytes: BTreeMap<u64, u64>,
}

impl Table {
    /// Takes a record that recovery read; order is that of the journal.
    pub fn handle_recovered(&mut self, record: &Record<'_>) {
        const OURS: &str = "an egress encodes its records";
        match record.kind {
            Kind::Event => {
                self.insert(record.sequence, &HeldEvent::decode(record.payload).expect(OURS), None);
            }
            Kind::Outcome => {
                let outcome = OutcomeRecord::decode(record.payload).expect(OURS);
                self.end(outcome.handle, usize::from(outcome.target), outcome.ending);
            }
            Kind::Retry => {
                let RetryRecord { handle, target, attempt, due_ms } =
                    RetryRecord::decode(record.payload).expect(OURS);
                self.retry(handle, usize::from(target), attempt, due_ms);
            }
            Kind::Checkpoint => {
                for (stream, sequence) in decode_checkpoint(record.payload).expect(OURS) {
                    self.advance(stream, sequence);
                }
            }
            Kind::Dead | Kind::Other(_) => {}
        }
    }

    /// Puts an event in, or moves it to a newer record.
    pub fn insert(&mut self, record: Sequence, held: &HeldEvent<'_>, bytes: Option<Rc<[u8]>>) {
        self.advance(held.stream, held.link_sequence);
        let handle = if held.handle == 0 { record.0 } else { held.handle };
        if let Some(live) = self.live.get_mut(&handle) {
            self.by_record.remove(&(live.record, handle));
            live.record = record;
            self.by_record.insert((record, handle));
            return;
        }
        let life = |name: &str| match name {
            "" => (0, Life::Done),
            name => (number(name), Life::Open { attempt: 0, due_ms: 0 }),
        };
        let targets: Vec<(usize, Life)> = held.targets.iter().map(life).collect();
        if targets.iter().any(|(_, life)| *life != Life::Done) {
            self.by_record.insert((record, handle));
            self.live_bytes.insert(handle, held.event.len() as u64 + 128);
            self.live.insert(handle, Live { record, stream: held.stream, targets, bytes });
        }
    }

    /// A delivery ended.
    pub fn end(&mut self, handle: u64, target: usize, _: Ending) {
        let Some(live) = self.live.get_mut(&handle) else { return };
        live.targets[target].1 = Life::Done;
        if live.targets.iter().all(|(_, life)| *life == Life::Done) {
            self.by_record.remove(&(live.record, handle));
            self.live.remove(&handle);
            self.live_bytes.remove(&handle);
        }
    }

    /// A delivery was put off.
    pub fn retry(&mut self, handle: u64, target: usize, attempt: u32, due_ms: u64) {
        let life = self.live.get_mut(&handle).map(|live| &mut live.targets[target].1);
        if let Some(life) = life.filter(|life| **life != Life::Done) {
            *life = Life::Open { attempt, due_ms };
        }
    }

    /// Keeps an event in memory: its newest record may not be on disk yet.
    pub fn cache(&mut self, handle: u64, event: &[u8]) {
        if let Some(live) = self.live.get_mut(&handle) {
            live.bytes.get_or_insert_with(|| event.into());
        }
    }

    /// A live event.
    pub fn live(&self, handle: u64) -> Option<&Live> {
        self.live.get(&handle)
    }

    /// Handles of live events, oldest record first.
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

    /// What the journal needs for them, about.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes.values().sum()
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
}
