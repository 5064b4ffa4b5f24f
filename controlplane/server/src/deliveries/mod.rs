//! What nodes did, as their agents tell it, and what people want them to do again.
//!
//! Enters: signed digests of receipts, metadata of deliveries, lists of dead letters, orders of people. Leaves: an entry of the
//! audit log for each digest, lists for people, signed orders for agents. Refused: a member that is not the agent's, digests
//! that do not continue one another, and all that is over its bounds. No body, header or answer of a target is ever here.

mod digests;
mod letters;
mod metadata;
mod orders;
mod tables;
mod writer;

pub(crate) use self::digests::keep_digests;
pub(crate) use self::letters::{Letter, LetterFilter, keep_letters, page_of_letters};
pub(crate) use self::metadata::{DeliveryFilter, DeliveryRow, keep_deliveries, page_of_deliveries, sweep};
pub(crate) use self::orders::{
    NewOrder, OrderRow, clusters_with_orders, create_order, end_orders, find_order, hand_out, page_of_orders,
};
pub(crate) use self::tables::TABLES;

use rusqlite::Connection;

use crate::Refusal;

/// Whether the cluster's configuration has a member of this name.
fn check_member(database: &Connection, cluster: &str, member: &str) -> Result<(), Refusal> {
    let sql = "SELECT EXISTS (SELECT 1 FROM members WHERE cluster = ?1 AND name = ?2)";
    let is_there = database.prepare_cached(sql)?.query_row((cluster, member), |row| row.get(0))?;
    if is_there { Ok(()) } else { Err(Refusal::Member) }
}
