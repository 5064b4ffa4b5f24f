//! The name servers of `resolv.conf(5)`: the file's text enters, the addresses that the system's resolver asks leave.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

/// `MAXNS`: further ones are not asked.
pub const NAME_SERVERS_MAX: usize = 3;

/// The name servers, or this machine if the file names none. A scope (`%eth0`) is no part of an address.
pub fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let servers: Vec<IpAddr> = resolv_conf.lines().filter_map(name_server).take(NAME_SERVERS_MAX).collect();
    if servers.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { servers }
}

/// The keyword begins the line; what is behind the address does not count.
fn name_server(line: &str) -> Option<IpAddr> {
    let rest = line.strip_prefix("nameserver")?;
    let value = rest.starts_with([' ', '\t']).then(|| rest.split_whitespace().next())??;
    value.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_resolver_reads_them() {
        for (text, expected) in [
            ("", &["127.0.0.1"][..]),
            ("search example.org\noptions edns0\n", &["127.0.0.1"]),
            ("nameserver 127.0.0.53\noptions edns0 trust-ad\n", &["127.0.0.53"]),
            ("# nameserver 192.0.2.1\n;nameserver 192.0.2.2\nnameserver\t192.0.2.3", &["192.0.2.3"]),
            ("nameserver 2001:db8::1\r\nnameserver fe80::1%eth0\n", &["2001:db8::1", "fe80::1"]),
            ("nameserver   192.0.2.1   # the first\n", &["192.0.2.1"]),
            (
                "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4",
                &["10.0.0.1", "10.0.0.2", "10.0.0.3"],
            ),
            (
                "nameserver dns.example\nnameserver\nnameservers 10.0.0.1\n nameserver 10.0.0.2\n",
                &["127.0.0.1"],
            ),
        ] {
            let expected: Vec<IpAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(name_servers(text), expected, "{text}");
        }
    }
}
