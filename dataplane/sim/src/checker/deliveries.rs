//! Deliveries: targets take what was accepted, and none is given up before its time.

use zen_core::id::EventId;
use zen_core::journal::Sequence;

use super::ledger::Trust;
use super::{Checker, Violation};
use crate::context::NodeId;

impl Checker {
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
}
