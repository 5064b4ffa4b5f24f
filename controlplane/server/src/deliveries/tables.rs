//! The tables of what nodes did.

/// For a database that has none of them.
pub(crate) const TABLES: &[&str] = &[
    // Who writes receipts, and how far they have come; the member's name is empty for the vault of the agent's host.
    "CREATE TABLE receipt_writers (
        cluster TEXT NOT NULL,
        member TEXT NOT NULL,
        key TEXT NOT NULL,
        since_ms INTEGER NOT NULL,
        until_ms INTEGER,
        digest TEXT,
        delivered INTEGER,
        fault TEXT,
        PRIMARY KEY (cluster, member, key)
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE deliveries (
        tenant TEXT NOT NULL,
        number INTEGER NOT NULL,
        cluster TEXT NOT NULL,
        member TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        event TEXT,
        endpoint TEXT,
        target TEXT NOT NULL,
        verdict TEXT NOT NULL,
        reason TEXT,
        status INTEGER,
        attempts INTEGER NOT NULL,
        body_hmac TEXT,
        received_ms INTEGER NOT NULL,
        PRIMARY KEY (tenant, number)
    ) STRICT, WITHOUT ROWID",
    "CREATE INDEX deliveries_by_age ON deliveries (received_ms)",
    "CREATE INDEX deliveries_by_event ON deliveries (tenant, event)",
    "CREATE TABLE dead_letters (
        tenant TEXT NOT NULL,
        cluster TEXT NOT NULL,
        member TEXT NOT NULL,
        id TEXT NOT NULL,
        event TEXT,
        target TEXT NOT NULL,
        reason TEXT,
        status INTEGER,
        attempts INTEGER NOT NULL,
        died_at_ms INTEGER NOT NULL,
        PRIMARY KEY (cluster, member, id)
    ) STRICT, WITHOUT ROWID",
    "CREATE INDEX dead_letters_by_time ON dead_letters (tenant, died_at_ms, cluster, member, id)",
    "CREATE TABLE orders (
        number INTEGER PRIMARY KEY,
        tenant TEXT NOT NULL,
        cluster TEXT NOT NULL,
        member TEXT NOT NULL,
        letters INTEGER NOT NULL,
        ordered_by TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        text TEXT NOT NULL,
        signature TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('open', 'sent', 'done', 'failed', 'unknown')),
        done INTEGER,
        skipped INTEGER,
        reason TEXT,
        ended_ms INTEGER
    ) STRICT",
    "CREATE INDEX orders_by_tenant ON orders (tenant, number)",
    "CREATE INDEX orders_by_cluster ON orders (cluster, state, number)",
    // An agent that waits is told at once.
    "CREATE TRIGGER order_made AFTER INSERT ON orders
        BEGIN UPDATE watched SET changes = changes + 1; END",
    "CREATE TRIGGER order_handed_out AFTER UPDATE OF state ON orders
        BEGIN UPDATE watched SET changes = changes + 1; END",
    // What agents say as witnesses that the audit log is not what it was.
    "CREATE TABLE witness_alarms (
        cluster TEXT PRIMARY KEY,
        reason TEXT NOT NULL,
        since_ms INTEGER NOT NULL
    ) STRICT",
];
