//! Tables of people: their roles, and how they sign in.

/// What is kept of people.
pub(crate) const TABLES: &[&str] = &[
    // A role is one in a tenant; whoever had one before had it in all of them.
    "CREATE TABLE roles (
        person TEXT NOT NULL REFERENCES people ON DELETE CASCADE,
        tenant TEXT NOT NULL REFERENCES tenants,
        role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'editor', 'viewer')),
        source TEXT NOT NULL CHECK (source IN ('here', 'groups')),
        PRIMARY KEY (person, tenant)
    ) STRICT",
    "INSERT INTO roles SELECT people.name, tenants.name, people.role, 'here' FROM people, tenants",
    "CREATE INDEX roles_by_tenant ON roles (tenant, role)",
    "ALTER TABLE people DROP COLUMN role",
    "ALTER TABLE people ADD COLUMN display TEXT NOT NULL DEFAULT ''",
    "CREATE TABLE billing (
        tenant TEXT PRIMARY KEY REFERENCES tenants,
        plan TEXT NOT NULL,
        contact TEXT NOT NULL
    ) STRICT",
    // How somebody signs in here: a password's hash, and that from which the key of one-time codes is derived.
    "CREATE TABLE accounts (
        person TEXT PRIMARY KEY REFERENCES people ON DELETE CASCADE,
        password TEXT NOT NULL,
        code_salt BLOB NOT NULL,
        code_step INTEGER NOT NULL
    ) STRICT",
    // Of links, sessions and tokens only hashes are kept: whoever reads the database can use none of them.
    "CREATE TABLE sign_in_links (
        hash BLOB PRIMARY KEY,
        person TEXT NOT NULL UNIQUE REFERENCES people ON DELETE CASCADE,
        code_salt BLOB NOT NULL,
        expires_ms INTEGER NOT NULL
    ) STRICT",
    "CREATE TABLE sessions (
        hash BLOB PRIMARY KEY,
        person TEXT NOT NULL REFERENCES people ON DELETE CASCADE,
        actor TEXT NOT NULL,
        made_ms INTEGER NOT NULL,
        used_ms INTEGER NOT NULL
    ) STRICT",
    "CREATE INDEX sessions_by_person ON sessions (person, used_ms)",
    "CREATE TABLE tokens (
        hash BLOB PRIMARY KEY,
        person TEXT NOT NULL REFERENCES people ON DELETE CASCADE,
        actor TEXT NOT NULL,
        expires_ms INTEGER NOT NULL
    ) STRICT",
    "CREATE INDEX tokens_by_person ON tokens (person)",
    // Whom a provider of identities knows: never by their e-mail.
    "CREATE TABLE provider_identities (
        issuer TEXT NOT NULL,
        subject TEXT NOT NULL,
        person TEXT NOT NULL REFERENCES people ON DELETE CASCADE,
        PRIMARY KEY (issuer, subject)
    ) STRICT",
    "CREATE UNIQUE INDEX provider_identities_by_person ON provider_identities (person)",
];
