//! Connected sockets: what each wants, what it may be ready for, and doing the one when the other is so.

use std::{
    io, mem,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::{
        epoll::EpollFlags,
        socket::{MsgFlags, Shutdown, connect, getsockopt, recv, send, shutdown, sockopt},
    },
};

use super::{Poller, Source};
use crate::{
    completion::{Completion, SocketId},
    error::OpError,
    socket::{Address, Waiting, for_connection_to, peer_of, peer_uid_of, set_waiting},
    table::Key,
};

/// Most buffers filled from one socket before the others have their turn.
const RECEIVES_PER_TURN_MAX: usize = 8;
const SEND_FLAGS: MsgFlags = MsgFlags::MSG_NOSIGNAL.union(MsgFlags::MSG_DONTWAIT);

#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    phase: Phase,
    receiving: Receiving,
    outgoing: Option<Outgoing>,
    connecting: Connecting,
    /// Whether a receive or a send may move bytes: yes until it has answered EAGAIN, and after an event.
    readable: bool,
    writable: bool,
    /// Whether it stands in the line.
    listed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Detaching,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    /// Nothing is wanted.
    Idle,
    /// Bytes are wanted.
    Wanted,
    /// They are, but there was no buffer.
    Starved,
    /// The stream ended and that was reported.
    Ended,
}

#[derive(Debug)]
enum Connecting {
    /// Connected, or never to be.
    No,
    /// The kernel is at it.
    Pending,
    /// `connect(2)` knew at once.
    Known(Result<(), Errno>),
}

// A slot of the table, its place in the list of free ones, and its places in lines of keys.
const _: () = assert!(size_of::<Socket>() + 4 * size_of::<Key>() <= crate::reactor::SOCKET_BYTES);

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    /// Our side ends when the bytes are gone.
    last: bool,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            phase: Phase::Open,
            receiving: Receiving::Idle,
            outgoing: None,
            connecting: Connecting::No,
            readable: true,
            writable: true,
            listed: false,
        }
    }

    fn is_connecting(&self) -> bool {
        !matches!(self.connecting, Connecting::No)
    }

    /// Operations that a ring would have in flight.
    fn operations(&self) -> u64 {
        let receiving = self.receiving == Receiving::Wanted;
        u64::from(receiving) + u64::from(self.outgoing.is_some()) + u64::from(self.is_connecting())
    }

    /// A send that has had no turn gets it before the socket closes, as a ring would have begun it.
    fn say_last_words(&self) {
        let Some(outgoing) = &self.outgoing else { return };
        if self.writable && !self.is_connecting() {
            let _ = send(self.fd.as_raw_fd(), &outgoing.bytes[outgoing.sent..], SEND_FLAGS);
        }
    }

    /// Whether a turn could bring it forward.
    fn is_ready(&self) -> bool {
        match self.connecting {
            Connecting::Pending => false,
            Connecting::Known(_) => true,
            Connecting::No => {
                let receives = self.receiving == Receiving::Wanted && self.readable;
                receives || self.outgoing.is_some() && self.writable
            }
        }
    }
}

impl Poller {
    pub(crate) fn adopt(&mut self, fd: OwnedFd) -> Result<SocketId, OpError> {
        // Every call of ours says MSG_DONTWAIT; whoever gets the descriptor back finds it as from a ring.
        set_waiting(&fd, Waiting::Blocking)?;
        self.insert_socket(Socket::new(fd))
    }

    pub(crate) fn connect(&mut self, address: Address) -> Result<SocketId, OpError> {
        // The peer must not see a connection that has no place here.
        self.check_room()?;
        let fd = for_connection_to(&address)?;
        set_waiting(&fd, Waiting::Nonblocking)?;
        let begun = match &address {
            Address::Internet(address) => connect(fd.as_raw_fd(), address),
            Address::Unix(address) => connect(fd.as_raw_fd(), address),
        };
        let connecting = match begun {
            Err(Errno::EINPROGRESS | Errno::EINTR) => Connecting::Pending,
            known => Connecting::Known(known),
        };
        set_waiting(&fd, Waiting::Blocking)?;
        let id = self.insert_socket(Socket { connecting, ..Socket::new(fd) })?;
        self.in_flight += 1;
        self.counters.submissions += 1;
        self.list(id.0);
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
        if socket.receiving == Receiving::Idle {
            socket.receiving = Receiving::Wanted;
            self.begin(id.0);
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
        socket.outgoing = Some(Outgoing { bytes, sent: 0, last: false });
        self.begin(id.0);
    }

    pub(crate) fn shutdown_write(&mut self, id: SocketId) {
        let Some(socket) = self.open_socket(id.0) else { return };
        match &mut socket.outgoing {
            Some(outgoing) => outgoing.last = true,
            None => end_our_side(&socket.fd),
        }
    }

    pub(crate) fn close(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.remove(id.0) else { return };
        self.in_flight -= socket.operations();
        socket.say_last_words();
        if socket.receiving == Receiving::Starved {
            self.starved.retain(|listed| *listed != id.0);
        }
        self.forget(&socket.fd);
    }

    pub(crate) fn detach(&mut self, id: SocketId) {
        let Some(socket) = self.open_socket(id.0) else { return };
        socket.phase = Phase::Detaching;
        self.stop_receive(id.0);
        self.leave_if_idle(id.0);
    }

    /// Lets as many starved sockets try again as there are buffers.
    pub(super) fn feed_starved(&mut self) {
        let count = self.pool.available().min(self.starved.len());
        for _ in 0..count {
            let key = self.starved.pop_front().expect("at most as many as are listed");
            self.slot(key).receiving = Receiving::Wanted;
            self.in_flight += 1;
            self.list(key);
        }
    }

    /// An event: what it says the socket is ready for may be tried again.
    pub(super) fn on_event(&mut self, key: Key, flags: EpollFlags, completions: &mut Vec<Completion>) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let broken = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
        socket.readable |= flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | broken);
        socket.writable |= flags.intersects(EpollFlags::EPOLLOUT | broken);
        if matches!(socket.connecting, Connecting::Pending) && flags.intersects(EpollFlags::EPOLLOUT | broken)
        {
            let result = match getsockopt(&socket.fd, sockopt::SocketError) {
                Ok(0) => Ok(()),
                Ok(error) => Err(Errno::from_raw(error)),
                Err(error) => Err(error),
            };
            self.end_connect(key, result, completions);
        }
        self.list(key);
    }

    /// A turn of a socket in the line: connects, sends and receives what it can.
    pub(super) fn advance_socket(&mut self, key: Key, completions: &mut Vec<Completion>) {
        // Closed since, and perhaps its slot taken again.
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.listed = false;
        if let Connecting::Known(result) = socket.connecting {
            self.end_connect(key, result, completions);
        }
        self.continue_send(key, completions);
        self.continue_receive(key, completions);
        self.leave_if_idle(key);
        self.list(key);
    }

    /// Reports the detached sockets that want nothing any more.
    pub(super) fn hand_out_leaving(&mut self, completions: &mut Vec<Completion>) {
        while let Some(key) = self.leaving.pop_front() {
            // Closed after it was detached: then nothing more comes out.
            let Some(socket) = self.sockets.remove(key) else { continue };
            assert_eq!(socket.phase, Phase::Detaching);
            self.forget(&socket.fd);
            completions.push(Completion::Detached { socket: SocketId(key), fd: socket.fd });
        }
    }

    /// From now on no socket wants anything.
    pub(super) fn cancel_sockets(&mut self) {
        self.ready.clear();
        for socket in self.sockets.values_mut() {
            socket.receiving = Receiving::Idle;
            socket.outgoing = None;
            socket.connecting = Connecting::No;
            socket.listed = false;
        }
    }

    pub(super) fn insert_socket(&mut self, socket: Socket) -> Result<SocketId, OpError> {
        self.check_room()?;
        let key = self.sockets.insert(socket).expect("there is room");
        let socket = self.sockets.get(key).expect("just inserted");
        if let Err(error) = self.register(&socket.fd, Source::Socket, key) {
            self.sockets.remove(key);
            return Err(error);
        }
        Ok(SocketId(key))
    }

    fn check_room(&self) -> Result<(), OpError> {
        let limit = self.limits.sockets_max;
        if self.sockets.len() < limit as usize {
            return Ok(());
        }
        Err(OpError::Full { what: "sockets", limit })
    }

    /// Counts an operation that a socket has just been given, and puts the socket in the line.
    fn begin(&mut self, key: Key) {
        self.in_flight += 1;
        self.counters.submissions += 1;
        self.list(key);
    }

    fn end_connect(&mut self, key: Key, result: Result<(), Errno>, completions: &mut Vec<Completion>) {
        self.slot(key).connecting = Connecting::No;
        self.in_flight -= 1;
        let result = result.map_err(io::Error::from);
        completions.push(Completion::Connected { socket: SocketId(key), result });
        self.leave_if_idle(key);
    }

    fn continue_send(&mut self, key: Key, completions: &mut Vec<Completion>) {
        let socket = self.slot(key);
        if !socket.writable || socket.is_connecting() {
            return;
        }
        let Some(outgoing) = &mut socket.outgoing else { return };
        let result = loop {
            let rest = &outgoing.bytes[outgoing.sent..];
            match send(socket.fd.as_raw_fd(), rest, SEND_FLAGS) {
                Ok(len) => outgoing.sent += len,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {
                    socket.writable = false;
                    return;
                }
                Err(error) => break Err(error.into()),
            }
            if outgoing.sent == outgoing.bytes.len() {
                break Ok(());
            }
        };
        let mut buffer = mem::take(&mut outgoing.bytes);
        buffer.clear();
        if outgoing.last {
            end_our_side(&socket.fd);
        }
        socket.outgoing = None;
        self.in_flight -= 1;
        completions.push(Completion::Sent { socket: SocketId(key), buffer, result });
    }

    fn continue_receive(&mut self, key: Key, completions: &mut Vec<Completion>) {
        for _ in 0..RECEIVES_PER_TURN_MAX {
            let socket = self.sockets.get_mut(key).expect("a socket in its turn");
            if socket.receiving != Receiving::Wanted || !socket.readable || socket.is_connecting() {
                return;
            }
            let Some(space) = self.pool.space() else {
                socket.receiving = Receiving::Starved;
                self.in_flight -= 1;
                self.counters.buffer_shortages += 1;
                self.starved.push_back(key);
                return;
            };
            match recv(socket.fd.as_raw_fd(), space, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return self.end_receive(key, None, completions),
                Ok(len) => {
                    let buffer = self.pool.take(len);
                    completions.push(Completion::Received { socket: SocketId(key), buffer });
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => socket.readable = false,
                Err(error) => return self.end_receive(key, Some(error.into()), completions),
            }
        }
    }

    fn end_receive(&mut self, key: Key, error: Option<io::Error>, completions: &mut Vec<Completion>) {
        self.slot(key).receiving = Receiving::Ended;
        self.in_flight -= 1;
        completions.push(Completion::Closed { socket: SocketId(key), error });
    }

    fn stop_receive(&mut self, key: Key) {
        let socket = self.slot(key);
        let before = socket.receiving;
        if before != Receiving::Ended {
            socket.receiving = Receiving::Idle;
        }
        match before {
            Receiving::Wanted => self.in_flight -= 1,
            Receiving::Starved => self.starved.retain(|listed| *listed != key),
            Receiving::Idle | Receiving::Ended => {}
        }
    }

    /// Puts a socket in the line that a turn could bring forward.
    fn list(&mut self, key: Key) {
        let socket = self.slot(key);
        if socket.is_ready() && !socket.listed {
            socket.listed = true;
            self.ready.push_back(key);
        }
    }

    /// Lets a detaching socket go that has nothing under way.
    fn leave_if_idle(&mut self, key: Key) {
        let socket = self.slot(key);
        if socket.phase == Phase::Detaching && socket.operations() == 0 {
            self.leaving.push_back(key);
        }
    }

    fn open_socket(&mut self, key: Key) -> Option<&mut Socket> {
        self.sockets.get_mut(key).filter(|socket| socket.phase == Phase::Open)
    }

    fn slot(&mut self, key: Key) -> &mut Socket {
        self.sockets.get_mut(key).expect("looked up by the caller")
    }
}

/// `SHUT_WR`. It fails only if the peer ended the connection before, and then there is nothing to end.
fn end_our_side(fd: &OwnedFd) {
    let _ = shutdown(fd.as_raw_fd(), Shutdown::Write);
}
