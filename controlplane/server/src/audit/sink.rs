//! A file that entries are added to as they come, a line of JSON each, for whoever collects logs elsewhere.
//!
//! A line is the entry's bytes, so that what was collected can be compared with the log. Where it goes on is read from its
//! own end; a line that was torn by a crash stays, and its entry comes once more.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rusqlite::Connection;
use zen_audit::Entry;

use super::log::size;
use crate::ControlError;
use crate::database::integer;
use crate::directory::PRIVATE_MODE;

/// Longest end of the file that is read, bytes: it holds an entry of the longest texts, however they are escaped.
const TAIL_BYTES_MAX: u64 = 128 * 1024;
/// Most entries that are added at a time.
const SINK_ENTRIES_MAX: i64 = 10_000;

/// The file, and which entry is the next.
#[derive(Debug)]
pub(crate) struct Sink {
    path: PathBuf,
    file: File,
    next: u64,
}

impl Sink {
    /// Opens the file, or makes it; entries that it lacks are added next.
    pub(crate) fn open(path: PathBuf) -> Result<Self, ControlError> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(PRIVATE_MODE);
        let mut file = options.open(&path).map_err(ControlError::file(&path))?;
        let next = resume(&mut file).map_err(ControlError::file(&path))?;
        Ok(Self { path, file, next })
    }

    /// Adds what is new, on the disk when this returns.
    pub(crate) fn add(&mut self, database: &Connection) -> Result<(), ControlError> {
        let size = size(database)?;
        if self.next > size {
            let fault = "has more entries than the log";
            return Err(ControlError::AuditTruncated { file: self.path.clone(), fault });
        }
        let sql = "SELECT bytes FROM audit_entries WHERE sequence >= ?1 ORDER BY sequence LIMIT ?2";
        let mut statement = database.prepare_cached(sql)?;
        let rows =
            statement.query_map((integer(self.next), SINK_ENTRIES_MAX), |row| row.get::<_, Vec<u8>>(0))?;
        let mut lines = Vec::new();
        let mut count = 0;
        for bytes in rows {
            lines.extend_from_slice(&bytes?);
            lines.push(b'\n');
            count += 1;
        }
        if count > 0 {
            let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
            written.map_err(ControlError::file(&self.path))?;
            self.next += count;
        }
        Ok(())
    }
}

/// The sequence after the last whole line's.
fn resume(file: &mut File) -> std::io::Result<u64> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    if tail.last().is_some_and(|last| *last != b'\n') {
        file.write_all(b"\n")?;
    }
    let mut lines = tail.split(|byte| *byte == b'\n').rev();
    let last = lines.find_map(|line| serde_json::from_slice::<Entry>(line).ok());
    Ok(last.map_or(0, |entry| entry.sequence + 1))
}
