//! Checkpoints (C2SP tlog-checkpoint): whose log, how many entries, which root, as the text of a signed note.

use std::fmt::Write as _;

use crate::hash::Hash;
use crate::key::LogKey;
use crate::note::{Note, NoteError};
use crate::tree::SIZE_MAX;

/// What a log says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: the name of its key.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// Over them.
    pub root: Hash,
}

/// Why a note is no checkpoint of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Its text.
    #[error("the note's text is not origin, size and root")]
    Form,
    /// Of another log.
    #[error("the checkpoint is another log's")]
    Origin,
}

impl Checkpoint {
    /// The text of its note.
    pub fn text(&self) -> String {
        let mut text = String::new();
        writeln!(text, "{}\n{}\n{}", self.origin, self.size, self.root).expect("a string takes all");
        text
    }

    /// Reads a note's text. Lines beyond the three are refused: nobody could audit what they say.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let lines: Vec<&str> = text.strip_suffix('\n').ok_or(CheckpointError::Form)?.split('\n').collect();
        let &[origin, size, root] = lines.as_slice() else { return Err(CheckpointError::Form) };
        let is_decimal =
            size.bytes().all(|digit| digit.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let size = size.parse().ok().filter(|size| is_decimal && *size <= SIZE_MAX);
        match (size, Hash::from_base64(root)) {
            (Some(size), Some(root)) if !origin.is_empty() => {
                Ok(Self { origin: origin.to_owned(), size, root })
            }
            _ => Err(CheckpointError::Form),
        }
    }

    /// What the log with this key signed.
    pub fn verify(note: &Note, log: &LogKey) -> Result<Self, CheckpointError> {
        note.verify(log)?.ok_or(NoteError::Unsigned)?;
        let checkpoint = Self::parse(note.text())?;
        if checkpoint.origin == log.name() { Ok(checkpoint) } else { Err(CheckpointError::Origin) }
    }
}
