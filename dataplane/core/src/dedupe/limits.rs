//! What a shard may hold, and what that costs.

use super::{index, pending, seen};

/// Most keys of one shard; it leaves 4 bits of each index slot for the key.
pub const KEYS_MAX: u32 = 1 << 27;
/// Most pending keys of one shard.
pub const PENDING_MAX: u32 = 1 << 20;
/// Most waiters of one shard.
pub const WAITERS_MAX: u32 = 1 << 20;
/// Widest window, ms: 30 days.
pub const WINDOW_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// Buckets that a window is divided into: a key stays at most two buckets longer than the window.
const WINDOW_BUCKETS: u64 = 1024;
// A bucket's number is kept in 16 bits.
const _: () = assert!(WINDOW_BUCKETS * 8 < u16::MAX as u64);

/// Bounds of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Seen keys, 1 to [`KEYS_MAX`].
    pub keys_max: u32,
    /// How long a seen key is remembered, 1 to [`WINDOW_MS_MAX`] ms.
    pub window_ms: u64,
    /// Keys whose write is under way, 1 to [`PENDING_MAX`]; as many as the arrivals in hand are enough.
    pub pending_max: u32,
    /// Arrivals that wait for one pending key, 0 to `waiters_max`.
    pub waiters_per_key_max: u32,
    /// Arrivals that wait, over all keys, 0 to [`WAITERS_MAX`].
    pub waiters_max: u32,
}

/// Why a shard cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// `keys_max` is out of range.
    #[error("keys_max must be 1 to {KEYS_MAX}")]
    Keys,
    /// `window_ms` is out of range.
    #[error("window_ms must be 1 to {WINDOW_MS_MAX}")]
    Window,
    /// `pending_max` is out of range.
    #[error("pending_max must be 1 to {PENDING_MAX}")]
    Pending,
    /// `waiters_max` or `waiters_per_key_max` is out of range.
    #[error("waiters_max must be 0 to {WAITERS_MAX}, and waiters_per_key_max no more than that")]
    Waiters,
}

impl Default for Limits {
    /// A million keys (40 MB) for 24 hours.
    fn default() -> Self {
        Self {
            keys_max: 1_000_000,
            window_ms: 24 * 3_600_000,
            pending_max: 8192,
            waiters_per_key_max: 64,
            waiters_max: 4096,
        }
    }
}

impl Limits {
    /// Whether each bound is in its range.
    pub fn check(&self) -> Result<(), LimitsError> {
        if !(1..=KEYS_MAX).contains(&self.keys_max) {
            return Err(LimitsError::Keys);
        }
        if !(1..=WINDOW_MS_MAX).contains(&self.window_ms) {
            return Err(LimitsError::Window);
        }
        if !(1..=PENDING_MAX).contains(&self.pending_max) {
            return Err(LimitsError::Pending);
        }
        if self.waiters_max > WAITERS_MAX || self.waiters_per_key_max > self.waiters_max {
            return Err(LimitsError::Waiters);
        }
        Ok(())
    }

    /// Bytes that a shard allocates when it is made; it never allocates more.
    pub const fn memory_bytes(&self) -> usize {
        seen::memory_bytes(self.keys_max)
            + index::memory_bytes(self.keys_max)
            + pending::memory_bytes(self.pending_max, self.waiters_max)
            + index::memory_bytes(self.pending_max)
    }

    /// Width of a bucket, ms.
    pub(super) fn bucket_ms(&self) -> u64 {
        self.window_ms.div_ceil(WINDOW_BUCKETS)
    }

    /// Age in buckets up to which a key is remembered.
    pub(super) fn age_max(&self) -> u64 {
        self.window_ms.div_ceil(self.bucket_ms())
    }
}
