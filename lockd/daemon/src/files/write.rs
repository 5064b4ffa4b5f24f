//! Files that are there whole, or not at all, whenever the power goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

/// Writes a file that must not be there yet.
pub fn create_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_directory(path)
}

/// Writes a file in place of the one that may be there: readers see the old one or the new one, of the same owner.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let next = beside(path);
    let owner = fs::metadata(path).ok().map(|metadata| (metadata.uid(), metadata.gid()));
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = create_new(&next, bytes, mode)
        .and_then(|()| owner.map_or(Ok(()), |(uid, gid)| chown(&next, Some(uid), Some(gid))))
        .and_then(|()| fs::rename(&next, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&next);
        return Err(error);
    }
    sync_directory(path)
}

/// A name that no reader of sealed files takes for one.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".next");
    path.with_file_name(name)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        create_new(&path, b"one", 0o400).unwrap();
        assert_eq!(create_new(&path, b"two", 0o400).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        // What a writer left behind that was killed.
        fs::write(beside(&path), "half").unwrap();
        replace(&path, b"three", 0o400).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o400);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        chown(&path, Some(65534), Some(65534)).expect("this test needs root");
        replace(&path, b"four", 0o400).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().uid(), 65534, "whoever could read it still can");
    }
}
