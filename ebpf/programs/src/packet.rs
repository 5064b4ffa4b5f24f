//! The headers of a packet, up to what the guard judges by. Fragments behind the first have no port and are left to the
//! kernel, which puts packets together before it looks for a socket.

use zen_ebpf_abi::address::{Address, mapped};
use zen_ebpf_abi::guard::EXTENSIONS_MAX;

const IPV4: u8 = 4;
const IPV6: u8 = 6;
const TCP: u8 = 6;
/// Flags of a TCP header.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// IPv6 extension headers (RFC 8200 section 4.1).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Where headers are read from.
pub trait Bytes {
    /// The `N` bytes from `offset`, if the packet has them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

/// A TCP segment.
pub struct Segment {
    pub source: Address,
    pub destination: Address,
    pub destination_port: u16,
    /// A connection attempt: SYN without ACK.
    pub is_syn: bool,
    /// Its header is at least as long as one must be (RFC 9293 section 3.1).
    pub is_whole: bool,
}

/// What a packet is.
pub enum Parsed {
    Tcp(Segment),
    /// Another protocol, or a fragment behind the first.
    Other,
    /// It ends too early, or has more extension headers than are walked.
    Malformed,
}

/// The packet whose IP header is at `offset`.
#[inline(always)]
pub fn parse(bytes: &impl Bytes, offset: usize) -> Parsed {
    let Some([first]) = bytes.read::<1>(offset) else { return Parsed::Malformed };
    match first >> 4 {
        IPV4 => parse_v4(bytes, offset, first & 0x0f),
        IPV6 => parse_v6(bytes, offset),
        _ => Parsed::Malformed,
    }
}

#[inline(always)]
fn parse_v4(bytes: &impl Bytes, offset: usize, words: u8) -> Parsed {
    let Some(header) = bytes.read::<20>(offset) else { return Parsed::Malformed };
    if words < 5 {
        return Parsed::Malformed;
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    if header[9] != TCP || fragment != 0 {
        return Parsed::Other;
    }
    let source = mapped([header[12], header[13], header[14], header[15]]);
    let destination = mapped([header[16], header[17], header[18], header[19]]);
    parse_tcp(bytes, offset + (words as usize & 0x0f) * 4, source, destination)
}

#[inline(always)]
fn parse_v6(bytes: &impl Bytes, offset: usize) -> Parsed {
    let Some(header) = bytes.read::<40>(offset) else { return Parsed::Malformed };
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    source.copy_from_slice(&header[8..24]);
    destination.copy_from_slice(&header[24..40]);
    let (mut next, mut at) = (header[6], offset + 40);
    for _ in 0..EXTENSIONS_MAX {
        match next {
            TCP => return parse_tcp(bytes, at, source, destination),
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let Some([following, units]) = bytes.read::<2>(at) else { return Parsed::Malformed };
                next = following;
                at += (units as usize + 1) * 8;
            }
            FRAGMENT => {
                let Some(extension) = bytes.read::<4>(at) else { return Parsed::Malformed };
                if u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0 {
                    return Parsed::Other;
                }
                next = extension[0];
                at += 8;
            }
            _ => return Parsed::Other,
        }
    }
    if next == TCP { parse_tcp(bytes, at, source, destination) } else { Parsed::Malformed }
}

#[inline(always)]
fn parse_tcp(bytes: &impl Bytes, at: usize, source: Address, destination: Address) -> Parsed {
    let Some(header) = bytes.read::<14>(at) else { return Parsed::Malformed };
    Parsed::Tcp(Segment {
        source,
        destination,
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        is_syn: header[13] & (SYN | ACK) == SYN,
        is_whole: header[12] >> 4 >= 5,
    })
}
