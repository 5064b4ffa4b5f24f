use std::vec::Vec;

use proptest::prelude::*;

use crate::http1::fuzz::{fuzz_request, fuzz_response};

/// Pieces of messages, so that random sequences get past the first line.
const FRAGMENTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /hooks/1?a=%20 HTTP/1.1\r\n",
    b"PUT http://a/b HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.0 500\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"Host: a\r\n",
    b"Host: a\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 49\r\n",
    b"Content-Length: 5\r\n\r\nhello",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"X-Long: 0123456789012345678901234567890123456789\r\n",
    b"X: \xc3\xa4 \xe4\r\n",
    b"hello",
    b"5\r\nhello\r\n",
    b"1f;ext=1\r\n",
    b"0\r\n\r\n",
    b"0\r\nTrailer-Field: x\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b"\0",
    b":",
];

/// Two bytes for the seed, and a plausible beginning: else most streams end at their first line.
const BEGINNINGS: &[&[u8]] = &[
    b"\0\0POST / HTTP/1.1\r\nHost: a\r\n",
    b"\0\0POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"\0\0HTTP/1.1 200 OK\r\n",
    b"\0\0HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"\0\0",
];

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        20 => prop::sample::select(FRAGMENTS).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    let start = prop::sample::select(BEGINNINGS);
    (start, any::<[u8; 2]>(), prop::collection::vec(fragment, 0..16)).prop_map(|(start, seed, fragments)| {
        let mut data = start.to_vec();
        data[..2].copy_from_slice(&seed);
        data.extend(fragments.concat());
        data
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_and_bounds_of_requests(data in stream()) {
        fuzz_request(&data);
    }

    #[test]
    fn cuts_and_bounds_of_responses(data in stream()) {
        fuzz_response(&data);
    }
}
