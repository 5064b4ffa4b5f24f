//! Directories of generations and single files on disk: whole, or not there, whenever the power goes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::core::{CURRENT, Entry, Operation, Plan, generation_number, plan};

/// Longest file that is read back, bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(crate) struct FileError {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// Modes of what is published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Modes {
    pub(crate) directory: u32,
    pub(crate) file: u32,
}

/// For lockd, root, and the agent alone.
pub(crate) const PRIVATE: Modes = Modes { directory: 0o700, file: 0o600 };
/// For nodes, which run as users of their own; there is no secret in it.
pub(crate) const SHARED: Modes = Modes { directory: 0o755, file: 0o644 };

/// A directory of generations.
#[derive(Clone, Debug)]
pub(crate) struct Generations {
    root: PathBuf,
    modes: Modes,
}

impl Generations {
    /// Makes the directory if it is not there.
    pub(crate) fn open(root: PathBuf, modes: Modes) -> Result<Self, FileError> {
        make_directory(&root, modes.directory)?;
        Ok(Self { root, modes })
    }

    /// The number of the generation in force.
    pub(crate) fn current(&self) -> Option<u64> {
        let leads_to = fs::read_link(self.root.join(CURRENT)).ok()?;
        leads_to.to_str().and_then(generation_number)
    }

    /// Where the generation in force is.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        Some(self.root.join(crate::core::generation_name(self.current()?)))
    }

    /// A file of the generation in force.
    pub(crate) fn read(&self, path: &str) -> Result<Option<Vec<u8>>, FileError> {
        let Some(directory) = self.directory() else { return Ok(None) };
        read_file(&directory.join(path))
    }

    /// Sets the time of a file of the generation in force to now.
    pub(crate) fn touch(&self, path: &str) -> Result<(), FileError> {
        let Some(directory) = self.directory() else { return Ok(()) };
        let path = directory.join(path);
        let touched = File::open(&path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
        touched.map_err(|source| FileError { path, source })
    }

    /// Names of all files of the generation in force, sorted.
    pub(crate) fn list(&self) -> Result<Vec<String>, FileError> {
        let mut found = Vec::new();
        if let Some(directory) = self.directory() {
            list_below(&directory, "", &mut found)?;
        }
        found.sort();
        Ok(found)
    }

    /// Puts a new generation in force.
    pub(crate) fn publish(&self, entries: &[Entry]) -> Result<u64, FileError> {
        let Plan { generation, operations } = self.plan(entries)?;
        operations.iter().try_for_each(|operation| self.apply(operation))?;
        Ok(generation)
    }

    fn plan(&self, entries: &[Entry]) -> Result<Plan, FileError> {
        let failed = |source| FileError { path: self.root.clone(), source };
        let mut present = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            present.extend(name.to_str().and_then(generation_number));
        }
        Ok(plan(self.current(), &present, entries))
    }

    fn apply(&self, operation: &Operation) -> Result<(), FileError> {
        let at = |path: &str| if path.is_empty() { self.root.clone() } else { self.root.join(path) };
        let (path, done) = match operation {
            Operation::MakeDirectory(path) => {
                (path, DirBuilder::new().mode(self.modes.directory).create(at(path)))
            }
            Operation::Write(path, bytes) => (path, write_new(&at(path), bytes, self.modes.file)),
            Operation::Link { from, to } => (to, fs::hard_link(at(from), at(to))),
            Operation::SyncDirectory(path) => (path, File::open(at(path)).and_then(|file| file.sync_all())),
            Operation::Point { link, to } => {
                (link, remove_file(&at(link)).and_then(|()| symlink(to, at(link))))
            }
            Operation::Rename { from, to } => (to, fs::rename(at(from), at(to))),
            Operation::Remove(path) => match fs::remove_dir_all(at(path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => (path, Err(error)),
                _ => (path, Ok(())),
            },
        };
        done.map_err(|source| FileError { path: at(path), source })
    }
}

/// Makes a directory and those above it.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), FileError> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| FileError { path: path.to_owned(), source })
}

/// The bytes of a file, if it is there.
pub(crate) fn read_file(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let failed = |source| FileError { path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(Some(bytes))
}

/// Whether what was written has to outlive a loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It has.
    Synced,
    /// It will be written again soon.
    Cached,
}

/// Writes a file in place of the one that may be there: readers see the old one or the new one.
pub(crate) fn replace_file(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> Result<(), FileError> {
    let failed = |source| FileError { path: path.to_owned(), source };
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".next");
    let next = path.with_file_name(name);
    remove_file(&next).map_err(failed)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&next).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    if durability == Durability::Cached {
        return fs::rename(&next, path).map_err(failed);
    }
    file.sync_all().and_then(|()| fs::rename(&next, path)).map_err(failed)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Removes a file if it is there.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn list_below(directory: &Path, prefix: &str, found: &mut Vec<String>) -> Result<(), FileError> {
    let failed = |source| FileError { path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{prefix}{name}");
        if entry.file_type().map_err(failed)?.is_dir() {
            list_below(&entry.path(), &format!("{path}/"), found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::core::Content;

    const NAMES: [&str; 3] = ["node.toml", "secrets/zen/a/key-1.age", "secrets/zen/b/key-1.age"];

    fn entries(text: &str) -> Vec<Entry> {
        let content = || Content::Bytes(text.as_bytes().to_vec());
        NAMES.iter().map(|path| Entry { path: (*path).to_owned(), content: content() }).collect()
    }

    /// What a reader sees: all files of one generation.
    fn seen(generations: &Generations) -> Option<String> {
        generations.current()?;
        assert_eq!(generations.list().unwrap(), NAMES);
        let read = |name: &&str| String::from_utf8(generations.read(name).unwrap().unwrap()).unwrap();
        let texts: Vec<String> = NAMES.iter().map(read).collect();
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
        Some(texts[0].clone())
    }

    #[test]
    fn every_prefix_of_a_publication_leaves_a_whole_generation() {
        for before in [0, 1, 3] {
            let mut done = 0;
            loop {
                let directory = tempfile::tempdir().unwrap();
                let generations = Generations::open(directory.path().join("g"), SHARED).unwrap();
                for text in (1..=before).map(|number| format!("old {number}")) {
                    generations.publish(&entries(&text)).unwrap();
                }
                let old = seen(&generations);
                let Plan { operations, .. } = generations.plan(&entries("new")).unwrap();
                for operation in &operations[..done] {
                    generations.apply(operation).unwrap();
                }
                let found = seen(&generations);
                assert!(found == old || found.as_deref() == Some("new"), "{before} {done}: {found:?}");
                // The next run finds what the power cut left behind.
                generations.publish(&entries("again")).unwrap();
                assert_eq!(seen(&generations).as_deref(), Some("again"));
                generations.publish(&entries("last")).unwrap();
                let left = fs::read_dir(directory.path().join("g")).unwrap().count();
                assert_eq!(left, 3, "two generations and a link: {before} {done}");
                if done == operations.len() {
                    assert_eq!(found.as_deref(), Some("new"));
                    break;
                }
                done += 1;
            }
            assert!(done > 12);
        }
    }

    #[test]
    fn a_write_that_was_cut_short_is_never_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let generations = Generations::open(directory.path().join("g"), PRIVATE).unwrap();
        generations.publish(&entries("old")).unwrap();
        let Plan { operations, .. } = generations.plan(&entries("new")).unwrap();
        for operation in operations {
            match operation {
                Operation::Write(path, bytes) => {
                    generations.apply(&Operation::Write(path, bytes[..1].to_vec())).unwrap();
                    assert_eq!(seen(&generations).as_deref(), Some("old"));
                    break;
                }
                other => generations.apply(&other).unwrap(),
            }
        }
        generations.publish(&entries("new")).unwrap();
        assert_eq!(seen(&generations).as_deref(), Some("new"));
    }

    #[test]
    fn what_did_not_change_is_linked_and_modes_are_as_said() {
        let directory = tempfile::tempdir().unwrap();
        let generations = Generations::open(directory.path().join("g"), PRIVATE).unwrap();
        generations.publish(&entries("one")).unwrap();
        let same: Vec<Entry> =
            NAMES.iter().map(|path| Entry { path: (*path).to_owned(), content: Content::Same }).collect();
        assert_eq!(generations.publish(&same).unwrap(), 2);
        assert_eq!(seen(&generations).as_deref(), Some("one"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let root = directory.path().join("g/gen-2");
        assert_eq!((mode(&root), mode(&root.join("node.toml"))), (0o700, 0o600));
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(directory.path().join(".file.next"), "left behind").unwrap();
        replace_file(&path, b"one", 0o600, Durability::Synced).unwrap();
        replace_file(&path, b"two", 0o600, Durability::Cached).unwrap();
        assert_eq!(read_file(&path).unwrap().unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(read_file(&directory.path().join("other")).unwrap(), None);
    }
}
