//! A reactor whose ticks are bounded, so that a lost completion fails a test instead of hanging it.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::VecDeque,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use zen_uring::{Backend, Completion, Counters, Limits, Reactor, SocketId, bind_reuseport};

/// Longest that any expected completion may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Makes tests of functions that take a backend: one in `uring`, one in `epoll`.
#[allow(unused_macros, reason = "each test binary uses its part")]
macro_rules! on_both {
    ($($(#[$attribute:meta])* $name:ident,)+) => {
        mod uring {
            $(#[test] $(#[$attribute])* fn $name() { super::$name(zen_uring::Backend::Uring); })+
        }
        mod epoll {
            $(#[test] $(#[$attribute])* fn $name() { super::$name(zen_uring::Backend::Epoll); })+
        }
    };
}

pub(crate) struct Harness {
    pub(crate) reactor: Reactor,
    completions: VecDeque<Completion>,
}

impl Harness {
    pub(crate) fn new(limits: &Limits, backend: Backend) -> Self {
        Self { reactor: Reactor::new(limits, backend).unwrap(), completions: VecDeque::new() }
    }

    pub(crate) fn small(backend: Backend) -> Self {
        Self::new(&Limits { sockets_max: 64, ..Limits::default() }, backend)
    }

    /// Ticks until `done` says so; it sees every completion up to that one, the rest is kept for the next.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Reactor, Completion) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(completion) = self.completions.pop_front() {
                if done(&mut self.reactor, completion) {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "no {what}; {:?}", self.reactor.counters());
            let mut arrived = Vec::new();
            self.reactor.tick(Some(Duration::from_millis(200)), &mut arrived);
            self.completions.extend(arrived);
        }
    }

    /// Everything that comes out within `time`.
    pub(crate) fn during(&mut self, time: Duration) -> Vec<Completion> {
        let end = Instant::now() + time;
        let mut all: Vec<Completion> = self.completions.drain(..).collect();
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.reactor.tick(Some(left), &mut all);
        }
        all
    }

    /// Everything that comes out until `sockets` are open, and a moment longer for what frees their descriptors.
    pub(crate) fn until_open(&mut self, sockets: u64) -> Vec<Completion> {
        let deadline = Instant::now() + PATIENCE;
        let mut all: Vec<Completion> = self.completions.drain(..).collect();
        while self.reactor.counters().sockets_open > sockets {
            assert!(Instant::now() < deadline, "{:?}", self.reactor.counters());
            self.reactor.tick(Some(Duration::from_millis(10)), &mut all);
        }
        all.extend(self.during(Duration::from_millis(2)));
        all
    }

    pub(crate) fn accepted(&mut self) -> SocketId {
        let mut found = None;
        self.until("accepted socket", |_, completion| match completion {
            Completion::Accepted { socket, .. } => found.replace(socket).is_none(),
            other => panic!("{other:?}"),
        });
        found.unwrap()
    }

    /// Receives on `socket` until `len` bytes came.
    pub(crate) fn received(&mut self, socket: SocketId, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.reactor.receive(socket);
        self.until("received bytes", |reactor, completion| {
            take(reactor, completion, socket, &mut bytes);
            bytes.len() >= len
        });
        bytes
    }

    /// Sends and waits until it is done.
    pub(crate) fn send(&mut self, socket: SocketId, bytes: &[u8]) {
        self.reactor.send(socket, bytes.to_vec());
        self.until("sent", |_, completion| match completion {
            Completion::Sent { socket: on, buffer, result } => {
                assert!(on == socket && buffer.is_empty() && buffer.capacity() > 0);
                result.unwrap();
                true
            }
            other => panic!("{other:?}"),
        });
    }

    pub(crate) fn drained(mut self) -> Counters {
        assert!(self.completions.iter().all(|left| !matches!(left, Completion::Received { .. })));
        self.reactor.drain(Instant::now() + PATIENCE).unwrap();
        let counters = self.reactor.counters();
        assert_eq!(counters.operations_in_flight, 0);
        assert_eq!(counters.receive_buffers_dropped, 0, "a test recycles what it got");
        counters
    }
}

/// Appends what was received on `socket` to `bytes` and recycles the buffer; anything else is a failure.
pub(crate) fn take(reactor: &mut Reactor, completion: Completion, socket: SocketId, bytes: &mut Vec<u8>) {
    let Completion::Received { socket: on, buffer } = completion else { panic!("{completion:?}") };
    assert_eq!(on, socket);
    assert_eq!(buffer.len(), reactor.bytes(&buffer).len());
    bytes.extend_from_slice(reactor.bytes(&buffer));
    reactor.recycle(buffer);
}

/// Bytes in which every position can be told from its neighbours.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A listener on a port of the kernel's choice.
pub(crate) fn loopback() -> (OwnedFd, SocketAddr) {
    let fd = bind_reuseport("127.0.0.1:0".parse().unwrap()).unwrap().listen(4096).unwrap();
    let listener = TcpListener::from(fd);
    let address = listener.local_addr().unwrap();
    (listener.into(), address)
}

/// A socket of the reactor and its peer, over unix.
pub(crate) fn pair(harness: &mut Harness) -> (SocketId, UnixStream) {
    let (inside, outside) = UnixStream::pair().unwrap();
    outside.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (harness.reactor.adopt(inside.into()).unwrap(), outside)
}
