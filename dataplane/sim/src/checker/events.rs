//! Events: nothing unverified is taken, answers are true, and one event of a source is one event everywhere.

use zen_core::event::Event;
use zen_core::id::EventId;
use zen_core::journal::{Kind, Record};
use zen_core::record::{Ending, HeldEvent, OutcomeRecord, decode_egresses, decode_routes};

use super::ledger::Kept;
use super::{Checker, Violation, number};
use crate::context::NodeId;
use crate::plan::Trouble;

/// Longest time from accepting an event to its being durable, ms: a write that fails for as long as it may.
const WRITE_MS_MAX: u64 = 30_000;
/// No clock step takes a key out of a window over this, ms.
const WINDOW_MS_LONG: u64 = 12 * 3_600_000;

/// Where a journal's events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Source,
    Link,
}

impl Checker {
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

    pub(super) fn note_durable(&mut self, node: NodeId, sequence: u64, kept: &Kept) {
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

    /// Handle and place of the target, if the record says that a letter is thrown away.
    pub(super) fn read_discard(&self, node: NodeId, record: &Record<'_>) -> Option<(u64, u8)> {
        let is_ours = node.0 >= self.plan.ingester_workers() && record.kind == Kind::Outcome;
        let outcome = OutcomeRecord::decode(record.payload).ok().filter(|_| is_ours)?;
        (outcome.ending == Ending::Discarded).then_some((outcome.handle, outcome.target))
    }

    /// The event of a record.
    pub(super) fn read_kept(&mut self, node: NodeId, record: &Record<'_>) -> Kept {
        if node.0 < self.plan.ingester_workers() {
            return self.read_accepted(record);
        }
        self.read_held(record, self.plan.process(node) - self.plan.ingesters)
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
