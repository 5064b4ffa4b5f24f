//! Which targets operators paused: names in a file of the data directory, which outlives the process.
//!
//! It is text: a first line with the format, a name a line in order, a last line `end`. It is replaced as a whole and durable
//! before a change is told to anybody. What is not of that form is refused at the start, by name: to ignore it would send
//! to a target that somebody held back.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zen_core::id::{NAME_BYTES_MAX, is_name};

/// The file in the data directory.
const FILE: &str = "paused-targets";
const FIRST_LINE: &str = "zen-dataplane paused targets 1";
const LAST_LINE: &str = "end";
const MODE: u32 = 0o600;
/// Targets that may be paused at a time.
pub const PAUSED_MAX: usize = 4096;
/// Longest file, bytes.
const FILE_BYTES_MAX: usize = FIRST_LINE.len() + LAST_LINE.len() + 2 + PAUSED_MAX * (NAME_BYTES_MAX + 1);

/// Why targets cannot be paused, or it is not known which are.
#[derive(Debug, thiserror::Error)]
pub enum PausedError {
    /// The file system.
    #[error("{path}: {source}; check the directory, its owner and the disk")]
    Io {
        /// Where.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Not what was written.
    #[error(
        "{path} is no list of paused targets; restore it, or remove it and pause again what shall be paused"
    )]
    Malformed {
        /// Where.
        path: String,
    },
    /// One more than may be.
    #[error(
        "{PAUSED_MAX} targets are paused, no more may be; resume some, or remove them from the configuration"
    )]
    TooMany,
}

/// What an operator wants of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Keep what comes.
    Pause,
    /// Deliver again.
    Resume,
}

/// The file and what is in it.
#[derive(Debug)]
pub struct Paused {
    file: PathBuf,
    names: Mutex<BTreeSet<String>>,
}

impl Paused {
    /// Reads the file of a data directory; without one, nothing is paused.
    pub fn load(data_dir: &Path) -> Result<Self, PausedError> {
        let file = data_dir.join(FILE);
        let text = match File::open(&file) {
            Ok(opened) => read(&opened).map_err(|source| failed(&file, source))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => encode(&BTreeSet::new()),
            Err(source) => return Err(failed(&file, source)),
        };
        let malformed = || PausedError::Malformed { path: file.display().to_string() };
        let names = decode(&text).ok_or_else(malformed)?;
        Ok(Self { file, names: Mutex::new(names) })
    }

    /// Whether a target is paused.
    pub fn contains(&self, target: &str) -> bool {
        self.names().contains(target)
    }

    /// Changes the file, durably, and then what [`Paused::contains`] says. It blocks on the disk.
    pub fn change(&self, target: &str, hold: Hold) -> Result<(), PausedError> {
        let mut names = self.names();
        let mut changed = names.clone();
        let is_other = match hold {
            Hold::Pause => changed.insert(target.to_owned()),
            Hold::Resume => changed.remove(target),
        };
        if !is_other {
            return Ok(());
        }
        if changed.len() > PAUSED_MAX {
            return Err(PausedError::TooMany);
        }
        self.write(&encode(&changed)).map_err(|source| failed(&self.file, source))?;
        *names = changed;
        Ok(())
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Durable under its name, or as before.
    fn write(&self, text: &str) -> io::Result<()> {
        let building = self.file.with_extension("tmp");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&building)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&building, &self.file)?;
        let directory = self.file.parent().expect("it was joined to the data directory");
        File::open(directory)?.sync_all()
    }
}

fn failed(file: &Path, source: io::Error) -> PausedError {
    PausedError::Io { path: file.display().to_string(), source }
}

/// What is not text is no list, too.
fn read(file: &File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap_or_default())
}

fn encode(names: &BTreeSet<String>) -> String {
    let names: String = names.iter().flat_map(|name| [name, "\n"]).collect();
    format!("{FIRST_LINE}\n{names}{LAST_LINE}\n")
}

fn decode(text: &str) -> Option<BTreeSet<String>> {
    let lines = text.strip_prefix(FIRST_LINE)?.strip_prefix('\n')?.strip_suffix("end\n")?;
    let names: Vec<&str> = lines.split_terminator('\n').collect();
    let is_whole = lines.is_empty() || lines.ends_with('\n');
    let is_list = names.len() <= PAUSED_MAX && names.iter().all(|name| is_name(name));
    // In order, each once: else it was not written here.
    (is_whole && is_list && names.is_sorted_by(|one, next| one < next))
        .then(|| names.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let paused = Paused::load(directory.path()).unwrap();
        assert!(!paused.contains("end"));
        for name in ["end", "billing", "crm", "crm"] {
            paused.change(name, Hold::Pause).unwrap();
        }
        paused.change("billing", Hold::Resume).unwrap();
        paused.change("nobody", Hold::Resume).unwrap();
        let again = Paused::load(directory.path()).unwrap();
        for paused in [&paused, &again] {
            let known = ["billing", "crm", "end", "nobody"].map(|name| paused.contains(name));
            assert_eq!(known, [false, true, true, false]);
        }
    }

    #[test]
    fn a_file_that_was_not_written_here_is_refused_at_every_truncation() {
        let directory = tempfile::tempdir().unwrap();
        let whole = format!("{FIRST_LINE}\nbilling\ncrm\nend\n");
        let path = directory.path().join(FILE);
        let load = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Paused::load(directory.path())
        };
        assert!(load(whole.as_bytes()).unwrap().contains("crm"));
        for at in 0..whole.len() {
            let said = load(&whole.as_bytes()[..at]).unwrap_err().to_string();
            assert!(said.contains(&*path.to_string_lossy()) && said.contains("remove it"), "{at}: {said}");
        }
        for text in [
            format!("{FIRST_LINE}\ncrm\nbilling\nend\n"),
            format!("{FIRST_LINE}\ncrm\ncrm\nend\n"),
            format!("{FIRST_LINE}\na b\nend\n"),
            format!("{FIRST_LINE}\n\nend\n"),
            format!("{FIRST_LINE}\nxend\n"),
            format!("{whole}\n"),
            format!("{FIRST_LINE}2\nend\n"),
        ] {
            assert!(matches!(load(text.as_bytes()), Err(PausedError::Malformed { .. })), "{text}");
        }
        assert!(matches!(load(b"\xff"), Err(PausedError::Malformed { .. })));
    }

    #[test]
    fn a_change_that_is_not_durable_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let paused = Paused::load(directory.path()).unwrap();
        fs::create_dir(directory.path().join("paused-targets.tmp")).unwrap();
        assert!(matches!(paused.change("crm", Hold::Pause), Err(PausedError::Io { .. })));
        assert!(!paused.contains("crm"));
    }

    #[test]
    fn so_many_and_no_more() {
        let names: BTreeSet<String> = (0..=PAUSED_MAX).map(|number| format!("target-{number}")).collect();
        assert!(decode(&encode(&names)).is_none());
        let directory = tempfile::tempdir().unwrap();
        let paused = Paused::load(directory.path()).unwrap();
        *paused.names() = names.into_iter().take(PAUSED_MAX).collect();
        assert!(matches!(paused.change("one-more", Hold::Pause), Err(PausedError::TooMany)));
    }
}
