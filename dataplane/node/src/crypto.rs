//! The traits of `zen_core::crypto`, filled with `zen-hmac` for batches and aws-lc-rs for the rest.

use aws_lc_rs::{digest, hmac, signature};
use zen_core::crypto::{
    Digest, HashAlgorithm, Mac, MacJob, RunningMac, SignatureAlgorithm, SignatureVerifier, Tag,
};
use zen_hmac::{Job, PreparedKey};

use crate::hmac::BatchSizes;

/// The node's cryptography; has no state.
#[derive(Clone, Copy, Debug)]
pub struct NodeCrypto;

impl Mac for NodeCrypto {
    type Key = PreparedKey;

    fn prepare(&self, secret: &[u8]) -> PreparedKey {
        PreparedKey::new(secret)
    }

    fn sign(&self, jobs: &[MacJob<'_, PreparedKey>], tags: &mut Vec<Tag>) {
        zen_hmac::sign_jobs(jobs.iter().map(|job| Job { key: job.key, parts: job.parts }), tags);
    }

    fn sha256(&self, bytes: &[u8]) -> Digest {
        digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// The same, which counts how many messages its batches have.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'m>(pub &'m BatchSizes);

impl Mac for Counted<'_> {
    type Key = PreparedKey;

    fn prepare(&self, secret: &[u8]) -> PreparedKey {
        NodeCrypto.prepare(secret)
    }

    fn sign(&self, jobs: &[MacJob<'_, PreparedKey>], tags: &mut Vec<Tag>) {
        self.0.record(jobs.len());
        NodeCrypto.sign(jobs, tags);
    }

    fn sha256(&self, bytes: &[u8]) -> Digest {
        NodeCrypto.sha256(bytes)
    }
}

impl SignatureVerifier for NodeCrypto {
    type Running = RunningHmac;

    fn hmac(&self, algorithm: HashAlgorithm, secret: &[u8]) -> RunningHmac {
        let algorithm = match algorithm {
            HashAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            HashAlgorithm::Sha256 => return RunningHmac::Sha256(PreparedKey::new(secret).start()),
            HashAlgorithm::Sha512 => hmac::HMAC_SHA512,
        };
        RunningHmac::Other(Box::new(hmac::Context::with_key(&hmac::Key::new(algorithm, secret))))
    }

    fn verify(&self, algorithm: SignatureAlgorithm, public_key: &[u8], message: &[u8], tag: &[u8]) -> bool {
        match algorithm {
            SignatureAlgorithm::Ed25519 => signature::UnparsedPublicKey::new(&signature::ED25519, public_key)
                .verify(message, tag)
                .is_ok(),
        }
    }
}

/// An HMAC in progress.
pub enum RunningHmac {
    /// What nearly every source uses; needs no memory of its own.
    Sha256(zen_hmac::Running),
    /// By aws-lc-rs.
    Other(Box<hmac::Context>),
}

impl RunningMac for RunningHmac {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(running) => running.update(bytes),
            Self::Other(context) => context.update(bytes),
        }
    }

    fn finish(self) -> ([u8; 64], usize) {
        let mut bytes = [0; 64];
        let mut put = |tag: &[u8]| {
            bytes[..tag.len()].copy_from_slice(tag);
            tag.len()
        };
        let length = match self {
            Self::Sha256(running) => put(&running.finish()),
            Self::Other(context) => put(context.sign().as_ref()),
        };
        (bytes, length)
    }
}
