//! Listening sockets: one multishot accept each, re-armed when it ends, resting when the process has
//! no descriptor left.

use std::{
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use io_uring::{cqueue, opcode, types};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{
        AddressFamily, SockaddrLike, SockaddrStorage, getsockname, getsockopt, setsockopt, sockopt,
    },
};

use super::{
    Ring,
    sockets::Socket,
    token::{Operation, Token},
};
use crate::{
    completion::{Completion, ListenerId, SocketId},
    error::OpError,
    table::Key,
};

/// Pause of a listener after `accept` failed for lack of descriptors or memory.
const ACCEPT_REST_MS: u64 = 100;

#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    armed: bool,
    stopping: bool,
}

impl Ring {
    pub(crate) fn listen(&mut self, fd: OwnedFd) -> Result<ListenerId, OpError> {
        let listens =
            getsockopt(&fd, sockopt::AcceptConn).map_err(OpError::system("getsockopt SO_ACCEPTCONN"))?;
        if !listens {
            return Err(OpError::NotListening);
        }
        set_blocking(&fd)?;
        let address =
            getsockname::<SockaddrStorage>(fd.as_raw_fd()).map_err(OpError::system("getsockname"))?;
        if matches!(address.family(), Some(AddressFamily::Inet | AddressFamily::Inet6)) {
            // Linux lets accepted sockets inherit it, which spares a system call for each.
            setsockopt(&fd, sockopt::TcpNoDelay, &true).map_err(OpError::system("setsockopt TCP_NODELAY"))?;
        }
        let limit = u32::from(self.limits.listeners_max);
        let listener = Listener { fd, armed: false, stopping: false };
        let inserted = self.listeners.insert(listener);
        let key = inserted.map_err(|_| OpError::Full { what: "listeners", limit })?;
        self.arm_accept(key);
        Ok(ListenerId(key))
    }

    pub(crate) fn stop_listening(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(id.0) else { return };
        listener.stopping = true;
        if listener.armed {
            self.cancel(Token::new(Operation::Accept, id.0));
            return;
        }
        self.resting.retain(|key| *key != id.0);
        self.listeners.remove(id.0);
    }

    /// Tries again on the listeners whose rest is over.
    pub(super) fn end_rests(&mut self) {
        if self.rest_ends.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.rest_ends = None;
        while let Some(key) = self.resting.pop() {
            self.arm_accept(key);
        }
    }

    pub(super) fn on_accept(&mut self, key: Key, result: i32, flags: u32, completions: &mut Vec<Completion>) {
        if result >= 0 {
            // SAFETY: a fresh descriptor that the kernel just made for us alone.
            let fd = unsafe { OwnedFd::from_raw_fd(result) };
            self.take_accepted(key, fd, completions);
        }
        if cqueue::more(flags) {
            return;
        }
        let listener = self.listener(key);
        listener.armed = false;
        if listener.stopping {
            self.listeners.remove(key);
            return;
        }
        if self.draining {
            return;
        }
        let passing = [libc::ECANCELED, libc::ECONNABORTED, libc::EINTR, libc::EAGAIN, libc::EPROTO];
        if result >= 0 || passing.contains(&-result) {
            return self.arm_accept(key);
        }
        self.counters.accept_rests += 1;
        self.resting.push(key);
        self.rest_ends.get_or_insert_with(|| Instant::now() + Duration::from_millis(ACCEPT_REST_MS));
    }

    fn take_accepted(&mut self, key: Key, fd: OwnedFd, completions: &mut Vec<Completion>) {
        let stopping = self.listener(key).stopping;
        if stopping || self.draining {
            self.counters.accepts_refused += 1;
            return;
        }
        match self.sockets.insert(Socket::new(fd)) {
            Ok(socket) => {
                completions
                    .push(Completion::Accepted { listener: ListenerId(key), socket: SocketId(socket) });
            }
            Err(_refused) => self.counters.accepts_refused += 1,
        }
    }

    fn arm_accept(&mut self, key: Key) {
        let listener = self.listener(key);
        listener.armed = true;
        let accept =
            opcode::AcceptMulti::new(types::Fd(listener.fd.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: the slot keeps the descriptor until the last completion.
        unsafe { self.queue.push(accept, Token::new(Operation::Accept, key)) };
    }

    fn listener(&mut self, key: Key) -> &mut Listener {
        self.listeners.get_mut(key).expect("a listener is kept until its accept has ended")
    }
}

/// Clears `O_NONBLOCK`, with which the ring would report EAGAIN instead of waiting.
pub(super) fn set_blocking(fd: &OwnedFd) -> Result<(), OpError> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(OpError::system("fcntl F_GETFL"))?;
    let flags = OFlag::from_bits_retain(flags);
    if !flags.contains(OFlag::O_NONBLOCK) {
        return Ok(());
    }
    let blocking = FcntlArg::F_SETFL(flags.difference(OFlag::O_NONBLOCK));
    fcntl(fd, blocking).map(drop).map_err(OpError::system("fcntl F_SETFL"))
}
