//! Ordering keys of deliveries: made when an event is taken in, and again when recovery reads it.

use std::collections::BTreeMap;

use zen_core::deliver::{OrderBy, Table};
use zen_core::event::Event;
use zen_core::journal::{Kind, Record};
use zen_core::record::HeldEvent;

use super::Egress;

impl Egress {
    /// Gives the deliveries of an event that was put into the table their keys.
    pub(super) fn order(&mut self, handle: u64, event: &[u8]) {
        let snapshot = &self.snapshot;
        let ordering = &snapshot.egress.as_ref().expect("an egress has its section").ordering;
        if !ordering.is_empty() {
            self.metrics.order_keys_missing.add(give_keys(&mut self.table, ordering, handle, event));
        }
    }
}

/// What recovery learns from one record that the table has taken: its deliveries' keys.
pub fn recover(table: &mut Table, ordering: &BTreeMap<String, OrderBy>, record: &Record<'_>) {
    if ordering.is_empty() || record.kind != Kind::Event {
        return;
    }
    let Ok(held) = HeldEvent::decode(record.payload) else { return };
    let handle = if held.handle == 0 { record.sequence.0 } else { held.handle };
    give_keys(table, ordering, handle, held.event);
}

/// Returns how many of its deliveries should have a key and have none.
fn give_keys(table: &mut Table, ordering: &BTreeMap<String, OrderBy>, handle: u64, event: &[u8]) -> u64 {
    let Ok(event) = Event::decode(event) else { return 0 };
    let mut missing = 0;
    table.set_order_keys(handle, |target| {
        let Some(order_by) = ordering.get(target) else { return 0 };
        let key = order_by.key(&event);
        missing += u64::from(key.is_none());
        key.unwrap_or(0)
    });
    missing
}
