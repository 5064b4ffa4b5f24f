//! The fence's table: where the node may connect.
//!
//! One LPM trie of protocol, port and address. The longest match decides: a network within a special range is longer than
//! the range, and a range within a wide network is longer than the network. What matches nothing is not listed.

use crate::address::Address;

/// Entries of one generation; the table holds two.
pub const ENTRIES_MAX: u32 = 65_536;

/// Key of the table, behind the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ReachKey {
    /// Generation of the configuration.
    pub generation: u32,
    /// As in an IP header: 6 is TCP, 17 is UDP.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// Most significant byte first.
    pub port: [u8; 2],
    /// First address.
    pub address: Address,
}

/// Bits of [`ReachKey`] in front of its address.
pub const KEY_BITS: u32 = 64;

const _: () = assert!(size_of::<ReachKey>() == 24);

/// What is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// 1 refuses, 0 only counts.
    pub enforce: u32,
}

/// Value in the table: may be reached. Any other value is a [`Reason`]'s number.
pub const OPEN: u32 = u32::MAX;

/// Why a destination is refused; their numbers are in the table, in events and in counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// Nothing in the table has it.
    NotListed = 0,
    /// No host has this address.
    NoHost = 1,
    /// This machine.
    Loopback = 2,
    /// The link, where metadata services live.
    LinkLocal = 3,
    /// A metadata service elsewhere.
    Metadata = 4,
    /// An IPv6 address that stands for another one.
    OtherForm = 5,
}

/// How many reasons there are.
pub const REASONS: usize = 6;

impl Reason {
    /// All of them, by their numbers.
    pub const ALL: [Self; REASONS] =
        [Self::NotListed, Self::NoHost, Self::Loopback, Self::LinkLocal, Self::Metadata, Self::OtherForm];

    /// Name in metrics and events.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotListed => "not_listed",
            Self::NoHost => "no_host",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link_local",
            Self::Metadata => "metadata",
            Self::OtherForm => "other_form",
        }
    }
}

/// Connections and datagrams, of one processor.
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
