//! The directory of receipts: `segment-NUMBER.jsonl` (0600), `digests/NUMBER.note` and `receipts.pub`, which anybody may
//! read, `receipts.key` (0400), made once, and `lock`.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use nix::libc::{O_CLOEXEC, O_NOFOLLOW};
use nix::unistd::geteuid;
use zen_audit::{Digest, LogKey, Note, SignatureKind, SigningKey, is_key_name};
use zeroize::Zeroizing;

use super::ReceiptsError;
use crate::files::{KeyFile, KeyFileError, KeySource, check_path, create_new, replace};

/// Passed through by all, so that digests can be read; listed by its owner.
const DIRECTORY_MODE: u32 = 0o711;
const DIGESTS_MODE: u32 = 0o755;
const SEGMENT_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o400;
const SEED_BYTES: usize = 32;

/// A directory of receipts.
#[derive(Clone, Debug)]
pub(super) struct Place {
    directory: PathBuf,
}

/// Whether this process is one of those that act on a vault: root, or the owner of its receipts. Others have nothing there
/// that they could act on, and root is told when it is not the owner.
pub fn may_write(directory: &Path) -> bool {
    let own = geteuid().as_raw();
    own == 0 || fs::metadata(directory).is_ok_and(|metadata| metadata.uid() == own)
}

impl Place {
    /// A directory to read.
    pub(super) fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// A directory to write, made if it is not there.
    pub(super) fn prepare(directory: &Path) -> Result<Self, ReceiptsError> {
        let place = Self::at(directory);
        for (path, mode) in
            [(directory.to_owned(), DIRECTORY_MODE), (place.digests_directory(), DIGESTS_MODE)]
        {
            match DirBuilder::new().mode(mode).create(&path) {
                Ok(()) => Self::give(&path, mode)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(ReceiptsError::Io { path, source }),
            }
            check_path(&path)?;
        }
        Ok(place)
    }

    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.directory.join(format!("segment-{number:010}.jsonl"))
    }

    pub(super) fn digest(&self, number: u64) -> PathBuf {
        self.digests_directory().join(format!("{number:010}.note"))
    }

    /// Numbers of segments, and their bytes.
    pub(super) fn segments(&self) -> Result<BTreeMap<u64, u64>, ReceiptsError> {
        list(&self.directory, "segment-", ".jsonl")
    }

    /// Numbers of digests, and their bytes.
    pub(super) fn digests(&self) -> Result<BTreeMap<u64, u64>, ReceiptsError> {
        list(&self.digests_directory(), "", ".note")
    }

    /// A segment to append to, made if it is not there.
    pub(super) fn open_segment(&self, number: u64) -> Result<File, ReceiptsError> {
        let path = self.segment(number);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(SEGMENT_MODE).custom_flags(O_NOFOLLOW | O_CLOEXEC);
        let file = options.open(&path).map_err(failed(&path))?;
        Self::give(&path, SEGMENT_MODE)?;
        Ok(file)
    }

    /// Held by whoever writes.
    pub(super) fn open_lock(&self) -> Result<File, ReceiptsError> {
        let path = self.lock();
        let mut options = OpenOptions::new();
        options.write(true).create(true).mode(SEGMENT_MODE).custom_flags(O_NOFOLLOW | O_CLOEXEC);
        let file = options.open(&path).map_err(failed(&path))?;
        Self::give(&path, SEGMENT_MODE)?;
        Ok(file)
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    /// A digest's note is there whole, or not at all.
    pub(super) fn write_digest(&self, number: u64, note: &Note) -> Result<(), ReceiptsError> {
        let path = self.digest(number);
        replace(&path, note.to_string().as_bytes(), PUBLIC_MODE).map_err(failed(&path))?;
        Self::give(&path, PUBLIC_MODE)
    }

    pub(super) fn read_digest(&self, number: u64) -> Result<Note, ReceiptsError> {
        let path = self.digest(number);
        let text = fs::read_to_string(&path).map_err(failed(&path))?;
        Note::parse(&text).map_err(|source| ReceiptsError::Digest { path, source: source.into() })
    }

    /// A digest that this key signed.
    pub(super) fn digest_by(&self, number: u64, key: &LogKey) -> Result<Digest, ReceiptsError> {
        let source = match Digest::verify(&self.read_digest(number)?, key) {
            Ok(digest) if digest.segment == number => return Ok(digest),
            Ok(_) => zen_audit::DigestError::Form,
            Err(source) => source,
        };
        Err(ReceiptsError::Digest { path: self.digest(number), source })
    }

    /// The key of digests; made where nothing is there yet.
    pub(super) fn key(&self) -> Result<SigningKey, ReceiptsError> {
        let (path, public) = (self.directory.join("receipts.key"), self.directory.join("receipts.pub"));
        let text = match KeyFile(path.clone()).read() {
            Ok(text) => text,
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                if !self.digests()?.is_empty() || !self.segments()?.is_empty() {
                    return Err(ReceiptsError::KeyTaken(path));
                }
                Self::make_key(&path)?
            }
            Err(error) => return Err(error.into()),
        };
        let (name, seed) = text.trim_end().split_once(' ').ok_or_else(|| ReceiptsError::Key(path.clone()))?;
        let seed = Zeroizing::new(BASE64_STANDARD.decode(seed).unwrap_or_default());
        let seed: [u8; SEED_BYTES] =
            seed.as_slice().try_into().map_err(|_| ReceiptsError::Key(path.clone()))?;
        let key = SigningKey::new(name, SignatureKind::Note, &Zeroizing::new(seed))
            .map_err(|_| ReceiptsError::Key(path))?;
        if !public.exists() {
            replace(&public, format!("{}\n", key.public()).as_bytes(), PUBLIC_MODE)
                .map_err(failed(&public))?;
            Self::give(&public, PUBLIC_MODE)?;
        }
        Ok(key)
    }

    /// The public key as it lies here: the word of whoever writes the directory.
    pub(super) fn public(&self) -> Result<LogKey, ReceiptsError> {
        let path = self.directory.join("receipts.pub");
        let text = fs::read_to_string(&path).map_err(failed(&path))?;
        LogKey::parse(text.trim_end()).map_err(|source| ReceiptsError::Public { path, source })
    }

    /// Its name stays when the host's changes, since digests bear it.
    fn make_key(path: &Path) -> Result<Zeroizing<String>, ReceiptsError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        let random = getrandom::fill(&mut *seed).map_err(io::Error::other);
        random.map_err(failed(path))?;
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = Some(format!("lockd/{}", host.trim_end())).filter(|name| is_key_name(name));
        let name = name.unwrap_or_else(|| "lockd/host".to_owned());
        let text = Zeroizing::new(format!("{name} {}\n", &*Zeroizing::new(BASE64_STANDARD.encode(*seed))));
        create_new(path, text.as_bytes(), KEY_MODE).map_err(failed(path))?;
        Self::give(path, KEY_MODE)?;
        Ok(text)
    }

    fn digests_directory(&self) -> PathBuf {
        self.directory.join("digests")
    }

    /// The mode, whatever the umask is.
    fn give(path: &Path, mode: u32) -> Result<(), ReceiptsError> {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed(path))
    }
}

pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> ReceiptsError + use<> {
    let path = path.to_owned();
    move |source| ReceiptsError::Io { path, source }
}

fn list(directory: &Path, begin: &str, end: &str) -> Result<BTreeMap<u64, u64>, ReceiptsError> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let entry = entry.map_err(failed(directory))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(begin)?.strip_suffix(end)?.parse().ok());
        if let Some(number) = number {
            let bytes = entry.metadata().map_err(failed(directory))?.len();
            found.insert(number, bytes);
        }
    }
    Ok(found)
}
