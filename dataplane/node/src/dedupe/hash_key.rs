//! The secret that event keys are made with: 16 random bytes, configured, or in a file of the data directory
//! that is made once.
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
    /// Two keys, and what is remembered was made with the file's.
    #[error(
        "{path} holds another key than node.hash_key_file: what is remembered would match nothing, so events that \
         were accepted would be taken again; make that secret of the file (od -An -v -tx1 {path} | tr -d ' \\n'), or \
         remove the file and the directories ingester/index-*, which forgets all keys"
    )]
    Another {
        /// Where the other one is.
        path: String,
    },
}

/// The hash key of a data directory: the one that is configured, else its file's, which is made if it is not there.
pub fn load(data_dir: &Path, configured: Option<&KeyHasher>) -> Result<KeyHasher, HashKeyError> {
    let path = data_dir.join(FILE);
    let shown = path.display().to_string();
    match (configured, read(&path)?) {
        (None, Some(found)) => Ok(found),
        (None, None) => make(data_dir, &path)
            .map(KeyHasher::new)
            .map_err(|source| HashKeyError::Io { path: shown, source }),
        (Some(configured), None) => Ok(configured.clone()),
        (Some(configured), Some(found)) if configured.check() == found.check() => {
            tracing::info!("{shown} holds the key of node.hash_key_file, and can be removed");
            Ok(found)
        }
        (Some(_), Some(_)) => Err(HashKeyError::Another { path: shown }),
    }
}

fn read(path: &Path) -> Result<Option<KeyHasher>, HashKeyError> {
    let shown = || path.display().to_string();
    let failed = |source| HashKeyError::Io { path: shown(), source };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(HashKeyError::Mode { path: shown() });
    }
    let bytes = fs::read(path).map_err(failed)?;
    let hash_key = <[u8; BYTES]>::try_from(&*bytes).map_err(|_| HashKeyError::Length { path: shown() })?;
    Ok(Some(KeyHasher::new(hash_key)))
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
        let made = load(directory.path(), None).unwrap();
        let path = directory.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(load(directory.path(), None).unwrap().check(), made.check());
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load(other.path(), None).unwrap().check(), made.check());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(directory.path(), None), Err(HashKeyError::Mode { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(MODE)).unwrap();
        fs::write(&path, [1; BYTES - 1]).unwrap();
        assert!(matches!(load(directory.path(), None), Err(HashKeyError::Length { .. })));
    }

    #[test]
    fn a_configured_key_leaves_nothing_in_the_directory_and_must_be_the_one_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let configured = KeyHasher::new([7; BYTES]);
        let load = |hasher| load(directory.path(), hasher);
        assert_eq!(load(Some(&configured)).unwrap().check(), configured.check());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);

        let made = load(None).unwrap();
        assert_eq!(load(Some(&made)).unwrap().check(), made.check());
        let error = load(Some(&configured)).unwrap_err();
        assert!(matches!(error, HashKeyError::Another { .. }), "{error}");
        for part in ["match nothing", "od -An", "ingester/index-*"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
