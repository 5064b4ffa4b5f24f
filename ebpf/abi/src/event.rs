//! What a program tells of a packet or a connection that it refused, or would have.

use crate::address::Address;

/// Ring buffer of events, bytes: about 2,000 of them.
pub const RING_BYTES: u32 = 1 << 16;
/// Events that a program tells in a second, for each processor; the rest is only counted.
pub const EVENTS_PER_SECOND: u64 = 100;

/// One refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DropEvent {
    /// When, ns of the monotonic clock.
    pub at_ns: u64,
    /// Where the packet came from, or where the connection was to go.
    pub address: Address,
    /// The listener's port, or the destination's.
    pub port: u16,
    /// Which program: [`GUARD`] or [`FENCE`].
    pub program: u8,
    /// Its reason's number.
    pub reason: u8,
    /// 1 if it was refused, 0 if that was only counted.
    pub enforced: u8,
    /// 1 if the frame was refused at its network interface.
    pub at_interface: u8,
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<DropEvent>() == 32);

/// [`DropEvent::program`] of the guard.
pub const GUARD: u8 = 1;
/// [`DropEvent::program`] of the fence.
pub const FENCE: u8 = 2;

/// How many events a processor has told in the current second.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Pace {
    /// The second, of the monotonic clock.
    pub second: u64,
    /// Events in it.
    pub told: u64,
}

impl Pace {
    /// Whether one more may be told now.
    #[inline(always)]
    pub fn may_tell(&mut self, now_ns: u64) -> bool {
        let second = now_ns / 1_000_000_000;
        if self.second != second {
            self.second = second;
            self.told = 0;
        }
        self.told += 1;
        self.told <= EVENTS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_share() {
        let mut pace = Pace::default();
        let told = (0..1000_u64).filter(|at| pace.may_tell(5_000_000_000 + at)).count() as u64;
        assert_eq!(told, EVENTS_PER_SECOND);
        assert!(pace.may_tell(6_000_000_000));
    }
}
