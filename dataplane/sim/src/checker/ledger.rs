//! What a disk really holds of one journal: its records, in which commit each is, and how far they can be trusted.

use std::collections::{BTreeMap, BTreeSet};

use zen_core::id::EventId;
use zen_core::journal::{Recovered, SegmentId};

/// The place of a commit that was seen by recovery only.
pub(super) const COMMIT_UNKNOWN: u64 = u64::MAX;

/// An event in a journal.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) id: EventId,
    /// The source's number of it.
    pub(super) key: u64,
    /// At an ingester: egress and target. At an egress: its own number and target.
    pub(super) owed_to: Vec<(usize, usize)>,
    pub(super) handle: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) crc: u32,
    pub(super) segment: SegmentId,
    pub(super) offset: u64,
    pub(super) bytes: usize,
    pub(super) commit: u64,
    pub(super) trust: Trust,
    pub(super) event: Option<Kept>,
    /// Handle and place of the target, if it says that a letter is thrown away.
    pub(super) discards: Option<(u64, u8)>,
}

/// Whether a restart must find a durable record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It must.
    Sound,
    /// Bits rotted in its commit: it may be left out, but not without a word if a later commit vouches for it.
    Rotted,
    /// A commit before it rotted that nothing vouches for: it may be cut off with that one.
    Doubtful,
}

/// What a disk really holds of one journal.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) entries: BTreeMap<u64, Entry>,
    /// Up to here nothing is missing.
    pub(super) prefix: u64,
    pub(super) rot: bool,
    /// The commit behind this sequence was in flight when the newest one rotted: it does not vouch for it.
    pub(super) doubtful: Option<u64>,
}

impl Entry {
    pub(super) fn place(&self) -> (SegmentId, u64) {
        (self.segment, self.commit)
    }
}

impl Ledger {
    /// The durable commits, in order.
    pub(super) fn commits(&self) -> Vec<(SegmentId, u64)> {
        let mut commits: Vec<_> =
            self.entries.range(..=self.prefix).map(|(_, entry)| entry.place()).collect();
        commits.dedup();
        commits
    }

    /// Whether recovery left out a rotted record that a later commit vouches for, and reported no damage near it.
    pub(super) fn hidden(&self, recovered: &Recovered, records: &BTreeMap<u64, Entered>) -> bool {
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

/// A record that recovery handed out, read by the checker.
#[derive(Clone, Debug)]
pub struct Entered(pub(super) Entry);
