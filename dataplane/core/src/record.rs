//! What journal records hold: the payloads of the ingester's and the egress's journal.
//!
//! Integers little-endian; a name is `len:u8 bytes`. An event's encoding comes last and as it is, so
//! that its bytes are never copied apart. Unknown or short payloads are refused, never guessed.
//!
//! - ingester, `Event`: `keys:u8 { key[16] } routes:u8 { egress:name targets:u8 { name } } event`; at most one key
//! - ingester's index, `Index`: see `dedupe`
//! - ingester, `Checkpoint`: empty; every egress has everything before it
//! - egress, `Event`: `stream[16] link_sequence:u64 handle:u64 replay:u8 targets:u8 { name } event`; a handle of
//!   0 means the record's own sequence, an empty name means that this target is done
//! - egress, `Outcome`: `handle:u64 target:u8 ending:u8 reason:u8 status:u16 attempts:u32`
//! - egress, `Retry`: `handle:u64 target:u8 replay:u8 attempt:u32 due_ms:u64`
//! - egress, `Checkpoint`: `count:u16 { stream[16] link_sequence:u64 }`

use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::dedupe::EventKey;
use crate::deliver::DeadReason;
use crate::event::Event;
use crate::id::{EventId, NAME_BYTES_MAX};
use crate::journal::Kind;

/// Routes in one record, and targets in one route.
pub const ROUTES_MAX: usize = 64;
/// Targets of one event at one egress.
pub const TARGETS_MAX: usize = 64;
/// Streams in one checkpoint.
pub const STREAMS_MAX: usize = 4096;

/// Longest payload of a note, bytes.
const NOTE_BYTES_MAX: usize = 24;

/// Names a stream: the id of the ingester worker's journal.
pub type StreamId = [u8; 16];

/// Why a payload cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Ends too early.
    #[error("record payload ends too early")]
    Short,
    /// A name or a count is out of bounds.
    #[error("record payload: a name or count is out of bounds")]
    Bound,
    /// An unknown ending or reason.
    #[error("record payload: unknown ending or reason")]
    Code,
}

/// Appends what stands in front of an event in the ingester's journal: its key, if it has one, and its routes.
pub fn encode_routes<'a, T>(
    out: &mut Vec<u8>,
    key: Option<&EventKey>,
    routes: impl ExactSizeIterator<Item = (&'a str, &'a [T])>,
) where
    T: AsRef<str> + 'a,
{
    assert!(routes.len() <= ROUTES_MAX, "configuration bounds the routes of an endpoint");
    out.push(u8::from(key.is_some()));
    out.extend_from_slice(key.map_or(&[], |key| &key.0));
    out.push(routes.len() as u8);
    for (egress, targets) in routes {
        push_name(out, egress);
        push_names(out, targets.iter().map(AsRef::as_ref));
    }
}

/// Reads the targets for `egress`, if it has any, and the event behind all routes.
pub fn decode_routes<'a>(
    payload: &'a [u8],
    egress: &str,
) -> Result<(Option<Names<'a>>, &'a [u8]), RecordError> {
    let mut input = payload;
    take_key(&mut input)?;
    let count = take(&mut input, 1)?[0];
    if usize::from(count) > ROUTES_MAX {
        return Err(RecordError::Bound);
    }
    let mut found = None;
    for _ in 0..count {
        let name = take_name(&mut input)?;
        let targets = take_names(&mut input)?;
        if name == egress.as_bytes() {
            found = Some(targets);
        }
    }
    Ok((found, input))
}

/// The names of all egresses that the record is routed to.
pub fn decode_egresses(payload: &[u8]) -> Result<Vec<&str>, RecordError> {
    let mut input = payload;
    take_key(&mut input)?;
    let count = take(&mut input, 1)?[0];
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(core::str::from_utf8(take_name(&mut input)?).map_err(|_| RecordError::Bound)?);
        take_names(&mut input)?;
    }
    Ok(names)
}

/// The key that the event was accepted under, if it has one.
pub fn decode_key(payload: &[u8]) -> Result<Option<EventKey>, RecordError> {
    take_key(&mut &*payload)
}

/// The id of the event behind the key and all routes.
pub fn decode_event_id(payload: &[u8]) -> Option<EventId> {
    decode_routes(payload, "").ok().and_then(|(_, event)| Event::id_of(event))
}

/// A list of names inside a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    count: u8,
    bytes: &'a [u8],
}

impl<'a> Names<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The names, in order; all are valid UTF-8, checked when the list was read.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut input = self.bytes;
        (0..self.count).map(move |_| {
            let name = take_name(&mut input).expect("the list was read once before");
            core::str::from_utf8(name).expect("the list was read once before")
        })
    }
}

/// An event in the egress's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldEvent<'a> {
    /// Where it came from.
    pub stream: StreamId,
    /// Its sequence there; 0 when the record only carries an event forward.
    pub link_sequence: u64,
    /// Sequence of the event's first record in this journal; 0 for this record itself.
    pub handle: u64,
    /// How often an operator sent the event again, before this record.
    pub replay: u8,
    /// Targets; empty names are done.
    pub targets: Names<'a>,
    /// The event's encoding.
    pub event: &'a [u8],
}

impl<'a> HeldEvent<'a> {
    /// Everything before the event's encoding.
    pub fn encode_head<'n>(
        out: &mut Vec<u8>,
        stream: &StreamId,
        link_sequence: u64,
        handle: u64,
        replay: u8,
        targets: impl ExactSizeIterator<Item = &'n str>,
    ) {
        out.extend_from_slice(stream);
        out.extend_from_slice(&link_sequence.to_le_bytes());
        out.extend_from_slice(&handle.to_le_bytes());
        out.push(replay);
        push_names(out, targets);
    }

    /// Reads a payload.
    pub fn decode(payload: &'a [u8]) -> Result<Self, RecordError> {
        let mut input = payload;
        let stream = take(&mut input, 16)?.try_into().expect("16 bytes were taken");
        let link_sequence = take_u64(&mut input)?;
        let handle = take_u64(&mut input)?;
        let replay = take(&mut input, 1)?[0];
        let targets = take_names(&mut input)?;
        Ok(Self { stream, link_sequence, handle, replay, targets, event: input })
    }
}

/// How a delivery ended; a dead letter may be opened again by an operator, the others are for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// The target answered 2xx.
    Delivered = 1,
    /// Given up, kept as a dead letter.
    Dead = 2,
    /// Given up and not kept: one dead letter too many, or an event whose record is damaged.
    Dropped = 3,
    /// A dead letter that an operator threw away.
    Discarded = 4,
    /// A dead letter that an operator sent to another target, as an event of its own.
    Moved = 5,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Delivered, Self::Dead, Self::Dropped, Self::Discarded, Self::Moved];

    /// Name in answers to operators.
    pub fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Dropped => "dropped",
            Self::Discarded => "discarded",
            Self::Moved => "moved",
        }
    }
}

/// An `Outcome` record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeRecord {
    /// Whose delivery.
    pub handle: u64,
    /// Position in the event's target list.
    pub target: u8,
    /// How it ended.
    pub ending: Ending,
    /// Why it is a dead letter.
    pub reason: Option<DeadReason>,
    /// Status of the last answer; 0 if none came.
    pub status: u16,
    /// Attempts made.
    pub attempts: u32,
}

/// Bytes of an `Outcome` payload.
const OUTCOME_BYTES: usize = 17;
/// Behind them: the outcome was said before, by a record that may be gone.
const CARRIED: u8 = 1;
/// Bytes of a `Retry` payload.
const RETRY_BYTES: usize = 22;

impl OutcomeRecord {
    /// An ending that needs no more words.
    pub fn new(handle: u64, target: u8, ending: Ending) -> Self {
        Self { handle, target, ending, reason: None, status: 0, attempts: 0 }
    }

    /// The payload.
    pub fn encode(&self) -> [u8; OUTCOME_BYTES] {
        let mut bytes = [0; OUTCOME_BYTES];
        bytes[..8].copy_from_slice(&self.handle.to_le_bytes());
        bytes[8] = self.target;
        bytes[9] = self.ending as u8;
        bytes[10] = self.reason.map_or(0, DeadReason::code);
        bytes[11..13].copy_from_slice(&self.status.to_le_bytes());
        bytes[13..].copy_from_slice(&self.attempts.to_le_bytes());
        bytes
    }

    /// Reads a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, RecordError> {
        let mut input = payload;
        let handle = take_u64(&mut input)?;
        let rest = take(&mut input, OUTCOME_BYTES - 8)?;
        let ending = Ending::ALL.into_iter().find(|ending| *ending as u8 == rest[1]);
        let reason = match rest[2] {
            0 => None,
            code => Some(DeadReason::from_code(code).ok_or(RecordError::Code)?),
        };
        Ok(Self {
            handle,
            target: rest[0],
            ending: ending.ok_or(RecordError::Code)?,
            reason,
            status: u16::from_le_bytes([rest[3], rest[4]]),
            attempts: u32::from_le_bytes(rest[5..].try_into().expect("4 of 9 bytes")),
        })
    }
}

/// A `Retry` record: attempts made and replays ordered survive a restart. It opens a dead letter again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryRecord {
    /// Whose delivery.
    pub handle: u64,
    /// Position in the event's target list.
    pub target: u8,
    /// How often an operator sent it again.
    pub replay: u8,
    /// Attempts made.
    pub attempt: u32,
    /// When the next is due, Unix ms.
    pub due_ms: u64,
}

/// Whether an `Outcome` payload says again what an earlier record said.
pub fn is_carried(payload: &[u8]) -> bool {
    payload.get(OUTCOME_BYTES) == Some(&CARRIED)
}

impl RetryRecord {
    /// The payload.
    pub fn encode(&self) -> [u8; RETRY_BYTES] {
        let mut bytes = [0; RETRY_BYTES];
        bytes[..8].copy_from_slice(&self.handle.to_le_bytes());
        bytes[8] = self.target;
        bytes[9] = self.replay;
        bytes[10..14].copy_from_slice(&self.attempt.to_le_bytes());
        bytes[14..].copy_from_slice(&self.due_ms.to_le_bytes());
        bytes
    }

    /// Reads a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, RecordError> {
        let mut input = payload;
        let handle = take_u64(&mut input)?;
        let rest = take(&mut input, 6)?;
        let attempt = u32::from_le_bytes(rest[2..].try_into().expect("4 of 6 bytes"));
        Ok(Self { handle, target: rest[0], replay: rest[1], attempt, due_ms: take_u64(&mut input)? })
    }
}

/// What became of a delivery, on its way into the egress's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It ended, or is a dead letter.
    Outcome(OutcomeRecord),
    /// It is a dead letter, as an earlier record said: this one stands beside the event's carried record.
    Carried(OutcomeRecord),
    /// It was put off.
    Retry(RetryRecord),
}

impl Note {
    /// The record's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Outcome(_) | Self::Carried(_) => Kind::Outcome,
            Self::Retry(_) => Kind::Retry,
        }
    }

    /// The payload.
    pub fn encode(&self) -> SmallVec<[u8; NOTE_BYTES_MAX]> {
        match self {
            Self::Outcome(record) => SmallVec::from_slice(&record.encode()),
            Self::Carried(record) => {
                let mut payload = SmallVec::from_slice(&record.encode());
                payload.push(CARRIED);
                payload
            }
            Self::Retry(record) => SmallVec::from_slice(&record.encode()),
        }
    }
}

/// Appends a `Checkpoint` payload: how far each stream is durable here.
pub fn encode_checkpoint(out: &mut Vec<u8>, streams: &[(StreamId, u64)]) {
    assert!(streams.len() <= STREAMS_MAX, "the egress bounds its streams");
    out.extend_from_slice(&(streams.len() as u16).to_le_bytes());
    for (stream, sequence) in streams {
        out.extend_from_slice(stream);
        out.extend_from_slice(&sequence.to_le_bytes());
    }
}

/// Reads a `Checkpoint` payload.
pub fn decode_checkpoint(payload: &[u8]) -> Result<Vec<(StreamId, u64)>, RecordError> {
    let mut input = payload;
    let count = take(&mut input, 2)?;
    let count = usize::from(u16::from_le_bytes([count[0], count[1]]));
    if count > STREAMS_MAX {
        return Err(RecordError::Bound);
    }
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let stream = take(&mut input, 16)?.try_into().expect("16 bytes were taken");
        streams.push((stream, take_u64(&mut input)?));
    }
    Ok(streams)
}

/// Every parser of this file on one input; nothing may panic, and what is read must be in bounds.
#[doc(hidden)]
pub fn fuzz_records(data: &[u8]) {
    if let Ok((targets, event)) = decode_routes(data, "inside") {
        assert!(event.len() < data.len());
        assert!(targets.is_none_or(|names| names.iter().all(|name| name.len() <= NAME_BYTES_MAX)));
    }
    let _ = decode_egresses(data);
    if let Ok(Some(key)) = decode_key(data) {
        assert_eq!((data[0], &data[1..17]), (1, &key.0[..]));
    }
    if let Ok(held) = HeldEvent::decode(data) {
        let mut again = Vec::new();
        let names: Vec<&str> = held.targets.iter().collect();
        let HeldEvent { stream, link_sequence, handle, replay, .. } = held;
        HeldEvent::encode_head(&mut again, &stream, link_sequence, handle, replay, names.into_iter());
        again.extend_from_slice(held.event);
        assert_eq!(again, data);
    }
    if let Ok(outcome) = OutcomeRecord::decode(data) {
        assert_eq!(outcome.encode(), data[..OUTCOME_BYTES]);
    }
    if let Ok(retry) = RetryRecord::decode(data) {
        assert_eq!(retry.encode(), data[..RETRY_BYTES]);
    }
    let _ = decode_checkpoint(data);
}

fn push_name(out: &mut Vec<u8>, name: &str) {
    assert!(name.len() <= NAME_BYTES_MAX, "names are checked where they enter");
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

fn push_names<'a>(out: &mut Vec<u8>, names: impl ExactSizeIterator<Item = &'a str>) {
    assert!(names.len() <= TARGETS_MAX, "the fan-out of an event is bounded");
    out.push(names.len() as u8);
    for name in names {
        push_name(out, name);
    }
}

fn take<'a>(input: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], RecordError> {
    let (taken, rest) = input.split_at_checked(bytes).ok_or(RecordError::Short)?;
    *input = rest;
    Ok(taken)
}

fn take_key(input: &mut &[u8]) -> Result<Option<EventKey>, RecordError> {
    match take(input, 1)?[0] {
        0 => Ok(None),
        1 => Ok(Some(EventKey(take(input, 16)?.try_into().expect("16 bytes were taken")))),
        _ => Err(RecordError::Bound),
    }
}

fn take_u64(input: &mut &[u8]) -> Result<u64, RecordError> {
    Ok(u64::from_le_bytes(take(input, 8)?.try_into().expect("8 bytes were taken")))
}

fn take_name<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], RecordError> {
    let len = usize::from(take(input, 1)?[0]);
    if len > NAME_BYTES_MAX {
        return Err(RecordError::Bound);
    }
    take(input, len)
}

fn take_names<'a>(input: &mut &'a [u8]) -> Result<Names<'a>, RecordError> {
    let count = take(input, 1)?[0];
    if usize::from(count) > TARGETS_MAX {
        return Err(RecordError::Bound);
    }
    let bytes = *input;
    for _ in 0..count {
        core::str::from_utf8(take_name(input)?).map_err(|_| RecordError::Bound)?;
    }
    Ok(Names { count, bytes: &bytes[..bytes.len() - input.len()] })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn routes_lead_to_their_egress_only() {
        let mut payload = Vec::new();
        let routes: [(&str, &[&str]); 2] = [("inside", &["billing", "audit"]), ("other", &["crm"])];
        encode_routes(&mut payload, Some(&EventKey([7; 16])), routes.into_iter());
        payload.extend_from_slice(b"event");
        assert_eq!(decode_key(&payload), Ok(Some(EventKey([7; 16]))));
        let (targets, event) = decode_routes(&payload, "inside").unwrap();
        assert_eq!(targets.unwrap().iter().collect::<Vec<_>>(), ["billing", "audit"]);
        assert_eq!((event, decode_event_id(&payload)), (&b"event"[..], None));
        payload.extend_from_slice(&[7; 16]);
        assert_eq!(
            decode_event_id(&payload),
            Some(EventId(*b"event\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07"))
        );
        payload.truncate(payload.len() - 16);
        assert_eq!(decode_routes(&payload, "insid").unwrap(), (None, &b"event"[..]));
        assert_eq!(decode_egresses(&payload).unwrap(), ["inside", "other"]);
        for end in 0..payload.len() - 5 {
            assert_eq!(decode_routes(&payload[..end], "inside").err(), Some(RecordError::Short), "{end}");
        }
    }

    #[test]
    fn an_event_has_one_key_or_none() {
        let mut payload = Vec::new();
        encode_routes::<&str>(&mut payload, None, [("inside", &[][..])].into_iter());
        assert_eq!((payload[0], decode_key(&payload)), (0, Ok(None)));
        assert_eq!(decode_egresses(&payload).unwrap(), ["inside"]);
        payload[0] = 2;
        assert_eq!(decode_key(&payload), Err(RecordError::Bound));
        assert_eq!(decode_egresses(&payload), Err(RecordError::Bound));
    }

    #[test]
    fn outcomes_and_retries_round_trip() {
        let (reason, status, attempts) = (Some(DeadReason::ServerError), 503, 8);
        let outcome = OutcomeRecord { handle: 77, target: 3, ending: Ending::Dead, reason, status, attempts };
        assert_eq!(OutcomeRecord::decode(&outcome.encode()), Ok(outcome));
        assert_eq!(OutcomeRecord::decode(&outcome.encode()[..10]), Err(RecordError::Short));
        for (at, code) in [(9, 0), (9, 6), (10, 200)] {
            let mut bytes = outcome.encode();
            bytes[at] = code;
            assert_eq!(OutcomeRecord::decode(&bytes), Err(RecordError::Code), "{at}");
        }
        for ending in Ending::ALL {
            let outcome = OutcomeRecord::new(1, 2, ending);
            assert_eq!(OutcomeRecord::decode(&outcome.encode()), Ok(outcome), "{}", ending.label());
        }
        let carried = Note::Carried(outcome).encode();
        assert_eq!(OutcomeRecord::decode(&carried), Ok(outcome), "the byte behind it is not in the way");
        assert!(is_carried(&carried) && !is_carried(&Note::Outcome(outcome).encode()));
        let due_ms = 1_700_000_000_000;
        let retry = RetryRecord { handle: 1 << 40, target: 0, replay: 2, attempt: 3, due_ms };
        assert_eq!(RetryRecord::decode(&retry.encode()), Ok(retry));
        let streams = [([1; 16], 5), ([2; 16], u64::MAX)];
        let mut payload = Vec::new();
        encode_checkpoint(&mut payload, &streams);
        assert_eq!(decode_checkpoint(&payload).unwrap(), streams);
        assert_eq!(decode_checkpoint(&payload[..payload.len() - 1]), Err(RecordError::Short));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_records(&data);
        }
    }
}
