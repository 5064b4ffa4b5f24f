//! Waking, timers, draining and dropping.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::Write,
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    thread,
    time::{Duration, Instant},
};

use harness::Harness;
use zen_uring::{AlignedBuffer, Backend, Completion, DrainTimeout, Limits, Reactor};

#[macro_use]
mod harness;

on_both! {
    rings_from_other_threads_come_as_one_and_none_is_lost,
    a_tick_without_end_is_ended_by_a_ring,
    a_ring_after_the_reactor_is_gone_is_harmless,
    timers_come_in_order_and_not_early,
    a_tick_that_does_not_wait_returns_at_once_and_without_a_call_if_nothing_is_there,
    ticks_that_do_not_wait_still_see_what_arrives,
    a_drain_ends_everything_that_is_in_flight,
    a_drain_without_time_says_what_it_could_not_end,
    dropping_a_busy_reactor_ends_its_connections,
    many_reactors_on_one_thread_and_many_threads,
}

fn rings_from_other_threads_come_as_one_and_none_is_lost(backend: Backend) {
    let mut harness = Harness::small(backend);
    let wakers: Vec<_> = (0..4)
        .map(|_| {
            let waker = harness.reactor.waker();
            thread::spawn(move || (0..1000).for_each(|_| waker.clone().wake()))
        })
        .collect();
    for waker in wakers {
        waker.join().unwrap();
    }
    let woken = harness.during(Duration::from_millis(20));
    assert!(matches!(woken[..], [Completion::Woken]), "{woken:?}");

    for _ in 0..100 {
        let waker = harness.reactor.waker();
        let ring = thread::spawn(move || waker.wake());
        harness.until("ring", |_, completion| matches!(completion, Completion::Woken));
        ring.join().unwrap();
    }
    harness.drained();
}

fn a_tick_without_end_is_ended_by_a_ring(backend: Backend) {
    let mut reactor = Reactor::new(&Limits::default(), backend).unwrap();
    let waker = reactor.waker();
    let ring = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        waker.wake();
    });
    let (start, mut out) = (Instant::now(), Vec::new());
    reactor.tick(None, &mut out);
    assert!(matches!(out[..], [Completion::Woken]), "{out:?}");
    assert!(start.elapsed() >= Duration::from_millis(25));
    assert!(reactor.counters().enters <= 2, "{:?}", reactor.counters());
    ring.join().unwrap();
}

fn a_ring_after_the_reactor_is_gone_is_harmless(backend: Backend) {
    let reactor = Reactor::new(&Limits::default(), backend).unwrap();
    let waker = reactor.waker();
    drop(reactor);
    waker.wake();
}

fn timers_come_in_order_and_not_early(backend: Backend) {
    let mut harness = Harness::small(backend);
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    for ms in [40, 10, 30, 20, 0] {
        harness.reactor.set_timer(at(ms), ms);
    }
    let mut tokens = Vec::new();
    harness.until("all timers", |_, completion| {
        let Completion::Timer { token } = completion else { panic!("{completion:?}") };
        assert!(Instant::now() >= at(token), "{token}");
        tokens.push(token);
        tokens.len() == 5
    });
    assert_eq!(tokens, [0, 10, 20, 30, 40]);
    assert!(harness.drained().enters < 30, "timers wait, they do not spin");
}

fn a_tick_that_does_not_wait_returns_at_once_and_without_a_call_if_nothing_is_there(backend: Backend) {
    let mut harness = Harness::small(backend);
    harness.during(Duration::from_millis(2));
    let before = harness.reactor.counters().enters;
    let mut out = Vec::new();
    for _ in 0..100 {
        harness.reactor.tick(Some(Duration::ZERO), &mut out);
    }
    assert!(out.is_empty());
    if backend == Backend::Uring {
        // A ring says in shared memory that there is nothing; epoll has to be asked.
        assert_eq!(harness.reactor.counters().enters, before);
    }
    harness.drained();
}

fn ticks_that_do_not_wait_still_see_what_arrives(backend: Backend) {
    let mut harness = Harness::small(backend);
    let (inside, mut outside) = UnixStream::pair().unwrap();
    let socket = harness.reactor.adopt(inside.into()).unwrap();
    harness.reactor.receive(socket);
    let mut out = Vec::new();
    harness.reactor.tick(Some(Duration::ZERO), &mut out);
    outside.write_all(b"x").unwrap();
    let deadline = Instant::now() + harness::PATIENCE;
    while out.is_empty() {
        assert!(Instant::now() < deadline);
        harness.reactor.tick(Some(Duration::ZERO), &mut out);
    }
    assert!(matches!(&out[..], [Completion::Received { buffer, .. }] if buffer.len() == 1), "{out:?}");
}

fn a_drain_ends_everything_that_is_in_flight(backend: Backend) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut harness = Harness::small(backend);
    let mut outsides = Vec::new();
    for _ in 0..20 {
        let (inside, outside) = UnixStream::pair().unwrap();
        let socket = harness.reactor.adopt(inside.into()).unwrap();
        harness.reactor.receive(socket);
        harness.reactor.send(socket, vec![1; 4 << 20]);
        outsides.push(outside);
    }
    let listener = zen_uring::bind_reuseport("127.0.0.1:0".parse().unwrap()).unwrap().listen(8).unwrap();
    harness.reactor.listen(listener).unwrap();
    let path = folder.path().join("file");
    let file: OwnedFd = std::fs::File::create(&path).unwrap().into();
    let file = harness.reactor.add_file(file).unwrap();
    harness.during(Duration::from_millis(5));
    harness.reactor.write(file, 0, AlignedBuffer::new(1 << 20), 1 << 20, 0);
    assert!(harness.reactor.counters().operations_in_flight >= 42);
    let counters = harness.drained();
    assert_eq!(counters.operations_in_flight, 0);
}

fn a_drain_without_time_says_what_it_could_not_end(backend: Backend) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC);
    let fd: OwnedFd = options.open(folder.path().join("file")).unwrap().into();
    let mut harness = Harness::small(backend);
    let file = harness.reactor.add_file(fd).unwrap();
    for token in 0..8 {
        harness.reactor.write(file, token << 22, AlignedBuffer::new(1 << 22), 1 << 22, token);
    }
    // Writes that the device has begun cannot be cancelled.
    let in_flight = match harness.reactor.drain(Instant::now()) {
        Ok(()) => 0,
        Err(DrainTimeout { in_flight }) => in_flight.max(1),
    };
    assert_eq!(harness.reactor.counters().operations_in_flight, in_flight);
    harness.drained();
}

fn dropping_a_busy_reactor_ends_its_connections(backend: Backend) {
    let mut outsides = Vec::new();
    for _ in 0..20 {
        let mut reactor = Reactor::new(&Limits { sockets_max: 8, ..Limits::default() }, backend).unwrap();
        for _ in 0..4 {
            let (inside, outside) = UnixStream::pair().unwrap();
            let socket = reactor.adopt(inside.into()).unwrap();
            reactor.receive(socket);
            outsides.push(outside);
        }
        reactor.tick(Some(Duration::ZERO), &mut Vec::new());
    }
    for mut outside in outsides {
        outside.set_read_timeout(Some(harness::PATIENCE)).unwrap();
        assert_eq!(std::io::Read::read(&mut outside, &mut [0]).unwrap(), 0);
    }
}

fn many_reactors_on_one_thread_and_many_threads(backend: Backend) {
    // A registered ring descriptor that is not given back would run out: a thread has sixteen.
    for _ in 0..40 {
        drop(Reactor::new(&Limits { sockets_max: 8, ..Limits::default() }, backend).unwrap());
    }
    let threads: Vec<_> = (0..4).map(|_| thread::spawn(move || Harness::small(backend).drained())).collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap().operations_in_flight, 0);
    }
}
