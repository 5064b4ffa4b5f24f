//! What a journal holds after a stop of any kind.
//!
//! Enters: its segment files, whole, in order of id. Leaves: the records of the contiguous prefix, where
//! writing goes on, what was cut off, and what is damaged. Commits form a chain by `previous`. Where
//! the chain stops, a commit found beyond tells which it is: if it was sealed after something newer
//! than the end of the chain was on disk (`durable`), that something is damaged; otherwise everything
//! beyond was in flight at a crash and nobody was told it is safe, so it is cut off. New commits get
//! numbers above all that a crash can have left behind, so what was cut off never comes back, and new
//! records sequences above all that can have been given out, should rot have taken more than a crash.
//! It refuses files of other journals, of unknown versions, and in the wrong order.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use super::commit::{deliver, faults, salvage};
use super::format::{
    BLOCK_BYTES, CommitHeader, CommitNumber, Crc32c, FormatError, Record, SEGMENT_HEADER_BYTES, SegmentId,
    Sequence, parse_segment_header,
};
use super::segments::{Limits, SegmentSpan, Span};
use super::{COMMITS_IN_FLIGHT_MAX, SEQUENCES_SKIPPED};

/// What to do about damage that no crash explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// Refuse to open the journal; the error lists the damage.
    Refuse,
    /// Keep what is readable; `Recovered::damage` lists the rest.
    Skip,
}

/// A place that no longer holds what was written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub segment: SegmentId,
    /// Start of the damaged structure in the file, bytes.
    pub offset: u64,
    /// What is wrong there.
    pub reason: DamageReason,
}

/// What is wrong with a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageReason {
    /// The header block of a segment with commits is unreadable.
    #[error("unreadable segment header")]
    SegmentHeader,
    /// A segment with commits is not there.
    #[error("missing segment")]
    SegmentMissing,
    /// There is no readable commit where one was.
    #[error("unreadable commit header")]
    Commit,
    /// The file ends within a commit.
    #[error("file ends within a commit")]
    Short,
    /// A record's checksum, length or sequence is wrong.
    #[error("damaged record")]
    Record,
    /// The records are not those of this commit header.
    #[error("records do not belong to their commit")]
    Mixed,
}

/// What a crash left behind the last whole commit, and recovery cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// The file in which the next commit would have been.
    pub segment: SegmentId,
    /// Where in it, bytes.
    pub offset: u64,
    /// Commits of which at least the header was found, whole or torn.
    pub commits: u32,
}

/// Why a journal is not opened. All are for a person to decide; none goes away by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// No file has a readable header or a commit: there is no journal here.
    #[error("no segment of a journal was found")]
    Empty,
    /// A file was given after one with the same or a higher id.
    #[error("segment {0} is out of order, or there twice")]
    Order(SegmentId),
    /// A file of another journal.
    #[error("segment {0} belongs to another journal")]
    Foreign(SegmentId),
    /// A file of another format version, or encrypted.
    #[error("segment {segment}: {error}")]
    Unsupported {
        /// The file.
        segment: SegmentId,
        /// Version and cipher found.
        error: FormatError,
    },
    /// Damage that no crash explains, and [`OnDamage::Refuse`].
    #[error("{} damaged places; the first in segment {} at offset {}: {}",
        .0.len(), .0[0].segment, .0[0].offset, .0[0].reason)]
    Damaged(Vec<Damage>),
}

/// What [`Recovery`] found, and `Writer::resume` goes on with.
#[derive(Debug)]
pub struct Recovered {
    /// The journal's random id.
    pub journal_id: [u8; 16],
    /// Behind the last record.
    pub next_sequence: Sequence,
    /// What the next record gets: above every sequence that may have been given out before.
    pub first_of_run: Sequence,
    /// The next commit gets this one.
    pub next_commit: CommitNumber,
    /// The last commit of the chain; 0 when there is none.
    pub last_commit: CommitNumber,
    /// Where the next commit goes if it fits; `None`: to the start of the next ready segment.
    pub position: Option<(SegmentId, u64)>,
    /// Segments with records, oldest first.
    pub spans: Vec<SegmentSpan>,
    /// Files behind the last record that the writer goes on to fill, under their own ids.
    pub ready: Vec<SegmentId>,
    /// Files of no use. Delete them before anything is written; what they hold must not come back, so
    /// they are not prepared again.
    pub unused: Vec<SegmentId>,
    /// What a crash left and was cut off.
    pub truncated: Option<Truncation>,
    /// Damage that was skipped; empty under [`OnDamage::Refuse`].
    pub damage: Vec<Damage>,
    /// The id of the next segment to prepare.
    pub next_segment: SegmentId,
    /// Length of the file of `position`, bytes.
    pub(crate) open_bytes: Option<u64>,
}

/// Reads a journal's segments in order of id.
#[derive(Debug)]
pub struct Recovery {
    limits: Limits,
    crc: Crc32c,
    journal_id: Option<[u8; 16]>,
    /// The last file given.
    segment: SegmentId,
    files: Vec<File>,
    spans: Vec<Span>,
    /// Length of the file that holds the end of the chain, when more may be written to it.
    open_bytes: Option<u64>,
    chain: Chain,
    /// The highest number of any commit header of this journal.
    highest: CommitNumber,
    /// The last commit header that may be of the chain: what lies behind it with a lower number was cut off once.
    newest: CommitNumber,
    /// The highest sequence of any such header.
    highest_sequence: Sequence,
    gap: Gap,
    damage: Vec<Damage>,
}

#[derive(Clone, Copy, Debug)]
struct File {
    id: SegmentId,
    /// Length by its header, bytes; `None` when that is unreadable or for another file.
    header_bytes: Option<u64>,
    /// Length as it was given, bytes.
    given_bytes: u64,
}

impl File {
    /// Its length when nothing of it is missing and commits may be added.
    fn writable_bytes(&self) -> Option<u64> {
        self.header_bytes.filter(|header_bytes| *header_bytes <= self.given_bytes)
    }
}

/// The end of the chain of whole commits.
#[derive(Clone, Copy, Debug)]
struct Chain {
    last: CommitNumber,
    next: Sequence,
}

/// What lies behind the end of the chain, until a later commit tells what it means.
#[derive(Debug, Default)]
struct Gap {
    holes: Vec<Hole>,
    /// Commits that do not follow the chain or are not whole, in order of place.
    pending: Vec<Pending>,
    /// Whether the place before was no whole commit.
    in_hole: bool,
    /// What a crash would have left, were this the end.
    left: Option<Truncation>,
}

/// A place where a commit could have been, and no whole one is.
#[derive(Clone, Debug)]
struct Hole {
    segment: SegmentId,
    found: Vec<Damage>,
    /// Whether something of a commit is there, rather than nothing.
    evident: bool,
}

#[derive(Debug)]
struct Pending {
    header: CommitHeader,
    offset: u64,
    bytes: Vec<u8>,
}

impl Pending {
    fn place(&self) -> (SegmentId, u64) {
        (self.header.segment, self.offset)
    }

    fn end(&self) -> (SegmentId, u64) {
        (self.header.segment, self.offset + self.header.commit_bytes() as u64)
    }
}

impl Recovery {
    /// A recovery that has seen no file.
    pub fn new(limits: Limits, crc: Crc32c) -> Self {
        Self {
            limits,
            crc,
            journal_id: None,
            segment: SegmentId(0),
            files: Vec::new(),
            spans: Vec::new(),
            open_bytes: None,
            chain: Chain { last: CommitNumber(0), next: Sequence(1) },
            highest: CommitNumber(0),
            newest: CommitNumber(0),
            highest_sequence: Sequence(0),
            gap: Gap::default(),
            damage: Vec::new(),
        }
    }

    /// Reads the next file, `id` by its name: all its bytes. Hands out records in order of sequence.
    ///
    /// Records behind damage are handed out too: under [`OnDamage::Refuse`] all of them count only once
    /// `finish` is `Ok`. An error ends the recovery.
    pub fn handle_segment(
        &mut self,
        id: SegmentId,
        bytes: &[u8],
        record: &mut impl FnMut(Record<'_>),
    ) -> Result<(), RecoveryError> {
        let file = self.enter_segment(id, bytes)?;
        let end = file.header_bytes.unwrap_or(u64::MAX).min(file.given_bytes) as usize;
        let mut offset = SEGMENT_HEADER_BYTES;
        while offset < end {
            offset += self.handle_place(&bytes[..end], offset, record);
        }
        Ok(())
    }

    /// What the journal holds. What is still undecided was in flight at a crash and is cut off.
    pub fn finish(self, on_damage: OnDamage) -> Result<Recovered, RecoveryError> {
        let journal_id = self.journal_id.ok_or(RecoveryError::Empty)?;
        if on_damage == OnDamage::Refuse && !self.damage.is_empty() {
            return Err(RecoveryError::Damaged(self.damage));
        }
        let spans: Vec<SegmentSpan> = self.spans.iter().filter_map(Span::public).collect();
        let last = spans.last().map_or(SegmentId(0), |span| span.id);
        let is_ready =
            |file: &File| file.id > last && file.writable_bytes() == Some(self.limits.segment_bytes);
        let ready = self.files.iter().filter(|file| is_ready(file)).map(|file| file.id).collect();
        let is_unused = |file: &File| !is_ready(file) && spans.iter().all(|span| span.id != file.id);
        let unused = self.files.iter().filter(|file| is_unused(file)).map(|file| file.id).collect();
        let position = spans.last().filter(|_| self.open_bytes.is_some());
        let position = position.map(|span| (span.id, span.written_bytes));
        let beyond_crash = self.chain.last.0 + COMMITS_IN_FLIGHT_MAX as u64;
        Ok(Recovered {
            journal_id,
            next_sequence: self.chain.next,
            first_of_run: Sequence(self.chain.next.0.max(self.highest_sequence.0 + 1) + SEQUENCES_SKIPPED),
            next_commit: CommitNumber(self.highest.0.max(beyond_crash) + 1),
            last_commit: self.chain.last,
            position,
            spans,
            ready,
            unused,
            truncated: self.gap.left,
            damage: self.damage,
            next_segment: SegmentId(self.segment.0 + 1),
            open_bytes: self.open_bytes,
        })
    }

    /// Takes the header. A file that was being prepared at a crash has none, or that of its past.
    fn enter_segment(&mut self, id: SegmentId, bytes: &[u8]) -> Result<File, RecoveryError> {
        let header = match parse_segment_header(bytes, self.crc) {
            Ok(header) => Some(header).filter(|header| header.segment == id),
            Err(error @ FormatError::Unsupported { .. }) => {
                return Err(RecoveryError::Unsupported { segment: id, error });
            }
            Err(_) => None,
        };
        if id <= self.segment {
            return Err(RecoveryError::Order(id));
        }
        let journal_id = header.map(|header| header.journal_id);
        let journal_id = journal_id.or_else(|| self.journal_id.is_none().then(|| self.find_id(id, bytes))?);
        if let Some(found) = journal_id
            && *self.journal_id.get_or_insert(found) != found
        {
            return Err(RecoveryError::Foreign(id));
        }
        if !self.files.is_empty() && self.segment.0 + 1 < id.0 {
            let segment = SegmentId(self.segment.0 + 1);
            let found = Vec::from([Damage { segment, offset: 0, reason: DamageReason::SegmentMissing }]);
            self.gap.holes.push(Hole { segment, found, evident: false });
        }
        let header_bytes = header.map(|header| header.segment_bytes);
        let file = File { id, header_bytes, given_bytes: bytes.len() as u64 };
        self.files.push(file);
        self.segment = id;
        self.gap.in_hole = false;
        Ok(file)
    }

    /// The journal's id from a commit, where the header of the first file is unreadable.
    fn find_id(&self, segment: SegmentId, bytes: &[u8]) -> Option<[u8; 16]> {
        let mut commits =
            bytes.chunks(BLOCK_BYTES).filter_map(|block| CommitHeader::parse(block, self.crc).ok());
        commits.find(|header| header.segment == segment).map(|header| header.journal_id)
    }

    /// Looks at one place where a commit may start. Answers how far the next such place is, bytes.
    fn handle_place(&mut self, bytes: &[u8], offset: usize, record: &mut impl FnMut(Record<'_>)) -> usize {
        let parsed = CommitHeader::parse(&bytes[offset..], self.crc);
        if let Ok(header) = &parsed
            && self.journal_id == Some(header.journal_id)
        {
            self.highest = self.highest.max(header.number);
            self.highest_sequence = self.highest_sequence.max(header.last());
        }
        let header = match parsed {
            Ok(header) if self.is_ahead(&header) => header,
            Err(FormatError::Checksum | FormatError::Fields) => {
                self.note_hole(offset as u64, true);
                return BLOCK_BYTES;
            }
            Ok(_) | Err(_) => {
                self.note_hole(offset as u64, false);
                return BLOCK_BYTES;
            }
        };
        self.newest = header.number;
        let commit = &bytes[offset..bytes.len().min(offset + header.commit_bytes())];
        if !self.follows(&header, offset) && header.durable > self.chain.last {
            self.prove_damage(&header, offset as u64, record);
        }
        let faults = faults(&header, commit, self.crc);
        if faults.is_empty() && self.follows(&header, offset) {
            self.extend_chain(&header, offset as u64);
            self.open_bytes = self.files.last().and_then(File::writable_bytes);
            deliver(&header, commit, offset as u64, record);
            return commit.len();
        }
        self.postpone(header, offset as u64, commit, &faults)
    }

    /// Whether a commit is of this file and may come after the chain, rather than left from before.
    fn is_ahead(&self, header: &CommitHeader) -> bool {
        self.journal_id == Some(header.journal_id)
            && header.segment == self.segment
            && header.number > self.newest
            && header.first >= self.chain.next
    }

    /// Whether a commit is the next of the chain. The first one of all may follow trimmed ones.
    fn follows(&self, header: &CommitHeader, offset: usize) -> bool {
        let starts = self.chain.last.0 == 0
            && offset == SEGMENT_HEADER_BYTES
            && self.files.len() == 1
            && self.gap.holes.is_empty();
        starts || (header.previous == self.chain.last && header.first >= self.chain.next)
    }

    /// No whole commit is here; one may have been.
    fn note_hole(&mut self, offset: u64, evident: bool) {
        if evident {
            self.note_left(offset);
        }
        if !mem::replace(&mut self.gap.in_hole, true) {
            let found = Vec::from([Damage { segment: self.segment, offset, reason: DamageReason::Commit }]);
            self.gap.holes.push(Hole { segment: self.segment, found, evident });
        }
    }

    fn note_left(&mut self, offset: u64) {
        let here = Truncation { segment: self.segment, offset, commits: 0 };
        self.gap.left.get_or_insert(here).commits += 1;
    }

    /// Keeps a commit until it is known whether it was in flight at a crash. Answers the step, bytes.
    fn postpone(
        &mut self,
        header: CommitHeader,
        offset: u64,
        commit: &[u8],
        faults: &[(usize, DamageReason)],
    ) -> usize {
        self.note_left(offset);
        let segment = self.segment;
        let damage =
            |&(at, reason): &(usize, DamageReason)| Damage { segment, offset: offset + at as u64, reason };
        self.gap.in_hole = !faults.is_empty();
        if self.gap.in_hole {
            let found = faults.iter().map(damage).collect();
            self.gap.holes.push(Hole { segment, found, evident: true });
        }
        self.gap.pending.push(Pending { header, offset, bytes: commit.to_vec() });
        if self.gap.pending.len() > COMMITS_IN_FLIGHT_MAX {
            // Older leftovers than the last crash can explain are not part of the journal; numbers ascend.
            self.gap.pending.remove(0);
        }
        if faults.is_empty() { commit.len() } else { BLOCK_BYTES }
    }

    /// `header` was sealed after something behind the chain was on disk: lists what is no longer there,
    /// hands out what is readable of it, and lets the chain go on behind it.
    fn prove_damage(&mut self, header: &CommitHeader, offset: u64, record: &mut impl FnMut(Record<'_>)) {
        let Gap { mut holes, mut pending, .. } = mem::take(&mut self.gap);
        let durable = self.proven(header, pending.first());
        let behind = pending.split_off(pending.partition_point(|pending| pending.header.number <= durable));
        // At most one was in flight before `header`: nothing tells yet whether a crash left its place.
        let in_flight = behind.into_iter().find(|pending| pending.header.number == header.previous);
        let undecided = match (&in_flight, pending.last()) {
            (Some(in_flight), _) => holes.split_off(holes_before(&holes, in_flight.place())),
            _ if header.previous == durable => Vec::new(),
            (None, Some(last)) if last.header.number == durable => {
                holes.split_off(holes_before(&holes, last.end()))
            }
            (None, _) => holes.last().cloned().into_iter().collect(),
        };
        let mut kept = Vec::new();
        let (mut previous, mut first) = (durable, header.first);
        for pending in pending.into_iter().rev() {
            if pending.header.number <= previous && pending.header.last() < first {
                (previous, first) = (pending.header.previous, pending.header.first);
                kept.push(pending);
            }
        }
        kept.reverse();
        if !self.report(holes, &kept, durable) {
            self.damage.push(Damage { segment: self.segment, offset, reason: DamageReason::Commit });
        }
        for Pending { header, offset, bytes } in kept {
            self.extend_span(&header, offset);
            self.chain.next = Sequence(header.last().0 + 1);
            salvage(&header, &bytes, offset, self.crc, record);
        }
        self.chain.last = durable;
        self.open_bytes = None;
        self.gap.holes = undecided;
        let Some(Pending { header, offset, bytes }) = in_flight else { return };
        if faults(&header, &bytes, self.crc).is_empty() && header.first >= self.chain.next {
            self.extend_chain(&header, offset);
            return deliver(&header, &bytes, offset, record);
        }
        self.gap.left = Some(Truncation { segment: header.segment, offset, commits: 1 });
        self.gap.pending.push(Pending { header, offset, bytes });
    }

    /// Up to which commit all were on disk when `header` was sealed. Trimming leaves no first file whose first
    /// commit is not.
    fn proven(&self, header: &CommitHeader, first: Option<&Pending>) -> CommitNumber {
        let starts = |first: &&Pending| {
            let place = self.files.first().map(|file| (file.id, SEGMENT_HEADER_BYTES as u64));
            self.chain.last.0 == 0 && first.header.previous.0 != 0 && Some(first.place()) == place
        };
        first.filter(starts).map_or(header.durable, |first| header.durable.max(first.header.number))
    }

    /// Tells what is missing up to `durable`: faults in what is `kept`, and holes where a number is left out.
    fn report(&mut self, mut holes: Vec<Hole>, kept: &[Pending], durable: CommitNumber) -> bool {
        let (mut last, mut is_told) = (self.chain.last, false);
        for pending in kept {
            let faults = holes.split_off(holes_before(&holes, pending.place()));
            if pending.header.previous != last {
                is_told |= self.report_missing(
                    holes,
                    pending.header.segment,
                    pending.header.previous.0.saturating_sub(last.0),
                );
            }
            holes = faults;
            let behind = holes.split_off(holes_before(&holes, pending.end()));
            is_told |= self.report_holes(holes);
            (holes, last) = (behind, pending.header.number);
        }
        if last != durable {
            is_told |= self.report_missing(holes, self.segment, durable.0.saturating_sub(last.0));
        }
        is_told
    }

    /// So many numbers are missing somewhere in `holes`, which lie before a commit in `segment`.
    fn report_missing(&mut self, mut holes: Vec<Hole>, segment: SegmentId, numbers: u64) -> bool {
        // Commits fill a segment without gaps, so a hole before that one in its own segment is certain.
        let is_certain = |hole: &Hole| hole.evident || hole.segment == segment;
        // More than one commit can have been in any of them.
        if numbers > 1 {
            return self.report_holes(holes);
        }
        if holes.iter().any(is_certain) {
            holes.retain(is_certain);
        } else {
            holes.drain(..holes.len().saturating_sub(1));
        }
        self.report_holes(holes)
    }

    /// Each place once. Whether there was one.
    fn report_holes(&mut self, holes: Vec<Hole>) -> bool {
        let is_told = !holes.is_empty();
        for hole in holes {
            self.report_header(hole.segment);
            for damage in hole.found {
                if !self.damage.contains(&damage) {
                    self.damage.push(damage);
                }
            }
        }
        is_told
    }

    /// `header` is whole and the next of the chain.
    fn extend_chain(&mut self, header: &CommitHeader, offset: u64) {
        self.gap = Gap::default();
        self.extend_span(header, offset);
        self.chain = Chain { last: header.number, next: Sequence(header.last().0 + 1) };
    }

    /// A segment with commits has its header, or that is damage too; said once.
    fn report_header(&mut self, segment: SegmentId) {
        let damage = Damage { segment, offset: 0, reason: DamageReason::SegmentHeader };
        let mut files = self.files.iter();
        let lacks = files.any(|file| file.id == segment && file.header_bytes.is_none());
        if lacks && !self.damage.contains(&damage) {
            self.damage.push(damage);
        }
    }

    fn extend_span(&mut self, header: &CommitHeader, offset: u64) {
        let end = offset + header.commit_bytes() as u64;
        let (id, last) = (header.segment, header.last());
        if self.spans.last().is_none_or(|span| span.id != id) {
            self.report_header(id);
            self.spans.push(Span {
                id,
                first: header.first,
                sealed_last: last,
                sealed_end: end,
                durable: None,
            });
        }
        let span = self.spans.last_mut().expect("just pushed, or there");
        (span.sealed_last, span.sealed_end, span.durable) = (last, end, Some((last, end)));
    }
}

impl Recovered {
    /// Spans for the writer.
    pub(crate) fn writer_spans(&self) -> VecDeque<Span> {
        let span = |span: &SegmentSpan| Span {
            id: span.id,
            first: span.first,
            sealed_last: span.last,
            sealed_end: span.written_bytes,
            durable: Some((span.last, span.written_bytes)),
        };
        self.spans.iter().map(span).collect()
    }
}

/// How many holes begin before `place`.
fn holes_before(holes: &[Hole], place: (SegmentId, u64)) -> usize {
    let start = |hole: &Hole| (hole.segment, hole.found.first().map_or(0, |damage| damage.offset));
    holes.partition_point(|hole| start(hole) < place)
}
