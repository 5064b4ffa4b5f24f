//! The fence on real sockets. A connected datagram socket sends nothing, so any address can be tried.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use support::{alone, connect_datagram, dial, listen};
use zen_ebpf::abi::event::{DropEvent, FENCE};
use zen_ebpf::abi::fence::Reason;
use zen_ebpf::{Cgroup, Fence, FenceRules, Reach};

const TCP: u8 = 6;
const UDP: u8 = 17;

fn reach(protocol: u8, port: u16, network: &str, refused: Option<Reason>) -> Reach {
    let (address, bits) = network.split_once('/').unwrap();
    let bits: u8 = bits.parse().unwrap();
    match address.parse().unwrap() {
        IpAddr::V4(address) => {
            Reach { protocol, port, address: address.to_ipv6_mapped().octets(), bits: 96 + bits, refused }
        }
        IpAddr::V6(address) => Reach { protocol, port, address: address.octets(), bits, refused },
    }
}

fn fence(enforce: bool, entries: Vec<Reach>) -> Fence {
    Fence::attach(&Cgroup::join().unwrap(), &FenceRules { enforce, entries }).unwrap()
}

fn is_fenced<T>(outcome: &io::Result<T>) -> bool {
    outcome.as_ref().is_err_and(|error| error.raw_os_error() == Some(nix::errno::Errno::EPERM as i32))
}

#[test]
fn what_is_listed_is_reached_and_nothing_else() {
    let _alone = alone();
    Cgroup::join().unwrap();
    let (_listener, at) = listen("127.0.0.1");
    let (_other, other_at) = listen("127.0.0.1");
    let fence = fence(true, vec![reach(TCP, at.port(), "127.0.0.1/32", None)]);
    dial("127.0.0.1", at).unwrap();
    assert!(is_fenced(&dial("127.0.0.1", other_at)), "another port");
    let elsewhere = SocketAddr::new("127.0.0.9".parse().unwrap(), at.port());
    assert!(is_fenced(&dial("127.0.0.1", elsewhere)), "another address");
    assert!(is_fenced(&connect_datagram(at)), "another protocol");
    let counts = fence.counts().unwrap();
    assert_eq!((counts.passed, counts.refused[Reason::NotListed as usize]), (1, 3));
}

#[test]
fn the_longest_network_decides() {
    let _alone = alone();
    let mut fence = fence(
        true,
        vec![
            reach(UDP, 53, "0.0.0.0/0", None),
            reach(UDP, 53, "169.254.0.0/16", Some(Reason::LinkLocal)),
            reach(UDP, 53, "169.254.7.0/24", None),
            reach(UDP, 53, "127.0.0.0/8", Some(Reason::Loopback)),
            reach(UDP, 53, "2001:db8::/32", None),
            reach(UDP, 53, "2001:db8:1::/48", Some(Reason::Metadata)),
        ],
    );
    for (address, fenced) in [
        ("192.0.2.1:53", false),
        ("192.0.2.1:54", true),
        ("169.254.169.254:53", true),
        ("169.254.7.1:53", false),
        ("127.0.0.53:53", true),
        ("[::ffff:192.0.2.1]:53", true),
        ("[::ffff:169.254.7.1]:53", true),
        ("[64:ff9b::c000:201]:53", true),
        ("[2002:c000:201::1]:53", true),
        ("[2001:db8::1]:53", false),
        ("[2001:db8:1::1]:53", true),
        ("[2001:db8:2::1]:53", false),
        ("[fe80::1]:53", true),
    ] {
        let address: SocketAddr = address.parse().unwrap();
        assert_eq!(is_fenced(&connect_datagram(address)), fenced, "{address}");
    }
    let refused = fence.counts().unwrap().refused;
    assert_eq!(refused[Reason::LinkLocal as usize], 1);
    assert_eq!(refused[Reason::Loopback as usize], 1);
    assert_eq!(refused[Reason::OtherForm as usize], 2);
    assert_eq!(refused[Reason::Metadata as usize], 1);
    let mut refusals = fence.take_refusals().unwrap();
    let told: Vec<DropEvent> = std::iter::from_fn(|| refusals.poll_refusal()).collect();
    assert_eq!(told.len() as u64, refused.iter().sum::<u64>());
    assert!(told.iter().all(|event| event.program == FENCE && event.enforced == 1), "{told:?}");
    assert_eq!(told[0].port, 54);
}

#[test]
fn datagrams_are_judged_one_by_one() {
    let _alone = alone();
    Cgroup::join().unwrap();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = receiver.local_addr().unwrap();
    let _fence = fence(true, vec![reach(UDP, at.port(), "127.0.0.1/32", None)]);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(sender.send_to(b"x", at).unwrap(), 1);
    let elsewhere = SocketAddr::new("127.0.0.2".parse().unwrap(), at.port());
    assert!(is_fenced(&sender.send_to(b"x", elsewhere)));
    let v6 = UdpSocket::bind("[::1]:0").unwrap();
    assert!(is_fenced(&v6.send_to(b"x", "[::1]:9".parse::<SocketAddr>().unwrap())));
}

#[test]
fn what_is_only_observed_is_reached_and_counted() {
    let _alone = alone();
    Cgroup::join().unwrap();
    let (_listener, at) = listen("127.0.0.1");
    let fence = fence(false, Vec::new());
    dial("127.0.0.1", at).unwrap();
    let counts = fence.counts().unwrap();
    assert_eq!((counts.passed, counts.observed[Reason::NotListed as usize]), (1, 1));
}

#[test]
fn rules_are_replaced_and_its_end_opens_everything() {
    let _alone = alone();
    Cgroup::join().unwrap();
    let (_listener, at) = listen("127.0.0.1");
    let open = FenceRules { enforce: true, entries: vec![reach(TCP, at.port(), "127.0.0.0/8", None)] };
    let mut fence = fence(true, Vec::new());
    assert!(is_fenced(&dial("127.0.0.1", at)));
    fence.replace(&open).unwrap();
    dial("127.0.0.1", at).unwrap();
    let many = vec![reach(TCP, 1, "10.0.0.0/8", None); 65_537];
    assert!(fence.replace(&FenceRules { enforce: true, entries: many }).is_err());
    dial("127.0.0.1", at).expect("the old rules stay");
    fence.replace(&FenceRules { enforce: true, entries: Vec::new() }).unwrap();
    assert!(is_fenced(&dial("127.0.0.1", at)));
    drop(fence);
    dial("127.0.0.1", at).unwrap();
}

/// The system's resolver connects to results to learn their source address, and sends nothing.
#[test]
fn a_look_at_a_source_address_is_no_refusal() {
    let _alone = alone();
    let fence = fence(true, Vec::new());
    connect_datagram("127.0.0.1:0".parse().unwrap()).unwrap();
    assert_eq!(fence.counts().unwrap().refused, [0; 6]);
}
