//! Where a host of the configuration may lead: one rule for every address that its name resolved to.
//!
//! An address of a special range is refused unless a granted network lies within that range, so that a list that is wide
//! (`0.0.0.0/0`) opens none of them by accident. Forms that hold an IPv4 address within an IPv6 one are ranges like
//! others: what they stand for is not looked at, they are refused as a form.
//!
//! Sources: RFC 6890 and the IANA special-purpose registries; RFC 4291 section 2.5.5; RFC 6052 and 8215 (NAT64); RFC 3056
//! (6to4); RFC 4380 (Teredo); RFC 9602 (`SRv6`); the metadata addresses of cloud providers, which are their own.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::str::FromStr as _;

use super::grant::{Grant, Protocol, Purpose};
use super::network::{NETWORKS_MAX, Network, NetworkError};
use super::prefixes::Prefixes;

/// Why an address is no destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationRefused {
    /// "This host", multicast, broadcast and what is reserved: no list opens them.
    #[error("no host has this address")]
    NoHost,
    /// This machine itself.
    #[error("it is a loopback address")]
    Loopback,
    /// The link, where metadata services live.
    #[error("it is a link-local address")]
    LinkLocal,
    /// A metadata service elsewhere.
    #[error("it is the address of a metadata service")]
    Metadata,
    /// An IPv6 address that stands for an IPv4 address, or for a path.
    #[error("it is an IPv6 form of another address")]
    OtherForm,
    /// Outside the listed networks.
    #[error("it is not in a listed network")]
    NotListed,
}

impl DestinationRefused {
    /// Name in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoHost => "no_host",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link_local",
            Self::Metadata => "metadata",
            Self::OtherForm => "other_form",
            Self::NotListed => "not_listed",
        }
    }
}

/// Ranges and what they are; the longest that has an address decides.
const SPECIAL: [(&str, DestinationRefused); 19] = [
    ("0.0.0.0/8", DestinationRefused::NoHost),
    ("127.0.0.0/8", DestinationRefused::Loopback),
    ("169.254.0.0/16", DestinationRefused::LinkLocal),
    ("100.100.100.200/32", DestinationRefused::Metadata),
    ("192.0.0.192/32", DestinationRefused::Metadata),
    ("224.0.0.0/3", DestinationRefused::NoHost),
    ("::/128", DestinationRefused::NoHost),
    ("::1/128", DestinationRefused::Loopback),
    ("::/96", DestinationRefused::OtherForm),
    ("::ffff:0:0:0/96", DestinationRefused::OtherForm),
    ("64:ff9b::/96", DestinationRefused::OtherForm),
    ("64:ff9b:1::/48", DestinationRefused::OtherForm),
    ("2001::/32", DestinationRefused::OtherForm),
    ("2002::/16", DestinationRefused::OtherForm),
    ("5f00::/16", DestinationRefused::OtherForm),
    ("fd00:ec2::254/128", DestinationRefused::Metadata),
    ("fe80::/10", DestinationRefused::LinkLocal),
    ("fec0::/10", DestinationRefused::LinkLocal),
    ("ff00::/8", DestinationRefused::NoHost),
];

/// The special ranges.
pub(super) fn special() -> impl Iterator<Item = (Network, DestinationRefused)> {
    let parse = |text| Network::from_str(text).expect("the table has networks");
    SPECIAL.into_iter().map(move |(range, refused)| (parse(range), refused))
}

/// What addresses a host may be connected to at, by what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationPolicy {
    purpose: Purpose,
    listed: Option<(Arc<[Network]>, Prefixes)>,
}

impl DestinationPolicy {
    /// For targets and token servers: only `networks`, or everything but special ranges if there are none.
    pub fn new(networks: &[Network]) -> Result<Self, NetworkError> {
        if networks.len() > NETWORKS_MAX {
            return Err(NetworkError::TooMany);
        }
        let table = || (Arc::from(networks), Prefixes::granting(networks.iter().copied()));
        Ok(Self { purpose: Purpose::Target, listed: (!networks.is_empty()).then(table) })
    }

    /// Without a list.
    pub const fn unlisted(purpose: Purpose) -> Self {
        Self { purpose, listed: None }
    }

    /// Whether `address` may be connected to for `host`, a name or the address itself as it was configured.
    pub fn check(&self, host: &str, address: IpAddr) -> Result<(), DestinationRefused> {
        if address != address.to_canonical() {
            return Err(DestinationRefused::OtherForm);
        }
        match &self.listed {
            Some((_, table)) => table.check(address),
            None => Prefixes::granting(self.unlisted_networks(host)).check(address),
        }
    }

    /// What this comes to for `host` without its name: the networks that it may be in, at a TCP port.
    pub fn grant(&self, purpose: Purpose, host: &str, port: u16) -> Grant {
        let networks = match &self.listed {
            Some((networks, _)) => Arc::clone(networks),
            None => self.unlisted_networks(host).into(),
        };
        Grant { purpose, protocol: Protocol::Tcp, port, networks }
    }

    /// Without a list, who writes `localhost` or an address down means it (RFC 6761 section 6.3).
    fn unlisted_networks(&self, host: &str) -> Vec<Network> {
        if let Ok(literal) = IpAddr::from_str(host) {
            let found = special().find(|(range, _)| range.has(Network::single(literal)));
            let means_it = found.is_none_or(|(_, refused)| self.purpose.opens_literal(refused));
            return means_it.then(|| Network::single(literal)).into_iter().collect();
        }
        let mut networks = Vec::from(Network::all());
        if host.eq_ignore_ascii_case("localhost") {
            let loopback = special().filter(|(_, refused)| *refused == DestinationRefused::Loopback);
            networks.extend(loopback.map(|(range, _)| range));
        }
        networks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(networks: &[&str]) -> DestinationPolicy {
        let networks: Vec<Network> = networks.iter().map(|text| text.parse().unwrap()).collect();
        DestinationPolicy::new(&networks).unwrap()
    }

    fn check(policy: &DestinationPolicy, address: &str) -> Result<(), DestinationRefused> {
        policy.check("billing.example", address.parse().unwrap())
    }

    #[test]
    fn special_addresses_are_refused_in_every_form() {
        use DestinationRefused as R;
        let wide = policy(&["0.0.0.0/0", "::/0"]);
        for (address, refused) in [
            ("0.0.0.0", R::NoHost),
            ("0.1.2.3", R::NoHost),
            ("127.0.0.1", R::Loopback),
            ("127.255.255.254", R::Loopback),
            ("169.254.169.254", R::LinkLocal),
            ("100.100.100.200", R::Metadata),
            ("224.0.0.1", R::NoHost),
            ("255.255.255.255", R::NoHost),
            ("::", R::NoHost),
            ("::1", R::Loopback),
            ("::127.0.0.1", R::OtherForm),
            ("::ffff:127.0.0.1", R::OtherForm),
            ("::ffff:10.0.0.1", R::OtherForm),
            ("::ffff:0:169.254.169.254", R::OtherForm),
            ("64:ff9b::a9fe:a9fe", R::OtherForm),
            ("64:ff9b:1::a9fe:a9fe", R::OtherForm),
            ("2002:a9fe:a9fe::1", R::OtherForm),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", R::OtherForm),
            ("5f00::1", R::OtherForm),
            ("fd00:ec2::254", R::Metadata),
            ("fe80::1", R::LinkLocal),
            ("ff02::1", R::NoHost),
        ] {
            for policy in [&policy(&[]), &wide] {
                assert_eq!(check(policy, address), Err(refused), "{address}");
            }
        }
        for address in
            ["10.0.0.1", "192.168.1.1", "100.64.0.1", "192.0.2.1", "fd00::1", "2001:db8::1", "2606::1"]
        {
            assert_eq!(check(&policy(&[]), address), Ok(()), "{address}");
            assert_eq!(check(&wide, address), Ok(()), "{address}");
        }
    }

    #[test]
    fn a_list_is_all_there_is_and_opens_what_lies_within_a_range() {
        let listed = policy(&["10.1.0.0/16", "64:ff9b::/96", "127.0.0.8/32", "224.0.0.0/4"]);
        for (address, expected) in [
            ("10.1.255.255", Ok(())),
            ("10.2.0.0", Err(DestinationRefused::NotListed)),
            ("2606::1", Err(DestinationRefused::NotListed)),
            ("64:ff9b::a01:1", Ok(())),
            ("127.0.0.8", Ok(())),
            ("127.0.0.9", Err(DestinationRefused::Loopback)),
            ("224.0.0.1", Err(DestinationRefused::NoHost)),
        ] {
            assert_eq!(check(&listed, address), expected, "{address}");
        }
    }

    #[test]
    fn who_names_this_machine_means_it() {
        let policy = policy(&[]);
        let check = |host: &str, address: &str| policy.check(host, address.parse().unwrap());
        assert_eq!(check("LocalHost", "127.0.0.1"), Ok(()));
        assert_eq!(check("localhost", "::1"), Ok(()));
        assert_eq!(check("127.0.0.1", "127.0.0.1"), Ok(()));
        assert_eq!(check("127.0.0.1", "127.0.0.2"), Err(DestinationRefused::Loopback));
        assert_eq!(check("localhost", "169.254.169.254"), Err(DestinationRefused::LinkLocal));
        assert_eq!(check("169.254.169.254", "169.254.169.254"), Err(DestinationRefused::LinkLocal));
        assert_eq!(check("localhost.example", "127.0.0.1"), Err(DestinationRefused::Loopback));
        let listed = super::tests::policy(&["10.0.0.0/8"]);
        let here = "127.0.0.1".parse().unwrap();
        assert_eq!(
            listed.check("localhost", here),
            Err(DestinationRefused::Loopback),
            "a list is all there is"
        );
    }

    proptest! {
        #[test]
        fn what_a_list_does_not_hold_is_never_reached(bits in any::<u32>(), network in any::<u32>(), width in 1u8..=32) {
            let host = u32::MAX.checked_shr(width.into()).unwrap_or(0);
            let first = core::net::Ipv4Addr::from_bits(network & !host);
            let policy = policy(&[&alloc::format!("{first}/{width}")]);
            let address = core::net::Ipv4Addr::from_bits(bits);
            if bits & !host != network & !host {
                prop_assert!(policy.check("a.example", address.into()).is_err());
            }
        }
    }
}
