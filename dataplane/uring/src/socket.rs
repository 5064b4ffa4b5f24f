//! What both backends do with a descriptor before it is theirs, and what they tell of it.

use std::{
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, getpeername, getsockname,
        getsockopt, setsockopt, socket, sockopt,
    },
};

use crate::error::OpError;

/// Pause of a listener after `accept` failed for lack of descriptors or memory.
pub(crate) const ACCEPT_REST_MS: u64 = 100;

/// Errors of `accept(2)` that say something of one connection, not of the process.
pub(crate) const ACCEPT_PASSING: [i32; 5] =
    [libc::ECANCELED, libc::ECONNABORTED, libc::EINTR, libc::EAGAIN, libc::EPROTO];

/// Where a connection leads, as the kernel reads it.
#[derive(Debug)]
pub(crate) enum Address {
    Internet(SockaddrStorage),
    Unix(UnixAddr),
}

impl Address {
    pub(crate) fn unix(path: &Path) -> Result<Self, OpError> {
        UnixAddr::new(path).map(Self::Unix).map_err(OpError::system("sockaddr_un"))
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        match self {
            Self::Internet(address) => address.as_ptr(),
            Self::Unix(address) => SockaddrLike::as_ptr(address),
        }
    }

    pub(crate) fn len(&self) -> libc::socklen_t {
        match self {
            Self::Internet(address) => address.len(),
            Self::Unix(address) => SockaddrLike::len(address),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Internet(address.into())
    }
}

/// A socket for a connection to `address`; over TCP with `TCP_NODELAY`.
pub(crate) fn for_connection_to(address: &Address) -> Result<OwnedFd, OpError> {
    let family = match address {
        Address::Internet(address) => address.family().expect("an internet address has a family"),
        Address::Unix(_) => AddressFamily::Unix,
    };
    let fd =
        socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(OpError::system("socket"))?;
    if matches!(address, Address::Internet(_)) {
        setsockopt(&fd, sockopt::TcpNoDelay, &true).map_err(OpError::system("setsockopt TCP_NODELAY"))?;
    }
    Ok(fd)
}

/// Refuses a socket that does not listen; what a TCP listener accepts gets `TCP_NODELAY`.
pub(crate) fn prepare_listener(fd: &OwnedFd) -> Result<(), OpError> {
    let listens = getsockopt(fd, sockopt::AcceptConn).map_err(OpError::system("getsockopt SO_ACCEPTCONN"))?;
    if !listens {
        return Err(OpError::NotListening);
    }
    let address = getsockname::<SockaddrStorage>(fd.as_raw_fd()).map_err(OpError::system("getsockname"))?;
    if matches!(address.family(), Some(AddressFamily::Inet | AddressFamily::Inet6)) {
        // Linux lets accepted sockets inherit it, which spares a system call for each.
        setsockopt(fd, sockopt::TcpNoDelay, &true).map_err(OpError::system("setsockopt TCP_NODELAY"))?;
    }
    Ok(())
}

/// The peer's address; none for a unix socket or one that is not connected.
pub(crate) fn peer_of(fd: &OwnedFd) -> Option<SocketAddr> {
    let address = getpeername::<SockaddrStorage>(fd.as_raw_fd()).ok()?;
    let v4 = address.as_sockaddr_in().map(|address| SocketAddrV4::from(*address).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddrV6::from(*address).into()))
}

/// The user that a unix socket's peer runs as, as of its `connect` or `listen`; none for another socket.
pub(crate) fn peer_uid_of(fd: &OwnedFd) -> Option<u32> {
    let peer = getsockopt(fd, sockopt::PeerCredentials).ok()?;
    // A TCP socket answers, too, for nobody.
    (peer.pid() != 0).then(|| peer.uid())
}

/// Whether calls on the descriptor wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// They wait: a ring reports completion only then, and whoever gets a detached socket expects it.
    Blocking,
    /// They answer EAGAIN.
    Nonblocking,
}

/// Sets or clears `O_NONBLOCK`.
pub(crate) fn set_waiting(fd: &OwnedFd, waiting: Waiting) -> Result<(), OpError> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(OpError::system("fcntl F_GETFL"))?;
    let flags = OFlag::from_bits_retain(flags);
    let mut wanted = flags;
    wanted.set(OFlag::O_NONBLOCK, waiting == Waiting::Nonblocking);
    if wanted == flags {
        return Ok(());
    }
    fcntl(fd, FcntlArg::F_SETFL(wanted)).map(drop).map_err(OpError::system("fcntl F_SETFL"))
}
