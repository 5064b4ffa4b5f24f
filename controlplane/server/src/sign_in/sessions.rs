//! Sessions of browsers: a cookie that proves by being known, of which only the hash is kept, and a token for forms.

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::HeaderMap;
use axum::http::header::HeaderValue;
use rusqlite::{Connection, OptionalExtension as _};

use super::form::{cookie, is_same_origin};
use super::secret;
use crate::ControlError;
use crate::database::{Database, begin, integer};
use crate::deny::hex;
use crate::people::{SESSION_IDLE_MS, SESSION_LIFE_MS, SessionId};

/// The host's own, over TLS, for all paths: no other host or path can set it.
pub(crate) const SESSION_COOKIE: &str = "__Host-zen-session";
/// Most sessions of one person; the one that was idle for longest goes.
pub(crate) const PERSON_SESSIONS_MAX: i64 = 16;
/// How exactly it is known when a session was used last, ms.
const TOUCH_EVERY_MS: u64 = 60_000;

/// The session that a request's cookie is of, whether or not there is one.
pub(crate) fn session_id(headers: &HeaderMap) -> Option<SessionId> {
    secret::hash(cookie(headers, SESSION_COOKIE)?).map(SessionId)
}

/// A new session; the text of its cookie.
pub(super) fn make(
    transaction: &Connection,
    person: &str,
    actor: &str,
    now_ms: u64,
) -> Result<HeaderValue, ControlError> {
    let now = integer(now_ms);
    let sql = "DELETE FROM sessions WHERE used_ms <= ?1 OR made_ms <= ?2";
    transaction.execute(sql, (now - integer(SESSION_IDLE_MS), now - integer(SESSION_LIFE_MS)))?;
    let sql = "DELETE FROM sessions WHERE hash IN
        (SELECT hash FROM sessions WHERE person = ?1 ORDER BY used_ms DESC LIMIT -1 OFFSET ?2)";
    transaction.execute(sql, (person, PERSON_SESSIONS_MAX - 1))?;
    let (text, hash) = secret::new();
    let sql = "INSERT INTO sessions (hash, person, actor, made_ms, used_ms) VALUES (?1, ?2, ?3, ?4, ?4)";
    transaction.execute(sql, (hash, person, actor, now))?;
    Ok(set_cookie(SESSION_COOKIE, &text, SESSION_LIFE_MS / 1000))
}

/// Remembers that a session is in use, if it is.
pub(crate) fn touch(database: &mut Database, session: SessionId, now_ms: u64) -> rusqlite::Result<()> {
    let now = integer(now_ms);
    let sql = "SELECT 1 FROM sessions WHERE hash = ?1 AND used_ms <= ?2 AND used_ms > ?3 AND made_ms > ?4";
    let times = (
        session.0,
        now - integer(TOUCH_EVERY_MS),
        now - integer(SESSION_IDLE_MS),
        now - integer(SESSION_LIFE_MS),
    );
    if database.prepare_cached(sql)?.query_row(times, |_| Ok(())).optional()?.is_none() {
        return Ok(());
    }
    let transaction = begin(database)?;
    transaction.execute("UPDATE sessions SET used_ms = ?2 WHERE hash = ?1", (session.0, now))?;
    transaction.commit()
}

/// Ends a session; whose it was, and as whom they are known.
pub(super) fn end(
    transaction: &Connection,
    session: SessionId,
) -> rusqlite::Result<Option<(String, String)>> {
    let sql = "DELETE FROM sessions WHERE hash = ?1 RETURNING person, actor";
    transaction.query_row(sql, (session.0,), |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// What each form of a session's pages has in a hidden field: it cannot be known without the cookie, nor leads to it.
pub(crate) fn csrf_token(headers: &HeaderMap) -> Option<String> {
    let text = cookie(headers, SESSION_COOKIE)?;
    Some(hex(digest(&SHA256, format!("zen-csrf\n{text}").as_bytes()).as_ref()))
}

/// Whether a form is of the session that the cookie is of, and from a page of ours.
pub(crate) fn may_post(headers: &HeaderMap, sent: &str) -> bool {
    let is_it = |expected: String| {
        aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_bytes(), sent.as_bytes()).is_ok()
    };
    is_same_origin(headers) && csrf_token(headers).is_some_and(is_it)
}

/// Sets a cookie of ours; with no time left, takes it.
pub(super) fn set_cookie(name: &str, value: &str, life_seconds: u64) -> HeaderValue {
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={life_seconds}");
    HeaderValue::try_from(text).expect("names and hex are visible characters")
}
