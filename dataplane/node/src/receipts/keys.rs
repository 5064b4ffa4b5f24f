//! The two secrets of receipts, made once: that of the hashes of bodies, and the one that signs digests.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use zen_audit::{SignatureKind, SigningKey};
use zen_hmac::PreparedKey;
use zeroize::Zeroizing;

use super::MODE;

/// Of the hashes.
const HASHES: &str = "hmac.key";
/// Of digests: 32 bytes of seed, then the name under which it signs.
const DIGESTS: &str = "receipts.key";
/// What digests are checked with, as an auditor types it.
const PUBLIC: &str = "receipts.pub";
const KEY_BYTES: usize = 32;

/// The secret of the hashes.
pub fn load_hash_key(directory: &Path) -> io::Result<PreparedKey> {
    let secret = load(directory, HASHES, "")?;
    if secret.len() != KEY_BYTES {
        return Err(wrong(directory, HASHES));
    }
    Ok(PreparedKey::new(&secret))
}

/// Who signs digests: `origin`, or whoever it was when the key was made.
pub fn load_signing_key(directory: &Path, origin: &str) -> io::Result<SigningKey> {
    let stored = load(directory, DIGESTS, origin)?;
    let parts = stored.split_first_chunk::<KEY_BYTES>();
    let key = parts.and_then(|(seed, name)| {
        SigningKey::new(std::str::from_utf8(name).ok()?, SignatureKind::Note, &Zeroizing::new(*seed)).ok()
    });
    let key = key.ok_or_else(|| wrong(directory, DIGESTS))?;
    fs::write(directory.join(PUBLIC), format!("{}\n", key.public()))?;
    Ok(key)
}

/// A secret, made with `name` behind it if none is there.
fn load(directory: &Path, file: &str, name: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let path = directory.join(file);
    if !path.exists() {
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *secret).map_err(io::Error::other)?;
        let building = path.with_extension("tmp");
        let mut made =
            OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&building)?;
        made.write_all(&*secret)?;
        made.write_all(name.as_bytes())?;
        made.sync_all()?;
        fs::rename(&building, &path)?;
        File::open(directory)?.sync_all()?;
    }
    if fs::metadata(&path)?.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("{0} lets others read it; chmod 0600 {0}", path.display())));
    }
    fs::read(&path).map(Zeroizing::new)
}

fn wrong(directory: &Path, file: &str) -> io::Error {
    let path = directory.join(file);
    io::Error::other(format!("{} does not hold a key as this node makes it; restore it", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_and_are_nobody_else_s() {
        let directory = tempfile::tempdir().unwrap();
        let tag = |key: PreparedKey| key.sign(&[b"body"])[0];
        let first = tag(load_hash_key(directory.path()).unwrap());
        assert_eq!(first, tag(load_hash_key(directory.path()).unwrap()));
        let signing = load_signing_key(directory.path(), "node/a").unwrap().public().clone();
        let again = load_signing_key(directory.path(), "node/b").unwrap().public().clone();
        assert_eq!((again.name(), &again), ("node/a", &signing), "digests of one chain have one name");
        let path = directory.path().join(HASHES);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load_hash_key(directory.path()).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"short").unwrap();
        assert!(load_hash_key(directory.path()).is_err());
        fs::write(directory.path().join(DIGESTS), b"short").unwrap();
        assert!(load_signing_key(directory.path(), "node/a").is_err());
    }
}
