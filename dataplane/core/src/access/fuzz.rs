//! Fuzzing: the first bytes of a connection, and header lines, from whoever claims to be a proxy. Asserts that the
//! result does not depend on the pieces, that what is read is what was written, and that bounds hold.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::{
    Network, NetworkSet, Origin, PROXY_HEADER_BYTES_MAX, ProxyHeader, ProxyHeaderError, forwarded_client,
};

/// `data` is a piece size and a connection's first bytes.
pub fn fuzz_proxy_header(data: &[u8]) {
    let Some((&piece, bytes)) = data.split_first() else { return };
    let whole = parse(bytes, bytes.len().max(1));
    assert_eq!(parse(bytes, usize::from(piece).max(1)), whole, "pieces change the result");
    let (result, used) = whole;
    assert!(used <= PROXY_HEADER_BYTES_MAX && used <= bytes.len());
    match result {
        Ok(None) => assert_eq!(used, bytes.len()),
        Ok(Some(origin)) => {
            let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
            assert_eq!(used, 16 + length);
            let written = match bytes[12..14] {
                [0x20, _] => Origin::Local,
                [0x21, 0x11] => client(<[u8; 4]>::try_from(&bytes[16..20]).expect("4 bytes")),
                [0x21, 0x21] => client(<[u8; 16]>::try_from(&bytes[16..32]).expect("16 bytes")),
                _ => panic!("another header is taken: {bytes:?}"),
            };
            assert_eq!(origin, written);
        }
        Err(_) => {}
    }
}

/// `data` is a number of hops and header lines.
pub fn fuzz_forwarded(data: &[u8]) {
    let Some((&hops, text)) = data.split_first() else { return };
    let Ok(text) = core::str::from_utf8(text) else { return };
    let networks: Vec<Network> =
        ["10.0.0.0/8", "2001:db8::/32"].iter().map(|text| text.parse().expect("networks")).collect();
    let proxies = NetworkSet::new(&networks).expect("two networks");
    let lines: Vec<&str> = text.split('\n').collect();
    let found = forwarded_client(&lines, &proxies, hops);
    let joined = forwarded_client(&[&lines.join(",")], &proxies, hops);
    assert_eq!(joined, found, "lines are one list (RFC 9110 section 5.3)");
    let Ok(client) = found else { return };
    assert!(!proxies.contains(client), "a proxy is not its own client");
    let more = [&["198.51.100.1, forged"][..], &lines].concat();
    assert_eq!(forwarded_client(&more, &proxies, hops), found, "what a client claims counts");
}

fn parse(bytes: &[u8], piece: usize) -> (Result<Option<Origin>, ProxyHeaderError>, usize) {
    let (mut header, mut used) = (ProxyHeader::default(), 0);
    for chunk in bytes.chunks(piece) {
        let mut input = chunk;
        let result = header.handle_bytes(&mut input);
        if result.is_err() {
            return (result, 0);
        }
        used += chunk.len() - input.len();
        if result != Ok(None) {
            return (result, used);
        }
    }
    (Ok(None), used)
}

fn client(address: impl Into<IpAddr>) -> Origin {
    Origin::Client(address.into().to_canonical())
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_first_bytes(data in prop::collection::vec(any::<u8>(), 0..80)) {
            fuzz_proxy_header(&data);
        }

        #[test]
        fn nearly_headers(
            piece in any::<u8>(),
            command in prop::sample::select(vec![0x20_u8, 0x21, 0x22]),
            family in prop::sample::select(vec![0_u8, 0x11, 0x12, 0x21]),
            length in prop::sample::select(vec![0_u16, 11, 12, 36, 40, 2032, 2033]),
            rest in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let fixed = [&[piece][..], b"\r\n\r\n\0\r\nQUIT\n", &[command, family], &length.to_be_bytes()];
            fuzz_proxy_header(&[&fixed.concat()[..], &rest].concat());
        }

        #[test]
        fn any_lines(hops in any::<u8>(), text in "([0-9a-f:.,\n \\[\\]]|10\\.0\\.0\\.1|, |192\\.0\\.2\\.7|2001:db8::1){0,12}") {
            fuzz_forwarded(&[&[hops][..], text.as_bytes()].concat());
        }
    }
}
