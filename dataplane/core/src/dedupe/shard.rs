//! A part of the key table with a single owner: arrivals and outcomes enter, verdicts leave.

use alloc::vec::Vec;

use super::pending::Pending;
use super::seen::{Left, Seen};
use super::{EventKey, IndexEntry, Limits, LimitsError};
use crate::id::EventId;

/// Names whoever brought a key, for as long as it is pending; the caller gives it a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waiter(pub u64);

/// What to do with an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody brought it before: write it, then report [`Shard::handle_durable`] or [`Shard::handle_failed`].
    New,
    /// It is durable: answer 200 with the first event's id.
    Duplicate {
        /// The first event of this key.
        event_id: EventId,
    },
    /// Another arrival is being written: the waiter comes back with its outcome.
    Pending,
    /// As `Pending`, but too many wait already: answer 503.
    TooManyWaiters,
    /// It is new, but too many writes are under way: answer 503.
    TooManyPending,
}

/// What a shard counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Verdicts [`Verdict::Duplicate`].
    pub duplicates: u64,
    /// Verdicts [`Verdict::Pending`].
    pub waited: u64,
    /// Verdicts [`Verdict::TooManyWaiters`] and [`Verdict::TooManyPending`].
    pub refused: u64,
    /// Durable events whose key another event had by then: both were accepted.
    pub doubles: u64,
    /// Keys that left because their window was over.
    pub expired: u64,
    /// Keys that left before that, because their place was needed (`dedupe_evicted_early`).
    pub evicted_early: u64,
}

/// Keys and their states. Times are Unix ms; an earlier one than was told before counts as that.
#[derive(Debug)]
pub struct Shard {
    seen: Seen,
    pending: Pending,
    counters: Counters,
}

impl Shard {
    /// An empty shard, with all the memory it will ever have.
    pub fn new(limits: &Limits) -> Result<Self, LimitsError> {
        limits.check()?;
        Ok(Self::with_seen(limits, Seen::new(limits), Counters::default()))
    }

    pub(super) fn with_seen(limits: &Limits, seen: Seen, counters: Counters) -> Self {
        Self { seen, pending: Pending::new(limits), counters }
    }

    /// `waiter` brings `key`: it becomes the owner if the key is new, and waits if it is pending.
    pub fn handle_arrival(&mut self, key: EventKey, now_ms: u64, waiter: Waiter) -> Verdict {
        self.advance(now_ms);
        if let Some(event_id) = self.seen.find(&key) {
            self.counters.duplicates += 1;
            return Verdict::Duplicate { event_id };
        }
        if self.pending.owner(&key).is_none() {
            return match self.pending.insert(key, waiter) {
                Ok(()) => Verdict::New,
                Err(_) => self.refused(Verdict::TooManyPending),
            };
        }
        match self.pending.wait(&key, waiter) {
            Ok(()) => {
                self.counters.waited += 1;
                Verdict::Pending
            }
            Err(_) => self.refused(Verdict::TooManyWaiters),
        }
    }

    /// An event of `key` is durable: appends those who waited, and returns the id to answer them with.
    ///
    /// It need not be pending (a write may succeed after it was given up); the first event stays the first.
    pub fn handle_durable(
        &mut self,
        key: EventKey,
        event_id: EventId,
        now_ms: u64,
        waiters: &mut Vec<Waiter>,
    ) -> EventId {
        self.advance(now_ms);
        self.pending.remove(&key, waiters);
        if let Some(first) = self.seen.find(&key) {
            self.counters.doubles += u64::from(first != event_id);
            return first;
        }
        self.counters.expired += u64::from(self.seen.remove_expired(&key));
        match self.seen.insert(key, event_id) {
            Some(Left::Early) => self.counters.evicted_early += 1,
            Some(Left::Expired) => self.counters.expired += 1,
            Some(Left::Before) | None => {}
        }
        event_id
    }

    /// The write of `owner` failed for good: appends those who waited, and frees the key.
    ///
    /// Nothing happens if the key is pending for somebody else, or not at all.
    pub fn handle_failed(&mut self, key: EventKey, owner: Waiter, waiters: &mut Vec<Waiter>) {
        if self.pending.owner(&key) == Some(owner) {
            self.pending.remove(&key, waiters);
        }
    }

    /// The write of `owner` failed and is being repeated: appends those who waited, and the key stays pending.
    pub fn handle_delayed(&mut self, key: EventKey, owner: Waiter, waiters: &mut Vec<Waiter>) {
        if self.pending.owner(&key) == Some(owner) {
            self.pending.release(&key, waiters);
        }
    }

    /// Removes up to `keys_max` keys whose window is over and returns how many left. They are absent before
    /// that; this makes the gauge exact and keeps later calls short.
    pub fn handle_time(&mut self, now_ms: u64, keys_max: usize) -> usize {
        self.advance(now_ms);
        let mut expired = 0;
        for _ in 0..keys_max {
            match self.seen.remove_one_expired() {
                Some(Left::Before) => {}
                Some(_) => expired += 1,
                None => break,
            }
        }
        self.counters.expired += expired as u64;
        expired
    }

    /// The keys that became seen since `mark` and are not over, oldest first: what to write to an index.
    pub fn entries_since(&self, mark: u64) -> impl Iterator<Item = IndexEntry> {
        self.seen.since(mark)
    }

    /// Stands for now, for a later [`Shard::entries_since`]; 0 is the beginning.
    pub fn mark(&self) -> u64 {
        self.seen.mark()
    }

    /// Seen keys; those whose window is over are counted until they are removed.
    pub fn seen(&self) -> u32 {
        self.seen.held()
    }

    /// Pending keys.
    pub fn pending(&self) -> u32 {
        self.pending.held()
    }

    /// Arrivals that wait for a pending key.
    pub fn waiting(&self) -> u32 {
        self.pending.waiting()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes allocated: what [`Limits::memory_bytes`] says.
    pub fn memory_bytes(&self) -> usize {
        self.seen.memory_bytes() + self.pending.memory_bytes()
    }

    fn advance(&mut self, now_ms: u64) {
        self.counters.expired += self.seen.advance(now_ms);
    }

    fn refused(&mut self, verdict: Verdict) -> Verdict {
        self.counters.refused += 1;
        verdict
    }
}
