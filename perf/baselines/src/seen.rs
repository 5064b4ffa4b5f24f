//! Ids of events that came: claimed while their write is under way, seen once it is done, forgotten if it failed.
//!
//! Shards with a lock each, since an id may come through any thread. The oldest ids of a full shard are forgotten.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 64;
const IDS_PER_SHARD_MAX: usize = 16 * 1024;

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nothing: it is the caller's now.
    New,
    /// Its first event is being written.
    Pending,
    /// Its first event is on disk.
    Seen,
}

/// The ids.
#[derive(Debug)]
pub(crate) struct Seen {
    keys: [RandomState; 2],
    shards: Vec<Mutex<Shard>>,
}

#[derive(Debug, Default)]
struct Shard {
    states: HashMap<u128, Claim, BuildHasherDefault<AsItIs>>,
    order: VecDeque<u128>,
}

/// A fingerprint is as good as a hash of it.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}

impl Seen {
    /// Knows none.
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { keys: [RandomState::new(), RandomState::new()], shards }
    }

    /// The keyed fingerprint of `id`, and what is known of it.
    pub(crate) fn claim(&self, id: &str) -> (u128, Claim) {
        let [low, high] = [0, 1].map(|half: usize| u128::from(self.keys[half].hash_one(id)));
        let fingerprint = low | high << 64;
        let mut shard = self.shard(fingerprint);
        if let Some(&state) = shard.states.get(&fingerprint) {
            return (fingerprint, state);
        }
        if shard.order.len() == IDS_PER_SHARD_MAX
            && let Some(oldest) = shard.order.pop_front()
        {
            shard.states.remove(&oldest);
        }
        shard.order.push_back(fingerprint);
        shard.states.insert(fingerprint, Claim::Pending);
        (fingerprint, Claim::New)
    }

    /// Ends a claim: the event is on disk, or its write failed.
    pub(crate) fn settle(&self, fingerprint: u128, durable: bool) {
        let mut shard = self.shard(fingerprint);
        if durable {
            if let Some(state) = shard.states.get_mut(&fingerprint) {
                *state = Claim::Seen;
            }
        } else if shard.states.remove(&fingerprint).is_some() {
            shard.order.retain(|&known| known != fingerprint);
        }
    }

    fn shard(&self, fingerprint: u128) -> MutexGuard<'_, Shard> {
        let at = (fingerprint >> 64) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_claimed_once_and_again_if_its_write_failed() {
        let seen = Seen::new();
        let (fingerprint, claim) = seen.claim("a");
        assert_eq!((claim, seen.claim("a").1, seen.claim("b").1), (Claim::New, Claim::Pending, Claim::New));
        seen.settle(fingerprint, false);
        assert_eq!(seen.claim("a"), (fingerprint, Claim::New));
        seen.settle(fingerprint, true);
        assert_eq!(seen.claim("a").1, Claim::Seen);
    }

    #[test]
    fn a_full_shard_forgets_its_oldest() {
        let seen = Seen::new();
        seen.settle(seen.claim("first").0, true);
        for number in 0..SHARDS * IDS_PER_SHARD_MAX * 2 {
            seen.settle(seen.claim(&number.to_string()).0, true);
        }
        assert_eq!(seen.claim("first").1, Claim::New);
        let held: usize = seen.shards.iter().map(|shard| shard.lock().unwrap().order.len()).sum();
        assert!(held <= SHARDS * IDS_PER_SHARD_MAX, "{held}");
    }
}
