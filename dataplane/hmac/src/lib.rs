//! Batched HMAC-SHA256 (RFC 2104, FIPS 198-1) with prepared keys.
//!
//! Enters: jobs of a prepared key and a message in two parts. Leaves: one tag per job, in order, and
//! comparisons in constant time. Keys of any length; nothing is refused. Key state is wiped when dropped.
//!
//! A batch runs in two lanes where the processor has SHA instructions, one message at a time elsewhere.
//! Unsafe is in `sha_instructions` alone.
#![deny(unsafe_code)]

mod key;
mod lanes;
mod portable;
#[expect(unsafe_code, reason = "the SHA instructions are intrinsics")]
mod sha_instructions;

use std::borrow::Borrow;

pub use key::{PreparedKey, Running};

/// An HMAC-SHA256 tag.
pub type Tag = [u8; 32];

/// One message of a batch: `parts` are signed as if concatenated.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The prepared key.
    pub key: &'a PreparedKey,
    /// Message bytes, in order; an unused part is empty.
    pub parts: [&'a [u8]; 2],
}

/// Replaces `tags` by one tag per job, in order. Takes a slice of jobs or an iterator that makes them.
pub fn sign_jobs<'a, J: Borrow<Job<'a>>>(jobs: impl IntoIterator<Item = J>, tags: &mut Vec<Tag>) {
    tags.clear();
    let jobs = jobs.into_iter().map(|job| *job.borrow());
    match sha_instructions::Two::detect() {
        Some(two) => lanes::sign(jobs, two, tags),
        None => tags.extend(jobs.map(|Job { key, parts }| portable::sign(key.state(), parts))),
    }
}

/// SHA-256 (FIPS 180-4) of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    portable::sha256(bytes)
}

/// Whether two tags are equal, in time that does not depend on where they differ.
#[must_use]
pub fn tags_equal(ours: &Tag, theirs: &Tag) -> bool {
    subtle::ConstantTimeEq::ct_eq(ours.as_slice(), theirs.as_slice()).into()
}
