//! The guard on real sockets: over loopback, where each address is a source, and over a pair of interfaces.
//!
//! These tests need root and a kernel with BPF; they fail where that is missing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Outside, alone, dial, is_silent, listen};
use zen_ebpf::abi::event::DropEvent;
use zen_ebpf::abi::guard::{Counts, Reason};
use zen_ebpf::{Cgroup, EbpfError, Guard, GuardRules, Listener, Network, Rate, XdpMode};

const SOURCES_MAX: u32 = 1024;

fn rules() -> GuardRules {
    GuardRules { enforce: true, source_bits_v4: 32, source_bits_v6: 64, ..GuardRules::default() }
}

fn v4(text: &str, bits: u8) -> Network {
    let address: std::net::Ipv4Addr = text.parse().unwrap();
    Network { address: address.to_ipv6_mapped().octets(), bits: 96 + bits }
}

fn v6(text: &str, bits: u8) -> Network {
    let address: std::net::Ipv6Addr = text.parse().unwrap();
    Network { address: address.octets(), bits }
}

fn guard(at: SocketAddr, rules: &GuardRules) -> Guard {
    Guard::attach(&Cgroup::join().unwrap(), &[Listener { address: at }], SOURCES_MAX, rules).unwrap()
}

fn counts(guard: &Guard) -> Counts {
    guard.counts().unwrap()[0].1
}

fn refused(guard: &Guard, reason: Reason) -> u64 {
    counts(guard).refused[reason as usize]
}

/// A socket in this process's cgroup of now: those that were made before it moved are in the old one.
fn listener() -> (TcpListener, SocketAddr) {
    Cgroup::join().unwrap();
    listen("127.0.0.1")
}

#[test]
fn a_denied_source_gets_no_answer_and_others_do() {
    let _alone = alone();
    let (_listener, at) = listener();
    let mut guard =
        guard(at, &GuardRules { deny: vec![v4("127.0.0.2", 32), v4("127.1.0.0", 16)], ..rules() });
    for (source, silent) in
        [("127.0.0.1", false), ("127.0.0.2", true), ("127.1.9.9", true), ("127.0.0.3", false)]
    {
        assert_eq!(is_silent(&dial(source, at)), silent, "{source}");
    }
    assert!(refused(&guard, Reason::Denied) >= 2);
    assert!(counts(&guard).passed >= 2, "two handshakes");
    let mut refusals = guard.take_refusals().unwrap();
    let told: Vec<DropEvent> = std::iter::from_fn(|| refusals.poll_refusal()).collect();
    assert_eq!(told.len() as u64, refused(&guard, Reason::Denied));
    let event = told[0];
    assert_eq!((event.port, event.reason, event.enforced), (at.port(), Reason::Denied as u8, 1));
    assert_eq!(event.address, v4("127.0.0.2", 32).address);
}

#[test]
fn an_ipv6_source_is_judged_by_its_own_prefixes() {
    let _alone = alone();
    Cgroup::join().unwrap();
    let (_listener, at) = listen("::1");
    let mut guard = guard(at, &GuardRules { deny: vec![v6("::", 120)], ..rules() });
    assert!(is_silent(&dial("::1", at)));
    let all_v4 = GuardRules { deny: vec![v4("0.0.0.0", 0), v6("::2", 128)], ..rules() };
    guard.replace(&all_v4).unwrap();
    dial("::1", at).expect("no IPv4 address");
    let syn = Some(Rate { per_second: 1, burst: 2 });
    guard.replace(&GuardRules { syn, ..rules() }).unwrap();
    for _ in 0..2 {
        dial("::1", at).unwrap();
    }
    assert!(is_silent(&dial("::1", at)));
    assert!(refused(&guard, Reason::SynBudget) >= 1);
}

#[test]
fn with_an_allow_list_only_its_sources_get_an_answer() {
    let _alone = alone();
    let (_listener, at) = listener();
    let guard = guard(at, &GuardRules { allow: vec![v4("127.0.0.8", 30)], ..rules() });
    for (source, silent) in
        [("127.0.0.8", false), ("127.0.0.11", false), ("127.0.0.12", true), ("127.0.0.1", true)]
    {
        assert_eq!(is_silent(&dial(source, at)), silent, "{source}");
    }
    assert!(refused(&guard, Reason::NotAllowed) >= 2);
}

#[test]
fn what_is_only_observed_passes_and_is_counted() {
    let _alone = alone();
    let (_listener, at) = listener();
    let mut guard = guard(at, &GuardRules { enforce: false, deny: vec![v4("127.0.0.2", 32)], ..rules() });
    dial("127.0.0.2", at).unwrap();
    let seen = counts(&guard);
    assert_eq!(
        (seen.refused[Reason::Denied as usize], seen.passed),
        (0, seen.observed[Reason::Denied as usize])
    );
    assert!(seen.passed >= 2, "SYN and ACK");
    let event = guard.take_refusals().unwrap().poll_refusal().unwrap();
    assert_eq!(event.enforced, 0);
}

#[test]
fn a_source_has_its_budget_of_connections_and_takes_nobody_elses() {
    let _alone = alone();
    let (_listener, at) = listener();
    let syn = Some(Rate { per_second: 1, burst: 5 });
    let guard = guard(at, &GuardRules { syn, source_bits_v4: 24, ..rules() });
    for attempt in 0..5 {
        dial("127.0.0.1", at).unwrap_or_else(|error| panic!("{attempt}: {error}"));
    }
    // A second passes for the budget, too: the retry of a SYN may get through later, not at once.
    assert!(is_silent(&dial("127.0.0.2", at)), "the same /24");
    dial("127.0.1.1", at).unwrap();
    assert!(refused(&guard, Reason::SynBudget) >= 1);
    assert_eq!(refused(&guard, Reason::PacketBudget), 0);
}

#[test]
fn packets_of_a_connection_have_a_budget_of_their_own() {
    let _alone = alone();
    let (listener, at) = listener();
    let packets = Some(Rate { per_second: 1, burst: 8 });
    let guard = guard(at, &GuardRules { packets, ..rules() });
    let mut source = dial("127.0.0.1", at).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    source.set_nodelay(true).unwrap();
    for _ in 0..20 {
        source.write_all(b"x").unwrap();
    }
    let came: usize = std::iter::from_fn(|| accepted.read(&mut [0; 16]).ok()).sum();
    assert!((1..8).contains(&came), "{came} of 20 bytes came, each in its packet");
    assert!(refused(&guard, Reason::PacketBudget) >= 1);
    dial("127.0.0.2", at).unwrap();
}

#[test]
fn other_ports_and_outgoing_connections_are_not_touched() {
    let _alone = alone();
    let (_listener, at) = listener();
    let (_other, other_at) = listener();
    let packets = Some(Rate { per_second: 1, burst: 1 });
    let deny = vec![v4("127.0.0.0", 8)];
    let guard = guard(at, &GuardRules { deny, packets, syn: packets, ..rules() });
    assert!(is_silent(&dial("127.0.0.1", at)));
    let before = counts(&guard).refused.iter().sum::<u64>();
    for source in ["127.0.0.1", "127.0.0.2"] {
        for _ in 0..20 {
            dial(source, other_at).unwrap();
        }
    }
    assert_eq!(counts(&guard).refused.iter().sum::<u64>(), before);
    assert_eq!(counts(&guard).passed, 0, "what is not a listener's is not even counted");
}

#[test]
fn rules_are_replaced_without_a_moment_between() {
    let _alone = alone();
    let (listener, at) = listener();
    let both = [
        GuardRules { allow: vec![v4("127.0.0.1", 32), v4("127.0.0.64", 26)], ..rules() },
        GuardRules { allow: vec![v4("127.0.0.0", 29)], deny: vec![v4("127.0.1.0", 24)], ..rules() },
    ];
    let mut guard = guard(at, &both[0]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let dialling = scope.spawn(|| {
            let mut dialled = 0_u32;
            while !done.load(Ordering::Relaxed) {
                dial("127.0.0.1", at).expect("both rules allow this source");
                listener.accept().unwrap();
                dialled += 1;
            }
            dialled
        });
        for round in 1..=50 {
            guard.replace(&both[round % 2]).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(dialling.join().unwrap() > 20);
    });
    assert!(is_silent(&dial("127.0.0.70", at)) == (50 % 2 == 1), "the last rules are in force");
    assert!(is_silent(&dial("127.0.1.1", at)), "not allowed by either");
}

#[test]
fn rules_that_do_not_fit_change_nothing() {
    let _alone = alone();
    let (_listener, at) = listener();
    let mut guard = guard(at, &GuardRules { deny: vec![v4("127.0.0.2", 32)], ..rules() });
    let networks =
        |count: u32| (0..count).map(|at| v4(&std::net::Ipv4Addr::from_bits(at << 8).to_string(), 24));
    let deny: Vec<Network> = networks(8193).collect();
    let refused = guard.replace(&GuardRules { deny: deny.clone(), ..rules() });
    assert!(matches!(refused, Err(EbpfError::TooMany { count: 8193, .. })), "{refused:?}");
    assert!(is_silent(&dial("127.0.0.2", at)), "the old rules stay");
    for _ in 0..3 {
        guard.replace(&GuardRules { deny: deny[..8192].to_vec(), ..rules() }).unwrap();
    }
    dial("127.0.0.2", at).unwrap();
}

#[test]
fn its_end_lets_everybody_in_again() {
    let _alone = alone();
    let (_listener, at) = listener();
    let guard = guard(at, &GuardRules { deny: vec![v4("127.0.0.0", 8)], ..rules() });
    assert!(is_silent(&dial("127.0.0.1", at)));
    drop(guard);
    dial("127.0.0.1", at).unwrap();
}

#[test]
fn frames_are_judged_at_their_interface_by_the_same_rules() {
    let _alone = alone();
    let outside = Outside::make(1);
    Cgroup::join().unwrap();
    let (_v4, at) = listen("10.77.1.1");
    let _v6 = TcpListener::bind(("fd77:1::1", at.port())).unwrap();
    let at_v6: SocketAddr = format!("[fd77:1::1]:{}", at.port()).parse().unwrap();
    let (_other, other_at) = listen("10.77.1.1");
    let syn = Some(Rate { per_second: 1, burst: 3 });
    let deny = vec![v4("10.77.1.3", 32), v6("fd77:1::", 64)];
    let mut guard = guard(at, &GuardRules { deny, syn, ..rules() });
    guard.attach_to_interface(&outside.inside, XdpMode::Skb, &[at, at_v6]).unwrap();
    outside.run(|| {
        assert!(is_silent(&dial("10.77.1.3", at)));
        assert!(is_silent(&dial("fd77:1::2", at_v6)));
        dial("10.77.1.3", other_at).expect("another port");
        for attempt in 0..3 {
            dial("10.77.1.2", at).unwrap_or_else(|error| panic!("{attempt}: {error}"));
        }
        assert!(is_silent(&dial("10.77.1.2", at)), "each attempt was charged once");
    });
    let mut refusals = guard.take_refusals().unwrap();
    let told: Vec<DropEvent> = std::iter::from_fn(|| refusals.poll_refusal()).collect();
    assert!(told.iter().all(|event| event.at_interface == 1), "{told:?}");
    for reason in [Reason::Denied, Reason::SynBudget] {
        assert!(refused(&guard, reason) >= 1, "{}", reason.label());
        assert!(told.iter().any(|event| event.reason == reason as u8), "{}", reason.label());
    }
    for (name, said) in [("zen-gone", "no such network interface"), (&*outside.inside, "busy")] {
        let again = guard.attach_to_interface(name, XdpMode::Skb, &[at]);
        assert!(again.as_ref().is_err_and(|error| error.to_string().contains(said)), "{name}: {again:?}");
    }
}

#[test]
fn an_address_that_is_not_told_passes_the_interface_and_is_judged_at_the_socket() {
    let _alone = alone();
    let outside = Outside::make(2);
    Cgroup::join().unwrap();
    let (_listener, at) = listen("10.77.2.1");
    let mut guard = guard(at, &GuardRules { deny: vec![v4("10.77.2.3", 32)], ..rules() });
    guard.attach_to_interface(&outside.inside, XdpMode::Skb, &["10.77.2.9:1".parse().unwrap()]).unwrap();
    outside.run(|| assert!(is_silent(&dial("10.77.2.3", at))));
    let event = guard.take_refusals().unwrap().poll_refusal().unwrap();
    assert_eq!((event.at_interface, event.reason), (0, Reason::Denied as u8));
}

/// Malformed headers, fragments and other protocols, as raw packets from outside.
#[test]
fn what_cannot_be_read_is_refused_at_the_socket_and_fragments_come_together_first() {
    let _alone = alone();
    let outside = Outside::make(3);
    Cgroup::join().unwrap();
    let (_listener, at) = listen("10.77.3.1");
    let guard = guard(at, &rules());
    let syn = tcp_syn([10, 77, 3, 2], [10, 77, 3, 1], 40_000, at.port());
    let mut short = syn.clone();
    short[12] = 0x40;
    checksum(&mut short, [10, 77, 3, 2], [10, 77, 3, 1]);
    outside.run(|| {
        let raw = RawSender::open();
        raw.send(&ipv4(0, &syn), "10.77.3.1");
        raw.send(&ipv4(0, &short), "10.77.3.1");
        raw.send(&ipv4(0x2000, &syn[..8]), "10.77.3.1");
        raw.send(&ipv4(1, &syn[8..]), "10.77.3.1");
    });
    let deadline = Instant::now() + Duration::from_secs(2);
    while counts(&guard).passed < 2 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let seen = counts(&guard);
    assert!(seen.passed >= 2, "the SYN, and the one that came in two fragments: {seen:?}");
    // A header of 16 bytes is dropped by the kernel before its sockets; if it came through, it would be counted.
    assert!(seen.refused[Reason::Malformed as usize] <= 1, "{seen:?}");
}

/// Sends whole IPv4 packets.
struct RawSender(std::os::fd::OwnedFd);

impl RawSender {
    fn open() -> Self {
        use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
        Self(socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap())
    }

    fn send(&self, packet: &[u8], to: &str) {
        use std::os::fd::AsRawFd as _;
        let address = nix::sys::socket::SockaddrIn::from(std::net::SocketAddrV4::new(to.parse().unwrap(), 0));
        let flags = nix::sys::socket::MsgFlags::empty();
        let sent = nix::sys::socket::sendto(self.0.as_raw_fd(), packet, &address, flags).unwrap();
        assert_eq!(sent, packet.len());
    }
}

/// An IPv4 packet from 10.77.3.2 to 10.77.3.1; the kernel fills in length and checksum of the header.
fn ipv4(fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, 6, 0, 0, 10, 77, 3, 2, 10, 77, 3, 1];
    packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn tcp_syn(from: [u8; 4], to: [u8; 4], source: u16, destination: u16) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&source.to_be_bytes());
    segment[2..4].copy_from_slice(&destination.to_be_bytes());
    segment[12] = 0x50;
    segment[13] = 0x02;
    segment[14..16].copy_from_slice(&64_000_u16.to_be_bytes());
    checksum(&mut segment, from, to);
    segment
}

/// RFC 9293 section 3.1.
fn checksum(segment: &mut [u8], from: [u8; 4], to: [u8; 4]) {
    segment[16..18].fill(0);
    let pseudo = [&from[..], &to[..], &[0, 6], &(segment.len() as u16).to_be_bytes()[..], segment].concat();
    let mut sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    segment[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
