//! Segments: lines that are appended where there is no database, each a leaf, and signed digests over whole segments.
//!
//! A digest says which segment it is of, which lines it has by their running numbers, the root over them, and the hash of
//! the digest before: a chain, whose newest hash somebody else keeps. Lines behind the last digest are signed by nobody yet.
//! Refused: text that is not the one form of a digest, lines that were changed, left out, swapped or put in, a segment that
//! is missing between others, digests that do not continue one another.

use std::fmt::Write as _;

use crate::hash::{Hash, leaf_hash};
use crate::key::{LogKey, SigningKey};
use crate::note::{Note, NoteError};
use crate::tree::{Frontier, SIZE_MAX};

/// The second line of a digest, and what tells it from any other note.
const FORMAT: &str = "zen-receipts-digest-v1";

/// What is said of a segment that is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Who wrote it: the name of its key.
    pub origin: String,
    /// Which segment, from 0.
    pub segment: u64,
    /// The running number of its first line.
    pub first: u64,
    /// How many lines it has.
    pub count: u64,
    /// The earliest time of a line, Unix ms; 0 without lines.
    pub from_ms: u64,
    /// The latest time of a line, Unix ms; 0 without lines.
    pub to_ms: u64,
    /// Over its lines.
    pub root: Hash,
    /// The hash of the digest before, or of nothing.
    pub previous: Hash,
}

/// Why a note is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Its text.
    #[error("the note's text is not a digest")]
    Form,
    /// Of somebody else.
    #[error("the digest is of another writer")]
    Origin,
}

impl Digest {
    /// The text of its note.
    pub fn text(&self) -> String {
        let Self { origin, segment, first, count, from_ms, to_ms, root, previous } = self;
        let mut text = String::new();
        write!(
            text,
            "{origin}\n{FORMAT}\nsegment {segment}\nfirst {first}\ncount {count}\nfrom {from_ms}\nto {to_ms}\n\
             root {root}\nprevious {previous}\n"
        )
        .expect("a string takes all");
        text
    }

    /// Reads a note's text.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        Self::read(text).ok_or(DigestError::Form)
    }

    /// What names it: in the digest behind it, and in the log that anchors it.
    pub fn hash(&self) -> Hash {
        leaf_hash(self.text().as_bytes())
    }

    /// Its note, signed.
    pub fn sign(&self, key: &SigningKey) -> Note {
        let mut note = Note::new(self.text());
        note.sign(key, 0);
        note
    }

    /// What the writer with this key signed.
    pub fn verify(note: &Note, key: &LogKey) -> Result<Self, DigestError> {
        note.verify(key)?.ok_or(NoteError::Unsigned)?;
        let digest = Self::parse(note.text())?;
        if digest.origin == key.name() { Ok(digest) } else { Err(DigestError::Origin) }
    }

    /// The running number behind its last line.
    pub fn end(&self) -> u64 {
        self.first + self.count
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty())?.to_owned();
        lines.next().filter(|format| *format == FORMAT)?;
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let [segment, first, count] = ["segment", "first", "count"].map(|name| field(name).and_then(number));
        let [from_ms, to_ms] = ["from", "to"].map(|name| field(name).and_then(number));
        let [root, previous] = ["root", "previous"].map(|name| field(name).and_then(Hash::from_base64));
        let digest = Self {
            origin,
            segment: segment?,
            first: first?,
            count: count?,
            from_ms: from_ms?,
            to_ms: to_ms?,
            root: root?,
            previous: previous?,
        };
        lines.next().is_none().then_some(digest)
    }
}

/// The segment that is written: what its digest will say.
#[derive(Clone, Debug)]
pub struct Segment {
    number: u64,
    first: u64,
    frontier: Frontier,
    times_ms: Option<(u64, u64)>,
}

impl Segment {
    /// An empty one, whose first line will have this running number.
    pub fn new(number: u64, first: u64) -> Self {
        Self { number, first, frontier: Frontier::default(), times_ms: None }
    }

    /// The one behind a digest, or the first of all.
    pub fn behind(digest: Option<&Digest>) -> Self {
        digest.map_or_else(|| Self::new(0, 0), |digest| Self::new(digest.segment + 1, digest.end()))
    }

    /// Takes a line, without its line feed, and its time in Unix ms.
    pub fn handle_line(&mut self, line: &[u8], time_ms: u64) {
        self.frontier.append(leaf_hash(line), |_, _| {});
        let (from_ms, to_ms) = self.times_ms.unwrap_or((time_ms, time_ms));
        self.times_ms = Some((from_ms.min(time_ms), to_ms.max(time_ms)));
    }

    /// Which segment.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The earliest time of a line, Unix ms.
    pub fn from_ms(&self) -> Option<u64> {
        self.times_ms.map(|(from_ms, _)| from_ms)
    }

    /// How many lines it has.
    pub fn count(&self) -> u64 {
        self.frontier.size()
    }

    /// The running number of the next line.
    pub fn next_sequence(&self) -> u64 {
        self.first + self.frontier.size()
    }

    /// What is said of it when it is closed.
    pub fn digest(&self, origin: &str, before: Option<&Digest>) -> Digest {
        let (from_ms, to_ms) = self.times_ms.unwrap_or((0, 0));
        Digest {
            origin: origin.to_owned(),
            segment: self.number,
            first: self.first,
            count: self.frontier.size(),
            from_ms,
            to_ms,
            root: self.frontier.root(),
            previous: before.map_or_else(Hash::of_nothing, Digest::hash),
        }
    }
}

/// The whole lines of a segment's bytes, without their line feeds, and what is behind the last line feed.
pub fn segment_lines(bytes: &[u8]) -> (impl Iterator<Item = &[u8]>, &[u8]) {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (whole, torn) = bytes.split_at(end);
    (whole.split_inclusive(|byte| *byte == b'\n').map(|line| &line[..line.len() - 1]), torn)
}

/// What was found: the lines `[first, verified)` are what was signed, `unsigned` more follow them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentFinding {
    /// The running number of the first line that is here; those before it are gone, and their digests hold.
    pub first: u64,
    /// Running number behind the last line that a digest is signed for, up to a fault.
    pub verified: u64,
    /// Lines behind it for which there is no digest yet.
    pub unsigned: u64,
    /// What does not hold.
    pub fault: Option<SegmentFault>,
}

/// Why segments or their digests do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentFault {
    /// A digest that is none, or that another key signed.
    #[error("digest {index} does not hold: {source}")]
    Digest {
        /// Its place among the digests, from 0.
        index: usize,
        /// Why.
        source: DigestError,
    },
    /// A digest was left out, put in or replaced, or was never this writer's.
    #[error("the digest of segment {segment} does not continue the one before")]
    Chain {
        /// Whose digest.
        segment: u64,
    },
    /// A segment between others, or the newest one, is not there.
    #[error("segment {segment} is missing")]
    Missing {
        /// Which.
        segment: u64,
    },
    /// There are lines behind it, and no digest of it: the digest was taken away.
    #[error("segment {segment} has no digest, and there are others behind it")]
    Undigested {
        /// Which.
        segment: u64,
    },
    /// Fewer or more lines than were signed for.
    #[error("segment {segment} has {lines} whole lines, and its digest is of {signed}")]
    Lines {
        /// Which.
        segment: u64,
        /// How many there are.
        lines: u64,
        /// How many there should be.
        signed: u64,
    },
    /// As many lines, and others.
    #[error("the lines of segment {segment} are not those that were signed")]
    Root {
        /// Which.
        segment: u64,
    },
}

/// Checks segments against their digests, each by its number, both oldest first. What is missing before the first
/// segment was let go or taken away: nothing is said of it.
pub fn verify_segments<B: AsRef<[u8]>>(
    digests: &[Note],
    segments: impl IntoIterator<Item = (u64, B)>,
    key: &LogKey,
) -> SegmentFinding {
    let mut finding = SegmentFinding::default();
    finding.fault = match verify_digests(digests, key) {
        Ok(digests) => compare(&digests, segments, &mut finding).err(),
        Err(fault) => Some(fault),
    };
    finding
}

/// Checks that digests are signed, and continue one another.
pub fn verify_digests(digests: &[Note], key: &LogKey) -> Result<Vec<Digest>, SegmentFault> {
    let mut good: Vec<Digest> = Vec::with_capacity(digests.len());
    for (index, note) in digests.iter().enumerate() {
        let digest = Digest::verify(note, key).map_err(|source| SegmentFault::Digest { index, source })?;
        let continues = match good.last() {
            Some(before) => {
                before.segment + 1 == digest.segment
                    && before.end() == digest.first
                    && before.hash() == digest.previous
            }
            None => digest.segment > 0 || (digest.first == 0 && digest.previous == Hash::of_nothing()),
        };
        if !continues {
            return Err(SegmentFault::Chain { segment: digest.segment });
        }
        good.push(digest);
    }
    Ok(good)
}

fn compare<B: AsRef<[u8]>>(
    digests: &[Digest],
    segments: impl IntoIterator<Item = (u64, B)>,
    finding: &mut SegmentFinding,
) -> Result<(), SegmentFault> {
    let begin = digests.first().map_or(0, |digest| digest.segment);
    let (end, signed) = digests.last().map_or((0, 0), |digest| (digest.segment + 1, digest.end()));
    let mut expected = None;
    for (segment, bytes) in segments {
        let next = expected.unwrap_or(segment);
        if segment != next {
            return Err(SegmentFault::Missing { segment: next });
        }
        if segment > end || segment < begin {
            return Err(SegmentFault::Undigested { segment: segment.min(end) });
        }
        let digest = digests.get((segment - begin) as usize);
        if expected.is_none() {
            finding.first = digest.map_or(signed, |digest| digest.first);
            finding.verified = finding.first;
        }
        expected = Some(segment + 1);
        match digest {
            Some(digest) => {
                compare_one(digest, bytes.as_ref())?;
                finding.verified = digest.end();
            }
            None => finding.unsigned = segment_lines(bytes.as_ref()).0.count() as u64,
        }
    }
    match expected {
        Some(next) if next < end => Err(SegmentFault::Missing { segment: next }),
        None if end > 0 => Err(SegmentFault::Missing { segment: end - 1 }),
        _ => Ok(()),
    }
}

fn compare_one(digest: &Digest, bytes: &[u8]) -> Result<(), SegmentFault> {
    let Digest { segment, count: signed, .. } = *digest;
    let (whole, torn) = segment_lines(bytes);
    let mut written = Segment::new(segment, 0);
    whole.for_each(|line| written.handle_line(line, 0));
    let lines = written.count();
    if lines != signed || !torn.is_empty() {
        return Err(SegmentFault::Lines { segment, lines, signed });
    }
    if written.frontier.root() == digest.root { Ok(()) } else { Err(SegmentFault::Root { segment }) }
}

fn number(text: &str) -> Option<u64> {
    let is_decimal =
        text.bytes().all(|digit| digit.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|number| is_decimal && *number <= SIZE_MAX)
}
