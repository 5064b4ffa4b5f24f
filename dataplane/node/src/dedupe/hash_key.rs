//! The secret that event keys are made with: 16 random bytes in a file of the data directory, made once.
//!
//! Index records and journaled keys match nothing under another one, so it stays as long as they do.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zen_core::dedupe::KeyHasher;

/// The file in the data directory.
const FILE: &str = "idempotency.key";
const BYTES: usize = 16;
const MODE: u32 = 0o600;

/// Why there is no hash key.
#[derive(Debug, thiserror::Error)]
pub enum HashKeyError {
    /// The file system.
    #[error("{path}: {source}; check the directory, its owner and the disk")]
    Io {
        /// Where.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A secret that is none.
    #[error("{path} lets others read the key that makes event ids unguessable; chmod 0600 {path}")]
    Mode {
        /// Where.
        path: String,
    },
    /// Not what was written.
    #[error(
        "{path} does not hold 16 bytes; restore it, or remove it and the directories ingester/index-*, which forgets all keys"
    )]
    Length {
        /// Where.
        path: String,
    },
}

/// Reads the hash key of a data directory, or makes it.
pub fn load(data_dir: &Path) -> Result<KeyHasher, HashKeyError> {
    let path = data_dir.join(FILE);
    let shown = || path.display().to_string();
    let failed = |source| HashKeyError::Io { path: shown(), source };
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return make(data_dir, &path).map(KeyHasher::new).map_err(failed);
        }
        Err(error) => return Err(failed(error)),
    };
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(HashKeyError::Mode { path: shown() });
    }
    let bytes = fs::read(&path).map_err(failed)?;
    let hash_key = <[u8; BYTES]>::try_from(&*bytes).map_err(|_| HashKeyError::Length { path: shown() })?;
    Ok(KeyHasher::new(hash_key))
}

/// Durable under its name, or not there: a key that changes between two starts would match nothing.
fn make(data_dir: &Path, path: &PathBuf) -> io::Result<[u8; BYTES]> {
    let mut hash_key = [0; BYTES];
    getrandom::fill(&mut hash_key).map_err(io::Error::other)?;
    let building = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&building)?;
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    file.write_all(&hash_key)?;
    file.sync_all()?;
    fs::rename(&building, path)?;
    File::open(data_dir)?.sync_all()?;
    Ok(hash_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept_to_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let made = load(directory.path()).unwrap();
        let path = directory.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(load(directory.path()).unwrap().check(), made.check());
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load(other.path()).unwrap().check(), made.check());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(directory.path()), Err(HashKeyError::Mode { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(MODE)).unwrap();
        fs::write(&path, [1; BYTES - 1]).unwrap();
        assert!(matches!(load(directory.path()), Err(HashKeyError::Length { .. })));
    }
}
