//! What is read of the log: a tenant's entries, an export, a proof of one entry, and a walk through all of it.

use rusqlite::Connection;
use zen_audit::{
    Entry, EntryProof, Export, Finding, LogKey, Note, TEXT_BYTES_MAX, Trust, inclusion_proof, verify_export,
};

use super::checkpoint::{Signed, latest, signed};
use super::log::{Stored, size};
use super::witness::{with_cosignatures, witnesses};
use crate::ControlError;
use crate::database::integer;

/// Longest log that is exported or walked through by one request; commands have no such bound.
pub(crate) const REQUEST_ENTRIES_MAX: u64 = 100_000;
/// Most witnesses whose signatures are looked for.
pub(crate) const WITNESSES_MAX: usize = 1_000;

/// Which entries are asked for; all that is said has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter<'a> {
    /// Only this tenant's, if one is named.
    pub(crate) tenant: Option<&'a str>,
    /// The whole of it.
    pub(crate) actor: Option<&'a str>,
    /// How it begins.
    pub(crate) action: Option<&'a str>,
    /// Unix ms, this one included.
    pub(crate) from_ms: Option<u64>,
    /// Unix ms, this one excluded.
    pub(crate) until_ms: Option<u64>,
    /// Only entries before this one.
    pub(crate) before: Option<u64>,
}

/// At most `count` entries, newest first.
pub(crate) fn entries(
    database: &Connection,
    filter: &Filter<'_>,
    count: usize,
) -> Result<Vec<Entry>, ControlError> {
    let by_tenant = "tenant = ?1 AND";
    let (which, tenant) = filter.tenant.map_or(("?1 = '' AND", ""), |tenant| (by_tenant, tenant));
    let sql = format!(
        "SELECT bytes FROM audit_entries WHERE {which} sequence < ?2 AND (?3 IS NULL OR actor = ?3)
            AND substr(action, 1, length(?4)) = ?4 AND time_ms >= ?5 AND time_ms < ?6
        ORDER BY sequence DESC LIMIT ?7"
    );
    let mut statement = database.prepare_cached(&sql)?;
    let end = |bound: Option<u64>| bound.map_or(i64::MAX, integer);
    let parameters = (
        tenant,
        end(filter.before),
        filter.actor,
        filter.action.unwrap_or_default(),
        integer(filter.from_ms.unwrap_or_default()),
        end(filter.until_ms),
        integer(count as u64),
    );
    let rows = statement.query_map(parameters, |row| row.get::<_, Vec<u8>>(0))?;
    rows.map(|bytes| serde_json::from_slice(&bytes?).map_err(|_| ControlError::AuditDamaged)).collect()
}

/// The bytes of an entry, as they were hashed.
pub(crate) fn entry_bytes(database: &Connection, sequence: u64) -> rusqlite::Result<Option<Vec<u8>>> {
    use rusqlite::OptionalExtension as _;
    let sql = "SELECT bytes FROM audit_entries WHERE sequence = ?1";
    database.prepare_cached(sql)?.query_row((integer(sequence),), |row| row.get(0)).optional()
}

/// That an entry is in the log of the newest checkpoint; nothing if no checkpoint has it yet.
pub(crate) fn entry_proof(database: &Connection, index: u64) -> Result<Option<EntryProof>, ControlError> {
    let Some(Signed { size, note, .. }) = latest(database)?.filter(|last| index < last.size) else {
        return Ok(None);
    };
    let hashes = inclusion_proof(&Stored(database), index, size)?;
    Ok(Some(EntryProof { index, hashes, checkpoint: with_cosignatures(database, size, &note)? }))
}

/// Hands out the lines of an export, each with its newline, as the log is at one moment.
pub(crate) fn export(
    database: &Connection,
    mut line: impl FnMut(String) -> Result<(), ControlError>,
) -> Result<(), ControlError> {
    line(Export::first_line())?;
    each_entry(database, |bytes| line(Export::entry_line(bytes)))?;
    each_checkpoint(database, |note| line(Export::checkpoint_line(&note)))
}

/// Walks through all entries as an offline verifier does.
pub(crate) fn verify(database: &Connection, log: &LogKey, quorum: usize) -> Result<Finding, ControlError> {
    let mut export = Export::default();
    each_entry(database, |bytes| {
        export.entries.push(bytes.to_vec());
        Ok(())
    })?;
    each_checkpoint(database, |note| {
        export.checkpoints.push(note);
        Ok(())
    })?;
    let keys = witnesses(database)?.into_iter().take(WITNESSES_MAX);
    let keys = keys.filter_map(|witness| LogKey::parse(&witness.key).ok()).collect();
    Ok(verify_export(&export, &Trust { log: log.clone(), witnesses: keys, quorum }))
}

/// Whether one request may walk through it.
pub(crate) fn is_long(database: &Connection) -> rusqlite::Result<bool> {
    Ok(size(database)? > REQUEST_ENTRIES_MAX)
}

fn each_entry(
    database: &Connection,
    mut step: impl FnMut(&[u8]) -> Result<(), ControlError>,
) -> Result<(), ControlError> {
    let mut statement = database.prepare("SELECT bytes FROM audit_entries ORDER BY sequence")?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        step(row.get_ref(0)?.as_blob().map_err(|_| ControlError::AuditDamaged)?)?;
    }
    Ok(())
}

fn each_checkpoint(
    database: &Connection,
    mut step: impl FnMut(Note) -> Result<(), ControlError>,
) -> Result<(), ControlError> {
    let mut statement =
        database.prepare("SELECT size, note, made_ms FROM audit_checkpoints ORDER BY size")?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let Signed { size, note, .. } = signed(row)?;
        step(with_cosignatures(database, size, &note)?)?;
    }
    Ok(())
}

/// No entry's text is longer, so no filter has to be.
pub(crate) const FILTER_BYTES_MAX: usize = TEXT_BYTES_MAX;
