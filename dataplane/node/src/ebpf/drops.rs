//! What was refused last: events out of the kernel's rings, the newest kept for who asks.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};

use nix::time::{ClockId, clock_gettime};
use zen_ebpf::Refusals;
use zen_ebpf::abi::event::{DropEvent, GUARD};
use zen_ebpf::abi::{fence, guard};

use crate::clock::Clock;

/// Events that are kept.
const DROPS_MAX: usize = 1024;
/// Events read at one look.
const READS_MAX: usize = 4096;

/// This moment: Unix ms, and ns of the monotonic clock, which the kernel's events have.
pub fn now() -> (u64, u64) {
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every kernel has this clock");
    let ns = monotonic.tv_sec() as u64 * 1_000_000_000 + monotonic.tv_nsec() as u64;
    (Clock::now().wall_ms, ns)
}

/// One refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Dropped {
    /// Its number, from 1.
    pub number: u64,
    /// When, Unix ms.
    pub time_ms: u64,
    /// `guard` or `fence`.
    pub program: &'static str,
    /// As in metrics.
    pub reason: &'static str,
    /// Where it came from, or where it was to go.
    pub address: IpAddr,
    /// Of the listener, or of the destination.
    pub port: u16,
    /// Whether it was refused, or only counted.
    pub enforced: bool,
    /// Whether that was at a network interface.
    pub at_interface: bool,
}

/// The newest.
pub struct Drops {
    rings: Vec<Refusals>,
    newest: VecDeque<Dropped>,
    number: u64,
}

impl Drops {
    /// Out of `rings`.
    pub fn new(rings: Vec<Refusals>) -> Self {
        Self { rings, newest: VecDeque::new(), number: 0 }
    }

    /// Takes what the rings have. `now` is this moment, Unix ms and ns of the monotonic clock.
    pub fn handle_time(&mut self, (wall_ms, monotonic_ns): (u64, u64)) {
        for ring in &mut self.rings {
            for event in std::iter::from_fn(|| ring.poll_refusal()).take(READS_MAX) {
                self.number += 1;
                let age_ms = monotonic_ns.saturating_sub(event.at_ns) / 1_000_000;
                self.newest.extend(shown(&event, self.number, wall_ms.saturating_sub(age_ms)));
            }
        }
        let surplus = self.newest.len().saturating_sub(DROPS_MAX);
        self.newest.drain(..surplus);
    }

    /// Those behind number `after`, oldest first.
    pub fn after(&self, after: u64) -> Vec<Dropped> {
        self.newest.iter().filter(|dropped| dropped.number > after).copied().collect()
    }

    /// The number of the newest.
    pub fn last(&self) -> u64 {
        self.number
    }
}

fn shown(event: &DropEvent, number: u64, time_ms: u64) -> Option<Dropped> {
    let at = usize::from(event.reason);
    let (program, reason) = if event.program == GUARD {
        ("guard", guard::Reason::ALL.get(at)?.label())
    } else {
        ("fence", fence::Reason::ALL.get(at)?.label())
    };
    Some(Dropped {
        number,
        time_ms,
        program,
        reason,
        address: IpAddr::V6(Ipv6Addr::from(event.address)).to_canonical(),
        port: event.port,
        enforced: event.enforced == 1,
        at_interface: event.at_interface == 1,
    })
}

#[cfg(test)]
mod tests {
    use zen_ebpf::abi::event::FENCE;

    use super::*;

    fn event(program: u8, reason: u8) -> DropEvent {
        let address = std::net::Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().octets();
        DropEvent { at_ns: 0, address, port: 443, program, reason, enforced: 1, at_interface: 0, reserved: 0 }
    }

    #[test]
    fn an_event_is_shown_by_its_names() {
        let drop = shown(&event(GUARD, 2), 1, 5).unwrap();
        assert_eq!(
            (drop.program, drop.reason, drop.address.to_string()),
            ("guard", "syn_budget", "192.0.2.7".into())
        );
        assert_eq!(shown(&event(FENCE, 4), 1, 5).unwrap().reason, "metadata");
        assert_eq!(shown(&event(FENCE, 200), 1, 5), None, "of a kernel that knows more");
    }
}
