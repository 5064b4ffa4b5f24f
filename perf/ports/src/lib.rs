//! For tests: addresses on loopback for programs that are told where to listen.
//!
//! A port that the kernel picks may be a client's before the program has started. Those of here lie below the ports of
//! clients, and processes begin at different ones.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port that is tried.
const FIRST: u16 = 10_000;
/// How many are tried; Linux gives clients ports from 32,768 on.
const PORTS: u16 = 20_000;

/// An address on 127.0.0.1 that is free now, and was not given to this process before.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() * 61 % u32::from(PORTS)) as u16;
    for _ in 0..PORTS {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS) % PORTS;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port from {FIRST} to {} is free", FIRST + PORTS - 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn each_is_another_and_none_is_taken() {
        let first = free_address();
        let next = first.port() + 1;
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, next));
        let addresses = [(); 50].map(|()| free_address());
        for (at, address) in addresses.iter().enumerate() {
            assert!((FIRST..FIRST + PORTS).contains(&address.port()) && address.ip().is_loopback());
            assert!(*address != first && !addresses[..at].contains(address), "{address} twice");
            assert!(taken.is_err() || address.port() != next, "{address} is taken");
        }
    }
}
