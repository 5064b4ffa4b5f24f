//! The keys of one ingester, shared by its workers: the core's dedupe shards, and who waits for a pending key.
//!
//! Arrivals and outcomes of writes enter; verdicts and those who waited leave. At start it is restored from the keys
//! of all events in the workers' journals and from the index. It also knows up to which record of each journal all
//! keys are seen, and up to which they are in the index, so that a journal is not trimmed before.

use std::collections::BTreeMap;
use std::rc::Rc;

use zen_core::dedupe::{EventKey, IndexRecord, KeyHasher, Limits, Restore, Shard, Shards, Verdict, Waiter};
use zen_core::id::EventId;
use zen_core::journal::{Kind, Record, Sequence};
use zen_core::record::{decode_event_id, decode_key};

use crate::plan::Plan;
use crate::source::Request;

/// Parts of the table.
const SHARDS: usize = 2;
/// Keys whose write is under way, of a shard; few, so that some runs meet the bound.
const PENDING_MAX: u32 = 12;
/// Arrivals that wait, of a shard.
const WAITERS_MAX: u32 = 6;

/// The table while it is filled.
#[derive(Debug)]
pub struct Restoring {
    hasher: KeyHasher,
    shards: Shards<usize>,
    restores: Vec<Restore>,
}

impl Restoring {
    /// An empty table of an ingester, at `now_ms` of its clock.
    pub fn new(plan: &Plan, ingester: usize, now_ms: u64) -> Self {
        let restore = |_| Restore::new(&limits(plan), now_ms).expect("the limits are in range");
        Self {
            hasher: KeyHasher::new([ingester as u8 + 1; 16]),
            shards: Shards::new((0..SHARDS).collect()),
            restores: (0..SHARDS).map(restore).collect(),
        }
    }

    /// A record of a worker's journal or of the index: the keys in it were durable.
    pub fn handle_record(&mut self, record: &Record<'_>) {
        match record.kind {
            Kind::Event => {
                let key = decode_key(record.payload).expect("an ingester encodes its routes");
                let id = decode_event_id(record.payload).expect("an event has an id");
                self.handle_entry(key.expect("simulated sources name each event"), id, record.time_ms);
            }
            Kind::Index => {
                let index = IndexRecord::decode(record.payload, &self.hasher);
                for entry in index.expect("an index encodes its records").entries() {
                    self.handle_entry(entry.key, entry.event_id, entry.time_ms);
                }
            }
            kind => unreachable!("an ingester does not write {kind:?}"),
        }
    }

    fn handle_entry(&mut self, key: EventKey, id: EventId, time_ms: u64) {
        self.restores[self.shards.index_of(&key)].handle_entry(key, id, time_ms);
    }

    /// Ready for arrivals; each worker's journal was restored up to a sequence.
    pub fn finish(self, restored: Vec<Sequence>) -> Keys {
        Keys {
            hasher: self.hasher,
            shards: Shards::new(self.restores.into_iter().map(Restore::finish).collect()),
            waiting: BTreeMap::new(),
            last_waiter: 0,
            indexed: vec![Sequence(0); restored.len()],
            seen: restored,
            index_wanted: false,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Keys {
    hasher: KeyHasher,
    shards: Shards<Shard>,
    waiting: BTreeMap<Waiter, Rc<Request>>,
    last_waiter: u64,
    seen: Vec<Sequence>,
    indexed: Vec<Sequence>,
    index_wanted: bool,
}

impl Keys {
    /// Makes keys.
    pub fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// A verified request brings its key; it may come back among those who waited.
    pub fn handle_arrival(&mut self, key: EventKey, request: &Rc<Request>, now_ms: u64) -> (Waiter, Verdict) {
        self.last_waiter += 1;
        let waiter = Waiter(self.last_waiter);
        let verdict = self.shards.of_mut(&key).handle_arrival(key, now_ms, waiter);
        if verdict == Verdict::Pending {
            self.waiting.insert(waiter, Rc::clone(request));
        }
        (waiter, verdict)
    }

    /// An event of `key` is durable: the id that everybody gets, and who waited.
    pub fn handle_durable(&mut self, key: EventKey, id: EventId, now_ms: u64) -> (EventId, Vec<Rc<Request>>) {
        let mut waiters = Vec::new();
        let first = self.shards.of_mut(&key).handle_durable(key, id, now_ms, &mut waiters);
        (first, self.take_waiting(&waiters))
    }

    /// An event will never be written: who waited for it.
    pub fn handle_failed(&mut self, key: EventKey, owner: Waiter) -> Vec<Rc<Request>> {
        let mut waiters = Vec::new();
        self.shards.of_mut(&key).handle_failed(key, owner, &mut waiters);
        self.take_waiting(&waiters)
    }

    /// Removes keys whose window is over.
    pub fn handle_time(&mut self, now_ms: u64) {
        for shard in &mut self.shards {
            shard.handle_time(now_ms, 4);
        }
    }

    /// All keys of a worker's journal are seen up to there.
    pub fn handle_seen(&mut self, worker: usize, up_to: Sequence) {
        self.seen[worker] = up_to;
    }

    /// The index is durable with all keys that were seen when `seen` was asked for.
    pub fn handle_indexed(&mut self, seen: Vec<Sequence>) {
        self.indexed = seen;
    }

    /// Up to where a worker's journal may be trimmed, if it may up to `up_to` otherwise.
    pub fn trimmable(&mut self, worker: usize, up_to: Sequence) -> Sequence {
        self.index_wanted |= up_to > self.indexed[worker];
        up_to.min(self.indexed[worker])
    }

    /// Whether a journal waits for the index since this was asked last.
    pub fn take_index_wanted(&mut self) -> bool {
        core::mem::take(&mut self.index_wanted)
    }

    /// Up to where the keys of each worker's journal are seen.
    pub fn seen(&self) -> Vec<Sequence> {
        self.seen.clone()
    }

    /// Requests that wait and that no shard knows of: nobody would answer them.
    pub fn forgotten(&self) -> usize {
        let known: u32 = self.shards.iter().map(Shard::waiting).sum();
        self.waiting.len().abs_diff(known as usize)
    }

    /// The table's parts, for the index.
    pub fn shards(&self) -> &Shards<Shard> {
        &self.shards
    }

    fn take_waiting(&mut self, waiters: &[Waiter]) -> Vec<Rc<Request>> {
        let taken = waiters.iter().map(|waiter| self.waiting.remove(waiter));
        taken.map(|request| request.expect("a shard names each waiter once")).collect()
    }
}

fn limits(plan: &Plan) -> Limits {
    Limits {
        keys_max: plan.events.max(16) as u32,
        window_ms: plan.window_ms,
        pending_max: PENDING_MAX,
        waiters_per_key_max: 3,
        waiters_max: WAITERS_MAX,
    }
}
