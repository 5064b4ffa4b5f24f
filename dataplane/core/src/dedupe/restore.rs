//! Seen keys at start, from index records and journal records, in any order and as often as they are found.

use super::seen::{Entry, Seen};
use super::{Counters, EventKey, IndexEntry, Limits, LimitsError, Shard};
use crate::id::EventId;

/// A shard that is being filled.
#[derive(Debug)]
pub struct Restore {
    limits: Limits,
    seen: Seen,
    counters: Counters,
}

impl Restore {
    /// Nothing yet, at `now_ms` (Unix).
    pub fn new(limits: &Limits, now_ms: u64) -> Result<Self, LimitsError> {
        limits.check()?;
        let mut seen = Seen::new(limits);
        seen.advance(now_ms);
        Ok(Self { limits: *limits, seen, counters: Counters::default() })
    }

    /// An event of `key` became durable at `time_ms`. Of several the earliest counts, of two at the same
    /// time the one told first. A time to come is taken as now; what is over is left out.
    pub fn handle_entry(&mut self, key: EventKey, event_id: EventId, time_ms: u64) {
        let clock = self.seen.clock;
        let bucket = clock.bucket_at(time_ms).min(clock.now());
        let age = clock.now() - bucket;
        if clock.is_over(age) {
            return;
        }
        let entry = Entry { key, event_id, bucket: (bucket as u16).to_le_bytes() };
        let entries = &mut self.seen.entries;
        if let Some(position) = self.seen.index.find(&key, |at| entries[at as usize].key == key) {
            let held = &mut entries[position as usize];
            if age > clock.age(held) {
                *held = entry;
            }
            return;
        }
        if entries.len() == self.limits.keys_max as usize {
            self.make_room();
        }
        self.seen.entries.push(entry);
        self.seen.index.insert(&key, (self.seen.entries.len() - 1) as u32);
    }

    /// As [`Restore::handle_entry`], for an entry of an index record.
    pub fn handle_index_entry(&mut self, entry: &IndexEntry) {
        self.handle_entry(entry.key, entry.event_id, entry.time_ms);
    }

    /// The shard, ready for arrivals.
    pub fn finish(mut self) -> Shard {
        self.sort();
        Shard::with_seen(&self.limits, self.seen.in_order(), self.counters)
    }

    /// The oldest eighth leaves early, at once: sorting for one key at a time would take for ever.
    fn make_room(&mut self) {
        let leaving = self.seen.entries.len().div_ceil(8);
        self.seen.entries.sort_unstable_by_key(|entry| core::cmp::Reverse(self.seen.clock.age(entry)));
        self.seen.entries.drain(..leaving);
        self.counters.evicted_early += leaving as u64;
        self.rebuild_index();
    }

    fn sort(&mut self) {
        self.seen.entries.sort_unstable_by_key(|entry| core::cmp::Reverse(self.seen.clock.age(entry)));
        self.rebuild_index();
    }

    fn rebuild_index(&mut self) {
        self.seen.index.clear();
        for (position, entry) in self.seen.entries.iter().enumerate() {
            self.seen.index.insert(&entry.key, position as u32);
        }
    }
}
