//! Listening sockets: accepted from until there is nothing more, a bounded number in each poll, resting
//! when the process has no descriptor left.

use std::{
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{SockFlag, accept4},
};

use super::{Poller, Source, sockets::Socket};
use crate::{
    completion::{Completion, ListenerId},
    error::OpError,
    socket::{ACCEPT_PASSING, ACCEPT_REST_MS, Waiting, prepare_listener, set_waiting},
    table::Key,
};

/// Most connections taken from one listener before the others have their turn.
const ACCEPTS_PER_POLL_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    /// Whether it stands in the line, or rests.
    listed: bool,
}

impl Poller {
    pub(crate) fn listen(&mut self, fd: OwnedFd) -> Result<ListenerId, OpError> {
        prepare_listener(&fd)?;
        set_waiting(&fd, Waiting::Nonblocking)?;
        let limit = u32::from(self.limits.listeners_max);
        let inserted = self.listeners.insert(Listener { fd, listed: false });
        let key = inserted.map_err(|_| OpError::Full { what: "listeners", limit })?;
        let listener = self.listeners.get(key).expect("just inserted");
        if let Err(error) = self.register(&listener.fd, Source::Listener, key) {
            self.listeners.remove(key);
            return Err(error);
        }
        self.in_flight += 1;
        self.counters.submissions += 1;
        Ok(ListenerId(key))
    }

    pub(crate) fn stop_listening(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.remove(id.0) else { return };
        self.forget(&listener.fd);
        self.resting.retain(|key| *key != id.0);
        self.in_flight -= u64::from(!self.draining);
    }

    /// An event: there are connections.
    pub(super) fn on_connections(&mut self, key: Key) {
        let Some(listener) = self.listeners.get_mut(key) else { return };
        if !listener.listed && !self.draining {
            listener.listed = true;
            self.accepting.push_back(key);
        }
    }

    /// Tries again on the listeners whose rest is over.
    pub(super) fn end_rests(&mut self) {
        if self.rest_ends.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.rest_ends = None;
        self.accepting.extend(self.resting.drain(..));
    }

    pub(super) fn accept(&mut self, key: Key, completions: &mut Vec<Completion>) {
        for _ in 0..ACCEPTS_PER_POLL_MAX {
            let Some(listener) = self.listeners.get_mut(key) else { return };
            match accept4(listener.fd.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(fd) => {
                    // SAFETY: a fresh descriptor that the kernel just made for us alone.
                    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                    self.take_accepted(key, fd, completions);
                }
                Err(Errno::EAGAIN) => {
                    listener.listed = false;
                    return;
                }
                Err(error) if ACCEPT_PASSING.contains(&(error as i32)) => {}
                Err(_lack) => {
                    self.counters.accept_rests += 1;
                    self.resting.push(key);
                    let rest = Duration::from_millis(ACCEPT_REST_MS);
                    self.rest_ends.get_or_insert_with(|| Instant::now() + rest);
                    return;
                }
            }
        }
        self.accepting.push_back(key);
    }

    fn take_accepted(&mut self, key: Key, fd: OwnedFd, completions: &mut Vec<Completion>) {
        match self.insert_socket(Socket::new(fd)) {
            Ok(socket) => completions.push(Completion::Accepted { listener: ListenerId(key), socket }),
            Err(_refused) => self.counters.accepts_refused += 1,
        }
    }
}
