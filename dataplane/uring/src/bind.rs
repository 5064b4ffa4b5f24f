//! Listening sockets that all workers share an address with: the kernel spreads the connections.
//!
//! Binding may need a privilege and comes first; listening is when connections come in.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
        sockopt,
    },
};

use crate::error::BindError;

/// A TCP socket that has its address and does not listen yet: connections are still refused.
#[derive(Debug)]
pub struct BoundSocket {
    address: SocketAddr,
    fd: OwnedFd,
}

impl BoundSocket {
    /// The address it was bound to, as asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens. `backlog` is connections not yet accepted, at most 4096; the kernel cuts it to `net.core.somaxconn`.
    pub fn listen(self, backlog: u32) -> Result<OwnedFd, BindError> {
        let backlog = i32::try_from(backlog).ok().and_then(|most| Backlog::new(most).ok());
        listen(&self.fd, backlog.unwrap_or(Backlog::MAXCONN))
            .map_err(|error| BindError::new(self.address, "listen", error))?;
        Ok(self.fd)
    }
}

impl AsFd for BoundSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A TCP socket at `address`, beside others that share it in the same way (`SO_REUSEPORT`, socket(7)).
pub fn bind_reuseport(address: SocketAddr) -> Result<BoundSocket, BindError> {
    let failed = |call| move |error: Errno| BindError::new(address, call, error);
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed("socket"))?;
    setsockopt(&fd, sockopt::ReuseAddr, &true).map_err(failed("setsockopt SO_REUSEADDR"))?;
    setsockopt(&fd, sockopt::ReusePort, &true).map_err(failed("setsockopt SO_REUSEPORT"))?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).map_err(failed("bind"))?;
    Ok(BoundSocket { address, fd })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn any_port() -> BoundSocket {
        bind_reuseport("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    #[test]
    fn two_sockets_share_an_address_but_not_with_one_that_does_not_share() {
        let first = TcpListener::from(any_port().listen(16).unwrap());
        let address = first.local_addr().unwrap();
        let second = bind_reuseport(address).unwrap().listen(u32::MAX).unwrap();
        drop((first, second));

        let alone = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = alone.local_addr().unwrap();
        let error = bind_reuseport(address).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn connections_are_refused_until_the_socket_listens() {
        let probe = TcpListener::from(any_port().listen(16).unwrap());
        let address = probe.local_addr().unwrap();
        let bound = bind_reuseport(address).unwrap();
        assert_eq!(bound.address(), address);
        drop(probe);
        let error = TcpStream::connect(address).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        let _listening = bound.listen(16).unwrap();
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn an_address_of_no_interface_is_named_with_a_remedy() {
        let error = bind_reuseport("192.0.2.1:4433".parse().unwrap()).unwrap_err();
        assert!(matches!(error, BindError::NotLocal { .. }), "{error}");
    }
}
