//! How long an egress's journal keeps its records: checkpoints, live records carried forward, trimming.
//!
//! A segment may go when a newer one has a checkpoint of the streams and none of its records is live; a record that was
//! carried forward is live in its first place until its copy is durable.

use std::collections::VecDeque;

use zen_core::deliver::Table;
use zen_core::journal::{Kind, Sequence};
use zen_core::record::{HeldEvent, StreamId, encode_checkpoint};

use crate::context::{Context, NodeId};
use crate::deliveries::{Found, find};
use crate::journal::Journal;
use crate::notes::Notes;

/// Records carried forward in one tick.
const CARRIED_MAX: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct Retention {
    node: NodeId,
    /// Which egress, from 0.
    egress: usize,
    /// Copies that are not durable yet, and their originals.
    carried: VecDeque<(Sequence, Sequence)>,
    checkpoint: Option<Sequence>,
    checkpoint_segment: u64,
}

impl Retention {
    /// After a start, whose journal has the last checkpoint there.
    pub fn new(node: NodeId, egress: usize, checkpoint: Option<Sequence>) -> Self {
        Self { node, egress, carried: VecDeque::new(), checkpoint, checkpoint_segment: 0 }
    }

    /// Each segment gets a checkpoint of the streams, so that older ones may go.
    pub fn checkpoint_if_new_segment(&mut self, context: &Context, journal: &mut Journal, table: &Table) {
        let segment = journal.current_segment();
        if segment == self.checkpoint_segment {
            return;
        }
        let streams: Vec<(StreamId, u64)> =
            table.streams().iter().map(|(stream, sequence)| (*stream, *sequence)).collect();
        let mut payload = Vec::new();
        encode_checkpoint(&mut payload, &streams);
        let now_ms = context.clock(self.node).wall_ms;
        if let Ok(record) = journal.append(Kind::Checkpoint, now_ms, &[&payload]) {
            self.checkpoint = Some(record);
            self.checkpoint_segment = segment;
        }
    }

    /// Carries the oldest live records forward when they keep much of the journal from reuse.
    pub fn carry(
        &mut self,
        context: &mut Context,
        journal: &mut Journal,
        table: &mut Table,
        notes: &mut Notes,
    ) {
        let Some(oldest) = table.oldest() else { return };
        let is_worth_it = table.wants_carrying(journal.bytes_live(), journal.bytes_max());
        if !is_worth_it || journal.is_current(oldest) {
            return;
        }
        let handles: Vec<(Sequence, u64)> = table.handles().take(CARRIED_MAX).collect();
        for (record, handle) in handles {
            if journal.is_current(record) {
                return;
            }
            match find(journal, table, handle) {
                Found::Event(event) => {
                    let Some(copy) = self.carry_one(context, journal, (table, notes), handle, &event) else {
                        return;
                    };
                    let egress = self.egress;
                    context.note(format_args!("egress {egress} carries record {record} forward to {copy}"));
                    self.carried.push_back((copy, record));
                }
                Found::Damaged => self.give_up(context, (table, notes), handle, record),
                Found::Later | Found::Ended => return,
            }
        }
    }

    /// Frees what nothing needs any more.
    pub fn trim(&mut self, context: &mut Context, journal: &mut Journal, table: &Table) {
        let durable = journal.durable();
        // A full journal has no place for another checkpoint: the one it started with counts until there is a newer.
        let Some(checkpoint) = self.checkpoint.filter(|record| *record <= durable) else { return };
        let mut needed = table.oldest().map_or(checkpoint, |oldest| oldest.min(checkpoint));
        while self.carried.pop_front_if(|(copy, _)| *copy <= durable).is_some() {}
        if let Some((_, original)) = self.carried.front() {
            needed = needed.min(*original);
        }
        journal.trim(context, Sequence(needed.0.saturating_sub(1)));
    }

    /// The copy, if there is room for it.
    fn carry_one(
        &self,
        context: &Context,
        journal: &mut Journal,
        (table, notes): (&mut Table, &mut Notes),
        handle: u64,
        event: &[u8],
    ) -> Option<Sequence> {
        let mut head = Vec::new();
        let clock = context.clock(self.node);
        table.encode_carried(handle, &mut head);
        let carried_notes = table.carried_notes(handle, clock.wall_ms, |due_ms| clock.unix_of(due_ms));
        let copy = journal.append(Kind::Event, clock.wall_ms, &[&head, event]).ok()?;
        let held = HeldEvent::decode(&head).expect("encoded just now");
        table.insert(copy, &HeldEvent { event, ..held }, None);
        for (wall_ms, note) in carried_notes {
            notes.push_at(wall_ms, note.kind(), &note.encode());
        }
        Some(copy)
    }

    /// A damaged record would keep the journal from reuse for good: what is left of its event ends.
    fn give_up(
        &self,
        context: &mut Context,
        (table, notes): (&mut Table, &mut Notes),
        handle: u64,
        record: Sequence,
    ) {
        context.note(format_args!("egress {} gives up record {record}, which is damaged", self.egress));
        context.checker.handle_lost(self.node, record);
        let clock = context.clock(self.node);
        for outcome in table.give_up(handle) {
            notes.push(clock, Kind::Outcome, &outcome.encode());
        }
    }
}
