//! Requests that come twice under one `Idempotency-Key`: done once, answered twice, within a day.
//!
//! The answer is kept in the transaction that does the work. What was refused changed nothing, and is not kept.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use rusqlite::OptionalExtension as _;

use super::problem::Fault;
use super::unit::{Answer, Unit};
use crate::database::integer;
use crate::{Refusal, store};

/// How long an answer is kept, ms.
pub(crate) const KEPT_MS: u64 = 24 * 3600 * 1000;
/// Most answers that are kept for a person.
pub(crate) const KEPT_MAX: i64 = 1024;

/// A key and the request that came under it.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    text: String,
    request: [u8; 32],
}

/// Keys whose request is being done, by person.
#[derive(Default)]
pub(crate) struct Running(Mutex<HashSet<(String, String)>>);

/// One of them, until it is dropped.
pub(crate) struct Run<'a> {
    running: &'a Running,
    key: (String, String),
}

impl Key {
    /// Of a request: the hash is over all that decides what it does.
    pub(crate) fn new(text: String, method: &str, target: &str, body: &[u8]) -> Self {
        let mut hash = Context::new(&SHA256);
        for part in [method.as_bytes(), target.as_bytes(), body] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let request = hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        Self { text, request }
    }
}

impl Running {
    /// Refused while the same key runs for the same person.
    pub(crate) fn begin(&self, person: &str, key: &Key) -> Result<Run<'_>, Fault> {
        let key = (person.to_owned(), key.text.clone());
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            return Err(Fault::Conflict(
                "a request with this Idempotency-Key is being done; wait for its answer",
            ));
        }
        Ok(Run { running: self, key })
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.running.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// The answer that was given under this key.
pub(crate) fn answer_again(unit: &Unit<'_>, key: &Key) -> Result<Option<Answer>, Fault> {
    let sql = "SELECT request, answer FROM idempotency WHERE person = ?1 AND key = ?2 AND created_ms > ?3";
    let since = integer(unit.now_ms.saturating_sub(KEPT_MS));
    let found = unit.database.query_row(sql, (&unit.person.name, &key.text, since), |row| {
        Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, String>(1)?))
    });
    let Some((request, answer)) = found.optional()? else { return Ok(None) };
    if request != key.request {
        return Err(Fault::KeyReused);
    }
    if answer.is_empty() {
        let detail =
            "this was done, and its answer is given once only: revoke what it made, and make another";
        return Err(Fault::Conflict(detail));
    }
    Ok(Some(store::read(&answer)?))
}

/// Keeps an answer for the next request under this key.
pub(crate) fn keep(unit: &Unit<'_>, key: &Key, answer: &Answer) -> Result<(), Fault> {
    let since = integer(unit.now_ms.saturating_sub(KEPT_MS));
    unit.database.execute("DELETE FROM idempotency WHERE created_ms <= ?1", (since,))?;
    let sql = "SELECT count(*) FROM idempotency WHERE person = ?1";
    let count: i64 = unit.database.query_row(sql, (&unit.person.name,), |row| row.get(0))?;
    if count >= KEPT_MAX {
        return Err(Refusal::Busy.into());
    }
    let text = serde_json::to_string(answer).expect("texts and numbers are JSON");
    let text = if answer.is_once { String::new() } else { text };
    let sql =
        "INSERT INTO idempotency (person, key, request, answer, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
    unit.database.execute(sql, (&unit.person.name, &key.text, key.request, text, integer(unit.now_ms)))?;
    Ok(())
}
