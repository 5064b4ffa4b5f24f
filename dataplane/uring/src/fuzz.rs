//! Any sequence of socket operations against a model of what must come out.
//!
//! Each byte pair of the input is an operation and its operand. Asserted: every stream arrives whole
//! and in order, here, at the peer, or behind a detached descriptor; an id reports nothing after its
//! end; sends are answered once; no buffer, slot or operation is left over.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use crate::{Backend, Completion, Limits, Reactor, ReceiveBuffer, SocketId};

const SOCKETS_MAX: usize = 6;
const PATIENCE: Duration = Duration::from_secs(20);
const LIMITS: Limits = Limits {
    sockets_max: SOCKETS_MAX as u32 * 4,
    listeners_max: 1,
    files_max: 1,
    receive_buffers: 4,
    receive_buffer_bytes: 256,
    submission_entries: 4,
};

/// One direction of a stream: byte `n` of it is `n` modulo 251, so any loss or swap shows.
#[derive(Default)]
struct Stream {
    written: usize,
    read: usize,
    ended: bool,
}

impl Stream {
    fn make(&self, len: usize) -> Vec<u8> {
        (self.written..self.written + len).map(|at| (at % 251) as u8).collect()
    }

    fn check(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            assert_eq!(usize::from(byte), self.read % 251, "at {}", self.read);
            self.read += 1;
        }
        assert!(self.read <= self.written);
    }
}

struct Pair {
    outside: UnixStream,
    inward: Stream,
    outward: Stream,
    sending: bool,
    detaching: bool,
    closed: bool,
}

struct Model {
    reactor: Reactor,
    pairs: HashMap<SocketId, Pair>,
    order: Vec<SocketId>,
    held: Vec<ReceiveBuffer>,
    completions: Vec<Completion>,
}

/// Runs the operations in `data` on each backend, and brings every stream to its end.
pub fn fuzz_reactor(data: &[u8]) {
    for backend in Backend::ALL {
        run(data, backend);
    }
}

fn run(data: &[u8], backend: Backend) {
    let mut model = Model {
        reactor: Reactor::new(&LIMITS, backend).expect("this machine offers both"),
        pairs: HashMap::new(),
        order: Vec::new(),
        held: Vec::new(),
        completions: Vec::new(),
    };
    for pair in data.chunks_exact(2) {
        model.step(pair[0], usize::from(pair[1]));
    }
    model.finish();
}

impl Model {
    fn step(&mut self, operation: u8, operand: usize) {
        let Some(&id) = self.order.get(operand % SOCKETS_MAX) else { return self.adopt() };
        let pair = self.pairs.get_mut(&id).expect("listed ids have a pair");
        match operation % 12 {
            0 => self.reactor.receive(id),
            1 => self.reactor.pause(id),
            2 | 3 if !pair.sending && !pair.outward.ended && !pair.detaching => {
                let bytes = pair.outward.make(operand * 16 + 1);
                pair.outward.written += bytes.len();
                pair.sending = true;
                self.reactor.send(id, bytes);
            }
            4 if !pair.detaching => {
                pair.outward.ended = true;
                self.reactor.shutdown_write(id);
            }
            5 if operand >= 128 => {
                self.reactor.close(id);
                self.forget(id);
            }
            6 if operand >= 128 => {
                pair.detaching = true;
                self.reactor.detach(id);
            }
            7 | 8 if !pair.inward.ended => pair.write(operand * 8 + 1),
            9 if operand >= 192 => {
                pair.inward.ended = true;
                let _ = pair.outside.shutdown(std::net::Shutdown::Write);
            }
            10 => self.recycle(),
            _ => self.tick(Duration::ZERO),
        }
    }

    fn adopt(&mut self) {
        let (inside, outside) = UnixStream::pair().expect("descriptors are left");
        outside.set_nonblocking(true).expect("a fresh socket");
        let id = self.reactor.adopt(inside.into()).expect("closed slots are free after some ticks");
        let (inward, outward) = (Stream::default(), Stream::default());
        let pair = Pair { outside, inward, outward, sending: false, detaching: false, closed: false };
        assert!(self.pairs.insert(id, pair).is_none(), "an id is used once");
        self.order.push(id);
    }

    fn forget(&mut self, id: SocketId) {
        self.order.retain(|other| *other != id);
        self.pairs.remove(&id);
        // A slot is free once the kernel has let go of it.
        while self.reactor.counters().sockets_open as usize > SOCKETS_MAX * 2 {
            self.tick(Duration::from_millis(1));
        }
    }

    fn recycle(&mut self) {
        for buffer in self.held.drain(..) {
            self.reactor.recycle(buffer);
        }
    }

    fn tick(&mut self, wait: Duration) {
        let mut completions = std::mem::take(&mut self.completions);
        self.reactor.tick(Some(wait), &mut completions);
        for completion in completions.drain(..) {
            self.check(completion);
        }
        self.completions = completions;
    }

    fn check(&mut self, completion: Completion) {
        match completion {
            Completion::Received { socket, buffer } => {
                let pair = self.pairs.get_mut(&socket).expect("nothing is received on a closed socket");
                assert!(!pair.closed);
                pair.inward.check(self.reactor.bytes(&buffer));
                self.held.push(buffer);
            }
            Completion::Sent { socket, buffer, result } => {
                let pair = self.pairs.get_mut(&socket).expect("nothing is sent on a closed socket");
                assert!(pair.sending && buffer.is_empty());
                assert!(result.is_ok(), "{result:?}");
                pair.sending = false;
            }
            Completion::Closed { socket, error } => {
                let pair = self.pairs.get_mut(&socket).expect("no end of a closed socket");
                assert!(pair.inward.ended && !pair.closed && error.is_none(), "{error:?}");
                assert_eq!(pair.inward.read, pair.inward.written);
                pair.closed = true;
            }
            Completion::Detached { socket, fd } => {
                let mut pair = self.pairs.remove(&socket).expect("no end of a closed socket");
                assert!(pair.detaching && !pair.sending);
                self.order.retain(|other| *other != socket);
                pair.read_rest_of(UnixStream::from(fd));
            }
            other => panic!("{other:?}"),
        }
    }

    /// Every open socket receives until all that was written has come, and every send is answered.
    fn finish(mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.recycle();
            for (id, pair) in &mut self.pairs {
                self.reactor.receive(*id);
                pair.read();
            }
            if self.pairs.values().all(Pair::is_even) {
                break;
            }
            assert!(Instant::now() < deadline, "a stream stands still; {:?}", self.reactor.counters());
            self.tick(Duration::from_millis(1));
        }
        for id in std::mem::take(&mut self.order) {
            self.reactor.close(id);
            self.pairs.remove(&id);
        }
        while self.reactor.counters().sockets_open > 0 {
            assert!(Instant::now() < deadline, "a slot is left over");
            self.tick(Duration::from_millis(1));
        }
        self.reactor.drain(deadline).expect("nothing holds an operation");
        assert_eq!(self.reactor.counters().operations_in_flight, 0);
        assert_eq!(self.reactor.counters().receive_buffers_dropped, 0);
    }
}

impl Pair {
    fn write(&mut self, len: usize) {
        match self.outside.write(&self.inward.make(len)) {
            Ok(taken) => self.inward.written += taken,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }

    fn read(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = self.outside.read(&mut bytes) {
            self.outward.check(&bytes[..len]);
        }
    }

    fn is_even(&self) -> bool {
        let even = |stream: &Stream| stream.read == stream.written;
        even(&self.inward) && even(&self.outward) && !self.sending && !self.detaching
    }

    /// What the reactor left in a detached socket is the rest of the stream.
    fn read_rest_of(&mut self, mut inside: UnixStream) {
        inside.set_nonblocking(true).expect("a connected socket");
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = inside.read(&mut bytes) {
            self.inward.check(&bytes[..len]);
        }
        assert_eq!(self.inward.read, self.inward.written);
        self.read();
        assert_eq!(self.outward.read, self.outward.written);
    }
}
