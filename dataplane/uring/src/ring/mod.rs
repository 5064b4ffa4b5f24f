//! The `io_uring` backend: in go the reactor's calls, out come completions (`io_uring(7)`).
//!
//! Every operation's token names its kind, slot and generation. A slot is kept until its last
//! operation has completed, and with it the memory the kernel reads or writes; so a completion always
//! finds its slot, and closing only silences it. `queue` is the only caller of `io_uring_enter`.

mod files;
mod listeners;
mod pool;
mod queue;
mod setup;
mod sockets;
mod token;

use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

use io_uring::{IoUring, cqueue, opcode, types};

pub use self::setup::{Probe, RingMode, probe};
use self::{
    listeners::Listener,
    pool::ReceivePool,
    queue::Queue,
    sockets::Socket,
    token::{Operation, Token},
};
use crate::{
    buffer::{AlignedBuffer, ReceiveBuffer},
    completion::Completion,
    error::{DrainTimeout, SetupError},
    files::{FileOperation, Files},
    reactor::{Counters, Limits},
    table::{Key, Table},
    waker::Waker,
};

/// How long `drop` waits for the kernel to let go of our buffers before it leaks them.
const DROP_DRAIN_MS: u64 = 200;
/// Bytes that a read of an eventfd takes.
const EVENT_BYTES: usize = 8;
/// The key of operations that belong to no slot.
const NO_SLOT: Key = Key { index: 0, generation: 0 };

/// One ring and what its operations refer to. `queue` comes first: dropped in order, the ring is closed
/// before any buffer is freed.
#[derive(Debug)]
pub(crate) struct Ring {
    queue: Queue,
    pool: ReceivePool,
    sockets: Table<Socket>,
    listeners: Table<Listener>,
    files: Files,
    operations: Table<FileOperation>,
    waker: Waker,
    rings: AlignedBuffer,
    limits: Limits,
    /// Sockets whose receive found no buffer, longest first.
    starved: VecDeque<Key>,
    /// Listeners out of descriptors, and when to try again.
    resting: Vec<Key>,
    rest_ends: Option<Instant>,
    /// Detached sockets without operations, for the next poll to hand out unless they are closed before.
    leaving: VecDeque<Key>,
    arrived: Vec<cqueue::Entry>,
    draining: bool,
    counters: Counters,
}

impl Ring {
    pub(crate) fn new(limits: &Limits) -> Result<Self, SetupError> {
        let (ring, mode) = setup::build(limits.submission_entries, completion_entries(limits))?;
        Self::on(ring, mode, limits)
    }

    fn on(ring: IoUring, mode: RingMode, limits: &Limits) -> Result<Self, SetupError> {
        setup::check_opcodes(&ring)?;
        let waker = Waker::new().map_err(|source| SetupError::sort("eventfd", "eventfds", source))?;
        let pool = ReceivePool::new(limits.receive_buffers, limits.receive_buffer_bytes);
        // SAFETY: `pool` lives in the same struct behind the ring's queue, so it is freed after the ring.
        unsafe { pool.register(&ring.submitter())? };
        let queue = Queue::new(ring, mode)?;
        let files = Files::new(limits.files_max);
        let mut this = Self {
            queue,
            pool,
            sockets: Table::new(limits.sockets_max),
            listeners: Table::new(u32::from(limits.listeners_max)),
            operations: Table::new(files.operations_max()),
            files,
            waker,
            rings: AlignedBuffer::new(EVENT_BYTES),
            limits: limits.clone(),
            starved: VecDeque::with_capacity(limits.sockets_max as usize),
            resting: Vec::with_capacity(usize::from(limits.listeners_max)),
            rest_ends: None,
            leaving: VecDeque::with_capacity(limits.sockets_max as usize),
            arrived: Vec::with_capacity(limits.submission_entries as usize * 2),
            draining: false,
            counters: Counters::default(),
        };
        this.await_waker();
        Ok(this)
    }

    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(crate) fn bytes(&self, buffer: &ReceiveBuffer) -> &[u8] {
        self.pool.bytes(buffer)
    }

    pub(crate) fn bytes_mut(&mut self, buffer: &mut ReceiveBuffer) -> &mut [u8] {
        self.pool.bytes_mut(buffer)
    }

    pub(crate) fn recycle(&mut self, buffer: ReceiveBuffer) {
        self.pool.recycle(buffer);
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            enters: self.queue.enters,
            submissions: self.queue.submissions,
            completions: self.queue.completions,
            receive_buffers_dropped: self.pool.dropped(),
            sockets_open: self.sockets.len() as u64,
            operations_in_flight: self.queue.in_flight,
            ..self.counters
        }
    }

    /// Submits, waits up to `wait` for any completion of the kernel, and appends what is to be reported:
    /// possibly nothing, since some completions are only ours.
    pub(crate) fn poll(&mut self, wait: Option<Duration>, completions: &mut Vec<Completion>) {
        self.pool.take_back_dropped();
        let hungry = self.feed_starved();
        self.end_rests();
        let rest = self.rest_ends.map(|at| at.saturating_duration_since(Instant::now()));
        let at_once = (hungry || !self.leaving.is_empty()).then_some(Duration::ZERO);
        let wait = [wait, rest, at_once].into_iter().flatten().min();
        self.queue.submit_and_wait(wait);
        self.collect(completions);
        while self.queue.overflowed() {
            self.queue.submit_and_wait(Some(Duration::ZERO));
            self.collect(completions);
        }
        self.hand_out_leaving(completions);
    }

    pub(crate) fn drain(&mut self, deadline: Instant) -> Result<(), DrainTimeout> {
        self.draining = true;
        self.starved.clear();
        self.rest_ends = None;
        let everything = opcode::AsyncCancel2::new(types::CancelBuilder::any().all()).build();
        // SAFETY: a cancel refers to no memory.
        unsafe { self.queue.push(everything, Token::new(Operation::Cancel, NO_SLOT)) };
        let mut discarded = Vec::new();
        while self.queue.in_flight > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            self.poll(Some(left), &mut discarded);
            discarded.clear();
            if left.is_zero() && self.queue.in_flight > 0 {
                return Err(DrainTimeout { in_flight: self.queue.in_flight });
            }
        }
        Ok(())
    }

    fn collect(&mut self, completions: &mut Vec<Completion>) {
        let mut arrived = mem::take(&mut self.arrived);
        self.queue.collect(&mut arrived);
        for entry in arrived.drain(..) {
            self.handle(&entry, completions);
        }
        self.arrived = arrived;
    }

    fn handle(&mut self, entry: &cqueue::Entry, completions: &mut Vec<Completion>) {
        let (result, flags) = (entry.result(), entry.flags());
        let token = Token::decode(entry.user_data());
        match token.operation {
            Operation::Receive => self.on_receive(token.key, result, flags, completions),
            Operation::Send => self.on_send(token.key, result, completions),
            Operation::Accept => self.on_accept(token.key, result, flags, completions),
            Operation::Connect => self.on_connect(token.key, result, completions),
            Operation::Shutdown => self.on_shutdown(token.key),
            Operation::File => self.on_file(token.key, result, completions),
            Operation::Wake => self.on_wake(completions),
            // A cancel that finds nothing came too late; a close frees the descriptor in any case.
            Operation::Cancel | Operation::Close => {}
        }
    }

    fn on_wake(&mut self, completions: &mut Vec<Completion>) {
        if self.draining {
            return;
        }
        self.waker.rearm();
        self.await_waker();
        completions.push(Completion::Woken);
    }

    fn await_waker(&mut self) {
        let read =
            opcode::Read::new(types::Fd(self.waker.fd()), self.rings.start(), EVENT_BYTES as u32).build();
        // SAFETY: `rings` holds the bytes and is freed only after the ring or leaked.
        unsafe { self.queue.push(read, Token::new(Operation::Wake, NO_SLOT)) };
    }

    fn cancel(&mut self, target: Token) {
        let cancel = opcode::AsyncCancel::new(target.encode()).build();
        // SAFETY: a cancel refers to no memory.
        unsafe { self.queue.push(cancel, Token::new(Operation::Cancel, NO_SLOT)) };
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(DROP_DRAIN_MS);
        if !std::thread::panicking() && self.drain(deadline).is_ok() {
            return;
        }
        // The kernel may still write to these: leaked, not freed.
        mem::forget(mem::replace(&mut self.pool, ReceivePool::new(1, 1)));
        mem::forget(mem::replace(&mut self.sockets, Table::new(0)));
        mem::forget(mem::replace(&mut self.files, Files::new(0)));
        mem::forget(mem::replace(&mut self.operations, Table::new(0)));
        mem::forget(mem::replace(&mut self.rings, AlignedBuffer::new(0)));
    }
}

/// Room for every socket to report something twice, so that overflow is for bursts only.
fn completion_entries(limits: &Limits) -> u32 {
    let most = limits.sockets_max.max(limits.submission_entries);
    most.saturating_mul(2).min(setup::COMPLETION_ENTRIES_MAX).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    fn until(ring: &mut Ring, mut done: impl FnMut(&mut Ring, Completion) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut completions = Vec::new();
        loop {
            assert!(Instant::now() < deadline, "{:?}", ring.counters());
            ring.poll(Some(Duration::from_millis(100)), &mut completions);
            let mut finished = false;
            for completion in completions.drain(..) {
                finished |= done(ring, completion);
            }
            if finished {
                return;
            }
        }
    }

    #[test]
    fn each_mode_carries_bytes_wakes_pauses_and_drains() {
        for mode in RingMode::ALL {
            let limits = Limits { sockets_max: 4, ..Limits::default() };
            let ring = setup::build_as(mode, 8, completion_entries(&limits)).unwrap();
            let mut ring = Ring::on(ring, mode, &limits).unwrap();
            let (inside, mut outside) = UnixStream::pair().unwrap();
            let socket = ring.adopt(inside.into()).unwrap();
            ring.receive(socket);
            ring.send(socket, b"out".to_vec());
            outside.write_all(b"in").unwrap();
            let (mut sent, mut received) = (false, false);
            until(&mut ring, |ring, completion| {
                match completion {
                    Completion::Sent { result, .. } => sent = result.is_ok(),
                    Completion::Received { buffer, .. } => {
                        received = ring.bytes(&buffer) == b"in";
                        ring.recycle(buffer);
                    }
                    other => panic!("{other:?}"),
                }
                sent && received
            });
            let mut out = [0; 3];
            outside.read_exact(&mut out).unwrap();
            assert_eq!(&out, b"out", "{mode}");

            ring.pause(socket);
            ring.waker().wake();
            until(&mut ring, |_, completion| matches!(completion, Completion::Woken));
            ring.drain(Instant::now() + Duration::from_secs(20)).unwrap();
            assert_eq!(ring.counters().operations_in_flight, 0, "{mode}");
        }
    }
}
