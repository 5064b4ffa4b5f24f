//! People: who may use the control plane, as what in which tenant, and how they are known.
//!
//! A person is known by the X.509-SVID of `spiffe://TRUST-DOMAIN/people/NAME` that was made for them here, by a session of a
//! browser, or by a token of at most an hour; there is no API key. Whether they may go on, and their role, is asked with each
//! request. The last owner of a tenant stays.

mod caller;
mod certificate;
mod role;
mod roles;
mod tables;

use rusqlite::{Connection, OptionalExtension as _};
use zen_control_api::is_name;
use zen_identity::SpiffeId;

pub use self::certificate::{PERSON_LIFE_MS, certify_person};
pub use self::role::Role;

pub(crate) use self::caller::{
    Caller, Person, SESSION_IDLE_MS, SESSION_LIFE_MS, SessionId, TokenId, find, is_denied,
};
pub(crate) use self::roles::{Member, Source, end_sessions, members, role_in, roles_of, set, with_source};
pub(crate) use self::tables::TABLES;

use crate::database::{begin, integer, owner};
use crate::{ControlError, Database, audit, store};

/// The first segment of people's SPIFFE ids; no member may have it.
pub(crate) const PEOPLE: &str = "people";
/// Most people.
pub(crate) const PEOPLE_MAX: i64 = 1_000;

/// Somebody's role in a tenant, as commands print it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleOfPerson {
    /// Who.
    pub name: String,
    /// Where; empty for somebody who has no role.
    pub tenant: String,
    /// As what.
    pub role: Option<Role>,
}

/// Lets somebody use the API, in the first tenant if no other is said.
pub fn add_person(
    database: &mut Database,
    name: &str,
    (tenant, role): (Option<&str>, Role),
    now_ms: u64,
) -> Result<(), ControlError> {
    let transaction = begin(database)?;
    if !make(&transaction, name, "", now_ms)? {
        return Err(ControlError::Argument("there is a person of this name; see: zen-control person list"));
    }
    let tenant = tenant_or_first(&transaction, tenant)?;
    set(&transaction, (name, &tenant), Some(role), Source::Here)?;
    let target = format!("tenants/{tenant}/people/{name}");
    audit::append_command(&transaction, (&tenant, "people.put", &target))?;
    Ok(transaction.commit()?)
}

/// Gives somebody another role in a tenant, or takes it.
pub fn set_person_role(
    database: &mut Database,
    name: &str,
    (tenant, role): (Option<&str>, Option<Role>),
) -> Result<(), ControlError> {
    let transaction = begin(database)?;
    check(&transaction, name)?;
    let tenant = tenant_or_first(&transaction, tenant)?;
    set(&transaction, (name, &tenant), role, Source::Here)?;
    let (action, target) = (
        if role.is_some() { "people.put" } else { "people.delete" },
        format!("tenants/{tenant}/people/{name}"),
    );
    audit::append_command(&transaction, (&tenant, action, &target))?;
    Ok(transaction.commit()?)
}

/// Lets somebody use the API no more, from their next request on. Their certificates are nobody's, even if they come back.
pub fn remove_person(database: &mut Database, name: &str) -> Result<(), ControlError> {
    let transaction = begin(database)?;
    check(&transaction, name)?;
    for (tenant, _) in roles_of(&transaction, name)? {
        set(&transaction, (name, &tenant), None, Source::Here)?;
    }
    transaction.execute("DELETE FROM people WHERE name = ?1", (name,))?;
    audit::append_command(&transaction, ("", "people.delete", &format!("people/{name}")))?;
    Ok(transaction.commit()?)
}

/// Everybody, by name and tenant.
pub fn list_people(database: &Database) -> Result<Vec<RoleOfPerson>, ControlError> {
    let sql =
        "SELECT p.name, coalesce(r.tenant, ''), r.role FROM people p LEFT JOIN roles r ON r.person = p.name
        ORDER BY p.name, r.tenant";
    let mut statement = database.prepare(sql)?;
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let rows: Vec<(String, String, Option<String>)> = rows.collect::<Result<_, _>>()?;
    let role = |(name, tenant, role): (String, String, Option<String>)| {
        Ok(RoleOfPerson { name, tenant, role: role.map(|role| role.parse()).transpose()? })
    };
    rows.into_iter().map(role).collect()
}

/// A new person, who has no role yet; false if there is one of this name.
pub(crate) fn make(
    transaction: &Connection,
    name: &str,
    display: &str,
    now_ms: u64,
) -> Result<bool, ControlError> {
    if !is_name(name) {
        return Err(ControlError::Argument("a person's name is letters, digits, dots, dashes, underscores"));
    }
    let count: i64 = transaction.query_row("SELECT count(*) FROM people", (), |row| row.get(0))?;
    if count >= PEOPLE_MAX && !exists(transaction, name)? {
        return Err(ControlError::Argument("there are 1000 people; remove some"));
    }
    let sql = "INSERT INTO people (name, display, created_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    Ok(transaction.execute(sql, (name, display, integer(now_ms)))? == 1)
}

/// Whether there is somebody of this name.
pub(crate) fn exists(database: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM people WHERE name = ?1";
    Ok(database.query_row(sql, (name,), |_| Ok(())).optional()?.is_some())
}

/// Takes somebody's role in a tenant; who has none anywhere is signed in nowhere, and their certificates are nobody's.
pub(crate) fn leave(transaction: &Connection, person: &str, tenant: &str) -> Result<(), ControlError> {
    set(transaction, (person, tenant), None, Source::Here)?;
    if roles_of(transaction, person)?.is_empty() {
        end_sessions(transaction, person)?;
        transaction.execute("DELETE FROM person_certificates WHERE person = ?1", (person,))?;
        transaction.execute("DELETE FROM sign_in_links WHERE person = ?1", (person,))?;
    }
    Ok(())
}

fn check(database: &Connection, name: &str) -> Result<(), ControlError> {
    if exists(database, name)? {
        return Ok(());
    }
    Err(ControlError::Argument("there is nobody of this name; see: zen-control person list"))
}

fn tenant_or_first(database: &Connection, tenant: Option<&str>) -> Result<String, ControlError> {
    match tenant {
        None => Ok(owner(database)?.tenant),
        Some(tenant) if store::has_tenant(database, tenant)? => Ok(tenant.to_owned()),
        Some(_) => Err(ControlError::Argument("there is no such tenant; an owner of the first one makes it")),
    }
}

/// The name in a person's id.
fn name_of(id: &SpiffeId) -> Option<&str> {
    let mut segments = id.segments();
    match (segments.next(), segments.next(), segments.next()) {
        (Some(PEOPLE), Some(name), None) => Some(name),
        _ => None,
    }
}
