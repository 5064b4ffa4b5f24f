//! How fast the machine is just now, in CPU time of one thread, beside the machine of the reference figures.
//!
//! HAProxy's cost is hashing and the kernel. So two loops: HMAC-SHA256 of 1 KiB with `hmac` and `sha2`, and
//! the cheapest system call. Their mean slow-down (geometric) scales what HAProxy is allowed to cost.

use std::hint::black_box;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use nix::time::{ClockId, clock_gettime};
use sha2::Sha256;

/// Nanoseconds on the machine of the reference figures (Xeon, 3.6 to 3.9 GHz, SHA-NI, Linux 6.18).
const REFERENCE_HMAC_NS: f64 = 657.0;
const REFERENCE_CALL_NS: f64 = 88.0;
const HMAC_TURNS: u32 = 20_000;
const CALL_TURNS: u32 = 100_000;
const BODY_BYTES: usize = 1024;

/// Nanoseconds of CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calibration {
    /// One HMAC-SHA256 of 1 KiB.
    pub(super) hmac_ns: f64,
    /// One `getppid(2)`.
    pub(super) call_ns: f64,
}

impl Calibration {
    /// Runs both loops, about 25 ms.
    pub(super) fn measure() -> Self {
        let body = [b'x'; BODY_BYTES];
        let prepared = Hmac::<Sha256>::new_from_slice(b"key").expect("HMAC takes a key of any length");
        let hmac_ns = cpu_ns(HMAC_TURNS, || {
            let mut mac = prepared.clone();
            mac.update(black_box(&body));
            black_box(mac.finalize());
        });
        let call_ns = cpu_ns(CALL_TURNS, || {
            black_box(nix::unistd::getppid());
        });
        Self { hmac_ns, call_ns }
    }

    /// How many times slower than the reference machine.
    pub(super) fn slowdown(&self) -> f64 {
        (self.hmac_ns / REFERENCE_HMAC_NS * (self.call_ns / REFERENCE_CALL_NS)).sqrt()
    }
}

fn cpu_ns(turns: u32, mut work: impl FnMut()) -> f64 {
    let begun = thread_time();
    for _ in 0..turns {
        work();
    }
    thread_time().saturating_sub(begun).as_nanos() as f64 / f64::from(turns)
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has a CPU clock");
    Duration::from(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_machine_has_no_slowdown() {
        let calibration = Calibration { hmac_ns: REFERENCE_HMAC_NS, call_ns: REFERENCE_CALL_NS };
        assert!((calibration.slowdown() - 1.0).abs() < 1e-9);
        let slower = Calibration { hmac_ns: 2.0 * REFERENCE_HMAC_NS, call_ns: 2.0 * REFERENCE_CALL_NS };
        assert!((slower.slowdown() - 2.0).abs() < 1e-9);
        assert!(Calibration::measure().slowdown() > 0.0);
    }
}
