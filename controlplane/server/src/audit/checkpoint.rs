//! Checkpoints: size and root, signed by the log's own key, in the database and in a second file.
//!
//! The file comes first, so that at no moment the database has a checkpoint and the file none. It may lie on another disk:
//! whoever brings back an older database then has to bring back an older file as well.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};
use zen_audit::{Checkpoint, Hash, LogKey, Note, SignatureKind, SigningKey, consistency_proof, root_of};
use zen_control_api::Base64;
use zeroize::Zeroizing;

use super::log::{Stored, size};
use crate::database::{begin, integer};
use crate::directory::{self, Directory, KEY_MODE, PRIVATE_MODE};
use crate::{ControlError, Database};

/// How long a log without new entries goes without a checkpoint, ms.
pub(crate) const IDLE_MS: u64 = 3600 * 1000;
/// Most checkpoints that are kept; each of them says what all before it say.
const CHECKPOINTS_MAX: i64 = 10_000;

/// Whether a checkpoint is made although there is nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// After [`IDLE_MS`].
    Idle,
    /// Now.
    Now,
}

/// Who signs, and where the second copy is.
#[derive(Debug)]
pub(crate) struct Signer {
    key: SigningKey,
    file: PathBuf,
}

/// A checkpoint of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    /// How many entries.
    pub(crate) size: u64,
    /// A signed note, without cosignatures.
    pub(crate) note: String,
    /// When it was last found to be the newest, Unix ms.
    pub(crate) made_ms: u64,
}

impl Signer {
    /// The key of a directory; `file` in place of the one there.
    pub(crate) fn open(
        directory: &Directory,
        trust_domain: &str,
        file: Option<&Path>,
    ) -> Result<Self, ControlError> {
        let text = directory.read(directory::AUDIT_KEY)?;
        let content = || ControlError::Content {
            path: directory.path(directory::AUDIT_KEY),
            what: "the seed of a key",
        };
        let seed: Base64<32> = serde_json::from_str(&text).map_err(|_| content())?;
        let name = format!("{trust_domain}/audit");
        let key = SigningKey::new(&name, SignatureKind::Note, &Zeroizing::new(seed.0));
        let file = file.map_or_else(|| directory.path(directory::AUDIT_CHECKPOINT), Path::to_owned);
        Ok(Self { key: key.map_err(|_| content())?, file })
    }

    /// What checkpoints are verified with; its name is the log's origin.
    pub(crate) fn public(&self) -> &LogKey {
        self.key.public()
    }

    /// Where the second copy is.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Signs if there is something new, or if it is time; whether it did.
    pub(crate) fn sign(&self, database: &mut Database, due: Due, now_ms: u64) -> Result<bool, ControlError> {
        let transaction = begin(database)?;
        let size = size(&transaction)?;
        let is_idle = latest(&transaction)?.is_some_and(|last| {
            last.size == size && due == Due::Idle && now_ms < last.made_ms.saturating_add(IDLE_MS)
        });
        if is_idle {
            return Ok(false);
        }
        let root = root_of(&Stored(&transaction), size)?;
        let origin = self.key.public().name().to_owned();
        let mut note = Note::new(Checkpoint { origin, size, root }.text());
        note.sign(&self.key, now_ms / 1000);
        let note = note.to_string();
        replace(&self.file, &note)?;
        let sql = "INSERT INTO audit_checkpoints (size, made_ms, note) VALUES (?1, ?2, ?3)
            ON CONFLICT DO UPDATE SET made_ms = excluded.made_ms, note = excluded.note";
        transaction.execute(sql, (integer(size), integer(now_ms), note))?;
        forget(&transaction)?;
        transaction.commit()?;
        Ok(true)
    }
}

/// Makes the key of a directory that has none, as long as no checkpoint was ever signed.
pub(crate) fn ensure_key(directory: &Directory, database: &Connection) -> Result<(), ControlError> {
    let path = directory.path(directory::AUDIT_KEY);
    if path.exists() {
        return Ok(());
    }
    if latest(database)?.is_some() {
        return Err(ControlError::AuditKey { path });
    }
    let made = create_key(directory);
    // Another process may have been faster.
    if path.exists() { Ok(()) } else { made }
}

/// A new key.
pub(crate) fn create_key(directory: &Directory) -> Result<(), ControlError> {
    let seed = serde_json::to_string(&Base64(*zen_control_api::SigningKey::generate().seed()));
    let seed = Zeroizing::new(seed.expect("base64 is a text"));
    directory.create(directory::AUDIT_KEY, &seed, KEY_MODE)
}

/// The newest checkpoint.
pub(crate) fn latest(database: &Connection) -> rusqlite::Result<Option<Signed>> {
    let sql = "SELECT size, note, made_ms FROM audit_checkpoints ORDER BY size DESC LIMIT 1";
    database.prepare_cached(sql)?.query_row((), signed).optional()
}

/// A checkpoint of the database as a row has it.
pub(super) fn signed(row: &rusqlite::Row<'_>) -> rusqlite::Result<Signed> {
    let (size, made_ms): (i64, i64) = (row.get(0)?, row.get(2)?);
    Ok(Signed { size: size.unsigned_abs(), note: row.get(1)?, made_ms: made_ms.unsigned_abs() })
}

/// That the log with `second` entries continues the one with `first`; nothing proves that for sizes which it never had.
pub(crate) fn consistency(
    database: &Connection,
    first: u64,
    second: u64,
) -> Result<Option<Vec<Hash>>, ControlError> {
    if first > second || second > size(database)? {
        return Ok(None);
    }
    consistency_proof(&Stored(database), first, second).map(Some)
}

/// Old ones go; their entries stay signed for by those that stay.
fn forget(database: &Connection) -> rusqlite::Result<()> {
    let sql = "DELETE FROM audit_checkpoints WHERE size <= (
        SELECT size FROM audit_checkpoints ORDER BY size DESC LIMIT 1 OFFSET ?1)";
    if database.execute(sql, (CHECKPOINTS_MAX,))? > 0 {
        let sql = "DELETE FROM audit_cosignatures WHERE size NOT IN (SELECT size FROM audit_checkpoints)";
        database.execute(sql, ())?;
    }
    Ok(())
}

/// Another content for a file, all of it or none, on the disk when this returns.
fn replace(path: &Path, text: &str) -> Result<(), ControlError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".next");
    let next = path.with_file_name(name);
    let _ = fs::remove_file(&next);
    directory::create(&next, text, PRIVATE_MODE)?;
    fs::rename(&next, path).map_err(ControlError::file(path))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(ControlError::file(parent))
}
