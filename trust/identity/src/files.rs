//! Files in, bytes out. Refused: more than 1 MiB, and private keys that others may read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::IdentityError;

/// Largest certificate, key or bundle file, bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A certificate or bundle file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let mut bytes = Vec::new();
    read_bounded(&open(path)?, path, &mut bytes)?;
    Ok(bytes)
}

/// A private key file; its bytes are wiped when dropped.
pub(crate) fn read_private_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let file = open(path)?;
    let metadata = file.metadata().map_err(|source| read_error(path, source))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::KeyPermissions { file: path.into(), mode });
    }
    // Room for the whole key at once: a growing buffer would leave copies behind.
    let capacity = metadata.len().min(FILE_BYTES_MAX) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity as usize));
    read_bounded(&file, path, &mut bytes)?;
    Ok(bytes)
}

fn open(path: &Path) -> Result<File, IdentityError> {
    File::open(path).map_err(|source| read_error(path, source))
}

fn read_bounded(file: &File, path: &Path, bytes: &mut Vec<u8>) -> Result<(), IdentityError> {
    file.take(FILE_BYTES_MAX + 1).read_to_end(bytes).map_err(|source| read_error(path, source))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(IdentityError::TooLarge { file: path.into() });
    }
    Ok(())
}

fn read_error(path: &Path, source: std::io::Error) -> IdentityError {
    IdentityError::Read { file: path.into(), source }
}
