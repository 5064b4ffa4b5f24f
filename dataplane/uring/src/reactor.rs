//! The interface a worker is written against: begin operations, then `tick` and handle what came out.
//!
//! All methods begin work and return; nothing blocks but `tick` and `drain`. On a stale socket or
//! listener id they do nothing, since its end may lie in the same batch of completions; a stale file
//! id is a bug and aborts. A completion handed out before `close` may still name the closed socket.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    backend::Backend,
    buffer::{AlignedBuffer, ReceiveBuffer},
    completion::{Completion, FileId, ListenerId, SocketId},
    epoll::Poller,
    error::{DrainTimeout, OpError, SetupError},
    files::{Transfer, Work},
    ring::Ring,
    socket::Address,
    table::TABLE_ENTRIES_MAX,
    timers::Timers,
    waker::Waker,
};

/// Most operations in flight on one file.
pub const FILE_OPERATIONS_PER_FILE_MAX: u32 = 64;

/// Most buffers one provided ring can hold (`io_uring_register_buf_ring(3)`).
const RECEIVE_BUFFERS_MAX: u16 = 1 << 15;
/// What a socket takes in the tables of either backend, bytes; asserted there.
pub(crate) const SOCKET_BYTES: usize = 160;
/// Largest receive buffer, bytes.
const RECEIVE_BUFFER_BYTES_MAX: u32 = 1 << 24;
/// Largest submission queue (`io_uring_setup(2)`).
const SUBMISSION_ENTRIES_MAX: u32 = 1 << 15;

const _: () = assert!(FILE_OPERATIONS_PER_FILE_MAX * (u16::MAX as u32) < TABLE_ENTRIES_MAX);

/// The bounds of one reactor; its memory is taken at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connected or connecting sockets, below 2^24.
    pub sockets_max: u32,
    /// Most listening sockets.
    pub listeners_max: u16,
    /// Most open files.
    pub files_max: u16,
    /// Receive buffers shared by all sockets: a power of two, at most 32768.
    pub receive_buffers: u16,
    /// Size of each, bytes.
    pub receive_buffer_bytes: u32,
    /// Operations submitted to a ring at once, at most 32768; more take another round.
    pub submission_entries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sockets_max: 16384,
            listeners_max: 16,
            files_max: 64,
            receive_buffers: 512,
            receive_buffer_bytes: 16384,
            submission_entries: 1024,
        }
    }
}

impl Limits {
    /// Memory that a reactor with these bounds can use on either backend, the kernel's queues included; bytes.
    pub fn memory_bytes(&self) -> usize {
        /// Submission, completion and event entries, at most one of each for an operation.
        const OPERATION_BYTES: usize = 64 + 2 * 16 + size_of::<Completion>();
        let sockets = self.sockets_max as usize;
        let files = usize::from(self.files_max);
        let operations = 2 * sockets + files * FILE_OPERATIONS_PER_FILE_MAX as usize;
        usize::from(self.receive_buffers) * (self.receive_buffer_bytes as usize + 32)
            + sockets * SOCKET_BYTES
            + operations * OPERATION_BYTES
            + self.submission_entries as usize * 64
    }

    fn check(&self) -> Result<(), SetupError> {
        let buffers = self.receive_buffers.is_power_of_two() && self.receive_buffers <= RECEIVE_BUFFERS_MAX;
        let size = (1..=RECEIVE_BUFFER_BYTES_MAX).contains(&self.receive_buffer_bytes);
        let entries = (1..=SUBMISSION_ENTRIES_MAX).contains(&self.submission_entries);
        let refused = |name, rule| Err(SetupError::Limit { name, rule });
        match () {
            () if self.sockets_max >= TABLE_ENTRIES_MAX => refused("sockets_max", "must be below 2^24"),
            () if !buffers => refused("receive_buffers", "must be a power of two, at most 32768"),
            () if !size => refused("receive_buffer_bytes", "must be from 1 byte to 16 MiB"),
            () if !entries => refused("submission_entries", "must be from 1 to 32768"),
            () => Ok(()),
        }
    }
}

/// Counts since start, except `sockets_open` and `operations_in_flight`, which are of this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// System calls that submitted or waited: `io_uring_enter(2)` or `epoll_wait(2)`.
    pub enters: u64,
    /// Operations begun, as far as the kernel has heard of them.
    pub submissions: u64,
    /// Completions collected.
    pub completions: u64,
    /// Connections accepted and closed at once, since the table was full or the listener was stopping.
    pub accepts_refused: u64,
    /// Times that accepting rested because descriptors or memory ran out.
    pub accept_rests: u64,
    /// Times that a socket found no receive buffer.
    pub buffer_shortages: u64,
    /// Receive buffers dropped without `recycle`: a bug of the caller, mended at the next tick.
    pub receive_buffers_dropped: u64,
    /// Sockets in the table.
    pub sockets_open: u64,
    /// Operations begun and not ended; the waker's is one.
    pub operations_in_flight: u64,
}

/// One worker's reactor. It stays on the thread that made it.
#[derive(Debug)]
pub struct Reactor {
    engine: Engine,
    timers: Timers,
}

#[derive(Debug)]
enum Engine {
    Ring(Box<Ring>),
    Poller(Box<Poller>),
}

/// The same call on whichever engine it is: both have the same methods.
macro_rules! on_engine {
    ($engine:expr, $method:ident($($argument:expr),*)) => {
        match $engine {
            Engine::Ring(ring) => ring.$method($($argument),*),
            Engine::Poller(poller) => poller.$method($($argument),*),
        }
    };
}

impl Reactor {
    /// A reactor for the calling thread.
    pub fn new(limits: &Limits, backend: Backend) -> Result<Self, SetupError> {
        limits.check()?;
        let engine = match backend {
            Backend::Uring => Engine::Ring(Box::new(Ring::new(limits)?)),
            Backend::Epoll => Engine::Poller(Box::new(Poller::new(limits)?)),
        };
        Ok(Self { engine, timers: Timers::default() })
    }

    /// A handle with which any thread can end a tick.
    pub fn waker(&self) -> Waker {
        on_engine!(&self.engine, waker())
    }

    /// Accepts on a listening socket, TCP (`TCP_NODELAY` on each connection) or unix, until stopped.
    pub fn listen(&mut self, fd: OwnedFd) -> Result<ListenerId, OpError> {
        on_engine!(&mut self.engine, listen(fd))
    }

    /// Accepts no more and closes the socket.
    pub fn stop_listening(&mut self, listener: ListenerId) {
        on_engine!(&mut self.engine, stop_listening(listener));
    }

    /// Takes in a connected stream socket from elsewhere.
    pub fn adopt(&mut self, fd: OwnedFd) -> Result<SocketId, OpError> {
        on_engine!(&mut self.engine, adopt(fd))
    }

    /// Begins a TCP connection, with `TCP_NODELAY`; `Completion::Connected` follows.
    pub fn connect(&mut self, address: SocketAddr) -> Result<SocketId, OpError> {
        on_engine!(&mut self.engine, connect(address.into()))
    }

    /// Begins a connection to the unix stream socket at `path`; `Completion::Connected` follows. While the
    /// listener's queue is full a ring waits, and epoll reports `WouldBlock` at once.
    pub fn connect_unix(&mut self, path: &Path) -> Result<SocketId, OpError> {
        let address = Address::unix(path)?;
        on_engine!(&mut self.engine, connect(address))
    }

    /// The user at the other end of a unix socket (`SO_PEERCRED`): of a listener, who called `listen(2)`.
    pub fn peer_uid(&self, socket: SocketId) -> Option<u32> {
        on_engine!(&self.engine, peer_uid(socket))
    }

    /// The peer's address (`getpeername(2)`); none for a unix socket or one that is not connected.
    pub fn peer(&self, socket: SocketId) -> Option<SocketAddr> {
        on_engine!(&self.engine, peer(socket))
    }

    /// Reports what arrives, until `pause` or `Completion::Closed`. Harmless when it already does.
    pub fn receive(&mut self, socket: SocketId) {
        on_engine!(&mut self.engine, receive(socket));
    }

    /// Takes no more from the socket; what the kernel had already completed is still reported.
    pub fn pause(&mut self, socket: SocketId) {
        on_engine!(&mut self.engine, pause(socket));
    }

    /// Sends all of `bytes`. A second send before `Completion::Sent` is a bug and aborts.
    pub fn send(&mut self, socket: SocketId, bytes: Vec<u8>) {
        on_engine!(&mut self.engine, send(socket, bytes));
    }

    /// Ends our side (`SHUT_WR`), after the send in flight if there is one.
    pub fn shutdown_write(&mut self, socket: SocketId) {
        on_engine!(&mut self.engine, shutdown_write(socket));
    }

    /// Closes the socket once its operations have ended; no later tick names it. A send that was begun
    /// goes out as far as the kernel takes it without waiting.
    pub fn close(&mut self, socket: SocketId) {
        on_engine!(&mut self.engine, close(socket));
    }

    /// Stops receiving, lets the send in flight end, and gives the socket back: `Completion::Detached`.
    pub fn detach(&mut self, socket: SocketId) {
        on_engine!(&mut self.engine, detach(socket));
    }

    /// Takes in an open file.
    pub fn add_file(&mut self, fd: OwnedFd) -> Result<FileId, OpError> {
        on_engine!(&mut self.engine, add_file(fd))
    }

    /// Closes the file once its operations have completed; they are still reported.
    pub fn remove_file(&mut self, file: FileId) {
        on_engine!(&mut self.engine, remove_file(file));
    }

    /// Writes the first `len` bytes of `buffer` at `offset`.
    pub fn write(&mut self, file: FileId, offset: u64, buffer: AlignedBuffer, len: usize, token: u64) {
        let work = Work::Write(Transfer::new(buffer, offset, len));
        on_engine!(&mut self.engine, begin_file(file, token, work));
    }

    /// Reads `len` bytes at `offset` into the front of `buffer`.
    pub fn read(&mut self, file: FileId, offset: u64, buffer: AlignedBuffer, len: usize, token: u64) {
        let work = Work::Read(Transfer::new(buffer, offset, len));
        on_engine!(&mut self.engine, begin_file(file, token, work));
    }

    /// `fdatasync(2)`. It covers the writes whose `Completion::Wrote` was seen before this call.
    pub fn sync(&mut self, file: FileId, token: u64) {
        on_engine!(&mut self.engine, begin_file(file, token, Work::Sync));
    }

    /// `Completion::Timer` in the first tick at or after `at`.
    pub fn set_timer(&mut self, at: Instant, token: u64) {
        self.timers.set(at, token);
    }

    /// Submits everything, waits for a completion, a timer or `wait` (`Some(0)`: not at all, `None`:
    /// without end), and appends all that is there to `completions`. Usually one system call.
    pub fn tick(&mut self, wait: Option<Duration>, completions: &mut Vec<Completion>) {
        let found = completions.len();
        let deadline = wait.map(|wait| Instant::now() + wait);
        loop {
            let now = Instant::now();
            self.timers.expire(now, completions);
            let until = [deadline, self.timers.next()].into_iter().flatten().min();
            let wait = until.map(|at| at.saturating_duration_since(now));
            let wait = if completions.len() > found { Some(Duration::ZERO) } else { wait };
            on_engine!(&mut self.engine, poll(wait, completions));
            if completions.len() > found || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return;
            }
        }
    }

    /// The received bytes.
    pub fn bytes(&self, buffer: &ReceiveBuffer) -> &[u8] {
        on_engine!(&self.engine, bytes(buffer))
    }

    /// The same, to be decrypted where they are.
    pub fn bytes_mut(&mut self, buffer: &mut ReceiveBuffer) -> &mut [u8] {
        on_engine!(&mut self.engine, bytes_mut(buffer))
    }

    /// Gives a receive buffer back for use by any socket.
    pub fn recycle(&mut self, buffer: ReceiveBuffer) {
        on_engine!(&mut self.engine, recycle(buffer));
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        on_engine!(&self.engine, counters())
    }

    /// Ends the reactor's work: cancels everything and waits until the kernel holds no buffer of ours.
    /// Completions are discarded, so wait for the writes that matter first. Drop it afterwards.
    pub fn drain(&mut self, deadline: Instant) -> Result<(), DrainTimeout> {
        on_engine!(&mut self.engine, drain(deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_no_reactor_can_have_are_refused_by_name() {
        let good = Limits::default;
        for (name, limits) in [
            ("sockets_max", Limits { sockets_max: 1 << 24, ..good() }),
            ("receive_buffers", Limits { receive_buffers: 100, ..good() }),
            ("receive_buffers", Limits { receive_buffers: 0, ..good() }),
            ("receive_buffer_bytes", Limits { receive_buffer_bytes: 0, ..good() }),
            ("submission_entries", Limits { submission_entries: 0, ..good() }),
        ] {
            for backend in Backend::ALL {
                let error = Reactor::new(&limits, backend).unwrap_err();
                assert!(matches!(error, SetupError::Limit { name: found, .. } if found == name), "{error}");
            }
        }
    }
}
