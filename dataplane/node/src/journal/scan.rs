//! Reading a journal's files beside its worker, for operators: what is live, and what is kept for replay.
//!
//! A directory and a span of time enter; the records of the segments that may hold it leave, oldest first, a
//! buffer at a time. What a worker is just writing may be missed, and what cannot be read is passed over:
//! nothing that is decided here must be complete.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::ops::{Bound, RangeBounds};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use zen_core::journal::{CommitReader, Record, SegmentId, parse_segment_header};

use super::segments::{retained_directory, segment_path};

const HEADER_BYTES: usize = super::BLOCK_BYTES as usize;
/// Of a segment's first commit: magic, segment and time (docs/journal-format.md).
const FIRST_COMMIT: (u64, usize) = (super::BLOCK_BYTES, 64);
const COMMIT_MAGIC: &[u8] = b"ZCMT";
/// How far clocks may have been set back within a journal, ms.
const CLOCK_SLACK_MS: u64 = 3_600_000;

/// A walk over a journal's files, oldest first.
pub struct Scan {
    directories: [PathBuf; 2],
    files: VecDeque<SegmentId>,
    current: Option<Reading>,
    buffer: Vec<u8>,
}

struct Reading {
    file: File,
    segment: SegmentId,
    reader: CommitReader,
    filled: usize,
    ended: bool,
}

impl Scan {
    /// Over the files in `directory` that may hold records of these times (Unix ms). The buffer takes one commit.
    pub fn new(
        directory: &Path,
        commit_bytes_max: usize,
        times_ms: impl RangeBounds<u64>,
    ) -> io::Result<Self> {
        // Live ones first: a segment that is given up meanwhile is found in its new place.
        let directories = [directory.to_path_buf(), retained_directory(directory)];
        let mut found = BTreeMap::new();
        for id in directories
            .iter()
            .map(|directory| segments_in(directory))
            .collect::<io::Result<Vec<_>>>()?
            .concat()
        {
            found.extend(first_time(&directories, id).map(|time_ms| (id, time_ms)));
        }
        let mut files: VecDeque<(SegmentId, u64)> = found.into_iter().collect();
        let since_ms = match times_ms.start_bound() {
            Bound::Included(since_ms) | Bound::Excluded(since_ms) => *since_ms,
            Bound::Unbounded => 0,
        };
        let until_ms = match times_ms.end_bound() {
            Bound::Included(until_ms) | Bound::Excluded(until_ms) => *until_ms,
            Bound::Unbounded => u64::MAX,
        };
        // A segment ends where the next one begins.
        while files.get(1).is_some_and(|(_, next)| next.saturating_add(CLOCK_SLACK_MS) < since_ms) {
            files.pop_front();
        }
        files.retain(|(_, time_ms)| time_ms.saturating_sub(CLOCK_SLACK_MS) <= until_ms);
        let files = files.into_iter().map(|(id, _)| id).collect();
        Ok(Self {
            directories,
            files,
            current: None,
            buffer: vec![0; commit_bytes_max.max(2 * HEADER_BYTES)],
        })
    }

    /// Reads on and hands out the records found; whether there is more.
    pub fn read(&mut self, record: &mut impl FnMut(Record<'_>)) -> io::Result<bool> {
        let Some(reading) = &mut self.current else {
            let Some(id) = self.files.pop_front() else { return Ok(false) };
            self.current = open(&self.directories, id);
            return Ok(true);
        };
        reading.fill(&mut self.buffer)?;
        let bytes = &self.buffer[..reading.filled];
        let used = match reading.reader.handle_bytes(bytes, record) {
            Ok(used) => used,
            Err(_) => reading.reader.skip_damage(bytes, record),
        };
        self.buffer.copy_within(used..reading.filled, 0);
        reading.filled -= used;
        if used == 0 && !reading.ended {
            tracing::warn!(segment = %reading.segment, "a commit is longer than journal.commit_bytes_max: what follows it is not looked at");
        }
        if used == 0 || reading.ended && reading.filled == 0 {
            reading.forget();
            self.current = None;
        }
        Ok(true)
    }
}

impl Reading {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        while self.filled < buffer.len() && !self.ended {
            let bytes = self.file.read(&mut buffer[self.filled..])?;
            self.filled += bytes;
            self.ended = bytes == 0;
        }
        Ok(())
    }

    /// Pages in the cache are in the way of direct writes. Only a hint.
    fn forget(&self) {
        let _ = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

/// None for a file that is gone, or on its way to another segment.
fn open(directories: &[PathBuf], id: SegmentId) -> Option<Reading> {
    let mut file = find(directories, id)?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).ok()?;
    let header = parse_segment_header(&header, crc32c::crc32c_append).ok()?;
    let reader = CommitReader::new(header.journal_id, id, super::BLOCK_BYTES, crc32c::crc32c_append);
    (header.segment == id).then_some(Reading { file, segment: id, reader, filled: 0, ended: false })
}

/// A segment's file, wherever it is now.
fn find(directories: &[PathBuf], id: SegmentId) -> Option<File> {
    directories.iter().find_map(|directory| File::open(segment_path(directory, id)).ok())
}

/// When the segment's first commit was sealed, Unix ms; none for a file that has none.
fn first_time(directories: &[PathBuf], id: SegmentId) -> Option<u64> {
    let (at, length) = FIRST_COMMIT;
    let (file, mut head) = (find(directories, id)?, vec![0; length]);
    file.read_exact_at(&mut head, at).ok()?;
    let number = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    (head.starts_with(COMMIT_MAGIC) && number(48)? == id.0).then(|| number(56))?
}

fn segments_in(directory: &Path) -> io::Result<Vec<SegmentId>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_segment = path.extension().is_some_and(|extension| extension == "seg");
        let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_segment);
        ids.extend(stem.and_then(|stem| u64::from_str_radix(stem, 16).ok()).map(SegmentId));
    }
    Ok(ids)
}
