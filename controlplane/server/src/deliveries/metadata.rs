//! Metadata of deliveries: the newest of each tenant, for a week at most.

use rusqlite::{Connection, ToSql};
use zen_control_api::{DeliveryReport, RelayAnswer};

use super::writer::Writer;
use crate::database::integer;
use crate::{AgentSession, Refusal, store};

/// Most deliveries of a tenant that are kept.
pub(crate) const DELIVERIES_KEPT_MAX: i64 = 100_000;
/// How long one is kept, ms.
pub(crate) const DELIVERY_LIFE_MS: u64 = 7 * 24 * 3600 * 1000;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryRow {
    /// Rises in the tenant as they come.
    pub(crate) number: i64,
    pub(crate) cluster: String,
    pub(crate) member: String,
    pub(crate) sequence: i64,
    pub(crate) time_ms: i64,
    pub(crate) event: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) target: String,
    pub(crate) verdict: String,
    pub(crate) reason: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) attempts: u32,
    pub(crate) body_hmac: Option<String>,
}

/// Which of them; what is none matches all.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeliveryFilter {
    pub(crate) cluster: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) verdict: Option<String>,
    /// Unix ms, and those at that moment.
    pub(crate) from_ms: Option<i64>,
    /// Unix ms, and none at that moment.
    pub(crate) until_ms: Option<i64>,
}

/// Keeps the deliveries that are new; the sequence of the last.
pub(crate) fn keep_deliveries(
    transaction: &Connection,
    agent: &AgentSession,
    report: &DeliveryReport,
    now_ms: u64,
) -> Result<RelayAnswer, Refusal> {
    let mut writer = Writer::open(transaction, agent, Some(&report.member), (&report.key, now_ms))?;
    let tenant = store::tenant_of(transaction, &agent.cluster)?;
    let sql = "SELECT coalesce(max(number), 0) FROM deliveries WHERE tenant = ?1";
    let mut number: i64 = transaction.prepare_cached(sql)?.query_row((&tenant,), |row| row.get(0))?;
    let sql =
        "INSERT INTO deliveries (tenant, number, cluster, member, sequence, time_ms, event, endpoint, target,
            verdict, reason, status, attempts, body_hmac, received_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
    let mut insert = transaction.prepare_cached(sql)?;
    for delivery in &report.deliveries {
        if writer.delivered.is_some_and(|last| delivery.sequence <= last) {
            continue;
        }
        number += 1;
        let row: [&dyn ToSql; 15] = [
            &tenant,
            &number,
            &agent.cluster,
            &report.member,
            &integer(delivery.sequence),
            &integer(delivery.time_ms),
            &delivery.event,
            &delivery.endpoint,
            &delivery.target,
            &delivery.verdict,
            &delivery.reason,
            &delivery.status,
            &delivery.attempts,
            &delivery.body_hmac,
            &integer(now_ms),
        ];
        insert.execute(row)?;
        writer.delivered = Some(delivery.sequence);
    }
    let sql = "DELETE FROM deliveries WHERE tenant = ?1 AND number <= ?2";
    transaction.prepare_cached(sql)?.execute((&tenant, number - DELIVERIES_KEPT_MAX))?;
    writer.keep(transaction, None)?;
    Ok(RelayAnswer { last: writer.delivered })
}

/// Drops what is too old. The newest number of a tenant may be among it: numbers then begin anew.
pub(crate) fn sweep(database: &Connection, now_ms: u64) -> rusqlite::Result<()> {
    let sql = "DELETE FROM deliveries WHERE received_ms < ?1";
    database.execute(sql, (integer(now_ms.saturating_sub(DELIVERY_LIFE_MS)),)).map(drop)
}

/// At most `count` deliveries of a tenant, newest first, behind the one with the number `after`; all if that is none.
pub(crate) fn page_of_deliveries(
    database: &Connection,
    tenant: &str,
    filter: &DeliveryFilter,
    (after, count): (Option<i64>, usize),
) -> rusqlite::Result<Vec<DeliveryRow>> {
    let sql =
        "SELECT number, cluster, member, sequence, time_ms, event, endpoint, target, verdict, reason, status,
            attempts, body_hmac
        FROM deliveries WHERE tenant = ?1 AND (?2 IS NULL OR number < ?2)
            AND (?3 IS NULL OR cluster = ?3) AND (?4 IS NULL OR event = ?4) AND (?5 IS NULL OR endpoint = ?5)
            AND (?6 IS NULL OR target = ?6) AND (?7 IS NULL OR verdict = ?7)
            AND (?8 IS NULL OR time_ms >= ?8) AND (?9 IS NULL OR time_ms < ?9)
        ORDER BY number DESC LIMIT ?10";
    let DeliveryFilter { cluster, event, endpoint, target, verdict, from_ms, until_ms } = filter;
    let count = integer(count as u64);
    let wanted: [&dyn ToSql; 10] =
        [&tenant, &after, cluster, event, endpoint, target, verdict, from_ms, until_ms, &count];
    database.prepare_cached(sql)?.query_map(wanted, delivery_row)?.collect()
}

fn delivery_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        number: row.get(0)?,
        cluster: row.get(1)?,
        member: row.get(2)?,
        sequence: row.get(3)?,
        time_ms: row.get(4)?,
        event: row.get(5)?,
        endpoint: row.get(6)?,
        target: row.get(7)?,
        verdict: row.get(8)?,
        reason: row.get(9)?,
        status: row.get(10)?,
        attempts: row.get(11)?,
        body_hmac: row.get(12)?,
    })
}
