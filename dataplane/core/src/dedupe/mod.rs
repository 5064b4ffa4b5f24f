//! Has this event been here before? Keys and times enter; new, duplicate or pending leaves.
//!
//! A key is absent, then pending from its first arrival until the write ended, then seen for a window.
//! Whoever comes while it is pending waits for that write's outcome; a failed write makes it absent again.
//! The ingester asks by the source's id ([`KeySource`]), the egress by event id, both with a [`Shard`].
//!
//! Memory is fixed at start: 39.4 bytes for each of `keys_max` keys. When all are taken, the oldest key
//! leaves before its time, which is counted; what is refused is only an arrival that would have to wait
//! and finds no room ([`Verdict::TooManyWaiters`], [`Verdict::TooManyPending`]). Keys survive a restart as
//! [`IndexRecord`]s and through [`Restore`]. The bytes and the figures are in `docs/idempotency.md`.

#[doc(hidden)]
pub mod fuzz;
mod index;
#[doc(hidden)]
pub mod json;
mod key;
mod limits;
mod pending;
mod record;
mod restore;
mod seen;
mod shard;
mod shards;
pub(crate) mod siphash;
#[cfg(test)]
mod tests;

pub use json::{JSON_DEPTH_MAX, JSON_STEP_BYTES_MAX, JSON_STEPS_MAX, JsonPath, JsonPathError};
pub use key::{EventKey, KeyError, KeyHasher, KeySource};
pub use limits::{KEYS_MAX, Limits, LimitsError, PENDING_MAX, WAITERS_MAX, WINDOW_MS_MAX};
pub use record::{INDEX_ENTRIES_MAX, IndexEntry, IndexError, IndexRecord, encode_index};
pub use restore::Restore;
pub use shard::{Counters, Shard, Verdict, Waiter};
pub use shards::{SHARDS_MAX, Shards};
