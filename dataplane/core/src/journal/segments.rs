//! Which segment files hold what: limits, live spans, prepared files, trimming.
//!
//! Enters: prepared files and sealed or written commits. Leaves: where the next commit goes, which
//! file holds a sequence, which files are free again. The segment with the newest durable commit is
//! never given up: without it a later recovery would not know where numbers and sequences stood.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::format::{
    BLOCK_BYTES, COMMIT_HEADER_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentId, Sequence,
    is_segment_length,
};
use super::{COMMITS_IN_FLIGHT_MAX, SEQUENCES_SKIPPED};

/// Prepared files kept ahead of the writer.
pub const READY_SEGMENTS: u32 = 2;
/// Fewest segments a journal can run on: the durable one, the current one, and one ahead.
pub const SEGMENTS_MIN: u32 = 3;

/// Longest commit of any journal, bytes.
pub const COMMIT_BYTES_CEILING: u64 = 28 << 20;
const _: () = assert!(
    COMMITS_IN_FLIGHT_MAX as u64 * COMMIT_BYTES_CEILING / RECORD_HEADER_BYTES as u64 <= SEQUENCES_SKIPPED
);

/// Sizes of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of each segment file, bytes; a multiple of [`BLOCK_BYTES`].
    pub segment_bytes: u64,
    /// Longest commit with header and padding, bytes; a multiple of [`BLOCK_BYTES`].
    pub commit_bytes_max: usize,
    /// Most segment files, live and prepared; at least [`SEGMENTS_MIN`].
    pub segments_max: u32,
}

/// Why sizes do not make a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// `segment_bytes` is not a multiple of 4096, or under 8192.
    #[error("segment_bytes must be a multiple of 4096, at least 8192")]
    Segment,
    /// `commit_bytes_max` is not a multiple of 4096, is 0, over `COMMIT_BYTES_CEILING`, or does not fit a segment.
    #[error("commit_bytes_max must be a multiple of 4096, at most segment_bytes - 4096 and 28 MiB")]
    Commit,
    /// `segments_max` is under [`SEGMENTS_MIN`].
    #[error("segments_max must be at least 3")]
    Segments,
}

impl Limits {
    /// Refuses sizes that do not fit together.
    pub const fn validate(&self) -> Result<(), LimitsError> {
        if !is_segment_length(self.segment_bytes) {
            return Err(LimitsError::Segment);
        }
        let commit = self.commit_bytes_max as u64;
        let fits =
            commit <= self.segment_bytes - SEGMENT_HEADER_BYTES as u64 && commit <= COMMIT_BYTES_CEILING;
        if commit == 0 || !self.commit_bytes_max.is_multiple_of(BLOCK_BYTES) || !fits {
            return Err(LimitsError::Commit);
        }
        if self.segments_max < SEGMENTS_MIN {
            return Err(LimitsError::Segments);
        }
        Ok(())
    }

    /// Longest payload of one record, bytes.
    pub const fn payload_bytes_max(&self) -> usize {
        self.commit_bytes_max - COMMIT_HEADER_BYTES - RECORD_HEADER_BYTES
    }
}

/// The durable records of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSpan {
    /// The file.
    pub id: SegmentId,
    /// Its first record.
    pub first: Sequence,
    /// Its last durable record.
    pub last: Sequence,
    /// Everything before this offset is on disk; beyond it may lie anything. Bytes.
    pub written_bytes: u64,
}

/// One segment with at least one sealed commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) id: SegmentId,
    pub(crate) first: Sequence,
    pub(crate) sealed_last: Sequence,
    pub(crate) sealed_end: u64,
    /// `None` while the first commit is in flight.
    pub(crate) durable: Option<(Sequence, u64)>,
}

impl Span {
    pub(crate) fn public(&self) -> Option<SegmentSpan> {
        let (last, written_bytes) = self.durable?;
        Some(SegmentSpan { id: self.id, first: self.first, last, written_bytes })
    }
}

/// Live spans, the write position, and prepared files.
#[derive(Debug)]
pub(crate) struct Segments {
    limits: Limits,
    /// Oldest first.
    spans: VecDeque<Span>,
    ready: VecDeque<SegmentId>,
    /// Length of the file of the last span, or `None` when nothing more may be written to it.
    open_bytes: Option<u64>,
    next_id: SegmentId,
}

impl Segments {
    pub(crate) fn new(limits: Limits) -> Self {
        Self::resume(limits, VecDeque::new(), VecDeque::new(), None, SegmentId(1))
    }

    pub(crate) fn resume(
        limits: Limits,
        mut spans: VecDeque<Span>,
        ready: VecDeque<SegmentId>,
        open_bytes: Option<u64>,
        next_id: SegmentId,
    ) -> Self {
        limits.validate().expect("limits are validated where the configuration is read");
        let segments_max = limits.segments_max as usize;
        spans.reserve(segments_max.saturating_sub(spans.len()));
        Self { limits, spans, ready, open_bytes, next_id }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn next_id(&self) -> SegmentId {
        self.next_id
    }

    /// Prepared files to make now.
    pub(crate) fn wanted(&self) -> u32 {
        let free = (self.limits.segments_max as usize).saturating_sub(self.spans.len());
        free.min(READY_SEGMENTS as usize).saturating_sub(self.ready.len()) as u32
    }

    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn add(&mut self, id: SegmentId) {
        assert!(id >= self.next_id, "segment ids ascend");
        self.next_id = SegmentId(id.0 + 1);
        self.ready.push_back(id);
    }

    /// Whether a commit of this many bytes has a place.
    pub(crate) fn has_room(&self, commit_bytes: usize) -> bool {
        self.fits_current(commit_bytes) || !self.ready.is_empty()
    }

    /// Takes the place for a commit: the file and the offset in it.
    pub(crate) fn place(&mut self, commit_bytes: usize, first: Sequence, last: Sequence) -> (SegmentId, u64) {
        if !self.fits_current(commit_bytes) {
            let id = self.ready.pop_front().expect("append checked that a prepared segment is there");
            let start = SEGMENT_HEADER_BYTES as u64;
            self.spans.push_back(Span { id, first, sealed_last: last, sealed_end: start, durable: None });
            self.open_bytes = Some(self.limits.segment_bytes);
        }
        let span = self.spans.back_mut().expect("either it was there or it was pushed");
        let offset = span.sealed_end;
        span.sealed_last = last;
        span.sealed_end += commit_bytes as u64;
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64) && Some(span.sealed_end) <= self.open_bytes);
        (span.id, offset)
    }

    /// Everything of `segment` up to `last`, which ends at `end`, is on disk.
    pub(crate) fn handle_durable(&mut self, segment: SegmentId, last: Sequence, end: u64) {
        let span = self.spans.iter_mut().rev().find(|span| span.id == segment);
        let span = span.expect("a segment with a commit in flight is never trimmed");
        assert!(span.durable < Some((last, end)) && last <= span.sealed_last && end <= span.sealed_end);
        span.durable = Some((last, end));
    }

    pub(crate) fn spans(&self) -> impl Iterator<Item = SegmentSpan> {
        self.spans.iter().filter_map(Span::public)
    }

    pub(crate) fn oldest(&self) -> Option<Sequence> {
        self.spans().next().map(|span| span.first)
    }

    /// Of all but the newest segment the whole file counts: nothing more fits into what is left at its end.
    pub(crate) fn bytes_live(&self) -> u64 {
        let newest = self.spans.back().map_or(0, |span| span.sealed_end);
        let full = self.spans.iter().rev().skip(1);
        full.map(|span| span.sealed_end.max(self.limits.segment_bytes)).sum::<u64>() + newest
    }

    /// The file whose durable span covers `sequence`.
    pub(crate) fn locate(&self, sequence: Sequence) -> Option<SegmentId> {
        let after = self.spans.partition_point(|span| span.first <= sequence);
        let span = self.spans.get(after.checked_sub(1)?)?.public()?;
        (sequence <= span.last).then_some(span.id)
    }

    /// Gives up whole segments whose records are all durable and at or before `up_to`.
    pub(crate) fn trim(&mut self, up_to: Sequence) -> Vec<SegmentId> {
        let mut free = Vec::new();
        while let (Some(oldest), Some(next)) = (self.spans.front(), self.spans.get(1)) {
            // The next one durable implies this one is, and keeps the newest durable commit on disk.
            if oldest.sealed_last > up_to || next.durable.is_none() {
                break;
            }
            free.push(oldest.id);
            self.spans.pop_front();
        }
        free
    }

    fn fits_current(&self, commit_bytes: usize) -> bool {
        let (Some(span), Some(open_bytes)) = (self.spans.back(), self.open_bytes) else { return false };
        span.sealed_end + commit_bytes as u64 <= open_bytes
    }
}
