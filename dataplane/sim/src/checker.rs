//! The judge: knows what every disk really holds and what every target really took, and compares.
//!
//! Enters: what sources made, commits at the moment they are on a disk, answers to sources, files given up,
//! what recovery found, what targets took. Leaves: the first violation of an invariant, and whether anything is
//! still owed. It trusts no node: durable is what a disk was seen to hold. Excused is only what lay where bits rotted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use zen_core::event::Event;
use zen_core::id::{EndpointId, EventId};
use zen_core::journal::{
    COMMIT_HEADER_BYTES, CommitReader, Kind, RECORD_HEADER_BYTES, Record, Recovered, SegmentId, Sequence,
};
use zen_core::link::LinkError;
use zen_core::record::{HeldEvent, decode_egresses, decode_routes};

use crate::context::NodeId;
use crate::disk::Waiting;
use crate::plan::{Plan, Trouble};

/// The place of a commit that was seen by recovery only.
const COMMIT_UNKNOWN: u64 = u64::MAX;

/// Longest time from accepting an event to its being durable, ms: a write that fails for as long as it may.
const WRITE_MS_MAX: u64 = 30_000;
/// No clock step takes a key out of a window over this, ms.
const WINDOW_MS_LONG: u64 = 12 * 3_600_000;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A 2xx for what a power cut would lose.
    #[error("a source got 2xx for event {0}, which is not on disk")]
    AnsweredNotDurable(EventId),
    /// A request that is not what it claims to be got a 2xx, or its body is in a journal.
    #[error("an event that no source signed was taken")]
    Unverified,
    /// Two events with one id.
    #[error("id {0} stands for two events")]
    IdTwice(EventId),
    /// A journal gave up an event that the next hop does not have, and that is not done.
    #[error("journal {journal} gave up event {event} too early")]
    TrimmedTooEarly {
        /// Whose journal.
        journal: usize,
        /// The event.
        event: EventId,
    },
    /// What was on disk is not there after a restart, or is something else.
    #[error("journal {journal} lost record {sequence}, which was on disk")]
    RecordLost {
        /// Whose journal.
        journal: usize,
        /// Which.
        sequence: u64,
    },
    /// Recovery sees damage where no bit rotted, or cannot read the journal.
    #[error("journal {journal} was refused or found damaged although no bit rotted: {why}")]
    DamageInvented {
        /// Whose journal.
        journal: usize,
        /// What recovery said.
        why: String,
    },
    /// Recovery left out rotted records and did not say so.
    #[error("journal {0} left out records whose bits rotted, without a word")]
    DamageHidden(usize),
    /// A target took what no source made, or another body or endpoint under the same id.
    #[error("target {target} took event {event}, which is not what was accepted")]
    DeliveredWrong {
        /// The target.
        target: usize,
        /// The id that it saw.
        event: EventId,
    },
    /// A target refused an honest delivery for a reason that is none.
    #[error("target {target} refused an honest delivery: {why}")]
    RefusedHonest {
        /// The target.
        target: usize,
        /// What its check said.
        why: String,
    },
    /// A target took the same delivery twice.
    #[error("target {0} took a replayed delivery")]
    ReplayTaken(usize),
    /// One event of a source is two events in the journals of one ingester, within its window.
    #[error("ingester {ingester} accepted one event of a source as {first} and as {second}")]
    KeyTwice {
        /// The ingester.
        ingester: usize,
        /// The first id.
        first: EventId,
        /// The second.
        second: EventId,
    },
    /// A source was told that an event came before, long after its window was over.
    #[error("event {0} counts as seen long after its window")]
    KeyKept(EventId),
    /// Two honest nodes did not understand each other.
    #[error("node {node} closed a link of honest nodes: {why}")]
    LinkRefused {
        /// Who.
        node: usize,
        /// What it said.
        why: String,
    },
    /// An egress journaled an event twice.
    #[error("journal {journal} holds event {event} twice, as two deliveries")]
    HeldTwice {
        /// Whose journal.
        journal: usize,
        /// The event.
        event: EventId,
    },
    /// An event was given up as damaged whose record no bit rotted in.
    #[error("journal {journal} gave up event {event} as damaged, which it is not")]
    GivenUp {
        /// Whose journal.
        journal: usize,
        /// The event.
        event: EventId,
    },
    /// A delivery was given up although its schedule was not over.
    #[error("event {event} became a dead letter for target {target} too early")]
    DeadLetter {
        /// The handle at its egress.
        event: u64,
        /// The target.
        target: usize,
    },
    /// A queue, table or buffer is over its bound.
    #[error("{name}: {value}, bound {bound}")]
    Bound {
        /// What.
        name: &'static str,
        /// How much.
        value: usize,
        /// How much may be.
        bound: usize,
    },
    /// Without faults, not everything was delivered in time.
    #[error(
        "no progress: {sources} events not accepted, {deliveries} deliveries missing long after the last fault"
    )]
    NoProgress {
        /// Genuine events without a 2xx.
        sources: usize,
        /// Accepted events that a target does not have.
        deliveries: usize,
    },
}

/// What a source made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Where it belongs.
    pub endpoint: EndpointId,
    /// Its body.
    pub body: Rc<[u8]>,
    /// Whether its signature is right.
    pub genuine: bool,
}

/// Where a journal's events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Source,
    Link,
}

/// An event in a journal.
#[derive(Clone, Debug)]
struct Kept {
    id: EventId,
    /// The source's number of it.
    key: u64,
    /// At an ingester: egress and target. At an egress: its own number and target.
    owed_to: Vec<(usize, usize)>,
    handle: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    crc: u32,
    segment: SegmentId,
    offset: u64,
    bytes: usize,
    commit: u64,
    trust: Trust,
    event: Option<Kept>,
}

/// Whether a restart must find a durable record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// It must.
    Sound,
    /// Bits rotted in its commit: it may be left out, but not without a word if a later commit vouches for it.
    Rotted,
    /// A commit before it rotted that nothing vouches for: it may be cut off with that one.
    Doubtful,
}

/// What a disk really holds of one journal.
#[derive(Debug, Default)]
struct Ledger {
    entries: BTreeMap<u64, Entry>,
    /// Up to here nothing is missing.
    prefix: u64,
    rot: bool,
    /// The commit behind this sequence was in flight when the newest one rotted: it does not vouch for it.
    doubtful: Option<u64>,
}

impl Entry {
    fn place(&self) -> (SegmentId, u64) {
        (self.segment, self.commit)
    }
}

impl Ledger {
    /// The durable commits, in order.
    fn commits(&self) -> Vec<(SegmentId, u64)> {
        let mut commits: Vec<_> =
            self.entries.range(..=self.prefix).map(|(_, entry)| entry.place()).collect();
        commits.dedup();
        commits
    }

    /// Whether recovery left out a rotted record that a later commit vouches for, and reported no damage near it.
    fn hidden(&self, recovered: &Recovered, records: &BTreeMap<u64, Entered>) -> bool {
        let commits = self.commits();
        let rotted = self.entries.values().filter(|entry| entry.trust == Trust::Rotted);
        let rotted: BTreeSet<_> = rotted.map(Entry::place).collect();
        let durable = self.entries.range(..=self.prefix);
        let mut missing = durable
            .filter(|(sequence, entry)| entry.trust == Trust::Rotted && !records.contains_key(sequence))
            .map(|(_, entry)| entry);
        missing.any(|entry| {
            let at = commits.iter().position(|commit| *commit == entry.place()).unwrap_or(commits.len());
            // Two commits may be in flight, so the second one behind it was sealed when it was durable.
            let is_vouched_for = commits.iter().skip(at + 2).any(|commit| !rotted.contains(commit));
            let is_reported = recovered.damage.iter().any(|damage| damage.segment == entry.segment);
            is_vouched_for && !is_reported
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Checker {
    plan: Plan,
    ledgers: Vec<Ledger>,
    made: BTreeMap<u64, Made>,
    journaled: BTreeMap<EventId, u64>,
    /// Which journals of egresses had which event durably.
    held: BTreeSet<(usize, EventId)>,
    delivered: BTreeSet<(usize, EventId)>,
    owed: BTreeSet<(usize, EventId)>,
    excused: BTreeSet<EventId>,
    /// Dead letters that left because there were too many.
    dropped: BTreeSet<(usize, EventId)>,
    accepted: BTreeSet<u64>,
    /// What ingesters have or had on disk, by ingester and the source's number.
    accepted_as: BTreeMap<(usize, u64), EventId>,
    /// What ingesters have or had on disk.
    once_durable: BTreeSet<EventId>,
    /// First records of events at egresses.
    first_held: BTreeMap<(usize, EventId), u64>,
    /// Attempts made, by egress, target and handle.
    attempts: BTreeMap<(usize, usize, u64), usize>,
    violation: Option<Violation>,
    /// Duplicates that were answered with the first event's id.
    pub duplicates: u64,
    /// Deliveries that became dead letters.
    pub dead_letters: u64,
    /// Events that egresses gave up because their record was damaged.
    pub lost: u64,
    /// Events that got a 2xx, with every try of a source counted.
    pub answered: u64,
    /// Deliveries that targets took.
    pub deliveries: u64,
}

impl Checker {
    /// Nothing has happened yet.
    pub fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            ledgers: (0..plan.nodes()).map(|_| Ledger::default()).collect(),
            made: BTreeMap::new(),
            journaled: BTreeMap::new(),
            held: BTreeSet::new(),
            delivered: BTreeSet::new(),
            owed: BTreeSet::new(),
            excused: BTreeSet::new(),
            dropped: BTreeSet::new(),
            accepted: BTreeSet::new(),
            accepted_as: BTreeMap::new(),
            once_durable: BTreeSet::new(),
            first_held: BTreeMap::new(),
            attempts: BTreeMap::new(),
            violation: None,
            duplicates: 0,
            dead_letters: 0,
            lost: 0,
            answered: 0,
            deliveries: 0,
        }
    }

    /// The first broken promise.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Notes a broken promise, unless there was one before.
    pub fn blame(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Blames what is over its bound.
    pub fn check_bound(&mut self, name: &'static str, value: usize, bound: usize) {
        if value > bound {
            self.blame(Violation::Bound { name, value, bound });
        }
    }

    /// A node closes a link: time and silence are reasons, what an honest peer says is none.
    pub fn handle_link_closed(&mut self, node: NodeId, error: &LinkError) {
        let is_expected = matches!(
            error,
            LinkError::Stale | LinkError::HandshakeTimeout | LinkError::PeerSilent | LinkError::Refused(_)
        );
        if !is_expected {
            self.blame(Violation::LinkRefused { node: node.0, why: error.to_string() });
        }
    }

    /// A source made an event; its body begins with `key` in hex.
    pub fn handle_made(&mut self, key: u64, made: Made) {
        self.made.insert(key, made);
    }

    /// A commit is on a disk.
    pub fn handle_flushed(&mut self, node: NodeId, journal_id: [u8; 16], written: &Waiting) {
        let mut reader =
            CommitReader::new(journal_id, written.segment, written.offset, crc32c::crc32c_append);
        let mut entries = Vec::new();
        let whole = reader.handle_bytes(&written.bytes, &mut |record| {
            entries.push((record.sequence.0, self.entry(node, &record, written.offset)));
        });
        assert!(whole.is_ok_and(|bytes| bytes == written.bytes.len()), "a writer seals whole commits");
        let ledger = &mut self.ledgers[node.0];
        let first = entries.first().map(|(sequence, _)| *sequence);
        let is_doubtful = ledger.doubtful.is_some_and(|behind| Some(behind + 1) == first);
        for (sequence, mut entry) in entries {
            if is_doubtful {
                entry.trust = Trust::Doubtful;
                self.excused.extend(entry.event.as_ref().map(|kept| kept.id));
            }
            ledger.entries.insert(sequence, entry);
        }
        self.advance(node);
    }

    /// An ingester answers 2xx.
    pub fn handle_answered(&mut self, node: NodeId, key: u64, id: EventId) {
        let ledger = &self.ledgers[node.0];
        let mut durable = ledger.entries.range(..=ledger.prefix).rev();
        let kept = durable.find_map(|(_, entry)| entry.event.as_ref().filter(|kept| kept.id == id));
        let Some(kept) = kept else {
            if !self.excused.contains(&id) {
                self.blame(Violation::AnsweredNotDurable(id));
            }
            return;
        };
        let targets: Vec<usize> = kept.owed_to.iter().map(|(_, target)| *target).collect();
        if !self.made.get(&key).is_some_and(|made| made.genuine) {
            self.blame(Violation::Unverified);
        }
        self.answered += 1;
        for target in targets {
            let is_done = self.delivered.contains(&(target, id)) || self.dropped.contains(&(target, id));
            if !is_done && !self.excused.contains(&id) {
                self.owed.insert((target, id));
            }
        }
    }

    /// An ingester answers that an event came before.
    pub fn handle_duplicate(&mut self, key: u64, id: EventId, now_ms: u64) {
        self.duplicates += 1;
        if !self.once_durable.contains(&id) && !self.excused.contains(&id) {
            self.blame(Violation::AnsweredNotDurable(id));
        }
        if self.journaled.get(&id) != Some(&key) {
            self.blame(Violation::Unverified);
        }
        // A write may take as long as its errors last; the window begins when it is durable.
        let latest_ms = time_ms(id) + self.plan.window_ms + self.plan.window_ms / 100 + WRITE_MS_MAX;
        if self.windows_are_exact() && now_ms > latest_ms {
            self.blame(Violation::KeyKept(id));
        }
    }

    /// An attempt is made.
    pub fn handle_attempt(&mut self, node: NodeId, target: usize, handle: u64) {
        *self.attempts.entry((node.0, target, handle)).or_default() += 1;
    }

    /// A delivery is given up; notes that a crash took make more attempts, never fewer.
    pub fn handle_dead(&mut self, node: NodeId, target: usize, handle: u64) {
        self.dead_letters += 1;
        let attempts = self.attempts.get(&(node.0, target, handle)).copied().unwrap_or(0);
        if attempts < self.plan.attempts_max {
            self.blame(Violation::DeadLetter { event: handle, target });
        }
    }

    /// The oldest dead letter of an egress leaves, because there are too many.
    pub fn handle_dropped(&mut self, node: NodeId, target: usize, handle: u64) {
        let entries = self.ledgers[node.0].entries.values();
        let dropped = entries.filter_map(|entry| entry.event.as_ref()).find(|kept| kept.handle == handle);
        if let Some(id) = dropped.map(|kept| kept.id) {
            self.dropped.insert((target, id));
            self.owed.remove(&(target, id));
        }
    }

    /// An egress gives up an event, because its record is damaged: it must be.
    pub fn handle_lost(&mut self, node: NodeId, record: Sequence) {
        self.lost += 1;
        let kept = self.ledgers[node.0].entries.get(&record.0).filter(|entry| entry.trust != Trust::Rotted);
        if let Some(event) = kept.and_then(|entry| entry.event.as_ref()).map(|kept| kept.id) {
            self.blame(Violation::GivenUp { journal: node.0, event });
        }
    }

    /// A source has its 2xx.
    pub fn handle_accepted(&mut self, key: u64) {
        self.accepted.insert(key);
    }

    /// A node gave up a file of its journal.
    pub fn handle_given_up(&mut self, node: NodeId, segment: SegmentId) {
        let ledger = &mut self.ledgers[node.0];
        let prefix = ledger.prefix;
        let given_up: Vec<(u64, Entry)> =
            ledger.entries.extract_if(.., |_, entry| entry.segment == segment).collect();
        for (sequence, entry) in given_up {
            let Some(kept) = entry.event.filter(|kept| !self.excused.contains(&kept.id)) else { continue };
            let is_safe = |(egress, target): &(usize, usize)| {
                if node.0 < self.plan.ingester_workers() {
                    return self.held.contains(&(self.plan.egress(*egress).0, kept.id));
                }
                self.delivered.contains(&(*target, kept.id))
                    || self.dropped.contains(&(*target, kept.id))
                    || self.has_copy(node, kept.handle, prefix)
            };
            if sequence > prefix || !kept.owed_to.iter().all(is_safe) {
                self.blame(Violation::TrimmedTooEarly { journal: node.0, event: kept.id });
            }
        }
    }

    /// A bit rots in a durable commit: where it may be, if there is one. Excused is what was there then: no later
    /// commit vouches for the newest two, so recovery takes them for unfinished, with what lies behind.
    pub fn choose_rot(
        &mut self,
        node: NodeId,
        choose: impl FnOnce(usize) -> usize,
    ) -> Option<(SegmentId, Range<u64>)> {
        let ledger = &mut self.ledgers[node.0];
        let commits = ledger.commits();
        let known: Vec<usize> = (0..commits.len()).filter(|at| commits[*at].1 != COMMIT_UNKNOWN).collect();
        let chosen = *known.get(choose(known.len().max(1)))?;
        if chosen + 1 == commits.len() {
            ledger.doubtful = Some(ledger.prefix);
        }
        let is_newest = chosen + 2 >= commits.len();
        let newest = if is_newest { &commits[chosen + 1..] } else { &[] };
        let (segment, commit) = commits[chosen];
        // Sequences go on above the headers that recovery finds.
        let begin = commit + if is_newest { COMMIT_HEADER_BYTES as u64 } else { 0 };
        let mut end = begin;
        for entry in ledger.entries.values_mut() {
            if entry.place() == commits[chosen] {
                entry.trust = Trust::Rotted;
                end = entry.offset + (RECORD_HEADER_BYTES + entry.bytes) as u64;
            } else if newest.contains(&entry.place()) && entry.trust == Trust::Sound {
                entry.trust = Trust::Doubtful;
            }
            let is_excused = entry.trust != Trust::Sound;
            self.excused.extend(entry.event.as_ref().filter(|_| is_excused).map(|kept| kept.id));
        }
        ledger.rot = true;
        let excused = &self.excused;
        self.owed.retain(|(_, id)| !excused.contains(id));
        Some((segment, begin..end))
    }

    /// Whether bits rotted in that journal.
    pub fn has_rot(&self, node: NodeId) -> bool {
        self.ledgers[node.0].rot
    }

    /// What a restart found, with every record that was handed out.
    pub fn handle_recovered(
        &mut self,
        node: NodeId,
        recovered: &Recovered,
        records: &BTreeMap<u64, Entered>,
    ) {
        if !self.ledgers[node.0].rot && !recovered.damage.is_empty() {
            let why = format!("{:?}", recovered.damage);
            self.blame(Violation::DamageInvented { journal: node.0, why });
        }
        let hidden = self.ledgers[node.0].hidden(recovered, records);
        if hidden {
            self.violation.get_or_insert(Violation::DamageHidden(node.0));
        }
        let ledger = &mut self.ledgers[node.0];
        let old = core::mem::take(&mut ledger.entries);
        let durable =
            old.iter().filter(|(sequence, entry)| **sequence <= ledger.prefix && entry.trust == Trust::Sound);
        let lost = durable
            .into_iter()
            .find(|(sequence, entry)| records.get(sequence).is_none_or(|found| found.0.crc != entry.crc));
        let lost = lost.map(|(sequence, _)| *sequence);
        ledger.prefix = recovered.first_of_run.0 - 1;
        for (sequence, Entered(entry)) in records {
            let known = old.get(sequence);
            let trust = known.map_or(Trust::Sound, |old| old.trust);
            let commit = known.map_or(COMMIT_UNKNOWN, |old| old.commit);
            ledger.entries.insert(*sequence, Entry { commit, trust, ..entry.clone() });
        }
        if let Some(sequence) = lost {
            self.blame(Violation::RecordLost { journal: node.0, sequence });
        }
        for (sequence, Entered(entry)) in records {
            if let Some(kept) = &entry.event {
                self.note_durable(node, *sequence, &kept.clone());
            }
        }
    }

    /// A restart found no journal.
    pub fn handle_nothing_recovered(&mut self, node: NodeId) {
        if let Some(sequence) = self.ledgers[node.0].entries.keys().next() {
            let sequence = *sequence;
            self.blame(Violation::RecordLost { journal: node.0, sequence });
        }
    }

    /// A record as recovery handed it out, for `handle_recovered`.
    pub fn enter(&mut self, node: NodeId, record: &Record<'_>) -> Entered {
        Entered(self.entry(node, record, COMMIT_UNKNOWN))
    }

    /// A target took a delivery.
    pub fn handle_delivered(&mut self, target: usize, id: EventId, endpoint: &str, body: &[u8]) {
        let made = self.journaled.get(&id).and_then(|key| self.made.get(key));
        let is_right = made
            .is_some_and(|made| made.genuine && *made.body == *body && endpoint.parse() == Ok(made.endpoint));
        if !is_right {
            self.blame(Violation::DeliveredWrong { target, event: id });
        }
        self.deliveries += 1;
        self.delivered.insert((target, id));
        self.owed.remove(&(target, id));
    }

    /// Genuine events without a 2xx, and deliveries that are missing and no dead letters.
    pub fn owed(&self, dead_letters: &BTreeSet<(usize, EventId)>) -> (usize, usize) {
        let genuine = self.made.iter().filter(|(_, made)| made.genuine);
        let sources = genuine.filter(|(key, _)| !self.accepted.contains(key)).count();
        (sources, self.owed.difference(dead_letters).count())
    }

    fn advance(&mut self, node: NodeId) {
        loop {
            let ledger = &mut self.ledgers[node.0];
            let Some(next) = ledger.entries.get(&(ledger.prefix + 1)) else { return };
            ledger.prefix += 1;
            let sequence = ledger.prefix;
            if let Some(kept) = next.event.clone() {
                self.note_durable(node, sequence, &kept);
            }
        }
    }

    fn note_durable(&mut self, node: NodeId, sequence: u64, kept: &Kept) {
        if node.0 < self.plan.ingester_workers() {
            self.once_durable.insert(kept.id);
            return self.note_accepted(self.plan.process(node), kept);
        }
        self.held.insert((node.0, kept.id));
        if kept.handle != sequence {
            return;
        }
        let first = *self.first_held.entry((node.0, kept.id)).or_insert(sequence);
        if first != sequence && !self.has_rot(node) {
            self.blame(Violation::HeldTwice { journal: node.0, event: kept.id });
        }
    }

    /// One event of a source is one event of an ingester, as long as its window is.
    fn note_accepted(&mut self, ingester: usize, kept: &Kept) {
        let first = *self.accepted_as.entry((ingester, kept.key)).or_insert(kept.id);
        if first == kept.id {
            return;
        }
        let is_over = time_ms(kept.id).abs_diff(time_ms(first)) >= self.plan.window_ms;
        let is_long = self.plan.window_ms > WINDOW_MS_LONG;
        let has_rot = self.plan.nodes_of(ingester).into_iter().any(|node| self.has_rot(node));
        if !has_rot && !is_over && (is_long || self.windows_are_exact()) {
            let second = kept.id;
            self.blame(Violation::KeyTwice { ingester, first, second });
        }
        self.accepted_as.insert((ingester, kept.key), kept.id);
    }

    /// A clock that steps shortens or lengthens windows.
    fn windows_are_exact(&self) -> bool {
        !self.plan.troubles.contains(&Trouble::ClockStep)
    }

    /// Whether an egress has the event of `handle` in another durable record.
    fn has_copy(&self, node: NodeId, handle: u64, prefix: u64) -> bool {
        let mut entries = self.ledgers[node.0].entries.range(..=prefix);
        entries.any(|(_, entry)| entry.event.as_ref().is_some_and(|kept| kept.handle == handle))
    }

    fn entry(&mut self, node: NodeId, record: &Record<'_>, commit: u64) -> Entry {
        let event = match (record.kind, node.0 < self.plan.ingester_workers()) {
            (Kind::Event, true) => Some(self.read_accepted(record)),
            (Kind::Event, false) => {
                Some(self.read_held(record, self.plan.process(node) - self.plan.ingesters))
            }
            _ => None,
        };
        Entry {
            crc: crc32c::crc32c(record.payload),
            segment: record.segment,
            offset: record.offset,
            bytes: record.payload.len(),
            commit,
            trust: Trust::Sound,
            event,
        }
    }

    fn read_accepted(&mut self, record: &Record<'_>) -> Kept {
        let egresses = decode_egresses(record.payload).expect("an ingester encodes its routes");
        let mut owed_to = Vec::new();
        let mut encoded = record.payload;
        for egress in egresses {
            let (targets, event) = decode_routes(record.payload, egress).expect("read just now");
            encoded = event;
            let targets = targets.into_iter().flat_map(|names| names.iter().map(number));
            owed_to.extend(targets.map(|target| (number(egress), target)));
        }
        let (id, key) = self.read_event(encoded, Origin::Source);
        Kept { id, key, owed_to, handle: 0 }
    }

    fn read_held(&mut self, record: &Record<'_>, egress: usize) -> Kept {
        let held = HeldEvent::decode(record.payload).expect("an egress encodes what it holds");
        let open = held.targets.iter().filter(|name| !name.is_empty());
        let owed_to = open.map(|name| (egress, number(name))).collect();
        let handle = if held.handle == 0 { record.sequence.0 } else { held.handle };
        let (id, key) = self.read_event(held.event, Origin::Link);
        Kept { id, key, owed_to, handle }
    }

    /// Nothing unverified, and one event to an id: that holds for what any disk ever has.
    fn read_event(&mut self, encoded: &[u8], origin: Origin) -> (EventId, u64) {
        let event = Event::decode(encoded).expect("what is journaled is an event");
        let key = core::str::from_utf8(event.body.get(..16).unwrap_or_default())
            .ok()
            .and_then(|text| u64::from_str_radix(text, 16).ok());
        let made = key.and_then(|key| self.made.get(&key));
        let is_genuine = made
            .is_some_and(|made| made.genuine && *made.body == *event.body && made.endpoint == event.endpoint);
        if !is_genuine {
            self.blame(Violation::Unverified);
            return (event.id, 0);
        }
        let key = key.expect("it was looked up just now");
        if origin == Origin::Link && !self.journaled.contains_key(&event.id) {
            self.blame(Violation::Unverified);
        }
        if *self.journaled.entry(event.id).or_insert(key) != key {
            self.blame(Violation::IdTwice(event.id));
        }
        (event.id, key)
    }
}

/// When an event was accepted, on its ingester's clock, ms.
fn time_ms(id: EventId) -> u64 {
    id.0[..6].iter().fold(0, |time_ms, byte| time_ms << 8 | u64::from(*byte))
}

/// A record that recovery handed out, read by the checker.
#[derive(Clone, Debug)]
pub struct Entered(Entry);

/// The number at the end of a name such as `target-3`.
pub fn number(name: &str) -> usize {
    name.rsplit('-')
        .next()
        .and_then(|digits| digits.parse().ok())
        .expect("names of the simulation have a number")
}
