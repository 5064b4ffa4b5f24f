//! The journal: records in commits in segment files, and what is known to be on disk.
//!
//! Enters: payloads, times, completions of writes, prepared files, and at start the bytes of the segments.
//! Leaves: commits to write (whole blocks, at most two in flight), the durable prefix of sequences,
//! files that are free again, and at start the records. It refuses records that are too long or have
//! no place, files of another journal, and damage that no crash explains. The node does the writes
//! and repeats a failed one at the same place, so only a crash leaves a hole.
//! The bytes are specified in `docs/journal-format.md`; CRC32C is RFC 3720 appendix B.4.

mod commit;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod recovery;
mod segments;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

pub use commit::CommitReader;
pub use format::{
    BLOCK_BYTES, COMMIT_HEADER_BYTES, CommitNumber, Crc32c, FormatError, Kind, RECORD_HEADER_BYTES, Record,
    SEGMENT_HEADER_BYTES, SegmentHeader, SegmentId, Sequence, decode_record, parse_segment_header,
    segment_header,
};
use format::{CommitHeader, RecordHeader, padded};
pub use recovery::{Damage, DamageReason, OnDamage, Recovered, Recovery, RecoveryError, Truncation};
use segments::Segments;
pub use segments::{Limits, LimitsError, READY_SEGMENTS, SEGMENTS_MIN, SegmentSpan};

/// Most commits that are sealed and not yet part of the durable prefix.
pub const COMMITS_IN_FLIGHT_MAX: usize = 2;
/// Sequences that a recovery leaves out: more than the commits hold that it may have cut off or not seen.
/// A sequence that was given out once never names another record.
pub const SEQUENCES_SKIPPED: u64 = 1 << 21;

/// Decides where commits go, numbers records, and knows the durable prefix.
#[derive(Debug)]
pub struct Writer {
    journal_id: [u8; 16],
    crc: Crc32c,
    segments: Segments,
    next_sequence: Sequence,
    next_commit: CommitNumber,
    /// The last sealed commit.
    previous: CommitNumber,
    durable_commit: CommitNumber,
    durable: Sequence,
    open: Open,
    /// Oldest first.
    in_flight: VecDeque<InFlight>,
}

/// The commit that is being filled.
#[derive(Debug)]
struct Open {
    /// Header and records, without padding.
    bytes: usize,
    records: u32,
    records_crc: u32,
}

impl Open {
    const EMPTY: Self = Self { bytes: COMMIT_HEADER_BYTES, records: 0, records_crc: 0 };
}

#[derive(Debug)]
struct InFlight {
    commit: CommitNumber,
    segment: SegmentId,
    end: u64,
    last: Sequence,
    written: bool,
}

/// A commit to be written: the first `bytes` of the sealed buffer, to `offset` of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The file.
    pub segment: SegmentId,
    /// Offset in the file, bytes; a multiple of [`BLOCK_BYTES`].
    pub offset: u64,
    /// Length, bytes; a multiple of [`BLOCK_BYTES`].
    pub bytes: usize,
    /// What `handle_written` gets when the write is on disk.
    pub commit: CommitNumber,
    /// The last record in it.
    pub last: Sequence,
}

/// Why a record is not appended now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The caller's: longer than a commit can hold.
    #[error("journal: record longer than a commit")]
    TooLarge,
    /// Ours, now: no room in the open commit; seal it first.
    #[error("journal: the open commit is full")]
    Full,
    /// Ours, for a while: no prepared segment; the disk or the limit is full.
    #[error("journal: no segment to write to")]
    NoSegment,
}

impl Writer {
    /// A writer of an empty journal. `limits` are valid, `journal_id` is random and kept to the node.
    pub fn new(limits: Limits, journal_id: [u8; 16], crc: Crc32c) -> Self {
        Self {
            journal_id,
            crc,
            segments: Segments::new(limits),
            next_sequence: Sequence(1),
            next_commit: CommitNumber(1),
            previous: CommitNumber(0),
            durable_commit: CommitNumber(0),
            durable: Sequence(0),
            open: Open::EMPTY,
            in_flight: VecDeque::with_capacity(COMMITS_IN_FLIGHT_MAX),
        }
    }

    /// A writer that goes on where recovery ended, [`SEQUENCES_SKIPPED`] further on. Sync the last segment's file before: what was
    /// recovered may have been read from a cache.
    pub fn resume(recovered: Recovered, limits: Limits, crc: Crc32c) -> Self {
        let Recovered { journal_id, next_sequence, next_commit, last_commit, next_segment, .. } = recovered;
        assert!(next_commit > last_commit && recovered.first_of_run > next_sequence);
        let next_sequence = recovered.first_of_run;
        let spans = recovered.writer_spans();
        let segments =
            Segments::resume(limits, spans, recovered.ready.into(), recovered.open_bytes, next_segment);
        Self {
            segments,
            next_sequence,
            next_commit,
            previous: last_commit,
            durable_commit: last_commit,
            durable: Sequence(next_sequence.0 - 1),
            ..Self::new(limits, journal_id, crc)
        }
    }

    /// The journal's id, for the header of each prepared segment.
    pub fn journal_id(&self) -> [u8; 16] {
        self.journal_id
    }

    /// A prepared file is ready: its header is on disk. Ids come from `next_segment_id`, one at a time.
    pub fn add_segment(&mut self, id: SegmentId) {
        self.segments.add(id);
    }

    /// The id of the next file to prepare.
    pub fn next_segment_id(&self) -> SegmentId {
        self.segments.next_id()
    }

    /// How many more prepared files it wants now.
    pub fn segments_wanted(&self) -> u32 {
        self.segments.wanted()
    }

    /// Prepared files that nothing was written to yet.
    pub fn segments_ready(&self) -> usize {
        self.segments.ready()
    }

    /// Whether `append` of a payload of this length would succeed.
    pub fn can_append(&self, payload_bytes: usize) -> Result<(), AppendError> {
        if payload_bytes > self.segments.limits().payload_bytes_max() {
            return Err(AppendError::TooLarge);
        }
        let bytes = padded(self.open.bytes + RECORD_HEADER_BYTES + payload_bytes);
        if bytes > self.segments.limits().commit_bytes_max {
            return Err(AppendError::Full);
        }
        if self.segments.has_room(bytes) { Ok(()) } else { Err(AppendError::NoSegment) }
    }

    /// Adds a record of the concatenated `parts` to the open commit; not durable before `handle_written`.
    ///
    /// `open` is the open commit's buffer, `commit_bytes_max` long, the same one until `seal` took it.
    pub fn append(
        &mut self,
        open: &mut [u8],
        kind: Kind,
        time_ms: u64,
        parts: &[&[u8]],
    ) -> Result<Sequence, AppendError> {
        let payload_bytes = parts.iter().map(|part| part.len()).sum();
        self.can_append(payload_bytes)?;
        assert_eq!(open.len(), self.segments.limits().commit_bytes_max);
        let sequence = self.next_sequence;
        let header = RecordHeader { payload_bytes: payload_bytes as u32, kind, sequence, time_ms };
        let sum = header.write(parts, &mut open[self.open.bytes..], self.crc);
        self.open.records_crc = (self.crc)(self.open.records_crc, &sum.to_le_bytes());
        self.open.bytes += RECORD_HEADER_BYTES + payload_bytes;
        self.open.records += 1;
        self.next_sequence = Sequence(sequence.0 + 1);
        Ok(sequence)
    }

    /// Records in the open commit.
    pub fn open_records(&self) -> u32 {
        self.open.records
    }

    /// Where in the open commit the next record starts, bytes; `Write::offset` plus this is its place.
    pub fn open_bytes(&self) -> usize {
        self.open.bytes
    }

    /// Closes the open commit; `None` when it is empty or two are in flight. Then the buffer is the
    /// node's until the write is done, and the next `append` gets another.
    pub fn seal(&mut self, open: &mut [u8], now_ms: u64) -> Option<Write> {
        if self.open.records == 0 || self.in_flight.len() == COMMITS_IN_FLIGHT_MAX {
            return None;
        }
        let Open { bytes: filled, records, records_crc } = core::mem::replace(&mut self.open, Open::EMPTY);
        let bytes = padded(filled);
        open[filled..bytes].fill(0);
        let last = Sequence(self.next_sequence.0 - 1);
        let first = Sequence(self.next_sequence.0 - u64::from(records));
        let (segment, offset) = self.segments.place(bytes, first, last);
        let commit = self.next_commit;
        let header = CommitHeader {
            payload_bytes: (filled - COMMIT_HEADER_BYTES) as u32,
            records,
            number: commit,
            previous: self.previous,
            durable: self.durable_commit,
            first,
            segment,
            time_ms: now_ms,
            journal_id: self.journal_id,
            records_crc,
        };
        assert!(header.commit_bytes() == bytes && header.last() == last);
        header.write(open, self.crc);
        self.previous = commit;
        self.next_commit = CommitNumber(commit.0 + 1);
        let end = offset + bytes as u64;
        self.in_flight.push_back(InFlight { commit, segment, end, last, written: false });
        Some(Write { segment, offset, bytes, commit, last })
    }

    /// The write of `commit` is on disk. Answers the durable prefix, whatever order writes complete in.
    pub fn handle_written(&mut self, commit: CommitNumber) -> Sequence {
        let written = self.in_flight.iter_mut().find(|in_flight| in_flight.commit == commit);
        let written = written.expect("the node reports each sealed commit once");
        assert!(!written.written, "the node reports each sealed commit once");
        written.written = true;
        while let Some(oldest) = self.in_flight.pop_front_if(|oldest| oldest.written) {
            self.segments.handle_durable(oldest.segment, oldest.last, oldest.end);
            self.durable_commit = oldest.commit;
            self.durable = oldest.last;
        }
        self.durable
    }

    /// Every record up to here is on disk; 0 before the first. After a recovery that includes the skipped sequences.
    pub fn durable(&self) -> Sequence {
        self.durable
    }

    /// What the next appended record gets.
    pub fn next_sequence(&self) -> Sequence {
        self.next_sequence
    }

    /// Sealed commits that are not in the durable prefix, at most [`COMMITS_IN_FLIGHT_MAX`].
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The segment that holds a durable record, unless it was trimmed.
    pub fn locate(&self, sequence: Sequence) -> Option<SegmentId> {
        self.segments.locate(sequence)
    }

    /// Segments with durable records, oldest first.
    pub fn live_segments(&self) -> impl Iterator<Item = SegmentSpan> {
        self.segments.spans()
    }

    /// The oldest durable record that was not trimmed.
    pub fn oldest(&self) -> Option<Sequence> {
        self.segments.oldest()
    }

    /// Bytes that live segments take from the journal's room: whole files, and of the newest what is sealed.
    pub fn bytes_live(&self) -> u64 {
        self.segments.bytes_live()
    }

    /// Gives up whole segments whose records are all durable and at or before `up_to`. The segment with
    /// the newest durable commit stays. What it answers is free: recycle or delete.
    pub fn trim(&mut self, up_to: Sequence) -> Vec<SegmentId> {
        self.segments.trim(up_to)
    }
}
