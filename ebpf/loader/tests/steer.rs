//! Steering on real listeners of one group, over loopback: the processor that sends there also receives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};
use nix::unistd::Pid;
use zen_ebpf::Steer;

/// Processors that this process may use; a machine with one steers nothing.
fn processors() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|at| allowed.is_set(*at).unwrap()).collect()
}

/// Two listeners of one group.
fn group() -> (SocketAddr, [TcpListener; 2]) {
    let first = member(0);
    let address = first.local_addr().unwrap();
    (address, [first, member(address.port())])
}

fn member(port: u16) -> TcpListener {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&fd, sockopt::ReusePort, &true).unwrap();
    bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
    listen(&fd, Backlog::new(128).unwrap()).unwrap();
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Connects from a thread that stays on `processor`.
fn dial_on(processor: usize, to: SocketAddr) -> TcpStream {
    std::thread::spawn(move || {
        let mut set = CpuSet::new();
        set.set(processor).unwrap();
        sched_setaffinity(Pid::from_raw(0), &set).unwrap();
        TcpStream::connect(to).unwrap()
    })
    .join()
    .unwrap()
}

#[test]
fn a_connection_goes_to_the_worker_of_its_processor() {
    let processors = processors();
    assert!(processors.len() >= 2, "this test needs two processors");
    let (at, listeners) = group();
    let mut steer = Steer::load(&processors[..2]).unwrap();
    steer.attach(&listeners).unwrap();
    let mut kept = Vec::new();
    for round in 0..40 {
        let worker = round % 2;
        kept.push(dial_on(processors[worker], at));
        assert!(listeners[worker].accept().is_ok(), "round {round}");
        assert!(listeners[1 - worker].accept().is_err(), "round {round}");
    }
    let counts = steer.counts().unwrap();
    assert_eq!((counts.steered, counts.hashed), (40, 0));
}

#[test]
fn a_worker_that_listens_no_more_leaves_its_connections_to_the_others() {
    let processors = processors();
    assert!(processors.len() >= 2, "this test needs two processors");
    let (at, [first, second]) = group();
    let mut steer = Steer::load(&processors[..2]).unwrap();
    steer.attach(&[&first, &second]).unwrap();
    drop(second);
    for processor in &processors[..2] {
        let _source = dial_on(*processor, at);
        first.accept().unwrap();
    }
    let counts = steer.counts().unwrap();
    assert_eq!((counts.steered, counts.hashed), (1, 1));
}

#[test]
fn a_connection_that_waits_at_a_listener_which_closes_is_not_lost() {
    let processors = processors();
    assert!(processors.len() >= 2, "this test needs two processors");
    let (at, [first, second]) = group();
    let mut steer = Steer::load(&processors[..2]).unwrap();
    steer.attach(&[&first, &second]).unwrap();
    let mut sources: Vec<TcpStream> = (0..8).map(|_| dial_on(processors[1], at)).collect();
    assert!(first.accept().is_err(), "all of them wait at the other");
    drop(second);
    for source in &mut sources {
        source.write_all(b"hello").unwrap();
    }
    for _ in &sources {
        let (mut accepted, _) = first.accept().expect("it moved here");
        let mut bytes = [0; 5];
        accepted.set_nonblocking(false).unwrap();
        accepted.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
    }
}

#[test]
fn a_processor_without_a_worker_is_hashed() {
    let processors = processors();
    let (at, listeners) = group();
    let mut steer = Steer::load(&[]).unwrap();
    steer.attach(&listeners).unwrap();
    for _ in 0..8 {
        let _source = dial_on(processors[0], at);
    }
    let counts = steer.counts().unwrap();
    assert_eq!((counts.steered, counts.hashed), (0, 8));
}
