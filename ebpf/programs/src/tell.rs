//! Telling user space of a refusal, not more often than the pace allows.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use zen_ebpf_abi::address::Address;
use zen_ebpf_abi::event::{DropEvent, Pace, RING_BYTES};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);
#[map]
static PACE: PerCpuArray<Pace> = PerCpuArray::with_max_entries(1, 0);

/// What is told beside the address.
pub struct Refusal {
    pub port: u16,
    pub program: u8,
    pub reason: u8,
    pub enforced: bool,
    pub at_interface: bool,
}

/// Leaves an event in the ring; a full ring loses it, its count stays.
#[inline(always)]
pub fn tell(address: Address, refusal: Refusal) {
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let Some(pace) = PACE.get_ptr_mut(0) else { return };
    // SAFETY: the entry is this processor's own, and programs are not interrupted by themselves.
    if !unsafe { &mut *pace }.may_tell(now_ns) {
        return;
    }
    let event = DropEvent {
        at_ns: now_ns,
        address,
        port: refusal.port,
        program: refusal.program,
        reason: refusal.reason,
        enforced: refusal.enforced as u8,
        at_interface: refusal.at_interface as u8,
        reserved: 0,
    };
    let _ = EVENTS.output::<DropEvent>(&event, 0);
}
