//! Accounts: who signs in with a password and one-time codes, and the one-time links with which somebody sets them.

use rusqlite::{Connection, OptionalExtension as _};
use zeroize::Zeroizing;

use super::secret;
use crate::audit::append_command;
use crate::database::{begin, integer};
use crate::{ControlError, Database, people};

/// How long a link is good, ms.
pub const LINK_LIFE_MS: u64 = 3600 * 1000;

/// How somebody signs in.
pub(super) struct Account {
    pub(super) password: String,
    pub(super) code_salt: Vec<u8>,
    pub(super) code_step: i64,
}

/// A link that is good.
pub(super) struct Link {
    pub(super) person: String,
    pub(super) code_salt: Vec<u8>,
}

/// Makes a link with which somebody sets a new password, whatever they had; its token, which is given once.
/// Whoever runs commands can get in so when nothing else works.
pub fn make_sign_in_link(
    database: &mut Database,
    person: &str,
    now_ms: u64,
) -> Result<Zeroizing<String>, ControlError> {
    let transaction = begin(database)?;
    if !people::exists(&transaction, person)? {
        return Err(ControlError::Argument("there is nobody of this name; see: zen-control person list"));
    }
    let token = make_link(&transaction, person, now_ms)?;
    append_command(&transaction, ("", "people.link", &format!("people/{person}")))?;
    transaction.commit()?;
    Ok(token)
}

/// A new link in place of the one before.
pub(crate) fn make_link(
    transaction: &Connection,
    person: &str,
    now_ms: u64,
) -> Result<Zeroizing<String>, ControlError> {
    let (text, hash) = secret::new();
    let sql = "INSERT INTO sign_in_links (hash, person, code_salt, expires_ms) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (person) DO UPDATE SET hash = excluded.hash, code_salt = excluded.code_salt,
        expires_ms = excluded.expires_ms";
    let expires_ms = integer(now_ms + LINK_LIFE_MS);
    transaction.execute(sql, (hash, person, secret::random::<16>(), expires_ms))?;
    Ok(text)
}

/// The link of a token, if it is good.
pub(super) fn find_link(database: &Connection, token: &str, now_ms: u64) -> rusqlite::Result<Option<Link>> {
    let Some(hash) = secret::hash(token) else { return Ok(None) };
    let sql = "SELECT person, code_salt FROM sign_in_links WHERE hash = ?1 AND expires_ms > ?2";
    let link = database.query_row(sql, (hash, integer(now_ms)), |row| {
        Ok(Link { person: row.get(0)?, code_salt: row.get(1)? })
    });
    link.optional()
}

/// Uses a link up: its person has this password and these codes from now on, and is signed in nowhere else.
pub(super) fn use_link(
    transaction: &Connection,
    link: &Link,
    (password, code_step): (&str, i64),
) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM sign_in_links WHERE person = ?1", (&link.person,))?;
    people::end_sessions(transaction, &link.person)?;
    let sql = "INSERT INTO accounts (person, password, code_salt, code_step) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (person) DO UPDATE SET password = excluded.password, code_salt = excluded.code_salt,
        code_step = excluded.code_step";
    transaction.execute(sql, (&link.person, password, &link.code_salt, code_step)).map(|_| ())
}

/// Somebody's account.
pub(super) fn find(database: &Connection, person: &str) -> rusqlite::Result<Option<Account>> {
    let sql = "SELECT password, code_salt, code_step FROM accounts WHERE person = ?1";
    let account = database.query_row(sql, (person,), |row| {
        Ok(Account { password: row.get(0)?, code_salt: row.get(1)?, code_step: row.get(2)? })
    });
    account.optional()
}

/// Uses a code up, for the password that was found right; false if either is no more.
pub(super) fn use_code(
    transaction: &Connection,
    person: &str,
    account: &Account,
    step: i64,
) -> rusqlite::Result<bool> {
    let sql = "UPDATE accounts SET code_step = ?3 WHERE person = ?1 AND password = ?2 AND code_step < ?3";
    Ok(transaction.execute(sql, (person, &account.password, step))? == 1)
}
