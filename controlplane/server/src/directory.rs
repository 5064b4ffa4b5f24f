//! The state directory, mode 0700: what its files are called, and how they are written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::ControlError;

/// Which CAs there are; keys and certificates are in files of their own.
pub(crate) const AUTHORITY: &str = "authority.json";
/// The certificates of all roots.
pub(crate) const ROOTS: &str = "roots.pem";
/// Key for passwords and one-time codes, base64.
pub(crate) const SIGN_IN_KEY: &str = "sign-in.key";
/// Seed of the key that signs configurations, base64.
pub(crate) const CONFIGURATION_KEY: &str = "configuration.key";
/// Seed of the key that signs checkpoints of the audit log, base64.
pub(crate) const AUDIT_KEY: &str = "audit.key";
/// The newest checkpoint of the audit log, unless it is to be elsewhere.
pub(crate) const AUDIT_CHECKPOINT: &str = "audit.checkpoint";
/// The listener's own certificate, its issuers and its key.
pub(crate) const SERVER: &str = "server.pem";
/// Locked by whoever has the directory open.
const LOCK: &str = "lock";
/// Everything else.
pub(crate) const DATABASE: &str = "control.db";

/// Mode of private keys, which are written once.
pub(crate) const KEY_MODE: u32 = 0o400;
/// Mode of what only the owner reads.
pub(crate) const PRIVATE_MODE: u32 = 0o600;
/// Mode of certificates.
pub(crate) const PUBLIC_MODE: u32 = 0o644;
/// Longest key or certificate, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A state directory, which nobody restores as long as somebody has it open.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf, #[expect(dead_code, reason = "held, not read")] Option<Arc<File>>);

impl Directory {
    /// One that exists, and lets nobody else in.
    pub fn open(path: &Path) -> Result<Self, ControlError> {
        let mode = fs::metadata(path).map_err(ControlError::file(path))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(ControlError::Mode { path: path.to_owned(), mode });
        }
        let lock = lock_file(path)?;
        lock.try_lock_shared().map_err(|_| ControlError::Restoring { path: path.to_owned() })?;
        Ok(Self(path.to_owned(), Some(Arc::new(lock))))
    }

    /// One that nobody else has open.
    pub(crate) fn open_alone(path: &Path) -> Result<Self, ControlError> {
        Self::open(path)?;
        let lock = lock_file(path)?;
        lock.try_lock().map_err(|_| ControlError::InUse { path: path.to_owned() })?;
        Ok(Self(path.to_owned(), Some(Arc::new(lock))))
    }

    /// A new one beside the place where it will be; [`Self::publish`] moves it there.
    pub(crate) fn prepare(path: &Path) -> Result<Self, ControlError> {
        let is_free = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if !is_free {
            return Err(ControlError::Exists { path: path.to_owned() });
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let prepared = path.with_file_name(name);
        DirBuilder::new().mode(0o700).create(&prepared).map_err(ControlError::file(&prepared))?;
        Ok(Self(prepared, None))
    }

    /// Moves a prepared directory to its place, whole.
    pub(crate) fn publish(self, path: &Path) -> Result<Self, ControlError> {
        sync(&self.0)?;
        fs::rename(&self.0, path).map_err(ControlError::file(path))?;
        sync(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        Self::open(path)
    }

    /// Takes back what was prepared.
    pub(crate) fn discard(&self) {
        let _ = fs::remove_dir_all(&self.0);
    }

    /// What was renamed in it is on the disk.
    pub(crate) fn sync(&self) -> Result<(), ControlError> {
        sync(&self.0)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Result<Zeroizing<String>, ControlError> {
        read_text(&self.path(name), FILE_BYTES_MAX)
    }

    /// A new file; one that exists is never written over.
    pub(crate) fn create(&self, name: &str, text: &str, mode: u32) -> Result<(), ControlError> {
        create(&self.path(name), text, mode)
    }

    /// Another content, all of it or none.
    pub(crate) fn replace(&self, name: &str, text: &str, mode: u32) -> Result<(), ControlError> {
        let (path, next) = (self.path(name), self.path(&format!("{name}.next")));
        let _ = fs::remove_file(&next);
        create(&next, text, mode)?;
        fs::rename(&next, &path).map_err(ControlError::file(&path))?;
        sync(&self.0)
    }
}

/// A new file with `mode`, on the disk when this returns.
pub(crate) fn create(path: &Path, text: &str, mode: u32) -> Result<(), ControlError> {
    let options = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = options.map_err(ControlError::file(path))?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(ControlError::file(path))
}

/// A whole text of at most `max` bytes.
pub(crate) fn read_text(path: &Path, max: u64) -> Result<Zeroizing<String>, ControlError> {
    let file = File::open(path).map_err(ControlError::file(path))?;
    let mut text = Zeroizing::new(String::new());
    file.take(max + 1).read_to_string(&mut text).map_err(ControlError::file(path))?;
    if text.len() as u64 > max {
        return Err(ControlError::Length { path: path.to_owned(), max });
    }
    Ok(text)
}

fn lock_file(directory: &Path) -> Result<File, ControlError> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(PRIVATE_MODE).open(&path);
    file.map_err(ControlError::file(path))
}

fn sync(path: &Path) -> Result<(), ControlError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(ControlError::file(path))
}
