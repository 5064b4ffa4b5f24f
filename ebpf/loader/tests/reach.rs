//! The fence and the rules of user space are one set: random addresses are asked of both.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{alone, connect_datagram, listen};
use zen_core::access::{DestinationRefused, Grant, Network, Protocol, Purpose, ReachEntry, ReachRules};
use zen_ebpf::abi::fence::Reason;
use zen_ebpf::{Cgroup, Fence, FenceRules, Reach};
use zen_uring::{Backend, Completion, Limits, Reactor};

const PORT: u16 = 4433;
/// Rule sets, and addresses that are asked of each.
const SETS: u32 = 24;
const ADDRESSES: usize = 400;
/// Where verdicts change, and forms that hold other addresses.
const EDGES: [&str; 20] = [
    "0.0.0.0",
    "10.0.0.0",
    "127.0.0.1",
    "100.100.100.200",
    "169.253.255.255",
    "169.254.0.0",
    "169.254.169.254",
    "169.255.0.0",
    "192.0.0.192",
    "223.255.255.255",
    "224.0.0.0",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "fd00:ec2::254",
    "fe80::1",
];

fn network() -> impl Strategy<Value = Network> {
    let v4 = (any::<u32>(), 0_u8..=32).prop_map(|(bits, width)| {
        let host = u32::MAX.checked_shr(width.into()).unwrap_or(0);
        format!("{}/{width}", Ipv4Addr::from_bits(bits & !host))
    });
    let v6 = (any::<u128>(), 0_u8..=128).prop_map(|(bits, width)| {
        let host = u128::MAX.checked_shr(width.into()).unwrap_or(0);
        format!("{}/{width}", Ipv6Addr::from_bits(bits & !host))
    });
    let special = prop::sample::select(vec![
        "0.0.0.0/0",
        "::/0",
        "127.0.0.8/29",
        "169.254.7.0/24",
        "64:ff9b::/96",
        "fe80::/64",
        "10.0.0.0/8",
        "224.0.0.0/4",
        "::1/128",
        "2000::/3",
    ]);
    prop_oneof![v4, v6, special.prop_map(str::to_owned)]
        .prop_filter_map("a form of another family", |text| text.parse().ok())
}

fn address() -> impl Strategy<Value = IpAddr> {
    let edge = prop::sample::select(EDGES.to_vec());
    prop_oneof![
        3 => any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))),
        3 => any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))),
        1 => any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits).to_ipv6_mapped())),
        4 => edge.prop_map(|text| text.parse().unwrap()),
    ]
}

/// As the node translates them: the same reason by its name.
fn rules(reach: &ReachRules) -> FenceRules {
    let number = |refused: DestinationRefused| {
        Reason::ALL.into_iter().find(|reason| reason.label() == refused.label()).unwrap()
    };
    let entry = |entry: ReachEntry| {
        let ReachEntry { protocol, port, address, bits, verdict } = entry;
        Reach { protocol, port, address, bits, refused: verdict.err().map(number) }
    };
    FenceRules { enforce: true, entries: reach.entries().map(entry).collect() }
}

fn is_fenced(outcome: &io::Result<()>) -> bool {
    outcome.as_ref().is_err_and(|error| error.raw_os_error() == Some(nix::errno::Errno::EPERM as i32))
}

#[test]
fn the_kernel_and_user_space_say_the_same_of_any_address() {
    let _alone = alone();
    let fence = RefCell::new(Fence::attach(&Cgroup::join().unwrap(), &FenceRules::default()).unwrap());
    let sets = prop::collection::vec(network(), 0..12);
    let addresses = prop::collection::vec(address(), ADDRESSES);
    let (open, closed) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: SETS, max_shrink_iters: 50, ..Config::default() });
    let outcome = runner.run(&(sets, addresses), |(networks, addresses)| {
        let inside: Vec<IpAddr> = networks.iter().map(|network| first_of(*network)).collect();
        let grant = Grant {
            purpose: Purpose::Target,
            protocol: Protocol::Udp,
            port: PORT,
            networks: networks.into(),
        };
        let reach = ReachRules::new(&[grant]).unwrap();
        fence.borrow_mut().replace(&rules(&reach)).unwrap();
        for address in addresses.into_iter().chain(inside) {
            let verdict = reach.check(Protocol::Udp, address, PORT);
            let outcome = connect_datagram(SocketAddr::new(address, PORT));
            prop_assert_eq!(
                is_fenced(&outcome),
                verdict.is_err(),
                "{}: {:?}, {:?}",
                address,
                verdict,
                outcome
            );
            let count = if verdict.is_ok() { &open } else { &closed };
            count.set(count.get() + 1);
        }
        Ok(())
    });
    outcome.unwrap();
    let (open, closed) = (open.get(), closed.get());
    assert!(open > 500 && closed > 500, "{open} open, {closed} closed");
    let counts = fence.borrow().counts().unwrap();
    assert_eq!(counts.passed, open);
    assert_eq!(counts.refused.iter().sum::<u64>(), closed);
}

fn first_of(network: Network) -> IpAddr {
    let (bits, _) = network.prefix();
    IpAddr::from(Ipv6Addr::from_bits(bits)).to_canonical()
}

/// A ring's connect is made by the kernel, not by a system call of this thread.
#[test]
fn a_connection_of_a_ring_is_fenced_in_as_well() {
    let _alone = alone();
    let cgroup = Cgroup::join().unwrap();
    for backend in [Backend::Uring, Backend::Epoll] {
        let (_listener, at) = listen("127.0.0.1");
        let (_other, other_at) = listen("127.0.0.1");
        let grant = Grant {
            purpose: Purpose::Target,
            protocol: Protocol::Tcp,
            port: at.port(),
            networks: [format!("{}/32", at.ip()).parse().unwrap()].into(),
        };
        let fence = Fence::attach(&cgroup, &rules(&ReachRules::new(&[grant]).unwrap())).unwrap();
        assert!(connect_by(backend, at).is_ok(), "{backend:?}");
        assert!(is_fenced(&connect_by(backend, other_at)), "{backend:?}");
        let counts = fence.counts().unwrap();
        assert_eq!((counts.passed, counts.refused[Reason::NotListed as usize]), (1, 1), "{backend:?}");
    }
}

fn connect_by(backend: Backend, to: SocketAddr) -> io::Result<()> {
    let limits = Limits { sockets_max: 16, ..Limits::default() };
    let mut reactor = Reactor::new(&limits, backend).unwrap();
    let wanted = reactor.connect(to).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut completions = Vec::new();
    while Instant::now() < deadline {
        reactor.tick(Some(Duration::from_millis(100)), &mut completions);
        for completion in completions.drain(..) {
            if let Completion::Connected { socket, result } = completion
                && socket == wanted
            {
                return result;
            }
        }
    }
    panic!("the connect never completed");
}
