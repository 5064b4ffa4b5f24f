//! The directory of sealed files, `NAMESPACE/NAME/KEY.age`: read anew for each opening, so that what is there counts.
//!
//! Each step down is opened beneath the one before and may be no symbolic link; each must belong to root or to us,
//! since whoever can write there could give our callers values of his own.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use zen_lock::SecretName;

use super::trusted::{PathFault, check_metadata, check_path};
use crate::vault::SEALED_BYTES_MAX;

/// What sealed files end in.
pub const SEALED_EXTENSION: &str = "age";
/// Leads to the generation in force, in a directory of generations.
const CURRENT: &str = "current";
const GENERATION: &str = "gen-";
const GENERATION_FILES: &str = "secrets";

/// Where sealed files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedFiles {
    /// One directory.
    Directory(PathBuf),
    /// A directory of generations, as the agent writes them: the link `current` leads to the one in force, `gen-NUMBER`,
    /// and nowhere else; its sealed files are in `gen-NUMBER/secrets`.
    Generations(PathBuf),
}

/// Why there are no bytes to open.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// No such file.
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    /// Somebody else could have put it there.
    #[error("{0}")]
    Path(#[from] PathFault),
    /// The link `current` leads to something else.
    #[error("{}: does not lead to gen-NUMBER beside it", .0.display())]
    Generation(PathBuf),
    /// Longer than any sealed file.
    #[error("{}: has over {SEALED_BYTES_MAX} bytes", .0.display())]
    Length(PathBuf),
    /// The file system.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SealedFiles {
    /// Checks the directory that was configured.
    pub fn check(&self) -> Result<(), PathFault> {
        check_path(self.root())
    }

    /// The directory that was configured.
    pub fn root(&self) -> &Path {
        let (Self::Directory(root) | Self::Generations(root)) = self;
        root
    }

    /// The directory that counts now.
    pub fn directory(&self) -> Result<PathBuf, TreeError> {
        Ok(self.steps()?.iter().fold(self.root().to_owned(), |path, step| path.join(step)))
    }

    /// The bytes of a sealed file.
    pub fn read(&self, name: &SecretName) -> Result<Vec<u8>, TreeError> {
        let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut path = self.root().to_owned();
        let mut at = open(&path, directory, Mode::empty()).map_err(|errno| step_error(&path, errno))?;
        let below = [name.namespace(), name.name()].map(str::to_owned);
        for part in self.steps()?.iter().chain(&below) {
            at = step(&at, &mut path, part, directory)?;
        }
        // Never blocks, even if somebody put a pipe there.
        let plain = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = step(&at, &mut path, &format!("{}.{SEALED_EXTENSION}", name.key()), plain)?;
        read_bounded(File::from(file), &path)
    }

    /// From the directory that was configured to the one that counts now.
    fn steps(&self) -> Result<Vec<String>, TreeError> {
        let Self::Generations(root) = self else { return Ok(Vec::new()) };
        let path = root.join(CURRENT);
        // Read once, and never followed: what it leads to is looked at as what it is.
        let leads_to = fs::read_link(&path).map_err(|source| TreeError::Io { path: path.clone(), source })?;
        let number = leads_to.to_str().and_then(|name| name.strip_prefix(GENERATION));
        let number: Option<u64> = number.and_then(|number| number.parse().ok());
        let number = number.ok_or(TreeError::Generation(path))?;
        Ok(vec![format!("{GENERATION}{number}"), GENERATION_FILES.to_owned()])
    }

    /// Names of all sealed files, sorted; what is no sealed file is not listed.
    pub fn list(&self) -> Result<Vec<SecretName>, TreeError> {
        let root = self.directory()?;
        let mut names = Vec::new();
        for namespace in entries(&root)? {
            for name in entries(&root.join(&namespace))? {
                for file in entries(&root.join(&namespace).join(&name))? {
                    let key = file.strip_suffix(SEALED_EXTENSION).and_then(|key| key.strip_suffix('.'));
                    names.extend(key.and_then(|key| SecretName::new(&namespace, &name, key).ok()));
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// The file of a secret in the directory that counts now.
    pub fn path(&self, name: &SecretName) -> Result<PathBuf, TreeError> {
        let file = format!("{}.{SEALED_EXTENSION}", name.key());
        Ok(self.directory()?.join(name.namespace()).join(name.name()).join(file))
    }
}

/// One step down, checked as what was opened and not as what is there a moment later.
fn step(from: &OwnedFd, path: &mut PathBuf, name: &str, flags: OFlag) -> Result<OwnedFd, TreeError> {
    path.push(name);
    let opened = openat(from, name, flags, Mode::empty()).map_err(|errno| step_error(path, errno))?;
    let file = File::from(opened);
    let metadata = file.metadata().map_err(|source| TreeError::Io { path: path.clone(), source })?;
    check_metadata(path, &metadata)?;
    if !flags.contains(OFlag::O_DIRECTORY) && !metadata.is_file() {
        return Err(PathFault::Kind(path.clone()).into());
    }
    Ok(file.into())
}

/// A link that is not followed is ELOOP, or ENOTDIR where a directory is wanted.
fn step_error(path: &Path, errno: Errno) -> TreeError {
    let is_link = || fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    match errno {
        Errno::ENOENT => TreeError::Missing(path.to_owned()),
        Errno::ELOOP | Errno::ENOTDIR if is_link() => PathFault::Link(path.to_owned()).into(),
        errno => TreeError::Io { path: path.to_owned(), source: errno.into() },
    }
}

fn read_bounded(file: File, path: &Path) -> Result<Vec<u8>, TreeError> {
    let mut bytes = Vec::new();
    let read = file.take(SEALED_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    let length = read.map_err(|source| TreeError::Io { path: path.to_owned(), source })?;
    if length > SEALED_BYTES_MAX {
        return Err(TreeError::Length(path.to_owned()));
    }
    Ok(bytes)
}

/// Names in a directory; what is no directory has none.
fn entries(directory: &Path) -> Result<Vec<String>, TreeError> {
    let failed = |source| TreeError::Io { path: directory.to_owned(), source };
    let found = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        found => found.map_err(failed)?,
    };
    let names = found.map(|entry| Ok(entry.map_err(failed)?.file_name().into_string()));
    let names: Vec<_> = names.collect::<Result<_, TreeError>>()?;
    Ok(names.into_iter().filter_map(Result::ok).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn secret() -> SecretName {
        SecretName::parse("edge/webhooks/github").unwrap()
    }

    fn tree() -> (tempfile::TempDir, SealedFiles) {
        let directory = tempfile::tempdir().unwrap();
        let files = SealedFiles::Directory(directory.path().to_owned());
        let path = files.path(&secret()).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "sealed").unwrap();
        (directory, files)
    }

    #[test]
    fn a_sealed_file_is_found_by_its_name() {
        let (_directory, files) = tree();
        assert_eq!(files.read(&secret()).unwrap(), b"sealed");
        assert_eq!(files.list().unwrap(), [secret()]);
        let other = SecretName::parse("edge/webhooks/gitlab").unwrap();
        assert!(matches!(files.read(&other), Err(TreeError::Missing(_))));
    }

    #[test]
    fn no_step_is_a_symbolic_link() {
        for link in ["edge", "edge/webhooks", "edge/webhooks/github.age"] {
            let (directory, files) = tree();
            let (from, to) = (directory.path().join(link), directory.path().join("elsewhere"));
            fs::rename(&from, &to).unwrap();
            symlink(&to, &from).unwrap();
            let error = files.read(&secret()).unwrap_err();
            assert!(matches!(error, TreeError::Path(PathFault::Link(path)) if path == from), "{link}");
        }
    }

    #[test]
    fn what_others_can_write_is_not_read() {
        for part in ["edge", "edge/webhooks", "edge/webhooks/github.age"] {
            let (directory, files) = tree();
            let path = directory.path().join(part);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            let error = files.read(&secret()).unwrap_err();
            assert!(matches!(error, TreeError::Path(PathFault::Writable { .. })), "{part}");
        }
    }

    #[test]
    fn a_pipe_or_a_long_file_holds_nobody_up() {
        let (_directory, files) = tree();
        let path = files.path(&secret()).unwrap();
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        assert!(matches!(files.read(&secret()), Err(TreeError::Path(PathFault::Kind(_)))));
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![0; SEALED_BYTES_MAX + 1]).unwrap();
        assert!(matches!(files.read(&secret()), Err(TreeError::Length(_))));
    }

    #[test]
    fn the_generation_in_force_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let files = SealedFiles::Generations(directory.path().to_owned());
        assert!(matches!(files.read(&secret()), Err(TreeError::Io { .. })));
        let current = directory.path().join(CURRENT);
        let lead_to = |place: &str| {
            let next = directory.path().join("next");
            symlink(place, &next).unwrap();
            fs::rename(next, &current).unwrap();
        };
        for generation in [7, 8] {
            lead_to(&format!("gen-{generation}"));
            let path = files.path(&secret()).unwrap();
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("sealed {generation}")).unwrap();
            assert_eq!(files.read(&secret()).unwrap(), format!("sealed {generation}").into_bytes());
        }
        for elsewhere in ["../elsewhere", "/tmp/gen-7", "gen-7/../../elsewhere", "gen-", "7", "gen-7/secrets"]
        {
            lead_to(elsewhere);
            assert!(matches!(files.read(&secret()), Err(TreeError::Generation(_))), "{elsewhere}");
        }
        // A generation that is a link itself leads nowhere.
        symlink("gen-8", directory.path().join("gen-9")).unwrap();
        lead_to("gen-9");
        assert!(matches!(files.read(&secret()), Err(TreeError::Path(PathFault::Link(_)))));
    }
}
