//! Exports: a log's entries and checkpoints as lines of JSON, checked without the log's database or anybody's word.
//!
//! What is checked: each entry continues the one before; each checkpoint is signed and has the root of the entries before
//! it; enough witnesses cosigned. Entries after the last such checkpoint may be true, and nobody vouches for them.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::entry::{Entry, EntryError};
use crate::hash::Hash;
use crate::key::LogKey;
use crate::note::Note;
use crate::tree::Frontier;

const FORMAT: &str = "zen-audit-export-v1";

/// A line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    /// The first.
    Format(String),
    /// An entry's bytes, base64.
    Entry(String),
    /// A signed note.
    Checkpoint(String),
}

/// An export as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// As they were stored, from the first.
    pub entries: Vec<Vec<u8>>,
    /// In any order.
    pub checkpoints: Vec<Note>,
}

/// Whose signatures count.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The log's.
    pub log: LogKey,
    /// Those of witnesses.
    pub witnesses: Vec<LogKey>,
    /// How many of them a checkpoint needs to be anchored.
    pub quorum: usize,
}

/// What was found: `anchored <= signed <= entries`, and nothing is said of entries from the fault on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Entries from the first on that enough witnesses vouch for.
    pub anchored: u64,
    /// Entries that the log has signed for.
    pub signed: u64,
    /// How many entries there are.
    pub entries: u64,
    /// What does not hold.
    pub fault: Option<ExportError>,
}

/// Why an export does not hold, and from which entry on nothing can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// Not an export at all.
    #[error("line {line} is not of an export")]
    Line {
        /// From 1.
        line: usize,
    },
    /// An entry was changed, swapped, left out or put in.
    #[error("entry {index}: {source}")]
    Entry {
        /// From 0.
        index: u64,
        /// What is wrong with it.
        source: EntryError,
    },
    /// A checkpoint that is none, or that another key signed.
    #[error("a checkpoint does not hold: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// Fewer entries than the log has signed for.
    #[error("entries {entries} to {signed} are missing: the log has signed for {signed}")]
    Missing {
        /// How many there are.
        entries: u64,
        /// How many there should be.
        signed: u64,
    },
    /// Other entries than the log has signed for.
    #[error("the entries before {size} are not those that were signed; those before {good} are")]
    Root {
        /// Of the first checkpoint that does not hold.
        size: u64,
        /// Of the last one before that does.
        good: u64,
    },
}

impl ExportError {
    /// The first entry for which nothing can be said.
    pub fn at(&self) -> u64 {
        match self {
            Self::Line { .. } | Self::Checkpoint(_) => 0,
            Self::Entry { index, .. } => *index,
            Self::Missing { entries, .. } => *entries,
            Self::Root { good, .. } => *good,
        }
    }
}

impl Export {
    /// Reads the lines of an export.
    pub fn parse(text: &str) -> Result<Self, ExportError> {
        let mut export = Self::default();
        let mut is_first = true;
        for (number, text) in text.lines().enumerate() {
            let fault = ExportError::Line { line: number + 1 };
            let line: Line = serde_json::from_str(text).map_err(|_| fault)?;
            match line {
                Line::Format(format) if is_first && format == FORMAT => {}
                Line::Entry(data) if !is_first => {
                    export.entries.push(BASE64_STANDARD.decode(data).map_err(|_| fault)?);
                }
                Line::Checkpoint(note) if !is_first => {
                    export.checkpoints.push(Note::parse(&note).map_err(|_| fault)?);
                }
                _ => return Err(fault),
            }
            is_first = false;
        }
        if is_first { Err(ExportError::Line { line: 1 }) } else { Ok(export) }
    }

    /// The lines, each with its newline.
    pub fn text(&self) -> String {
        let entries = self.entries.iter().map(|bytes| Self::entry_line(bytes));
        let checkpoints = self.checkpoints.iter().map(Self::checkpoint_line);
        std::iter::once(Self::first_line()).chain(entries).chain(checkpoints).collect()
    }

    /// The line before all others, for whoever writes an export piece by piece.
    pub fn first_line() -> String {
        Line::Format(FORMAT.to_owned()).text()
    }

    /// The line of an entry's bytes; entries come in their order, before checkpoints.
    pub fn entry_line(bytes: &[u8]) -> String {
        Line::Entry(BASE64_STANDARD.encode(bytes)).text()
    }

    /// The line of a checkpoint.
    pub fn checkpoint_line(note: &Note) -> String {
        Line::Checkpoint(note.to_string()).text()
    }
}

impl Line {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("texts are JSON") + "\n"
    }
}

/// Checks an export; says how far it is vouched for.
pub fn verify_export(export: &Export, trust: &Trust) -> Finding {
    let entries = export.entries.len() as u64;
    let claims = match claims(export, trust) {
        Ok(claims) => claims,
        Err(fault) => return Finding { anchored: 0, signed: 0, entries, fault: Some(fault) },
    };
    let mut good = 0;
    let fault = walk(export, &claims, &mut good).err();
    let vouched = claims.range(..=good).filter(|(_, claims)| claims.iter().any(|claim| claim.is_anchored));
    let anchored = vouched.map(|(size, _)| *size).next_back().unwrap_or(0);
    Finding { anchored, signed: good, entries, fault }
}

/// Goes through the entries; `good` is the size of the last checkpoint that held.
fn walk(export: &Export, claims: &Claims, good: &mut u64) -> Result<(), ExportError> {
    let (mut frontier, mut previous) = (Frontier::default(), Entry::before_the_first());
    check_claims(claims, &frontier, good)?;
    for (index, bytes) in export.entries.iter().enumerate() {
        let index = index as u64;
        Entry::read(bytes, index, &previous).map_err(|source| ExportError::Entry { index, source })?;
        previous = Entry::leaf(bytes);
        frontier.append(previous, |_, _| {});
        check_claims(claims, &frontier, good)?;
    }
    let (entries, signed) = (frontier.size(), claims.keys().next_back().copied().unwrap_or(0));
    if signed > entries { Err(ExportError::Missing { entries, signed }) } else { Ok(()) }
}

/// By size.
type Claims = BTreeMap<u64, Vec<Claim>>;

/// A root that the log has signed for.
struct Claim {
    root: Hash,
    is_anchored: bool,
}

fn claims(export: &Export, trust: &Trust) -> Result<Claims, ExportError> {
    let mut claims = Claims::new();
    for note in &export.checkpoints {
        let checkpoint = Checkpoint::verify(note, &trust.log)?;
        let mut witnesses = 0;
        for key in &trust.witnesses {
            witnesses += usize::from(note.verify(key).map_err(CheckpointError::from)?.is_some());
        }
        let is_anchored = witnesses >= trust.quorum.max(1);
        claims.entry(checkpoint.size).or_default().push(Claim { root: checkpoint.root, is_anchored });
    }
    Ok(claims)
}

fn check_claims(claims: &Claims, frontier: &Frontier, good: &mut u64) -> Result<(), ExportError> {
    let size = frontier.size();
    let Some(claims) = claims.get(&size) else { return Ok(()) };
    let root = frontier.root();
    if claims.iter().any(|claim| claim.root != root) {
        return Err(ExportError::Root { size, good: *good });
    }
    *good = size;
    Ok(())
}
