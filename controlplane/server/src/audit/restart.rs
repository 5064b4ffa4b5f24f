//! The start: whether the log is at least the one that the second file speaks of.
//!
//! A log that is longer is what a crash leaves. One that is shorter, or has another root, is an old copy or was cut; that it
//! is to be so is said by a person, and is an entry.

use std::path::PathBuf;

use rusqlite::Connection;
use zen_audit::{Checkpoint, NOTE_BYTES_MAX, Note, root_of};

use super::checkpoint::{Due, Signer, latest};
use super::log::{Stored, append_command, size};
use super::tables::NODE_STAYS;
use crate::database::{begin, integer, owner};
use crate::directory::{self, Directory};
use crate::{ControlError, Database, open_database};

/// How the log is kept, beside the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditSettings {
    /// The newest checkpoint, in place of `audit.checkpoint` in the directory.
    pub checkpoint_file: Option<PathBuf>,
    /// Entries are added to this file as well, a line each.
    pub export_file: Option<PathBuf>,
}

/// Refuses a log that is not the one which was signed for last.
pub(crate) fn check(database: &Connection, signer: &Signer) -> Result<(), ControlError> {
    let (has_file, seen) = (signer.file().exists(), seen(signer)?);
    let refuse = |fault| Err(ControlError::AuditTruncated { file: signer.file().to_owned(), fault });
    let size = size(database)?;
    match seen {
        None if has_file => refuse("holds no checkpoint that the log's key signed"),
        None if latest(database)?.is_some() => refuse("is not there, although checkpoints were made"),
        Some(seen) if seen.size > size => refuse("speaks of more entries than the log has"),
        Some(seen) if root_of(&Stored(database), seen.size)? != seen.root => {
            refuse("speaks of other entries than the log has")
        }
        None | Some(_) => Ok(()),
    }
}

/// What the second file says, if it says anything that our key signed.
fn seen(signer: &Signer) -> Result<Option<Checkpoint>, ControlError> {
    if !signer.file().exists() {
        return Ok(None);
    }
    let text = directory::read_text(signer.file(), NOTE_BYTES_MAX as u64)?;
    let note = Note::parse(&text).ok();
    Ok(note.and_then(|note| Checkpoint::verify(&note, signer.public()).ok()))
}

/// Goes on with the log as it is, which is an entry of it; false if there is nothing to accept.
pub fn accept_truncation(
    directory: &Directory,
    settings: &AuditSettings,
    now_ms: u64,
) -> Result<bool, ControlError> {
    let mut database = open_database(directory)?;
    let trust_domain = owner(&database)?.trust_domain;
    let signer = Signer::open(directory, &trust_domain, settings.checkpoint_file.as_deref())?;
    match check(&database, &signer) {
        Ok(()) => return Ok(false),
        Err(ControlError::AuditTruncated { .. } | ControlError::AuditDamaged) => {}
        Err(error) => return Err(error),
    }
    cut(&mut database, seen(&signer)?.map_or(0, |seen| seen.size))?;
    signer.sign(&mut database, Due::Now, now_ms)
}

/// Takes out hashes and checkpoints of entries that are not there, so that others can come in their place.
fn cut(database: &mut Database, signed: u64) -> Result<(), ControlError> {
    let transaction = begin(database)?;
    let size = size(&transaction)?;
    transaction.execute("DROP TRIGGER IF EXISTS audit_node_stays", ())?;
    transaction.execute("DELETE FROM audit_nodes WHERE ((idx + 1) << level) > ?1", (integer(size),))?;
    transaction.execute(NODE_STAYS, ())?;
    for sql in
        ["DELETE FROM audit_checkpoints WHERE size > ?1", "DELETE FROM audit_cosignatures WHERE size > ?1"]
    {
        transaction.execute(sql, (integer(size),))?;
    }
    let target = format!("audit/entries/{size}-{}", signed.max(size));
    append_command(&transaction, ("", "audit.accept-truncation", &target))?;
    Ok(transaction.commit()?)
}

/// Adds what the log that is to be replaced has beyond the copy that replaces it, as far as the one continues the other; how
/// many entries that are.
pub(crate) fn carry_over(present: &Connection, transaction: &Connection) -> Result<u64, ControlError> {
    let (from, to) = (size(transaction)?, size(present)?);
    if to <= from || root_of(&Stored(present), from)? != root_of(&Stored(transaction), from)? {
        return Ok(0);
    }
    let mut statement =
        present.prepare("SELECT bytes FROM audit_entries WHERE sequence >= ?1 ORDER BY sequence")?;
    let mut rows = statement.query((integer(from),))?;
    while let Some(row) = rows.next()? {
        super::log::append_bytes(
            transaction,
            row.get_ref(0)?.as_blob().map_err(|_| ControlError::AuditDamaged)?,
        )?;
    }
    drop(rows);
    Ok(to - from)
}
