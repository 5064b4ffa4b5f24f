//! Who writes receipts: a node or the vault of an agent's host, by a key of its own that the agent vouches for.
//!
//! Another key is an entry and an alarm: it may be a new disk, or somebody who would rather begin anew.

use rusqlite::{Connection, OptionalExtension as _};
use zen_audit::{Digest, LogKey, Note, SignatureKind};

use super::check_member;
use crate::database::integer;
use crate::{AgentSession, Refusal, audit};

/// Most keys that one node has had; more are somebody's game.
const WRITER_KEYS_MAX: i64 = 64;

/// One writer.
pub(super) struct Writer {
    pub(super) cluster: String,
    /// Empty for the vault.
    pub(super) member: String,
    pub(super) key: LogKey,
    /// The newest digest, if there is one.
    pub(super) digest: Option<Digest>,
    /// The sequence of the newest delivery.
    pub(super) delivered: Option<u64>,
    /// Why the last digests were refused.
    pub(super) fault: Option<String>,
}

impl Writer {
    /// The one with this key, from now on the present one.
    pub(super) fn open(
        transaction: &Connection,
        agent: &AgentSession,
        member: Option<&str>,
        (key_text, now_ms): (&str, u64),
    ) -> Result<Self, Refusal> {
        let cluster = agent.cluster.as_str();
        if let Some(member) = member {
            check_member(transaction, cluster, member)?;
        }
        let member = member.unwrap_or_default();
        let key = LogKey::parse(key_text).ok().filter(|key| key.kind() == SignatureKind::Note);
        let key = key.ok_or(Refusal::Field("key is not the key of a writer of receipts"))?;
        let place = (cluster, member, key_text);
        let sql = "SELECT digest, delivered, fault FROM receipt_writers
            WHERE cluster = ?1 AND member = ?2 AND key = ?3 AND until_ms IS NULL";
        let found = transaction.prepare_cached(sql)?.query_row(place, writer_row).optional()?;
        let (digest, delivered, fault) = match found {
            Some(found) => found,
            None => take(transaction, agent, place, now_ms)?,
        };
        let digest = digest.as_deref().and_then(|note| Digest::parse(Note::parse(note).ok()?.text()).ok());
        let (cluster, member) = (cluster.to_owned(), member.to_owned());
        Ok(Self { cluster, member, key, digest, delivered: delivered.map(i64::unsigned_abs), fault })
    }

    /// Remembers how far it has come.
    pub(super) fn keep(&self, transaction: &Connection, digest: Option<&str>) -> Result<(), Refusal> {
        let sql = "UPDATE receipt_writers SET digest = coalesce(?4, digest), delivered = ?5, fault = ?6
            WHERE cluster = ?1 AND member = ?2 AND key = ?3";
        let place = (&self.cluster, &self.member, self.key.to_string());
        let row = (place.0, place.1, place.2, digest, self.delivered.map(integer), &self.fault);
        transaction.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    /// Its path below the cluster, as entries of the audit log have it.
    pub(super) fn path(member: &str) -> String {
        if member.is_empty() { "vault/receipts".to_owned() } else { format!("members/{member}/receipts") }
    }
}

type Row = (Option<String>, Option<i64>, Option<String>);

/// A key that is not the present one.
fn take(
    transaction: &Connection,
    agent: &AgentSession,
    (cluster, member, key): (&str, &str, &str),
    now_ms: u64,
) -> Result<Row, Refusal> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE until_ms IS NULL) FROM receipt_writers
        WHERE cluster = ?1 AND member = ?2";
    let (known, present): (i64, i64) =
        transaction.query_row(sql, (cluster, member), |row| Ok((row.get(0)?, row.get(1)?)))?;
    if known >= WRITER_KEYS_MAX {
        return Err(Refusal::Field("key is one too many: the node has had 64; find out who changes them"));
    }
    let action = if present > 0 { "receipts.replace-key" } else { "receipts.create-key" };
    if present > 0 {
        tracing::error!(
            cluster,
            member,
            "ALARM: receipts are signed by another key; if the disk is not new, ask why"
        );
    }
    let sql =
        "UPDATE receipt_writers SET until_ms = ?3 WHERE cluster = ?1 AND member = ?2 AND until_ms IS NULL";
    transaction.execute(sql, (cluster, member, integer(now_ms)))?;
    // A key that comes back goes on where it was.
    let sql = "INSERT INTO receipt_writers (cluster, member, key, since_ms) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT DO UPDATE SET until_ms = NULL RETURNING digest, delivered, fault";
    let row = transaction.query_row(sql, (cluster, member, key, integer(now_ms)), writer_row)?;
    let part = format!("{}/key", Writer::path(member));
    audit::append_agent(transaction, (&agent.id, cluster), (action, &part), now_ms)?;
    Ok(row)
}

fn writer_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}
