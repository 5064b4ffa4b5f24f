//! The traits of `zen_core::crypto`, filled with `zen-hmac` for batches and aws-lc-rs for the rest.

use aws_lc_rs::{digest, hmac, signature};
use zen_core::crypto::{
    Digest, HashAlgorithm, Mac, MacJob, RunningMac, SignatureAlgorithm, SignatureVerifier, Tag,
};
use zen_hmac::{Job, PreparedKey};

/// The node's cryptography; has no state.
#[derive(Clone, Copy, Debug)]
pub struct NodeCrypto;

impl Mac for NodeCrypto {
    type Key = PreparedKey;

    fn prepare(&self, secret: &[u8]) -> PreparedKey {
        PreparedKey::new(secret)
    }

    fn sign(&self, jobs: &[MacJob<'_, PreparedKey>], tags: &mut Vec<Tag>) {
        let jobs: Vec<Job<'_>> = jobs.iter().map(|job| Job { key: job.key, parts: job.parts }).collect();
        zen_hmac::sign_jobs(&jobs, tags);
    }

    fn sha256(&self, bytes: &[u8]) -> Digest {
        digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl SignatureVerifier for NodeCrypto {
    type Running = RunningHmac;

    fn hmac(&self, algorithm: HashAlgorithm, secret: &[u8]) -> RunningHmac {
        let algorithm = match algorithm {
            HashAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            HashAlgorithm::Sha256 => hmac::HMAC_SHA256,
            HashAlgorithm::Sha512 => hmac::HMAC_SHA512,
        };
        RunningHmac(hmac::Context::with_key(&hmac::Key::new(algorithm, secret)))
    }

    fn verify(&self, algorithm: SignatureAlgorithm, public_key: &[u8], message: &[u8], tag: &[u8]) -> bool {
        match algorithm {
            SignatureAlgorithm::Ed25519 => signature::UnparsedPublicKey::new(&signature::ED25519, public_key)
                .verify(message, tag)
                .is_ok(),
        }
    }
}

/// An HMAC of aws-lc-rs in progress.
pub struct RunningHmac(hmac::Context);

impl RunningMac for RunningHmac {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self) -> ([u8; 64], usize) {
        let tag = self.0.sign();
        let mut bytes = [0; 64];
        bytes[..tag.as_ref().len()].copy_from_slice(tag.as_ref());
        (bytes, tag.as_ref().len())
    }
}
