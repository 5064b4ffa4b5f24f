//! Places with many sealed values: a directory, or a manifest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zen_lock::SecretName;
use zen_lockd::files::{SealedFiles, TreeError, replace};
use zen_lockd::vault::{Expected, Identities, OpenError, Opened, open};

use super::error::CliError;
use super::manifest::Manifest;

/// A value's place, and its bytes if they can be read.
pub(crate) type Entry = (SecretName, Result<Vec<u8>, TreeError>);

/// Where sealed values are.
pub(crate) enum Store {
    /// `NAMESPACE/NAME/KEY.age`.
    Directory(SealedFiles),
    /// A zen-lock manifest.
    Manifest(PathBuf, Manifest),
}

impl Store {
    /// What is at a path.
    pub(crate) fn at(path: &Path) -> Result<Self, CliError> {
        let metadata = fs::metadata(path).map_err(CliError::io(path))?;
        if metadata.is_dir() {
            let path = fs::canonicalize(path).map_err(CliError::io(path))?;
            return Ok(Self::Directory(SealedFiles::Directory(path)));
        }
        Ok(Self::Manifest(path.to_owned(), Manifest::read(path)?))
    }

    /// All sealed values; one that cannot be read is an error of its own.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, CliError> {
        match self {
            Self::Directory(files) => {
                let names = files.list()?.into_iter();
                Ok(names.map(|name| (name.clone(), files.read(&name))).collect())
            }
            Self::Manifest(_, manifest) => {
                Ok(manifest.entries()?.into_iter().map(|(name, sealed)| (name, Ok(sealed))).collect())
            }
        }
    }

    /// Puts values in the places of old ones: each file, or the manifest, is there whole at any moment.
    pub(crate) fn replace(&mut self, values: Vec<(SecretName, Vec<u8>)>) -> Result<(), CliError> {
        if values.is_empty() {
            return Ok(());
        }
        match self {
            Self::Directory(files) => {
                for (name, sealed) in values {
                    let path = files.path(&name)?;
                    let mode = fs::metadata(&path).map_err(CliError::io(&path))?.permissions().mode();
                    replace(&path, &sealed, mode & 0o7777).map_err(CliError::io(&path))?;
                }
                Ok(())
            }
            Self::Manifest(path, manifest) => {
                for (name, sealed) in values {
                    manifest.set(name.key(), &sealed);
                }
                manifest.write(path)
            }
        }
    }
}

/// Opens a value where it was found; nothing but the envelope says how far it may be moved.
pub(crate) fn open_at(keys: &Identities, name: &SecretName, sealed: &[u8]) -> Result<Opened, OpenError> {
    open(sealed, keys, Expected { place: name, authors: &[] })
}

/// Whether these keys open a value; else why not.
pub(crate) fn opens_with(keys: &Identities, name: &SecretName, sealed: &[u8]) -> Result<(), String> {
    open_at(keys, name, sealed).map(drop).map_err(|error| error.to_string())
}
