//! The portable cryptography (RFC 2104, FIPS 180-4) behind the traits of the core.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zen_core::crypto::{
    Digest, HashAlgorithm, Mac, MacJob, RunningMac, SignatureAlgorithm, SignatureVerifier, Tag,
};

/// A prepared HMAC-SHA256 key.
pub type Key = Hmac<Sha256>;

/// HMAC-SHA256 and SHA-256; no other algorithm is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

impl Mac for Portable {
    type Key = Key;

    fn prepare(&self, secret: &[u8]) -> Key {
        Hmac::new_from_slice(secret).expect("HMAC takes keys of any length")
    }

    fn sign(&self, jobs: &[MacJob<'_, Key>], tags: &mut Vec<Tag>) {
        tags.clear();
        tags.extend(jobs.iter().map(|job| {
            let mut mac = job.key.clone();
            mac.update(job.parts[0]);
            mac.update(job.parts[1]);
            Tag::from(mac.finalize().into_bytes())
        }));
    }

    fn sha256(&self, bytes: &[u8]) -> Digest {
        Sha256::digest(bytes).into()
    }
}

/// An HMAC that takes its message in pieces.
#[derive(Debug)]
pub struct Running(Key);

impl SignatureVerifier for Portable {
    type Running = Running;

    fn hmac(&self, algorithm: HashAlgorithm, secret: &[u8]) -> Running {
        assert_eq!(algorithm, HashAlgorithm::Sha256, "the simulated sources sign with SHA-256");
        Running(self.prepare(secret))
    }

    fn verify(&self, _: SignatureAlgorithm, _: &[u8], _: &[u8], _: &[u8]) -> bool {
        false
    }
}

impl RunningMac for Running {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self) -> ([u8; 64], usize) {
        let mut tag = [0; 64];
        tag[..32].copy_from_slice(&self.0.finalize().into_bytes());
        (tag, 32)
    }
}
