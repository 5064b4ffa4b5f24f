//! The PROXY protocol's binary header, version 2 (haproxy.org/download/3.0/doc/proxy-protocol.txt section 2.2).
//!
//! In: the first bytes of a connection in pieces of any size. Out: who the proxy says is on the other side.
//! Refused: anything that is not this header from its first byte on, version 1, transports other than TCP,
//! lengths under those of the addresses or over [`PROXY_HEADER_BYTES_MAX`]. TLVs behind the addresses are skipped.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest header, TLVs included, bytes.
pub const PROXY_HEADER_BYTES_MAX: usize = 2048;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const FIXED_BYTES: usize = 16;
/// Addresses and ports of TCP over IPv4.
const V4_BYTES: usize = 12;
/// Addresses and ports of TCP over IPv6.
const V6_BYTES: usize = 36;

/// Who is behind a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The proxy itself, such as its health check (`LOCAL`).
    Local,
    /// This address, canonical.
    Client(IpAddr),
}

/// Why bytes are not a header; the fault is the proxy's, or of whoever claims to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// Other bytes than the signature.
    #[error("the connection does not begin with a PROXY protocol header of version 2")]
    Missing,
    /// A version other than 2, or an unknown command.
    #[error("version or command of the PROXY header is unknown")]
    Command,
    /// Not TCP over IPv4 or IPv6.
    #[error("the PROXY header is not for TCP over IPv4 or IPv6")]
    Transport,
    /// Too short for the addresses, or over the bound.
    #[error(
        "the PROXY header's length does not hold its addresses or is over {PROXY_HEADER_BYTES_MAX} bytes"
    )]
    Length,
}

/// A header under way; holds no more than its addresses. After an error it stays in error.
#[derive(Clone, Debug)]
pub struct ProxyHeader {
    kept: [u8; FIXED_BYTES + V6_BYTES],
    /// Bytes seen, kept or skipped.
    seen: usize,
    /// Once the length is known.
    header: Option<Fixed>,
    error: Option<ProxyHeaderError>,
}

#[derive(Clone, Copy, Debug)]
struct Fixed {
    family: Family,
    /// With the fixed part, bytes.
    length: usize,
}

#[derive(Clone, Copy, Debug)]
enum Family {
    Local,
    V4,
    V6,
}

impl Default for ProxyHeader {
    fn default() -> Self {
        Self { kept: [0; FIXED_BYTES + V6_BYTES], seen: 0, header: None, error: None }
    }
}

impl ProxyHeader {
    /// Takes what belongs to the header off `input`; the origin once it is whole.
    pub fn handle_bytes(&mut self, input: &mut &[u8]) -> Result<Option<Origin>, ProxyHeaderError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.step(input).inspect_err(|&error| self.error = Some(error))
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Origin>, ProxyHeaderError> {
        self.take(input, FIXED_BYTES);
        let signature = self.seen.min(SIGNATURE.len());
        if self.kept[..signature] != SIGNATURE[..signature] {
            return Err(ProxyHeaderError::Missing);
        }
        let header = match self.header {
            Some(header) => header,
            None if self.seen < FIXED_BYTES => return Ok(None),
            None => *self.header.insert(fixed(&self.kept)?),
        };
        self.take(input, header.length);
        Ok((self.seen == header.length).then(|| self.origin(header.family)))
    }

    /// Moves bytes from the input up to byte `end` of the header; what is not addresses is not kept.
    fn take(&mut self, input: &mut &[u8], end: usize) {
        let (bytes, rest) = input.split_at(input.len().min(end.saturating_sub(self.seen)));
        *input = rest;
        let room = self.kept.get_mut(self.seen..).unwrap_or_default();
        let kept = room.len().min(bytes.len());
        room[..kept].copy_from_slice(&bytes[..kept]);
        self.seen += bytes.len();
    }

    fn origin(&self, family: Family) -> Origin {
        let addresses = &self.kept[FIXED_BYTES..];
        let source = match family {
            Family::Local => return Origin::Local,
            Family::V4 => IpAddr::V4(Ipv4Addr::from(*addresses.first_chunk::<4>().expect("kept for 12"))),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(*addresses.first_chunk::<16>().expect("kept for 36"))),
        };
        Origin::Client(source.to_canonical())
    }
}

fn fixed(bytes: &[u8; FIXED_BYTES + V6_BYTES]) -> Result<Fixed, ProxyHeaderError> {
    let (family, least) = match (bytes[12], bytes[13]) {
        (0x20, _) => (Family::Local, 0),
        (0x21, 0x11) => (Family::V4, V4_BYTES),
        (0x21, 0x21) => (Family::V6, V6_BYTES),
        (0x21, _) => return Err(ProxyHeaderError::Transport),
        _ => return Err(ProxyHeaderError::Command),
    };
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length < least || FIXED_BYTES + length > PROXY_HEADER_BYTES_MAX {
        return Err(ProxyHeaderError::Length);
    }
    Ok(Fixed { family, length: FIXED_BYTES + length })
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn header(command: u8, family: u8, addresses: &[u8], length: usize) -> Vec<u8> {
        let length = u16::try_from(length).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, addresses].concat()
    }

    fn v4() -> Vec<u8> {
        header(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x9c, 0x40, 1, 0xbb], 12)
    }

    fn v6(source: &str, more: usize) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().unwrap();
        let addresses = [&source.octets()[..], &[0; 20], &[0x04; 3000][..more]].concat();
        header(0x21, 0x21, &addresses, 36 + more)
    }

    /// In pieces, with `rest` behind: the result, and what was left.
    fn parse(bytes: &[u8], piece: usize) -> (Result<Option<Origin>, ProxyHeaderError>, usize) {
        let mut parser = ProxyHeader::default();
        let mut used = 0;
        for chunk in bytes.chunks(piece) {
            let mut input = chunk;
            let result = parser.handle_bytes(&mut input);
            used += chunk.len() - input.len();
            if result != Ok(None) {
                return (result, used);
            }
            assert!(input.is_empty(), "what is not whole takes all of its input");
        }
        (Ok(None), used)
    }

    #[test]
    fn a_header_is_read_up_to_its_end_in_any_pieces() {
        let client = |text: &str| Origin::Client(text.parse().unwrap());
        for (bytes, origin) in [
            (v4(), client("192.0.2.7")),
            (v6("2001:db8::7", 0), client("2001:db8::7")),
            (v6("::ffff:192.0.2.7", 0), client("192.0.2.7")),
            (v6("2001:db8::7", PROXY_HEADER_BYTES_MAX - 52), client("2001:db8::7")),
            (header(0x20, 0, &[], 0), Origin::Local),
            (header(0x20, 0x11, &[1; 12], 12), Origin::Local),
        ] {
            let whole = [&bytes[..], b"\x16\x03\x01"].concat();
            for piece in 1..=whole.len() {
                assert_eq!(parse(&whole, piece), (Ok(Some(origin)), bytes.len()), "{piece}");
            }
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end], 7), (Ok(None), end));
            }
        }
    }

    #[test]
    fn each_fault_has_its_name_and_stays() {
        use ProxyHeaderError::{Command, Length, Missing, Transport};
        let mut spoiled = v4();
        spoiled[11] = b'\r';
        for (bytes, error) in [
            (b"\x16\x03\x01\x02\x00".to_vec(), Missing),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 443\r\n".to_vec(), Missing),
            (b"\r\n\r\nGET".to_vec(), Missing),
            (spoiled, Missing),
            (header(0x11, 0x11, &[0; 12], 12), Command),
            (header(0x22, 0x11, &[0; 12], 12), Command),
            (header(0x21, 0x00, &[], 0), Transport),
            (header(0x21, 0x12, &[0; 12], 12), Transport),
            (header(0x21, 0x31, &[0; 216], 216), Transport),
            (header(0x21, 0x11, &[0; 11], 11), Length),
            (header(0x21, 0x21, &[0; 35], 35), Length),
            (v6("::1", PROXY_HEADER_BYTES_MAX - 51), Length),
            (header(0x20, 0, &[], 0xffff), Length),
        ] {
            for piece in 1..=bytes.len() {
                assert_eq!(parse(&bytes, piece).0, Err(error), "{bytes:?}");
            }
            let mut parser = ProxyHeader::default();
            assert_eq!(parser.handle_bytes(&mut &bytes[..]), Err(error));
            assert_eq!(parser.handle_bytes(&mut &v4()[..]), Err(error), "errors are sticky");
        }
    }
}
