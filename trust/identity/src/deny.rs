//! Identities that are refused before their certificates expire: entries in, a denial out.
//!
//! A short life is the first means of revocation; this list is the second, for the hours in between.
//! Keys are matched in the whole chain, serial numbers and ids in the leaf.

pub(crate) mod document;

use std::cmp::Reverse;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, UnixTime};

use self::document::Document;
use crate::certificate::{Certificate, trim_serial};
use crate::svid::peer_id;
use crate::{IdentityError, SpiffeId, files};

/// One denied identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl Denial {
    /// A label for counting; the entry's member in the list.
    pub fn label(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::PublicKey => "spki_sha256",
            Self::Id => "spiffe_id",
        }
    }
}

/// Denied identities; the default denies nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenyList {
    /// Sorted, each once, with the last moment at which it counts, Unix ms.
    entries: Vec<(DenyEntry, u64)>,
}

/// Why a deny list was not read.
#[derive(Debug, thiserror::Error)]
pub enum DenyListError {
    /// Over [`DENY_LIST_BYTES_MAX`](crate::DENY_LIST_BYTES_MAX).
    #[error("the deny list is over 1 MiB")]
    TooLarge,
    /// Not the JSON that is documented, or an entry that names nobody.
    #[error("the deny list is not as documented: {0}")]
    Document(#[from] serde_json::Error),
}

impl DenyList {
    /// A list of these entries, which have no end.
    pub fn new(entries: impl IntoIterator<Item = DenyEntry>) -> Self {
        Self::of(entries.into_iter().map(|entry| (entry, u64::MAX)).collect())
    }

    /// Of two entries for the same the one counts that ends later.
    fn of(mut entries: Vec<(DenyEntry, u64)>) -> Self {
        for (entry, _) in &mut entries {
            if let DenyEntry::Serial(serial) = entry {
                *serial = trim_serial(serial).to_vec();
            }
        }
        entries.sort_unstable_by(|one, other| (&one.0, Reverse(one.1)).cmp(&(&other.0, Reverse(other.1))));
        entries.dedup_by(|later, first| later.0 == first.0);
        entries.shrink_to_fit();
        Self { entries }
    }

    /// The list in a file; at most 1 MiB.
    pub fn load(file: &Path) -> Result<Self, IdentityError> {
        let refused = |source| IdentityError::DenyList { file: file.into(), source };
        Self::from_json(&files::read(file)?).map_err(refused)
    }

    /// A JSON document of version 1; unknown members are refused.
    pub fn from_json(json: &[u8]) -> Result<Self, DenyListError> {
        if json.len() > document::DENY_LIST_BYTES_MAX {
            return Err(DenyListError::TooLarge);
        }
        Ok(serde_json::from_slice::<Document>(json)?.entries)
    }

    /// How many entries there are, those included that are over.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody is denied.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a chain that was accepted before is denied now, leaf first; for live connections.
    pub fn denies(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Option<Denial> {
        if self.is_empty() {
            return None;
        }
        let certificates: Vec<_> =
            chain.iter().filter_map(|certificate| Certificate::parse(certificate).ok()).collect();
        let (leaf, issuers) = certificates.split_first()?;
        let denied = self.check_leaf(leaf, peer_id(Some(chain)).as_ref(), now);
        let is_denied = |issuer| self.holds_key_of(issuer, now);
        denied.or_else(|| issuers.iter().any(is_denied).then_some(Denial::PublicKey))
    }

    /// `id` is none where a peer is known by a name.
    pub(crate) fn check_leaf(
        &self,
        leaf: &Certificate<'_>,
        id: Option<&SpiffeId>,
        now: UnixTime,
    ) -> Option<Denial> {
        if self.is_empty() {
            return None;
        }
        if self.holds(&DenyEntry::Serial(leaf.serial().to_vec()), now) {
            return Some(Denial::Serial);
        }
        if self.holds_key_of(leaf, now) {
            return Some(Denial::PublicKey);
        }
        id.is_some_and(|id| self.holds(&DenyEntry::Id(id.clone()), now)).then_some(Denial::Id)
    }

    pub(crate) fn holds_key_of(&self, certificate: &Certificate<'_>, now: UnixTime) -> bool {
        if self.is_empty() {
            return false;
        }
        let hash = digest(&SHA256, certificate.public_key_info());
        let hash = hash.as_ref().try_into().expect("SHA-256 is 32 bytes");
        self.holds(&DenyEntry::PublicKey(hash), now)
    }

    /// Certificates know seconds: an entry counts to the end of the second in which it ends.
    fn holds(&self, entry: &DenyEntry, now: UnixTime) -> bool {
        let found = self.entries.binary_search_by(|(known, _)| known.cmp(entry));
        found.is_ok_and(|at| now.as_secs() <= self.entries[at].1 / 1000)
    }
}
