//! Both clocks, and random numbers.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::core::Now;

/// The clocks of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { wall_ms: wall.as_millis() as u64, steady_ms: self.started.elapsed().as_millis() as u64 }
    }
}

/// For jitter.
pub(crate) fn random() -> u64 {
    getrandom::u64().expect("the kernel has randomness once it has started")
}
