//! Orders: made by people, signed for one cluster, handed to its agent, and what came of them.
//!
//! A number is the Unix ms of when an order was made, or one more than the last: none comes again, even from a database that
//! is an old copy. Agents begin none twice, so what is handed out again does no harm.

use std::collections::{BTreeSet, HashSet};

use rusqlite::{Connection, OptionalExtension as _};
use zen_control_api::{
    ORDER_LIFE_MS, Order, OrderEnd, OrderResult, SYNC_ORDERS_MAX, SignedOrder, SigningKey,
};

use crate::database::integer;
use crate::{AgentSession, Refusal, audit};

/// Most orders of a cluster that have no end yet.
pub(crate) const ORDERS_OPEN_MAX: i64 = 64;
/// Most orders of a cluster that are kept.
const ORDERS_KEPT_MAX: i64 = 1000;
const COLUMNS: &str =
    "number, cluster, member, letters, ordered_by, created_ms, expires_ms, state, done, skipped,
    reason, ended_ms";

/// What somebody wants.
#[derive(Clone, Debug)]
pub(crate) struct NewOrder<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) cluster: &'a str,
    pub(crate) member: &'a str,
    pub(crate) letters: BTreeSet<String>,
    /// Who, as the log of acts has them.
    pub(crate) ordered_by: &'a str,
}

/// An order as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderRow {
    pub(crate) number: i64,
    pub(crate) cluster: String,
    pub(crate) member: String,
    pub(crate) letters: i64,
    pub(crate) ordered_by: String,
    pub(crate) created_ms: i64,
    pub(crate) expires_ms: i64,
    /// `open`, `sent`, `done`, `failed`, `unknown` or `expired`.
    pub(crate) state: String,
    pub(crate) done: Option<i64>,
    pub(crate) skipped: Option<i64>,
    pub(crate) reason: Option<String>,
    pub(crate) ended_ms: Option<i64>,
}

/// Makes an order; its number, or nothing if the cluster has too many without an end.
pub(crate) fn create_order(
    transaction: &Connection,
    key: &SigningKey,
    new: NewOrder<'_>,
    now_ms: u64,
) -> rusqlite::Result<Option<u64>> {
    let NewOrder { tenant, cluster, member, letters, ordered_by } = new;
    let sql =
        "SELECT count(*) FROM orders WHERE cluster = ?1 AND state IN ('open', 'sent') AND expires_ms > ?2";
    let open: i64 = transaction.query_row(sql, (cluster, integer(now_ms)), |row| row.get(0))?;
    if open >= ORDERS_OPEN_MAX {
        return Ok(None);
    }
    let sql = "SELECT max(coalesce(max(number) + 1, 0), ?1) FROM orders";
    let number: i64 = transaction.query_row(sql, (integer(now_ms),), |row| row.get(0))?;
    let (count, expires_at_ms) = (integer(letters.len() as u64), now_ms + ORDER_LIFE_MS);
    let order = Order {
        number: number.unsigned_abs(),
        tenant: tenant.to_owned(),
        cluster: cluster.to_owned(),
        member: member.to_owned(),
        expires_at_ms,
        replay: letters,
    };
    let signed = SignedOrder::sign(&order, key);
    let signature = serde_json::to_string(&signed.signature).expect("base64 is a text");
    let sql = "INSERT INTO orders (number, tenant, cluster, member, letters, ordered_by, created_ms, expires_ms, text,
            signature, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 'open')";
    let times = (integer(now_ms), integer(expires_at_ms));
    transaction.execute(
        sql,
        (number, tenant, cluster, member, count, ordered_by, times.0, times.1, signed.text, signature),
    )?;
    let sql = "DELETE FROM orders WHERE cluster = ?1 AND number <= (
        SELECT number FROM orders WHERE cluster = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)";
    transaction.execute(sql, (cluster, ORDERS_KEPT_MAX))?;
    Ok(Some(order.number))
}

/// Clusters with an order that was not handed out yet.
pub(crate) fn clusters_with_orders(database: &Connection, now_ms: u64) -> rusqlite::Result<HashSet<String>> {
    let sql = "SELECT DISTINCT cluster FROM orders WHERE state = 'open' AND expires_ms > ?1";
    database.prepare_cached(sql)?.query_map((integer(now_ms),), |row| row.get(0))?.collect()
}

/// Orders of a cluster above the last one that its agent has begun, lowest number first, as far as they have no end.
pub(crate) fn hand_out(
    transaction: &Connection,
    cluster: &str,
    last: u64,
    now_ms: u64,
) -> Result<Vec<SignedOrder>, Refusal> {
    let sql = "SELECT number, text, signature FROM orders
        WHERE cluster = ?1 AND state IN ('open', 'sent') AND number > ?2 AND expires_ms > ?3 ORDER BY number LIMIT ?4";
    let wanted = (cluster, integer(last), integer(now_ms), integer(SYNC_ORDERS_MAX as u64));
    let mut statement = transaction.prepare_cached(sql)?;
    let found = statement.query_map(wanted, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let found: Vec<(i64, String, String)> = found.collect::<Result<_, _>>()?;
    let mut orders = Vec::with_capacity(found.len());
    for (number, text, signature) in found {
        let signature = serde_json::from_str(&signature).map_err(|error| Refusal::Kept(error.to_string()))?;
        orders.push(SignedOrder { text, signature });
        let sql = "UPDATE orders SET state = 'sent' WHERE number = ?1 AND state = 'open'";
        transaction.prepare_cached(sql)?.execute((number,))?;
    }
    Ok(orders)
}

/// What came of orders, each once, in the log of acts as well.
pub(crate) fn end_orders(
    transaction: &Connection,
    agent: &AgentSession,
    results: &[OrderResult],
    now_ms: u64,
) -> Result<(), Refusal> {
    for OrderResult { number, end } in results {
        let (state, done, skipped, reason) = match end {
            OrderEnd::Done { done, skipped } => ("done", Some(integer(*done)), Some(integer(*skipped)), None),
            OrderEnd::Failed { reason } => ("failed", None, None, Some(reason)),
            OrderEnd::Unknown => ("unknown", None, None, None),
        };
        let sql = "UPDATE orders SET state = ?3, done = ?4, skipped = ?5, reason = ?6, ended_ms = ?7
            WHERE number = ?2 AND cluster = ?1 AND state IN ('open', 'sent')";
        let row = (&agent.cluster, integer(*number), state, done, skipped, reason, integer(now_ms));
        if transaction.execute(sql, row)? == 1 {
            let act = (format!("orders.{state}"), format!("orders/{number}"));
            audit::append_agent(transaction, (&agent.id, &agent.cluster), (&act.0, &act.1), now_ms)?;
        }
    }
    Ok(())
}

/// At most `count` orders of a tenant, newest first, below the number `after`; all if that is none.
pub(crate) fn page_of_orders(
    database: &Connection,
    tenant: &str,
    (after, count): (Option<i64>, usize),
    now_ms: u64,
) -> rusqlite::Result<Vec<OrderRow>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM orders WHERE tenant = ?1 AND (?2 IS NULL OR number < ?2) ORDER BY number DESC LIMIT ?3"
    );
    let mut statement = database.prepare_cached(&sql)?;
    let rows = statement.query_map((tenant, after, integer(count as u64)), |row| order_row(row, now_ms))?;
    rows.collect()
}

/// One order of a tenant.
pub(crate) fn find_order(
    database: &Connection,
    tenant: &str,
    number: i64,
    now_ms: u64,
) -> rusqlite::Result<Option<OrderRow>> {
    let sql = format!("SELECT {COLUMNS} FROM orders WHERE tenant = ?1 AND number = ?2");
    database.prepare_cached(&sql)?.query_row((tenant, number), |row| order_row(row, now_ms)).optional()
}

fn order_row(row: &rusqlite::Row<'_>, now_ms: u64) -> rusqlite::Result<OrderRow> {
    let (expires_ms, mut state): (i64, String) = (row.get(6)?, row.get(7)?);
    if matches!(state.as_str(), "open" | "sent") && expires_ms <= integer(now_ms) {
        "expired".clone_into(&mut state);
    }
    Ok(OrderRow {
        number: row.get(0)?,
        cluster: row.get(1)?,
        member: row.get(2)?,
        letters: row.get(3)?,
        ordered_by: row.get(4)?,
        created_ms: row.get(5)?,
        expires_ms,
        state,
        done: row.get(8)?,
        skipped: row.get(9)?,
        reason: row.get(10)?,
        ended_ms: row.get(11)?,
    })
}
