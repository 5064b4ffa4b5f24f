//! The files of receipts: the segment that is written, those that are closed, and their digests.
//!
//! Entries enter with their time; lines leave to the disk, and the numbers of the newest record of each journal that has
//! one. A segment is closed at its bounds, its digest signed, and the oldest go when all are over theirs. What a write
//! left half is cut off, at once or at the next start, so that a line is whole or not there.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use zen_audit::{Digest, LogKey, Segment, SigningKey, segment_lines};
use zen_hmac::PreparedKey;

use super::entry::{Begin, Entry, encode};
use super::{MODE, ReceiptsSettings, recover};

/// The digests, a line of JSON each.
pub const DIGESTS: &str = "digests.jsonl";
/// How far journals were told when the last segment was closed.
pub const MARKS: &str = "marks.json";
/// Most bytes of digests; the older half goes.
const DIGESTS_BYTES_MAX: u64 = 16 << 20;
/// Longest segment, bytes: it is read at start.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// A segment has this share of all of them at most, so that most of what is kept is kept.
const SEGMENT_SHARE: u64 = 8;

/// How far a journal is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The journal's id.
    pub journal: [u8; 16],
    /// Its newest record that has a line.
    pub record: u64,
}

/// By worker.
pub type Marks = BTreeMap<u16, Mark>;

/// A segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub number: u64,
    /// Number of its first line.
    pub first: u64,
    /// Its size.
    pub bytes: u64,
}

/// All of them.
pub struct Book {
    pub(super) directory: PathBuf,
    pub(super) settings: ReceiptsSettings,
    pub(super) hash_key: PreparedKey,
    pub(super) signing_key: SigningKey,
    /// The segment that is written.
    pub(super) segment: Segment,
    pub(super) file: File,
    /// Whole lines of it, bytes.
    pub(super) bytes: u64,
    pub(super) opened: Instant,
    /// The digest before it.
    pub(super) before: Option<Digest>,
    pub(super) digests_bytes: u64,
    /// Closed segments that are kept, oldest first.
    pub(super) closed: VecDeque<Kept>,
    pub(super) marks: Marks,
    pub(super) buffer: Vec<u8>,
}

impl Book {
    /// How far journals are told.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// What digests are checked with.
    pub fn key(&self) -> &LogKey {
        self.signing_key.public()
    }

    /// The number that the next line gets.
    pub fn next_sequence(&self) -> u64 {
        self.segment.next_sequence()
    }

    /// Writes and syncs all of the entries, or none of them.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        encode(entries, self.segment.next_sequence(), &self.hash_key, &mut buffer);
        let written = self.write(&buffer);
        if written.is_ok() {
            self.bytes += buffer.len() as u64;
            for (line, entry) in segment_lines(&buffer).0.zip(entries) {
                self.segment.handle_line(line, entry.time_ms());
                mark(&mut self.marks, entry);
            }
        }
        self.buffer = buffer;
        written
    }

    /// Closes the segment if it is time or full.
    pub fn close_if_due(&mut self, wall_ms: u64) -> io::Result<()> {
        let interval = Duration::from_secs(self.settings.digest_interval_s);
        let since_ms = self.segment.from_ms().map_or(0, |from_ms| wall_ms.saturating_sub(from_ms));
        let is_due = self.opened.elapsed() >= interval
            || Duration::from_millis(since_ms) >= interval
            || self.segment.count() >= self.settings.digest_receipts_max
            || self.bytes >= self.segment_bytes_max();
        if is_due { self.close() } else { Ok(()) }
    }

    /// Signs the digest of the segment, and begins another one.
    pub fn close(&mut self) -> io::Result<()> {
        let digest = self.segment.digest(self.signing_key.public().name(), self.before.as_ref());
        let note = digest.sign(&self.signing_key).to_string();
        let Digest { segment, first, count, .. } = digest;
        let hash = digest.hash().to_string();
        let line = json!({ "segment": segment, "first": first, "count": count, "hash": hash, "note": note });
        let next = Segment::behind(Some(&digest));
        let path = segment_path(&self.directory, next.number(), next.next_sequence());
        // It is there first: nothing may fail between the digest and what goes on behind it.
        let file = append_to(&path)?;
        let written = self.sync_directory().and_then(|()| self.write_digest(&format!("{line}\n")));
        if written.is_err() {
            let _ = fs::remove_file(&path);
            return written;
        }
        self.closed.push_back(Kept { number: segment, first, bytes: self.bytes });
        (self.segment, self.before, self.file) = (next, Some(digest), file);
        (self.bytes, self.opened) = (0, Instant::now());
        recover::write_marks(&self.directory, segment, &self.marks)?;
        self.let_go()
    }

    fn segment_bytes_max(&self) -> u64 {
        (self.settings.bytes_max / SEGMENT_SHARE).min(SEGMENT_BYTES_MAX)
    }

    fn write(&mut self, buffer: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(buffer).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // Half a line must not run into the next.
            self.file.set_len(self.bytes)?;
        }
        written
    }

    fn write_digest(&mut self, line: &str) -> io::Result<()> {
        if self.digests_bytes + line.len() as u64 > DIGESTS_BYTES_MAX {
            self.digests_bytes = recover::shorten(&self.directory.join(DIGESTS))?;
        }
        let mut file = append_to(&self.directory.join(DIGESTS))?;
        let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
        if written.is_err() {
            file.set_len(self.digests_bytes)?;
            return written;
        }
        self.digests_bytes += line.len() as u64;
        Ok(())
    }

    /// The oldest closed segments go while there is more than the bound, with room for the one that is written.
    fn let_go(&mut self) -> io::Result<()> {
        let kept_max = self.settings.bytes_max.saturating_sub(2 * self.segment_bytes_max());
        let mut bytes: u64 = self.closed.iter().map(|kept| kept.bytes).sum();
        while bytes > kept_max
            && let Some(oldest) = self.closed.pop_front()
        {
            fs::remove_file(segment_path(&self.directory, oldest.number, oldest.first))?;
            bytes -= oldest.bytes;
        }
        self.sync_directory()
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

/// Where a segment is.
pub fn segment_path(directory: &Path, number: u64, first: u64) -> PathBuf {
    directory.join(format!("segment-{number:010}-{first:016}.jsonl"))
}

pub(super) fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

fn mark(marks: &mut Marks, entry: &Entry) {
    match entry {
        Entry::Outcome(receipt) => {
            if let Some(mark) = marks.get_mut(&receipt.worker) {
                mark.record = mark.record.max(receipt.record.0);
            }
        }
        Entry::Begin(Begin { worker, journal, record, .. }) => {
            marks.insert(*worker, Mark { journal: *journal, record: *record });
        }
        Entry::Act(_) => {}
    }
}
