//! Where an own key comes from: a file of mode 0400, or a descriptor that was handed down. Never an argument or
//! the environment, which other processes can read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc::{O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::geteuid;
use zeroize::Zeroizing;

/// Longest key file, bytes.
const KEY_BYTES_MAX: u64 = 16 * 1024;
const MODE: u32 = 0o400;

/// Gives lockd its own key. A file serves systemd's credentials as well; a TPM would be another source.
pub trait KeySource: fmt::Debug + Send + Sync {
    /// The text of an identity file, or of an author's PEM.
    fn read(&self) -> Result<Zeroizing<String>, KeyFileError>;
}

/// A file.
#[derive(Clone, Debug)]
pub struct KeyFile(pub PathBuf);

/// An open descriptor of this process.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor(pub u32);

/// Why a key is not read.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file system; a symbolic link is refused, too.
    #[error("{}: {source}; a key file must be there and be no symbolic link", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could read it, or it could be written.
    #[error("{}: has mode {mode:04o}; chmod 0400 {}", path.display(), path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Somebody else's.
    #[error("{}: belongs to user {uid}; it must belong to root or to this user", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Not a file, too long, or no text.
    #[error("{}: is no text file of at most {KEY_BYTES_MAX} bytes", path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
}

impl KeySource for KeyFile {
    fn read(&self) -> Result<Zeroizing<String>, KeyFileError> {
        let path = &self.0;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        let file = options.open(path).map_err(|source| io_error(path, source))?;
        let metadata = file.metadata().map_err(|source| io_error(path, source))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if !metadata.is_file() {
            return Err(KeyFileError::Content { path: path.clone() });
        }
        if mode != MODE {
            return Err(KeyFileError::Mode { path: path.clone(), mode });
        }
        let uid = metadata.uid();
        if uid != 0 && uid != geteuid().as_raw() {
            return Err(KeyFileError::Owner { path: path.clone(), uid });
        }
        read_text(file, path)
    }
}

impl KeySource for Descriptor {
    fn read(&self) -> Result<Zeroizing<String>, KeyFileError> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.0));
        let file = File::open(&path).map_err(|source| io_error(&path, source))?;
        read_text(file, &path)
    }
}

fn read_text(file: File, path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    // Room for all of it at once: a growing buffer would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(KEY_BYTES_MAX as usize + 1));
    let read = file.take(KEY_BYTES_MAX + 1).read_to_string(&mut text);
    match read {
        Ok(length) if length as u64 <= KEY_BYTES_MAX => Ok(text),
        Err(source) if source.kind() != io::ErrorKind::InvalidData => Err(io_error(path, source)),
        Ok(_) | Err(_) => Err(KeyFileError::Content { path: path.to_owned() }),
    }
}

fn io_error(path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    use super::*;

    fn key_file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "text").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn only_mode_0400_is_a_key_file() {
        for mode in [0o600, 0o440, 0o404, 0o644, 0o4400] {
            let (_directory, path) = key_file(mode);
            assert!(matches!(KeyFile(path).read(), Err(KeyFileError::Mode { mode: is, .. }) if is == mode));
        }
        let (_directory, path) = key_file(0o400);
        assert_eq!(*KeyFile(path).read().unwrap(), "text");
    }

    #[test]
    fn a_link_a_directory_and_a_long_file_are_refused() {
        let (directory, path) = key_file(0o400);
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(KeyFile(link).read(), Err(KeyFileError::Io { .. })));
        assert!(matches!(KeyFile(directory.path().to_owned()).read(), Err(KeyFileError::Content { .. })));
        let long = directory.path().join("long");
        fs::write(&long, vec![b'x'; KEY_BYTES_MAX as usize + 1]).unwrap();
        fs::set_permissions(&long, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(matches!(KeyFile(long).read(), Err(KeyFileError::Content { .. })));
    }

    #[test]
    fn a_descriptor_is_read() {
        let (_directory, path) = key_file(0o400);
        let file = File::open(path).unwrap();
        assert_eq!(*Descriptor(file.as_raw_fd().cast_unsigned()).read().unwrap(), "text");
        assert!(matches!(Descriptor(u32::MAX).read(), Err(KeyFileError::Io { .. })));
    }
}
