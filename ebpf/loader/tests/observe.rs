//! The observer on real connections over loopback.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use support::{alone, dial, listen};
use zen_ebpf::abi::observe::Counts;
use zen_ebpf::{Cgroup, Observe, Place};

/// Numbers of the two sides.
const LISTENER: u32 = 1;
const DESTINATION: u32 = 2;

fn observe(at: SocketAddr) -> Observe {
    let mut observe = Observe::attach(&Cgroup::join().unwrap()).unwrap();
    observe.set_place(Place::Listener(at.port()), LISTENER).unwrap();
    observe.set_place(Place::Destination(at), DESTINATION).unwrap();
    observe
}

/// The counts when `is_there`, within two seconds.
fn await_counts(observe: &Observe, number: u32, is_there: impl Fn(&Counts) -> bool) -> Counts {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let counts = observe.counts(number).unwrap();
        if is_there(&counts) || Instant::now() > deadline {
            return counts;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn end_both(source: TcpStream, mut accepted: TcpStream) {
    source.shutdown(Shutdown::Write).unwrap();
    assert_eq!(accepted.read(&mut [0; 16]).unwrap(), 0);
    drop(accepted);
    drop(source);
}

#[test]
fn both_sides_of_a_connection_are_counted_at_their_places() {
    let _alone = alone();
    Cgroup::join().unwrap();
    let (listener, at) = listen("127.0.0.1");
    let observe = observe(at);
    let mut source = dial("127.0.0.1", at).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    source.write_all(&[7; 10_000]).unwrap();
    accepted.read_exact(&mut [0; 10_000]).unwrap();
    accepted.write_all(&[8; 500]).unwrap();
    source.read_exact(&mut [0; 500]).unwrap();
    end_both(source, accepted);
    for (number, sent, received) in [(LISTENER, 500, 10_000), (DESTINATION, 10_000, 500)] {
        let counts = await_counts(&observe, number, |counts| counts.closed == 1);
        assert_eq!((counts.opened, counts.closed, counts.reset, counts.failed), (1, 1, 0, 0), "{number}");
        // The kernel counts SYN and FIN as a byte each.
        assert!((sent..=sent + 2).contains(&counts.bytes_sent), "{number}: {}", counts.bytes_sent);
        assert!(
            (received..=received + 2).contains(&counts.bytes_received),
            "{number}: {}",
            counts.bytes_received
        );
        assert_eq!(counts.handshake_us.buckets.iter().sum::<u64>(), 1);
        assert_eq!(counts.rtt_us.buckets.iter().sum::<u64>(), 1);
        assert_eq!(counts.retransmits.buckets[0], 1, "none was sent again");
    }
    assert_eq!(observe.counts(0).unwrap().opened, 0, "nothing is without a place");
}

#[test]
fn bytes_are_counted_while_a_connection_lasts() {
    let _alone = alone();
    Cgroup::join().unwrap();
    let (listener, at) = listen("127.0.0.1");
    let observe = observe(at);
    let mut source = dial("127.0.0.1", at).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    for _ in 0..50 {
        source.write_all(&[7; 1000]).unwrap();
        accepted.read_exact(&mut [0; 1000]).unwrap();
        accepted.write_all(&[7; 10]).unwrap();
        source.read_exact(&mut [0; 10]).unwrap();
    }
    let counts = await_counts(&observe, DESTINATION, |counts| counts.bytes_sent >= 40_000);
    assert!(counts.bytes_sent >= 40_000, "{counts:?}");
    assert_eq!(counts.closed, 0);
}

#[test]
fn a_reset_and_an_attempt_that_fails_are_told_apart() {
    let _alone = alone();
    Cgroup::join().unwrap();
    // Nobody else is to listen there when it is closed.
    let at = zen_ports::free_address();
    let listener = TcpListener::bind(at).unwrap();
    let observe = observe(at);
    let source = dial("127.0.0.1", at).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    setsockopt(&source, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(source);
    for number in [LISTENER, DESTINATION] {
        let counts = await_counts(&observe, number, |counts| counts.reset == 1);
        assert_eq!((counts.opened, counts.closed, counts.reset), (1, 0, 1), "{number}");
    }
    drop(accepted);
    drop(listener);
    // From another address: a socket whose own port is the one that it dials would connect to itself.
    dial("127.0.0.2", at).unwrap_err();
    let counts = await_counts(&observe, DESTINATION, |counts| counts.failed == 1);
    assert_eq!((counts.opened, counts.failed), (1, 1));
}

#[test]
fn what_has_no_place_is_counted_together() {
    let _alone = alone();
    Cgroup::join().unwrap();
    let (listener, at) = listen("127.0.0.1");
    let mut observe = Observe::attach(&Cgroup::join().unwrap()).unwrap();
    let _source = dial("127.0.0.1", at).unwrap();
    let _accepted = listener.accept().unwrap();
    assert_eq!(await_counts(&observe, 0, |counts| counts.opened == 2).opened, 2);
    assert!(observe.set_place(Place::Destination(at), 0).is_err());
    assert!(observe.set_place(Place::Destination(at), 1024).is_err());
}
