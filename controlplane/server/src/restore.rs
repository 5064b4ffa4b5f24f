//! Brings a copy of the database back: checked, beside the keys of its directory, ahead of all that agents have seen.
//!
//! Agents refuse a version that is not above theirs, so every version jumps; a bundle that was open then may have been used
//! since, so none is open any more. What was denied, issued or set after the copy was made is not in it.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::backup::Progress;
use rusqlite::{Connection, MAIN_DB, OpenFlags};

use crate::configuration::raise_versions;
use crate::database::{self, begin, integer, migrate, owner};
use crate::directory::{self, Directory, PRIVATE_MODE};
use crate::{Authority, ControlError, audit, authority};

/// How far versions jump: more than were ever made between a copy and its return, 2^20 times within what JSON counts exactly.
const RESTORED_VERSIONS: i64 = 1 << 32;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Clusters whose configuration has a new version.
    pub clusters: u64,
    /// Bundles that were open, and are revoked.
    pub revoked_bundles: u64,
    /// The newest thing that the copy knows of, Unix ms: what agents did later is unknown to it.
    pub newest_ms: Option<i64>,
    /// Where the database lies that was there before.
    pub before: Option<PathBuf>,
}

/// Puts a copy that `backup` made into a directory that has its keys, and that nobody uses.
pub fn restore(path: &Path, from: &Path, now_ms: u64) -> Result<Restored, ControlError> {
    let directory = Directory::open_alone(path)?;
    let key = authority::configuration_key(&directory)?;
    Authority::load(&directory)?;
    let next = directory.path("control.db.next");
    for leftover in files_of(&next) {
        let _ = fs::remove_file(leftover);
    }
    copy(from, &next)?;
    let mut database = Connection::open_with_flags(&next, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    check(&database, from)?;
    database.pragma_update(None, "foreign_keys", true)?;
    migrate(&mut database)?;
    owner(&database)?;
    let newest_ms = newest(&database)?;
    let transaction = begin(&mut database)?;
    carry_over(&directory, &transaction);
    let clusters = raise_versions(&transaction, &key, RESTORED_VERSIONS)?;
    let sql = "UPDATE bundles SET revoked_at_ms = ?1 WHERE used_key IS NULL AND revoked_at_ms IS NULL";
    let revoked_bundles = transaction.execute(sql, (integer(now_ms),))? as u64;
    audit::append_command(&transaction, ("", "database.restore", "database"))?;
    transaction.commit()?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
    database.close().map_err(|(_, error)| error)?;
    let before = swap(&directory, &next)?;
    Ok(Restored { clusters, revoked_bundles, newest_ms, before })
}

/// The audit log goes on as it was, if the database that was there can be read and its log continues the copy's. If not, the
/// next start refuses a log that is shorter than what was signed for.
fn carry_over(directory: &Directory, transaction: &Connection) {
    let present = directory.path(directory::DATABASE);
    let opened = Connection::open_with_flags(&present, OpenFlags::SQLITE_OPEN_READ_WRITE);
    let savepoint = "SAVEPOINT carried";
    let carried = opened.map_err(ControlError::from).and_then(|present| {
        transaction.execute_batch(savepoint)?;
        audit::carry_over(&present, transaction)
    });
    let end = match carried {
        Ok(_) => "RELEASE carried",
        Err(_) => "ROLLBACK TO carried; RELEASE carried",
    };
    // Without a savepoint there is nothing to end.
    let _ = transaction.execute_batch(end);
}

/// A copy is one file, whole; it is read and not changed.
fn copy(from: &Path, to: &Path) -> Result<(), ControlError> {
    fs::metadata(from).map_err(ControlError::file(from))?;
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    directory::create(to, "", PRIVATE_MODE)?;
    source.backup(MAIN_DB, to, None::<fn(Progress)>).map_err(|_| damaged(from))
}

fn check(database: &Connection, from: &Path) -> Result<(), ControlError> {
    let said: String =
        database.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0)).map_err(|_| damaged(from))?;
    let has_stray = database.prepare("PRAGMA foreign_key_check")?.exists(())?;
    if said != "ok" || has_stray { Err(damaged(from)) } else { Ok(()) }
}

fn damaged(from: &Path) -> ControlError {
    ControlError::Content { path: from.to_owned(), what: "a whole copy of a control plane's database" }
}

fn newest(database: &Connection) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT max(at) FROM (SELECT max(received_at_ms) AS at FROM statuses UNION ALL
        SELECT max(created_at_ms) FROM bundles UNION ALL SELECT max(seen_at_ms) FROM certificates)";
    database.query_row(sql, (), |row| row.get(0))
}

/// The database that was there is kept under another name, with its log, which must not meet the new one.
fn swap(directory: &Directory, next: &Path) -> Result<Option<PathBuf>, ControlError> {
    let (present, old) = (directory.path(directory::DATABASE), directory.path("control.db.old"));
    let had_one = present.exists();
    for (from, to) in files_of(&present).iter().zip(files_of(&old)) {
        let _ = fs::remove_file(&to);
        if from.exists() {
            fs::rename(from, &to).map_err(ControlError::file(from))?;
        }
    }
    fs::rename(next, &present).map_err(ControlError::file(&present))?;
    directory.sync()?;
    database::open_database(directory)?;
    Ok(had_one.then_some(old))
}

fn files_of(database: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}
