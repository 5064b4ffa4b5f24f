//! Reading a journal back: recent commits from memory, older ones from disk, always whole commits.

use std::rc::Rc;

use zen_core::journal::{CommitReader, Damage, Kind, RECORD_HEADER_BYTES, Record, SegmentId, Sequence};
use zen_uring::{AlignedBuffer, Reactor};

use super::{BLOCK_BYTES, Image, Journal};

/// A place that could not be read is read again after this.
const READ_RETRY_MS: u64 = 1_000;

/// Commits in memory.
#[derive(Clone, Debug)]
pub enum Piece {
    /// A recent commit.
    Recent(Image),
    /// Read back from disk, from a commit boundary on.
    Read(Rc<ReadBack>),
}

/// A stretch of a segment read back from disk, checked once: it serves many readings.
#[derive(Debug)]
pub struct ReadBack {
    place: Place,
    buffer: AlignedBuffer,
    records: Vec<Found>,
    first: Sequence,
    last: Sequence,
    whole_bytes: u64,
}

/// Where a record lies in commits in memory; a quarter of the smallest record's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Its position in the journal.
    pub sequence: Sequence,
    /// Unix ms.
    pub time_ms: u64,
    /// Offset of its header, bytes.
    pub at: u32,
    /// Its length, bytes.
    pub payload_bytes: u32,
    /// What it is.
    pub kind: Kind,
}

/// Where commits lie.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The journal's id.
    pub journal_id: [u8; 16],
    /// The segment file.
    pub segment: SegmentId,
    /// Offset of a commit, bytes.
    pub offset: u64,
}

/// What a reader needs next.
#[derive(Debug)]
pub enum Next {
    /// The sequence is in memory.
    Piece(Piece),
    /// A read was submitted, or one is under way; poll again after its completion.
    Reading,
    /// The journal does not hold the sequence.
    Nothing,
    /// The disk did not read just now; it is asked again later.
    Unreadable,
}

/// A reader's place in a journal.
#[derive(Debug, Default)]
pub struct Cursor {
    reading: Option<(Place, Sequence)>,
    read_back: Option<Rc<ReadBack>>,
    failed: Option<Failed>,
    /// What one read did not find: a second one decides.
    doubted: Option<Sequence>,
}

/// A place that could not be read, and when to try again, steady ms; none until the next poll.
#[derive(Clone, Copy, Debug)]
struct Failed {
    segment: SegmentId,
    offset: u64,
    retry_at_ms: Option<u64>,
}

impl Piece {
    /// Its records from `sequence` on, in order.
    pub fn records_from(&self, sequence: Sequence) -> impl Iterator<Item = Record<'_>> {
        let (place, bytes, records) = match self {
            Self::Recent(image) => (image.place, &image.bytes[..], &image.records[..]),
            Self::Read(read) => (read.place, &read.buffer[..], &read.records[..]),
        };
        let begin = records.partition_point(|found| found.sequence < sequence);
        records[begin..].iter().map(move |found| {
            let payload = found.at as usize + RECORD_HEADER_BYTES;
            Record {
                sequence: found.sequence,
                kind: found.kind,
                time_ms: found.time_ms,
                payload: &bytes[payload..payload + found.payload_bytes as usize],
                segment: place.segment,
                offset: place.offset + u64::from(found.at),
            }
        })
    }

    /// The record, if it is whole.
    pub fn record(&self, sequence: Sequence) -> Option<Record<'_>> {
        self.records_from(sequence).next().filter(|record| record.sequence == sequence)
    }
}

impl ReadBack {
    /// `wanted` is at or behind `place`: if it is not among the records, damage has it.
    fn new(place: Place, wanted: Sequence, buffer: AlignedBuffer, bytes: usize) -> Self {
        let mut records = Vec::new();
        let mut record = |record: Record<'_>| {
            records.push(Found {
                sequence: record.sequence,
                time_ms: record.time_ms,
                at: (record.offset - place.offset) as u32,
                payload_bytes: record.payload.len() as u32,
                kind: record.kind,
            });
        };
        let whole_bytes = whole_commits(place, &buffer[..bytes], &mut record, &mut |damage| {
            tracing::error!(segment = %damage.segment, offset = damage.offset, reason = %damage.reason,
                "the journal is damaged here; what is readable around it is read");
        });
        let first = records.first().map_or(wanted, |first| wanted.min(first.sequence));
        let last = records.last().map_or(Sequence(0), |last| last.sequence);
        Self { place, buffer, records, first, last, whole_bytes: whole_bytes as u64 }
    }
}

/// Hands out the records of the whole commits in `bytes`, and what is readable of damaged ones.
fn whole_commits<'a>(
    place: Place,
    bytes: &'a [u8],
    record: &mut impl FnMut(Record<'a>),
    damage: &mut impl FnMut(Damage),
) -> usize {
    let Place { journal_id, segment, offset } = place;
    let mut reader = CommitReader::new(journal_id, segment, offset, crc32c::crc32c_append);
    let mut at = 0;
    loop {
        match reader.handle_bytes(&bytes[at..], record) {
            Ok(0) => return at,
            Ok(whole) => at += whole,
            Err(found) => {
                damage(found);
                at += reader.skip_damage(&bytes[at..], record);
            }
        }
    }
}

impl Cursor {
    /// Finds the commit that holds `sequence`, submitting a read with `token` if it is on disk only.
    pub fn poll(&mut self, journal: &Journal, reactor: &mut Reactor, sequence: Sequence, token: u64) -> Next {
        if self.reading.is_some() {
            return Next::Reading;
        }
        if let Some(image) = journal.image_of(sequence) {
            return Next::Piece(Piece::Recent(image.clone()));
        }
        let held = self.read_back.as_ref().filter(|read| read.first <= sequence && sequence <= read.last);
        if let Some(read) = held {
            return Next::Piece(Piece::Read(Rc::clone(read)));
        }
        let readable = |(segment, offset)| Some((segment, offset, journal.readable_bytes(segment, offset)?));
        // Behind the last commit of a segment, damage has the sequence: the next segment goes on.
        let behind = || journal.position_after(sequence).map(|next| (next.segment, next.offset));
        let place = self.place_of(journal, sequence).and_then(readable).or_else(|| readable(behind()?));
        let Some((segment, offset, bytes)) = place else {
            return Next::Nothing;
        };
        if self.has_failed(journal, segment, offset) {
            return Next::Unreadable;
        }
        let buffer = self.take_buffer().unwrap_or_else(|| AlignedBuffer::new(journal.commit_bytes_max()));
        if !journal.read(reactor, segment, offset, buffer, bytes, token) {
            return Next::Nothing;
        }
        self.reading = Some((Place { journal_id: journal.id(), segment, offset }, sequence));
        Next::Reading
    }

    /// The room of what was read before, if nobody looks at it any more.
    fn take_buffer(&mut self) -> Option<AlignedBuffer> {
        let read = Rc::into_inner(self.read_back.take()?)?;
        Some(read.buffer)
    }

    /// A record that must be there is not in what was polled: whether that is so after a second look, too.
    pub fn handle_missing(&mut self, sequence: Sequence) -> bool {
        self.read_back = None;
        self.doubted.replace(sequence) == Some(sequence)
    }

    /// Takes a completed read.
    pub fn handle_read(&mut self, buffer: AlignedBuffer, result: Result<usize, std::io::Error>) {
        let (place, wanted) = self.reading.take().expect("a read completes once");
        let read = result.and_then(|bytes| {
            // A file that is too short ends in half a block.
            let bytes = bytes - bytes % BLOCK_BYTES as usize;
            let read = ReadBack::new(place, wanted, buffer, bytes);
            if read.whole_bytes > 0 { Ok(read) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
        });
        match read {
            Ok(read) => self.read_back = Some(Rc::new(read)),
            Err(error) => {
                tracing::error!(%error, segment = %place.segment, place.offset,
                    "a journal segment cannot be read back; it is tried again");
                let Place { segment, offset, .. } = place;
                self.failed = Some(Failed { segment, offset, retry_at_ms: None });
                self.read_back = None;
            }
        }
    }

    /// Whether a read of this place has failed too short a time ago to be repeated.
    fn has_failed(&mut self, journal: &Journal, segment: SegmentId, offset: u64) -> bool {
        let here = |failed: &&mut Failed| (failed.segment, failed.offset) == (segment, offset);
        let Some(failed) = self.failed.as_mut().filter(here) else { return false };
        let retry_at_ms = *failed.retry_at_ms.get_or_insert_with(|| {
            journal.metrics.journal_read_errors.add(1);
            journal.steady_ms + READ_RETRY_MS
        });
        if journal.steady_ms < retry_at_ms {
            return true;
        }
        self.failed = None;
        false
    }

    /// Goes on behind what was read, unless a known position is nearer to `sequence`.
    fn place_of(&self, journal: &Journal, sequence: Sequence) -> Option<(SegmentId, u64)> {
        let position = journal.position_before(sequence)?;
        let nearest = (position.segment, position.offset);
        let Some(read) = self.read_back.as_ref().filter(|read| read.last < sequence) else {
            return Some(nearest);
        };
        Some(nearest.max((read.place.segment, read.place.offset + read.whole_bytes)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use zen_core::journal::{Limits, Writer};

    use super::*;

    const COMMIT_BYTES: usize = 32 * 1024;
    const JOURNAL_ID: [u8; 16] = [7; 16];
    const KINDS: [Kind; 3] = [Kind::Event, Kind::Outcome, Kind::Event];

    /// Two commits of three records, `i` times `i` bytes each: where they begin and their bytes.
    fn written() -> (Place, Vec<u8>) {
        let limits = Limits { segment_bytes: 1 << 20, segments_max: 4, commit_bytes_max: COMMIT_BYTES };
        let mut writer = Writer::new(limits, JOURNAL_ID, crc32c::crc32c_append);
        writer.add_segment(writer.next_segment_id());
        let (mut bytes, mut begin) = (Vec::new(), None);
        for commit in 0..2_u8 {
            let mut open = vec![0; COMMIT_BYTES];
            for (record, kind) in (1..).zip(KINDS) {
                let payload = vec![3 * commit + record; 1000 * usize::from(record)];
                writer.append(&mut open, kind, u64::from(record), &[&payload[..1], &payload[1..]]).unwrap();
            }
            let write = writer.seal(&mut open, 1).unwrap();
            begin.get_or_insert((write.segment, write.offset));
            bytes.extend_from_slice(&open[..write.bytes]);
            writer.handle_written(write.commit);
        }
        let (segment, offset) = begin.unwrap();
        (Place { journal_id: JOURNAL_ID, segment, offset }, bytes)
    }

    fn read(place: Place, bytes: &[u8]) -> Piece {
        let mut buffer = AlignedBuffer::new(bytes.len());
        buffer.copy_from_slice(bytes);
        Piece::Read(Rc::new(ReadBack::new(place, Sequence(1), buffer, bytes.len())))
    }

    #[test]
    fn each_record_is_found_by_its_sequence() {
        let (place, bytes) = written();
        let piece = read(place, &bytes);
        let mut whole = Vec::new();
        whole_commits(place, &bytes, &mut |record| whole.push(record), &mut |_| panic!("nothing is damaged"));
        assert_eq!(whole.len(), 6);
        for (index, record) in whole.iter().enumerate() {
            assert_eq!(piece.record(record.sequence), Some(*record));
            assert_eq!(piece.records_from(record.sequence).collect::<Vec<_>>(), whole[index..]);
        }
        assert_eq!((piece.record(Sequence(0)), piece.record(Sequence(7))), (None, None));
        assert_eq!(piece.records_from(Sequence(0)).count(), 6);
    }

    #[test]
    fn a_damaged_record_is_not_found_and_those_around_it_are() {
        let (place, mut bytes) = written();
        let piece = read(place, &bytes);
        let second = piece.record(Sequence(2)).unwrap();
        let at = (second.offset - place.offset) as usize + RECORD_HEADER_BYTES;
        bytes[at] ^= 1;
        let piece = read(place, &bytes);
        let found = piece.records_from(Sequence(0)).map(|record| record.sequence.0).collect::<Vec<_>>();
        assert_eq!((found, piece.record(Sequence(2))), (vec![1, 3, 4, 5, 6], None));
    }
}
