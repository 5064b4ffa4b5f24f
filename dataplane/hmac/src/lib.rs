//! Batched HMAC-SHA256 (RFC 2104, FIPS 198-1) with prepared keys.
//!
//! Enters: jobs of a prepared key and a message in two parts. Leaves: one tag per job, in order, and
//! comparisons in constant time. Keys of any length; nothing is refused. Key state is wiped when dropped.
//!
//! Messages of a batch are hashed side by side, each with its own key and length, by what is fastest on this
//! processor for as many ([`Engine::measured`]). Unsafe is in `kernels` alone.
#![deny(unsafe_code)]

mod alone;
mod engine;
mod kernel;
#[expect(unsafe_code, reason = "vector instructions are intrinsics")]
mod kernels;
mod key;
mod lane;
mod measure;
mod portable;
mod stages;
mod window;

use std::borrow::Borrow;

pub use engine::{Engine, KernelError, engine, install};
pub use kernel::{Kernel, UnknownKernel};
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
    engine().sign_jobs(jobs, tags);
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
