//! What proves by being known: 256 random bits, of which only a hash is kept.

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::deny::hex;

/// Characters of one.
const SECRET_CHARACTERS: usize = 64;

/// A new one: its text, which is given once, and its hash.
pub(crate) fn new() -> (Zeroizing<String>, [u8; 32]) {
    let text = Zeroizing::new(hex(&random::<32>()));
    let hash = hash(&text).expect("64 digits of hex");
    (text, hash)
}

/// What is kept of a text; none if no text of ours is like it.
pub(crate) fn hash(text: &str) -> Option<[u8; 32]> {
    let is_ours =
        text.len() == SECRET_CHARACTERS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_ours.then(|| digest(&SHA256, text.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("aws-lc-rs aborts by itself when it has no randomness");
    bytes
}
