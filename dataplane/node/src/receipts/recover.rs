//! Opening the files of receipts: what a crash left half is cut off, and it is read how far each journal is told.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use zen_audit::{Digest, Note, Segment, segment_lines};
use zen_hmac::PreparedKey;

use super::book::{Book, DIGESTS, Kept, MARKS, Mark, Marks, append_to, segment_path};
use super::entry::{Hex, Known};
use super::{BATCH_BYTES_MAX, ReceiptsSettings, keys};

/// Bytes at the end of the digests in which the last one is; a note is shorter.
const LAST_DIGEST_BYTES: u64 = 128 * 1024;

/// A line of [`DIGESTS`].
#[derive(Debug, Deserialize)]
pub struct DigestLine {
    /// Which segment.
    pub segment: u64,
    /// The signed note.
    pub note: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct StoredMarks {
    /// The segment with whose end they were written; none has been closed before.
    behind: Option<u64>,
    marks: Vec<(u16, String, u64)>,
}

/// Opens the files in a directory, or begins them.
pub fn open(
    directory: &Path,
    origin: &str,
    hash_key: Option<PreparedKey>,
    settings: ReceiptsSettings,
) -> io::Result<Book> {
    fs::create_dir_all(directory)?;
    let hash_key = hash_key.map_or_else(|| keys::load_hash_key(directory), Ok)?;
    let signing_key = keys::load_signing_key(directory, origin)?;
    let (last, digests_bytes) = last_digest(&directory.join(DIGESTS))?;
    let before = last.map(|note| Digest::verify(&note, signing_key.public())).transpose();
    let before =
        before.map_err(|error| damaged(directory, &format!("the last digest does not hold: {error}")))?;
    let mut segment = Segment::behind(before.as_ref());
    let mut closed = segments(directory)?;
    let surplus = closed.iter().position(|kept| kept.number >= segment.number());
    let surplus = surplus.map_or_else(VecDeque::new, |at| closed.split_off(at));
    for kept in surplus {
        if (kept.number, kept.first) == (segment.number(), segment.next_sequence()) {
            continue;
        }
        if kept.bytes > 0 {
            return Err(damaged(directory, "there is a segment without a digest before it"));
        }
        // It was to be the next one, and its digest was not written any more.
        fs::remove_file(segment_path(directory, kept.number, kept.first))?;
    }
    let stored = load_marks(directory)?;
    let mut marks = stored.marks()?;
    for kept in closed.iter().filter(|kept| stored.behind.is_none_or(|behind| kept.number > behind)) {
        read(directory, *kept, |_, known| mark(&mut marks, known))?;
    }
    let path = segment_path(directory, segment.number(), segment.next_sequence());
    let file = append_to(&path)?;
    let mut bytes = 0;
    let open = Kept { number: segment.number(), first: segment.next_sequence(), bytes };
    read(directory, open, |line, known| {
        bytes += line.len() as u64 + 1;
        segment.handle_line(line, known.time_ms);
        mark(&mut marks, known);
    })?;
    file.set_len(bytes)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()?;
    let (opened, buffer) = (Instant::now(), Vec::new());
    let directory = directory.to_owned();
    Ok(Book {
        directory,
        settings,
        hash_key,
        signing_key,
        segment,
        file,
        bytes,
        opened,
        before,
        digests_bytes,
        closed,
        marks,
        buffer,
    })
}

/// The segment files of a directory, oldest first.
pub fn segments(directory: &Path) -> io::Result<VecDeque<Kept>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let numbers = name.to_str().and_then(|name| {
            let (number, first) = name.strip_prefix("segment-")?.strip_suffix(".jsonl")?.split_once('-')?;
            Some((number.parse().ok()?, first.parse().ok()?))
        });
        if let Some((number, first)) = numbers {
            found.push(Kept { number, first, bytes: entry.metadata()?.len() });
        }
    }
    found.sort_unstable_by_key(|kept| kept.number);
    Ok(found.into())
}

/// The newer half of a file of lines; its length.
pub fn shorten(path: &Path) -> io::Result<u64> {
    let text = fs::read(path)?;
    let half = &text[text.len() / 2..];
    let begin = half.iter().position(|byte| *byte == b'\n').map_or(half.len(), |at| at + 1);
    replace(path, &half[begin..])?;
    Ok((half.len() - begin) as u64)
}

/// Keeps how far journals are told, whose lines may go with their segments.
pub fn write_marks(directory: &Path, behind: u64, marks: &Marks) -> io::Result<()> {
    let marks = marks.iter().map(|(worker, mark)| (*worker, Hex(&mark.journal).to_string(), mark.record));
    let stored = StoredMarks { behind: Some(behind), marks: marks.collect() };
    replace(&directory.join(MARKS), &serde_json::to_vec(&stored).expect("names and numbers are JSON"))
}

impl StoredMarks {
    fn marks(&self) -> io::Result<Marks> {
        let mark = |(worker, journal, record): &(u16, String, u64)| {
            Some((*worker, Mark { journal: journal_id(journal)?, record: *record }))
        };
        let marks: Option<Marks> = self.marks.iter().map(mark).collect();
        marks.ok_or_else(|| io::Error::other(format!("{MARKS} cannot be read; restore it")))
    }
}

fn load_marks(directory: &Path) -> io::Result<StoredMarks> {
    match fs::read(directory.join(MARKS)) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| damaged(directory, &format!("{MARKS} cannot be read: {error}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(StoredMarks::default()),
        Err(error) => Err(error),
    }
}

/// The whole lines of a segment, up to what a crash left of the last write.
fn read(directory: &Path, kept: Kept, mut take: impl FnMut(&[u8], &Known)) -> io::Result<()> {
    let bytes = fs::read(segment_path(directory, kept.number, kept.first))?;
    let mut left = bytes.len();
    for (sequence, line) in (kept.first..).zip(segment_lines(&bytes).0) {
        let known = serde_json::from_slice::<Known>(line).ok().filter(|known| known.sequence == sequence);
        match known {
            Some(known) => take(line, &known),
            None if left <= BATCH_BYTES_MAX => {
                tracing::warn!(
                    sequence,
                    segment = kept.number,
                    "a crash left lines of receipts unwritten; they are made again"
                );
                return Ok(());
            }
            None => {
                let what = format!("line {sequence} of segment {} is not one", kept.number);
                return Err(damaged(directory, &what));
            }
        }
        left -= line.len() + 1;
    }
    Ok(())
}

fn mark(marks: &mut Marks, known: &Known) {
    let (Some(worker), Some(record)) = (known.worker, known.record) else { return };
    if let Some(journal) = known.journal.as_deref().and_then(journal_id) {
        marks.insert(worker, Mark { journal, record });
    } else if let Some(mark) = marks.get_mut(&worker) {
        mark.record = mark.record.max(record);
    }
}

fn journal_id(text: &str) -> Option<[u8; 16]> {
    let mut id = [0; 16];
    zen_core::id::decode_hex(text.as_bytes(), &mut id).ok()?;
    Some(id)
}

/// The last whole line's digest, and how long the file is up to there; what is behind it is cut off.
fn last_digest(path: &Path) -> io::Result<(Option<Note>, u64)> {
    let file = append_to(path)?;
    file.sync_all()?;
    let end = file.metadata()?.len();
    let mut file_read = File::open(path)?;
    let begin = end.saturating_sub(LAST_DIGEST_BYTES);
    file_read.seek(SeekFrom::Start(begin))?;
    let mut tail = Vec::new();
    file_read.read_to_end(&mut tail)?;
    let (lines, torn) = segment_lines(&tail);
    let last = lines.last();
    let whole = end - torn.len() as u64;
    if !torn.is_empty() {
        file.set_len(whole)?;
        file.sync_all()?;
    }
    let Some(last) = last else { return Ok((None, whole)) };
    let note = serde_json::from_slice::<DigestLine>(last).ok().and_then(|line| Note::parse(&line.note).ok());
    let wrong = || io::Error::other(format!("{}: the last line is no digest; restore it", path.display()));
    note.map(|note| (Some(note), whole)).ok_or_else(wrong)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let building = path.with_extension("tmp");
    let mut file = File::create(&building)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&building, path)
}

fn damaged(directory: &Path, what: &str) -> io::Error {
    let directory = directory.display();
    io::Error::other(format!(
        "{directory}: {what}; keep it as it is for whoever looks into it: move the directory away, and a new one is begun"
    ))
}
