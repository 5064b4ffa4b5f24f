//! A journal on a disk in memory that loses, tears and rots what was written, driven by bytes.
//!
//! Enters: any bytes, read as a list of operations. Leaves: nothing; it asserts that every durable record
//! is recovered, that nothing is invented, that a crash alone is never called damage, and that damage
//! is. Property tests, fuzz targets and the tests of this module share it.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

#[cfg(test)]
use ::crc32c::crc32c_append as crc32c;

#[cfg(not(test))]
use self::crc32c_by_table as crc32c;
use super::format::CommitHeader;
use super::{
    AppendError, BLOCK_BYTES, CommitNumber, CommitReader, Damage, Kind, Limits, OnDamage, Recovered,
    Recovery, RecoveryError, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentId, Sequence, Write, Writer,
    decode_record, segment_header,
};

/// Small enough that a few records fill a commit and a few commits a segment.
pub const LIMITS: Limits =
    Limits { segment_bytes: 6 * BLOCK_BYTES as u64, commit_bytes_max: 3 * BLOCK_BYTES, segments_max: 5 };
/// The journal of the model.
pub const JOURNAL_ID: [u8; 16] = *b"model journal id";

/// Bytes of operations: each read takes one, zeros after the end.
#[derive(Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Choices from these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte; `None` at the end.
    pub fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let (high, low) = (self.byte().unwrap_or(0), self.byte().unwrap_or(0));
        usize::from(u16::from_be_bytes([high, low])) % end
    }
}

/// A writer, its disk, and what it was given.
#[derive(Debug)]
pub struct Lab {
    /// The machine under test.
    pub writer: Writer,
    /// Segment files by id.
    pub disk: BTreeMap<u64, Vec<u8>>,
    /// Contents of files that were given up, to be prepared again.
    pub spare: Vec<Vec<u8>>,
    /// Sealed and not yet written.
    pub in_flight: Vec<(Write, Vec<u8>)>,
    /// What is expected under each sequence.
    pub model: BTreeMap<u64, Vec<u8>>,
    /// Whatever was appended, cut off or not.
    history: Vec<(u64, Vec<u8>)>,
    open: Vec<u8>,
    appended: u64,
    /// Damage was skipped: records may be missing.
    damaged: bool,
}

impl Default for Lab {
    fn default() -> Self {
        Self {
            writer: Writer::new(LIMITS, JOURNAL_ID, crc32c),
            disk: BTreeMap::new(),
            spare: Vec::new(),
            in_flight: Vec::new(),
            model: BTreeMap::new(),
            history: Vec::new(),
            open: vec![0; LIMITS.commit_bytes_max],
            appended: 0,
            damaged: false,
        }
    }
}

impl Lab {
    /// Prepares what the writer wants, from spare files where there are some.
    pub fn prepare(&mut self) {
        for _ in 0..self.writer.segments_wanted() {
            let segment = self.writer.next_segment_id();
            let mut file = self.spare.pop().unwrap_or_else(|| vec![0; LIMITS.segment_bytes as usize]);
            file.resize(LIMITS.segment_bytes as usize, 0);
            file[..SEGMENT_HEADER_BYTES].copy_from_slice(&header_block(segment));
            assert!(self.disk.insert(segment.0, file).is_none(), "a segment id is used once");
            self.writer.add_segment(segment);
        }
        assert!(self.disk.len() <= LIMITS.segments_max as usize || self.damaged);
    }

    /// Appends a payload that no other record has.
    pub fn append(&mut self, payload_bytes: usize) -> Result<Sequence, AppendError> {
        let filler = self.appended.to_le_bytes();
        let payload: Vec<u8> = filler.iter().copied().cycle().take(payload_bytes).collect();
        let (head, tail) = payload.split_at(payload_bytes / 3);
        let can = self.writer.can_append(payload_bytes);
        let appended = self.writer.append(&mut self.open, Kind::Event, self.appended, &[head, tail]);
        assert_eq!(can, appended.map(|_| ()));
        let sequence = appended?;
        self.appended += 1;
        self.history.push((sequence.0, payload.clone()));
        self.model.insert(sequence.0, payload);
        Ok(sequence)
    }

    /// Seals the open commit if that is possible now.
    pub fn seal(&mut self) -> Option<Write> {
        let write = self.writer.seal(&mut self.open, self.appended)?;
        let buffer = core::mem::replace(&mut self.open, vec![0xa5; LIMITS.commit_bytes_max]);
        self.in_flight.push((write, buffer));
        Some(write)
    }

    /// Completes one write in flight.
    pub fn write(&mut self, at: usize) {
        let (write, buffer) = self.in_flight.remove(at);
        self.land(&write, &buffer, |_| Land::Whole);
        let before = self.writer.durable();
        let durable = self.writer.handle_written(write.commit);
        assert!(durable >= before && self.writer.in_flight() <= super::COMMITS_IN_FLIGHT_MAX);
    }

    /// Seals and writes everything.
    pub fn flush(&mut self) {
        while self.writer.open_records() > 0 || !self.in_flight.is_empty() {
            self.seal();
            while !self.in_flight.is_empty() {
                self.write(0);
            }
        }
        assert_eq!(self.writer.durable().0 + 1, self.writer.next_sequence().0);
    }

    /// Gives up what is not needed up to `up_to`.
    pub fn trim(&mut self, up_to: Sequence) {
        let before = self.writer.oldest().map_or(1, |oldest| oldest.0);
        for id in self.writer.trim(up_to) {
            self.spare.push(self.disk.remove(&id.0).expect("a trimmed segment is on the disk"));
        }
        let oldest = self.writer.oldest().map_or(1, |oldest| oldest.0);
        let needed = self.model.range(up_to.0.min(self.writer.durable().0) + 1..).next();
        assert!(needed.is_none_or(|(needed, _)| oldest <= before.max(*needed)) || self.damaged);
        self.model.retain(|sequence, _| *sequence >= oldest);
    }

    /// Loses power: each write in flight lands in part, as the choices say.
    pub fn crash(&mut self, choices: &mut Choices<'_>) {
        for (write, buffer) in core::mem::take(&mut self.in_flight) {
            let mode = choices.below(4);
            self.land(&write, &buffer, |_| match (mode, choices.below(3)) {
                (0, _) | (2 | 3, 0) => Land::Not,
                (3, 1) => Land::Zeroed,
                _ => Land::Whole,
            });
        }
    }

    /// Recovers after a crash, checks the outcome against the model, and goes on from there.
    pub fn recover(&mut self) {
        let (found, recovered) = self.read(OnDamage::Refuse);
        let recovered = recovered.expect("a crash alone is not damage");
        self.check_prefix(&found, &recovered);
        let (again, repeated) = self.read(OnDamage::Skip);
        let repeated = repeated.expect("what was read once is read again");
        assert!(again == found && repeated.next_commit == recovered.next_commit);
        self.resume(recovered);
    }

    /// Reads the disk: records by sequence, and the verdict.
    pub fn read(&self, on_damage: OnDamage) -> (BTreeMap<u64, Vec<u8>>, Result<Recovered, RecoveryError>) {
        let mut recovery = Recovery::new(LIMITS, crc32c);
        let mut found = BTreeMap::new();
        for (id, file) in &self.disk {
            let fed = recovery.handle_segment(SegmentId(*id), file, &mut |record| {
                let bytes = &file_of(&self.disk, record.segment)[record.offset as usize..];
                assert_eq!(decode_record(bytes, record.segment, record.offset, crc32c), Ok(record));
                assert!(found.last_key_value().is_none_or(|(last, _)| *last < record.sequence.0));
                found.insert(record.sequence.0, record.payload.to_vec());
            });
            if let Err(error) = fed {
                return (found, Err(error));
            }
        }
        (found, recovery.finish(on_damage))
    }

    /// Frees unused files and takes what was recovered as the new state.
    pub fn resume(&mut self, recovered: Recovered) {
        let spans = recovered.spans.iter().map(|span| span.id.0);
        let keep: Vec<u64> = spans.chain(recovered.ready.iter().map(|id| id.0)).collect();
        self.disk.retain(|id, _| keep.contains(id));
        self.damaged |= !recovered.damage.is_empty();
        self.model.retain(|sequence, _| *sequence < recovered.next_sequence.0);
        self.writer = Writer::resume(recovered, LIMITS, crc32c);
        self.in_flight.clear();
    }

    /// Every live record, read again from the files, is what was appended.
    pub fn reread(&self) {
        let oldest = self.writer.oldest().map_or(1, |oldest| oldest.0);
        let durable = self.writer.durable().0;
        let mut expected =
            self.model.range(oldest..).take_while(|(sequence, _)| **sequence <= durable).peekable();
        for span in self.writer.live_segments() {
            assert_eq!(expected.peek().map(|(sequence, _)| **sequence), Some(span.first.0));
            assert_eq!(self.writer.locate(span.first), Some(span.id));
            let mut last = span.first.0;
            let file = &file_of(&self.disk, span.id)[..span.written_bytes as usize];
            let mut reader = CommitReader::new(JOURNAL_ID, span.id, SEGMENT_HEADER_BYTES as u64, crc32c);
            while reader.offset() < span.written_bytes {
                let rest = &file[reader.offset() as usize..];
                let got = reader.handle_bytes(rest, &mut |record| {
                    let (sequence, payload) = expected.next().expect("no record is invented");
                    assert_eq!((record.sequence.0, record.payload), (*sequence, &**payload));
                    last = *sequence;
                });
                assert_eq!(got, Ok(rest.len()));
            }
            assert_eq!((span.last.0, self.writer.locate(span.last)), (last, Some(span.id)));
        }
        assert_eq!(expected.next(), None, "a durable record is lost");
        assert_eq!(self.writer.locate(Sequence(durable + 1)), None);
    }

    fn check_prefix(&self, found: &BTreeMap<u64, Vec<u8>>, recovered: &Recovered) {
        let durable = self.model.range(..=self.writer.durable().0).next_back();
        let kept = durable.is_none_or(|(last, _)| recovered.next_sequence.0 > *last);
        assert!(kept, "a durable record is lost");
        assert!(recovered.next_sequence <= self.writer.next_sequence(), "a record is invented");
        let oldest = self.writer.oldest().map_or(1, |oldest| oldest.0);
        let prefix = self.model.range(oldest..recovered.next_sequence.0);
        assert!(found.iter().eq(prefix), "recovered records differ from the appended ones");
        for block in self.disk.values().flat_map(|file| file.chunks(BLOCK_BYTES)) {
            let left = CommitHeader::parse(block, crc32c).map_or(CommitNumber(0), |header| header.number);
            assert!(recovered.next_commit > left, "what was cut off may come back");
        }
    }

    fn land(&mut self, write: &Write, buffer: &[u8], mut how: impl FnMut(usize) -> Land) {
        let file = self.disk.get_mut(&write.segment.0).expect("a commit goes to a prepared segment");
        let blocks = buffer[..write.bytes].chunks(BLOCK_BYTES);
        for (at, block) in blocks.enumerate() {
            let start = write.offset as usize + at * BLOCK_BYTES;
            let place = &mut file[start..start + BLOCK_BYTES];
            match how(at) {
                Land::Whole => place.copy_from_slice(block),
                Land::Zeroed => place.fill(0),
                Land::Not => {}
            }
        }
    }
}

/// What becomes of a block in flight.
enum Land {
    Whole,
    Zeroed,
    Not,
}

/// Operations against the model: append, seal, complete in any order, trim, lose power, recover.
pub fn fuzz_operations(data: &[u8]) {
    let mut lab = Lab::default();
    run(&mut lab, &mut Choices::new(data));
    lab.crash(&mut Choices::new(data));
    if !lab.disk.is_empty() {
        lab.recover();
        lab.reread();
    }
}

/// Any corruption of a written journal: no panic, nothing invented or left out unsaid, and the journal goes on.
pub fn fuzz_recovery(data: &[u8]) {
    let (operations, corruption) = data.split_at(data.len() * 2 / 3);
    let mut lab = Lab::default();
    lab.prepare();
    run(&mut lab, &mut Choices::new(operations));
    let written = lab.written();
    let mut choices = Choices::new(corruption);
    let mut corrupted = 0;
    while let Some(how) = choices.byte() {
        lab.corrupt(how, &mut choices);
        corrupted += 1;
    }
    let (found, recovered) = lab.read(OnDamage::Skip);
    if let Ok(recovered) = &recovered {
        lab.check_reported(&written, &found, recovered, corrupted);
    }
    let was_appended =
        |(sequence, payload): (&u64, &Vec<u8>)| lab.history.contains(&(*sequence, payload.clone()));
    assert!(found.iter().all(was_appended), "a record is invented");
    let Ok(recovered) = recovered else { return };
    assert!(found.keys().all(|sequence| *sequence < recovered.next_sequence.0));
    let (_, refused) = lab.read(OnDamage::Refuse);
    assert_eq!(refused.is_err(), !recovered.damage.is_empty());
    lab.resume(recovered);
    lab.prepare();
    let first = lab.append(100);
    let last = lab.append(5000);
    lab.flush();
    let (again, recovered) = lab.read(OnDamage::Skip);
    recovered.expect("a journal that was resumed is read again");
    for sequence in [first, last].into_iter().flatten() {
        assert_eq!(again.get(&sequence.0), lab.model.get(&sequence.0));
    }
    assert!(found.keys().all(|sequence| again.contains_key(sequence)), "a record got lost by resuming");
}

/// Any bytes as segment files: no panic, whatever they hold.
pub fn fuzz_segments(data: &[u8]) {
    let mut recovery = Recovery::new(LIMITS, crc32c);
    for (at, part) in data.chunks(3 * BLOCK_BYTES).enumerate() {
        let id = SegmentId(at as u64 + 1);
        let mut file = header_block(id).to_vec();
        file.extend_from_slice(part);
        let whole = if part.first().is_some_and(|first| first % 2 == 0) { &file[..] } else { part };
        if recovery.handle_segment(id, whole, &mut |_| {}).is_err() {
            return;
        }
    }
    if let Ok(recovered) = recovery.finish(OnDamage::Skip) {
        Writer::resume(recovered, LIMITS, crc32c);
    }
}

fn run(lab: &mut Lab, choices: &mut Choices<'_>) {
    while let Some(operation) = choices.byte() {
        match operation % 16 {
            0 | 1 => lab.prepare(),
            2..=4 => drop(lab.append(choices.below(200))),
            5 | 6 => drop(lab.append(choices.below(2 * BLOCK_BYTES))),
            7 => drop(lab.append(choices.below(4 * BLOCK_BYTES))),
            8..=10 => drop(lab.seal()),
            11 | 12 if !lab.in_flight.is_empty() => lab.write(choices.below(lab.in_flight.len())),
            13 => lab.trim(Sequence(choices.below(lab.writer.durable().0 as usize + 2) as u64)),
            14 if !lab.disk.is_empty() => {
                lab.crash(choices);
                lab.recover();
            }
            _ => lab.reread(),
        }
    }
}

impl Lab {
    /// Damages one place of one file: flips, zeroes, cuts, or removes the file.
    pub fn corrupt(&mut self, how: u8, choices: &mut Choices<'_>) {
        let at = choices.below(self.disk.len().max(1));
        let Some((&id, file)) = self.disk.iter_mut().nth(at).filter(|(_, file)| !file.is_empty()) else {
            return;
        };
        let offset = choices.below(file.len());
        match how % 8 {
            0..=3 => file[offset] ^= how | 1,
            4 | 5 => {
                let start = offset / BLOCK_BYTES * BLOCK_BYTES;
                let end = file.len().min(start + BLOCK_BYTES);
                file[start..end].fill(0);
            }
            6 => file.truncate(offset),
            _ => drop(self.disk.remove(&id)),
        }
    }
}

/// A commit of the chain as it was before anything was damaged.
#[derive(Debug)]
pub struct WrittenCommit {
    header: CommitHeader,
    offset: usize,
    bytes: Vec<u8>,
}

impl Lab {
    /// The chain of commits on the disk, which is not damaged.
    pub fn written(&self) -> Vec<WrittenCommit> {
        let (_, Ok(recovered)) = self.read(OnDamage::Refuse) else { return Vec::new() };
        let mut written = Vec::new();
        for span in recovered.spans {
            let file = file_of(&self.disk, span.id);
            let mut offset = SEGMENT_HEADER_BYTES;
            while offset < span.written_bytes as usize {
                let header = CommitHeader::parse(&file[offset..], crc32c).expect("commits lie without gaps");
                let bytes = file[offset..offset + header.commit_bytes()].to_vec();
                written.push(WrittenCommit { header, offset, bytes });
                offset += header.commit_bytes();
            }
        }
        written
    }

    /// What a commit that still has its header vouches for is recovered if it is whole, and reported if it is not.
    pub fn check_reported(
        &self,
        written: &[WrittenCommit],
        found: &BTreeMap<u64, Vec<u8>>,
        recovered: &Recovered,
        corrupted: usize,
    ) {
        let on_disk = |commit: &WrittenCommit| {
            file_of(&self.disk, commit.header.segment).get(commit.offset..).unwrap_or_default()
        };
        let has_header = |commit: &&WrittenCommit| {
            CommitHeader::parse(on_disk(commit), crc32c).is_ok_and(|header| header == commit.header)
        };
        let vouched = written.iter().filter(has_header).map(|commit| commit.header.durable).max();
        // Files that are missing in front look as if they had been trimmed.
        let oldest = self.disk.keys().next().copied().unwrap_or(u64::MAX);
        let vouched_for = written
            .iter()
            .filter(|commit| Some(commit.header.number) <= vouched && commit.header.segment.0 >= oldest);
        for commit in vouched_for {
            let CommitHeader { first, segment, .. } = commit.header;
            if (first.0..=commit.header.last().0).all(|sequence| found.contains_key(&sequence)) {
                continue;
            }
            assert!(
                !on_disk(commit).starts_with(&commit.bytes),
                "a whole commit that was durable is left out"
            );
            let is_here = |place: &Damage| place.segment == segment;
            let is_reported =
                recovered.damage.iter().any(is_here) || corrupted > 1 && !recovered.damage.is_empty();
            assert!(
                is_reported,
                "damage is not reported: commit {} in segment {segment}",
                commit.header.number
            );
        }
    }
}

/// CRC32C by table, for those who bring no other.
pub fn crc32c_by_table(crc: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let mut value = at as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
                bit += 1;
            }
            table[at] = value;
            at += 1;
        }
        table
    };
    let step = |crc: u32, byte: &u8| crc >> 8 ^ TABLE[(crc as u8 ^ byte) as usize];
    !bytes.iter().fold(!crc, step)
}

pub(super) fn header_block(segment: SegmentId) -> [u8; SEGMENT_HEADER_BYTES] {
    let header =
        SegmentHeader { journal_id: JOURNAL_ID, segment, segment_bytes: LIMITS.segment_bytes, created_ms: 0 };
    segment_header(&header, crc32c)
}

fn file_of(disk: &BTreeMap<u64, Vec<u8>>, segment: SegmentId) -> &[u8] {
    disk.get(&segment.0).map_or(&[], |file| &file[..])
}
