//! Whether a connection's certificate may still speak: a serial and a key in, a cluster and a generation out.
//!
//! Asked when a connection is made, with each request, and when the deny list changes under a connection that waits.

use rusqlite::{Connection, OptionalExtension as _};
use zen_identity::SpiffeId;

use crate::Refusal;
use crate::database::integer;
use crate::deny;

/// What a connection was made with.
#[derive(Clone, Debug)]
pub struct SessionKey {
    /// Who.
    pub id: SpiffeId,
    /// Of the certificate, without leading zeros.
    pub serial: Vec<u8>,
    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub key: [u8; 32],
}

/// An agent that may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSession {
    /// Who.
    pub id: SpiffeId,
    /// Its cluster.
    pub cluster: String,
    /// Of the connection's certificate.
    pub generation: i64,
}

/// The cluster of an agent's id, as the database has it.
pub(crate) fn cluster_of_text(id: &str) -> Option<String> {
    cluster_of(&SpiffeId::parse(id).ok()?).map(str::to_owned)
}

/// The cluster of an agent's id.
pub(crate) fn cluster_of(id: &SpiffeId) -> Option<&str> {
    let mut segments = id.segments();
    match (segments.next(), segments.next(), segments.next()) {
        (Some("agent"), Some(cluster), None) => Some(cluster),
        _ => None,
    }
}

/// Whether a use of the certificate is known, or there is no such certificate.
pub(crate) fn is_seen(database: &Connection, key: &SessionKey) -> rusqlite::Result<bool> {
    let sql = "SELECT seen_at_ms IS NOT NULL FROM certificates WHERE serial = ?1";
    let found = database.prepare_cached(sql)?.query_row((&key.serial,), |row| row.get(0)).optional()?;
    Ok(found.unwrap_or(true))
}

/// Remembers that a certificate was used; on this rests whether an answer was lost or a key was copied.
pub(crate) fn mark_seen(database: &Connection, key: &SessionKey, now_ms: u64) -> rusqlite::Result<()> {
    let sql = "UPDATE certificates SET seen_at_ms = ?2 WHERE serial = ?1 AND seen_at_ms IS NULL";
    database.execute(sql, (&key.serial, integer(now_ms))).map(|_| ())
}

/// Whether it may speak now.
pub(crate) fn check_session(
    database: &Connection,
    key: &SessionKey,
    now_ms: u64,
) -> Result<AgentSession, Refusal> {
    let cluster = cluster_of(&key.id).ok_or(Refusal::Client("agents"))?.to_owned();
    if deny::is_denied(database, &key.id, &[key.key], Some(&key.serial), now_ms)? {
        return Err(Refusal::Denied);
    }
    let sql = "SELECT c.generation, i.enrolled_generation, i.locked_at_ms IS NOT NULL
        FROM certificates c JOIN identities i USING (spiffe_id) WHERE c.serial = ?1 AND c.spiffe_id = ?2";
    let mut statement = database.prepare_cached(sql)?;
    let found = statement.query_row((&key.serial, key.id.as_str()), |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, bool>(2)?))
    });
    let (generation, enrolled_generation, is_locked) = found.optional()?.ok_or(Refusal::Superseded)?;
    if is_locked {
        return Err(Refusal::Locked);
    }
    if generation < enrolled_generation {
        return Err(Refusal::Superseded);
    }
    Ok(AgentSession { id: key.id.clone(), cluster, generation })
}
