//! Who calls: by a certificate over mutual TLS, in a session of a browser, or with a token that is good for an hour.
//!
//! Enters: what a listener found a connection or a request to have. Leaves: a person, known by name, and how the log calls them.
//! Refused: whoever is nobody by now, is denied, or whose session or token is over. What they may do is asked elsewhere.

use rusqlite::{Connection, OptionalExtension as _};
use zen_identity::SpiffeId;

use super::{PEOPLE, name_of};
use crate::database::integer;
use crate::{Refusal, SessionKey, deny};

/// How long a session may be idle, ms.
pub(crate) const SESSION_IDLE_MS: u64 = 30 * 60 * 1000;
/// How long a session lasts at most, ms.
pub(crate) const SESSION_LIFE_MS: u64 = 12 * 3600 * 1000;

/// SHA-256 of what a browser's cookie holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(pub(crate) [u8; 32]);

/// SHA-256 of a bearer token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenId(pub(crate) [u8; 32]);

/// By what somebody is known.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// The certificate that a connection was made with.
    Certificate(SessionKey),
    /// A session of a browser.
    Session(SessionId),
    /// A token.
    Token(TokenId),
}

/// Somebody who may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    /// Who.
    pub(crate) name: String,
    /// As the log of acts has them: a SPIFFE id, `issuer|subject`, or `person:NAME`.
    pub(crate) actor: String,
}

impl Caller {
    /// One caller's, for what is kept apart by caller before it is known who it is.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Certificate(key) => key.id.as_str().to_owned(),
            Self::Session(SessionId(hash)) | Self::Token(TokenId(hash)) => deny::hex(hash),
        }
    }
}

/// Who calls, if they may still speak.
pub(crate) fn find(
    database: &Connection,
    trust_domain: &str,
    caller: &Caller,
    now_ms: u64,
) -> Result<Person, Refusal> {
    let hash = match caller {
        Caller::Certificate(key) => return with_certificate(database, key, now_ms),
        Caller::Session(SessionId(hash)) | Caller::Token(TokenId(hash)) => hash,
    };
    let now = integer(now_ms);
    let found = if let Caller::Session(_) = caller {
        let sql = "SELECT person, actor FROM sessions WHERE hash = ?1 AND used_ms > ?2 AND made_ms > ?3";
        let times = (hash, now - integer(SESSION_IDLE_MS), now - integer(SESSION_LIFE_MS));
        database.prepare_cached(sql)?.query_row(times, |row| Ok((row.get(0)?, row.get(1)?))).optional()?
    } else {
        let sql = "SELECT person, actor FROM tokens WHERE hash = ?1 AND expires_ms > ?2";
        database
            .prepare_cached(sql)?
            .query_row((hash, now), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?
    };
    let (name, actor): (String, String) = found.ok_or(Refusal::Client("people who are signed in"))?;
    if is_denied(database, trust_domain, &name, now_ms)? {
        return Err(Refusal::Denied);
    }
    Ok(Person { name, actor })
}

/// Whether somebody is denied by the id that their certificates have.
pub(crate) fn is_denied(
    database: &Connection,
    trust_domain: &str,
    name: &str,
    now_ms: u64,
) -> Result<bool, Refusal> {
    let id = SpiffeId::parse(&format!("spiffe://{trust_domain}/{PEOPLE}/{name}"));
    let id = id.map_err(|_| Refusal::Kept(format!("a person is called {name}")))?;
    Ok(deny::is_denied(database, &id, &[], None, now_ms)?)
}

fn with_certificate(database: &Connection, key: &SessionKey, now_ms: u64) -> Result<Person, Refusal> {
    if deny::is_denied(database, &key.id, &[key.key], Some(&key.serial), now_ms)? {
        return Err(Refusal::Denied);
    }
    let name = name_of(&key.id).ok_or(Refusal::Client("people"))?;
    let sql = "SELECT EXISTS (SELECT 1 FROM person_certificates WHERE person = ?1 AND serial = ?2 AND not_after_ms > ?3)";
    if !database.query_row(sql, (name, &key.serial, integer(now_ms)), |row| row.get(0))? {
        return Err(Refusal::Client("people whom an owner has added"));
    }
    Ok(Person { name: name.to_owned(), actor: key.id.as_str().to_owned() })
}
