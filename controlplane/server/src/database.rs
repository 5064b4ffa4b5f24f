//! The database: one `SQLite` file, in WAL mode, on the disk before anybody is answered.

use std::path::Path;
use std::time::Duration;

use rusqlite::backup::Progress;
use rusqlite::{Connection, MAIN_DB, OpenFlags, Transaction, TransactionBehavior};

use crate::ControlError;
use crate::directory::{self, Directory, PRIVATE_MODE};

/// An open database.
pub type Database = Connection;

const SCHEMA_VERSION: i64 = 1;
/// How long a command waits for the server, or the server for a command.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
CREATE TABLE settings (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    trust_domain TEXT NOT NULL,
    tenant TEXT NOT NULL
) STRICT;
CREATE TABLE bundles (
    id BLOB PRIMARY KEY,
    public_key BLOB NOT NULL UNIQUE,
    cluster TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    revoked_at_ms INTEGER,
    used_key BLOB,
    used_at_ms INTEGER,
    used_from TEXT
) STRICT;
CREATE TABLE identities (
    spiffe_id TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    enrolled_generation INTEGER NOT NULL,
    binding_key BLOB,
    locked_at_ms INTEGER
) STRICT;
CREATE TABLE certificates (
    serial BLOB PRIMARY KEY,
    spiffe_id TEXT NOT NULL REFERENCES identities,
    generation INTEGER NOT NULL,
    key BLOB NOT NULL UNIQUE,
    not_after_ms INTEGER NOT NULL,
    chain TEXT NOT NULL,
    seen_at_ms INTEGER,
    bundle_id BLOB UNIQUE REFERENCES bundles,
    UNIQUE (spiffe_id, generation)
) STRICT;
CREATE TABLE configurations (
    cluster TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    text TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT;
CREATE TABLE members (
    spiffe_id TEXT PRIMARY KEY,
    cluster TEXT NOT NULL REFERENCES configurations,
    name TEXT NOT NULL,
    UNIQUE (cluster, name)
) STRICT;
CREATE TABLE denials (
    kind TEXT NOT NULL CHECK (kind IN ('serial', 'spki_sha256', 'spiffe_id')),
    value TEXT NOT NULL,
    reason TEXT,
    until_ms INTEGER,
    PRIMARY KEY (kind, value)
) STRICT;
CREATE TABLE statuses (
    cluster TEXT PRIMARY KEY,
    received_at_ms INTEGER NOT NULL,
    report TEXT NOT NULL
) STRICT;
";

/// Whose control plane it is.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) trust_domain: String,
    pub(crate) tenant: String,
}

/// Opens the database of a directory.
pub fn open_database(directory: &Directory) -> Result<Database, ControlError> {
    let path = directory.path(directory::DATABASE);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags)?;
    database.busy_timeout(BUSY_TIMEOUT)?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.pragma_update(None, "foreign_keys", true)?;
    let found = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found != SCHEMA_VERSION {
        return Err(ControlError::Schema { found, known: SCHEMA_VERSION });
    }
    Ok(database)
}

/// Copies the database as it is at one moment into a new file, while the server runs.
pub fn back_up(database: &Database, out: &Path) -> Result<(), ControlError> {
    directory::create(out, "", PRIVATE_MODE)?;
    Ok(database.backup(MAIN_DB, out, None::<fn(Progress)>)?)
}

/// Makes the database of a new directory.
pub(crate) fn create_database(directory: &Directory, owner: &Owner) -> Result<(), ControlError> {
    directory.create(directory::DATABASE, "", PRIVATE_MODE)?;
    let database = Connection::open(directory.path(directory::DATABASE))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.execute_batch(SCHEMA)?;
    let sql = "INSERT INTO settings (only, trust_domain, tenant) VALUES (1, ?1, ?2)";
    database.execute(sql, (&owner.trust_domain, &owner.tenant))?;
    database.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    database.close().map_err(|(_, error)| error.into())
}

pub(crate) fn owner(database: &Database) -> rusqlite::Result<Owner> {
    database.query_row("SELECT trust_domain, tenant FROM settings", (), |row| {
        Ok(Owner { trust_domain: row.get(0)?, tenant: row.get(1)? })
    })
}

/// A transaction that writes: what it reads stays true until it ends.
pub(crate) fn begin(database: &mut Database) -> rusqlite::Result<Transaction<'_>> {
    database.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Integers of `SQLite` are signed; no time or count of ours comes near the end.
pub(crate) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
