//! The journal of a thread: batches of events at multiples of a block, each with its length and checksum.
//!
//! The file is written over with zeros first, so that a write changes no metadata, and begun again at its end, as the
//! node uses segments again whose events are delivered. Opened with `O_DIRECT` and `O_DSYNC`: a write is on disk.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::StartError;

/// What `O_DIRECT` counts in.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// In front of the records of a batch: magic, length and checksum of the records, all little-endian.
pub(crate) const BATCH_HEAD_BYTES: usize = 16;
const MAGIC: u64 = u64::from_le_bytes(*b"zenbatch");
const FILE_BYTES: u64 = 128 << 20;
/// Length of the body, length of the id.
const RECORD_HEAD_BYTES: usize = 6;
const REMEDY: &str = "name a directory with --journal that can be written, on a disk that knows O_DIRECT (no overlay or tmpfs)";

/// A file, and where the next batch goes.
#[derive(Debug)]
pub(crate) struct JournalFile {
    /// The file.
    pub(crate) file: File,
    next: u64,
}

impl JournalFile {
    /// Makes the journal of thread `number`, without an event.
    pub(crate) fn create(directory: &Path, number: u32) -> Result<Self, StartError> {
        let path = directory.join(format!("{number}.journal"));
        let failed = |source| StartError::File { path: path.clone(), source, remedy: REMEDY };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let mut plain = File::create(&path).map_err(failed)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..FILE_BYTES / zeros.len() as u64 {
            plain.write_all(&zeros).map_err(failed)?;
        }
        plain.sync_all().map_err(failed)?;
        let flags = libc::O_DIRECT | libc::O_DSYNC | libc::O_CLOEXEC;
        let file = OpenOptions::new().write(true).custom_flags(flags).open(&path).map_err(failed)?;
        Ok(Self { file, next: 0 })
    }

    /// Where a batch of `bytes` goes.
    pub(crate) fn place(&mut self, bytes: usize) -> u64 {
        if self.next + bytes as u64 > FILE_BYTES {
            self.next = 0;
        }
        let at = self.next;
        self.next += bytes as u64;
        at
    }
}

/// Appends an event to a batch.
pub(crate) fn write_record(batch: &mut Vec<u8>, id: &str, body: &[u8]) {
    let body_bytes = u32::try_from(body.len()).expect("a body is far shorter than 4 GiB");
    let id_bytes = u16::try_from(id.len()).expect("an id is far shorter than 64 KiB");
    batch.extend_from_slice(&body_bytes.to_le_bytes());
    batch.extend_from_slice(&id_bytes.to_le_bytes());
    batch.extend_from_slice(id.as_bytes());
    batch.extend_from_slice(body);
}

/// How many bytes [`write_record`] appends.
pub(crate) fn record_bytes(id: &str, body: &[u8]) -> usize {
    RECORD_HEAD_BYTES + id.len() + body.len()
}

/// The head of a batch with these records.
pub(crate) fn batch_head(records: &[u8]) -> [u8; BATCH_HEAD_BYTES] {
    let length = u32::try_from(records.len()).expect("a batch is far shorter than 4 GiB");
    let mut head = [0; BATCH_HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC.to_le_bytes());
    head[8..12].copy_from_slice(&length.to_le_bytes());
    head[12..].copy_from_slice(&crc32c::crc32c(records).to_le_bytes());
    head
}

/// Prints the ids of all events in the journals of `directory`, a line each.
pub(crate) fn list(directory: &Path) -> Result<(), StartError> {
    let failed = |path: PathBuf| {
        |source| StartError::File { path, source, remedy: "name the directory that --journal named" }
    };
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    for entry in std::fs::read_dir(directory).map_err(failed(directory.to_owned()))? {
        let path = entry.map_err(failed(directory.to_owned()))?.path();
        let file = File::open(&path).map_err(failed(path.clone()))?;
        let mut bytes = vec![0; FILE_BYTES as usize];
        file.read_exact_at(&mut bytes, 0).map_err(failed(path.clone()))?;
        for id in ids(&bytes) {
            writeln!(output, "{id}").map_err(failed(PathBuf::from("standard output")))?;
        }
    }
    output.flush().map_err(failed(PathBuf::from("standard output")))
}

/// Ids of whole batches; what is not one is passed over block by block.
fn ids(journal: &[u8]) -> Vec<&str> {
    let (mut ids, mut at) = (Vec::new(), 0);
    while let Some(rest) = journal.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(records) = records(rest) else {
            at += BLOCK_BYTES;
            continue;
        };
        let mut left = records;
        while let Some((id, behind)) = record(left) {
            ids.push(id);
            left = behind;
        }
        at += (BATCH_HEAD_BYTES + records.len()).next_multiple_of(BLOCK_BYTES);
    }
    ids
}

/// The records of the batch that `block` begins with, if its checksum is right.
fn records(block: &[u8]) -> Option<&[u8]> {
    let length = u32::from_le_bytes(block.get(8..12)?.try_into().ok()?) as usize;
    let records = block.get(BATCH_HEAD_BYTES..BATCH_HEAD_BYTES + length)?;
    (block[..BATCH_HEAD_BYTES] == batch_head(records)).then_some(records)
}

fn record(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let body_bytes = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let id_bytes = usize::from(u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?));
    let id = std::str::from_utf8(bytes.get(RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + id_bytes)?).ok()?;
    Some((id, bytes.get(RECORD_HEAD_BYTES + id_bytes + body_bytes..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(events: &[(&str, &[u8])]) -> Vec<u8> {
        let mut records = Vec::new();
        for (id, body) in events {
            let before = records.len();
            write_record(&mut records, id, body);
            assert_eq!(records.len() - before, record_bytes(id, body));
        }
        let mut bytes = batch_head(&records).to_vec();
        bytes.extend_from_slice(&records);
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        bytes
    }

    #[test]
    fn whole_batches_are_read_and_torn_ones_are_not() {
        let long = vec![b'x'; 3 * BLOCK_BYTES];
        let torn = {
            let mut torn = batch(&[("t", &long)]);
            torn[2 * BLOCK_BYTES] ^= 1;
            torn
        };
        let journal =
            [batch(&[("a", b"1"), ("b", b"")]), torn, batch(&[("c", &long)]), vec![0; BLOCK_BYTES]].concat();
        assert_eq!(ids(&journal), ["a", "b", "c"]);
        for end in 0..BLOCK_BYTES {
            assert!(ids(&journal[..end]).len() <= 2, "{end}");
        }
    }
}
