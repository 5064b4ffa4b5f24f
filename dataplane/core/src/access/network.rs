//! CIDR networks (RFC 4632, RFC 4291 section 2.3): lists in, sorted ranges inside, a verdict per address.
//!
//! A lookup is a binary search in disjoint ranges. Host bits that are set are refused, since they are a
//! typing error; so is an address that is both allowed and denied, since one of the two is.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

/// Most networks of one list.
pub const NETWORKS_MAX: usize = 4096;

/// Bits of `::ffff:0:0/96` before the IPv4 address.
const MAPPED_BITS: u8 = 96;

/// Addresses with a common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

/// Why a text is no network, or a list no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not an address.
    #[error("not an IP address with a prefix length, such as 192.0.2.0/24 or 2001:db8::/32")]
    Address,
    /// Not a number of bits that the address has.
    #[error("the prefix length is not 0 to 32 for IPv4, 0 to 128 for IPv6")]
    PrefixLength,
    /// Bits behind the prefix.
    #[error("bits behind the prefix are set; the network is {0}")]
    HostBits(Network),
    /// More than a list may hold.
    #[error("over {NETWORKS_MAX} networks")]
    TooMany,
}

impl From<AddrParseError> for NetworkError {
    fn from(_: AddrParseError) -> Self {
        Self::Address
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// `address/bits`; an address alone is a network of one.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let digits = |bits: &str| !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = match bits {
            None => width,
            Some(bits) if digits(bits) => bits.parse().map_err(|_| NetworkError::PrefixLength)?,
            Some(_) => return Err(NetworkError::PrefixLength),
        };
        if bits > width {
            return Err(NetworkError::PrefixLength);
        }
        let network = Self::of(address, bits);
        if network.first != address {
            return Err(NetworkError::HostBits(network));
        }
        Ok(network.canonical())
    }
}

impl Network {
    /// Every address of both families.
    pub(super) fn all() -> [Self; 2] {
        [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].map(|first| Self::of(first, 0))
    }

    /// `address` alone, in its canonical form.
    pub(super) fn single(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self::of(address, if address.is_ipv4() { 32 } else { 128 })
    }

    /// The network of `address` that has this prefix length.
    pub(super) fn of(address: IpAddr, bits: u8) -> Self {
        let first = match address {
            IpAddr::V4(address) => {
                let host = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
                Ipv4Addr::from_bits(address.to_bits() & !host).into()
            }
            IpAddr::V6(address) => {
                let host = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & !host).into()
            }
        };
        Self { first, bits }
    }

    /// Whether all of `other` is in it.
    pub(super) fn has(self, other: Self) -> bool {
        other.bits >= self.bits
            && other.first.is_ipv4() == self.first.is_ipv4()
            && Self::of(other.first, self.bits).first == self.first
    }

    /// Its first address and prefix length among IPv6 addresses, where IPv4 has the mapped form.
    pub fn prefix(self) -> (u128, u8) {
        match self.first {
            IpAddr::V4(first) => (first.to_ipv6_mapped().to_bits(), MAPPED_BITS + self.bits),
            IpAddr::V6(first) => (first.to_bits(), self.bits),
        }
    }

    /// A network of IPv4-mapped addresses is one of IPv4 addresses.
    pub(super) fn canonical(self) -> Self {
        match self.first.to_canonical() {
            first @ IpAddr::V4(_) if self.first.is_ipv6() && self.bits >= MAPPED_BITS => {
                Self { first, bits: self.bits - MAPPED_BITS }
            }
            _ => self,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

/// Any number of networks up to [`NETWORKS_MAX`], as sorted, disjoint ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl NetworkSet {
    /// The union of `networks`.
    pub fn new(networks: &[Network]) -> Result<Self, NetworkError> {
        if networks.len() > NETWORKS_MAX {
            return Err(NetworkError::TooMany);
        }
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network.first {
                IpAddr::V4(first) => {
                    let host = u32::MAX.checked_shr(network.bits.into()).unwrap_or(0);
                    v4.push((first.to_bits(), first.to_bits() | host));
                }
                IpAddr::V6(first) => {
                    let host = u128::MAX.checked_shr(network.bits.into()).unwrap_or(0);
                    v6.push((first.to_bits(), first.to_bits() | host));
                }
            }
        }
        Ok(Self { v4: merged(v4), v6: merged(v6) })
    }

    /// Whether the canonical form of `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => is_in(&self.v4, address.to_bits()),
            IpAddr::V6(address) => is_in(&self.v6, address.to_bits()),
        }
    }

    /// The first address that is in both, if there is one.
    pub fn common(&self, other: &Self) -> Option<IpAddr> {
        let v4 = first_common(&self.v4, &other.v4).map(|bits| Ipv4Addr::from_bits(bits).into());
        v4.or_else(|| first_common(&self.v6, &other.v6).map(|bits| Ipv6Addr::from_bits(bits).into()))
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Memory held, bytes.
    pub fn memory_bytes(&self) -> usize {
        self.v4.capacity() * size_of::<(u32, u32)>() + self.v6.capacity() * size_of::<(u128, u128)>()
    }
}

/// Whether a list's verdict counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is only counted.
    Observe,
    /// It refuses.
    Enforce,
}

/// A list that rules of several endpoints may share.
#[derive(Clone, Debug)]
pub struct NetworkList {
    /// Its networks.
    pub set: Arc<NetworkSet>,
    /// Whether it refuses.
    pub mode: Mode,
}

/// Which addresses an endpoint refuses: those outside of every `allow` list, if there is one, and those in a
/// `deny` list.
#[derive(Clone, Debug, Default)]
pub struct NetworkRules {
    /// Where requests may come from; empty allows every address.
    pub allow: Vec<NetworkList>,
    /// Where they may not.
    pub deny: Vec<NetworkList>,
}

/// What rules say about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkVerdict {
    /// No rule is against it.
    Passed,
    /// A rule is, which is only counted.
    Observed,
    /// A rule is.
    Refused,
}

impl NetworkRules {
    /// The strictest verdict of all rules.
    pub fn check(&self, address: IpAddr) -> NetworkVerdict {
        let outside = !self.allow.iter().any(|list| list.set.contains(address));
        let missed = self.allow.iter().filter(|_| outside);
        let hit = self.deny.iter().filter(|list| list.set.contains(address));
        missed.chain(hit).fold(NetworkVerdict::Passed, |worst, list| match (list.mode, worst) {
            (Mode::Enforce, _) | (_, NetworkVerdict::Refused) => NetworkVerdict::Refused,
            (Mode::Observe, _) => NetworkVerdict::Observed,
        })
    }

    /// An address that is both allowed and denied.
    pub fn contradiction(&self) -> Option<IpAddr> {
        let mut pairs = self.allow.iter().flat_map(|allow| self.deny.iter().map(move |deny| (allow, deny)));
        pairs.find_map(|(allow, deny)| allow.set.common(&deny.set))
    }
}

/// Sorted, and without overlaps.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut disjoint: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match disjoint.last_mut() {
            Some(previous) if first <= previous.1 => previous.1 = previous.1.max(last),
            _ => disjoint.push((first, last)),
        }
    }
    disjoint
}

fn is_in<T: Ord + Copy>(ranges: &[(T, T)], value: T) -> bool {
    let behind = ranges.partition_point(|range| range.0 <= value);
    behind.checked_sub(1).is_some_and(|at| value <= ranges[at].1)
}

fn first_common<T: Ord + Copy>(mut one: &[(T, T)], mut other: &[(T, T)]) -> Option<T> {
    while let (Some(a), Some(b)) = (one.first(), other.first()) {
        let first = a.0.max(b.0);
        if first <= a.1.min(b.1) {
            return Some(first);
        }
        if a.1 < b.1 { one = &one[1..] } else { other = &other[1..] }
    }
    None
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn set(networks: &[&str]) -> NetworkSet {
        let networks: Vec<Network> = networks.iter().map(|text| text.parse().unwrap()).collect();
        NetworkSet::new(&networks).unwrap()
    }

    fn list(mode: Mode, networks: &[&str]) -> NetworkList {
        NetworkList { set: Arc::new(set(networks)), mode }
    }

    #[test]
    fn networks_are_read_in_their_exact_form() {
        for (text, shown) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), shown);
        }
        for (text, error) in [
            ("", NetworkError::Address),
            ("localhost", NetworkError::Address),
            ("192.0.2/24", NetworkError::Address),
            ("192.0.2.0 /24", NetworkError::Address),
            ("010.0.0.0/8", NetworkError::Address),
            ("fe80::1%eth0", NetworkError::Address),
            ("192.0.2.0/", NetworkError::PrefixLength),
            ("192.0.2.0/+24", NetworkError::PrefixLength),
            ("192.0.2.0/33", NetworkError::PrefixLength),
            ("2001:db8::/129", NetworkError::PrefixLength),
            ("192.0.2.0/999", NetworkError::PrefixLength),
            ("192.0.2.1/24", NetworkError::HostBits("192.0.2.0/24".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
    }

    #[test]
    fn an_address_is_in_a_set_whatever_its_form() {
        let set = set(&["192.0.2.0/24", "192.0.2.128/25", "10.0.0.0/8", "2001:db8::/32"]);
        for (address, is_in) in [
            ("192.0.2.0", true),
            ("192.0.2.255", true),
            ("192.0.1.255", false),
            ("192.0.3.0", false),
            ("::ffff:192.0.2.7", true),
            ("::192.0.2.7", false),
            ("10.255.255.255", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
            ("::", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), is_in, "{address}");
        }
        assert!(!NetworkSet::default().contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn all_of_one_family_is_nothing_of_the_other() {
        let (v4, v6) = (set(&["0.0.0.0/0"]), set(&["::/0"]));
        for address in ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"] {
            let address = address.parse().unwrap();
            assert!(v4.contains(address) && !v6.contains(address), "{address}");
        }
        let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        assert!(v6.contains(last) && !v4.contains(last));
        assert_eq!(v4.common(&v6), None);
    }

    #[test]
    fn a_rule_refuses_observes_or_is_silent() {
        use Mode::{Enforce, Observe};
        use NetworkVerdict::{Observed, Passed, Refused};
        let here = &["192.0.2.0/24"][..];
        let there = &["198.51.100.0/24"][..];
        for (allow, deny, expected) in [
            (vec![], vec![], Passed),
            (vec![list(Enforce, here)], vec![], Passed),
            (vec![list(Enforce, there)], vec![], Refused),
            (vec![list(Observe, there)], vec![], Observed),
            (vec![list(Enforce, there), list(Observe, here)], vec![], Passed),
            (vec![list(Enforce, there), list(Observe, there)], vec![], Refused),
            (vec![list(Enforce, &[])], vec![], Refused),
            (vec![], vec![list(Enforce, here)], Refused),
            (vec![], vec![list(Observe, here)], Observed),
            (vec![], vec![list(Enforce, there)], Passed),
            (vec![], vec![list(Observe, here), list(Enforce, here)], Refused),
            (vec![], vec![list(Enforce, here), list(Observe, here)], Refused),
        ] {
            let rules = NetworkRules { allow, deny };
            assert_eq!(rules.check("192.0.2.9".parse().unwrap()), expected, "{rules:?}");
        }
    }

    #[test]
    fn what_is_both_allowed_and_denied_is_named() {
        let rules = |allow: &[&str], deny: &[&str]| NetworkRules {
            allow: vec![list(Mode::Enforce, allow)],
            deny: vec![list(Mode::Observe, deny)],
        };
        let found = |allow, deny| rules(allow, deny).contradiction().map(|address| address.to_string());
        assert_eq!(found(&["10.0.0.0/8"], &["10.1.0.0/16"]).unwrap(), "10.1.0.0");
        assert_eq!(found(&["10.1.0.0/16"], &["10.0.0.0/8"]).unwrap(), "10.1.0.0");
        assert_eq!(found(&["::ffff:10.1.0.0/112"], &["10.0.0.0/8"]).unwrap(), "10.1.0.0");
        assert_eq!(found(&["2001:db8::/32"], &["2001:db8:1::/48"]).unwrap(), "2001:db8:1::");
        assert_eq!(found(&["10.0.0.0/8"], &["11.0.0.0/8"]), None);
    }

    #[test]
    fn a_set_is_bounded() {
        let network: Network = "192.0.2.0/24".parse().unwrap();
        assert!(NetworkSet::new(&vec![network; NETWORKS_MAX]).is_ok());
        assert_eq!(NetworkSet::new(&vec![network; NETWORKS_MAX + 1]), Err(NetworkError::TooMany));
    }

    proptest! {
        /// A linear search over the networks as written is the oracle.
        #[test]
        fn a_set_holds_what_its_networks_hold(
            networks in prop::collection::vec((any::<u8>(), 0_u8..9), 0..20),
            addresses in prop::collection::vec(any::<u8>(), 20),
        ) {
            let network = |&(last, bits): &(u8, u8)| Network::of(Ipv4Addr::new(192, 0, 2, last).into(), 24 + bits);
            let networks: Vec<Network> = networks.iter().map(network).collect();
            let set = NetworkSet::new(&networks).unwrap();
            for last in addresses {
                let address: IpAddr = Ipv4Addr::new(192, 0, 2, last).into();
                let expected = networks.iter().any(|network| Network::of(address, network.bits) == *network);
                prop_assert_eq!(set.contains(address), expected);
                prop_assert_eq!(set.common(&self::set(&[&address.to_string()])), expected.then_some(address));
            }
        }
    }
}
