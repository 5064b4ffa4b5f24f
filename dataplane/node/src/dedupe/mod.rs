//! The keys of a node's events, in shards that its workers share; `zen_core::dedupe` decides.
//!
//! One table per role: the ingester's by the source's id, the egress's by event id. A shard is locked for one
//! step and never over I/O. While workers recover, what they find goes into the same shards; they take
//! arrivals after [`Keys::finish`]. Each worker looks after its share: expiry and figures.

mod hash_key;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use hash_key::{HashKeyError, load as load_hash_key};
use zen_core::dedupe::{
    EventKey, IndexEntry, KeyHasher, Limits, LimitsError, Restore, Shard, Shards, Verdict, Waiter,
};
use zen_core::id::EventId;

use crate::config::IdempotencySettings;

/// Shards of a full-sized table; a small one has fewer, so that each has room for chance.
const SHARDS: u32 = 64;
/// Keys of a shard, at least.
const SHARD_KEYS_MIN: u32 = 1024;
/// Keys whose write is under way, over all shards; a shard may have twice its share.
const PENDING_MAX: u32 = 32_768;
/// Requests that wait for one write.
const WAITERS_PER_KEY_MAX: u32 = 64;
/// Requests that wait, over all shards; a shard may have twice its share.
const WAITERS_MAX: u32 = 8_192;
/// Requests that wait, at most.
pub const WAITING_MAX: usize = 2 * WAITERS_MAX as usize;
/// Expired keys that a worker removes at one look.
const EXPIRED_MAX: usize = 4096;
/// That the table, or its index, is full is logged this often at most, ms.
pub const LOG_EVERY_MS: u64 = 60_000;

/// What becomes of an arrival whose key is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It waits for the outcome.
    Allowed,
    /// Whoever brings it asks again.
    Refused,
}

/// Figures of a worker's share.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Seen keys.
    pub keys: u64,
    /// Keys that left before their time.
    pub evicted_early: u64,
    /// Events that became durable although another had their key.
    pub doubles: u64,
}

/// The table of one role.
pub struct Keys {
    hasher: KeyHasher,
    shards: Shards<Mutex<State>>,
    logged_ms: AtomicU64,
}

enum State {
    /// Empty only while it becomes a shard.
    Restoring(Option<Restore>),
    Ready(Shard),
}

impl Keys {
    /// A table that is being filled, at `now_ms` (Unix).
    pub fn new(
        settings: &IdempotencySettings,
        hasher: KeyHasher,
        waiting: Waiting,
        now_ms: u64,
    ) -> Result<Self, LimitsError> {
        let (count, limits) = shards(settings, waiting);
        let shards: Result<Vec<_>, _> = (0..count)
            .map(|_| Restore::new(&limits, now_ms).map(|restore| Mutex::new(State::Restoring(Some(restore)))))
            .collect();
        Ok(Self { hasher, shards: Shards::new(shards?), logged_ms: AtomicU64::new(0) })
    }

    /// Makes this node's keys.
    pub fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// Recovery found an event that became durable at `time_ms`.
    pub fn restore(&self, entry: &IndexEntry) {
        match &mut *self.lock(&entry.key) {
            State::Restoring(Some(restore)) => restore.handle_index_entry(entry),
            State::Restoring(None) | State::Ready(_) => {
                unreachable!("workers recover before any of them is ready")
            }
        }
    }

    /// Every worker has recovered; called by each of them.
    pub fn finish(&self) {
        for shard in &self.shards {
            let mut state = lock(shard);
            if let State::Restoring(restore) = &mut *state
                && let Some(restore) = restore.take()
            {
                *state = State::Ready(restore.finish());
            }
        }
    }

    /// `waiter` brings a key.
    pub fn handle_arrival(&self, key: EventKey, now_ms: u64, waiter: Waiter) -> Verdict {
        self.with(&key, |shard| shard.handle_arrival(key, now_ms, waiter))
    }

    /// An event of `key` is durable: appends those who waited for it, and returns the id to answer them with.
    pub fn handle_durable(
        &self,
        key: EventKey,
        event_id: EventId,
        now_ms: u64,
        waiters: &mut Vec<Waiter>,
    ) -> EventId {
        self.with(&key, |shard| shard.handle_durable(key, event_id, now_ms, waiters))
    }

    /// The event of `owner` is not and will not be written: its key is free; appends those who waited.
    pub fn handle_failed(&self, key: EventKey, owner: Waiter, waiters: &mut Vec<Waiter>) {
        self.with(&key, |shard| shard.handle_failed(key, owner, waiters));
    }

    /// The write failed and is being repeated: the key stays pending; appends those who waited.
    pub fn handle_delayed(&self, key: EventKey, owner: Waiter, waiters: &mut Vec<Waiter>) {
        self.with(&key, |shard| shard.handle_delayed(key, owner, waiters));
    }

    /// Lets keys expire in one worker's share, and says how that stands.
    pub fn handle_time(&self, worker: u16, workers: u16, now_ms: u64) -> Figures {
        let mut figures = Figures::default();
        let mut left = EXPIRED_MAX;
        for shard in self.shards.iter().skip(usize::from(worker)).step_by(usize::from(workers)) {
            let State::Ready(shard) = &mut *lock(shard) else { continue };
            left -= shard.handle_time(now_ms, left);
            let counters = shard.counters();
            figures.keys += u64::from(shard.seen());
            figures.evicted_early += counters.evicted_early;
            figures.doubles += counters.doubles;
        }
        figures
    }

    /// Says, now and then, that keys leave before their time.
    pub fn warn_evicted(&self, key: &'static str, now_ms: u64) {
        let logged_ms = self.logged_ms.load(Ordering::Relaxed);
        let is_due = logged_ms == 0 || now_ms.saturating_sub(logged_ms) >= LOG_EVERY_MS;
        let exchange =
            || self.logged_ms.compare_exchange(logged_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed);
        if is_due && exchange().is_ok() {
            tracing::warn!(
                key,
                "the table of idempotency keys is full: the oldest leave before their window is over; raise the key"
            );
        }
    }

    fn with<T>(&self, key: &EventKey, step: impl FnOnce(&mut Shard) -> T) -> T {
        match &mut *self.lock(key) {
            State::Ready(shard) => step(shard),
            State::Restoring(_) => unreachable!("workers listen after all of them have recovered"),
        }
    }

    fn lock(&self, key: &EventKey) -> MutexGuard<'_, State> {
        lock(self.shards.of(key))
    }
}

/// Bytes that a table takes at start; it never takes more.
pub fn memory_bytes(settings: &IdempotencySettings, waiting: Waiting) -> u64 {
    let (count, limits) = shards(settings, waiting);
    u64::from(count) * limits.memory_bytes() as u64
}

/// How many shards, and the bounds of each.
fn shards(settings: &IdempotencySettings, waiting: Waiting) -> (u32, Limits) {
    let count = (settings.keys_max / SHARD_KEYS_MIN).clamp(1, SHARDS);
    let share = |of: u32| if count == 1 { of } else { 2 * of.div_ceil(count) };
    let waiters_max = if waiting == Waiting::Allowed { share(WAITERS_MAX) } else { 0 };
    let limits = Limits {
        keys_max: settings.keys_max.div_ceil(count),
        window_ms: settings.window_ms,
        pending_max: share(PENDING_MAX),
        waiters_per_key_max: WAITERS_PER_KEY_MAX.min(waiters_max),
        waiters_max,
    };
    (count, limits)
}

/// A panic ends the process, so no lock is ever poisoned.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
