//! Outcomes of an origin's deliveries as receipts: each is handed over when the journal has it, and the journal keeps
//! what is needed to make it again until it has its line. What a crash took is found at recovery, by the same rule.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use zen_core::deliver::DeliveryState;
use zen_core::event::Event;
use zen_core::journal::{Kind, Record, Sequence};
use zen_core::record::{Ending, HeldEvent, OutcomeRecord, is_carried};

use super::{Egress, Table};
use crate::journal::{Journal, Scan};
use crate::metrics::WorkerMetrics;
use crate::receipts::{Evidence, RECEIPTS_WAITING_MAX, Receipt, Receipts};

/// A receipt that waits, with what its event keeps of the journal, bytes.
pub const WAITING_BYTES: usize = 2 * (size_of::<Receipt>() + size_of::<(Sequence, Sequence)>());

/// What is known of an event that is not in memory, bytes.
pub const KNOWN_BYTES: usize = 2 * (size_of::<(u64, Evidence)>() + 1);

/// A worker's receipts on their way.
#[derive(Default)]
pub(super) struct Waiting {
    /// Of outcomes that are not in the journal yet, in the order of their notes.
    noted: VecDeque<Receipt>,
    /// Of outcomes in the journal, which may not be durable, in their order there.
    written: VecDeque<Receipt>,
    /// Outcomes whose line is not on disk, each with the oldest record that is needed from it on.
    needed: VecDeque<(Sequence, Sequence)>,
    /// What is said of events that were read back for another attempt.
    known: HashMap<u64, Evidence>,
}

impl Waiting {
    /// After recovery: receipts of records that are durable.
    pub(super) fn recovered(receipts: Vec<Receipt>) -> Self {
        let mut waiting = Self::default();
        for receipt in receipts {
            waiting.need(receipt.record, receipt.event_record);
            waiting.written.push_back(receipt);
        }
        waiting
    }

    /// An outcome's note waits for the journal.
    pub(super) fn handle_note(&mut self, receipt: Receipt) {
        self.noted.push_back(receipt);
    }

    /// The oldest such note is in the journal, or had no room there: then it has no record.
    pub(super) fn handle_written(&mut self, record: Option<Sequence>, holds: bool) {
        let mut receipt = self.noted.pop_front().expect("each of these notes has its receipt");
        if let Some(record) = record {
            receipt.record = record;
            if holds {
                self.need(record, receipt.event_record);
            }
        }
        self.written.push_back(receipt);
    }

    /// Hands over what is durable, as far as there is room.
    pub(super) fn hand_over(&mut self, receipts: &Receipts, durable: Sequence, metrics: &WorkerMetrics) {
        while self.written.front().is_some_and(|receipt| receipt.record <= durable) {
            let receipt = self.written.pop_front().expect("looked at just now");
            if let Err(receipt) = receipts.handle_outcome(receipt, metrics) {
                return self.written.push_front(*receipt);
            }
        }
    }

    /// The oldest record that receipts without a line need, where those up to `told` have theirs.
    pub(super) fn oldest(&mut self, told: Sequence) -> Option<Sequence> {
        while self.needed.front().is_some_and(|(record, _)| *record <= told) {
            self.needed.pop_front();
        }
        self.needed.front().map(|(_, oldest)| *oldest)
    }

    /// Whether there may be more outcomes.
    pub(super) fn has_room(&self) -> bool {
        self.len() < RECEIPTS_WAITING_MAX
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.noted.len() + self.written.len()
    }

    /// The front is the least of all: what is behind a lesser one never counts before it goes.
    fn need(&mut self, record: Sequence, event_record: Sequence) {
        while self.needed.back().is_some_and(|(_, oldest)| *oldest >= event_record) {
            self.needed.pop_back();
        }
        self.needed.push_back((record, event_record));
    }
}

impl Egress {
    /// Each outcome passes here, before the table forgets its delivery.
    pub(super) fn receipt_of(&self, outcome: &OutcomeRecord) -> Option<Receipt> {
        let receipts = self.settings().receipts.as_ref()?;
        let mut receipt = receipt_of(&self.table, self.worker, outcome, self.clock.wall_ms)?;
        match (&receipt.evidence, self.receipts.known.get(&outcome.handle)) {
            (Evidence::Gone, Some(known)) => receipt.evidence = known.clone(),
            _ => receipts.hold(&mut receipt),
        }
        Some(receipt)
    }

    /// An event was read back: what its receipt will say is kept, and not its bytes.
    pub(super) fn know(&mut self, handle: u64, event: &[u8]) {
        let Some(receipts) = &self.settings().receipts else { return };
        if self.receipts.known.contains_key(&handle) {
            return;
        }
        if let Ok(event) = Event::decode(event) {
            let evidence = receipts.evidence(&event);
            self.receipts.known.insert(handle, evidence);
        }
    }

    /// An event is done.
    pub(super) fn forget(&mut self, handle: u64) {
        if !self.receipts.known.is_empty() {
            self.receipts.known.remove(&handle);
        }
    }

    /// What is durable is handed over.
    pub(super) fn give_receipts(&mut self) {
        let Some(receipts) = self.settings().receipts.clone() else { return };
        self.receipts.hand_over(&receipts, self.journal.durable(), &self.metrics);
    }

    /// The oldest record that a receipt needs.
    pub(super) fn oldest_of_receipts(&mut self) -> Option<Sequence> {
        let told = self.settings().receipts.as_ref()?.told(self.worker);
        self.receipts.oldest(told)
    }
}

/// None for what ended before, or is not there.
fn receipt_of(table: &Table, worker: u16, outcome: &OutcomeRecord, time_ms: u64) -> Option<Receipt> {
    let live = table.live(outcome.handle)?;
    let life = live.targets.get(usize::from(outcome.target))?;
    match (life.state, outcome.ending) {
        (DeliveryState::Done, _) | (DeliveryState::Dead(_), Ending::Dead) => return None,
        _ => {}
    }
    Some(Receipt {
        time_ms,
        worker,
        record: Sequence(0),
        event_record: live.record,
        event_id: live.id,
        target: Arc::clone(&life.name),
        outcome: *outcome,
        replays: life.replay,
        evidence: live.bytes.clone().map_or(Evidence::Gone, Evidence::Held),
    })
}

/// Finds the outcomes of a journal that have no line.
pub struct Recovering {
    receipts: Option<Arc<Receipts>>,
    worker: u16,
    found: Vec<Receipt>,
}

impl Recovering {
    /// Of a worker's journal, before it is read.
    pub fn new(receipts: Option<Arc<Receipts>>, worker: u16) -> Self {
        Self { receipts: receipts.filter(|receipts| receipts.holds_journals()), worker, found: Vec::new() }
    }

    /// Each record passes here before the table takes it.
    pub fn handle_record(&mut self, table: &Table, record: &Record<'_>) {
        let Some(receipts) = &self.receipts else { return };
        let is_told = record.sequence <= receipts.told(self.worker) || is_carried(record.payload);
        if record.kind != Kind::Outcome || is_told {
            return;
        }
        let outcome = OutcomeRecord::decode(record.payload).ok();
        let receipt = outcome.and_then(|outcome| receipt_of(table, self.worker, &outcome, record.time_ms));
        self.found.extend(receipt.map(|receipt| Receipt { record: record.sequence, ..receipt }));
    }

    /// What has no line; a journal that is not known is told from its end on.
    pub fn finish(
        self,
        journal: &Journal,
        directory: &Path,
        commit_bytes_max: usize,
    ) -> io::Result<Vec<Receipt>> {
        let Self { receipts: Some(receipts), worker, mut found } = self else { return Ok(Vec::new()) };
        if receipts.mark(worker, journal.id()).is_none() {
            receipts.begin(worker, journal.id(), Sequence(journal.next_sequence().0 - 1))?;
            return Ok(Vec::new());
        }
        if !found.is_empty() {
            tracing::info!(
                worker,
                outcomes = found.len(),
                "outcomes without receipts are in the journal; they get theirs"
            );
            read_evidence(&mut found, &receipts, directory, commit_bytes_max)?;
        }
        Ok(found)
    }
}

/// Endpoint and body of each event are in its record.
fn read_evidence(
    found: &mut [Receipt],
    receipts: &Receipts,
    directory: &Path,
    commit_bytes_max: usize,
) -> io::Result<()> {
    let mut by_handle: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, receipt) in found.iter().enumerate() {
        by_handle.entry(receipt.outcome.handle).or_default().push(at);
    }
    let mut scan = Scan::new(directory, commit_bytes_max, ..)?;
    while scan.read(&mut |record| {
        let Some(held) =
            (record.kind == Kind::Event).then(|| HeldEvent::decode(record.payload).ok()).flatten()
        else {
            return;
        };
        let handle = if held.handle == 0 { record.sequence.0 } else { held.handle };
        let Some(places) = by_handle.remove(&handle) else { return };
        if let Ok(event) = Event::decode(held.event) {
            let evidence = receipts.evidence(&event);
            for at in places {
                found[at].evidence = evidence.clone();
            }
        }
    })? {}
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn receipt(event_record: u64) -> Receipt {
        Receipt {
            time_ms: 0,
            worker: 0,
            record: Sequence(0),
            event_record: Sequence(event_record),
            event_id: None,
            target: Arc::from("demo"),
            outcome: OutcomeRecord::new(event_record, 0, Ending::Delivered),
            replays: 0,
            evidence: Evidence::Gone,
        }
    }

    #[test]
    fn the_oldest_event_without_a_line_is_kept() {
        let mut waiting = Waiting::default();
        for (record, event) in [(10, 5), (11, 7), (12, 3), (13, 9), (14, 4)] {
            waiting.handle_note(receipt(event));
            waiting.handle_written(Some(Sequence(record)), true);
        }
        for (told, oldest) in [(0, Some(3)), (11, Some(3)), (12, Some(4)), (13, Some(4)), (14, None)] {
            assert_eq!(waiting.oldest(Sequence(told)), oldest.map(Sequence), "{told}");
        }
        assert_eq!(waiting.len(), 5, "they are not handed over");
    }

    #[test]
    fn what_no_journal_took_holds_none() {
        let mut waiting = Waiting::default();
        waiting.handle_note(receipt(5));
        waiting.handle_written(None, true);
        waiting.handle_note(receipt(6));
        waiting.handle_written(Some(Sequence(9)), false);
        assert_eq!((waiting.oldest(Sequence(0)), waiting.len()), (None, 2));
    }
}
