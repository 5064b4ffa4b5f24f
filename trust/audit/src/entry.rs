//! Entries: who did what to what, when, and how it ended. What is stored, hashed and exported is these bytes, never a second
//! writing of them. No payload, no secret; people by issuer and subject, not by address.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::{Hash, leaf_hash};

/// Longest actor, action, tenant or target, bytes.
pub const TEXT_BYTES_MAX: usize = 2048;
/// Longest request id, bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// One entry, JSON in this order of fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its index in the log.
    pub sequence: u64,
    /// Unix milliseconds, of the clock of whoever wrote it.
    pub time_ms: u64,
    /// Whose matter it is; empty if nobody's alone.
    pub tenant: String,
    /// A SPIFFE id, `issuer|subject`, or the command line's user.
    pub actor: String,
    /// What was asked, as `bundles.create`.
    pub action: String,
    /// What it was asked of, as `clusters/edge`.
    pub target: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The same in the log of the process.
    pub request_id: String,
    /// Hash of the leaf before, all zeros for the first.
    #[serde(serialize_with = "write_hash", deserialize_with = "read_hash")]
    pub previous: Hash,
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done, in the same transaction.
    Done,
    /// Who asked may not, or asked for what cannot be.
    Refused,
    /// It was tried and came to nothing.
    Failed,
}

/// Why bytes are no entry, or not the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not this object.
    #[error("the entry cannot be read")]
    Form,
    /// Longer than they may be.
    #[error("a text of the entry is too long")]
    Length,
    /// Of another place.
    #[error("the entry says that it is number {found}")]
    Sequence {
        /// What it says.
        found: u64,
    },
    /// Another leaf is before it.
    #[error("the entry continues another one")]
    Previous,
}

impl Entry {
    /// The bytes to store.
    pub fn bytes(&self) -> Result<Vec<u8>, EntryError> {
        self.check_lengths()?;
        Ok(serde_json::to_vec(self).expect("texts and numbers are JSON"))
    }

    /// Reads stored bytes as the entry after `previous`, the leaf hash at `sequence - 1`.
    pub fn read(bytes: &[u8], sequence: u64, previous: &Hash) -> Result<Self, EntryError> {
        let entry: Self = serde_json::from_slice(bytes).map_err(|_| EntryError::Form)?;
        entry.check_lengths()?;
        if entry.sequence != sequence {
            return Err(EntryError::Sequence { found: entry.sequence });
        }
        if entry.previous != *previous {
            return Err(EntryError::Previous);
        }
        Ok(entry)
    }

    /// What the first entry continues.
    pub fn before_the_first() -> Hash {
        Hash([0; 32])
    }

    /// The leaf of stored bytes.
    pub fn leaf(bytes: &[u8]) -> Hash {
        leaf_hash(bytes)
    }

    fn check_lengths(&self) -> Result<(), EntryError> {
        let texts = [&self.tenant, &self.actor, &self.action, &self.target];
        let fits = texts.iter().all(|text| text.len() <= TEXT_BYTES_MAX);
        let is_whole = fits && self.request_id.len() <= REQUEST_ID_BYTES_MAX;
        if is_whole { Ok(()) } else { Err(EntryError::Length) }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        })
    }
}

fn write_hash<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(hash)
}

fn read_hash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
    let text = String::deserialize(deserializer)?;
    Hash::from_base64(&text).ok_or_else(|| serde::de::Error::custom("a hash is base64 of 32 bytes"))
}
