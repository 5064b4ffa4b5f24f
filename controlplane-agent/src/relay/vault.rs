//! Receipts of the host's lockd: their digests, from files that anybody on the host may read. Lines stay where they are.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zen_control_api::{DIGESTS_MAX, DigestReport, RECEIPTS, RelayAnswer};

use super::{ROUNDS_MAX, RelayError, open};
use crate::control_plane::{Connection, ControlPlane};

/// Longest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// How far they are.
#[derive(Default)]
pub(super) struct VaultCourse {
    directory: Option<PathBuf>,
    key: String,
    digests: Option<RelayAnswer>,
}

impl VaultCourse {
    /// Of a directory, if lockd keeps its receipts where the agent can read their digests.
    pub(super) fn of(directory: Option<PathBuf>) -> Self {
        Self { directory, ..Self::default() }
    }

    /// Whether there is more than was said now.
    pub(super) async fn step(
        &mut self,
        control: &ControlPlane,
        connection: &mut Option<Connection>,
    ) -> Result<bool, RelayError> {
        let Some(directory) = self.directory.clone() else { return Ok(false) };
        let key = read(&directory.join("receipts.pub"))?.trim_end().to_owned();
        if self.key != key {
            (self.key, self.digests) = (key, None);
        }
        for _ in 0..ROUNDS_MAX {
            let digests = match self.digests {
                None => Vec::new(),
                Some(RelayAnswer { last }) => behind(&directory.join("digests"), last)?,
            };
            if digests.is_empty() && self.digests.is_some() {
                return Ok(false);
            }
            let report = DigestReport { member: None, key: self.key.clone(), digests };
            self.digests = Some(open(control, connection).await?.relay(RECEIPTS, &report).await?);
        }
        Ok(true)
    }
}

/// Notes of the segments behind one, oldest first, as many as a report takes.
fn behind(directory: &Path, last: Option<u64>) -> Result<Vec<String>, RelayError> {
    let failed = |error: io::Error| format!("{}: {error}", directory.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(".note")).and_then(|name| name.parse().ok());
        found.extend(
            number.filter(|number| last.is_none_or(|last| *number > last)).map(|number| (number, name)),
        );
    }
    found.sort_unstable();
    found.into_iter().take(DIGESTS_MAX).map(|(_, name)| read(&directory.join(name))).collect()
}

fn read(path: &Path) -> Result<String, RelayError> {
    let mut text = String::new();
    let opened = fs::File::open(path).map(|file| file.take(FILE_BYTES_MAX));
    let read = opened.and_then(|mut file| file.read_to_string(&mut text));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text)
}
