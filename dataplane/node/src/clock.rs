//! The clocks of one tick, read once.
//!
//! Timers and deadlines compare steady time, which no step of the system's clock moves. Whatever leaves
//! the process, in a record, a signature or an id, is wall time.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use zen_core::deliver::{steady_due_ms, unix_due_ms};

/// Where steady time begins; the same for all threads, since deadlines travel between workers.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// One reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Milliseconds since the process began to look at its clock; never goes back, never jumps.
    pub steady_ms: u64,
    /// Wall clock, Unix microseconds.
    pub wall_us: u64,
    /// Wall clock, Unix milliseconds.
    pub wall_ms: u64,
}

impl Clock {
    /// Reads both clocks.
    pub fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_us = u64::try_from(unix.as_micros()).expect("the clock is before the year 500000");
        let steady_ms = u64::try_from(START.elapsed().as_millis()).expect("within 500 million years");
        Self { steady_ms, wall_us, wall_ms: wall_us / 1000 }
    }

    /// When a note in a journal is due in steady time; never later than the delay it was written with.
    pub fn steady_of(&self, due_unix_ms: u64, noted_unix_ms: u64) -> u64 {
        steady_due_ms(self.steady_ms, self.wall_ms, due_unix_ms, noted_unix_ms)
    }

    /// A time in steady time as the wall clock shows it now, for a note in a journal.
    pub fn unix_of(&self, due_steady_ms: u64) -> u64 {
        unix_due_ms(self.steady_ms, self.wall_ms, due_steady_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn clock(steady_ms: u64, wall_ms: u64) -> Clock {
        Clock { steady_ms, wall_us: wall_ms * 1000, wall_ms }
    }

    #[test]
    fn a_note_is_due_after_what_is_left_of_its_delay_whatever_the_wall_clock_did() {
        let noted = 10 * HOUR_MS;
        let due = clock(500, noted).unix_of(500 + 30_000);
        assert_eq!(due, noted + 30_000);
        for (what, now, left) in [
            ("at once", noted, 30_000),
            ("later", noted + 20_000, 10_000),
            ("long after", noted + 40_000, 0),
            ("an hour forward", noted + HOUR_MS, 0),
            ("an hour back", noted - HOUR_MS, 30_000),
        ] {
            assert_eq!(clock(7, now).steady_of(due, noted), 7 + left, "{what}");
        }
    }

    #[test]
    fn what_was_due_before_it_was_noted_is_due_now() {
        assert_eq!(clock(900, HOUR_MS).unix_of(100), HOUR_MS);
        assert_eq!(clock(900, 0).steady_of(HOUR_MS - 1, HOUR_MS), 900);
    }
}
