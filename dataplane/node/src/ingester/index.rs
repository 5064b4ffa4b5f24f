//! The index journal: keys of accepted events, kept for the window when the events themselves are trimmed.
//!
//! A key is in its event's record. Before the segment with that record may go, the key is written here, with
//! others. Records are trimmed when all their keys are over, or when there are far more than the table
//! can hold. At start both journals are read, so the table is what it was.

use std::collections::VecDeque;
use std::sync::Arc;

use zen_core::dedupe::{INDEX_ENTRIES_MAX, IndexEntry, IndexError, IndexRecord, encode_index};
use zen_core::id::EventId;
use zen_core::journal::{AppendError, COMMITS_IN_FLIGHT_MAX, Kind, Record, Sequence};
use zen_core::record::decode_key;
use zen_uring::Reactor;

use crate::clock::Clock;
use crate::config::{IdempotencySettings, JournalSettings};
use crate::dedupe::{Keys, LOG_EVERY_MS};
use crate::journal::Journal;

/// Keys that may wait to be written before events are refused.
const BACKLOG_MAX: usize = 4 * INDEX_ENTRIES_MAX;
/// Bytes of a key in an index record.
const ENTRY_BYTES: u64 = 40;
const COMMIT_BYTES_MAX: usize = 256 * 1024;
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Segments that a full table is spread over.
const SEGMENTS: u64 = 16;
/// Records are not always full: the journal may take this many times what the table's keys need.
const BYTES_PER_KEY_FACTOR: u64 = 4;

/// One worker's index: commits, keys that wait for room twice over, and a record that is being made.
pub const INDEX_BYTES: usize = (COMMITS_IN_FLIGHT_MAX + 1) * COMMIT_BYTES_MAX
    + 2 * BACKLOG_MAX * size_of::<(Sequence, IndexEntry)>()
    + INDEX_ENTRIES_MAX * ENTRY_BYTES as usize;

/// What recovery of a worker's two journals learns about keys.
pub struct Recovering {
    keys: Arc<Keys>,
    window_ms: u64,
    /// Index records, and when the newest key of each became seen.
    records: VecDeque<(Sequence, u64)>,
    /// The newest event whose key is in the index.
    last: Option<EventId>,
    /// Keys of events behind that one.
    backlog: VecDeque<(Sequence, IndexEntry)>,
    error: Option<IndexError>,
}

impl Recovering {
    /// Keys go to the table; first those of the index journal, then those of the events.
    pub fn new(keys: Arc<Keys>, window_ms: u64) -> Self {
        Self { keys, window_ms, records: VecDeque::new(), last: None, backlog: VecDeque::new(), error: None }
    }

    /// A record of the index journal.
    pub fn handle_index(&mut self, record: &Record<'_>) {
        if record.kind != Kind::Index {
            return;
        }
        match IndexRecord::decode(record.payload, self.keys.hasher()) {
            Ok(index) => {
                index.entries().for_each(|entry| self.keys.restore(&entry));
                let newest_ms = index.entries().map(|entry| entry.time_ms).max().unwrap_or(0);
                self.last = index.entries().last().map(|entry| entry.event_id).or(self.last);
                self.records.push_back((record.sequence, newest_ms));
            }
            Err(error) => self.error = Some(error),
        }
    }

    /// A record of the journal of events.
    pub fn handle_event(&mut self, record: &Record<'_>) {
        if record.kind != Kind::Event {
            return;
        }
        let (Ok(Some(key)), Some(event_id)) =
            (decode_key(record.payload), zen_core::record::decode_event_id(record.payload))
        else {
            return;
        };
        let entry = IndexEntry { key, event_id, time_ms: record.time_ms };
        self.keys.restore(&entry);
        // Keys are written in the order of their events: everything up to this one is in the index.
        if self.last == Some(event_id) {
            self.backlog.clear();
        } else {
            self.backlog.push_back((record.sequence, entry));
        }
    }

    /// Why the index cannot be used.
    pub fn error(&self) -> Option<IndexError> {
        self.error
    }

    /// Whether a key is left whose window is not over at `now_ms`.
    pub fn has_keys(&self, now_ms: u64) -> bool {
        self.records.iter().any(|(_, newest_ms)| !is_over(*newest_ms, self.window_ms, now_ms))
    }
}

/// One worker's index.
pub struct Index {
    keys: Arc<Keys>,
    journal: Journal,
    settings: JournalSettings,
    window_ms: u64,
    records: VecDeque<(Sequence, u64)>,
    /// Keys of durable events that are not in a record, in the order of their events.
    backlog: VecDeque<(Sequence, IndexEntry)>,
    /// Records that are not durable, and the first event of each.
    in_flight: VecDeque<(Sequence, Sequence)>,
    payload: Vec<u8>,
    /// When it was last said that the oldest keys go.
    logged_ms: u64,
}

impl Index {
    /// Over the index journal and what recovery found in it and in the journal of events.
    pub fn new(journal: Journal, settings: JournalSettings, recovered: Recovering) -> Self {
        let Recovering { keys, window_ms, records, backlog, .. } = recovered;
        Self {
            keys,
            journal,
            settings,
            window_ms,
            records,
            backlog,
            in_flight: VecDeque::new(),
            payload: Vec::new(),
            logged_ms: 0,
        }
    }

    /// Bounds of the index journal of one worker of a node.
    pub fn settings(journal: &JournalSettings, table: &IdempotencySettings, workers: u16) -> JournalSettings {
        let bytes = u64::from(table.keys_max).div_ceil(u64::from(workers)) * ENTRY_BYTES;
        let segment_bytes = (bytes / SEGMENTS)
            .next_multiple_of(SEGMENT_BYTES_MIN)
            .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let segments = (BYTES_PER_KEY_FACTOR * bytes).div_ceil(segment_bytes) + 4;
        JournalSettings {
            segment_bytes,
            bytes_max: segments * segment_bytes,
            commit_bytes_max: COMMIT_BYTES_MAX,
            recent_bytes_max: 0,
            on_damage: journal.on_damage,
        }
    }

    /// The event at `sequence` is durable, and this is its key.
    pub fn handle_durable(&mut self, sequence: Sequence, entry: IndexEntry) {
        debug_assert!(self.backlog.back().is_none_or(|(last, _)| *last < sequence));
        self.backlog.push_back((sequence, entry));
    }

    /// Writes keys when there are enough for a record, or when the segment of their events could go.
    pub fn commit(&mut self, reactor: &mut Reactor, events: &Journal, clock: Clock, flush: Flush) {
        let now_ms = clock.wall_ms;
        self.journal.handle_time(reactor, clock.steady_ms);
        while self.backlog.front().is_some_and(|(oldest, _)| {
            flush == Flush::All || self.backlog.len() >= INDEX_ENTRIES_MAX || !events.is_current(*oldest)
        }) {
            if self.append(now_ms).is_err() {
                break;
            }
        }
        self.journal.commit(reactor, now_ms);
        let durable = self.journal.durable();
        while self.in_flight.pop_front_if(|(record, _)| *record <= durable).is_some() {}
    }

    /// Frees segments whose keys are over, or too many.
    pub fn trim(&mut self, reactor: &mut Reactor, now_ms: u64) {
        let window_ms = self.window_ms;
        let mut up_to = Sequence(0);
        while let Some((record, _)) =
            self.records.pop_front_if(|(_, newest_ms)| is_over(*newest_ms, window_ms, now_ms))
        {
            up_to = record;
        }
        if is_at_bound(self.journal.bytes_live(), &self.settings)
            && let Some(oldest) = self.journal.oldest_segment()
        {
            if now_ms.saturating_sub(self.logged_ms) >= LOG_EVERY_MS {
                self.logged_ms = now_ms;
                tracing::warn!(
                    "the index of keys is at its bound: after a restart its oldest keys are not known"
                );
            }
            up_to = up_to.max(oldest.last);
        }
        if up_to > Sequence(0) {
            while self.records.pop_front_if(|(record, _)| *record <= up_to).is_some() {}
            self.journal.trim(reactor, up_to.min(self.journal.durable()));
        }
    }

    /// Up to where the journal of events may be trimmed; none when the index lacks nothing.
    pub fn holds(&self) -> Option<Sequence> {
        let first = self.in_flight.front().map(|(_, event)| *event);
        let first = first.or(self.backlog.front().map(|(event, _)| *event));
        first.map(|event| Sequence(event.0 - 1))
    }

    /// Whether more keys can be taken: else the disk does not take them.
    pub fn has_room(&self) -> bool {
        self.backlog.len() < BACKLOG_MAX
    }

    /// Whether every key that can be written is.
    pub fn is_quiet(&self) -> bool {
        let stuck = self.journal.can_append(0) == Err(AppendError::NoSegment);
        (stuck || self.backlog.is_empty()) && self.journal.open_records() == 0 && !self.journal.is_writing()
    }

    /// The journal, for completions.
    pub fn journal_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// One record of the oldest keys.
    fn append(&mut self, now_ms: u64) -> Result<(), AppendError> {
        self.payload.clear();
        let mut entries = self.backlog.iter().map(|(_, entry)| *entry);
        let count = encode_index(&mut self.payload, self.keys.hasher(), &mut entries);
        let record = self.journal.append(Kind::Index, now_ms, &[&self.payload])?;
        let newest_ms = self.backlog.range(..count).map(|(_, entry)| entry.time_ms).max().unwrap_or(now_ms);
        self.records.push_back((record, newest_ms));
        self.in_flight.push_back((record, self.backlog[0].0));
        self.backlog.drain(..count);
        Ok(())
    }
}

/// Which keys to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Those that have to be.
    Due,
    /// All: the node is about to end.
    All,
}

/// Whether the oldest segment has to go, so that keys can be written on.
fn is_at_bound(bytes_live: u64, settings: &JournalSettings) -> bool {
    bytes_live + 3 * settings.segment_bytes > settings.bytes_max
}

/// A key may stay two buckets longer than its window; an eighth more is beyond that.
fn is_over(time_ms: u64, window_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(time_ms) > window_ms + window_ms / 8
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use zen_core::journal::{Limits, Writer};

    use super::*;
    use crate::config::OnDamage;

    /// Far more keys than the table holds, in records that leave a rest at the end of each segment: sources
    /// must never wait for a window to be over.
    #[test]
    fn keys_can_be_written_for_ever() {
        let journal = JournalSettings {
            segment_bytes: 64 << 20,
            bytes_max: 4 << 30,
            commit_bytes_max: 8 << 20,
            recent_bytes_max: 0,
            on_damage: OnDamage::Refuse,
        };
        let tables = [(1_000, 1), (300_032, 3_800), (300_032, INDEX_ENTRIES_MAX), (4_194_304, 3_000)];
        for (keys_max, keys) in tables {
            let table = IdempotencySettings { keys_max, window_ms: u64::MAX / 2 };
            let settings = Index::settings(&journal, &table, 1);
            write_records(&settings, 64 + keys * ENTRY_BYTES as usize);
        }
    }

    /// One record a commit, until the journal's room was used up three times.
    fn write_records(settings: &JournalSettings, record_bytes: usize) {
        let limits = Limits {
            segment_bytes: settings.segment_bytes,
            commit_bytes_max: settings.commit_bytes_max,
            segments_max: (settings.bytes_max / settings.segment_bytes) as u32,
        };
        let mut writer = Writer::new(limits, [7; 16], |_, _| 0);
        let (mut open, payload) = (vec![0; settings.commit_bytes_max], vec![0; record_bytes]);
        let mut written = 0;
        while written < 3 * settings.bytes_max {
            while writer.segments_wanted() > 0 {
                writer.add_segment(writer.next_segment_id());
            }
            let bytes_live = writer.bytes_live();
            let appended = writer.append(&mut open, Kind::Index, 0, &[&payload]);
            appended.unwrap_or_else(|error| panic!("{error:?} at {bytes_live} bytes of {settings:?}"));
            let write = writer.seal(&mut open, 0).unwrap();
            written += write.bytes as u64;
            writer.handle_written(write.commit);
            if is_at_bound(writer.bytes_live(), settings) {
                let oldest = writer.live_segments().next().unwrap();
                writer.trim(oldest.last);
            }
        }
    }
}
