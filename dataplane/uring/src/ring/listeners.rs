//! Listening sockets: one multishot accept each, re-armed when it ends, resting when the process has
//! no descriptor left.

use std::{
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use io_uring::{cqueue, opcode, types};

use super::{
    Ring,
    sockets::Socket,
    token::{Operation, Token},
};
use crate::{
    completion::{Completion, ListenerId, SocketId},
    error::OpError,
    socket::{ACCEPT_PASSING, ACCEPT_REST_MS, Waiting, prepare_listener, set_waiting},
    table::Key,
};

#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    armed: bool,
    stopping: bool,
}

impl Ring {
    pub(crate) fn listen(&mut self, fd: OwnedFd) -> Result<ListenerId, OpError> {
        prepare_listener(&fd)?;
        set_waiting(&fd, Waiting::Blocking)?;
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
        if result >= 0 || ACCEPT_PASSING.contains(&-result) {
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
