//! A worker's journal on disk: `zen_core::journal` decides, the reactor writes.
//!
//! Records go into an open commit; [`Journal::commit`] seals it and submits one write; a completion
//! moves the durable prefix. At most two writes are in flight. Failed writes are repeated at the same
//! place, so an error never makes a hole. Bytes move by ring operations only; files are prepared by
//! [`segments`].

mod open;
mod reader;
mod retention;
mod scan;
mod segments;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

pub use open::{OpenError, directory, open, remove_orphans};
pub use reader::{Cursor, Found, Next, Piece, Place};
use retention::Retention;
pub use retention::RetentionLimits;
pub use scan::Scan;
pub use segments::{
    MAKER_BYTES, MakerThread, Pace, SegmentMaker, SegmentRequest, spawn as spawn_segment_maker,
};
use zen_core::journal::{
    AppendError, COMMITS_IN_FLIGHT_MAX, CommitNumber, Kind, SegmentId, SegmentSpan, Sequence, Writer,
};
use zen_uring::{AlignedBuffer, FileId, Reactor};

use crate::mesh::JournalRole;
use crate::metrics::WorkerMetrics;

/// Block that `O_DIRECT` wants offsets and lengths in.
pub const BLOCK_BYTES: u64 = 4096;
/// One position per this many bytes is kept for re-reading.
const POSITION_EVERY_BYTES: u64 = 1 << 20;
/// The shortest record of an event, bytes: its header and an event without body.
pub const SMALLEST_RECORD_BYTES: usize = 128;
/// A failed write is tried again after this.
const WRITE_RETRY_MS: u64 = 200;
/// Segments whose file is gone from the live set and may be recycled.
const SPARES_MAX: usize = 2;

/// Where a commit starts in a segment.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// First sequence at or after this place.
    pub first: Sequence,
    /// Segment file.
    pub segment: SegmentId,
    /// Byte offset of a commit header.
    pub offset: u64,
}

/// A recent commit in memory, as it is on disk.
#[derive(Clone, Debug)]
pub struct Image {
    /// First sequence in it.
    pub first: Sequence,
    /// Last sequence in it.
    pub last: Sequence,
    /// Where it is on disk.
    pub place: Place,
    /// The commit, with header and padding.
    pub bytes: Arc<[u8]>,
    /// Where its records lie in it.
    pub records: Arc<[Found]>,
}

impl Image {
    fn memory_bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&self.records[..])
    }
}

/// Which journal to open, and how.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// The node's directory.
    pub data_dir: &'a std::path::Path,
    /// Bounds.
    pub settings: crate::config::JournalSettings,
    /// Commits kept in memory.
    pub recent_bytes_max: usize,
    /// What is kept for replay.
    pub retention: RetentionLimits,
    /// Which of the worker's journals.
    pub role: JournalRole,
    /// The worker.
    pub worker: u16,
}

struct InFlight {
    commit: CommitNumber,
    segment: SegmentId,
    offset: u64,
    bytes: usize,
    records: u64,
    started: Instant,
}

/// One journal of one worker.
pub struct Journal {
    role: JournalRole,
    writer: Writer,
    open: AlignedBuffer,
    spare_buffers: Vec<AlignedBuffer>,
    files: HashMap<SegmentId, FileId>,
    in_flight: Vec<InFlight>,
    failed: Vec<(u64, AlignedBuffer)>,
    retry_at_ms: u64,
    steady_ms: u64,
    recent: VecDeque<Image>,
    recent_bytes: usize,
    recent_bytes_max: usize,
    /// Where the records of the open commit lie, if it will be remembered.
    open_found: Vec<Found>,
    positions: VecDeque<Position>,
    maker: SegmentMaker,
    spares: VecDeque<SegmentId>,
    retention: Retention,
    wall_ms: u64,
    requested: bool,
    pace: Pace,
    no_segment: bool,
    /// Sequences that recovery left out: from behind the last record to before the next one.
    skipped: Range<Sequence>,
    metrics: Arc<WorkerMetrics>,
}

impl Journal {
    fn new(
        start: &Start<'_>,
        writer: Writer,
        files: HashMap<SegmentId, FileId>,
        positions: VecDeque<Position>,
        maker: SegmentMaker,
        retention: Retention,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        let next = writer.next_sequence();
        let recovered = writer.live_segments().last().map_or(Sequence(0), |span| span.last);
        let buffer = || AlignedBuffer::new(start.settings.commit_bytes_max);
        Self {
            role: start.role,
            writer,
            open: buffer(),
            spare_buffers: (0..COMMITS_IN_FLIGHT_MAX).map(|_| buffer()).collect(),
            files,
            in_flight: Vec::with_capacity(COMMITS_IN_FLIGHT_MAX),
            failed: Vec::new(),
            retry_at_ms: 0,
            steady_ms: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_bytes_max: start.recent_bytes_max,
            open_found: Vec::new(),
            positions,
            maker,
            spares: VecDeque::new(),
            retention,
            wall_ms: 0,
            requested: false,
            pace: Pace::default(),
            no_segment: false,
            skipped: Sequence(recovered.0 + 1)..next,
            metrics,
        }
    }

    /// The journal's random id.
    pub fn id(&self) -> [u8; 16] {
        self.writer.journal_id()
    }

    /// Appends one record to the open commit.
    pub fn append(&mut self, kind: Kind, wall_ms: u64, parts: &[&[u8]]) -> Result<Sequence, AppendError> {
        let at = self.writer.open_bytes() as u32;
        let sequence = self.writer.append(&mut self.open, kind, wall_ms, parts)?;
        if self.recent_bytes_max > 0 {
            let payload_bytes = parts.iter().map(|part| part.len() as u32).sum();
            self.open_found.push(Found { sequence, time_ms: wall_ms, at, payload_bytes, kind });
        }
        Ok(sequence)
    }

    /// Whether a record of this payload fits right now.
    pub fn can_append(&self, payload_bytes: usize) -> Result<(), AppendError> {
        self.writer.can_append(payload_bytes)
    }

    /// Records in the open commit.
    pub fn open_records(&self) -> u32 {
        self.writer.open_records()
    }

    /// Writes in flight or waiting to be repeated.
    pub fn is_writing(&self) -> bool {
        self.writer.in_flight() > 0
    }

    /// Everything up to here is on disk.
    pub fn durable(&self) -> Sequence {
        self.writer.durable()
    }

    /// The sequence that the next record gets.
    pub fn next_sequence(&self) -> Sequence {
        self.writer.next_sequence()
    }

    /// Whether a record of this sequence was here before the last recovery and is lost.
    pub fn has_lost(&self, sequence: Sequence) -> bool {
        self.skipped.contains(&sequence)
    }

    /// The first sequence that this process gives out; those before are of earlier runs.
    pub fn first_of_run(&self) -> Sequence {
        self.skipped.end
    }

    /// Sequences that no record has, because the last recovery left them out.
    pub fn skipped(&self) -> Range<Sequence> {
        self.skipped.clone()
    }

    /// Bytes of all live segments.
    pub fn bytes_live(&self) -> u64 {
        self.writer.bytes_live()
    }

    /// Seals the open commit, if there is one and fewer than two are in flight, and submits its write.
    pub fn commit(&mut self, reactor: &mut Reactor, wall_ms: u64) {
        self.wall_ms = wall_ms;
        while let Some(id) = self.retention.poll_surplus(wall_ms) {
            self.add_spare(id);
        }
        self.want_segments(wall_ms);
        if self.writer.open_records() == 0 || self.spare_buffers.is_empty() {
            return;
        }
        let records = u64::from(self.writer.open_records());
        let Some(write) = self.writer.seal(&mut self.open, wall_ms) else {
            return;
        };
        let spare = self.spare_buffers.pop().expect("checked above");
        let buffer = std::mem::replace(&mut self.open, spare);
        let first = Sequence(write.last.0 + 1 - records);
        self.remember(first, &write, &buffer[..write.bytes]);
        self.in_flight.push(InFlight {
            commit: write.commit,
            segment: write.segment,
            offset: write.offset,
            bytes: write.bytes,
            records,
            started: Instant::now(),
        });
        let file = self.files[&write.segment];
        reactor.write(file, write.offset, buffer, write.bytes, self.token(write.commit));
    }

    /// Takes a write's completion; the durable prefix may have moved.
    pub fn handle_wrote(
        &mut self,
        token: u64,
        buffer: AlignedBuffer,
        result: Result<(), std::io::Error>,
        steady_ms: u64,
    ) {
        let commit = CommitNumber(token & TOKEN_VALUE);
        let at = self.in_flight.iter().position(|write| write.commit == commit);
        let at = at.expect("the reactor reports each write once");
        if let Err(error) = result {
            self.metrics.journal_write_errors.add(1);
            if self.failed.is_empty() {
                tracing::error!(%error, role = ?self.role, "journal write failed; it is repeated until it succeeds");
            }
            self.retry_at_ms = steady_ms + WRITE_RETRY_MS;
            self.failed.push((commit.0, buffer));
            return;
        }
        let write = self.in_flight.swap_remove(at);
        self.spare_buffers.push(buffer);
        self.metrics.journal_commit.record(write.started.elapsed());
        self.metrics.journal_commits.add(1);
        self.metrics.journal_records.add(write.records);
        self.metrics.journal_bytes.add(write.bytes as u64);
        self.writer.handle_written(commit);
    }

    /// Repeats failed writes that are due.
    pub fn handle_time(&mut self, reactor: &mut Reactor, steady_ms: u64) {
        self.steady_ms = steady_ms;
        if self.failed.is_empty() || steady_ms < self.retry_at_ms {
            return;
        }
        for (commit, buffer) in std::mem::take(&mut self.failed) {
            let write = self.in_flight.iter().find(|write| write.commit.0 == commit);
            let write = write.expect("a failed write stays in flight");
            let file = self.files[&write.segment];
            reactor.write(file, write.offset, buffer, write.bytes, self.token(CommitNumber(commit)));
        }
    }

    /// Takes a prepared segment file, or the reason why there is none.
    pub fn handle_segment(
        &mut self,
        reactor: &mut Reactor,
        id: SegmentId,
        file: Result<std::os::fd::OwnedFd, std::io::Error>,
    ) {
        self.requested = false;
        let added = file.and_then(|fd| reactor.add_file(fd).map_err(std::io::Error::other));
        match added {
            Ok(file) => {
                self.files.insert(id, file);
                self.writer.add_segment(id);
                self.no_segment = false;
            }
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull && self.retention.len() > 0 => {
                let oldest = self.retention.poll_oldest().expect("some are kept");
                tracing::warn!(segment = %oldest, role = ?self.role, "the disk is full: the oldest segment kept for replay goes");
                self.metrics.retained_shed.add(1);
                self.add_spare(oldest);
            }
            Err(error) if !self.no_segment => {
                tracing::error!(%error, role = ?self.role, "no journal segment can be prepared; when the last one is full, events are refused until there is room");
                self.no_segment = true;
            }
            Err(_) => {}
        }
    }

    /// Frees whole segments up to `up_to`; a few files are kept for recycling.
    pub fn trim(&mut self, reactor: &mut Reactor, up_to: Sequence) {
        for segment in self.writer.trim(up_to) {
            if let Some(file) = self.files.remove(&segment) {
                reactor.remove_file(file);
            }
            if self.retention.handle_trimmed(segment, self.wall_ms) {
                self.maker.retain(segment);
            } else {
                self.add_spare(segment);
            }
            while self.positions.front().is_some_and(|position| position.segment <= segment) {
                self.positions.pop_front();
            }
        }
    }

    /// Segments kept for replay.
    pub fn retained_segments(&self) -> usize {
        self.retention.len()
    }

    /// The recent commit that holds `sequence`, if it is still in memory.
    pub fn image_of(&self, sequence: Sequence) -> Option<&Image> {
        let at = self.recent.partition_point(|image| image.last < sequence);
        self.recent.get(at).filter(|image| image.first <= sequence)
    }

    /// The latest known commit start at or before `sequence`.
    pub fn position_before(&self, sequence: Sequence) -> Option<Position> {
        let at = self.positions.partition_point(|position| position.first <= sequence);
        at.checked_sub(1).map(|at| self.positions[at])
    }

    /// The first known commit start behind `sequence`.
    pub fn position_after(&self, sequence: Sequence) -> Option<Position> {
        let at = self.positions.partition_point(|position| position.first <= sequence);
        self.positions.get(at).copied()
    }

    /// The oldest sequence that is still there.
    pub fn oldest(&self) -> Option<Sequence> {
        self.writer.oldest()
    }

    /// The oldest segment with anything durable in it.
    pub fn oldest_segment(&self) -> Option<SegmentSpan> {
        self.writer.live_segments().next()
    }

    /// The segment that the next commit probably goes to, as a number that changes with it.
    pub fn current_segment(&self) -> u64 {
        self.writer.live_segments().last().map_or(0, |span| span.id.0)
    }

    /// Whether a record is in the newest segment, which is never trimmed.
    pub fn is_current(&self, sequence: Sequence) -> bool {
        self.writer.locate(sequence).is_none_or(|segment| segment.0 == self.current_segment())
    }

    /// The segment that a durable record is in.
    pub fn segment_of(&self, sequence: Sequence) -> Option<SegmentId> {
        self.writer.locate(sequence)
    }

    /// Longest commit, bytes.
    pub fn commit_bytes_max(&self) -> usize {
        self.open.len()
    }

    /// How much lies on disk from `offset` on, as far as one read goes.
    pub fn readable_bytes(&self, segment: SegmentId, offset: u64) -> Option<usize> {
        let span = self.writer.live_segments().find(|span| span.id == segment)?;
        let left = span.written_bytes.checked_sub(offset).filter(|left| *left > 0)?;
        Some(left.min(self.open.len() as u64) as usize)
    }

    /// Reads blocks of a segment; the completion carries `token`.
    pub fn read(
        &self,
        reactor: &mut Reactor,
        segment: SegmentId,
        offset: u64,
        buffer: AlignedBuffer,
        bytes: usize,
        token: u64,
    ) -> bool {
        let Some(&file) = self.files.get(&segment) else {
            return false;
        };
        assert_eq!(offset % BLOCK_BYTES, 0, "O_DIRECT reads whole blocks");
        reactor.read(file, offset, buffer, bytes, token);
        true
    }

    fn token(&self, commit: CommitNumber) -> u64 {
        write_token(self.role, commit.0)
    }

    /// Files go oldest first, so that a crash never leaves a gap between them.
    fn add_spare(&mut self, segment: SegmentId) {
        self.spares.push_back(segment);
        if self.spares.len() > SPARES_MAX
            && let Some(oldest) = self.spares.pop_front()
        {
            self.maker.remove(oldest);
        }
    }

    fn want_segments(&mut self, wall_ms: u64) {
        self.pace.set(match self.writer.segments_ready() {
            _ if self.files.is_empty() => Pace::URGENT,
            0 => Pace::NEXT,
            _ => Pace::SPARE,
        });
        if self.requested || self.writer.segments_wanted() == 0 {
            return;
        }
        let id = self.writer.next_segment_id();
        let (recycle, pace) = (self.spares.pop_front(), self.pace.clone());
        let request = SegmentRequest { role: self.role, id, recycle, pace };
        self.maker.prepare(request, wall_ms);
        self.requested = true;
    }

    fn remember(&mut self, first: Sequence, write: &zen_core::journal::Write, bytes: &[u8]) {
        let far = self.positions.back().is_none_or(|last| {
            last.segment != write.segment || write.offset - last.offset >= POSITION_EVERY_BYTES
        });
        if far {
            self.positions.push_back(Position { first, segment: write.segment, offset: write.offset });
        }
        if self.recent_bytes_max == 0 {
            return;
        }
        let place =
            Place { journal_id: self.writer.journal_id(), segment: write.segment, offset: write.offset };
        let records = Arc::from(&self.open_found[..]);
        self.open_found.clear();
        let image = Image { first, last: write.last, place, bytes: Arc::from(bytes), records };
        self.recent_bytes += image.memory_bytes();
        self.recent.push_back(image);
        while self.recent_bytes > self.recent_bytes_max {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.memory_bytes();
        }
    }
}

const TOKEN_VALUE: u64 = (1 << 56) - 1;
const TOKEN_READ: u64 = 1 << 57;
const TOKEN_EGRESS: u64 = 1 << 56;
const TOKEN_INDEX: u64 = 1 << 58;

/// The token of a journal write.
fn write_token(role: JournalRole, value: u64) -> u64 {
    debug_assert!(value <= TOKEN_VALUE);
    value
        | match role {
            JournalRole::Ingester => 0,
            JournalRole::Egress => TOKEN_EGRESS,
            JournalRole::Index => TOKEN_INDEX,
        }
}

/// The token of a journal read with a caller's own number.
pub fn read_token(role: JournalRole, value: u64) -> u64 {
    write_token(role, value) | TOKEN_READ
}

/// Which journal a completion belongs to, and the caller's number.
pub fn token_role(token: u64) -> (JournalRole, u64) {
    let role = match token & (TOKEN_EGRESS | TOKEN_INDEX) {
        TOKEN_EGRESS => JournalRole::Egress,
        TOKEN_INDEX => JournalRole::Index,
        _ => JournalRole::Ingester,
    };
    (role, token & TOKEN_VALUE)
}
