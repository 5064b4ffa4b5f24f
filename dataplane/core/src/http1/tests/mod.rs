//! Tables of messages and attacks, each at every cut; random sequences; the writers against the parsers.

mod properties;
mod requests;
mod responses;
mod writers;

use std::vec::Vec;

use super::fuzz::{Parser, Seen, transcript};

/// The transcript of `bytes`, which must be the same whole, byte by byte, and cut in two anywhere.
fn at_every_cut<P: Parser>(bytes: &[u8], new: impl Fn() -> P) -> Vec<Seen<P::Error>> {
    let whole = transcript(new(), [bytes]);
    let shown = std::string::String::from_utf8_lossy(bytes);
    assert_eq!(whole, transcript(new(), bytes.chunks(1)), "byte by byte: {shown:?}");
    for cut in 0..=bytes.len() {
        let pieces = [&bytes[..cut], &bytes[cut..]];
        assert_eq!(whole, transcript(new(), pieces), "cut at {cut}: {shown:?}");
    }
    whole
}
