//! Witnesses: agents that saw a checkpoint, found that it continues the one before, and cosigned it (C2SP tlog-cosignature).
//!
//! Each has a key of its own, named after its cluster. Another key is an entry and an alarm: it may be a new agent, or
//! somebody who would rather have a witness that remembers nothing.

use rusqlite::{Connection, OptionalExtension as _};
use zen_audit::{LogKey, Note, Outcome, SIGNATURES_MAX, SignatureKind};

use super::log::{Act, append, new_request_id};
use crate::database::integer;
use crate::{ControlError, Refusal, store};

/// Most cosignatures of a checkpoint that are kept, beside the log's own signature.
const COSIGNATURES_MAX: i64 = 255;
const _: () = assert!(COSIGNATURES_MAX as usize + 1 == SIGNATURES_MAX);

/// A witness' key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Witnessing {
    pub(crate) cluster: String,
    /// As notes write keys.
    pub(crate) key: String,
    /// Unix ms.
    pub(crate) since_ms: i64,
    /// When another key took its place; what it signed before still counts.
    pub(crate) until_ms: Option<i64>,
    /// How many entries the newest checkpoint has that it cosigned.
    pub(crate) cosigned: Option<i64>,
}

/// The name that the key of a cluster's agent has.
pub(crate) fn witness_name(trust_domain: &str, cluster: &str) -> String {
    format!("{trust_domain}/agent/{cluster}")
}

/// Takes the key that a cluster's agent says is its own, on a connection that proved who it is.
pub(crate) fn register_witness(
    transaction: &Connection,
    (trust_domain, cluster): (&str, &str),
    key: &str,
    now_ms: u64,
) -> Result<LogKey, Refusal> {
    let read = LogKey::parse(key).ok().filter(|read| {
        read.kind() == SignatureKind::Cosignature && read.name() == witness_name(trust_domain, cluster)
    });
    let read =
        read.ok_or(Refusal::Field("a witness' key is that of a cosigner, named TRUST-DOMAIN/agent/CLUSTER"))?;
    let sql = "SELECT key FROM audit_witnesses WHERE cluster = ?1 AND until_ms IS NULL";
    let present: Option<String> = transaction.query_row(sql, (cluster,), |row| row.get(0)).optional()?;
    if present.as_deref() == Some(key) {
        return Ok(read);
    }
    let action = if present.is_some() { "witnesses.replace" } else { "witnesses.create" };
    if present.is_some() {
        tracing::error!(
            cluster,
            "ALARM: the agent has another key as a witness; if it is not a new one, ask why"
        );
        let sql = "UPDATE audit_witnesses SET until_ms = ?2 WHERE cluster = ?1 AND until_ms IS NULL";
        transaction.execute(sql, (cluster, integer(now_ms)))?;
    }
    // A key that comes back has been away, and what it signs then counts again.
    let sql = "INSERT INTO audit_witnesses (cluster, key, since_ms) VALUES (?1, ?2, ?3)
        ON CONFLICT DO UPDATE SET until_ms = NULL";
    transaction.execute(sql, (cluster, key, integer(now_ms)))?;
    let tenant = store::tenant_of(transaction, cluster)?;
    let act = Act {
        tenant: &tenant,
        actor: &format!("spiffe://{trust_domain}/agent/{cluster}"),
        action,
        target: &format!("tenants/{tenant}/clusters/{cluster}/witness"),
        outcome: Outcome::Done,
        request_id: &new_request_id(),
    };
    append(transaction, &act, now_ms)?;
    Ok(read)
}

/// Keeps a witness' cosignature of a checkpoint that we signed; whether it is new.
pub(crate) fn keep_cosignature(
    transaction: &Connection,
    witness: &LogKey,
    cosigned: &str,
) -> Result<bool, Refusal> {
    let refusal =
        Refusal::Field("the cosigned note is not a checkpoint of this log with the witness' signature");
    let Ok(note) = Note::parse(cosigned) else { return Err(refusal) };
    let size = note.text().lines().nth(1).and_then(|size| size.parse::<i64>().ok());
    let Some(size) = size else { return Err(refusal) };
    let sql = "SELECT note FROM audit_checkpoints WHERE size = ?1";
    let own: Option<String> =
        transaction.prepare_cached(sql)?.query_row((size,), |row| row.get(0)).optional()?;
    // One that was forgotten meanwhile anchors nothing that a later one does not.
    let Some(own) = own else { return Ok(false) };
    let is_ours = Note::parse(&own).is_ok_and(|own| own.text() == note.text());
    if !is_ours || !matches!(note.verify(witness), Ok(Some(_))) {
        return Err(refusal);
    }
    let by_witness = |line: &&str| {
        let name = line.strip_prefix("— ").and_then(|line| line.split_once(' '));
        name.is_some_and(|(name, _)| name == witness.name())
    };
    let Some(line) = cosigned.lines().rev().find(by_witness) else { return Err(refusal) };
    let sql = "SELECT count(*) FROM audit_cosignatures WHERE size = ?1";
    let count: i64 = transaction.prepare_cached(sql)?.query_row((size,), |row| row.get(0))?;
    if count >= COSIGNATURES_MAX {
        return Ok(false);
    }
    let sql =
        "INSERT INTO audit_cosignatures (size, witness, line) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    Ok(transaction.prepare_cached(sql)?.execute((size, witness.to_string(), line))? == 1)
}

/// A checkpoint's note with the cosignatures that are kept of it.
pub(crate) fn with_cosignatures(database: &Connection, size: u64, note: &str) -> Result<Note, ControlError> {
    let sql = "SELECT line FROM audit_cosignatures WHERE size = ?1 ORDER BY witness";
    let mut statement = database.prepare_cached(sql)?;
    let lines = statement.query_map((integer(size),), |row| row.get::<_, String>(0))?;
    let mut text = note.to_owned();
    for line in lines {
        text.push_str(&line?);
        text.push('\n');
    }
    Note::parse(&text).map_err(|_| ControlError::AuditDamaged)
}

/// All witnesses, those that were replaced as well.
pub(crate) fn witnesses(database: &Connection) -> rusqlite::Result<Vec<Witnessing>> {
    let sql = "SELECT cluster, key, since_ms, until_ms,
        (SELECT max(size) FROM audit_cosignatures WHERE witness = key) FROM audit_witnesses ORDER BY cluster, since_ms";
    let mut statement = database.prepare_cached(sql)?;
    let rows = statement.query_map((), |row| {
        Ok(Witnessing {
            cluster: row.get(0)?,
            key: row.get(1)?,
            since_ms: row.get(2)?,
            until_ms: row.get(3)?,
            cosigned: row.get(4)?,
        })
    })?;
    rows.collect()
}
