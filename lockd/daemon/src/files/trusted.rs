//! Whether somebody else could put another file in a path's place.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why a path is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum PathFault {
    /// Relative, or with `..` in it.
    #[error("{}: give an absolute path without ..", .0.display())]
    Relative(PathBuf),
    /// It, or a directory above it, is a symbolic link.
    #[error("{}: is a symbolic link; give the path that it leads to", .0.display())]
    Link(PathBuf),
    /// Somebody else could replace it.
    #[error("{}: belongs to user {uid}; it must belong to root or to the user that runs lockd", path.display())]
    Owner {
        /// Which part of the path.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Somebody else could write to it.
    #[error("{}: group or others may write there (mode {mode:04o}); chmod go-w", path.display())]
    Writable {
        /// Which part of the path.
        path: PathBuf,
        /// The mode.
        mode: u32,
    },
    /// Not a plain file.
    #[error("{}: is no regular file", .0.display())]
    Kind(PathBuf),
    /// The file system.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which part of the path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Checks a path and every directory above it; nobody but root and we may be able to change what it means.
pub fn check_path(path: &Path) -> Result<(), PathFault> {
    let is_plain = |part| matches!(part, std::path::Component::Normal(_) | std::path::Component::RootDir);
    if !path.is_absolute() || !path.components().all(is_plain) {
        return Err(PathFault::Relative(path.to_owned()));
    }
    for part in path.ancestors() {
        let metadata =
            fs::symlink_metadata(part).map_err(|source| PathFault::Io { path: part.to_owned(), source })?;
        check_metadata(part, &metadata)?;
    }
    Ok(())
}

/// Checks one part of a path.
pub(super) fn check_metadata(path: &Path, metadata: &Metadata) -> Result<(), PathFault> {
    if metadata.is_symlink() {
        return Err(PathFault::Link(path.to_owned()));
    }
    let uid = metadata.uid();
    if uid != 0 && uid != geteuid().as_raw() {
        return Err(PathFault::Owner { path: path.to_owned(), uid });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    // In a directory like /tmp only owners may rename what is theirs.
    let is_shared_safely = metadata.is_dir() && mode & STICKY != 0;
    if mode & WRITABLE_BY_OTHERS != 0 && !is_shared_safely {
        return Err(PathFault::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_path_that_others_could_change_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        let file = inner.join("file");
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "x").unwrap();
        set_mode(&inner, 0o755);
        set_mode(&file, 0o644);
        check_path(&file).unwrap();
        set_mode(&file, 0o664);
        assert!(matches!(check_path(&file), Err(PathFault::Writable { mode: 0o664, .. })));
        set_mode(&file, 0o644);
        set_mode(&inner, 0o777);
        assert!(matches!(check_path(&file), Err(PathFault::Writable { path, .. }) if path == inner));
        set_mode(&inner, 0o1777);
        check_path(&file).unwrap();
        let link = directory.path().join("link");
        symlink(&inner, &link).unwrap();
        assert!(matches!(check_path(&link.join("file")), Err(PathFault::Link(path)) if path == link));
    }

    #[test]
    fn a_path_that_is_not_plain_is_refused() {
        assert!(matches!(check_path(Path::new("etc/passwd")), Err(PathFault::Relative(_))));
        assert!(matches!(check_path(Path::new("/etc/../etc/passwd")), Err(PathFault::Relative(_))));
        assert!(matches!(check_path(Path::new("/nonexistent/file")), Err(PathFault::Io { .. })));
    }
}
