//! What people asked for, as rows: tenants, and their objects by kind and name.
//!
//! An object's revision is the number of its last change among all changes, so that none comes twice, not even for an object
//! that was deleted and made again. Texts are canonical JSON of checked objects.

use rusqlite::{Connection, OptionalExtension as _};
use serde::de::DeserializeOwned;

use crate::database::integer;
use crate::directory;
use crate::objects::{
    Cluster, Credential, DeliveryFlow, Destination, Endpoint, Member, Object, Policy, TenantObjects,
};
use crate::{ControlError, database};

/// Most objects of one kind in a tenant.
pub(crate) const OBJECTS_MAX: i64 = 10_000;
/// Most tenants.
pub(crate) const TENANTS_MAX: i64 = 1_000;

/// Where an object is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) kind: &'static str,
    pub(crate) name: &'a str,
}

/// An object as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) revision: i64,
    pub(crate) text: String,
}

/// Why an object is not kept.
#[derive(Debug)]
pub(crate) enum NotKept {
    /// There are [`OBJECTS_MAX`].
    Full,
    /// Another tenant has a cluster of this name: agents' ids have no tenant in them.
    Elsewhere,
    /// The database failed.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for NotKept {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Whether there is such a tenant.
pub(crate) fn has_tenant(database: &Connection, name: &str) -> rusqlite::Result<bool> {
    database.query_row("SELECT EXISTS (SELECT 1 FROM tenants WHERE name = ?1)", (name,), |row| row.get(0))
}

/// At most `count` tenants in which somebody has a role, by name, after this one.
pub(crate) fn tenants_of(
    database: &Connection,
    person: &str,
    after: &str,
    count: usize,
) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT tenant FROM roles WHERE person = ?1 AND tenant > ?2 ORDER BY tenant LIMIT ?3";
    database.prepare(sql)?.query_map((person, after, count_of(count)), |row| row.get(0))?.collect()
}

/// A new tenant; false if there is one of this name.
pub(crate) fn add_tenant(database: &Connection, name: &str) -> Result<bool, NotKept> {
    let count: i64 = database.query_row("SELECT count(*) FROM tenants", (), |row| row.get(0))?;
    if count >= TENANTS_MAX {
        return Err(NotKept::Full);
    }
    Ok(database.execute("INSERT INTO tenants (name) VALUES (?1) ON CONFLICT DO NOTHING", (name,))? == 1)
}

/// Whose cluster it is. One that was made by a command is the first tenant's.
pub(crate) fn tenant_of(database: &Connection, cluster: &str) -> rusqlite::Result<String> {
    let sql = "SELECT tenant FROM objects WHERE kind = ?1 AND name = ?2";
    let found = database.query_row(sql, (Cluster::KIND, cluster), |row| row.get(0)).optional()?;
    match found {
        Some(tenant) => Ok(tenant),
        None => Ok(database::owner(database)?.tenant),
    }
}

/// The object at a place.
pub(crate) fn find(database: &Connection, place: Place<'_>) -> rusqlite::Result<Option<Row>> {
    let sql = "SELECT name, revision, text FROM objects WHERE tenant = ?1 AND kind = ?2 AND name = ?3";
    database.prepare_cached(sql)?.query_row((place.tenant, place.kind, place.name), row).optional()
}

/// At most `count` objects, by name, after this one.
pub(crate) fn list(
    database: &Connection,
    (tenant, kind): (&str, &str),
    after: &str,
    count: usize,
) -> rusqlite::Result<Vec<Row>> {
    let sql = "SELECT name, revision, text FROM objects WHERE tenant = ?1 AND kind = ?2 AND name > ?3
        ORDER BY name LIMIT ?4";
    database.prepare_cached(sql)?.query_map((tenant, kind, after, count_of(count)), row)?.collect()
}

/// Keeps an object in place of the one before; says its revision. The same text again changes nothing.
pub(crate) fn put(
    database: &Connection,
    place: Place<'_>,
    before: Option<&Row>,
    text: &str,
) -> Result<i64, NotKept> {
    match before {
        Some(before) if before.text == text => return Ok(before.revision),
        Some(_) => {}
        None => check_room(database, place)?,
    }
    let revision = next_revision(database)?;
    let sql = "INSERT INTO objects (tenant, kind, name, revision, text) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (tenant, kind, name) DO UPDATE SET revision = excluded.revision, text = excluded.text";
    database.execute(sql, (place.tenant, place.kind, place.name, revision, text))?;
    Ok(revision)
}

/// Deletes the object at a place, if there is one.
pub(crate) fn delete(database: &Connection, place: Place<'_>) -> rusqlite::Result<()> {
    let sql = "DELETE FROM objects WHERE tenant = ?1 AND kind = ?2 AND name = ?3";
    database.execute(sql, (place.tenant, place.kind, place.name)).map(|_| ())
}

/// All objects of a tenant as they are at one moment.
pub(crate) fn snapshot(database: &Connection, tenant: &str) -> Result<TenantObjects, ControlError> {
    let mut objects = TenantObjects { tenant: tenant.to_owned(), ..TenantObjects::default() };
    let sql = "SELECT kind, name, text FROM objects WHERE tenant = ?1";
    let mut statement = database.prepare(sql)?;
    let mut rows = statement.query((tenant,))?;
    while let Some(row) = rows.next()? {
        let (kind, name, text): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        match kind.as_str() {
            Cluster::KIND => objects.clusters.insert(name, read(&text)?).map(drop),
            Member::KIND => objects.members.insert(name, read(&text)?).map(drop),
            Endpoint::KIND => objects.endpoints.insert(name, read(&text)?).map(drop),
            Destination::KIND => objects.destinations.insert(name, read(&text)?).map(drop),
            DeliveryFlow::KIND => objects.delivery_flows.insert(name, read(&text)?).map(drop),
            Policy::KIND => objects.policies.insert(name, read(&text)?).map(drop),
            Credential::KIND => objects.credentials.insert(name, read(&text)?).map(drop),
            _ => None,
        };
    }
    Ok(objects)
}

/// A text of ours.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, ControlError> {
    serde_json::from_str(text)
        .map_err(|source| ControlError::Json { path: directory::DATABASE.into(), source })
}

fn check_room(database: &Connection, place: Place<'_>) -> Result<(), NotKept> {
    let sql = "SELECT count(*) FROM objects WHERE tenant = ?1 AND kind = ?2";
    let count: i64 = database.query_row(sql, (place.tenant, place.kind), |row| row.get(0))?;
    if count >= OBJECTS_MAX {
        return Err(NotKept::Full);
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM objects WHERE kind = ?1 AND name = ?2)";
    let is_cluster = place.kind == Cluster::KIND;
    if is_cluster && database.query_row(sql, (place.kind, place.name), |row| row.get(0))? {
        return Err(NotKept::Elsewhere);
    }
    Ok(())
}

fn next_revision(database: &Connection) -> rusqlite::Result<i64> {
    database.query_row("UPDATE revisions SET last = last + 1 RETURNING last", (), |row| row.get(0))
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row { name: row.get(0)?, revision: row.get(1)?, text: row.get(2)? })
}

fn count_of(count: usize) -> i64 {
    integer(count as u64)
}
