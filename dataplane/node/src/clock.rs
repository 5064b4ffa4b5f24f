//! The wall clock of one tick, read once.

use std::time::{SystemTime, UNIX_EPOCH};

/// One reading of the clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Wall clock, Unix microseconds.
    pub unix_us: u64,
    /// Wall clock, Unix milliseconds.
    pub unix_ms: u64,
}

impl Clock {
    /// Reads the clock.
    pub fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_us = u64::try_from(unix.as_micros()).expect("the clock is before the year 500000");
        Self { unix_us, unix_ms: unix_us / 1000 }
    }
}
