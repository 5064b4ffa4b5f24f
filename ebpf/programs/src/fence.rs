//! fence: where the node may connect or send datagrams, whoever asks and by whatever call (`cgroup/connect4`, `connect6`,
//! `sendmsg4`, `sendmsg6`; Linux 5.8). `IORING_OP_CONNECT` goes through the same hooks.

#![no_std]
#![no_main]

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::macros::{cgroup_sock_addr, map};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, LpmTrie, PerCpuArray};
use aya_ebpf::programs::SockAddrContext;
use zen_ebpf_abi::address::{Address, is_mapped, mapped};
use zen_ebpf_abi::event::FENCE;
use zen_ebpf_abi::fence::{Counts, ENTRIES_MAX, KEY_BITS, OPEN, REASONS, ReachKey, Reason, Settings};
use zen_ebpf_abi::slot;
use zen_ebpf_programs::tell::{Refusal, tell};

const PASS: i32 = 1;
const REFUSE: i32 = 0;
const UDP: u32 = 17;

/// The generation in force.
#[map]
static GENERATION: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(2, 0);
#[map]
static REACH: LpmTrie<ReachKey, u32> = LpmTrie::with_max_entries(2 * ENTRIES_MAX, 0);
#[map]
static COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);

#[cgroup_sock_addr(connect4)]
fn zen_connect4(ctx: SockAddrContext) -> i32 {
    judge_v4(&ctx)
}

#[cgroup_sock_addr(connect6)]
fn zen_connect6(ctx: SockAddrContext) -> i32 {
    judge_v6(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
fn zen_sendmsg4(ctx: SockAddrContext) -> i32 {
    judge_v4(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
fn zen_sendmsg6(ctx: SockAddrContext) -> i32 {
    judge_v6(&ctx)
}

#[inline(always)]
fn judge_v4(ctx: &SockAddrContext) -> i32 {
    let sock_addr = ctx.sock_addr;
    // SAFETY: the context is the one that the kernel gave.
    let address = unsafe { (*sock_addr).user_ip4 };
    judge(sock_addr, mapped(address.to_ne_bytes()), false)
}

#[inline(always)]
fn judge_v6(ctx: &SockAddrContext) -> i32 {
    let sock_addr = ctx.sock_addr;
    // The verifier takes four reads of four bytes, and nothing else.
    let word = |at: usize| {
        // SAFETY: the context is the one that the kernel gave, and has four words.
        let word = unsafe { core::ptr::read_volatile(&raw const (*sock_addr).user_ip6[at]) };
        word.to_ne_bytes()
    };
    let [a, b, c, d] = [word(0), word(1), word(2), word(3)];
    let address =
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]];
    judge(sock_addr, address, is_mapped(&address))
}

#[inline(always)]
fn judge(sock_addr: *mut bpf_sock_addr, address: Address, is_other_form: bool) -> i32 {
    // SAFETY: the context is the one that the kernel gave.
    let (port, protocol) = unsafe { ((*sock_addr).user_port as u16, (*sock_addr).protocol) };
    // The system's resolver learns the source address of a result so; nothing can be sent to port 0.
    if protocol == UDP && port == 0 {
        return PASS;
    }
    let Some((generation, settings)) = settings() else { return REFUSE };
    let key =
        ReachKey { generation, protocol: protocol as u8, reserved: 0, port: port.to_ne_bytes(), address };
    let reason = match REACH.get(&Key::new(KEY_BITS + 128, key)) {
        _ if is_other_form => Reason::OtherForm as u32,
        Some(&OPEN) => {
            if let Some(counts) = COUNTS.get_ptr_mut(0) {
                // SAFETY: the entry is this processor's own.
                unsafe { (*counts).passed += 1 };
            }
            return PASS;
        }
        Some(&reason) => reason,
        None => Reason::NotListed as u32,
    };
    let enforced = settings.enforce != 0;
    if let Some(counts) = COUNTS.get_ptr_mut(0)
        && (reason as usize) < REASONS
    {
        // SAFETY: the entry is this processor's own.
        let counts = unsafe { &mut *counts };
        let by_reason = if enforced { &mut counts.refused } else { &mut counts.observed };
        by_reason[reason as usize] += 1;
        counts.passed += !enforced as u64;
    }
    let refusal = Refusal {
        port: u16::from_be(port),
        program: FENCE,
        reason: reason as u8,
        enforced,
        at_interface: false,
    };
    tell(address, refusal);
    if enforced { REFUSE } else { PASS }
}

#[inline(always)]
fn settings() -> Option<(u32, &'static Settings)> {
    let generation = *GENERATION.get(0)?;
    Some((generation, SETTINGS.get(slot(generation))?))
}

zen_ebpf_programs::object!();
