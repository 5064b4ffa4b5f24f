//! A commit read back: is it whole, and which records are in it.
//!
//! Enters: the bytes of a segment from a commit boundary. Leaves: records in order, and how far the
//! bytes were whole. A commit counts only as a whole: every record's CRC, contiguous sequences, the
//! exact length, and the CRC over the record CRCs, so that blocks of two writes never pass as one.

use alloc::vec::Vec;

use super::format::{
    BLOCK_BYTES, COMMIT_HEADER_BYTES, CommitHeader, CommitNumber, Crc32c, RECORD_HEADER_BYTES, Record,
    RecordHeader, SEGMENT_HEADER_BYTES, SegmentId, decode_record, record_at,
};
use super::recovery::{Damage, DamageReason};

/// Reads commits of one segment, from any commit boundary, as bytes become available.
///
/// Give it only bytes before `SegmentSpan::written_bytes`: beyond lie writes in flight and old content.
#[derive(Debug)]
pub struct CommitReader {
    journal_id: [u8; 16],
    segment: SegmentId,
    offset: u64,
    /// The last commit that was read.
    last: Option<CommitNumber>,
    crc: Crc32c,
}

impl CommitReader {
    /// A reader at `offset` of `segment`: 4096 or the end of a commit.
    pub fn new(journal_id: [u8; 16], segment: SegmentId, offset: u64, crc: Crc32c) -> Self {
        assert!(offset >= SEGMENT_HEADER_BYTES as u64 && offset.is_multiple_of(BLOCK_BYTES as u64));
        Self { journal_id, segment, offset, last: None, crc }
    }

    /// Offset in the file of the next byte wanted.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Hands out the records of the whole commits at the start of `bytes`, which lies at `offset()`.
    ///
    /// Answers how many bytes those commits had; 0 means that the next commit needs more bytes.
    /// Damage is an error only at the start of `bytes`; `skip_damage` goes on behind it.
    pub fn handle_bytes<'a>(
        &mut self,
        bytes: &'a [u8],
        record: &mut impl FnMut(Record<'a>),
    ) -> Result<usize, Damage> {
        let mut at = 0;
        while bytes.len() - at >= COMMIT_HEADER_BYTES {
            match self.next_commit(&bytes[at..], record) {
                Ok(0) => break,
                Ok(commit_bytes) => at += commit_bytes,
                Err(damage) if at == 0 => return Err(damage),
                Err(_) => break,
            }
        }
        Ok(at)
    }

    /// Steps over damage at the start of `bytes` to the next commit, or over all of `bytes`.
    ///
    /// Hands out the readable records of what it steps over and answers how many bytes that was.
    pub fn skip_damage<'a>(&mut self, bytes: &'a [u8], record: &mut impl FnMut(Record<'a>)) -> usize {
        let mut at = 0;
        if let Some(header) = self.header_at(bytes) {
            let commit = &bytes[..header.commit_bytes().min(bytes.len())];
            salvage(&header, commit, self.offset, self.crc, record);
            at = commit.len();
            self.last = Some(header.number);
        } else {
            while at < bytes.len() && (at == 0 || self.header_at(&bytes[at..]).is_none()) {
                at += BLOCK_BYTES.min(bytes.len() - at);
            }
        }
        self.offset += at as u64;
        at
    }

    /// One commit: its length, or 0 when it goes beyond `bytes`.
    fn next_commit<'a>(
        &mut self,
        bytes: &'a [u8],
        record: &mut impl FnMut(Record<'a>),
    ) -> Result<usize, Damage> {
        let damage = |offset, reason| Damage { segment: self.segment, offset, reason };
        let Some(header) = self.header_at(bytes) else {
            return Err(damage(self.offset, DamageReason::Commit));
        };
        let Some(commit) = bytes.get(..header.commit_bytes()) else { return Ok(0) };
        if let Some(&(at, reason)) = faults(&header, commit, self.crc).first() {
            return Err(damage(self.offset + at as u64, reason));
        }
        deliver(&header, commit, self.offset, record);
        self.last = Some(header.number);
        self.offset += commit.len() as u64;
        Ok(commit.len())
    }

    fn header_at(&self, bytes: &[u8]) -> Option<CommitHeader> {
        let header = CommitHeader::parse(bytes, self.crc).ok()?;
        let ours = header.journal_id == self.journal_id && header.segment == self.segment;
        (ours && self.last.is_none_or(|last| last < header.number)).then_some(header)
    }
}

/// What is wrong with a commit, by offset in it; nothing is wrong with a whole one.
pub(crate) fn faults(header: &CommitHeader, commit: &[u8], crc: Crc32c) -> Vec<(usize, DamageReason)> {
    if commit.len() < header.commit_bytes() {
        return Vec::from([(0, DamageReason::Short)]);
    }
    let fills = lengths_fill(header, commit);
    let mut faults = Vec::new();
    let (mut records, mut sum) = (0, 0);
    let mut slots = Slots::new(header, commit);
    for slot in slots.by_ref() {
        records += 1;
        sum = crc(sum, &slot.stored_crc.to_le_bytes());
        if !slot.is_intact(crc) {
            faults.push((slot.at, DamageReason::Record));
            if !fills {
                return faults;
            }
        }
    }
    if records < header.records {
        faults.push((slots.at, DamageReason::Record));
    } else if faults.is_empty() && (!fills || sum != header.records_crc) {
        faults.push((0, DamageReason::Mixed));
    }
    faults
}

/// Hands out the records of a whole commit at `offset` of its segment.
pub(crate) fn deliver<'a>(
    header: &CommitHeader,
    commit: &'a [u8],
    offset: u64,
    record: &mut impl FnMut(Record<'a>),
) {
    let mut next = header.first.0;
    for slot in Slots::new(header, commit) {
        assert_eq!(slot.header.sequence.0, next, "a whole commit has contiguous sequences");
        next += 1;
        record(record_at(slot.header, slot.payload(), header.segment, offset + slot.at as u64));
    }
    assert_eq!(next - 1, header.last().0, "a whole commit has as many records as its header says");
}

/// Hands out the records of a damaged commit that are intact for themselves.
pub(crate) fn salvage<'a>(
    header: &CommitHeader,
    commit: &'a [u8],
    offset: u64,
    crc: Crc32c,
    record: &mut impl FnMut(Record<'a>),
) {
    let fills = lengths_fill(header, commit);
    for slot in Slots::new(header, commit) {
        if slot.is_intact(crc) {
            record(record_at(slot.header, slot.payload(), header.segment, offset + slot.at as u64));
        } else if !fills {
            // A wrong length leads anywhere: nothing behind it can be trusted.
            return;
        }
    }
}

/// Whether following the record lengths gives the count and the length of the header.
fn lengths_fill(header: &CommitHeader, commit: &[u8]) -> bool {
    let mut slots = Slots::new(header, commit);
    let records = slots.by_ref().count();
    records == header.records as usize && slots.at == slots.end && slots.end <= commit.len()
}

/// Where one record of a commit lies, unchecked.
struct Slot<'a> {
    /// Offset in the commit.
    at: usize,
    header: RecordHeader,
    stored_crc: u32,
    /// The sequence that belongs here.
    expected: u64,
    bytes: &'a [u8],
}

impl<'a> Slot<'a> {
    fn payload(&self) -> &'a [u8] {
        &self.bytes[RECORD_HEADER_BYTES..]
    }

    fn is_intact(&self, crc: Crc32c) -> bool {
        self.header.sequence.0 == self.expected && decode_record(self.bytes, SegmentId(0), 0, crc).is_ok()
    }
}

/// The records of a commit by their lengths; ends where a length leads out of the commit.
struct Slots<'a> {
    commit: &'a [u8],
    at: usize,
    end: usize,
    expected: u64,
    left: u32,
}

impl<'a> Slots<'a> {
    fn new(header: &CommitHeader, commit: &'a [u8]) -> Self {
        let end = COMMIT_HEADER_BYTES + header.payload_bytes as usize;
        Self { commit, at: COMMIT_HEADER_BYTES, end, expected: header.first.0, left: header.records }
    }
}

impl<'a> Iterator for Slots<'a> {
    type Item = Slot<'a>;

    fn next(&mut self) -> Option<Slot<'a>> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        let rest = self.commit.get(at..self.end.min(self.commit.len()))?;
        let (header, stored_crc) = RecordHeader::parse(rest).ok()?;
        let bytes = rest.get(..RECORD_HEADER_BYTES + header.payload_bytes as usize)?;
        let expected = self.expected;
        self.at += bytes.len();
        self.expected += 1;
        Some(Slot { at, header, stored_crc, expected, bytes })
    }
}
