//! Where a node may connect: grants, by what they are for, become rules by protocol, port and network.
//!
//! The rules know no names. What names may lead to is narrower, and is [`DestinationPolicy`]'s to say: whatever it allows for
//! a destination, the rules made of its grant allow, so that a kernel that holds [`ReachRules::entries`] never stops
//! what a node may do.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::destination::{DestinationPolicy, DestinationRefused};
use super::grant::{Grant, Protocol, Purpose};
use super::prefixes::{Prefixes, Verdict};

/// Most entries of all ports together.
pub const ENTRIES_MAX: usize = 65_536;

/// Why grants make no rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReachError {
    /// More entries than a kernel is given.
    #[error(
        "over {ENTRIES_MAX} entries; {protocol} port {port} ({purpose}) alone takes {entries}: merge networks, or use fewer ports"
    )]
    TooMany {
        /// Over what.
        protocol: Protocol,
        /// The port with most entries.
        port: u16,
        /// What it was first granted for.
        purpose: Purpose,
        /// How many.
        entries: usize,
    },
}

/// One verdict for the kernel; of all entries of a protocol and a port the one with the longest prefix decides, and without
/// one nothing is reached. An IPv6 address in IPv4-mapped form is refused before these are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReachEntry {
    /// As IP headers have it: 6 or 17.
    pub protocol: u8,
    /// 1 to 65535.
    pub port: u16,
    /// First address of the network, in network byte order; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Prefix length, 0 to 128.
    pub bits: u8,
    /// Whether it may be reached.
    pub verdict: Verdict,
}

/// What may be reached; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReachRules {
    ports: BTreeMap<(Protocol, u16), Prefixes>,
}

impl ReachRules {
    /// The union of `grants`.
    pub fn new(grants: &[Grant]) -> Result<Self, ReachError> {
        let mut by_port: BTreeMap<(Protocol, u16), Vec<&Grant>> = BTreeMap::new();
        for grant in grants {
            let same = by_port.entry((grant.protocol, grant.port)).or_default();
            if !same.iter().any(|other| Arc::ptr_eq(&other.networks, &grant.networks)) {
                same.push(grant);
            }
        }
        let (mut rules, mut total) = (Self::default(), 0);
        for (key, grants) in &by_port {
            let networks = grants.iter().flat_map(|grant| grant.networks.iter().copied());
            let prefixes = Prefixes::granting(networks);
            total += prefixes.len();
            rules.ports.insert(*key, prefixes);
            if total > ENTRIES_MAX {
                return Err(rules.too_many(&by_port));
            }
        }
        Ok(rules)
    }

    /// Whether `address` may be reached at `port`.
    pub fn check(&self, protocol: Protocol, address: IpAddr, port: u16) -> Result<(), DestinationRefused> {
        if address != address.to_canonical() {
            return Err(DestinationRefused::OtherForm);
        }
        let prefixes = self.ports.get(&(protocol, port)).ok_or(DestinationRefused::NotListed)?;
        prefixes.check(address)
    }

    /// Whether `host` may be dialled at this address: what it may lead to, and what may be reached at all.
    pub fn check_dial(
        &self,
        policy: &DestinationPolicy,
        host: &str,
        address: SocketAddr,
    ) -> Result<(), DestinationRefused> {
        policy.check(host, address.ip())?;
        self.check(Protocol::Tcp, address.ip(), address.port())
    }

    /// The first address that may be dialled for `host`; why the last may not, if none may; nothing, if there is none.
    pub fn first_of(
        &self,
        policy: &DestinationPolicy,
        host: &str,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Option<SocketAddr>, DestinationRefused> {
        let mut found = Ok(None);
        for address in addresses {
            match self.check_dial(policy, host, address) {
                Ok(()) => return Ok(Some(address)),
                Err(refused) => found = Err(refused),
            }
        }
        found
    }

    /// Memory held, bytes.
    pub fn memory_bytes(&self) -> usize {
        self.ports.values().map(Prefixes::memory_bytes).sum()
    }

    /// The same for the kernel: see [`ReachEntry`].
    pub fn entries(&self) -> impl Iterator<Item = ReachEntry> {
        self.ports.iter().flat_map(|(&(protocol, port), prefixes)| {
            prefixes.iter().map(move |((first, bits), verdict)| ReachEntry {
                protocol: protocol as u8,
                port,
                address: first.to_be_bytes(),
                bits,
                verdict,
            })
        })
    }

    fn too_many(&self, grants: &BTreeMap<(Protocol, u16), Vec<&Grant>>) -> ReachError {
        let most = self.ports.iter().max_by_key(|(_, prefixes)| prefixes.len());
        let (&(protocol, port), prefixes) = most.expect("no ports are not too many");
        let purpose = grants[&(protocol, port)][0].purpose;
        ReachError::TooMany { protocol, port, purpose, entries: prefixes.len() }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;
    use alloc::vec;
    use core::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::super::destination::special;
    use super::super::network::Network;
    use super::*;
    use DestinationRefused as R;

    const TCP: Protocol = Protocol::Tcp;
    const UDP: Protocol = Protocol::Udp;

    fn parse(networks: &[&str]) -> Vec<Network> {
        networks.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn grant(protocol: Protocol, port: u16, networks: &[Network]) -> Grant {
        Grant { purpose: Purpose::Target, protocol, port, networks: networks.into() }
    }

    #[test]
    fn only_what_was_granted_is_reached_at_its_port_and_over_its_protocol() {
        let listed = DestinationPolicy::new(&parse(&["10.1.0.0/16", "127.0.0.8", "224.0.0.0/4"])).unwrap();
        let peers = DestinationPolicy::unlisted(Purpose::LinkPeer);
        let mut grants = vec![
            listed.grant(Purpose::Target, "billing.example", 8443),
            listed.grant(Purpose::TokenServer, "localhost", 443),
            peers.grant(Purpose::LinkPeer, "169.254.7.7", 7000),
            peers.grant(Purpose::LinkPeer, "edge.example", 7001),
            DestinationPolicy::unlisted(Purpose::Telemetry).grant(Purpose::Telemetry, "localhost", 4318),
        ];
        grants.extend(Grant::name_server("127.0.0.53".parse().unwrap()));
        let rules = ReachRules::new(&grants).unwrap();
        for (protocol, address, port, expected) in [
            (TCP, "10.1.2.3", 8443, Ok(())),
            (TCP, "10.1.2.3", 8444, Err(R::NotListed)),
            (UDP, "10.1.2.3", 8443, Err(R::NotListed)),
            (TCP, "::ffff:10.1.2.3", 8443, Err(R::OtherForm)),
            (TCP, "10.2.0.0", 8443, Err(R::NotListed)),
            (TCP, "127.0.0.8", 443, Ok(())),
            (TCP, "127.0.0.1", 443, Err(R::Loopback)),
            (TCP, "224.0.0.1", 443, Err(R::NoHost)),
            (TCP, "169.254.7.7", 7000, Ok(())),
            (TCP, "169.254.169.254", 7000, Err(R::LinkLocal)),
            (TCP, "192.0.2.1", 7000, Err(R::NotListed)),
            (TCP, "192.0.2.1", 7001, Ok(())),
            (TCP, "2001:db8::1", 7001, Ok(())),
            (TCP, "127.0.0.1", 7001, Err(R::Loopback)),
            (TCP, "64:ff9b::a9fe:a9fe", 7001, Err(R::OtherForm)),
            (TCP, "2002:a9fe:a9fe::1", 7001, Err(R::OtherForm)),
            (TCP, "100.100.100.200", 4318, Err(R::Metadata)),
            (TCP, "127.0.0.1", 4318, Ok(())),
            (TCP, "::1", 4318, Ok(())),
            (UDP, "127.0.0.53", 53, Ok(())),
            (TCP, "127.0.0.53", 53, Ok(())),
            (UDP, "127.0.0.1", 53, Err(R::Loopback)),
            (UDP, "192.0.2.1", 53, Err(R::NotListed)),
        ] {
            let found = rules.check(protocol, address.parse().unwrap(), port);
            assert_eq!(found, expected, "{protocol} {address} {port}");
        }
        assert_eq!(ReachRules::default().check(TCP, "10.1.2.3".parse().unwrap(), 443), Err(R::NotListed));
    }

    #[test]
    fn who_writes_an_address_down_means_it_where_that_is_safe() {
        use Purpose as P;
        for (purpose, literal, is_open) in [
            (P::Target, "127.0.0.1", true),
            (P::Target, "192.0.2.1", true),
            (P::Target, "169.254.169.254", false),
            (P::TokenServer, "fd00:ec2::254", false),
            (P::Telemetry, "::1", true),
            (P::Telemetry, "169.254.169.254", false),
            (P::LinkPeer, "127.0.0.1", true),
            (P::LinkPeer, "169.254.7.7", true),
            (P::LinkPeer, "64:ff9b::a01:1", true),
            (P::LinkPeer, "0.0.0.0", false),
            (P::LinkPeer, "::ffff:10.0.0.1", false),
        ] {
            let policy = DestinationPolicy::unlisted(purpose);
            let address: IpAddr = literal.parse().unwrap();
            let rules = ReachRules::new(&[policy.grant(purpose, literal, 443)]).unwrap();
            let found = rules.check_dial(&policy, literal, SocketAddr::new(address, 443));
            assert_eq!(found.is_ok(), is_open, "{purpose} {literal}: {found:?}");
            assert_eq!(rules.check(TCP, address, 443).is_ok(), is_open, "{purpose} {literal}");
            let other = "192.0.2.99".parse().unwrap();
            assert_eq!(rules.check(TCP, other, 443), Err(DestinationRefused::NotListed));
        }
    }

    #[test]
    fn rules_of_one_port_do_not_widen_what_a_name_may_lead_to() {
        let policy = DestinationPolicy::new(&[]).unwrap();
        let grants = ["localhost", "billing.example"].map(|host| policy.grant(Purpose::Target, host, 443));
        let rules = ReachRules::new(&grants).unwrap();
        let here: SocketAddr = "127.0.0.1:443".parse().unwrap();
        assert_eq!(rules.check(TCP, here.ip(), here.port()), Ok(()));
        assert_eq!(rules.check_dial(&policy, "localhost", here), Ok(()));
        let refused = rules.check_dial(&policy, "billing.example", here);
        assert_eq!(refused, Err(DestinationRefused::Loopback));
        let elsewhere = rules.check_dial(&policy, "localhost", "127.0.0.1:80".parse().unwrap());
        assert_eq!(elsewhere, Err(DestinationRefused::NotListed));
    }

    #[test]
    fn too_many_entries_are_refused_with_the_port_that_has_most() {
        let networks: Arc<[Network]> = (0..4096)
            .map(|number: u32| Network::single(Ipv4Addr::from_bits(0x0a00_0000 + 2 * number).into()))
            .collect();
        let of = |port| Grant { networks: Arc::clone(&networks), ..grant(TCP, port, &[]) };
        let mut grants: Vec<Grant> = (1..=15).map(of).collect();
        // A list is held once for a port, whoever shares it.
        grants.extend((1..=15).map(of));
        assert!(ReachRules::new(&grants).unwrap().entries().count() <= ENTRIES_MAX);
        grants.push(of(16));
        let error = ReachRules::new(&grants).unwrap_err();
        let shown = format!("{error}");
        assert!(shown.starts_with("over 65536 entries; TCP port "), "{shown}");
        assert!(shown.ends_with("(target) alone takes 4115: merge networks, or use fewer ports"), "{shown}");
    }

    /// The rules as they are said: special ranges first, and a network counts within one only if it lies within it.
    fn expected(grants: &[Grant], protocol: Protocol, address: IpAddr, port: u16) -> Verdict {
        if address != address.to_canonical() {
            return Err(DestinationRefused::OtherForm);
        }
        let grants: Vec<_> =
            grants.iter().filter(|grant| (grant.protocol, grant.port) == (protocol, port)).collect();
        if grants.is_empty() {
            return Err(DestinationRefused::NotListed);
        }
        let has = |network: &Network| network.has(Network::single(address));
        let mut networks =
            grants.iter().flat_map(|grant| grant.networks.iter()).filter(|network| has(network));
        match special().find(|(range, _)| has(range)) {
            Some((_, DestinationRefused::NoHost)) => Err(DestinationRefused::NoHost),
            Some((range, refused)) => {
                networks.any(|network| range.has(*network)).then_some(()).ok_or(refused)
            }
            None => networks.next().map(|_| ()).ok_or(DestinationRefused::NotListed),
        }
    }

    /// What a kernel's trie finds in the entries.
    fn longest(entries: &[ReachEntry], protocol: Protocol, address: IpAddr, port: u16) -> Verdict {
        let bits = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
                return Err(DestinationRefused::OtherForm);
            }
            IpAddr::V6(address) => address.to_bits(),
        };
        let has = |entry: &&ReachEntry| {
            let differs = bits ^ u128::from_be_bytes(entry.address);
            (entry.protocol, entry.port) == (protocol as u8, port)
                && differs.checked_shr(128 - u32::from(entry.bits)).unwrap_or(0) == 0
        };
        let found = entries.iter().filter(has).max_by_key(|entry| entry.bits);
        found.map_or(Err(DestinationRefused::NotListed), |entry| entry.verdict)
    }

    /// Addresses of both families, most of them near special ranges, or in another form.
    fn address() -> impl Strategy<Value = IpAddr> {
        let near = (0..special().count(), any::<u128>(), 0_u8..=128).prop_map(|(at, random, keep)| {
            let (first, bits) = special().nth(at).unwrap().0.prefix();
            let host = u128::MAX.checked_shr(bits.max(keep).into()).unwrap_or(0);
            Ipv6Addr::from_bits(first ^ (random & host))
        });
        let edge = (0..special().count(), -1_i8..=1, any::<bool>()).prop_map(|(at, step, at_end)| {
            let (first, bits) = special().nth(at).unwrap().0.prefix();
            let host = if at_end { u128::MAX.checked_shr(bits.into()).unwrap_or(0) } else { 0 };
            Ipv6Addr::from_bits((first | host).wrapping_add_signed(step.into()))
        });
        prop_oneof![
            near.prop_map(|address| IpAddr::from(address).to_canonical()),
            edge.prop_map(|address| IpAddr::from(address).to_canonical()),
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped().into()),
            any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
        ]
    }

    fn network() -> impl Strategy<Value = Network> {
        (address(), 0_u8..=128).prop_map(|(address, bits)| {
            let width = if address.is_ipv4() { 32 } else { 128 };
            Network::of(address, bits.min(width)).canonical()
        })
    }

    fn grants() -> impl Strategy<Value = Vec<Grant>> {
        let protocol = prop_oneof![Just(TCP), Just(UDP)];
        let one = (protocol, 1_u16..3, prop::collection::vec(network(), 0..6));
        let one = one.prop_map(|(protocol, port, networks)| grant(protocol, port, &networks));
        prop::collection::vec(one, 0..6)
    }

    fn host() -> impl Strategy<Value = (String, Option<IpAddr>)> {
        prop_oneof![
            Just((String::from("billing.example"), None)),
            Just((String::from("LocalHost"), None)),
            address().prop_map(|address| (format!("{address}"), Some(address))),
        ]
    }

    proptest! {
        #[test]
        fn the_longest_prefix_decides_as_the_rules_say(
            grants in grants(), random in prop::collection::vec(address(), 1..20),
        ) {
            let rules = ReachRules::new(&grants).unwrap();
            let entries: Vec<_> = rules.entries().collect();
            // What was granted, and what is beside it.
            let edges = grants.iter().flat_map(|grant| grant.networks.iter()).flat_map(|network| {
                let (first, bits) = network.prefix();
                let last = first | u128::MAX.checked_shr(bits.into()).unwrap_or(0);
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
            });
            let edges = edges.map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits)));
            let addresses: Vec<_> = edges.flat_map(|edge| [edge, edge.to_canonical()]).chain(random).collect();
            for (protocol, port) in [(TCP, 1), (TCP, 2), (UDP, 1), (UDP, 2)] {
                for &address in &addresses {
                    let found = rules.check(protocol, address, port);
                    prop_assert_eq!(found, expected(&grants, protocol, address, port), "{}", address);
                    prop_assert_eq!(found, longest(&entries, protocol, address, port), "{}", address);
                }
            }
        }

        #[test]
        fn entries_are_networks_of_their_own(grants in grants()) {
            let entries: Vec<_> = ReachRules::new(&grants).unwrap().entries().collect();
            for (at, entry) in entries.iter().enumerate() {
                let host = u128::MAX.checked_shr(entry.bits.into()).unwrap_or(0);
                prop_assert_eq!(u128::from_be_bytes(entry.address) & host, 0);
                let key = |entry: &ReachEntry| (entry.protocol, entry.port, entry.address, entry.bits);
                prop_assert!(entries[at + 1..].iter().all(|other| key(other) != key(entry)));
            }
        }

        /// A kernel with the rules may be weaker than the check of names, never stronger.
        #[test]
        fn what_a_name_may_lead_to_is_in_the_rules(
            networks in prop::collection::vec(network(), 0..4),
            (host, literal) in host(),
            others in grants(),
            random in address(),
        ) {
            let lists = [&networks[..], &[]].map(|networks| DestinationPolicy::new(networks).unwrap());
            let unlisted = [Purpose::LinkPeer, Purpose::Telemetry].map(DestinationPolicy::unlisted);
            for policy in lists.iter().chain(&unlisted) {
                let mut grants = others.clone();
                grants.push(policy.grant(Purpose::Target, &host, 1));
                let rules = ReachRules::new(&grants).unwrap();
                for address in [Some(random), literal].into_iter().flatten() {
                    if policy.check(&host, address).is_ok() {
                        prop_assert_eq!(rules.check(TCP, address, 1), Ok(()), "{}", address);
                    }
                }
            }
        }
    }
}
