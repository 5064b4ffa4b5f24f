//! Journals: what is durable stays, rot is told, recovery invents nothing, and no segment goes too early.

use std::collections::BTreeMap;
use std::ops::Range;

use zen_core::journal::{
    COMMIT_HEADER_BYTES, CommitReader, Kind, RECORD_HEADER_BYTES, Record, Recovered, SegmentId,
};

use super::ledger::{COMMIT_UNKNOWN, Entered, Entry, Trust};
use super::{Checker, Violation};
use crate::context::NodeId;
use crate::disk::Waiting;

impl Checker {
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
        self.count_earlier_attempts(node);
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

    /// Whether an egress has the event of `handle` in another durable record.
    fn has_copy(&self, node: NodeId, handle: u64, prefix: u64) -> bool {
        let mut entries = self.ledgers[node.0].entries.range(..=prefix);
        entries.any(|(_, entry)| entry.event.as_ref().is_some_and(|kept| kept.handle == handle))
    }

    fn entry(&mut self, node: NodeId, record: &Record<'_>, commit: u64) -> Entry {
        let event = (record.kind == Kind::Event).then(|| self.read_kept(node, record));
        Entry {
            crc: crc32c::crc32c(record.payload),
            segment: record.segment,
            offset: record.offset,
            bytes: record.payload.len(),
            commit,
            trust: Trust::Sound,
            event,
            discards: self.read_discard(node, record),
        }
    }
}
