//! Identities that are refused before their certificates expire: entries in, a denial out.
//!
//! A short life is the first means of revocation; this list is the second, for the hours in between.
//! Keys are matched in the whole chain, serial numbers and ids in the leaf.

use std::collections::HashSet;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;

use crate::SpiffeId;
use crate::certificate::{Certificate, trim_serial};
use crate::svid::peer_id;

/// One denied identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DenyEntry {
    /// A serial number, big-endian; leading zeros do not count.
    Serial(Vec<u8>),
    /// SHA-256 of the DER subjectPublicKeyInfo.
    PublicKey([u8; 32]),
    /// An exact SPIFFE id.
    Id(SpiffeId),
}

/// What of a peer is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Its certificate's serial number.
    Serial,
    /// Its key, or the key of one of its issuers.
    PublicKey,
    /// Its SPIFFE id.
    Id,
}

/// Denied identities; the default denies nobody.
#[derive(Clone, Debug, Default)]
pub struct DenyList {
    entries: HashSet<DenyEntry>,
}

impl DenyList {
    /// A list of these entries.
    pub fn new(entries: impl IntoIterator<Item = DenyEntry>) -> Self {
        let normal = |entry| match entry {
            DenyEntry::Serial(serial) => DenyEntry::Serial(trim_serial(&serial).to_vec()),
            other => other,
        };
        Self { entries: entries.into_iter().map(normal).collect() }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody is denied.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a chain that was accepted before is denied now, leaf first; for live connections.
    pub fn denies(&self, chain: &[CertificateDer<'_>]) -> Option<Denial> {
        if self.is_empty() {
            return None;
        }
        let certificates: Vec<_> =
            chain.iter().filter_map(|certificate| Certificate::parse(certificate).ok()).collect();
        let (leaf, issuers) = certificates.split_first()?;
        let denied = peer_id(Some(chain)).and_then(|id| self.check_leaf(leaf, &id));
        denied.or_else(|| issuers.iter().any(|issuer| self.holds_key_of(issuer)).then_some(Denial::PublicKey))
    }

    pub(crate) fn check_leaf(&self, leaf: &Certificate<'_>, id: &SpiffeId) -> Option<Denial> {
        if self.is_empty() {
            return None;
        }
        if self.entries.contains(&DenyEntry::Serial(leaf.serial().to_vec())) {
            return Some(Denial::Serial);
        }
        if self.holds_key_of(leaf) {
            return Some(Denial::PublicKey);
        }
        self.entries.contains(&DenyEntry::Id(id.clone())).then_some(Denial::Id)
    }

    pub(crate) fn holds_key_of(&self, certificate: &Certificate<'_>) -> bool {
        if self.is_empty() {
            return false;
        }
        let hash = digest(&SHA256, certificate.public_key_info());
        let hash = hash.as_ref().try_into().expect("SHA-256 is 32 bytes");
        self.entries.contains(&DenyEntry::PublicKey(hash))
    }
}
