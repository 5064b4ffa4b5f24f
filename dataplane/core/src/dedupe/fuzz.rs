//! Asserting functions over arbitrary bytes, for the fuzz targets and the property tests.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{
    EventKey, INDEX_ENTRIES_MAX, IndexEntry, IndexRecord, KeyHasher, Limits, Restore, Shard, Verdict, Waiter,
    encode_index,
};
use crate::id::EventId;

/// Any bytes are a record or none, and a record is written as it was read.
pub fn fuzz_index_record(data: &[u8]) {
    let hasher = KeyHasher::new([1; 16]);
    assert!(IndexRecord::decode(data, &KeyHasher::new([2; 16])).is_err() || data[..8] != hasher.check());
    // Most inputs would fail the check of the hash key: it is put in front of them, too.
    let checked = [&hasher.check(), data].concat();
    for payload in [data, &checked] {
        let Ok(record) = IndexRecord::decode(payload, &hasher) else { continue };
        assert!(record.entries().len() <= INDEX_ENTRIES_MAX);
        let mut again = Vec::new();
        let count = encode_index(&mut again, &hasher, &mut record.entries());
        assert_eq!(count, record.entries().len());
        assert!(again == payload || count == 0);
    }
}

/// A sequence of operations, three bytes each, against a model that keeps lists.
pub fn fuzz_shard(data: &[u8]) {
    let Some((&[keys_max, window, pending_max, waiters], operations)) = data.split_first_chunk() else {
        return;
    };
    let limits = Limits {
        keys_max: u32::from(keys_max % 24) + 1,
        window_ms: [1, 60, 1024, 5000][usize::from(window % 4)],
        pending_max: u32::from(pending_max % 6) + 1,
        waiters_per_key_max: u32::from(waiters % 4),
        waiters_max: u32::from(waiters % 4) + u32::from(waiters / 64),
    };
    let mut model = Model::new(limits);
    for operation in operations.chunks_exact(3) {
        model.step(operation[0], operation[1], operation[2]);
        model.check();
    }
    model.finish();
}

struct Model {
    limits: Limits,
    shard: Shard,
    now_ms: u64,
    /// Keys that are not over, in the order in which they became seen: first event, and bucket.
    seen: Vec<(EventKey, EventId, u64)>,
    pending: BTreeMap<EventKey, (Waiter, Vec<Waiter>)>,
    evicted_early: u64,
    entered: u64,
    doubles: u64,
    next_name: u64,
}

impl Model {
    fn new(limits: Limits) -> Self {
        let shard = Shard::new(&limits).expect("the limits are in range");
        assert_eq!(shard.memory_bytes(), limits.memory_bytes());
        Self {
            limits,
            shard,
            now_ms: 0,
            seen: Vec::new(),
            pending: BTreeMap::new(),
            evicted_early: 0,
            entered: 0,
            doubles: 0,
            next_name: 0,
        }
    }

    fn step(&mut self, operation: u8, key: u8, argument: u8) {
        // Half of the keys share home and tag with all others of their kind.
        let key = match key % 32 {
            small @ 0..16 => EventKey([&[7; 15][..], &[small]].concat().try_into().expect("16 bytes")),
            large => EventKey([large.wrapping_mul(0x9d); 16]),
        };
        let told_ms = self.told_ms(argument);
        match operation % 16 {
            0..=5 => self.arrival(key, told_ms),
            6..=10 => self.durable(key, told_ms),
            11..=12 => self.failed(key, argument),
            13 => self.time(told_ms, usize::from(argument % 4)),
            14 => self.time(self.now_ms + (u64::from(argument) << (argument % 24)), usize::MAX),
            _ => self.restart(argument),
        }
    }

    /// Mostly a little later, sometimes earlier, which counts as no time passing.
    fn told_ms(&self, argument: u8) -> u64 {
        match argument % 8 {
            0 => self.now_ms / 2,
            1 => self.now_ms + self.limits.window_ms / 2,
            _ => self.now_ms + u64::from(argument / 8),
        }
    }

    fn at(&mut self, told_ms: u64) {
        self.now_ms = self.now_ms.max(told_ms);
        let (now, age_max) = (self.bucket(), self.limits.age_max());
        self.seen.retain(|entry| now - entry.2 <= age_max);
    }

    fn bucket(&self) -> u64 {
        self.now_ms / self.limits.bucket_ms()
    }

    fn first(&self, key: EventKey) -> Option<EventId> {
        self.seen.iter().find(|entry| entry.0 == key).map(|entry| entry.1)
    }

    fn name(&mut self) -> u64 {
        self.next_name += 1;
        self.next_name
    }

    fn arrival(&mut self, key: EventKey, told_ms: u64) {
        self.at(told_ms);
        let waiter = Waiter(self.name());
        let waiting: usize = self.pending.values().map(|pending| pending.1.len()).sum();
        let verdict = self.shard.handle_arrival(key, told_ms, waiter);
        if let Some(event_id) = self.first(key) {
            assert_eq!(verdict, Verdict::Duplicate { event_id });
            return;
        }
        if let Some((_, waiters)) = self.pending.get_mut(&key) {
            let room = waiters.len() < self.limits.waiters_per_key_max as usize
                && waiting < self.limits.waiters_max as usize;
            assert_eq!(verdict, if room { Verdict::Pending } else { Verdict::TooManyWaiters });
            if room {
                waiters.push(waiter);
            }
            return;
        }
        let room = self.pending.len() < self.limits.pending_max as usize;
        assert_eq!(verdict, if room { Verdict::New } else { Verdict::TooManyPending });
        if room {
            self.pending.insert(key, (waiter, Vec::new()));
        }
    }

    fn durable(&mut self, key: EventKey, told_ms: u64) {
        self.at(told_ms);
        let event_id = EventId(u128::from(self.name()).to_be_bytes());
        let mut waiters = Vec::new();
        let first = self.shard.handle_durable(key, event_id, told_ms, &mut waiters);
        let expected = self.pending.remove(&key).map(|pending| pending.1).unwrap_or_default();
        assert_eq!(waiters, expected, "those who waited, in their order, and nobody else");
        if let Some(held) = self.first(key) {
            assert_eq!(first, held, "the first event stays the first");
            self.doubles += 1;
            return;
        }
        assert_eq!(first, event_id);
        self.entered += 1;
        if self.seen.len() == self.limits.keys_max as usize {
            self.seen.remove(0);
            self.evicted_early += 1;
        }
        self.seen.push((key, event_id, self.bucket()));
    }

    fn failed(&mut self, key: EventKey, argument: u8) {
        let owner = self.pending.get(&key).map(|pending| pending.0);
        let (mut waiters, mut expected) = (Vec::new(), Vec::new());
        match owner {
            Some(owner) if argument % 4 == 1 => {
                self.shard.handle_delayed(key, owner, &mut waiters);
                expected = core::mem::take(&mut self.pending.get_mut(&key).expect("it was there").1);
            }
            Some(owner) if !argument.is_multiple_of(4) => {
                self.shard.handle_failed(key, owner, &mut waiters);
                expected = self.pending.remove(&key).expect("it was there").1;
            }
            // No owner is called 0.
            _ => {
                self.shard.handle_delayed(key, Waiter(0), &mut waiters);
                self.shard.handle_failed(key, Waiter(0), &mut waiters);
            }
        }
        assert_eq!(waiters, expected);
    }

    fn time(&mut self, told_ms: u64, keys_max: usize) {
        self.at(told_ms);
        let before = self.shard.seen() as usize;
        let expired = self.shard.handle_time(told_ms, keys_max);
        assert!(expired <= keys_max && self.shard.seen() as usize <= before - expired);
        assert!(keys_max < usize::MAX || self.shard.seen() as usize == self.seen.len());
    }

    /// What is seen comes back from its records, read twice and in another order; what was pending is gone.
    fn restart(&mut self, argument: u8) {
        let hasher = KeyHasher::new([argument; 16]);
        let mut payload = Vec::new();
        let count = encode_index(&mut payload, &hasher, &mut self.shard.entries_since(0));
        let record = (count > 0).then(|| IndexRecord::decode(&payload, &hasher).expect("as it was written"));
        let entries: Vec<IndexEntry> = record.iter().flat_map(IndexRecord::entries).collect();
        let mut restore = Restore::new(&self.limits, self.now_ms).expect("the limits are in range");
        let turned = usize::from(argument) % entries.len().max(1);
        for entry in entries[turned..].iter().rev().chain(&entries) {
            restore.handle_index_entry(entry);
            let later_ms = entry.time_ms.saturating_add(self.limits.window_ms / 2);
            restore.handle_entry(entry.key, EventId([0xee; 16]), later_ms);
        }
        self.count_restart();
        self.shard = restore.finish();
        self.pending.clear();
        // Keys of one bucket may change places.
        let place = |entry: &IndexEntry| (entry.key, entry.event_id, entry.time_ms / self.limits.bucket_ms());
        let restored: Vec<_> = self.shard.entries_since(0).map(|entry| place(&entry)).collect();
        let sorted = |list: &[(EventKey, EventId, u64)]| list.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(sorted(&restored), sorted(&self.seen), "nothing is lost and nothing is added");
        assert!(restored.is_sorted_by_key(|entry| entry.2));
        self.seen = restored;
    }

    /// The counters begin anew: what entered before is what is seen now.
    fn count_restart(&mut self) {
        self.entered = self.seen.len() as u64;
        (self.evicted_early, self.doubles) = (0, 0);
    }

    fn check(&self) {
        let counters = self.shard.counters();
        assert_eq!((counters.evicted_early, counters.doubles), (self.evicted_early, self.doubles));
        let seen = u64::from(self.shard.seen());
        assert!(seen >= self.seen.len() as u64 && seen <= u64::from(self.limits.keys_max));
        assert_eq!(seen + counters.expired + counters.evicted_early, self.entered, "no key is lost");
        assert_eq!(self.shard.pending() as usize, self.pending.len());
        let waiting: usize = self.pending.values().map(|pending| pending.1.len()).sum();
        assert_eq!(self.shard.waiting() as usize, waiting);
        assert_eq!(self.shard.memory_bytes(), self.limits.memory_bytes(), "memory does not grow");
        let listed = self.shard.entries_since(0).map(|entry| (entry.key, entry.event_id));
        assert!(listed.eq(self.seen.iter().map(|entry| (entry.0, entry.1))));
    }

    /// Everything that is pending ends, and everything that is seen expires.
    fn finish(&mut self) {
        let pending: Vec<_> = self.pending.iter().map(|(&key, pending)| (key, pending.0)).collect();
        for (key, owner) in pending {
            self.shard.handle_failed(key, owner, &mut Vec::new());
            self.pending.remove(&key);
        }
        self.check();
        self.time(self.now_ms + self.limits.window_ms + 2 * self.limits.bucket_ms(), usize::MAX);
        self.check();
        assert_eq!((self.shard.seen(), self.shard.pending(), self.shard.waiting()), (0, 0, 0));
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn operation_sequences(data in vec(any::<u8>(), 4..1200)) {
            fuzz_shard(&data);
        }

        #[test]
        fn index_records(
            data in vec(any::<u8>(), 0..100),
            count in 0..4_u32,
            entries in vec(any::<u8>(), 0..130),
        ) {
            fuzz_index_record(&data);
            let whole = entries.len() / 40 * 40;
            fuzz_index_record(&[&count.to_le_bytes(), &entries[..whole]].concat());
            fuzz_index_record(&[&((whole / 40) as u32).to_le_bytes(), &entries[..whole]].concat());
        }
    }
}
