//! Listening sockets that all workers share an address with: the kernel spreads the connections.

use std::{net::SocketAddr, os::fd::AsRawFd, os::fd::OwnedFd};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
        sockopt,
    },
};

use crate::error::BindError;

/// A TCP socket that listens on `address` beside others that do the same (`SO_REUSEPORT`, socket(7)).
/// `backlog` is connections not yet accepted, at most 4096; the kernel cuts it to `net.core.somaxconn`.
pub fn bind_reuseport(address: SocketAddr, backlog: u32) -> Result<OwnedFd, BindError> {
    let failed = |call| move |error: Errno| BindError::new(address, call, error);
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed("socket"))?;
    setsockopt(&fd, sockopt::ReuseAddr, &true).map_err(failed("setsockopt SO_REUSEADDR"))?;
    setsockopt(&fd, sockopt::ReusePort, &true).map_err(failed("setsockopt SO_REUSEPORT"))?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).map_err(failed("bind"))?;
    let backlog = i32::try_from(backlog).ok().and_then(|most| Backlog::new(most).ok());
    listen(&fd, backlog.unwrap_or(Backlog::MAXCONN)).map_err(failed("listen"))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn two_sockets_share_an_address_but_not_with_one_that_does_not_share() {
        let first = TcpListener::from(bind_reuseport("127.0.0.1:0".parse().unwrap(), 16).unwrap());
        let address = first.local_addr().unwrap();
        let second = bind_reuseport(address, u32::MAX).unwrap();
        drop((first, second));

        let alone = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = alone.local_addr().unwrap();
        let error = bind_reuseport(address, 16).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn an_address_of_no_interface_is_named_with_a_remedy() {
        let error = bind_reuseport("192.0.2.1:4433".parse().unwrap(), 16).unwrap_err();
        assert!(matches!(error, BindError::NotLocal { .. }), "{error}");
    }
}
