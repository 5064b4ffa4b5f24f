//! What the calling thread used: its processor time, and how long it was ready to run and did not.
//!
//! A client that waits for its core is as late as one that works; from outside both look alike.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// Seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// On a processor.
    pub(super) cpu_s: f64,
    /// Ready, while others had the processor; 0 where the kernel does not say.
    pub(super) waited_s: f64,
}

impl Usage {
    /// Of the calling thread since its start.
    pub(super) fn now() -> Self {
        let used = getrusage(UsageWho::RUSAGE_THREAD);
        let cpu_us = used
            .map_or(0, |used| used.user_time().num_microseconds() + used.system_time().num_microseconds());
        // `schedstat`: ns run, ns waited, slices (Documentation/scheduler/sched-stats.rst).
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let waited_ns: f64 = text.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or(0.0);
        Self { cpu_s: cpu_us as f64 / 1e6, waited_s: waited_ns / 1e9 }
    }

    /// Between an earlier moment and this one.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self { cpu_s: self.cpu_s - earlier.cpu_s, waited_s: self.waited_s - earlier.waited_s }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn work_is_seen_and_sleep_is_not() {
        let (begun, before) = (Instant::now(), Usage::now());
        while Usage::now().since(before).cpu_s < 0.05 {
            assert!(begun.elapsed() < Duration::from_secs(30), "no processor time is counted");
        }
        let (before, pause) = (Usage::now(), Duration::from_millis(100));
        std::thread::sleep(pause);
        assert!(Usage::now().since(before).cpu_s < pause.as_secs_f64() / 2.0);
    }
}
