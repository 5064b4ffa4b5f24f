//! The epoll backend: the same calls and completions where `io_uring` is not to be had (`epoll(7)`).
//!
//! Every descriptor is registered once, edge-triggered, for both directions; what it is ready for is
//! remembered. Sockets that want something they may be ready for stand in a line, and a poll goes
//! through it once before and once after its single `epoll_wait`. Files wait in threads of their own.
//! An event whose key is stale is of a descriptor that is gone, and means nothing.

mod files;
mod listeners;
mod pool;
mod sockets;

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use self::{files::FileThreads, listeners::Listener, pool::ReceivePool, sockets::Socket};
use crate::{
    buffer::ReceiveBuffer,
    completion::{Completion, FileId},
    error::{DrainTimeout, OpError, SetupError},
    files::{Files, Work},
    reactor::{Counters, Limits},
    table::{Key, Table},
    waker::Waker,
};

/// Most events taken from the kernel in one poll; the others come with the next.
const EVENTS_PER_POLL_MAX: usize = 1024;
/// How long `drop` waits for the file threads before it leaves them to themselves.
const DROP_DRAIN_MS: u64 = 200;
/// Longest wait in one call, since `epoll_wait(2)` counts milliseconds in 31 bits.
const WAIT_MS_MAX: u128 = 60_000;
/// The key of descriptors that belong to no slot.
const NO_SLOT: Key = Key { index: 0, generation: 0 };

/// What a registered descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Source {
    Socket,
    Listener,
    Waker,
    Files,
}

const SOURCES: [Source; 4] = [Source::Socket, Source::Listener, Source::Waker, Source::Files];

/// One epoll instance and what its descriptors refer to.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    pool: ReceivePool,
    sockets: Table<Socket>,
    listeners: Table<Listener>,
    files: Files,
    threads: FileThreads,
    waker: Waker,
    limits: Limits,
    /// Sockets that may be able to do what they want.
    ready: VecDeque<Key>,
    /// Sockets that want to receive and found no buffer, longest first.
    starved: VecDeque<Key>,
    /// Listeners that may have connections.
    accepting: VecDeque<Key>,
    /// Listeners out of descriptors, and when to try again.
    resting: Vec<Key>,
    rest_ends: Option<Instant>,
    /// Detached sockets without operations, for the next poll to hand out unless they are closed before.
    leaving: VecDeque<Key>,
    /// Receives, sends, connects and accepts that were begun and have not ended.
    in_flight: u64,
    draining: bool,
    counters: Counters,
}

impl Poller {
    pub(crate) fn new(limits: &Limits) -> Result<Self, SetupError> {
        let failed = |call| move |error: Errno| SetupError::sort(call, call, error.into());
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed("epoll_create1"))?;
        let waker = Waker::new().map_err(|source| SetupError::sort("eventfd", "eventfds", source))?;
        let bell = Waker::new().map_err(|source| SetupError::sort("eventfd", "eventfds", source))?;
        for (source, bell) in [(Source::Waker, &waker), (Source::Files, &bell)] {
            epoll.add(bell, interest(source, NO_SLOT)).map_err(failed("epoll_ctl"))?;
        }
        Ok(Self {
            epoll,
            events: vec![EpollEvent::empty(); EVENTS_PER_POLL_MAX],
            pool: ReceivePool::new(limits.receive_buffers, limits.receive_buffer_bytes),
            sockets: Table::new(limits.sockets_max),
            listeners: Table::new(u32::from(limits.listeners_max)),
            files: Files::new(limits.files_max),
            threads: FileThreads::start(bell)?,
            waker,
            limits: limits.clone(),
            ready: VecDeque::with_capacity(limits.sockets_max as usize),
            starved: VecDeque::with_capacity(limits.sockets_max as usize),
            accepting: VecDeque::with_capacity(usize::from(limits.listeners_max)),
            resting: Vec::with_capacity(usize::from(limits.listeners_max)),
            rest_ends: None,
            leaving: VecDeque::with_capacity(limits.sockets_max as usize),
            in_flight: 0,
            draining: false,
            counters: Counters::default(),
        })
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
        // The waker counts as one, as a ring's read of it does.
        let waiting = u64::from(!self.draining);
        Counters {
            receive_buffers_dropped: self.pool.dropped(),
            sockets_open: self.sockets.len() as u64,
            operations_in_flight: self.in_flight + u64::from(self.files.operations()) + waiting,
            ..self.counters
        }
    }

    /// Does what can be done, waits up to `wait` for any event unless there is something to report, and
    /// appends it: possibly nothing, since some events are only ours.
    pub(crate) fn poll(&mut self, wait: Option<Duration>, completions: &mut Vec<Completion>) {
        let found = completions.len();
        self.pool.take_back_dropped();
        self.feed_starved();
        self.end_rests();
        self.work(completions);
        let at_once = (completions.len() > found || self.has_work()).then_some(Duration::ZERO);
        let rest = self.rest_ends.map(|at| at.saturating_duration_since(Instant::now()));
        self.wait([wait, rest, at_once].into_iter().flatten().min(), completions);
        self.work(completions);
        self.hand_out_leaving(completions);
        self.counters.completions += (completions.len() - found) as u64;
    }

    /// Ends every operation; those that a file thread has begun are waited for.
    pub(crate) fn drain(&mut self, deadline: Instant) -> Result<(), DrainTimeout> {
        self.draining = true;
        self.rest_ends = None;
        self.starved.clear();
        self.accepting.clear();
        self.resting.clear();
        self.cancel_sockets();
        self.in_flight = 0;
        let mut discarded = Vec::new();
        for operation in self.threads.take_waiting() {
            discarded.push(self.files.end(operation, Err(Errno::ECANCELED.into())));
        }
        while self.files.operations() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            self.poll(Some(left), &mut discarded);
            discarded.clear();
            let in_flight = u64::from(self.files.operations());
            if left.is_zero() && in_flight > 0 {
                return Err(DrainTimeout { in_flight });
            }
        }
        Ok(())
    }

    pub(crate) fn add_file(&mut self, fd: OwnedFd) -> Result<FileId, OpError> {
        self.files.add(fd)
    }

    pub(crate) fn remove_file(&mut self, id: FileId) {
        self.files.remove(id);
    }

    pub(crate) fn begin_file(&mut self, id: FileId, token: u64, work: Work) {
        let operation = self.files.begin(id, token, work);
        self.counters.submissions += 1;
        self.threads.begin(operation);
    }

    /// Goes once through the lines of sockets and listeners.
    fn work(&mut self, completions: &mut Vec<Completion>) {
        for _ in 0..self.ready.len() {
            let key = self.ready.pop_front().expect("as many as were counted");
            self.advance_socket(key, completions);
        }
        for _ in 0..self.accepting.len() {
            let key = self.accepting.pop_front().expect("as many as were counted");
            self.accept(key, completions);
        }
    }

    /// Whether the next poll has something to do whatever happens. An idle socket that starved takes no
    /// buffer, so the next in that line may have it.
    fn has_work(&self) -> bool {
        let feeds = self.pool.available() > 0 && !self.starved.is_empty();
        feeds || !self.ready.is_empty() || !self.accepting.is_empty() || !self.leaving.is_empty()
    }

    fn wait(&mut self, wait: Option<Duration>, completions: &mut Vec<Completion>) {
        self.counters.enters += 1;
        let count = match self.epoll.wait(&mut self.events, timeout(wait)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => panic!("epoll_wait: {error}"),
        };
        for at in 0..count {
            let (kind, key) = Key::unpack(self.events[at].data());
            let flags = self.events[at].events();
            match SOURCES[usize::from(kind)] {
                Source::Socket => self.on_event(key, flags, completions),
                Source::Listener => self.on_connections(key),
                Source::Waker => self.on_wake(completions),
                Source::Files => self.on_files(completions),
            }
        }
    }

    /// Each write to an eventfd is an edge, so it is not read.
    fn on_wake(&mut self, completions: &mut Vec<Completion>) {
        if self.draining {
            return;
        }
        self.waker.rearm();
        completions.push(Completion::Woken);
    }

    fn on_files(&mut self, completions: &mut Vec<Completion>) {
        for (operation, outcome) in self.threads.take_finished() {
            completions.push(self.files.end(operation, outcome));
        }
    }

    fn register(&self, fd: impl AsFd, source: Source, key: Key) -> Result<(), OpError> {
        self.epoll.add(fd, interest(source, key)).map_err(OpError::system("epoll_ctl EPOLL_CTL_ADD"))
    }

    /// Somebody else may have a copy of the descriptor, and would keep it registered.
    fn forget(&self, fd: impl AsFd) {
        self.epoll.delete(fd).expect("registered when it got its slot, and taken out once");
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(DROP_DRAIN_MS);
        let idle = !std::thread::panicking() && self.drain(deadline).is_ok();
        self.threads.stop(if idle { files::Stop::Join } else { files::Stop::Leave });
    }
}

fn interest(source: Source, key: Key) -> EpollEvent {
    let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP;
    let flags = if source == Source::Socket { both } else { EpollFlags::EPOLLIN };
    EpollEvent::new(flags | EpollFlags::EPOLLET, key.pack(source as u8))
}

/// Rounded up, so that a timer is not waited for in many short calls.
fn timeout(wait: Option<Duration>) -> EpollTimeout {
    let Some(wait) = wait else { return EpollTimeout::NONE };
    let ms = wait.as_nanos().div_ceil(1_000_000).min(WAIT_MS_MAX);
    EpollTimeout::from(ms as u16)
}

const _: () = assert!(WAIT_MS_MAX <= u16::MAX as u128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up_to_milliseconds() {
        for (wait, ms) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(3), 3),
            (Duration::from_micros(3001), 4),
            (Duration::MAX, 60_000),
        ] {
            assert_eq!(timeout(Some(wait)), EpollTimeout::from(ms as u16), "{wait:?}");
        }
        assert_eq!(timeout(None), EpollTimeout::NONE);
    }

    #[test]
    fn each_source_is_found_by_its_number() {
        for (number, source) in SOURCES.into_iter().enumerate() {
            assert_eq!(source as usize, number);
        }
    }
}
