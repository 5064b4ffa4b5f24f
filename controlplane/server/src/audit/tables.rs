//! The tables of the log. Columns beside an entry's bytes are computed from them, so that they cannot say anything else.

/// What a database of version 2 has not. The triggers catch mistakes; whoever has the file can drop them.
pub(crate) const TABLES: &[&str] = &[
    "CREATE TABLE audit_entries (
        sequence INTEGER PRIMARY KEY,
        bytes BLOB NOT NULL,
        tenant TEXT NOT NULL GENERATED ALWAYS AS (CAST(bytes AS TEXT) ->> '$.tenant') STORED,
        actor TEXT NOT NULL GENERATED ALWAYS AS (CAST(bytes AS TEXT) ->> '$.actor') STORED,
        action TEXT NOT NULL GENERATED ALWAYS AS (CAST(bytes AS TEXT) ->> '$.action') STORED,
        outcome TEXT NOT NULL GENERATED ALWAYS AS (CAST(bytes AS TEXT) ->> '$.outcome') STORED,
        time_ms INTEGER NOT NULL GENERATED ALWAYS AS (CAST(bytes AS TEXT) ->> '$.time_ms') STORED
    ) STRICT",
    "CREATE INDEX audit_entries_by_tenant ON audit_entries (tenant, sequence)",
    "CREATE INDEX audit_refusals ON audit_entries (time_ms, actor) WHERE outcome = 'refused'",
    "CREATE TABLE audit_nodes (
        level INTEGER NOT NULL,
        idx INTEGER NOT NULL,
        hash BLOB NOT NULL,
        PRIMARY KEY (level, idx)
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE audit_checkpoints (
        size INTEGER PRIMARY KEY,
        made_ms INTEGER NOT NULL,
        note TEXT NOT NULL
    ) STRICT",
    "CREATE TABLE audit_witnesses (
        cluster TEXT NOT NULL,
        key TEXT NOT NULL,
        since_ms INTEGER NOT NULL,
        until_ms INTEGER,
        PRIMARY KEY (cluster, key)
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE audit_cosignatures (
        size INTEGER NOT NULL,
        witness TEXT NOT NULL,
        line TEXT NOT NULL,
        PRIMARY KEY (size, witness)
    ) STRICT, WITHOUT ROWID",
    "CREATE TRIGGER audit_entry_stays_as_it_is BEFORE UPDATE ON audit_entries
        BEGIN SELECT RAISE(ABORT, 'entries of the audit log are never changed'); END",
    "CREATE TRIGGER audit_entry_stays BEFORE DELETE ON audit_entries
        BEGIN SELECT RAISE(ABORT, 'entries of the audit log are never deleted'); END",
    "CREATE TRIGGER audit_node_stays_as_it_is BEFORE UPDATE ON audit_nodes
        BEGIN SELECT RAISE(ABORT, 'hashes of the audit log are never changed'); END",
    NODE_STAYS,
];

/// It is away for the moment in which the loss of entries is accepted.
pub(super) const NODE_STAYS: &str = "CREATE TRIGGER audit_node_stays BEFORE DELETE ON audit_nodes
        BEGIN SELECT RAISE(ABORT, 'hashes of the audit log are never deleted'); END";
