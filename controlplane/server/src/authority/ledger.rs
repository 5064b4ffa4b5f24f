//! Which CAs there are: one small file, replaced whole, that names the files of keys and certificates.
//!
//! Number 1 of each kind has the names that `init` gives; a directory without the file has those and no others.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{end_of, no_certificate, start_of};
use crate::ControlError;
use crate::directory::{self, Directory, PRIVATE_MODE, PUBLIC_MODE};

const VERSION: u32 = 1;
/// Most roots at a time: the one that signs, and its successor.
pub(crate) const ROOTS_MAX: usize = 2;

/// All CAs of a directory, each kind in the order in which they were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ledger {
    version: u32,
    /// One or two.
    pub(crate) roots: Vec<Root>,
    /// One at least, and one at least has been in use.
    pub(crate) issuing: Vec<Issuing>,
}

/// A root; times are Unix ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    pub(crate) number: u64,
    pub(crate) prepared_at_ms: u64,
    pub(crate) ends_at_ms: u64,
}

/// An issuing CA; times are Unix ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issuing {
    pub(crate) number: u64,
    /// Number of the root that signed it.
    pub(crate) root: u64,
    pub(crate) prepared_at_ms: u64,
    pub(crate) ends_at_ms: u64,
    /// When it began to sign.
    pub(crate) used_from_ms: Option<u64>,
}

/// The two kinds of CAs, by the names of their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Root,
    Issuing,
}

impl Kind {
    /// The file of a private key.
    pub(crate) fn key(self, number: u64) -> String {
        self.file(number, "key")
    }

    /// The file of a certificate.
    pub(crate) fn certificate(self, number: u64) -> String {
        self.file(number, "pem")
    }

    fn file(self, number: u64, extension: &str) -> String {
        let name = match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
        };
        if number == 1 { format!("{name}.{extension}") } else { format!("{name}-{number}.{extension}") }
    }
}

impl Ledger {
    /// Of a new directory: one of each.
    pub(crate) fn first(root: Root, issuing: Issuing) -> Self {
        Self { version: VERSION, roots: vec![root], issuing: vec![issuing] }
    }

    /// The text that is compared to see whether anything changed.
    pub(crate) fn text(directory: &Directory) -> Result<String, ControlError> {
        if directory.path(directory::AUTHORITY).exists() {
            return Ok(directory.read(directory::AUTHORITY)?.to_string());
        }
        Ok(Self::of_plain_files(directory)?.written())
    }

    /// What the directory has.
    pub(crate) fn read(directory: &Directory) -> Result<Self, ControlError> {
        Self::parse(&Self::text(directory)?, &directory.path(directory::AUTHORITY))
    }

    /// What such a text says.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ControlError> {
        let read: Self = serde_json::from_str(text)
            .map_err(|source| ControlError::Json { path: path.to_owned(), source })?;
        let is_whole = read.version == VERSION
            && (1..=ROOTS_MAX).contains(&read.roots.len())
            && read.issuing.iter().any(|issuing| issuing.used_from_ms.is_some())
            && read.issuing.iter().all(|issuing| read.roots.iter().any(|root| root.number == issuing.root));
        if is_whole {
            Ok(read)
        } else {
            Err(ControlError::Content { path: path.to_owned(), what: "a list of CAs" })
        }
    }

    /// Replaces what the directory has. The roots' file has at least these roots at any moment.
    pub(crate) fn write(&self, directory: &Directory) -> Result<(), ControlError> {
        let bundle = self.trust_bundle(directory)?;
        let present = directory.read(directory::ROOTS).map(|text| text.to_string()).unwrap_or_default();
        if bundle.len() > present.len() {
            directory.replace(directory::ROOTS, &bundle, PUBLIC_MODE)?;
        }
        directory.replace(directory::AUTHORITY, &self.written(), PRIVATE_MODE)?;
        self.write_roots(directory)
    }

    /// Writes the roots' file if it is another one.
    pub(crate) fn write_roots(&self, directory: &Directory) -> Result<(), ControlError> {
        let bundle = self.trust_bundle(directory)?;
        match directory.read(directory::ROOTS) {
            Ok(present) if *present == bundle => Ok(()),
            _ => directory.replace(directory::ROOTS, &bundle, PUBLIC_MODE),
        }
    }

    /// All roots, PEM, the oldest first.
    pub(crate) fn trust_bundle(&self, directory: &Directory) -> Result<String, ControlError> {
        let mut bundle = String::new();
        for root in &self.roots {
            bundle.push_str(&directory.read(&Kind::Root.certificate(root.number))?);
        }
        Ok(bundle)
    }

    /// The issuing CA that signs now.
    pub(crate) fn active(&self) -> &Issuing {
        let used = self.issuing.iter().filter(|issuing| issuing.used_from_ms.is_some());
        used.max_by_key(|issuing| (issuing.used_from_ms, issuing.number)).expect("checked when it was read")
    }

    /// The newest root, which is the one that signs unless it is being rotated.
    pub(crate) fn newest_root(&self) -> &Root {
        self.roots.last().expect("checked when it was read")
    }

    /// A root of the list.
    pub(crate) fn root(&self, number: u64) -> Option<&Root> {
        self.roots.iter().find(|root| root.number == number)
    }

    /// A number that no issuing CA has had.
    pub(crate) fn next_issuing(&self) -> u64 {
        self.issuing.iter().map(|issuing| issuing.number).max().unwrap_or(0) + 1
    }

    /// In words, a line each.
    pub(crate) fn lines(&self, now_ms: u64) -> Vec<String> {
        let days = |at_ms: u64| at_ms.saturating_sub(now_ms) / (24 * 3600 * 1000);
        let active = self.active().number;
        let root = |root: &Root| format!("root {}: {} days left", root.number, days(root.ends_at_ms));
        let issuing = |issuing: &Issuing| {
            let state = match issuing.used_from_ms {
                _ if issuing.number == active => "signs",
                Some(_) => "was replaced",
                None => "is prepared",
            };
            let Issuing { number, root, ends_at_ms, .. } = *issuing;
            format!("issuing CA {number} under root {root}: {state}, {} days left", days(ends_at_ms))
        };
        self.roots.iter().map(root).chain(self.issuing.iter().map(issuing)).collect()
    }

    fn written(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers are JSON") + "\n"
    }

    fn of_plain_files(directory: &Directory) -> Result<Self, ControlError> {
        let life = |kind: Kind| {
            let name = kind.certificate(1);
            let pem = directory.read(&name)?;
            start_of(&pem).zip(end_of(&pem)).ok_or_else(|| no_certificate(directory, &name))
        };
        let ((prepared_at_ms, ends_at_ms), (from_ms, until_ms)) = (life(Kind::Root)?, life(Kind::Issuing)?);
        let root = Root { number: 1, prepared_at_ms, ends_at_ms };
        let issuing = Issuing {
            number: 1,
            root: 1,
            prepared_at_ms: from_ms,
            ends_at_ms: until_ms,
            used_from_ms: Some(from_ms),
        };
        Ok(Self::first(root, issuing))
    }
}
