//! The index of an ingester's keys: a journal of its own, because keys outlive the events that had them.
//!
//! When a worker's journal wants to be trimmed, the keys that were seen since the last time are written; once they
//! are durable, it may be. When the index is half full, all keys are written again and what is older goes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use zen_core::dedupe::encode_index;
use zen_core::journal::{Kind, Sequence};

use crate::context::{Context, Crash, DiskStep, Life, NodeId};
use crate::disk::Disk;
use crate::journal::Journal;
use crate::keys::{Keys, Restoring};
use crate::waker::Waker;

/// Entries of one record, so that it fits a simulated commit.
const ENTRIES_MAX: usize = 128;
/// What was written and is not durable yet.
#[derive(Debug)]
struct Unsaved {
    last: Sequence,
    /// The keys of each worker's journal that it covers.
    seen: Vec<Sequence>,
    /// Records before this one are not needed when it is durable.
    replaces: Option<Sequence>,
}

/// A running index.
#[derive(Debug)]
pub struct Index {
    node: NodeId,
    journal: Journal,
    keys: Rc<RefCell<Keys>>,
    marks: Vec<u64>,
    unsaved: VecDeque<Unsaved>,
    rewritten_in: u64,
    waker: Waker,
}

impl Index {
    /// Opens what a disk holds, and restores its keys.
    pub fn open(
        context: &mut Context,
        node: NodeId,
        life: Life,
        disk: Disk,
        restoring: &mut Restoring,
    ) -> Journal {
        let segments_max = 8 + (context.plan.events / 100) as u32;
        Journal::open(context, (node, life), disk, segments_max, &mut |record| {
            restoring.handle_record(record);
        })
    }

    /// Over a journal that was opened.
    pub fn new(node: NodeId, life: Life, journal: Journal, keys: Rc<RefCell<Keys>>) -> Self {
        let marks = keys.borrow().shards().iter().map(|_| 0).collect();
        let waker = Waker::new(node, life);
        Self { node, journal, keys, marks, unsaved: VecDeque::new(), rewritten_in: 0, waker }
    }

    /// Ends; what it leaves is its disk.
    pub fn stop(self, context: &mut Context) -> Disk {
        self.journal.into_disk(context)
    }

    /// The journal, for faults.
    pub fn journal_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Lets it work soon, once.
    pub fn wake(&mut self, context: &mut Context) {
        self.waker.wake(context);
    }

    /// A disk operation ended; a failed write is repeated.
    pub fn handle_disk(&mut self, context: &mut Context, step: DiskStep) {
        self.journal.handle_disk(context, step);
        self.wake(context);
    }

    /// One tick: write what is new, let the workers trim, trim.
    pub fn work(&mut self, context: &mut Context) -> Result<(), Crash> {
        self.waker.handle_work();
        self.keys.borrow_mut().handle_time(context.clock(self.node).wall_ms);
        context.step(self.node)?;
        let is_half_full = self.journal.bytes_live() > self.journal.bytes_max() / 2;
        if is_half_full && self.rewritten_in != self.journal.current_segment() {
            self.rewritten_in = self.journal.current_segment();
            let first = Sequence(self.journal.appended().0 + 1);
            let marks = self.marks.iter().map(|_| 0).collect();
            self.write(context, marks, Some(first));
        } else if self.keys.borrow_mut().take_index_wanted() {
            self.write(context, self.marks.clone(), None);
        }
        context.step(self.node)?;
        self.journal.commit(context);
        context.step(self.node)?;
        let durable = self.journal.durable();
        while let Some(saved) = self.unsaved.pop_front_if(|unsaved| unsaved.last <= durable) {
            self.keys.borrow_mut().handle_indexed(saved.seen);
            if let Some(first) = saved.replaces {
                self.journal.trim(context, Sequence(first.0 - 1));
            }
        }
        context.step(self.node)
    }

    /// Appends the keys since `marks`; what does not fit is written again another time.
    fn write(&mut self, context: &Context, mut marks: Vec<u64>, replaces: Option<Sequence>) {
        let keys = self.keys.borrow();
        let now_ms = context.clock(self.node).wall_ms;
        for (shard, mark) in keys.shards().iter().zip(&mut marks) {
            let mut entries = shard.entries_since(*mark);
            let mut payload = Vec::new();
            while encode_index(&mut payload, keys.hasher(), &mut entries.by_ref().take(ENTRIES_MAX)) > 0 {
                if self.journal.append(Kind::Index, now_ms, &[&payload]).is_err() {
                    return;
                }
                payload.clear();
            }
            *mark = shard.mark();
        }
        self.marks = marks;
        self.unsaved.push_back(Unsaved { last: self.journal.appended(), seen: keys.seen(), replaces });
    }
}
