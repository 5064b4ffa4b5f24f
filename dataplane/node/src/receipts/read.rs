//! Reading receipts beside the thread that writes them: for operators who look at an event, and for the agent.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use serde_json::Value;
use zen_audit::{Digest, Note};

use super::book::{DIGESTS, Kept, segment_path};
use super::recover::{DigestLine, segments};

/// Longest line that is read, bytes.
const LINE_BYTES_MAX: u64 = 4096;
/// Longest line of a digest.
const DIGEST_BYTES_MAX: u64 = 16 * 1024;

/// Lines as they are on disk.
#[derive(Debug, Default)]
pub struct Page {
    /// Number of the oldest line that is kept.
    pub first: u64,
    /// The lines, without their line feeds.
    pub lines: Vec<String>,
}

/// The receipts that `is_wanted` takes, oldest first; lines that cannot be read are left out.
pub fn scan(directory: &Path, mut is_wanted: impl FnMut(&Value) -> bool) -> io::Result<Vec<Value>> {
    let mut found = Vec::new();
    for kept in kept(directory)? {
        walk(directory, kept, |line| {
            found.extend(serde_json::from_slice(line).ok().filter(&mut is_wanted));
            true
        })?;
    }
    Ok(found)
}

/// At most `limit` lines from number `from` on, below `end`.
pub fn page(directory: &Path, from: u64, end: u64, limit: usize) -> io::Result<Page> {
    let mut kept = kept(directory)?;
    let mut page = Page { first: kept.front().map_or(0, |kept| kept.first), lines: Vec::new() };
    while kept.get(1).is_some_and(|next| next.first <= from) {
        kept.pop_front();
    }
    for segment in kept {
        let mut sequence = segment.first;
        walk(directory, segment, |line| {
            if sequence >= from && sequence < end && page.lines.len() < limit {
                page.lines.push(String::from_utf8_lossy(line).into_owned());
            }
            sequence += 1;
            sequence < end && page.lines.len() < limit
        })?;
        if page.lines.len() >= limit {
            break;
        }
    }
    Ok(page)
}

/// At most `limit` signed digests behind segment `after`, or from the first that is kept.
pub fn digests_behind(directory: &Path, after: Option<u64>, limit: usize) -> io::Result<Vec<(Digest, Note)>> {
    let mut digests = Vec::new();
    let mut file = BufReader::new(File::open(directory.join(DIGESTS))?);
    let mut line = Vec::new();
    while digests.len() < limit && file.by_ref().take(DIGEST_BYTES_MAX).read_until(b'\n', &mut line)? > 0 {
        let read = serde_json::from_slice::<DigestLine>(&line).ok();
        if let Some(read) = read.filter(|read| after.is_none_or(|after| read.segment > after)) {
            let note = Note::parse(&read.note).map_err(io::Error::other)?;
            digests.push((Digest::parse(note.text()).map_err(io::Error::other)?, note));
        }
        line.clear();
    }
    Ok(digests)
}

fn kept(directory: &Path) -> io::Result<VecDeque<Kept>> {
    match segments(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(VecDeque::new()),
        kept => kept,
    }
}

/// Lines of a segment while `take` wants more. One that was let go meanwhile has none.
fn walk(directory: &Path, kept: Kept, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let file = match File::open(segment_path(directory, kept.number, kept.first)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let (mut file, mut line) = (BufReader::new(file), Vec::new());
    // What is longer than any receipt comes in pieces, and no piece can be read.
    while file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? > 0 {
        let Some(whole) = line.strip_suffix(b"\n") else { break };
        if !take(whole) {
            break;
        }
        line.clear();
    }
    Ok(())
}
