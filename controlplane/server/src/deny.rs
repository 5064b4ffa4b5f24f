//! The deny list: who is refused before their certificates end. It is part of every cluster's configuration.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use zen_identity::{DENY_LIST_BYTES_MAX, DenyEntry, DenyList, SpiffeId};

use crate::authority::configuration_key;
use crate::configuration::publish_everywhere;
use crate::database::{begin, integer};
use crate::{ControlError, Database, Directory, SessionKey, audit};

/// Longest reason, bytes.
pub(crate) const REASON_BYTES_MAX: usize = 256;
/// Most entries that are in force.
const ENTRIES_MAX: i64 = 4096;

/// Who is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A certificate, by its serial number in hex.
    Serial(String),
    /// A key, by the SHA-256 of its `SubjectPublicKeyInfo` in hex.
    Key(String),
    /// An identity.
    Id(String),
}

#[derive(Serialize)]
struct Document {
    version: u32,
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spki_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<i64>,
}

impl Subject {
    /// As the audit log has it: whom a denial is about is said there in the clear.
    pub(crate) fn target(&self) -> Result<String, ControlError> {
        let (kind, value) = self.normal()?;
        Ok(format!("denials/{kind}/{value}"))
    }

    /// As it is kept and compared.
    pub(crate) fn normalized(&self) -> Result<Self, ControlError> {
        let (_, value) = self.normal()?;
        Ok(match self {
            Self::Serial(_) => Self::Serial(value),
            Self::Key(_) => Self::Key(value),
            Self::Id(_) => Self::Id(value),
        })
    }

    /// Kind and value as they are kept and compared.
    fn normal(&self) -> Result<(&'static str, String), ControlError> {
        match self {
            Self::Serial(text) => {
                let bytes = unhex(text).filter(|bytes| bytes.len() <= 20);
                let bytes =
                    bytes.ok_or(ControlError::Argument("a serial is 2 to 40 digits of hex, two a byte"))?;
                Ok(("serial", serial_text(&bytes)))
            }
            Self::Key(text) => {
                let bytes = unhex(text).filter(|bytes| bytes.len() == 32);
                let bytes = bytes.ok_or(ControlError::Argument("a key's SHA-256 is 64 digits of hex"))?;
                Ok(("spki_sha256", hex(&bytes)))
            }
            Self::Id(id) => {
                SpiffeId::parse(id).map_err(|source| ControlError::Id { id: id.clone(), source })?;
                Ok(("spiffe_id", id.clone()))
            }
        }
    }
}

/// Denies somebody, until `until_ms` if that is said, in every cluster's next configuration.
pub fn deny(
    directory: &Directory,
    database: &mut Database,
    subject: &Subject,
    (reason, until_ms): (Option<&str>, Option<u64>),
    now_ms: u64,
) -> Result<(), ControlError> {
    let transaction = begin(database)?;
    add(&transaction, directory, subject, (reason, until_ms), now_ms)?;
    audit::append_command(&transaction, ("", "denials.create", &subject.target()?))?;
    Ok(transaction.commit()?)
}

/// The same in a transaction that the caller has.
pub(crate) fn add(
    transaction: &Connection,
    directory: &Directory,
    subject: &Subject,
    (reason, until_ms): (Option<&str>, Option<u64>),
    now_ms: u64,
) -> Result<(), ControlError> {
    let (kind, value) = subject.normal()?;
    if reason.is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
        return Err(ControlError::Argument("a reason has at most 256 bytes"));
    }
    if until_ms.is_some_and(|until| until <= now_ms) {
        return Err(ControlError::Argument("--until is over already; it is in Unix milliseconds"));
    }
    forget(transaction, now_ms)?;
    let sql = "INSERT INTO denials (kind, value, reason, until_ms) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT DO UPDATE SET reason = excluded.reason, until_ms = excluded.until_ms";
    transaction.execute(sql, (kind, value, reason, until_ms.map(integer)))?;
    let count: i64 = transaction.query_row("SELECT count(*) FROM denials", (), |row| row.get(0))?;
    if count > ENTRIES_MAX {
        return Err(ControlError::Argument("there are 4096 denials; allow some, or give them an end"));
    }
    if deny_text(transaction)?.len() > DENY_LIST_BYTES_MAX {
        return Err(ControlError::Argument("the deny list is over 1 MiB; allow some, or shorten reasons"));
    }
    publish_everywhere(transaction, &configuration_key(directory)?)
}

/// Takes a denial back.
pub fn allow(
    directory: &Directory,
    database: &mut Database,
    subject: &Subject,
    now_ms: u64,
) -> Result<(), ControlError> {
    let transaction = begin(database)?;
    if !remove(&transaction, directory, subject, now_ms)? {
        return Err(ControlError::Argument("nothing denies this"));
    }
    audit::append_command(&transaction, ("", "denials.delete", &subject.target()?))?;
    Ok(transaction.commit()?)
}

/// The same in a transaction that the caller has; false if nothing denies this.
pub(crate) fn remove(
    transaction: &Connection,
    directory: &Directory,
    subject: &Subject,
    now_ms: u64,
) -> Result<bool, ControlError> {
    let (kind, value) = subject.normal()?;
    forget(transaction, now_ms)?;
    let sql = "DELETE FROM denials WHERE kind = ?1 AND value = ?2";
    if transaction.execute(sql, (kind, value))? == 0 {
        return Ok(false);
    }
    publish_everywhere(transaction, &configuration_key(directory)?)?;
    Ok(true)
}

/// A denial as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Denial {
    pub(crate) subject: Subject,
    pub(crate) reason: Option<String>,
    pub(crate) until_ms: Option<i64>,
}

/// All that are in force.
pub(crate) fn list(database: &Connection, now_ms: u64) -> rusqlite::Result<Vec<Denial>> {
    let sql = "SELECT kind, value, reason, until_ms FROM denials WHERE until_ms IS NULL OR until_ms > ?1";
    let mut statement = database.prepare_cached(sql)?;
    let rows = statement.query_map((integer(now_ms),), |row| {
        let value = row.get(1)?;
        let subject = match row.get::<_, String>(0)?.as_str() {
            "spiffe_id" => Subject::Id(value),
            "serial" => Subject::Serial(value),
            _ => Subject::Key(value),
        };
        Ok(Denial { subject, reason: row.get(2)?, until_ms: row.get(3)? })
    })?;
    rows.collect()
}

/// The list as nodes read it.
pub(crate) fn deny_text(database: &Connection) -> rusqlite::Result<String> {
    let mut statement =
        database.prepare("SELECT kind, value, reason, until_ms FROM denials ORDER BY kind, value")?;
    let entries = statement.query_map((), |row| {
        let (kind, value): (String, String) = (row.get(0)?, row.get(1)?);
        let only = |name: &str| (kind == name).then(|| value.clone());
        Ok(Entry {
            serial: only("serial"),
            spki_sha256: only("spki_sha256"),
            spiffe_id: only("spiffe_id"),
            reason: row.get(2)?,
            until_ms: row.get(3)?,
        })
    })?;
    let document = Document { version: 1, entries: entries.collect::<Result<_, _>>()? };
    Ok(serde_json::to_string(&document).expect("texts and numbers are JSON"))
}

/// What the listener's handshakes are checked against, and when the next entry ends.
pub(crate) fn deny_list(database: &Connection, now_ms: u64) -> rusqlite::Result<(DenyList, Option<u64>)> {
    let sql = "SELECT kind, value, until_ms FROM denials WHERE until_ms IS NULL OR until_ms > ?1";
    let mut statement = database.prepare(sql)?;
    let mut rows = statement.query((integer(now_ms),))?;
    let (mut entries, mut next_end) = (Vec::new(), None::<u64>);
    while let Some(row) = rows.next()? {
        let (kind, value): (String, String) = (row.get(0)?, row.get(1)?);
        let until: Option<i64> = row.get(2)?;
        if let Some(until) = until {
            let until = until.unsigned_abs();
            next_end = Some(next_end.map_or(until, |next| next.min(until)));
        }
        let entry = match kind.as_str() {
            "spiffe_id" => SpiffeId::parse(&value).ok().map(DenyEntry::Id),
            "serial" => unhex(&value).map(DenyEntry::Serial),
            _ => unhex(&value).and_then(|hash| hash.try_into().ok()).map(DenyEntry::PublicKey),
        };
        entries.extend(entry);
    }
    Ok((DenyList::new(entries), next_end))
}

/// What is denied, each as [`keys_of`] spells it.
pub(crate) fn denied_keys(database: &Connection, now_ms: u64) -> rusqlite::Result<HashSet<String>> {
    let sql = "SELECT kind || ' ' || value FROM denials WHERE until_ms IS NULL OR until_ms > ?1";
    let mut statement = database.prepare_cached(sql)?;
    statement.query_map((integer(now_ms),), |row| row.get(0))?.collect()
}

/// By what a connection's certificate can be denied.
pub(crate) fn keys_of(key: &SessionKey) -> [String; 3] {
    [
        format!("spiffe_id {}", key.id),
        format!("spki_sha256 {}", hex(&key.key)),
        format!("serial {}", serial_text(&key.serial)),
    ]
}

/// Whether an identity, one of its keys or its certificate is denied.
pub(crate) fn is_denied(
    database: &Connection,
    id: &SpiffeId,
    keys: &[[u8; 32]],
    serial: Option<&[u8]>,
    now_ms: u64,
) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM denials WHERE kind = ?1 AND value = ?2 AND (until_ms IS NULL OR until_ms > ?3)";
    let mut statement = database.prepare_cached(sql)?;
    let mut holds = |kind: &str, value: &str| {
        statement.query_row((kind, value, integer(now_ms)), |_| Ok(())).optional().map(|row| row.is_some())
    };
    if holds("spiffe_id", id.as_str())? {
        return Ok(true);
    }
    for key in keys {
        if holds("spki_sha256", &hex(key))? {
            return Ok(true);
        }
    }
    serial.map_or(Ok(false), |serial| holds("serial", &serial_text(serial)))
}

/// What is over is nobody's matter any more.
fn forget(database: &Connection, now_ms: u64) -> rusqlite::Result<usize> {
    database.execute("DELETE FROM denials WHERE until_ms <= ?1", (integer(now_ms),))
}

/// Serials compare as numbers: leading zero bytes do not count.
fn serial_text(serial: &[u8]) -> String {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    hex(&serial[zeros.min(serial.len().saturating_sub(1))..])
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).expect("below 16");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let is_whole = !text.is_empty() && text.len().is_multiple_of(2) && text.len() <= 64;
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let bytes = text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
    is_whole.then(|| bytes.collect())?
}
