//! The addresses at which listeners are reached.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;

/// Listeners at all addresses stand at each of this machine.
pub(super) fn addresses(listeners: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for listener in listeners {
        if !listener.ip().is_unspecified() {
            found.push(*listener);
            continue;
        }
        // A listener at [::] takes IPv4, too; one at 0.0.0.0 does not take IPv6.
        let reaches = |ip: &IpAddr| listener.is_ipv6() || ip.is_ipv4();
        let machine = machine();
        found.extend(machine.into_iter().filter(reaches).map(|ip| SocketAddr::new(ip, listener.port())));
    }
    found
}

/// Without a word from the kernel there are none: then frames are judged at their sockets only.
fn machine() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
    };
    interfaces.filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_at_all_addresses_stands_at_each() {
        let all = addresses(&["0.0.0.0:443".parse().unwrap(), "192.0.2.1:8443".parse().unwrap()]);
        assert!(all.contains(&"127.0.0.1:443".parse().unwrap()), "{all:?}");
        assert!(all.contains(&"192.0.2.1:8443".parse().unwrap()));
        assert!(all.iter().all(SocketAddr::is_ipv4));
    }
}
