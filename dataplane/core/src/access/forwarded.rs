//! The client behind proxies that say so in `X-Forwarded-For`: each appends whom it was called by.
//!
//! Read from the right: what our own proxies appended is true, and whatever is left of the first address
//! that is not a proxy's is a claim of the client, which is not looked at.

use core::net::{IpAddr, SocketAddr};

use super::NetworkSet;

/// Why the client is not known; the fault is of a proxy, or of its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardedError {
    /// No address before the proxies' own.
    #[error("X-Forwarded-For is missing, or names proxies only")]
    Missing,
    /// An entry that a proxy wrote is not an address.
    #[error("X-Forwarded-For holds an entry that is not an address")]
    Malformed,
    /// A longer chain than is configured.
    #[error("X-Forwarded-For names more proxies than there may be")]
    TooManyHops,
}

/// The right-most address that is not a proxy's, canonical. `lines` are the header's lines in their order,
/// of a request whose peer is a proxy; at most `hops` proxies may be in the chain, that one included.
pub fn forwarded_client(lines: &[&str], proxies: &NetworkSet, hops: u8) -> Result<IpAddr, ForwardedError> {
    let mut passed = 1;
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let address = address(entry.trim_matches([' ', '\t'])).ok_or(ForwardedError::Malformed)?;
        if !proxies.contains(address) {
            return Ok(address.to_canonical());
        }
        passed += 1;
        if passed > hops {
            return Err(ForwardedError::TooManyHops);
        }
    }
    Err(ForwardedError::Missing)
}

/// An address, with a port or in brackets as some proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    text.parse().ok().or_else(bracketed).or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_most_address_that_is_no_proxy_is_the_client() {
        use ForwardedError::{Malformed, Missing, TooManyHops};
        let networks = ["10.0.0.0/8", "2001:db8:1::/48"].map(|text| text.parse().unwrap());
        let proxies = NetworkSet::new(&networks).unwrap();
        let ip = |text: &str| Ok(text.parse().unwrap());
        for (lines, hops, expected) in [
            (&["192.0.2.7"][..], 1, ip("192.0.2.7")),
            (&["198.51.100.1, 192.0.2.7"], 1, ip("192.0.2.7")),
            (&["forged, \"\", 192.0.2.7"], 1, ip("192.0.2.7")),
            (&["198.51.100.1", "192.0.2.7"], 1, ip("192.0.2.7")),
            (&["192.0.2.7\t,10.0.0.2"], 2, ip("192.0.2.7")),
            (&["192.0.2.7, 10.0.0.2"], 1, Err(TooManyHops)),
            (&["192.0.2.7, 2001:db8:1::2, 10.0.0.2"], 3, ip("192.0.2.7")),
            (&["192.0.2.7, 10.0.0.3, 10.0.0.2"], 2, Err(TooManyHops)),
            (&["192.0.2.7:40000"], 1, ip("192.0.2.7")),
            (&["2001:db8::7"], 1, ip("2001:db8::7")),
            (&["[2001:db8::7]"], 1, ip("2001:db8::7")),
            (&["[2001:db8::7]:443"], 1, ip("2001:db8::7")),
            (&["::ffff:192.0.2.7"], 1, ip("192.0.2.7")),
            (&["192.0.2.7, ::ffff:10.0.0.2"], 2, ip("192.0.2.7")),
            (&[], 1, Err(Missing)),
            (&["10.0.0.2"], 2, Err(Missing)),
            (&[""], 1, Err(Malformed)),
            (&["192.0.2.7,"], 1, Err(Malformed)),
            (&["192.0.2.7, unknown"], 1, Err(Malformed)),
            (&["192.0.2.7, [10.0.0.2]"], 2, Err(Malformed)),
            (&["192.0.2.7, 10.0.0.2:"], 2, Err(Malformed)),
            (&["192.0.2.7 10.0.0.2"], 2, Err(Malformed)),
        ] {
            assert_eq!(forwarded_client(lines, &proxies, hops), expected, "{lines:?}");
        }
    }
}
