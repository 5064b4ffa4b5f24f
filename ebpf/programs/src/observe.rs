//! observe: what the node's own TCP connections are like (`sock_ops` of its cgroup; Linux 5.8).
//!
//! A connection has a place: the listener's port, or the destination that it was dialled for. All is learned from callbacks of the
//! sockets themselves, so that no socket of another process costs anything, and no offset of a kernel structure is assumed.

#![no_std]
#![no_main]

use core::hint::black_box;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTT_CB,
    BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
    BPF_TCP_CLOSE, BPF_TCP_ESTABLISHED,
};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::{map, sock_ops};
use aya_ebpf::maps::{HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::programs::SockOpsContext;
use zen_ebpf_abi::address::{Address, mapped};
use zen_ebpf_abi::observe::{
    BUCKETS, CONNECTIONS_MAX, Connection, Counts, Histogram, OTHER, PLACES_MAX, PlaceKey, bucket_of,
};

const AF_INET: u32 = 2;

#[map]
static PLACES: HashMap<PlaceKey, u32> = HashMap::with_max_entries(PLACES_MAX, 0);
/// By the cookie of the socket.
#[map]
static CONNECTIONS: LruHashMap<u64, Connection> = LruHashMap::with_max_entries(CONNECTIONS_MAX, 0);
#[map]
static COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(PLACES_MAX, 0);

#[sock_ops]
fn zen_observe(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => begin(&ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => establish(&ctx, true),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => establish(&ctx, false),
        BPF_SOCK_OPS_RTT_CB => progress(&ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => end(&ctx, ctx.arg(0)),
        _ => {}
    }
    1
}

/// Our SYN goes out.
#[inline(always)]
fn begin(ctx: &SockOpsContext) {
    // SAFETY: the helper has no preconditions.
    let begun_ns = unsafe { bpf_ktime_get_ns() };
    let connection = Connection { begun_ns, place: destination(ctx), ..Connection::default() };
    let _ = CONNECTIONS.insert(&cookie(ctx), &connection, 0);
    let _ = ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32);
}

/// The handshake is over. What a listener saw of it is its first round trip, SYN-ACK to ACK.
#[inline(always)]
fn establish(ctx: &SockOpsContext, dialled: bool) {
    let cookie = cookie(ctx);
    let (place, handshake_us) = match CONNECTIONS.get_ptr_mut(&cookie) {
        Some(connection) if dialled => {
            // SAFETY: callbacks of a socket come one after the other.
            let connection = unsafe { &mut *connection };
            connection.established = 1;
            // SAFETY: the helper has no preconditions.
            let now_ns = unsafe { bpf_ktime_get_ns() };
            (connection.place, (now_ns.wrapping_sub(connection.begun_ns) / 1000) as u32)
        }
        _ => {
            let place = if dialled { destination(ctx) } else { listener(ctx) };
            let connection = Connection { place, established: 1, ..Connection::default() };
            let _ = CONNECTIONS.insert(&cookie, &connection, 0);
            (place, rtt_us(ctx))
        }
    };
    if let Some(counts) = counts(place) {
        counts.opened += 1;
        add(&mut counts.handshake_us, handshake_us);
    }
    let _ = ctx.set_cb_flags((BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG) as i32);
}

/// An acknowledgement came: bytes of long connections are counted while they last.
#[inline(always)]
fn progress(ctx: &SockOpsContext) {
    let Some(connection) = CONNECTIONS.get_ptr_mut(&cookie(ctx)) else { return };
    // SAFETY: callbacks of a socket come one after the other.
    let connection = unsafe { &mut *connection };
    if let Some(counts) = counts(connection.place) {
        count_bytes(ctx, connection, counts);
    }
}

#[inline(always)]
fn end(ctx: &SockOpsContext, state_before: u32) {
    let cookie = cookie(ctx);
    let Some(found) = CONNECTIONS.get_ptr_mut(&cookie) else { return };
    // SAFETY: callbacks of a socket come one after the other.
    let connection = unsafe { &mut *found };
    if let Some(counts) = counts(connection.place) {
        if connection.established == 0 {
            counts.failed += 1;
        } else {
            count_bytes(ctx, connection, counts);
            let by_one_side = state_before == BPF_TCP_ESTABLISHED;
            counts.reset += by_one_side as u64;
            counts.closed += !by_one_side as u64;
            add(&mut counts.rtt_us, rtt_us(ctx));
            // SAFETY: the context is the one that the kernel gave.
            add(&mut counts.retransmits, unsafe { (*ctx.ops).total_retrans });
        }
    }
    let _ = CONNECTIONS.remove(&cookie);
}

#[inline(always)]
fn count_bytes(ctx: &SockOpsContext, connection: &mut Connection, counts: &mut Counts) {
    // SAFETY: the context is the one that the kernel gave.
    let (sent, received) = unsafe { ((*ctx.ops).bytes_acked, (*ctx.ops).bytes_received) };
    counts.bytes_sent += sent.wrapping_sub(connection.bytes_sent);
    counts.bytes_received += received.wrapping_sub(connection.bytes_received);
    connection.bytes_sent = sent;
    connection.bytes_received = received;
}

#[inline(always)]
fn counts(place: u32) -> Option<&'static mut Counts> {
    // SAFETY: the entry is this processor's own, and the callback is not interrupted by another of them.
    COUNTS.get_ptr_mut(place).map(|counts| unsafe { &mut *counts })
}

#[inline(always)]
fn add(histogram: &mut Histogram, value: u32) {
    // The compiler knows the bound and would leave it out; the verifier wants to see it.
    let bucket = black_box(bucket_of(value)) as usize & (BUCKETS - 1);
    histogram.buckets[bucket] += 1;
    histogram.sum += value as u64;
}

/// The kernel keeps eight times the smoothed round trip.
#[inline(always)]
fn rtt_us(ctx: &SockOpsContext) -> u32 {
    // SAFETY: the context is the one that the kernel gave.
    unsafe { (*ctx.ops).srtt_us >> 3 }
}

#[inline(always)]
fn cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the context is the one that the kernel gave.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

#[inline(always)]
fn listener(ctx: &SockOpsContext) -> u32 {
    place(&PlaceKey { address: [0; 16], port: ctx.local_port() as u16, reserved: 0 })
}

#[inline(always)]
fn destination(ctx: &SockOpsContext) -> u32 {
    // The kernel keeps the port in the upper half, most significant byte first.
    let port = u32::from_be(ctx.remote_port()) as u16;
    place(&PlaceKey { address: remote(ctx), port, reserved: 0 })
}

#[inline(always)]
fn remote(ctx: &SockOpsContext) -> Address {
    if ctx.family() == AF_INET {
        return mapped(ctx.remote_ip4().to_ne_bytes());
    }
    let word = |at: usize| {
        // SAFETY: the context is the one that the kernel gave, and has four words.
        let word = unsafe { core::ptr::read_volatile(&raw const (*ctx.ops).remote_ip6[at]) };
        word.to_ne_bytes()
    };
    let [a, b, c, d] = [word(0), word(1), word(2), word(3)];
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}

#[inline(always)]
fn place(key: &PlaceKey) -> u32 {
    // SAFETY: a look at a number.
    unsafe { PLACES.get(key).copied().unwrap_or(OTHER) }
}

zen_ebpf_programs::object!();
