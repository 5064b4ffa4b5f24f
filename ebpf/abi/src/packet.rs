//! The headers of a packet, up to what the guard judges by. Fragments behind the first have no port and are left to the
//! kernel, which puts packets together before it looks for a socket.

use crate::address::{Address, mapped};
use crate::guard::EXTENSIONS_MAX;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it came from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// And to which port, in the host's order.
    pub destination_port: u16,
    /// A connection attempt: SYN without ACK.
    pub is_syn: bool,
    /// Its header is at least as long as one must be (RFC 9293 section 3.1).
    pub is_whole: bool,
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A segment, or the first fragment of one.
    Tcp(Segment),
    /// Another protocol, or a fragment behind the first.
    Other,
    /// It ends too early, is no IP, or has more extension headers than are walked.
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

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::vec::Vec;

    impl Bytes for [u8] {
        fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
            self.get(offset..offset.checked_add(N)?)?.try_into().ok()
        }
    }

    struct Packet(Vec<u8>);

    impl Bytes for Packet {
        fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
            self.0.as_slice().read(offset)
        }
    }

    fn tcp(flags: u8, words: u8) -> Vec<u8> {
        let mut header = std::vec![0; 20];
        header[..4].copy_from_slice(&[0x9c, 0x40, 0x20, 0xfb]);
        header[12] = words << 4;
        header[13] = flags;
        header
    }

    fn v4(options: usize, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = std::vec![0; 20 + options];
        packet[0] = 0x45 + (options / 4) as u8;
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[9] = protocol;
        packet[12..20].copy_from_slice(&[192, 0, 2, 7, 198, 51, 100, 1]);
        packet.extend_from_slice(payload);
        packet
    }

    /// `chain` are next-header values and the extensions that they name.
    fn v6(chain: &[(u8, Vec<u8>)], last: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = std::vec![0; 40];
        packet[0] = 0x60;
        packet[6] = chain.first().map_or(last, |(kind, _)| *kind);
        packet[8] = 0x20;
        packet[24] = 0xfd;
        for (at, (_, extension)) in chain.iter().enumerate() {
            let begin = packet.len();
            packet.extend_from_slice(extension);
            packet[begin] = chain.get(at + 1).map_or(last, |(kind, _)| *kind);
        }
        packet.extend_from_slice(payload);
        packet
    }

    fn parsed(packet: &[u8]) -> Parsed {
        parse(&Packet(packet.to_vec()), 0)
    }

    fn extension(units: u8) -> Vec<u8> {
        let mut extension = std::vec![0; (usize::from(units) + 1) * 8];
        extension[1] = units;
        extension
    }

    #[test]
    fn a_segment_is_found_behind_options_and_extensions() {
        let syn = tcp(SYN, 5);
        for (packet, is_v4) in [
            (v4(0, 0, TCP, &syn), true),
            (v4(40, 0x4000, TCP, &syn), true),
            (v6(&[], TCP, &syn), false),
            (v6(&[(HOP_BY_HOP, extension(0)), (DESTINATION, extension(2))], TCP, &syn), false),
            (v6(&[(ROUTING, extension(1)), (FRAGMENT, extension(0))], TCP, &syn), false),
        ] {
            let Parsed::Tcp(segment) = parsed(&packet) else { panic!("{packet:?}") };
            assert_eq!((segment.destination_port, segment.is_syn, segment.is_whole), (8443, true, true));
            assert_eq!(segment.source[..4] == [0; 4], is_v4);
        }
    }

    #[test]
    fn flags_and_lengths_are_told_apart() {
        for (flags, words, is_syn, is_whole) in
            [(SYN, 5, true, true), (SYN | ACK, 5, false, true), (ACK, 15, false, true), (SYN, 4, true, false)]
        {
            let Parsed::Tcp(segment) = parsed(&v4(0, 0, TCP, &tcp(flags, words))) else { panic!("{flags}") };
            assert_eq!((segment.is_syn, segment.is_whole), (is_syn, is_whole));
        }
    }

    #[test]
    fn other_protocols_and_later_fragments_have_no_port() {
        let mut later = extension(0);
        later[3] = 0x08;
        for packet in [
            v4(0, 0, 17, &tcp(SYN, 5)),
            v4(0, 1, TCP, &tcp(SYN, 5)),
            v4(0, 0x2001, TCP, &[]),
            v6(&[], 17, &tcp(SYN, 5)),
            v6(&[(FRAGMENT, later)], TCP, &tcp(SYN, 5)),
            v6(&[], 50, &tcp(SYN, 5)),
        ] {
            assert_eq!(parsed(&packet), Parsed::Other, "{packet:?}");
        }
    }

    #[test]
    fn more_extensions_than_are_walked_are_malformed() {
        let chain = |count: usize| std::vec![(DESTINATION, extension(0)); count];
        let of = |count| parsed(&v6(&chain(count), TCP, &tcp(SYN, 5)));
        assert!(matches!(of(EXTENSIONS_MAX), Parsed::Tcp(_)));
        assert_eq!(of(EXTENSIONS_MAX + 1), Parsed::Malformed);
    }

    #[test]
    fn a_packet_that_ends_early_is_malformed_wherever_it_ends() {
        let chain = [(HOP_BY_HOP, extension(1)), (FRAGMENT, extension(0)), (DESTINATION, extension(0))];
        for whole in [v4(8, 0, TCP, &tcp(SYN, 5)), v6(&chain, TCP, &tcp(SYN, 5))] {
            // What is read of a TCP header ends with its flags.
            for length in 0..whole.len() - 6 {
                assert_eq!(parsed(&whole[..length]), Parsed::Malformed, "{length} of {}", whole.len());
            }
        }
        for words in 0..5 {
            let mut short = v4(0, 0, TCP, &tcp(SYN, 5));
            short[0] = 0x40 | words;
            assert_eq!(parsed(&short), Parsed::Malformed, "{words} words");
        }
        assert_eq!(parsed(&[0x50; 64]), Parsed::Malformed);
    }
}
