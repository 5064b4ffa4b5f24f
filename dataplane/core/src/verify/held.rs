//! A request whose whole proof is one HMAC-SHA256 over a short text and its body, to be computed beside others.
//!
//! Enters: a claim, and later one expected tag for each secret of the endpoint. Leaves: the text before the body,
//! and which secret matches. Every shown tag is compared with every secret's in constant time, whatever matches.
//! One whose body turns out too long to be held goes on as a [`Check`] in pieces.

use core::fmt;

use smallvec::SmallVec;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::Check;
use super::claim::{Claim, Proof, Signatures};
use super::secret::Secret;
use crate::crypto::{HashAlgorithm, SignatureVerifier, Tag};

/// Room for the text before most bodies; a longer one is on the heap. Bytes.
const PREAMBLE_BYTES: usize = 64;

/// A request whose headers are in order, and what is to be done with its body.
pub enum Started<C: SignatureVerifier> {
    /// It is kept whole, and its HMAC computed with those of others.
    Held(Held),
    /// It is hashed as it arrives.
    Running(Check<C>),
}

/// A request that waits for one HMAC-SHA256 under each secret of its endpoint.
pub struct Held {
    preamble: SmallVec<[u8; PREAMBLE_BYTES]>,
    tags: Signatures,
}

impl Held {
    /// What is signed before the body.
    pub fn preamble(&self) -> &[u8] {
        &self.preamble
    }

    pub(super) fn tags(&self) -> &Signatures {
        &self.tags
    }

    /// The index of the first secret whose expected tag is among those shown.
    pub(super) fn matching(&self, secrets: &[Secret], expected: &[Tag]) -> Option<usize> {
        assert_eq!(expected.len(), secrets.len(), "an expected tag for each secret");
        let mut matching = Matching::new();
        for (secret, tag) in secrets.iter().zip(expected).rev() {
            matching.compare(secret.index, tag, &self.tags);
        }
        matching.found()
    }
}

impl<C: SignatureVerifier> Started<C> {
    /// Holds back what one HMAC-SHA256 proves; anything else is checked in its own way.
    pub(super) fn new(claim: Claim<'_>, crypto: &C) -> Self {
        match claim.proof {
            Proof::Mac { algorithm: HashAlgorithm::Sha256, tags, .. } => {
                let mut preamble = SmallVec::new();
                claim.preamble.iter().for_each(|part| preamble.extend_from_slice(part.as_bytes()));
                Self::Held(Held { preamble, tags })
            }
            _ => Self::Running(Check::new(claim, crypto)),
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

impl<C: SignatureVerifier> fmt::Debug for Started<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(held) => held.fmt(f),
            Self::Running(check) => check.fmt(f),
        }
    }
}

/// Which secret matches. Secrets are compared backwards, so that the first index wins.
pub(super) struct Matching {
    matched: Choice,
    index: u64,
}

impl Matching {
    pub(super) fn new() -> Self {
        Self { matched: Choice::from(0), index: 0 }
    }

    /// Compares what a secret gives with every tag shown.
    pub(super) fn compare(&mut self, index: usize, expected: &[u8], shown: &Signatures) {
        for tag in shown {
            let equal = expected.ct_eq(&tag[..expected.len()]);
            self.index.conditional_assign(&(index as u64), equal);
            self.matched |= equal;
        }
    }

    pub(super) fn found(self) -> Option<usize> {
        bool::from(self.matched).then_some(self.index as usize)
    }
}
