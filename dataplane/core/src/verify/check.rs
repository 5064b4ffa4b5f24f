//! A check under way: body bytes enter, the verdict leaves. Owns what it needs, so that request and
//! configuration may go while the body arrives.

use alloc::vec::Vec;
use core::fmt;

use smallvec::SmallVec;
use zeroize::Zeroize;

use super::claim::{Claim, Proof, Signatures, tag_bytes};
use super::held::{Held, Matching};
use super::secret::{PublicKey, Secret};
use crate::crypto::{HashAlgorithm, RunningMac, SignatureAlgorithm, SignatureVerifier};

/// A request that is what it claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified<'r> {
    /// The provider's event id, printable ASCII; only Standard Webhooks signs it.
    pub source_id: Option<&'r str>,
    /// Which of the configured secrets matched; the first, if several do.
    pub secret_index: usize,
}

/// A request whose headers are in order and whose body is arriving.
pub struct Check<C: SignatureVerifier> {
    proof: Progress<C::Running>,
}

impl<C: SignatureVerifier> Check<C> {
    pub(super) fn new(claim: Claim<'_>, crypto: &C) -> Self {
        let proof = match claim.proof {
            Proof::Mac { algorithm, secrets, tags } => {
                let start = |bytes: &[u8]| {
                    let mut running = crypto.hmac(algorithm, bytes);
                    claim.preamble.iter().for_each(|part| running.update(part.as_bytes()));
                    running
                };
                let running = secrets.iter().map(|secret| (secret.index, start(&secret.bytes))).collect();
                Progress::Mac(MacCheck { running, tags, tag_bytes: tag_bytes(algorithm) })
            }
            Proof::Ed25519 { keys, signatures } => Progress::Ed25519(Ed25519Check {
                message: claim.preamble.concat().into_bytes(),
                keys: keys.to_vec(),
                signatures,
            }),
        };
        Self { proof }
    }

    /// Goes on in pieces with what was held back until now; `body` is all of it that has come.
    pub(super) fn released(held: &Held, secrets: &[Secret], body: &[u8], crypto: &C) -> Self {
        let algorithm = HashAlgorithm::Sha256;
        let start = |bytes: &[u8]| {
            let mut running = crypto.hmac(algorithm, bytes);
            running.update(held.preamble());
            running.update(body);
            running
        };
        let running = secrets.iter().map(|secret| (secret.index, start(&secret.bytes))).collect();
        Self {
            proof: Progress::Mac(MacCheck {
                running,
                tags: held.tags().clone(),
                tag_bytes: tag_bytes(algorithm),
            }),
        }
    }

    /// Nothing of the body is needed: the head has proved it with this secret.
    pub(super) fn proven(secret_index: usize) -> Self {
        Self { proof: Progress::Proven { secret_index } }
    }

    /// Takes the next piece of the body.
    pub fn update(&mut self, body: &[u8]) {
        match &mut self.proof {
            Progress::Mac(check) => check.running.iter_mut().for_each(|(_, running)| running.update(body)),
            Progress::Ed25519(_) | Progress::Proven { .. } => {}
        }
    }

    /// Whether [`Scheme::finish`](super::Scheme::finish) reads the body, because the signature cannot be checked in pieces.
    pub fn needs_whole_body(&self) -> bool {
        matches!(self.proof, Progress::Ed25519(_))
    }

    /// Which of the configured secrets matches.
    pub(super) fn finish(self, crypto: &C, body: &[u8]) -> Option<usize> {
        match self.proof {
            Progress::Mac(check) => check.finish(),
            Progress::Ed25519(check) => check.finish(crypto, body),
            Progress::Proven { secret_index } => Some(secret_index),
        }
    }
}

impl<C: SignatureVerifier> fmt::Debug for Check<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").finish_non_exhaustive()
    }
}

enum Progress<R> {
    Mac(MacCheck<R>),
    Ed25519(Ed25519Check),
    Proven { secret_index: usize },
}

/// One running HMAC per secret, with its index.
struct MacCheck<R> {
    running: SmallVec<[(usize, R); 1]>,
    tags: Signatures,
    tag_bytes: usize,
}

impl<R: RunningMac> MacCheck<R> {
    /// Compares every tag with every secret's, whatever matches. Backwards, so that the first index wins.
    fn finish(self) -> Option<usize> {
        let mut matching = Matching::new();
        for (index, running) in self.running.into_iter().rev() {
            let (mut expected, length) = running.finish();
            assert_eq!(length, self.tag_bytes, "the algorithm fixes the length of its tag");
            matching.compare(index, &expected[..length], &self.tags);
            expected.zeroize();
        }
        matching.found()
    }
}

struct Ed25519Check {
    /// The preamble; the body joins it at the end.
    message: Vec<u8>,
    keys: Vec<PublicKey>,
    signatures: Signatures,
}

impl Ed25519Check {
    /// Nothing here is secret, so the first match ends it.
    fn finish<C: SignatureVerifier>(mut self, crypto: &C, body: &[u8]) -> Option<usize> {
        self.message.reserve_exact(body.len());
        self.message.extend_from_slice(body);
        let verify = |key: &&PublicKey| {
            self.signatures.iter().any(|signature| {
                crypto.verify(SignatureAlgorithm::Ed25519, &key.bytes, &self.message, signature)
            })
        };
        self.keys.iter().find(verify).map(|key| key.index)
    }
}
