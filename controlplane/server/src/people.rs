//! People: who may use the API, as what, and the certificates that show who they are.
//!
//! A person is known by the X.509-SVID of `spiffe://TRUST-DOMAIN/people/NAME` that was made for them here: there is no password
//! and no API key. Whether they may go on is asked with each request. The last owner stays.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::str::FromStr;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rusqlite::{Connection, OptionalExtension as _};
use zen_control_api::is_name;
use zen_identity::SpiffeId;
use zeroize::Zeroizing;

use crate::database::{begin, integer, owner};
use crate::directory::{self, Directory, PRIVATE_MODE};
use crate::{Authority, ControlError, Database, Refusal, SessionKey, deny};

/// The first segment of people's SPIFFE ids; no member may have it.
pub(crate) const PEOPLE: &str = "people";
/// How long a person's certificate lives, ms.
pub const PERSON_LIFE_MS: u64 = 12 * 3600 * 1000;
/// Most people.
pub(crate) const PEOPLE_MAX: i64 = 1_000;

/// What a person may do, roughly; the table of permissions says it exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Owner,
    /// Everything but tenants.
    Admin,
    /// Objects and configurations.
    Editor,
    /// To look.
    Viewer,
}

/// Somebody who may use the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Who.
    pub name: String,
    /// As what.
    pub role: Role,
}

impl Role {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Editor => "editor",
            Self::Viewer => "viewer",
        }
    }
}

impl FromStr for Role {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        let roles = [Self::Owner, Self::Admin, Self::Editor, Self::Viewer];
        let found = roles.into_iter().find(|role| role.name() == text);
        found.ok_or(ControlError::Argument("a role is owner, admin, editor or viewer"))
    }
}

/// Lets somebody use the API.
pub fn add_person(database: &mut Database, name: &str, role: Role, now_ms: u64) -> Result<(), ControlError> {
    if !is_name(name) {
        return Err(ControlError::Argument("a person's name is letters, digits, dots, dashes, underscores"));
    }
    let transaction = begin(database)?;
    let count: i64 = transaction.query_row("SELECT count(*) FROM people", (), |row| row.get(0))?;
    if count >= PEOPLE_MAX {
        return Err(ControlError::Argument("there are 1000 people; remove some"));
    }
    let sql = "INSERT INTO people (name, role, created_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    if transaction.execute(sql, (name, role.name(), integer(now_ms)))? == 0 {
        return Err(ControlError::Argument("there is a person of this name; see: zen-control person list"));
    }
    Ok(transaction.commit()?)
}

/// Lets somebody use the API no more, from their next request on. Their certificates are nobody's, even if they come back.
pub fn remove_person(database: &mut Database, name: &str) -> Result<(), ControlError> {
    let transaction = begin(database)?;
    let sql = "DELETE FROM people WHERE name = ?1 RETURNING role";
    let role: Option<String> = transaction.query_row(sql, (name,), |row| row.get(0)).optional()?;
    let Some(role) = role else {
        return Err(ControlError::Argument("there is nobody of this name; see: zen-control person list"));
    };
    let sql = "SELECT EXISTS (SELECT 1 FROM people WHERE role = ?1)";
    if role == Role::Owner.name() && !transaction.query_row(sql, (&role,), |row| row.get(0))? {
        return Err(ControlError::Argument("the last owner stays; add another one first"));
    }
    Ok(transaction.commit()?)
}

/// Everybody, by name.
pub fn list_people(database: &Database) -> Result<Vec<Person>, ControlError> {
    let mut statement = database.prepare("SELECT name, role FROM people ORDER BY name")?;
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>()?;
    rows.into_iter().map(|(name, role)| Ok(Person { name, role: role.parse()? })).collect()
}

/// Makes a key and a certificate for somebody: `key.pem`, `certificate.pem` and `root.pem`, mode 0600, in a new directory.
pub fn certify_person(
    directory: &Directory,
    database: &mut Database,
    name: &str,
    out: &Path,
    now_ms: u64,
) -> Result<(), ControlError> {
    let trust_domain = owner(database)?.trust_domain;
    let authority = Authority::load(directory)?;
    let transaction = begin(database)?;
    let sql = "SELECT 1 FROM people WHERE name = ?1";
    if transaction.query_row(sql, (name,), |_| Ok(())).optional()?.is_none() {
        return Err(ControlError::Argument("there is nobody of this name; run: zen-control person add"));
    }
    let id = format!("spiffe://{trust_domain}/{PEOPLE}/{name}");
    let id = SpiffeId::parse(&id).map_err(|source| ControlError::Id { id, source })?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let issued = authority.issue_for(&id, &key, PERSON_LIFE_MS, now_ms).map_err(not_issued)?;
    transaction.execute("DELETE FROM person_certificates WHERE not_after_ms <= ?1", (integer(now_ms),))?;
    let sql = "INSERT INTO person_certificates (serial, person, not_after_ms) VALUES (?1, ?2, ?3)";
    transaction.execute(sql, (issued.serial, name, integer(issued.not_after_ms)))?;
    DirBuilder::new().mode(0o700).create(out).map_err(ControlError::file(out))?;
    let key = Zeroizing::new(key.serialize_pem());
    directory::create(&out.join("key.pem"), &key, PRIVATE_MODE)?;
    directory::create(&out.join("certificate.pem"), &issued.chain, PRIVATE_MODE)?;
    directory::create(&out.join("root.pem"), authority.trust_bundle(), PRIVATE_MODE)?;
    Ok(transaction.commit()?)
}

/// Who made a connection, if they may still speak.
pub(crate) fn person(database: &Connection, key: &SessionKey, now_ms: u64) -> Result<Person, Refusal> {
    if deny::is_denied(database, &key.id, &[key.key], Some(&key.serial), now_ms)? {
        return Err(Refusal::Denied);
    }
    let name = name_of(&key.id).ok_or(Refusal::Client("people"))?;
    let sql = "SELECT role FROM people p JOIN person_certificates c ON c.person = p.name
        WHERE p.name = ?1 AND c.serial = ?2 AND c.not_after_ms > ?3";
    let role = database.query_row(sql, (name, &key.serial, integer(now_ms)), |row| row.get(0)).optional()?;
    let role: String = role.ok_or(Refusal::Client("people whom an owner has added"))?;
    let role = role.parse().map_err(|_| Refusal::Client("people who have a role"))?;
    Ok(Person { name: name.to_owned(), role })
}

/// The name in a person's id.
fn name_of(id: &SpiffeId) -> Option<&str> {
    let mut segments = id.segments();
    match (segments.next(), segments.next(), segments.next()) {
        (Some(PEOPLE), Some(name), None) => Some(name),
        _ => None,
    }
}

fn not_issued(refusal: Refusal) -> ControlError {
    match refusal {
        Refusal::Issue(error) => ControlError::Issue(error),
        _ => ControlError::AuthorityOver,
    }
}
