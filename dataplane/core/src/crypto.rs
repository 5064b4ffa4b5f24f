//! The cryptography that `core` needs, as traits. The node fills them with `zen-hmac` and aws-lc-rs,
//! the tests with RustCrypto; `core` itself only compares tags, in constant time.

use alloc::vec::Vec;

/// An HMAC-SHA256 tag (RFC 2104, FIPS 198-1).
pub type Tag = [u8; 32];

/// A SHA-256 digest (FIPS 180-4).
pub type Digest = [u8; 32];

/// One message of a batch: `parts` are signed as if concatenated.
#[derive(Debug)]
pub struct MacJob<'a, K> {
    /// The prepared key.
    pub key: &'a K,
    /// Message bytes, in order; an unused part is empty.
    pub parts: [&'a [u8]; 2],
}

/// Batched HMAC-SHA256 with prepared keys, and plain SHA-256.
pub trait Mac {
    /// A key with its inner and outer states computed once.
    type Key;

    /// Prepares a key of any length (RFC 2104 hashes keys over 64 bytes).
    fn prepare(&self, secret: &[u8]) -> Self::Key;

    /// Replaces `tags` by one tag per job, in the order of `jobs`.
    fn sign(&self, jobs: &[MacJob<'_, Self::Key>], tags: &mut Vec<Tag>);

    /// SHA-256 of `bytes`.
    fn sha256(&self, bytes: &[u8]) -> Digest;
}

/// Hash functions that webhook providers use under HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA-1: only where a provider offers nothing else.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Asymmetric algorithms that webhook providers sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// Ed25519 (RFC 8032): 32-byte public key, 64-byte signature.
    Ed25519,
}

/// Cryptography for checking what sources send: any hash, message in pieces.
pub trait SignatureVerifier {
    /// A running HMAC.
    type Running: RunningMac;

    /// Starts an HMAC under `secret`.
    fn hmac(&self, algorithm: HashAlgorithm, secret: &[u8]) -> Self::Running;

    /// Whether `signature` over `message` is by `public_key`. Malformed keys or signatures are `false`.
    fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> bool;
}

/// An HMAC that takes its message in pieces.
pub trait RunningMac {
    /// Adds message bytes.
    fn update(&mut self, bytes: &[u8]);

    /// The tag: 20, 32 or 64 bytes by algorithm, at the start of the array, with its length.
    fn finish(self) -> ([u8; 64], usize);
}
