//! Seen keys in the order in which they became so: a ring of entries, found through the index.
//!
//! The oldest entry is always at the end of the ring, so expiry takes keys from there and scans nothing.
//! An expired key is absent from the moment its time is over, whether or not its entry is still there.

use alloc::vec::Vec;

use super::index::Index;
use super::{EventKey, IndexEntry, Limits};
use crate::id::EventId;

/// 34 bytes: all fields are bytes, so nothing is padded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: EventKey,
    pub(super) event_id: EventId,
    /// Low bits of the bucket's number; see [`Clock`].
    pub(super) bucket: [u8; 2],
}

const _: () = assert!(size_of::<Entry>() == 34);

/// Bytes of the ring for so many keys.
pub(super) const fn memory_bytes(keys_max: u32) -> usize {
    keys_max as usize * size_of::<Entry>()
}

/// Time in buckets, never backwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    bucket_ms: u64,
    age_max: u64,
    now: u64,
}

impl Clock {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { bucket_ms: limits.bucket_ms(), age_max: limits.age_max(), now: 0 }
    }

    pub(super) fn bucket_at(&self, time_ms: u64) -> u64 {
        time_ms / self.bucket_ms
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Moves to a later bucket. No entry may be older there than 16 bits can say.
    pub(super) fn advance(&mut self, bucket: u64) {
        self.now = self.now.max(bucket);
    }

    /// Buckets since the entry's.
    pub(super) fn age(&self, entry: &Entry) -> u64 {
        u64::from((self.now as u16).wrapping_sub(u16::from_le_bytes(entry.bucket)))
    }

    pub(super) fn is_over(&self, age: u64) -> bool {
        age > self.age_max
    }

    /// The last ms of the entry's bucket: it falls into the same bucket when it is read again.
    fn time_ms(&self, entry: &Entry) -> u64 {
        let bucket = self.now - self.age(entry);
        bucket.saturating_mul(self.bucket_ms).saturating_add(self.bucket_ms - 1)
    }
}

/// How a key left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Its window was over; whoever asked since was told that it is absent.
    Expired,
    /// Its place was needed.
    Early,
    /// It had left before; only its entry was still there.
    Before,
}

/// At most `keys_max` seen keys.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) entries: Vec<Entry>,
    keys_max: u32,
    pub(super) index: Index,
    pub(super) clock: Clock,
    /// Number of the oldest entry; entry `n` is at `n % keys_max`.
    first: u64,
    /// Number of the next entry.
    next: u64,
}

impl Seen {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            entries: Vec::with_capacity(limits.keys_max as usize),
            keys_max: limits.keys_max,
            index: Index::new(limits.keys_max),
            clock: Clock::new(limits),
            first: 0,
            next: 0,
        }
    }

    /// A ring whose entries are in order from the start.
    pub(super) fn in_order(mut self) -> Self {
        self.first = 0;
        self.next = self.entries.len() as u64;
        self
    }

    /// Keys that are found; expired ones are among them until somebody asks or they are removed.
    pub(super) fn held(&self) -> u32 {
        self.index.held()
    }

    /// Number of the next entry.
    pub(super) fn mark(&self) -> u64 {
        self.next
    }

    /// Lets time pass and returns how many keys had to leave for it, all expired.
    pub(super) fn advance(&mut self, now_ms: u64) -> u64 {
        let bucket = self.clock.bucket_at(now_ms);
        let mut expired = 0;
        // Buckets are known by 16 bits: none may stay that is further back than they reach.
        while let Some(oldest) = self.oldest() {
            let age = bucket.saturating_sub(self.clock.now()) + self.clock.age(&oldest);
            if u16::try_from(age).is_ok() {
                break;
            }
            expired += u64::from(self.remove_oldest() != Left::Before);
        }
        self.clock.advance(bucket);
        expired
    }

    /// The first event of `key`, if the key is not over.
    pub(super) fn find(&self, key: &EventKey) -> Option<EventId> {
        let entry = &self.entries[self.position(key)? as usize];
        (!self.clock.is_over(self.clock.age(entry))).then_some(entry.event_id)
    }

    /// Removes `key` if its time is over; true if it was there.
    pub(super) fn remove_expired(&mut self, key: &EventKey) -> bool {
        let Some(position) = self.position(key) else { return false };
        debug_assert!(self.clock.is_over(self.clock.age(&self.entries[position as usize])));
        self.index.remove(key, position)
    }

    /// Adds a key that is not there. Says how another left for it, if one did.
    pub(super) fn insert(&mut self, key: EventKey, event_id: EventId) -> Option<Left> {
        let full = self.next - self.first == u64::from(self.keys_max);
        let left = full.then(|| self.remove_oldest());
        let entry = Entry { key, event_id, bucket: (self.clock.now() as u16).to_le_bytes() };
        let position = self.place(self.next);
        if position == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[position] = entry;
        }
        self.index.insert(&key, position as u32);
        self.next += 1;
        left
    }

    /// Removes the oldest entry if its time is over.
    pub(super) fn remove_one_expired(&mut self) -> Option<Left> {
        let oldest = self.oldest()?;
        self.clock.is_over(self.clock.age(&oldest)).then(|| self.remove_oldest())
    }

    /// Keys that are not over and became seen at or after `mark`, oldest first.
    pub(super) fn since(&self, mark: u64) -> impl Iterator<Item = IndexEntry> {
        let entries = (mark.max(self.first)..self.next).map(|number| &self.entries[self.place(number)]);
        entries.filter(|entry| !self.clock.is_over(self.clock.age(entry))).map(|entry| IndexEntry {
            key: entry.key,
            event_id: entry.event_id,
            time_ms: self.clock.time_ms(entry),
        })
    }

    /// Bytes in use.
    pub(super) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.index.memory_bytes()
    }

    fn position(&self, key: &EventKey) -> Option<u32> {
        self.index.find(key, |position| self.entries[position as usize].key == *key)
    }

    fn place(&self, number: u64) -> usize {
        (number % u64::from(self.keys_max)) as usize
    }

    fn oldest(&self) -> Option<Entry> {
        (self.first < self.next).then(|| self.entries[self.place(self.first)])
    }

    fn remove_oldest(&mut self) -> Left {
        assert!(self.first < self.next, "only an entry that is there is removed");
        let position = self.place(self.first);
        let entry = self.entries[position];
        self.first += 1;
        if !self.index.remove(&entry.key, position as u32) {
            return Left::Before;
        }
        if self.clock.is_over(self.clock.age(&entry)) { Left::Expired } else { Left::Early }
    }
}
