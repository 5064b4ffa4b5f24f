//! The node's journal, modelled: the core's writer over a simulated disk.
//!
//! Records and disk completions enter; durable sequences and records to read leave. As in the node, a failed write is
//! repeated at the same place until it succeeds, segments are prepared one at a time, and trimmed files are recycled.
//! Records are read back from the disk alone, so that what was not flushed is never sent.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::ops::Range;

use zen_core::journal::{
    AppendError, CommitNumber, CommitReader, Kind, Limits, OnDamage, Record, Recovery, RecoveryError,
    SEGMENT_HEADER_BYTES, SegmentHeader, SegmentId, Sequence, Writer, segment_header,
};

use crate::checker::Violation;
use crate::context::{Context, DiskStep, Life, NodeId, Step, Weather};
use crate::disk::{Disk, Waiting};

/// Bytes of a segment.
const SEGMENT_BYTES: usize = 32 * 1024;
/// Longest commit, bytes.
const COMMIT_BYTES_MAX: usize = 16 * 1024;
/// Trimmed files kept for recycling.
const SPARES_MAX: usize = 2;
/// A failed write or preparation is tried again after this, ms.
const RETRY_MS: u64 = 500;

/// A record of its own.
#[derive(Clone, Debug)]
pub struct Owned {
    /// Its sequence.
    pub sequence: Sequence,
    /// What it is.
    pub kind: Kind,
    /// Its payload.
    pub payload: Vec<u8>,
    segment: SegmentId,
    offset: u64,
    time_ms: u64,
}

impl Owned {
    /// The record as readers take it.
    pub fn record(&self) -> Record<'_> {
        let Self { sequence, kind, payload, segment, offset, time_ms } = self;
        let (sequence, kind, segment) = (*sequence, *kind, *segment);
        Record { sequence, kind, time_ms: *time_ms, payload, segment, offset: *offset }
    }
}

/// Whether a disk operation changed what is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskResult {
    /// It went well.
    Done,
    /// A write failed; it will be repeated.
    WriteFailed,
}

/// A file on its way.
#[derive(Debug)]
struct Preparing {
    /// The one it is made of.
    recycle: Option<SegmentId>,
    /// Removed behind it, in order: the node's thread does one task after the other.
    removals: VecDeque<SegmentId>,
}

/// See the module.
#[derive(Debug)]
pub struct Journal {
    node: NodeId,
    life: Life,
    disk: Disk,
    writer: Writer,
    open: Vec<u8>,
    spares: VecDeque<SegmentId>,
    preparing: Option<Preparing>,
    segments_max: u32,
    /// Sequences that the last recovery left out.
    skipped: Range<Sequence>,
}

impl Journal {
    /// Opens what is on `disk`, or begins a journal. Hands out its records, in order.
    pub fn open(
        context: &mut Context,
        (node, life): (NodeId, Life),
        mut disk: Disk,
        segments_max: u32,
        record: &mut impl FnMut(&Record<'_>),
    ) -> Self {
        let limits =
            Limits { segment_bytes: SEGMENT_BYTES as u64, commit_bytes_max: COMMIT_BYTES_MAX, segments_max };
        let mut skipped = Sequence(1)..Sequence(1);
        let writer = match recover(context, node, &disk, limits, record) {
            None => {
                let ids: Vec<SegmentId> = disk.files().map(|(id, _)| id).collect();
                for id in ids {
                    disk.remove(id);
                }
                Writer::new(limits, context.prng.bytes(), crc32c::crc32c_append)
            }
            Some(recovered) => {
                recovered.unused.iter().for_each(|id| disk.remove(*id));
                skipped = recovered.next_sequence..recovered.first_of_run;
                Writer::resume(recovered, limits, crc32c::crc32c_append)
            }
        };
        let open = vec![0; COMMIT_BYTES_MAX];
        Self {
            node,
            life,
            disk,
            writer,
            open,
            spares: VecDeque::new(),
            preparing: None,
            segments_max,
            skipped,
        }
    }

    /// What a crash leaves to the next start.
    pub fn into_disk(mut self, context: &mut Context) -> Disk {
        let Some(Preparing { recycle, removals }) = self.preparing else { return self.disk };
        for id in recycle.into_iter().chain(removals) {
            if !context.prng.chance(500) {
                break;
            }
            self.disk.remove(id);
        }
        self.disk
    }

    /// Appends one record; not durable yet.
    pub fn append(&mut self, kind: Kind, now_ms: u64, parts: &[&[u8]]) -> Result<Sequence, AppendError> {
        self.writer.append(&mut self.open, kind, now_ms, parts)
    }

    /// Seals and writes what is open, and asks for segments.
    pub fn commit(&mut self, context: &mut Context) {
        self.prepare(context);
        let Some(write) = self.writer.seal(&mut self.open, context.clock(self.node).wall_ms) else { return };
        let bytes = self.open[..write.bytes].to_vec();
        let operation = write.commit.0;
        self.disk.write(Waiting { operation, segment: write.segment, offset: write.offset, bytes });
        let delay_ms = context.prng.between(0, context.plan.write_ms_max);
        self.schedule(context, delay_ms, DiskStep::Write(operation));
    }

    /// A disk operation ended.
    pub fn handle_disk(&mut self, context: &mut Context, step: DiskStep) -> DiskResult {
        match step {
            DiskStep::Write(operation) => self.handle_write(context, operation),
            DiskStep::Prepared { id, recycle } => {
                self.handle_prepared(context, id, recycle);
                DiskResult::Done
            }
        }
    }

    /// Frees whole segments up to `up_to`; some files are kept for recycling.
    pub fn trim(&mut self, context: &mut Context, up_to: Sequence) {
        for segment in self.writer.trim(up_to) {
            context.note(format_args!("node {} gives up segment {segment}", self.node.0));
            context.checker.handle_given_up(self.node, segment);
            self.spares.push_back(segment);
            if self.spares.len() > SPARES_MAX
                && let Some(oldest) = self.spares.pop_front()
            {
                self.remove(oldest);
            }
        }
        let files = self.writer.live_segments().count();
        context.checker.check_bound("journal segments", files, self.segments_max as usize);
    }

    /// A durable record, if it is kept and whole.
    pub fn read(&self, sequence: Sequence) -> Option<Owned> {
        let (records, _) = self.read_from(sequence);
        records.into_iter().next().filter(|found| found.sequence == sequence)
    }

    /// Durable records from `from` on, those of one segment; and the last sequence that was looked at.
    pub fn read_from(&self, from: Sequence) -> (Vec<Owned>, Sequence) {
        let spans: Vec<_> = self.writer.live_segments().collect();
        let Some(span) = spans.iter().find(|span| span.last >= from) else {
            return (Vec::new(), self.durable());
        };
        let mut records = Vec::new();
        let file = self.disk.read(span.id).expect("live segments have files");
        let bytes = &file[..span.written_bytes as usize];
        let id = self.writer.journal_id();
        let mut reader = CommitReader::new(id, span.id, SEGMENT_HEADER_BYTES as u64, crc32c::crc32c_append);
        let mut take = |record: Record<'_>| {
            if (from..=span.last).contains(&record.sequence) {
                let Record { sequence, kind, time_ms, payload, segment, offset } = record;
                records.push(Owned { sequence, kind, payload: payload.to_vec(), segment, offset, time_ms });
            }
        };
        while (reader.offset() as usize) < bytes.len() {
            let rest = &bytes[reader.offset() as usize..];
            if !matches!(reader.handle_bytes(rest, &mut take), Ok(1..))
                && reader.skip_damage(rest, &mut take) == 0
            {
                break;
            }
        }
        (records, span.last)
    }

    /// The oldest record that is kept.
    pub fn oldest(&self) -> Option<Sequence> {
        self.writer.oldest()
    }

    /// Sequences that no record has, because the last recovery left them out.
    pub fn skipped(&self) -> &Range<Sequence> {
        &self.skipped
    }

    /// Everything up to here is on disk.
    pub fn durable(&self) -> Sequence {
        self.writer.durable()
    }

    /// The last appended record.
    pub fn appended(&self) -> Sequence {
        Sequence(self.writer.next_sequence().0 - 1)
    }

    /// Bytes of live segments.
    pub fn bytes_live(&self) -> u64 {
        self.writer.bytes_live()
    }

    /// Most bytes of live segments.
    pub fn bytes_max(&self) -> u64 {
        u64::from(self.segments_max) * SEGMENT_BYTES as u64
    }

    /// Whether nothing at all can be appended.
    pub fn is_full(&self) -> bool {
        self.writer.can_append(0) == Err(AppendError::NoSegment)
    }

    /// The newest segment with durable records; 0 for none.
    pub fn current_segment(&self) -> u64 {
        self.writer.live_segments().last().map_or(0, |span| span.id.0)
    }

    /// Whether a record is in the newest segment, which is never trimmed.
    pub fn is_current(&self, sequence: Sequence) -> bool {
        self.writer.locate(sequence).is_none_or(|segment| segment.0 == self.current_segment())
    }

    /// The journal's id, which names its stream.
    pub fn id(&self) -> [u8; 16] {
        self.writer.journal_id()
    }

    /// The disk, for faults.
    pub fn disk_mut(&mut self) -> &mut Disk {
        &mut self.disk
    }

    /// Room for two segments beside what is live, as the node keeps for notes.
    pub fn has_reserve(&self) -> bool {
        self.bytes_live() + 2 * SEGMENT_BYTES as u64 <= self.bytes_max() && !self.is_full()
    }

    fn schedule(&self, context: &mut Context, delay_ms: u64, step: DiskStep) {
        context.schedule(delay_ms, Step::Disk { node: self.node, life: self.life, step });
    }

    fn prepare(&mut self, context: &mut Context) {
        if self.preparing.is_some() || self.writer.segments_wanted() == 0 {
            return;
        }
        let recycle = self.spares.pop_front();
        self.preparing = Some(Preparing { recycle, removals: VecDeque::new() });
        let step = DiskStep::Prepared { id: self.writer.next_segment_id(), recycle };
        let delay_ms = context.prng.between(0, context.plan.write_ms_max);
        self.schedule(context, delay_ms, step);
    }

    fn handle_prepared(&mut self, context: &mut Context, id: SegmentId, recycle: Option<SegmentId>) {
        let is_full =
            context.weather == Weather::Storm && context.now_ms < context.disk_full_until_ms[self.node.0];
        let preparing = self.preparing.as_mut().expect("it was asked for");
        if is_full && recycle.is_none() {
            preparing.removals.drain(..).for_each(|id| self.disk.remove(id));
            self.schedule(context, RETRY_MS, DiskStep::Prepared { id, recycle });
            return;
        }
        let removals = mem::take(&mut preparing.removals);
        self.preparing = None;
        let header = SegmentHeader {
            journal_id: self.writer.journal_id(),
            segment: id,
            segment_bytes: SEGMENT_BYTES as u64,
            created_ms: context.clock(self.node).wall_ms,
        };
        self.disk.prepare(id, &segment_header(&header, crc32c::crc32c_append), SEGMENT_BYTES, recycle);
        for id in removals {
            self.disk.remove(id);
        }
        self.writer.add_segment(id);
    }

    fn remove(&mut self, id: SegmentId) {
        match &mut self.preparing {
            Some(preparing) => preparing.removals.push_back(id),
            None => self.disk.remove(id),
        }
    }

    fn handle_write(&mut self, context: &mut Context, operation: u64) -> DiskResult {
        let fails = context.weather == Weather::Storm
            && context.now_ms < context.write_errors_until_ms[self.node.0]
            && context.prng.chance(700);
        if fails {
            context.note(format_args!("node {}: the write of commit {operation} fails", self.node.0));
            let failed = self.disk.handle_failed(operation, &mut context.prng);
            self.disk.write(failed);
            self.schedule(context, RETRY_MS, DiskStep::Write(operation));
            return DiskResult::WriteFailed;
        }
        let written = self.disk.handle_flushed(operation);
        context.checker.handle_flushed(self.node, self.writer.journal_id(), &written);
        self.writer.handle_written(CommitNumber(operation));
        DiskResult::Done
    }
}

/// Recovery as the node does it: first strictly, and if bits rotted, as an operator who skips the damage.
fn recover(
    context: &mut Context,
    node: NodeId,
    disk: &Disk,
    limits: Limits,
    record: &mut impl FnMut(&Record<'_>),
) -> Option<zen_core::journal::Recovered> {
    let mut recovery = Recovery::new(limits, crc32c::crc32c_append);
    let mut records = BTreeMap::new();
    let checker = &mut context.checker;
    for (id, bytes) in disk.files() {
        let result = recovery.handle_segment(id, bytes, &mut |found| {
            records.insert(found.sequence.0, checker.enter(node, &found));
            record(&found);
        });
        if let Err(error) = result {
            checker.blame(Violation::DamageInvented { journal: node.0, why: error.to_string() });
            return None;
        }
    }
    let on_damage = if checker.has_rot(node) { OnDamage::Skip } else { OnDamage::Refuse };
    match recovery.finish(on_damage) {
        Ok(recovered) => {
            checker.handle_recovered(node, &recovered, &records);
            let (next, damage) = (recovered.next_sequence, recovered.damage.len());
            context.note(format_args!("node {} recovers up to {next}, {damage} damaged places", node.0));
            Some(recovered)
        }
        Err(RecoveryError::Empty) => {
            checker.handle_nothing_recovered(node);
            None
        }
        Err(error) => {
            checker.blame(Violation::DamageInvented { journal: node.0, why: error.to_string() });
            None
        }
    }
}
