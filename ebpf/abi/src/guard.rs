//! The guard's tables: which listeners it stands at, which sources they refuse, and how much each may send.
//!
//! It can only refuse. A list is an LPM trie in which a source is allowed or denied; since lists that overlap are refused
//! by the configuration, the longest match is the only one. Budgets are one number for each kind of packet: the time until
//! which the source has spent its budget. Two processors that charge it at the same instant may count one packet for two,
//! so a source may pass at most one packet more per processor and refill than its budget.

use crate::address::Address;

/// Ports, or addresses with a port, that listeners may have.
pub const LISTENERS_MAX: u32 = 256;
/// Networks in both lists; the table holds two generations.
pub const NETWORKS_MAX: u32 = 8192;
/// IPv6 extension headers that are walked; behind more of them a packet is malformed.
pub const EXTENSIONS_MAX: usize = 6;

/// What is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// 1 refuses, 0 only counts.
    pub enforce: u32,
    /// 1 if only listed sources are allowed.
    pub has_allow: u32,
    /// Bits of an IPv4 source that share a budget, counted in its mapped form: 96 to 128.
    pub bits_v4: u32,
    /// Bits of an IPv6 source that share a budget: 48 to 128.
    pub bits_v6: u32,
    /// Of connection attempts.
    pub syn: Budget,
    /// Of all other packets.
    pub packets: Budget,
}

/// How much a source may send: each packet costs time, and `burst_ns` of it may be owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Budget {
    /// One packet; 0 sets no budget.
    pub cost_ns: u64,
    /// What may be owed.
    pub burst_ns: u64,
}

/// Key of the table of networks, behind the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NetworkKey {
    /// Generation of the configuration.
    pub generation: u32,
    /// First address.
    pub address: Address,
}

/// Bits of [`NetworkKey`] in front of its address.
pub const GENERATION_BITS: u32 = 32;
/// Value in the table of networks.
pub const ALLOWED: u32 = 1;
/// Value in the table of networks.
pub const DENIED: u32 = 2;

/// Key of the table of local addresses where frames are judged at their interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LocalKey {
    /// Destination of the frame.
    pub address: Address,
    /// Its port, in the host's order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

/// Key of the table of budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SourceKey {
    /// The prefix of its address.
    pub prefix: Address,
    /// The listener's port, in the host's order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<NetworkKey>() == 20);
const _: () = assert!(size_of::<LocalKey>() == 20);
const _: () = assert!(size_of::<SourceKey>() == 20);
const _: () = assert!(size_of::<Settings>() == 48);

/// What a source has spent.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Spent {
    /// Its connection attempts are paid for until then, ns.
    pub syn_until_ns: u64,
    /// Its other packets.
    pub packets_until_ns: u64,
}

impl Budget {
    /// Charges `packets`; whether the source was over its budget before them. Then they cost nothing.
    #[inline(always)]
    pub fn is_over(&self, until_ns: &mut u64, now_ns: u64, packets: u64) -> bool {
        if self.cost_ns == 0 {
            return false;
        }
        let from = if *until_ns > now_ns { *until_ns } else { now_ns };
        if from > now_ns.wrapping_add(self.burst_ns) {
            return true;
        }
        *until_ns = from.wrapping_add(self.cost_ns.wrapping_mul(packets));
        false
    }
}

/// Why a packet is refused; their numbers are in events and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// There is an allow list, and the source is not in it.
    NotAllowed = 0,
    /// The source is in the deny list.
    Denied = 1,
    /// Too many connection attempts.
    SynBudget = 2,
    /// Too many other packets.
    PacketBudget = 3,
    /// Its headers cannot be read.
    Malformed = 4,
}

/// How many reasons there are.
pub const REASONS: usize = 5;

impl Reason {
    /// All of them, by their numbers.
    pub const ALL: [Self; REASONS] =
        [Self::NotAllowed, Self::Denied, Self::SynBudget, Self::PacketBudget, Self::Malformed];

    /// Name in metrics and events.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::Denied => "denied",
            Self::SynBudget => "syn_budget",
            Self::PacketBudget => "packet_budget",
            Self::Malformed => "malformed",
        }
    }
}

/// What the lists say of a source.
#[inline(always)]
pub fn listed(found: Option<u32>, has_allow: u32) -> Option<Reason> {
    match found {
        Some(DENIED) => Some(Reason::Denied),
        None if has_allow != 0 => Some(Reason::NotAllowed),
        Some(_) | None => None,
    }
}

/// Packets at one listener, of one processor.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Counts {
    /// Let through, those included that enforcement would refuse.
    pub passed: u64,
    /// Refused, by reason.
    pub refused: [u64; REASONS],
    /// Only counted, by reason.
    pub observed: [u64; REASONS],
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    /// Ten a second, and twenty at once.
    const BUDGET: Budget = Budget { cost_ns: SECOND_NS / 10, burst_ns: 2 * SECOND_NS };

    fn passed(budget: &Budget, spent: &mut u64, from_ns: u64, step_ns: u64, count: u64) -> u64 {
        (0..count).filter(|at| !budget.is_over(spent, from_ns + at * step_ns, 1)).count() as u64
    }

    #[test]
    fn a_budget_is_its_burst_and_its_rate() {
        let mut spent = 0;
        assert_eq!(
            passed(&BUDGET, &mut spent, 50 * SECOND_NS, 0, 1000),
            21,
            "the burst and the one that exceeds it"
        );
        assert_eq!(
            passed(&BUDGET, &mut spent, 60 * SECOND_NS, 1_000_000, 10_000),
            21 + 99,
            "burst, then ten a second"
        );
    }

    #[test]
    fn many_packets_in_one_cost_what_they_are() {
        let mut spent = 0;
        assert!(!BUDGET.is_over(&mut spent, SECOND_NS, 44));
        assert!(BUDGET.is_over(&mut spent, SECOND_NS + 2 * SECOND_NS, 1), "4.4 s are owed, 2 may be");
        assert!(!BUDGET.is_over(&mut spent, SECOND_NS + 3 * SECOND_NS, 1));
    }

    #[test]
    fn without_a_cost_there_is_no_budget() {
        let mut spent = 0;
        assert_eq!(passed(&Budget::default(), &mut spent, 0, 0, 100), 100);
    }

    #[test]
    fn lists_can_only_refuse() {
        assert_eq!(listed(None, 0), None);
        assert_eq!(listed(None, 1), Some(Reason::NotAllowed));
        assert_eq!(listed(Some(ALLOWED), 1), None);
        assert_eq!(listed(Some(DENIED), 0), Some(Reason::Denied));
        assert_eq!(listed(Some(DENIED), 1), Some(Reason::Denied));
    }

    #[test]
    fn reasons_are_their_numbers() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{}", reason.label());
        }
    }
}
