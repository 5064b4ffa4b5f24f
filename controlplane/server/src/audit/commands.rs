//! What commands read of the log, and a checkpoint between those of the server.

use std::io::Write;

use rusqlite::Connection;
use zen_audit::ExportError;

use super::checkpoint::{Due, Signer, latest};
use super::restart::{self, AuditSettings};
use super::witness::with_cosignatures;
use super::{read, witness};
use crate::database::owner;
use crate::directory::Directory;
use crate::{ControlError, Database};

/// How far the log is vouched for: `anchored <= signed <= entries`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditRange {
    /// Entries from the first on that enough witnesses cosigned.
    pub anchored: u64,
    /// Entries that the log itself has signed for.
    pub signed: u64,
    /// How many there are.
    pub entries: u64,
    /// What does not hold; nothing is said of entries from there on.
    pub fault: Option<ExportError>,
}

/// The key that checkpoints are verified with, as notes write keys.
pub fn audit_key(directory: &Directory, database: &Database) -> Result<String, ControlError> {
    Ok(signer(directory, database, &AuditSettings::default())?.public().to_string())
}

/// Signs what is new, unless the log is not the one that was signed for last; the newest checkpoint with its cosignatures.
pub fn sign_audit(
    directory: &Directory,
    database: &mut Database,
    settings: &AuditSettings,
    now_ms: u64,
) -> Result<String, ControlError> {
    let signer = signer(directory, database, settings)?;
    restart::check(database, &signer)?;
    signer.sign(database, Due::Idle, now_ms)?;
    let last = latest(database)?.ok_or(ControlError::AuditDamaged)?;
    Ok(with_cosignatures(database, last.size, &last.note)?.to_string())
}

/// Writes all entries and checkpoints, as they are at one moment, for `zen-audit verify`.
pub fn export_audit(database: &mut Database, out: &mut impl Write) -> Result<(), ControlError> {
    let transaction = database.transaction()?;
    read::export(&transaction, |line| {
        out.write_all(line.as_bytes()).map_err(ControlError::file("the export"))
    })
}

/// Walks through all entries.
pub fn audit_ranges(
    directory: &Directory,
    database: &mut Database,
    quorum: usize,
) -> Result<AuditRange, ControlError> {
    let signer = signer(directory, database, &AuditSettings::default())?;
    let transaction = database.transaction()?;
    let found = read::verify(&transaction, signer.public(), quorum)?;
    Ok(AuditRange {
        anchored: found.anchored,
        signed: found.signed,
        entries: found.entries,
        fault: found.fault,
    })
}

/// Clusters whose agents are witnesses, the key of each, and how many entries it cosigned for, if any.
pub fn audit_witnesses(database: &Database) -> Result<Vec<(String, String, Option<i64>)>, ControlError> {
    let present = witness::witnesses(database)?.into_iter().filter(|witness| witness.until_ms.is_none());
    Ok(present.map(|witness| (witness.cluster, witness.key, witness.cosigned)).collect())
}

fn signer(
    directory: &Directory,
    database: &Connection,
    settings: &AuditSettings,
) -> Result<Signer, ControlError> {
    Signer::open(directory, &owner(database)?.trust_domain, settings.checkpoint_file.as_deref())
}
