//! What becomes a line: an outcome, an operator's act, or from where on a journal's outcomes are told; and the line of each.

use std::fmt::{self, Display};
use std::io::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use zen_core::deliver::DeadReason;
use zen_core::event::Event;
use zen_core::id::{EndpointId, EventId};
use zen_core::journal::Sequence;
use zen_core::record::OutcomeRecord;
use zen_hmac::{PreparedKey, Tag};

use crate::mesh::EventBytes;

/// The act that says from where on a journal's outcomes are told.
pub const BEGIN: &str = "receipts.begin";

/// An outcome of one delivery.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// When, Unix ms.
    pub time_ms: u64,
    /// Whose journal says so.
    pub worker: u16,
    /// Where in it; 0 if it had no room.
    pub record: Sequence,
    /// The event's record: with it the receipt can be made again.
    pub event_record: Sequence,
    /// The event, unless its record is damaged.
    pub event_id: Option<EventId>,
    /// For whom.
    pub target: Arc<str>,
    /// How it ended.
    pub outcome: OutcomeRecord,
    /// How often an operator had sent it again.
    pub replays: u8,
    /// What is known of the event beside its id.
    pub evidence: Evidence,
}

/// What a receipt says of an event.
#[derive(Clone, Debug)]
pub enum Evidence {
    /// All of it is in memory.
    Held(EventBytes),
    /// Its endpoint and the hash of its body, read from the journal.
    Told(EndpointId, Tag),
    /// It was not in memory any more.
    Gone,
}

/// What an operator did.
#[derive(Clone, Debug)]
pub struct Act {
    /// When, Unix ms.
    pub time_ms: u64,
    /// What.
    pub action: &'static str,
    /// Who, as the kernel says.
    pub uid: Option<u32>,
    /// On what.
    pub target: String,
    /// On how many, where that was said.
    pub count: Option<u64>,
}

/// Of a worker's journal, from where on outcomes are told.
#[derive(Clone, Copy, Debug)]
pub struct Begin {
    /// When, Unix ms.
    pub time_ms: u64,
    /// Whose journal.
    pub worker: u16,
    /// Its id.
    pub journal: [u8; 16],
    /// Records up to this one have no receipts.
    pub record: u64,
}

/// A line to be.
#[derive(Clone, Debug)]
pub enum Entry {
    /// An outcome.
    Outcome(Receipt),
    /// An operator's order.
    Act(Act),
    /// A journal is told from here on.
    Begin(Begin),
}

/// What is read back of a line.
#[derive(Debug, Deserialize)]
pub struct Known {
    /// Its number.
    pub sequence: u64,
    /// When, Unix ms.
    pub time_ms: u64,
    /// Whose journal.
    pub worker: Option<u16>,
    /// Where in it.
    pub record: Option<u64>,
    /// Which journal, where it begins.
    pub journal: Option<String>,
}

#[derive(Serialize)]
struct OutcomeLine<'a> {
    sequence: u64,
    time_ms: u64,
    worker: u16,
    record: Option<u64>,
    event: Option<Shown<EventId>>,
    endpoint: Option<Shown<EndpointId>>,
    target: &'a str,
    outcome: &'a str,
    reason: Option<&'a str>,
    status: Option<u16>,
    attempts: u32,
    replays: u8,
    body_hmac_sha256: Option<Shown<Hex<'a>>>,
}

#[derive(Serialize)]
struct ActLine<'a> {
    sequence: u64,
    time_ms: u64,
    act: &'a str,
    actor: Option<String>,
    target: &'a str,
    count: Option<u64>,
}

#[derive(Serialize)]
struct BeginLine<'a> {
    sequence: u64,
    time_ms: u64,
    act: &'a str,
    actor: &'a str,
    worker: u16,
    record: u64,
    journal: Shown<Hex<'a>>,
}

impl Entry {
    /// When, Unix ms.
    pub fn time_ms(&self) -> u64 {
        match self {
            Self::Outcome(Receipt { time_ms, .. })
            | Self::Act(Act { time_ms, .. })
            | Self::Begin(Begin { time_ms, .. }) => *time_ms,
        }
    }

    /// Bytes of events that it keeps in memory.
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Outcome(Receipt { evidence: Evidence::Held(event), .. }) => event.len(),
            Self::Outcome(_) | Self::Act(_) | Self::Begin(_) => 0,
        }
    }
}

/// Appends the lines of `entries`, numbered from `sequence`, each with its line feed.
pub fn encode(entries: &[Entry], sequence: u64, key: &PreparedKey, out: &mut Vec<u8>) {
    let events: Vec<Option<Event<'_>>> = entries.iter().map(event).collect();
    // One call for all bodies: that is what lanes are for.
    let bodies: Vec<&[u8]> = events.iter().flatten().map(|event| event.body).collect();
    let mut tags = key.sign(&bodies).into_iter();
    for ((sequence, entry), event) in (sequence..).zip(entries).zip(&events) {
        let told = match (entry, event) {
            (_, Some(event)) => Some((event.endpoint, tags.next().expect("there is one for each body"))),
            (Entry::Outcome(Receipt { evidence: Evidence::Told(endpoint, tag), .. }), _) => {
                Some((*endpoint, *tag))
            }
            _ => None,
        };
        match entry {
            Entry::Outcome(receipt) => push(out, &outcome_line(receipt, sequence, told.as_ref())),
            Entry::Act(act) => push(out, &act_line(act, sequence)),
            Entry::Begin(begin) => push(out, &begin_line(begin, sequence)),
        }
    }
}

fn event(entry: &Entry) -> Option<Event<'_>> {
    match entry {
        Entry::Outcome(Receipt { evidence: Evidence::Held(bytes), .. }) => Event::decode(bytes).ok(),
        Entry::Outcome(_) | Entry::Act(_) | Entry::Begin(_) => None,
    }
}

fn outcome_line<'a>(
    receipt: &'a Receipt,
    sequence: u64,
    told: Option<&'a (EndpointId, Tag)>,
) -> OutcomeLine<'a> {
    let Receipt { time_ms, worker, record, event_id, target, outcome, replays, .. } = receipt;
    OutcomeLine {
        sequence,
        time_ms: *time_ms,
        worker: *worker,
        record: (record.0 > 0).then_some(record.0),
        event: event_id.map(Shown),
        endpoint: told.map(|(endpoint, _)| Shown(*endpoint)),
        target,
        outcome: outcome.ending.label(),
        reason: outcome.reason.map(DeadReason::label),
        status: (outcome.status > 0).then_some(outcome.status),
        attempts: outcome.attempts,
        replays: *replays,
        body_hmac_sha256: told.map(|(_, tag)| Shown(Hex(tag))),
    }
}

fn act_line(act: &Act, sequence: u64) -> ActLine<'_> {
    let actor = act.uid.map(|uid| format!("uid:{uid}"));
    ActLine { sequence, time_ms: act.time_ms, act: act.action, actor, target: &act.target, count: act.count }
}

fn begin_line(begin: &Begin, sequence: u64) -> BeginLine<'_> {
    let Begin { time_ms, worker, journal, record } = begin;
    let (time_ms, worker, record) = (*time_ms, *worker, *record);
    BeginLine { sequence, time_ms, act: BEGIN, actor: "node", worker, record, journal: Shown(Hex(journal)) }
}

fn push(out: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *out, line).expect("names and numbers are JSON");
    out.write_all(b"\n").expect("memory takes all");
}

/// As its text.
struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Bytes as hex digits.
pub struct Hex<'a>(pub &'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        let digits = &mut digits[..2 * self.0.len()];
        zen_core::id::encode_hex(self.0, digits);
        f.write_str(std::str::from_utf8(digits).expect("hex digits"))
    }
}
