//! Connected sockets: multishot receive, whole sends, connect, shutdown, detach and close.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, IntoRawFd, OwnedFd},
};

use io_uring::{cqueue, opcode, types};

use super::{
    NO_SLOT, Ring,
    pool::GROUP,
    queue::failure,
    token::{Operation, Token},
};
use crate::{
    completion::{Completion, SocketId},
    error::OpError,
    socket::{Address, Waiting, for_connection_to, peer_of, peer_uid_of, set_waiting},
    table::Key,
};

/// Most bytes handed to the kernel in one send; the rest follows when they are gone.
const SEND_BYTES_MAX: usize = 1 << 30;

/// A slot lives until `operations` is 0 and nobody wants the socket any more.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    phase: Phase,
    receiving: Receiving,
    outgoing: Option<Outgoing>,
    /// The address of a `connect` in flight; boxed, since the kernel reads it there.
    address: Option<Box<Address>>,
    shutdown: bool,
    /// Receive, send, connect and shutdown: at most one of each in flight.
    operations: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Detaching,
    Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    /// No receive is wanted.
    Idle,
    /// The kernel has a receive.
    Armed,
    /// It is being cancelled.
    Stopping,
    /// It is being cancelled and is wanted again.
    Restarting,
    /// Wanted, but there was no buffer.
    Starved,
    /// The stream ended and that was reported.
    Ended,
}

// A slot of the table, its place in the list of free ones, and its places in lines of keys.
const _: () = assert!(size_of::<Socket>() + 4 * size_of::<Key>() <= crate::reactor::SOCKET_BYTES);

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            phase: Phase::Open,
            receiving: Receiving::Idle,
            outgoing: None,
            address: None,
            shutdown: false,
            operations: 0,
        }
    }
}

impl Ring {
    pub(crate) fn adopt(&mut self, fd: OwnedFd) -> Result<SocketId, OpError> {
        set_waiting(&fd, Waiting::Blocking)?;
        self.insert_socket(Socket::new(fd))
    }

    pub(crate) fn connect(&mut self, address: Address) -> Result<SocketId, OpError> {
        let fd = for_connection_to(&address)?;
        let address = Box::new(address);
        let connect =
            opcode::Connect::new(types::Fd(fd.as_raw_fd()), address.as_ptr(), address.len()).build();
        let id = self.insert_socket(Socket { address: Some(address), operations: 1, ..Socket::new(fd) })?;
        // SAFETY: the slot keeps the boxed address and the descriptor until the completion.
        unsafe { self.queue.push(connect, Token::new(Operation::Connect, id.0)) };
        Ok(id)
    }

    pub(crate) fn peer(&self, id: SocketId) -> Option<SocketAddr> {
        peer_of(&self.sockets.get(id.0)?.fd)
    }

    pub(crate) fn peer_uid(&self, id: SocketId) -> Option<u32> {
        peer_uid_of(&self.sockets.get(id.0)?.fd)
    }

    pub(crate) fn receive(&mut self, id: SocketId) {
        let Some(socket) = self.open_socket(id.0) else { return };
        match socket.receiving {
            Receiving::Idle => self.arm_receive(id.0),
            Receiving::Stopping => socket.receiving = Receiving::Restarting,
            Receiving::Armed | Receiving::Restarting | Receiving::Starved | Receiving::Ended => {}
        }
    }

    pub(crate) fn pause(&mut self, id: SocketId) {
        if self.open_socket(id.0).is_some() {
            self.stop_receive(id.0);
        }
    }

    pub(crate) fn send(&mut self, id: SocketId, bytes: Vec<u8>) {
        let Some(socket) = self.open_socket(id.0) else { return };
        assert!(socket.outgoing.is_none(), "a second send before the first was reported as sent");
        socket.outgoing = Some(Outgoing { bytes, sent: 0 });
        self.push_send(id.0);
    }

    pub(crate) fn shutdown_write(&mut self, id: SocketId) {
        let Some(socket) = self.open_socket(id.0) else { return };
        if socket.outgoing.is_some() {
            socket.shutdown = true;
            return;
        }
        self.push_shutdown(id.0);
    }

    pub(crate) fn close(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id.0) else { return };
        if socket.phase == Phase::Closing {
            return;
        }
        socket.phase = Phase::Closing;
        let (sending, connecting) = (socket.outgoing.is_some(), socket.address.is_some());
        self.stop_receive(id.0);
        if sending {
            self.cancel(Token::new(Operation::Send, id.0));
        }
        if connecting {
            self.cancel(Token::new(Operation::Connect, id.0));
        }
        self.finish_if_idle(id.0);
    }

    pub(crate) fn detach(&mut self, id: SocketId) {
        let Some(socket) = self.open_socket(id.0) else { return };
        socket.phase = Phase::Detaching;
        self.stop_receive(id.0);
        self.finish_if_idle(id.0);
    }

    /// Arms receives that found no buffer, one for each buffer there is now, and says whether some are left
    /// that may yet get one: an idle socket takes none, so the next round goes on without waiting.
    pub(super) fn feed_starved(&mut self) -> bool {
        let count = usize::from(self.pool.available()).min(self.starved.len());
        for _ in 0..count {
            let key = self.starved.pop_front().expect("at most as many as are listed");
            self.arm_receive(key);
        }
        count > 0 && !self.starved.is_empty()
    }

    pub(super) fn on_receive(
        &mut self,
        key: Key,
        result: i32,
        flags: u32,
        completions: &mut Vec<Completion>,
    ) {
        let len = result.max(0) as u32;
        let buffer = cqueue::buffer_select(flags).map(|index| self.pool.take(index, len));
        let more = cqueue::more(flags);
        let socket = self.slot(key);
        socket.operations -= u8::from(!more);
        match buffer {
            Some(buffer) if len > 0 && socket.phase != Phase::Closing => {
                completions.push(Completion::Received { socket: SocketId(key), buffer });
            }
            Some(buffer) => self.pool.recycle(buffer),
            None => {}
        }
        if !more {
            self.end_receive(key, result, completions);
            self.finish_if_idle(key);
        }
    }

    pub(super) fn on_send(&mut self, key: Key, result: i32, completions: &mut Vec<Completion>) {
        let draining = self.draining;
        let socket = self.slot(key);
        socket.operations -= 1;
        let mut outgoing = socket.outgoing.take().expect("kept until the completion of its send");
        outgoing.sent += result.max(0) as usize;
        let done = outgoing.sent == outgoing.bytes.len();
        let retry = result > 0 || result == -libc::EINTR || result == -libc::EAGAIN;
        if socket.phase == Phase::Closing || draining {
            return self.finish_if_idle(key);
        }
        if !done && retry {
            socket.outgoing = Some(outgoing);
            return self.push_send(key);
        }
        let result = match result {
            _ if done => Ok(()),
            0 => Err(io::ErrorKind::WriteZero.into()),
            error => Err(failure(error)),
        };
        let shutdown = std::mem::take(&mut socket.shutdown);
        let mut buffer = outgoing.bytes;
        buffer.clear();
        completions.push(Completion::Sent { socket: SocketId(key), buffer, result });
        if shutdown {
            self.push_shutdown(key);
        }
        self.finish_if_idle(key);
    }

    pub(super) fn on_connect(&mut self, key: Key, result: i32, completions: &mut Vec<Completion>) {
        let socket = self.slot(key);
        socket.operations -= 1;
        socket.address = None;
        if socket.phase != Phase::Closing {
            let result = if result < 0 { Err(failure(result)) } else { Ok(()) };
            completions.push(Completion::Connected { socket: SocketId(key), result });
        }
        self.finish_if_idle(key);
    }

    pub(super) fn on_shutdown(&mut self, key: Key) {
        self.slot(key).operations -= 1;
        self.finish_if_idle(key);
    }

    /// What becomes of a receive whose last completion was `result`.
    fn end_receive(&mut self, key: Key, result: i32, completions: &mut Vec<Completion>) {
        let draining = self.draining;
        let socket = self.slot(key);
        let wanted = matches!(socket.receiving, Receiving::Armed | Receiving::Restarting);
        let wanted = wanted && socket.phase == Phase::Open && !draining;
        socket.receiving = Receiving::Idle;
        let error = match -result {
            0 => None,
            libc::ENOBUFS => {
                socket.receiving = if wanted { Receiving::Starved } else { Receiving::Idle };
                self.counters.buffer_shortages += 1;
                if wanted {
                    self.starved.push_back(key);
                }
                return;
            }
            again if again < 0 || [libc::ECANCELED, libc::EINTR, libc::EAGAIN].contains(&again) => {
                if wanted {
                    self.arm_receive(key);
                }
                return;
            }
            _ => Some(failure(result)),
        };
        socket.receiving = Receiving::Ended;
        if socket.phase != Phase::Closing {
            completions.push(Completion::Closed { socket: SocketId(key), error });
        }
    }

    /// Reports the detached sockets that nothing keeps any more.
    pub(super) fn hand_out_leaving(&mut self, completions: &mut Vec<Completion>) {
        while let Some(key) = self.leaving.pop_front() {
            // Closed after it was detached: then nothing more comes out.
            let Some(socket) = self.sockets.remove(key) else { continue };
            assert_eq!(socket.phase, Phase::Detaching);
            completions.push(Completion::Detached { socket: SocketId(key), fd: socket.fd });
        }
    }

    /// Ends a closing or detaching socket whose last operation has completed.
    fn finish_if_idle(&mut self, key: Key) {
        let socket = self.slot(key);
        if socket.operations > 0 || socket.phase == Phase::Open {
            return;
        }
        if socket.phase == Phase::Detaching {
            self.leaving.push_back(key);
            return;
        }
        let socket = self.sockets.remove(key).expect("looked up above");
        let close = opcode::Close::new(types::Fd(socket.fd.into_raw_fd())).build();
        // SAFETY: the descriptor was given up by its owner, so that the kernel is the only one to close it.
        unsafe { self.queue.push(close, Token::new(Operation::Close, NO_SLOT)) };
    }

    fn stop_receive(&mut self, key: Key) {
        let socket = self.slot(key);
        match socket.receiving {
            Receiving::Armed => {
                socket.receiving = Receiving::Stopping;
                self.cancel(Token::new(Operation::Receive, key));
            }
            Receiving::Restarting => socket.receiving = Receiving::Stopping,
            Receiving::Starved => {
                socket.receiving = Receiving::Idle;
                self.starved.retain(|listed| *listed != key);
            }
            Receiving::Idle | Receiving::Stopping | Receiving::Ended => {}
        }
    }

    fn arm_receive(&mut self, key: Key) {
        let socket = self.slot(key);
        socket.receiving = Receiving::Armed;
        socket.operations += 1;
        let receive = opcode::RecvMulti::new(types::Fd(socket.fd.as_raw_fd()), GROUP).build();
        // SAFETY: the slot keeps the descriptor, the pool its buffers, until the completion.
        unsafe { self.queue.push(receive, Token::new(Operation::Receive, key)) };
    }

    fn push_send(&mut self, key: Key) {
        let socket = self.slot(key);
        socket.operations += 1;
        let outgoing = socket.outgoing.as_ref().expect("set by the caller");
        let rest = &outgoing.bytes[outgoing.sent..];
        let len = rest.len().min(SEND_BYTES_MAX) as u32;
        let send = opcode::Send::new(types::Fd(socket.fd.as_raw_fd()), rest.as_ptr(), len);
        let send = send.flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL).build();
        // SAFETY: the slot keeps descriptor and bytes, untouched, until the completion.
        unsafe { self.queue.push(send, Token::new(Operation::Send, key)) };
    }

    fn push_shutdown(&mut self, key: Key) {
        let socket = self.slot(key);
        socket.operations += 1;
        let shutdown = opcode::Shutdown::new(types::Fd(socket.fd.as_raw_fd()), libc::SHUT_WR).build();
        // SAFETY: the slot keeps the descriptor until the completion.
        unsafe { self.queue.push(shutdown, Token::new(Operation::Shutdown, key)) };
    }

    fn insert_socket(&mut self, socket: Socket) -> Result<SocketId, OpError> {
        let limit = self.limits.sockets_max;
        self.sockets.insert(socket).map(SocketId).map_err(|_| OpError::Full { what: "sockets", limit })
    }

    fn open_socket(&mut self, key: Key) -> Option<&mut Socket> {
        self.sockets.get_mut(key).filter(|socket| socket.phase == Phase::Open)
    }

    fn slot(&mut self, key: Key) -> &mut Socket {
        self.sockets.get_mut(key).expect("a slot is kept until its last operation has completed")
    }
}
