//! Outcomes of an origin's deliveries as receipts.

use zen_core::deliver::DeliveryState;
use zen_core::record::OutcomeRecord;

use super::Egress;
use crate::receipts::Receipt;

impl Egress {
    /// Each outcome passes here, before the table forgets its delivery.
    pub(super) fn give_receipt(&self, outcome: &OutcomeRecord) {
        let Some(receipts) = &self.settings().receipts else { return };
        let Some(live) = self.table.live(outcome.handle) else { return };
        let Some(life) = live.targets.get(usize::from(outcome.target)) else { return };
        if life.state == DeliveryState::Done {
            return;
        }
        let receipt = Receipt {
            time_ms: self.clock.wall_ms,
            event_id: live.id,
            target: life.name.clone(),
            outcome: *outcome,
            event: live.bytes.clone(),
        };
        receipts.handle_outcome(receipt, &self.metrics);
    }
}
