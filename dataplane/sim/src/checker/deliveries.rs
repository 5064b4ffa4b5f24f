//! Deliveries: targets take what was accepted, and none is given up before its time.

use zen_core::id::EventId;
use zen_core::journal::Sequence;

use super::ledger::{Kept, Trust};
use super::{Checker, Violation};
use crate::context::NodeId;

impl Checker {
    /// An attempt is made for the target at a place of the event's list.
    pub fn handle_attempt(&mut self, node: NodeId, target: usize, handle: u64, place: u8) {
        let ledger = &self.ledgers[node.0];
        let mut durable = ledger.entries.range(..=ledger.prefix);
        if !ledger.rot && durable.any(|(_, entry)| entry.discards == Some((handle, place))) {
            self.blame(Violation::DiscardUndone { event: handle, target });
        }
        self.check_order(node, target, handle);
        *self.attempts.entry((node.0, target, handle)).or_default() += 1;
    }

    /// With order, what came before from the same endpoint was taken by the target, or given up once.
    fn check_order(&mut self, node: NodeId, target: usize, handle: u64) {
        let ledger = &self.ledgers[node.0];
        if self.plan.treatments[target].order_by.is_none() || ledger.rot {
            return;
        }
        let entries = ledger.entries.range(..=ledger.prefix).filter_map(|(_, entry)| entry.event.as_ref());
        let endpoint_of = |kept: &Kept| self.made.get(&kept.key).map(|made| made.endpoint);
        let Some(endpoint) = entries.clone().find(|kept| kept.handle == handle).map(endpoint_of) else {
            return;
        };
        let is_before = |kept: &&Kept| {
            kept.handle < handle
                && kept.owed_to.iter().any(|(_, owed)| *owed == target)
                && endpoint_of(kept) == endpoint
        };
        let is_open = |kept: &&Kept| {
            !self.delivered.contains(&(target, kept.id))
                && !self.given_up.contains(&(node.0, target, kept.handle))
        };
        if let Some(event) = entries.clone().filter(is_before).find(is_open).map(|kept| kept.id) {
            self.blame(Violation::Overtaken { target, event });
        }
    }

    /// A delivery is given up; notes that a crash took make more attempts, never fewer.
    pub fn handle_dead(&mut self, node: NodeId, target: usize, handle: u64) {
        self.dead_letters += 1;
        self.given_up.insert((node.0, target, handle));
        let attempts = self.attempts.get(&(node.0, target, handle)).copied().unwrap_or(0);
        if attempts < self.plan.attempts_max {
            self.blame(Violation::DeadLetter { event: handle, target });
        }
    }

    /// A dead letter is open again, with a schedule from its beginning.
    pub fn handle_sent_again(&mut self, node: NodeId, target: usize, handle: u64) {
        self.sent_again += 1;
        let delivery = (node.0, target, handle);
        if let Some(attempts) = self.attempts.remove(&delivery) {
            *self.earlier_attempts.entry(delivery).or_default() += attempts;
        }
    }

    /// An egress starts again: it may not know that letters were sent again.
    pub(super) fn count_earlier_attempts(&mut self, node: NodeId) {
        let of_node = (node.0, 0, 0)..(node.0 + 1, 0, 0);
        for (delivery, attempts) in self.earlier_attempts.extract_if(of_node, |_, _| true) {
            *self.attempts.entry(delivery).or_default() += attempts;
        }
    }

    /// A dead letter of an egress leaves: it is the oldest of too many, or an operator throws it away.
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
