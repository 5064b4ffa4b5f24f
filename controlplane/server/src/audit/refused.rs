//! What people were refused, as entries: so many of each and of all in a while, so that nobody fills the log by asking.

use rusqlite::{Connection, TransactionBehavior};
use zen_audit::Outcome;
use zen_control_api::Hex16;

use super::log::{Act, append, new_request_id};
use crate::database::integer;
use crate::{ControlError, Database, store};

/// In how long refusals are counted, ms.
pub(crate) const REFUSALS_WINDOW_MS: u64 = 10 * 60 * 1000;
/// Most entries of one actor's refusals in that.
pub(crate) const ACTOR_REFUSALS_MAX: i64 = 20;
/// Most entries of refusals in that.
pub(crate) const REFUSALS_MAX: i64 = 500;

/// Adds an entry of its own for what was refused, unless there are enough; its sequence.
pub(crate) fn append_refused(
    database: &mut Database,
    act: &Act<'_>,
    now_ms: u64,
) -> Result<Option<u64>, ControlError> {
    if is_full(database, act.actor, now_ms)? {
        tracing::warn!(actor = act.actor, action = act.action, "refused more often than the audit log takes");
        return Ok(None);
    }
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let sequence = append(&transaction, &Act { outcome: Outcome::Refused, ..*act }, now_ms)?;
    transaction.commit()?;
    Ok(Some(sequence))
}

/// Adds that a second key came with a bundle.
pub(crate) fn append_consumed(
    database: &mut Database,
    (bundle_id, cluster): (Hex16, &str),
    now_ms: u64,
) -> Result<(), ControlError> {
    let tenant = store::tenant_of(database, cluster)?;
    let act = Act {
        tenant: &tenant,
        actor: &format!("bundle:{bundle_id}"),
        action: "agents.enroll",
        target: &format!("tenants/{tenant}/clusters/{cluster}/agent"),
        outcome: Outcome::Refused,
        request_id: &new_request_id(),
    };
    append_refused(database, &act, now_ms).map(drop)
}

/// Whether the log has enough refusals for now.
fn is_full(database: &Connection, actor: &str, now_ms: u64) -> rusqlite::Result<bool> {
    let from = integer(now_ms.saturating_sub(REFUSALS_WINDOW_MS));
    let sql = "SELECT count(*), count(*) FILTER (WHERE actor = ?2) FROM audit_entries
        WHERE outcome = 'refused' AND time_ms > ?1";
    let mut statement = database.prepare_cached(sql)?;
    let (all, own): (i64, i64) = statement.query_row((from, actor), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(all >= REFUSALS_MAX || own >= ACTOR_REFUSALS_MAX)
}
