//! guard: refuses packets to the listeners' ports before TLS costs anything. It can only refuse.
//!
//! `zen_guard` (`cgroup_skb/ingress`, Linux 5.8) sees what reaches the node's own sockets, reassembled; its first look is at
//! the socket's port, so connections of the node to elsewhere pass at once. `zen_guard_xdp` (Linux 5.8, generic mode included)
//! judges the same frames at the interface, by the same tables, where their destination is a listener's. What it has charged to a
//! budget is not charged again at the socket.

#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{cgroup_skb, map, xdp};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::programs::{SkBuffContext, XdpContext};
use zen_ebpf_abi::address::{is_mapped, prefix};
use zen_ebpf_abi::event::GUARD;
use zen_ebpf_abi::guard::{
    Counts, GENERATION_BITS, LISTENERS_MAX, LocalKey, NETWORKS_MAX, NetworkKey, Reason, Settings, SourceKey,
    Spent, listed,
};
use zen_ebpf_abi::packet::{Bytes, Parsed, Segment, parse};
use zen_ebpf_abi::slot;
use zen_ebpf_programs::tell::{Refusal, tell};

const PASS: i32 = 1;
const DROP: i32 = 0;
/// EtherTypes, IEEE 802.
const ETHER_IPV4: u16 = 0x0800;
const ETHER_IPV6: u16 = 0x86dd;
const ETHER_VLAN: u16 = 0x8100;
const ETHER_HEADER: usize = 14;
const VLAN_TAG: usize = 4;

/// The generation in force.
#[map]
static GENERATION: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(2, 0);
/// Listeners' ports, in the host's order, and the place of each in the counts.
#[map]
static PORTS: HashMap<u16, u32> = HashMap::with_max_entries(LISTENERS_MAX, 0);
/// Where frames are judged at their interface already.
#[map]
static INTERFACES: HashMap<u32, u32> = HashMap::with_max_entries(LISTENERS_MAX, 0);
/// Listeners' addresses; what is not here passes at an interface.
#[map]
static LOCAL: HashMap<LocalKey, u32> = HashMap::with_max_entries(LISTENERS_MAX, 0);
#[map]
static NETWORKS: LpmTrie<NetworkKey, u32> = LpmTrie::with_max_entries(2 * NETWORKS_MAX, 0);
#[map]
static SPENT: LruHashMap<SourceKey, Spent> = LruHashMap::with_max_entries(65_536, 0);
#[map]
static COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(LISTENERS_MAX, 0);

#[cgroup_skb(ingress)]
fn zen_guard(ctx: SkBuffContext) -> i32 {
    let port = ctx.skb.local_port() as u16;
    // SAFETY: entries of this table are not removed while the program is attached.
    let Some(listener) = (unsafe { PORTS.get(&port) }) else { return PASS };
    let Some((generation, settings)) = settings() else { return PASS };
    let segment = match parse(&Packet(&ctx), 0) {
        Parsed::Tcp(segment) if segment.is_whole => segment,
        Parsed::Other => return PASS,
        Parsed::Tcp(_) | Parsed::Malformed => {
            let refusal = Refused { port, reason: Reason::Malformed, at_interface: false };
            return if refuse(*listener, [0; 16], refusal, settings) { DROP } else { PASS };
        }
    };
    // SAFETY: the context is the one that the kernel gave.
    let (interface, segments) = unsafe { ((*ctx.skb.skb).ingress_ifindex, (*ctx.skb.skb).gso_segs) };
    let charged = is_charged(interface, port, &segment);
    match judge(generation, settings, port, &segment, if charged { 0 } else { segments.max(1) as u64 }) {
        Some(reason) => {
            let refusal = Refused { port, reason, at_interface: false };
            if refuse(*listener, segment.source, refusal, settings) { DROP } else { PASS }
        }
        None => {
            count_passed(*listener);
            PASS
        }
    }
}

#[xdp]
fn zen_guard_xdp(ctx: XdpContext) -> u32 {
    let frame = Frame(&ctx);
    let Some(header) = frame.read::<ETHER_HEADER>(0) else { return XDP_PASS };
    let (mut kind, mut at) = (u16::from_be_bytes([header[12], header[13]]), ETHER_HEADER);
    if kind == ETHER_VLAN {
        let Some(tag) = frame.read::<VLAN_TAG>(at) else { return XDP_PASS };
        (kind, at) = (u16::from_be_bytes([tag[2], tag[3]]), at + VLAN_TAG);
    }
    if kind != ETHER_IPV4 && kind != ETHER_IPV6 {
        return XDP_PASS;
    }
    // What cannot be read has no port, so nobody knows whose it is: the socket's guard sees it if it gets that far.
    let Parsed::Tcp(segment) = parse(&frame, at) else { return XDP_PASS };
    let port = segment.destination_port;
    // SAFETY: a look at a number; an entry that goes meanwhile is a listener's that goes.
    let Some(listener) = (unsafe { LOCAL.get(&local_key(&segment, port)) }) else { return XDP_PASS };
    let Some((generation, settings)) = settings() else { return XDP_PASS };
    let reason = if segment.is_whole {
        judge(generation, settings, port, &segment, 1)
    } else {
        Some(Reason::Malformed)
    };
    let Some(reason) = reason else { return XDP_PASS };
    let refusal = Refused { port, reason, at_interface: true };
    if refuse(*listener, segment.source, refusal, settings) { XDP_DROP } else { XDP_PASS }
}

#[inline(always)]
fn settings() -> Option<(u32, &'static Settings)> {
    let generation = *GENERATION.get(0)?;
    Some((generation, SETTINGS.get(slot(generation))?))
}

#[inline(always)]
fn local_key(segment: &Segment, port: u16) -> LocalKey {
    LocalKey { address: segment.destination, port, reserved: 0 }
}

/// Whether the packet was charged to its budget at its interface.
#[inline(always)]
fn is_charged(interface: u32, port: u16, segment: &Segment) -> bool {
    // SAFETY: whether entries are there is all that is looked at.
    unsafe { INTERFACES.get(&interface).is_some() && LOCAL.get(&local_key(segment, port)).is_some() }
}

/// Why the segment is refused, if it is; `packets` are charged, none if that was done before.
#[inline(always)]
fn judge(generation: u32, settings: &Settings, port: u16, segment: &Segment, packets: u64) -> Option<Reason> {
    let key = Key::new(GENERATION_BITS + 128, NetworkKey { generation, address: segment.source });
    let reason = listed(NETWORKS.get(&key).copied(), settings.has_allow);
    if reason.is_some() || packets == 0 {
        return reason;
    }
    let (budget, reason) = if segment.is_syn {
        (&settings.syn, Reason::SynBudget)
    } else {
        (&settings.packets, Reason::PacketBudget)
    };
    if budget.cost_ns == 0 {
        return None;
    }
    let bits = if is_mapped(&segment.source) { settings.bits_v4 } else { settings.bits_v6 };
    let source = SourceKey { prefix: prefix(&segment.source, bits), port, reserved: 0 };
    if SPENT.get_ptr(&source).is_none() {
        let _ = SPENT.insert(&source, &Spent::default(), 0);
    }
    let spent = SPENT.get_ptr_mut(&source)?;
    // SAFETY: the entry stays until the program ends; another processor may write it too, which may undercount by one.
    let spent = unsafe { &mut *spent };
    let until_ns = if segment.is_syn { &mut spent.syn_until_ns } else { &mut spent.packets_until_ns };
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    budget.is_over(until_ns, now_ns, packets).then_some(reason)
}

#[inline(always)]
fn count_passed(listener: u32) {
    if let Some(counts) = COUNTS.get_ptr_mut(listener) {
        // SAFETY: the entry is this processor's own.
        unsafe { (*counts).passed += 1 };
    }
}

struct Refused {
    port: u16,
    reason: Reason,
    at_interface: bool,
}

/// Counts and tells; whether the packet goes.
#[inline(always)]
fn refuse(listener: u32, source: [u8; 16], refused: Refused, settings: &Settings) -> bool {
    let (enforced, reason) = (settings.enforce != 0, refused.reason as u8);
    if let Some(counts) = COUNTS.get_ptr_mut(listener) {
        // SAFETY: the entry is this processor's own.
        let counts = unsafe { &mut *counts };
        let by_reason = if enforced { &mut counts.refused } else { &mut counts.observed };
        by_reason[reason as usize] += 1;
        counts.passed += !enforced as u64;
    }
    let Refused { port, at_interface, .. } = refused;
    tell(source, Refusal { port, program: GUARD, reason, enforced, at_interface });
    enforced
}

/// A packet at a socket, from its IP header on.
struct Packet<'a>(&'a SkBuffContext);

impl Bytes for Packet<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.load::<[u8; N]>(offset).ok()
    }
}

/// A frame at an interface.
struct Frame<'a>(&'a XdpContext);

impl Bytes for Frame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.0.data() + offset;
        if at + N > self.0.data_end() {
            return None;
        }
        // SAFETY: the bytes lie within the frame, as was just compared.
        Some(unsafe { core::ptr::read_unaligned(at as *const [u8; N]) })
    }
}

zen_ebpf_programs::object!();
