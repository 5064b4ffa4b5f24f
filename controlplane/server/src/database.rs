//! The database: one `SQLite` file, in WAL mode, on the disk before anybody is answered.

use std::path::Path;
use std::time::Duration;

use rusqlite::backup::Progress;
use rusqlite::{Connection, MAIN_DB, OpenFlags, Transaction, TransactionBehavior};

use crate::directory::{self, Directory, PRIVATE_MODE};
use crate::{ControlError, audit, deliveries, people};

/// An open database.
pub type Database = Connection;

const SCHEMA_VERSION: i64 = 3;
const _: () = assert!(STEPS.len() + 1 == SCHEMA_VERSION as usize);
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

/// What came with version 2, in order: a new database has all of it, an older one gets it when it is opened.
const ADDITIONS: &[&str] = &[
    // Tenants, and what people asked for: drafts until they are compiled and published.
    "CREATE TABLE tenants (name TEXT PRIMARY KEY) STRICT",
    "INSERT INTO tenants (name) SELECT tenant FROM settings",
    "CREATE TABLE revisions (only INTEGER PRIMARY KEY CHECK (only = 1), last INTEGER NOT NULL) STRICT",
    "INSERT INTO revisions (only, last) VALUES (1, 0)",
    "CREATE TABLE objects (
        tenant TEXT NOT NULL REFERENCES tenants,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        revision INTEGER NOT NULL UNIQUE,
        text TEXT NOT NULL,
        PRIMARY KEY (tenant, kind, name)
    ) STRICT",
    "CREATE UNIQUE INDEX clusters_of_all_tenants ON objects (name) WHERE kind = 'clusters'",
    // People, and the certificates that were made for them.
    "CREATE TABLE people (
        name TEXT PRIMARY KEY,
        role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'editor', 'viewer')),
        created_ms INTEGER NOT NULL
    ) STRICT",
    "CREATE TABLE person_certificates (
        serial BLOB PRIMARY KEY,
        person TEXT NOT NULL REFERENCES people ON DELETE CASCADE,
        not_after_ms INTEGER NOT NULL
    ) STRICT",
    // Answers that are given again when a request comes again.
    "CREATE TABLE idempotency (
        person TEXT NOT NULL REFERENCES people ON DELETE CASCADE,
        key TEXT NOT NULL,
        request BLOB NOT NULL,
        answer TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        PRIMARY KEY (person, key)
    ) STRICT",
    // Since which version a cluster's configurations have a root, and how often its agent may recover.
    "CREATE TABLE published_roots (
        cluster TEXT NOT NULL,
        root TEXT NOT NULL,
        version INTEGER NOT NULL,
        PRIMARY KEY (cluster, root)
    ) STRICT",
    "CREATE TABLE recoveries (
        cluster TEXT PRIMARY KEY,
        policy TEXT NOT NULL CHECK (policy IN ('off', 'once', 'auto')),
        used INTEGER NOT NULL
    ) STRICT",
    "CREATE INDEX identities_by_binding_key ON identities (binding_key) WHERE binding_key IS NOT NULL",
    // What the agent of one cluster last said to another's about the keys of their links.
    "CREATE TABLE link_statements (
        cluster TEXT NOT NULL,
        peer TEXT NOT NULL,
        made_at_ms INTEGER NOT NULL,
        statement TEXT NOT NULL,
        PRIMARY KEY (cluster, peer)
    ) STRICT",
    // No configuration has a version up to this one any more.
    "CREATE TABLE version_floor (only INTEGER PRIMARY KEY CHECK (only = 1), version INTEGER NOT NULL) STRICT",
    "INSERT INTO version_floor (only, version) VALUES (1, 0)",
    // One number that rises with all that agents wait for: one look says whether there is any news.
    "CREATE TABLE watched (only INTEGER PRIMARY KEY CHECK (only = 1), changes INTEGER NOT NULL) STRICT",
    "INSERT INTO watched (only, changes) VALUES (1, 1)",
    "CREATE TRIGGER configuration_made AFTER INSERT ON configurations
        BEGIN UPDATE watched SET changes = changes + 1; END",
    "CREATE TRIGGER configuration_changed AFTER UPDATE ON configurations
        BEGIN UPDATE watched SET changes = changes + 1; END",
    "CREATE TRIGGER denial_made AFTER INSERT ON denials
        BEGIN UPDATE watched SET changes = changes + 1; END",
    "CREATE TRIGGER denial_changed AFTER UPDATE ON denials
        BEGIN UPDATE watched SET changes = changes + 1; END",
    "CREATE TRIGGER denial_taken_back AFTER DELETE ON denials
        BEGIN UPDATE watched SET changes = changes + 1; END",
    "CREATE TRIGGER identity_changed AFTER UPDATE OF enrolled_generation, locked_at_ms ON identities
        BEGIN UPDATE watched SET changes = changes + 1; END",
];

/// What each version after the first one added; parts keep their tables themselves.
const STEPS: &[&[&[&str]]] = &[&[ADDITIONS], &[audit::TABLES, people::TABLES, deliveries::TABLES]];

/// Whose control plane it is.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) trust_domain: String,
    pub(crate) tenant: String,
}

/// Opens the database of a directory.
pub fn open_database(directory: &Directory) -> Result<Database, ControlError> {
    let mut database = connect(directory, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.pragma_update(None, "foreign_keys", true)?;
    migrate(&mut database)?;
    audit::ensure_key(directory, &database)?;
    Ok(database)
}

/// Opens it once more, to read only: readers do not wait for whoever writes.
pub(crate) fn open_reader(directory: &Directory) -> Result<Database, ControlError> {
    connect(directory, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn connect(directory: &Directory, access: OpenFlags) -> Result<Database, ControlError> {
    let path = directory.path(directory::DATABASE);
    let database = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    database.busy_timeout(BUSY_TIMEOUT)?;
    Ok(database)
}

/// Brings a database of an earlier version to ours; one of a later version is refused.
pub(crate) fn migrate(database: &mut Database) -> Result<(), ControlError> {
    if (1..SCHEMA_VERSION).contains(&version(database)?) {
        let transaction = begin(database)?;
        // Another process may have been faster.
        let found = version(&transaction)?;
        if (1..SCHEMA_VERSION).contains(&found) {
            add(&transaction, found)?;
        }
        transaction.commit()?;
    }
    match version(database)? {
        SCHEMA_VERSION => Ok(()),
        found => Err(ControlError::Schema { found, known: SCHEMA_VERSION }),
    }
}

fn version(database: &Connection) -> rusqlite::Result<i64> {
    database.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// From a version that was found to the present one.
fn add(database: &Connection, found: i64) -> rusqlite::Result<()> {
    let missing = STEPS.iter().skip(found.unsigned_abs() as usize - 1).copied().flatten().copied().flatten();
    missing.copied().try_for_each(|statement| database.execute(statement, ()).map(|_| ()))?;
    database.pragma_update(None, "user_version", SCHEMA_VERSION)
}

/// Copies the database as it is at one moment into a new file, while the server runs.
pub fn back_up(database: &Database, out: &Path) -> Result<(), ControlError> {
    directory::create(out, "", PRIVATE_MODE)?;
    let transaction = Transaction::new_unchecked(database, TransactionBehavior::Immediate)?;
    audit::append_command(&transaction, ("", "database.back-up", "database"))?;
    transaction.commit()?;
    Ok(database.backup(MAIN_DB, out, None::<fn(Progress)>)?)
}

/// Makes the database of a new directory.
pub(crate) fn create_database(directory: &Directory, owner: &Owner) -> Result<(), ControlError> {
    directory.create(directory::DATABASE, "", PRIVATE_MODE)?;
    let mut database = Connection::open(directory.path(directory::DATABASE))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.execute_batch(SCHEMA)?;
    let sql = "INSERT INTO settings (only, trust_domain, tenant) VALUES (1, ?1, ?2)";
    database.execute(sql, (&owner.trust_domain, &owner.tenant))?;
    add(&database, 1)?;
    let transaction = begin(&mut database)?;
    audit::append_command(&transaction, ("", "control-plane.create", ""))?;
    transaction.commit()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_database_gets_what_is_missing() {
        let files = tempfile::tempdir().unwrap();
        let state = files.path().join("state");
        let directory = crate::initialize(&state, "acme.example", "acme", 1_000_000).unwrap();
        let tables = "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema ORDER BY name)";
        let read =
            |database: &Database| -> String { database.query_row(tables, (), |row| row.get(0)).unwrap() };
        let new = read(&open_database(&directory).unwrap());

        std::fs::remove_file(directory.path(directory::DATABASE)).unwrap();
        let old = Connection::open(directory.path(directory::DATABASE)).unwrap();
        old.execute_batch(SCHEMA).unwrap();
        old.execute("INSERT INTO settings VALUES (1, 'acme.example', 'acme')", ()).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        let migrated = open_database(&directory).unwrap();
        assert_eq!(read(&migrated), new);
        let tenant: String = migrated.query_row("SELECT name FROM tenants", (), |row| row.get(0)).unwrap();
        assert_eq!(tenant, "acme");
    }
}
