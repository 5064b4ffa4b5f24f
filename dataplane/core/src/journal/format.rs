//! Bytes of the journal: segment header, commit header and record, each under its own CRC32C.
//!
//! Integers are little-endian. Parsing refuses a wrong magic, a wrong CRC, an unknown version or
//! cipher, and lengths that no writer makes. `docs/journal-format.md` has the tables.

use core::fmt;

/// Alignment and unit of every write, bytes.
pub const BLOCK_BYTES: usize = 4096;
/// The segment header fills one block.
pub const SEGMENT_HEADER_BYTES: usize = BLOCK_BYTES;
/// Bytes before the first record of a commit.
pub const COMMIT_HEADER_BYTES: usize = 96;
/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 28;

const SEGMENT_MAGIC: [u8; 8] = *b"ZENJRNL1";
const COMMIT_MAGIC: [u8; 4] = *b"ZCMT";
/// 2: an ingester's event record begins with its key. Journals of version 1 are refused, not guessed at.
const VERSION: u16 = 2;
const CIPHER_NONE: u16 = 0;

const _: () = assert!(COMMIT_HEADER_BYTES + RECORD_HEADER_BYTES < BLOCK_BYTES);

/// CRC32C (Castagnoli, RFC 3720 appendix B.4) continued: `crc` of what came before, 0 at the start.
pub type Crc32c = fn(crc: u32, bytes: &[u8]) -> u32;

/// Position of a record over the journal's life: ascending from 1; jumps after each recovery; 0 is "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// Number of a segment file: ascending, never used twice; the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// Number of a commit: ascending over the journal's life; 0 is "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitNumber(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for CommitNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a record is; unknown kinds are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An accepted event.
    Event,
    /// The end of a delivery.
    Outcome,
    /// State that makes older records unnecessary.
    Checkpoint,
    /// A delivery to be tried again.
    Retry,
    /// A dead letter.
    Dead,
    /// Keys of events that may be trimmed by now.
    Index,
    /// A kind that this version does not know.
    Other(u8),
}

impl Kind {
    /// The byte on disk.
    pub const fn code(self) -> u8 {
        match self {
            Self::Event => 1,
            Self::Outcome => 2,
            Self::Checkpoint => 3,
            Self::Retry => 4,
            Self::Dead => 5,
            Self::Index => 6,
            Self::Other(code) => code,
        }
    }

    /// The kind of a byte on disk.
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Event,
            2 => Self::Outcome,
            3 => Self::Checkpoint,
            4 => Self::Retry,
            5 => Self::Dead,
            6 => Self::Index,
            other => Self::Other(other),
        }
    }
}

/// A record, borrowed from the bytes of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its position in the journal.
    pub sequence: Sequence,
    /// What it is.
    pub kind: Kind,
    /// Unix milliseconds, given by whoever appended it.
    pub time_ms: u64,
    /// The appended bytes.
    pub payload: &'a [u8],
    /// The file that holds it.
    pub segment: SegmentId,
    /// Offset of the record's header in that file, bytes.
    pub offset: u64,
}

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the structure has.
    #[error("journal: cut short")]
    Short,
    /// Another magic: something else is stored here.
    #[error("journal: not the expected structure")]
    Magic,
    /// The CRC32C does not match.
    #[error("journal: checksum mismatch")]
    Checksum,
    /// A format version or cipher that this build does not read.
    #[error("journal: written by another version (format {version}, cipher {cipher})")]
    Unsupported {
        /// Format version found.
        version: u16,
        /// Cipher found.
        cipher: u16,
    },
    /// A length, count or number that no writer makes.
    #[error("journal: fields disagree")]
    Fields,
}

/// First block of a segment file, written when the file is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Random, drawn once per journal and never shown outside the node.
    pub journal_id: [u8; 16],
    /// This file's number.
    pub segment: SegmentId,
    /// Length of the file, bytes.
    pub segment_bytes: u64,
    /// Unix milliseconds.
    pub created_ms: u64,
}

/// The header block of a segment file.
pub fn segment_header(header: &SegmentHeader, crc: Crc32c) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut block = [0; SEGMENT_HEADER_BYTES];
    block[..8].copy_from_slice(&SEGMENT_MAGIC);
    block[8..10].copy_from_slice(&VERSION.to_le_bytes());
    block[10..12].copy_from_slice(&CIPHER_NONE.to_le_bytes());
    block[16..32].copy_from_slice(&header.journal_id);
    block[32..40].copy_from_slice(&header.segment.0.to_le_bytes());
    block[40..48].copy_from_slice(&header.segment_bytes.to_le_bytes());
    block[48..56].copy_from_slice(&header.created_ms.to_le_bytes());
    let sum = crc(0, &block[..4092]);
    block[4092..].copy_from_slice(&sum.to_le_bytes());
    block
}

/// Reads the header block at the start of `bytes`.
pub fn parse_segment_header(bytes: &[u8], crc: Crc32c) -> Result<SegmentHeader, FormatError> {
    let block = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(FormatError::Short)?;
    if block[..8] != SEGMENT_MAGIC {
        return Err(FormatError::Magic);
    }
    if crc(0, &block[..4092]) != read_u32(block, 4092) {
        return Err(FormatError::Checksum);
    }
    let (version, cipher) = (read_u16(block, 8), read_u16(block, 10));
    if version != VERSION || cipher != CIPHER_NONE {
        return Err(FormatError::Unsupported { version, cipher });
    }
    let header = SegmentHeader {
        journal_id: read_id(block, 16),
        segment: SegmentId(read_u64(block, 32)),
        segment_bytes: read_u64(block, 40),
        created_ms: read_u64(block, 48),
    };
    if header.segment.0 == 0 || !is_segment_length(header.segment_bytes) {
        return Err(FormatError::Fields);
    }
    Ok(header)
}

/// Start of a commit. `previous` and `durable` make recovery unambiguous; see `recovery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitHeader {
    /// Bytes of the records, without header and padding.
    pub(crate) payload_bytes: u32,
    pub(crate) records: u32,
    pub(crate) number: CommitNumber,
    /// The commit before this one; numbers between the two were never part of the journal.
    pub(crate) previous: CommitNumber,
    /// The newest commit known to be on disk, with all before it, when this one was sealed.
    pub(crate) durable: CommitNumber,
    pub(crate) first: Sequence,
    pub(crate) segment: SegmentId,
    pub(crate) time_ms: u64,
    pub(crate) journal_id: [u8; 16],
    /// CRC32C over the CRC fields of the records, in order: binds this header to these records.
    pub(crate) records_crc: u32,
}

impl CommitHeader {
    /// Bytes of the whole commit on disk, padding included.
    pub(crate) fn commit_bytes(&self) -> usize {
        padded(COMMIT_HEADER_BYTES + self.payload_bytes as usize)
    }

    /// Sequence of the last record.
    pub(crate) fn last(&self) -> Sequence {
        Sequence(self.first.0 + u64::from(self.records) - 1)
    }

    /// What holds for every commit a writer makes: asserted before the write, required after the read.
    pub(crate) fn is_sound(&self) -> bool {
        self.records > 0
            && self.payload_bytes as usize >= self.records as usize * RECORD_HEADER_BYTES
            && self.durable <= self.previous
            && self.previous < self.number
            && self.number.0 < u64::MAX / 2
            && (1..u64::MAX / 2).contains(&self.first.0)
            && self.segment.0 > 0
    }

    /// Writes the header to the start of `commit`.
    pub(crate) fn write(&self, commit: &mut [u8], crc: Crc32c) {
        assert!(self.is_sound(), "a commit header that recovery would refuse");
        let head = &mut commit[..COMMIT_HEADER_BYTES];
        head.fill(0);
        head[..4].copy_from_slice(&COMMIT_MAGIC);
        head[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        head[12..16].copy_from_slice(&self.records.to_le_bytes());
        head[16..24].copy_from_slice(&self.number.0.to_le_bytes());
        head[24..32].copy_from_slice(&self.previous.0.to_le_bytes());
        head[32..40].copy_from_slice(&self.durable.0.to_le_bytes());
        head[40..48].copy_from_slice(&self.first.0.to_le_bytes());
        head[48..56].copy_from_slice(&self.segment.0.to_le_bytes());
        head[56..64].copy_from_slice(&self.time_ms.to_le_bytes());
        head[64..80].copy_from_slice(&self.journal_id);
        head[80..84].copy_from_slice(&self.records_crc.to_le_bytes());
        let sum = commit_header_crc(head, crc);
        head[4..8].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads the header at the start of `bytes`.
    pub(crate) fn parse(bytes: &[u8], crc: Crc32c) -> Result<Self, FormatError> {
        let head = bytes.get(..COMMIT_HEADER_BYTES).ok_or(FormatError::Short)?;
        if head[..4] != COMMIT_MAGIC {
            return Err(FormatError::Magic);
        }
        if commit_header_crc(head, crc) != read_u32(head, 4) {
            return Err(FormatError::Checksum);
        }
        let header = Self {
            payload_bytes: read_u32(head, 8),
            records: read_u32(head, 12),
            number: CommitNumber(read_u64(head, 16)),
            previous: CommitNumber(read_u64(head, 24)),
            durable: CommitNumber(read_u64(head, 32)),
            first: Sequence(read_u64(head, 40)),
            segment: SegmentId(read_u64(head, 48)),
            time_ms: read_u64(head, 56),
            journal_id: read_id(head, 64),
            records_crc: read_u32(head, 80),
        };
        if header.is_sound() { Ok(header) } else { Err(FormatError::Fields) }
    }
}

/// Start of a record, without its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) payload_bytes: u32,
    pub(crate) kind: Kind,
    pub(crate) sequence: Sequence,
    pub(crate) time_ms: u64,
}

impl RecordHeader {
    /// Writes header and `parts` to the start of `out`, which has room for them. Answers the record's CRC.
    pub(crate) fn write(&self, parts: &[&[u8]], out: &mut [u8], crc: Crc32c) -> u32 {
        let (head, body) = out.split_at_mut(RECORD_HEADER_BYTES);
        head[..4].copy_from_slice(&self.payload_bytes.to_le_bytes());
        head[4] = self.kind.code();
        head[5..8].fill(0);
        head[8..16].copy_from_slice(&self.sequence.0.to_le_bytes());
        head[16..24].copy_from_slice(&self.time_ms.to_le_bytes());
        let mut sum = crc(0, &head[..24]);
        let mut at = 0;
        for part in parts {
            body[at..at + part.len()].copy_from_slice(part);
            sum = crc(sum, part);
            at += part.len();
        }
        assert_eq!(at, self.payload_bytes as usize, "the parts are as long as the header says");
        head[24..28].copy_from_slice(&sum.to_le_bytes());
        sum
    }

    /// Reads the fields at the start of `bytes`, unchecked; with them the stored CRC.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, u32), FormatError> {
        let head = bytes.get(..RECORD_HEADER_BYTES).ok_or(FormatError::Short)?;
        let header = Self {
            payload_bytes: read_u32(head, 0),
            kind: Kind::from_code(head[4]),
            sequence: Sequence(read_u64(head, 8)),
            time_ms: read_u64(head, 16),
        };
        Ok((header, read_u32(head, 24)))
    }
}

/// Reads and checks the one record at the start of `bytes`, which lies at `offset` of `segment`.
pub fn decode_record(
    bytes: &[u8],
    segment: SegmentId,
    offset: u64,
    crc: Crc32c,
) -> Result<Record<'_>, FormatError> {
    let (header, sum) = RecordHeader::parse(bytes)?;
    let payload = bytes[RECORD_HEADER_BYTES..].get(..header.payload_bytes as usize);
    let payload = payload.ok_or(FormatError::Short)?;
    if crc(crc(0, &bytes[..24]), payload) != sum {
        return Err(FormatError::Checksum);
    }
    if bytes[5] != 0 {
        return Err(FormatError::Unsupported { version: VERSION, cipher: u16::from(bytes[5]) });
    }
    Ok(record_at(header, payload, segment, offset))
}

pub(crate) fn record_at(header: RecordHeader, payload: &[u8], segment: SegmentId, offset: u64) -> Record<'_> {
    let RecordHeader { sequence, kind, time_ms, .. } = header;
    Record { sequence, kind, time_ms, payload, segment, offset }
}

/// `bytes` rounded up to whole blocks.
pub(crate) const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// Whole blocks, and room for a header and at least one commit.
pub(crate) const fn is_segment_length(bytes: u64) -> bool {
    bytes.is_multiple_of(BLOCK_BYTES as u64) && bytes >= 2 * BLOCK_BYTES as u64
}

fn commit_header_crc(head: &[u8], crc: Crc32c) -> u32 {
    crc(crc(0, &head[..4]), &head[8..COMMIT_HEADER_BYTES])
}

fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("a slice of 2 bytes"))
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of 4 bytes"))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of 8 bytes"))
}

fn read_id(bytes: &[u8], at: usize) -> [u8; 16] {
    bytes[at..at + 16].try_into().expect("a slice of 16 bytes")
}
