//! Who is what in which tenant. Each change goes through [`set`], which keeps a tenant's last owner.

use rusqlite::{Connection, OptionalExtension as _};

use super::Role;
use crate::ControlError;
use crate::database::integer;

/// Where a role comes from: what people said here stays, what a provider's groups said is read at each sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Here,
    Groups,
}

/// Somebody in a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// As a provider calls them; empty for whom none knows.
    pub(crate) display: String,
    pub(crate) role: Role,
    pub(crate) source: Source,
}

impl Source {
    /// As it is kept.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Groups => "groups",
        }
    }

    fn named(name: &str) -> Self {
        if name == Self::Groups.name() { Self::Groups } else { Self::Here }
    }
}

/// Somebody's role in a tenant.
pub(crate) fn role_in(
    database: &Connection,
    person: &str,
    tenant: &str,
) -> Result<Option<Role>, ControlError> {
    let sql = "SELECT role FROM roles WHERE person = ?1 AND tenant = ?2";
    let found = database.prepare_cached(sql)?.query_row((person, tenant), |row| row.get::<_, String>(0));
    found.optional()?.map(|role| role.parse()).transpose()
}

/// All roles of somebody, by tenant.
pub(crate) fn roles_of(database: &Connection, person: &str) -> Result<Vec<(String, Role)>, ControlError> {
    let sql = "SELECT tenant, role FROM roles WHERE person = ?1 ORDER BY tenant";
    let mut statement = database.prepare_cached(sql)?;
    let rows = statement.query_map((person,), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>()?;
    rows.into_iter().map(|(tenant, role)| Ok((tenant, role.parse()?))).collect()
}

/// All roles of somebody, and where each comes from.
pub(crate) fn with_source(
    database: &Connection,
    person: &str,
) -> Result<Vec<(String, Role, Source)>, ControlError> {
    let sql = "SELECT tenant, role, source FROM roles WHERE person = ?1 ORDER BY tenant";
    let mut statement = database.prepare_cached(sql)?;
    let rows = statement.query_map((person,), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let rows: Vec<(String, String, String)> = rows.collect::<Result<_, _>>()?;
    let role = |(tenant, role, source): (String, String, String)| {
        Ok((tenant, role.parse()?, Source::named(&source)))
    };
    rows.into_iter().map(role).collect()
}

/// At most `count` of a tenant's people, by name, after this one.
pub(crate) fn members(
    database: &Connection,
    tenant: &str,
    after: &str,
    count: usize,
) -> Result<Vec<Member>, ControlError> {
    let sql = "SELECT p.name, p.display, r.role, r.source FROM roles r JOIN people p ON p.name = r.person
        WHERE r.tenant = ?1 AND p.name > ?2 ORDER BY p.name LIMIT ?3";
    let mut statement = database.prepare_cached(sql)?;
    let rows = statement.query_map((tenant, after, integer(count as u64)), |row| {
        Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?))
    })?;
    let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
    let member = |(name, display, role, source): (String, String, String, String)| {
        Ok(Member { name, display, role: role.parse()?, source: Source::named(&source) })
    };
    rows.into_iter().map(member).collect()
}

/// Gives somebody a role in a tenant, or takes it; refused if the tenant would have no owner any more.
/// Whoever may less than before has to sign in again.
pub(crate) fn set(
    transaction: &Connection,
    (person, tenant): (&str, &str),
    role: Option<Role>,
    source: Source,
) -> Result<(), ControlError> {
    let before = role_in(transaction, person, tenant)?;
    if before == Some(Role::Owner) && role != before && owners(transaction, tenant)? == 1 {
        return Err(ControlError::LastOwner);
    }
    match role {
        Some(role) => {
            let sql = "INSERT INTO roles (person, tenant, role, source) VALUES (?1, ?2, ?3, ?4)
                ON CONFLICT DO UPDATE SET role = excluded.role, source = excluded.source";
            transaction.execute(sql, (person, tenant, role.name(), source.name()))?;
        }
        None => {
            transaction.execute("DELETE FROM roles WHERE person = ?1 AND tenant = ?2", (person, tenant))?;
        }
    }
    if role < before {
        end_sessions(transaction, person)?;
    }
    Ok(())
}

/// Ends all that somebody is signed in with.
pub(crate) fn end_sessions(transaction: &Connection, person: &str) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM sessions WHERE person = ?1", (person,))?;
    transaction.execute("DELETE FROM tokens WHERE person = ?1", (person,)).map(|_| ())
}

fn owners(database: &Connection, tenant: &str) -> rusqlite::Result<i64> {
    let sql = "SELECT count(*) FROM roles WHERE tenant = ?1 AND role = 'owner'";
    database.query_row(sql, (tenant,), |row| row.get(0))
}
