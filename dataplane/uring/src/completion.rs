//! What comes out of a tick, and the ids in it. Nothing here knows which backend did the work.

use std::{io, os::fd::OwnedFd};

use crate::{
    buffer::{AlignedBuffer, ReceiveBuffer},
    table::Key,
};

/// A connected or connecting socket. Stale after `close`, `Detached`, or a full reuse of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub(crate) Key);

impl SocketId {
    /// Its slot: small, dense, and used again by a later socket after this one is stale.
    pub fn index(self) -> usize {
        self.0.index as usize
    }
}

/// A listening socket. Stale after `stop_listening`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub(crate) Key);

/// An open file. Stale after `remove_file`, except in completions of operations begun before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(crate) Key);

/// Something that has happened. Errors are those of the system call that the operation stands for.
#[derive(Debug)]
pub enum Completion {
    /// A connection came in; it receives nothing before `receive`.
    Accepted {
        /// Where it came in.
        listener: ListenerId,
        /// The new connection.
        socket: SocketId,
    },
    /// `connect` is done. After an error the socket still has to be closed.
    Connected {
        /// The socket that `connect` returned.
        socket: SocketId,
        /// The error of `connect(2)`.
        result: Result<(), io::Error>,
    },
    /// Bytes arrived, in order; the buffer goes back through `recycle`.
    Received {
        /// Where they arrived.
        socket: SocketId,
        /// The bytes, read with `Reactor::bytes`.
        buffer: ReceiveBuffer,
    },
    /// The peer ended its side, or receiving failed. Once a socket, which still has to be closed.
    Closed {
        /// The socket that receives no more.
        socket: SocketId,
        /// The error of `recv(2)`, or `None` at the end of the stream.
        error: Option<io::Error>,
    },
    /// The whole buffer was handed to the kernel, or sending failed.
    Sent {
        /// The socket sent on.
        socket: SocketId,
        /// The buffer of `send`, empty, with its capacity.
        buffer: Vec<u8>,
        /// The error of `send(2)`.
        result: Result<(), io::Error>,
    },
    /// The socket left the reactor; the id is stale.
    Detached {
        /// The socket that was detached.
        socket: SocketId,
        /// Its descriptor.
        fd: OwnedFd,
    },
    /// The whole write is done, or failed; with `O_DSYNC` it is durable.
    Wrote {
        /// The file written to.
        file: FileId,
        /// The caller's.
        token: u64,
        /// The buffer of `write`.
        buffer: AlignedBuffer,
        /// The error of `pwrite(2)`.
        result: Result<(), io::Error>,
    },
    /// A read is done.
    Read {
        /// The file read from.
        file: FileId,
        /// The caller's.
        token: u64,
        /// The buffer of `read`.
        buffer: AlignedBuffer,
        /// Bytes read, fewer than asked for only at the end of the file; or the error of `pread(2)`.
        result: Result<usize, io::Error>,
    },
    /// Everything whose `Wrote` came before the call of `sync` is durable, unless there is an error.
    Synced {
        /// The file synced.
        file: FileId,
        /// The caller's.
        token: u64,
        /// The error of `fdatasync(2)`.
        result: Result<(), io::Error>,
    },
    /// A timer's moment has come.
    Timer {
        /// The caller's.
        token: u64,
    },
    /// Somebody rang, once or more often, since the last `Woken`.
    Woken,
}
