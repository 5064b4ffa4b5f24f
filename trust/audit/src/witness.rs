//! A witness: keeps the last checkpoint that it saw of a log, and cosigns only what continues it.

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::Hash;
use crate::key::LogKey;
use crate::note::Note;
use crate::proof::{ProofError, verify_consistency};

/// What a witness knows of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    log: LogKey,
    last: Option<Checkpoint>,
}

/// Why a checkpoint is not cosigned: the log was changed, or somebody else speaks for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alarm {
    /// Not what the log signs.
    #[error("a checkpoint that is none: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The log has become shorter.
    #[error("the log has {found} entries and had {seen}: it was cut or is an old copy")]
    Shorter {
        /// How many the checkpoint has.
        found: u64,
        /// How many were seen.
        seen: u64,
    },
    /// Same size, other entries.
    #[error("the log has two roots for {size} entries: it was written anew or is shown twice")]
    Fork {
        /// How many entries both have.
        size: u64,
    },
    /// It does not continue what was seen.
    #[error("the log with {found} entries does not continue the one with {seen}: {source}")]
    Rewritten {
        /// How many the checkpoint has.
        found: u64,
        /// How many were seen.
        seen: u64,
        /// What is wrong with the proof.
        source: ProofError,
    },
}

impl Witness {
    /// A witness of the log with this key, which saw `last`. Without one the first checkpoint is trusted, whatever it is.
    pub fn new(log: LogKey, last: Option<Checkpoint>) -> Self {
        Self { log, last }
    }

    /// What was seen last.
    pub fn last(&self) -> Option<&Checkpoint> {
        self.last.as_ref()
    }

    /// Takes a checkpoint with the proof that it continues [`Witness::last`]. The caller keeps it on disk before it cosigns.
    pub fn handle_checkpoint(&mut self, note: &Note, proof: &[Hash]) -> Result<&Checkpoint, Alarm> {
        let found = Checkpoint::verify(note, &self.log)?;
        if let Some(seen) = &self.last {
            check_continues(seen, &found, proof)?;
        }
        Ok(self.last.insert(found))
    }
}

fn check_continues(seen: &Checkpoint, found: &Checkpoint, proof: &[Hash]) -> Result<(), Alarm> {
    if found.size < seen.size {
        return Err(Alarm::Shorter { found: found.size, seen: seen.size });
    }
    if found.size == seen.size && found.root != seen.root {
        return Err(Alarm::Fork { size: seen.size });
    }
    verify_consistency((seen.size, &seen.root), (found.size, &found.root), proof)
        .map_err(|source| Alarm::Rewritten { found: found.size, seen: seen.size, source })
}
