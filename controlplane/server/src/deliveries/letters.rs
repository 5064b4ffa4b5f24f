//! Dead letters, as each node listed them last: names and reasons, never what is in them.

use rusqlite::{Connection, ToSql};
use zen_control_api::{DeadLetterReport, RelayAnswer};

use super::check_member;
use crate::database::integer;
use crate::{AgentSession, Refusal, store};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) cluster: String,
    pub(crate) member: String,
    pub(crate) id: String,
    pub(crate) event: Option<String>,
    pub(crate) target: String,
    pub(crate) reason: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) attempts: u32,
    pub(crate) died_at_ms: i64,
}

/// Which of them; what is none matches all.
#[derive(Clone, Debug, Default)]
pub(crate) struct LetterFilter {
    pub(crate) cluster: Option<String>,
    pub(crate) target: Option<String>,
}

impl Letter {
    /// Its place among all of a tenant.
    pub(crate) fn key(&self) -> String {
        let Self { cluster, member, id, died_at_ms, .. } = self;
        format!("{died_at_ms:020}/{cluster}/{member}/{id}")
    }
}

/// Keeps a node's list in place of the one before.
pub(crate) fn keep_letters(
    transaction: &Connection,
    agent: &AgentSession,
    report: &DeadLetterReport,
) -> Result<RelayAnswer, Refusal> {
    let (cluster, member) = (agent.cluster.as_str(), report.member.as_str());
    check_member(transaction, cluster, member)?;
    let tenant = store::tenant_of(transaction, cluster)?;
    transaction.execute("DELETE FROM dead_letters WHERE cluster = ?1 AND member = ?2", (cluster, member))?;
    let sql = "INSERT INTO dead_letters (tenant, cluster, member, id, event, target, reason, status, attempts, died_at_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING";
    let mut insert = transaction.prepare_cached(sql)?;
    for letter in &report.letters {
        let died_at_ms = integer(letter.died_at_ms);
        let row: [&dyn ToSql; 10] = [
            &tenant,
            &cluster,
            &member,
            &letter.id,
            &letter.event,
            &letter.target,
            &letter.reason,
            &letter.status,
            &letter.attempts,
            &died_at_ms,
        ];
        insert.execute(row)?;
    }
    Ok(RelayAnswer { last: None })
}

/// At most `count` letters of a tenant, the one that died last first, behind the one with the key `after`.
pub(crate) fn page_of_letters(
    database: &Connection,
    tenant: &str,
    filter: &LetterFilter,
    (after, count): (&str, usize),
) -> rusqlite::Result<Vec<Letter>> {
    let sql = "SELECT cluster, member, id, event, target, reason, status, attempts, died_at_ms
        FROM dead_letters WHERE tenant = ?1
            AND (?2 = '' OR printf('%020d/%s/%s/%s', died_at_ms, cluster, member, id) < ?2)
            AND (?3 IS NULL OR cluster = ?3) AND (?4 IS NULL OR target = ?4)
        ORDER BY died_at_ms DESC, cluster DESC, member DESC, id DESC LIMIT ?5";
    let wanted: [&dyn ToSql; 5] = [&tenant, &after, &filter.cluster, &filter.target, &integer(count as u64)];
    let row = |row: &rusqlite::Row<'_>| {
        Ok(Letter {
            cluster: row.get(0)?,
            member: row.get(1)?,
            id: row.get(2)?,
            event: row.get(3)?,
            target: row.get(4)?,
            reason: row.get(5)?,
            status: row.get(6)?,
            attempts: row.get(7)?,
            died_at_ms: row.get(8)?,
        })
    };
    database.prepare_cached(sql)?.query_map(wanted, row)?.collect()
}
