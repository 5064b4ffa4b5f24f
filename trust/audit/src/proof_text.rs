//! A proof for one entry that stands alone (C2SP tlog-proof): index, hashes, and a checkpoint with its signatures.

use std::fmt;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::{Hash, leaf_hash};
use crate::key::LogKey;
use crate::note::{NOTE_BYTES_MAX, Note, NoteError};
use crate::proof::{ProofError, verify_inclusion};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
/// No tree is higher.
const HASHES_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = NOTE_BYTES_MAX + HASHES_MAX * 45 + 64;

/// That an entry is in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryProof {
    /// Of the entry, from 0.
    pub index: u64,
    /// From the leaf's sibling up.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint.
    pub checkpoint: Note,
}

/// Why a text proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofTextError {
    /// Not of the form.
    #[error("the proof is not `{FIRST_LINE}`, index, hashes, an empty line and a checkpoint")]
    Form,
    /// The note in it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The checkpoint in it.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It leads elsewhere.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl EntryProof {
    /// Reads one. Extra data is refused: nothing signs it.
    pub fn parse(text: &str) -> Result<Self, ProofTextError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ProofTextError::Form);
        }
        let (head, note) = text.split_once("\n\n").ok_or(ProofTextError::Form)?;
        let mut lines = head.split('\n');
        let index = match (lines.next(), lines.next().and_then(|line| line.strip_prefix("index "))) {
            (Some(FIRST_LINE), Some(index)) => decimal(index).ok_or(ProofTextError::Form)?,
            _ => return Err(ProofTextError::Form),
        };
        let hashes = lines.map(Hash::from_base64).collect::<Option<Vec<_>>>().ok_or(ProofTextError::Form)?;
        if hashes.len() > HASHES_MAX {
            return Err(ProofTextError::Form);
        }
        Ok(Self { index, hashes, checkpoint: Note::parse(note)? })
    }

    /// Checks that the log with this key has `entry`; says of which checkpoint.
    pub fn verify(&self, entry: &[u8], log: &LogKey) -> Result<Checkpoint, ProofTextError> {
        let checkpoint = Checkpoint::verify(&self.checkpoint, log)?;
        let place = (self.index, checkpoint.size);
        verify_inclusion(&leaf_hash(entry), place, &self.hashes, &checkpoint.root)?;
        Ok(checkpoint)
    }
}

impl fmt::Display for EntryProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FIRST_LINE}\nindex {}\n", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{hash}")?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

fn decimal(text: &str) -> Option<u64> {
    let is_plain =
        text == "0" || (!text.starts_with('0') && text.bytes().all(|digit| digit.is_ascii_digit()));
    text.parse().ok().filter(|_| is_plain)
}
