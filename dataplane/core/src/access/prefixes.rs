//! Granted networks and special ranges as one table of verdicts, in which the longest prefix decides.
//!
//! IPv4 addresses have their mapped form, so that one table holds both families, as a trie of the kernel does.
//! A network that contains special ranges leaves them as they are, one that lies within a range opens its part of it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::destination::{DestinationRefused, special};
use super::network::Network;

/// Whether addresses may be connected to.
pub type Verdict = Result<(), DestinationRefused>;

/// First address and prefix length.
type Prefix = (u128, u8);

/// Verdicts by prefix, sorted, without those that change nothing. What has no prefix is not listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefixes {
    entries: Vec<(Prefix, Verdict)>,
}

impl Prefixes {
    /// What may be reached if these networks are granted.
    pub(super) fn granting(networks: impl IntoIterator<Item = Network>) -> Self {
        let special: Vec<_> = special().collect();
        let mut entries: BTreeMap<Prefix, Verdict> =
            special.iter().map(|(range, refused)| (range.prefix(), Err(*refused))).collect();
        let [all_v4, _] = Network::all();
        // No network of IPv6 addresses holds IPv4 ones, whatever their mapped form.
        entries.insert(all_v4.prefix(), Err(DestinationRefused::NotListed));
        for network in networks {
            let mut within = special.iter().filter(|(range, _)| range.has(network));
            if !within.any(|(_, refused)| *refused == DestinationRefused::NoHost) {
                entries.insert(network.prefix(), Ok(()));
            }
        }
        Self { entries: without_repeats(entries) }
    }

    /// The verdict of the longest prefix of a canonical address.
    pub(super) fn check(&self, address: IpAddr) -> Verdict {
        let (address, _) = Network::single(address).prefix();
        let entry = (0..=128).rev().find_map(|bits| {
            let prefix = (first_of(address, bits), bits);
            self.entries.binary_search_by_key(&prefix, |(prefix, _)| *prefix).ok()
        });
        entry.map_or(Err(DestinationRefused::NotListed), |at| self.entries[at].1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Prefix, Verdict)> {
        self.entries.iter().copied()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.entries.capacity() * size_of::<(Prefix, Verdict)>()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Without the entries whose verdict is that of the next shorter prefix.
fn without_repeats(entries: BTreeMap<Prefix, Verdict>) -> Vec<(Prefix, Verdict)> {
    let mut kept: Vec<(Prefix, Verdict)> = Vec::new();
    let mut around: Vec<(Prefix, Verdict)> = Vec::new();
    for (prefix, verdict) in entries {
        while around.pop_if(|((first, bits), _)| first_of(prefix.0, *bits) != *first).is_some() {}
        let inherited = around.last().map_or(Err(DestinationRefused::NotListed), |(_, verdict)| *verdict);
        if verdict != inherited {
            kept.push((prefix, verdict));
            around.push((prefix, verdict));
        }
    }
    kept
}

fn first_of(address: u128, bits: u8) -> u128 {
    address & !u128::MAX.checked_shr(bits.into()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;

    fn entries(networks: &[&str]) -> Vec<(Prefix, Verdict)> {
        Prefixes::granting(networks.iter().map(|text| text.parse().unwrap())).entries
    }

    #[test]
    fn special_ranges_are_disjoint_or_one_lies_within_a_form() {
        let ranges: Vec<_> = special().collect();
        for (at, (range, refused)) in ranges.iter().enumerate() {
            for (other, around) in ranges.iter().skip(at + 1) {
                assert!(!range.has(*other), "{range} comes before {other}: the longest is found first");
                if other.has(*range) {
                    assert_eq!(*around, DestinationRefused::OtherForm, "{range} in {other}");
                }
            }
            assert_eq!(range.canonical().to_string(), range.to_string(), "{refused}");
        }
    }

    #[test]
    fn what_changes_nothing_is_no_entry() {
        let base = entries(&[]).len();
        for (networks, more) in [
            (vec!["10.0.0.0/8"], 1),
            (vec!["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8"], 1),
            (vec!["0.0.0.0/0"], 1),
            (vec!["0.0.0.0/0", "10.0.0.0/8"], 1),
            // IPv4 is shut within all of IPv6, unless it is open as well.
            (vec!["::/0"], 2),
            (vec!["0.0.0.0/0", "::/0"], 1),
            (vec!["127.0.0.8/32"], 1),
            // A whole range: its entry is there, and says another thing.
            (vec!["127.0.0.0/8"], 0),
            (vec!["224.0.0.0/4", "0.0.0.0/8", "ff02::/16", "::/128"], 0),
        ] {
            assert_eq!(entries(&networks).len(), base + more, "{networks:?}");
        }
    }

    #[test]
    fn a_form_that_is_opened_opens_neither_this_machine_nor_what_no_host_has() {
        let opened = Prefixes::granting(["::/96".parse().unwrap()]);
        let check = |address: &str| opened.check(address.parse().unwrap());
        assert_eq!(check("::10.0.0.1"), Ok(()));
        assert_eq!(check("::1"), Err(DestinationRefused::Loopback));
        assert_eq!(check("::"), Err(DestinationRefused::NoHost));
    }
}
