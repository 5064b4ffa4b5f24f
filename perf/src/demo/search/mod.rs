//! Looks for the lab's secrets in clear: in every file below its directory, and in the arguments and
//! environments of its processes.
//!
//! In: the secrets, and where to look. Out: a line that says what was sought where, and a complaint for each
//! find. Each search first plants a value of its own and has to find it. Not looked at: the file of zen-lockd's
//! own key, whose contents are sought everywhere else, and memory.

mod proof;
mod values;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use zen_search::{Form, Hit, Needles, Value};

use self::proof::{Proof, throw_away};
use crate::error::LabError;
use crate::lab::{Lab, Process, Vault};

/// Finds that are told one by one.
const TOLD_MAX: usize = 100;

/// What is sought, and where.
pub(super) struct Search {
    secrets: usize,
    values: Vec<Value>,
    needles: Needles,
    /// The last of the values.
    throw_away: String,
    directory: PathBuf,
    excluded: PathBuf,
}

/// A value in clear.
struct Find {
    place: PathBuf,
    hit: Hit,
}

/// What a search has seen.
#[derive(Default)]
struct Seen {
    files: usize,
    bytes: u64,
    finds: Vec<Find>,
    unreadable: Vec<String>,
}

/// What came of a search.
pub(super) struct Report {
    /// What was sought where, and what was found.
    pub(super) line: String,
    /// What is wrong.
    pub(super) complaints: Vec<String>,
}

impl Search {
    /// For all secrets of the lab, and the key of its zen-lockd.
    pub(super) fn new(lab: &Lab, vault: &Vault) -> Result<Self, LabError> {
        let excluded = vault.own_key();
        let own_key = fs::read_to_string(&excluded).map_err(LabError::file(&excluded))?;
        let mut values: Vec<Value> = lab.secrets.iter().flat_map(values::of_secret).collect();
        values.push(values::of_own_key(&own_key)?);
        Ok(Self::of(values, lab.secrets.len() + 1, &lab.directory, &excluded))
    }

    fn of(mut values: Vec<Value>, secrets: usize, directory: &Path, excluded: &Path) -> Self {
        let throw_away = throw_away();
        let bytes = throw_away.as_bytes().to_vec().into();
        values.push(Value { name: "the search's own".to_owned(), bytes });
        Self {
            secrets,
            needles: Needles::new(&values),
            values,
            throw_away,
            directory: directory.to_owned(),
            excluded: excluded.to_owned(),
        }
    }

    /// Searches all files, and `processes`; `when` is what the line says of the moment.
    pub(super) fn run(&self, when: &str, processes: &[&Process]) -> Result<Report, LabError> {
        let proof = Proof::plant(&self.directory, &self.throw_away)?;
        let mut seen = Seen::default();
        for file in files(&self.directory)?.into_iter().filter(|file| *file != self.excluded) {
            seen.bytes += self.look(&file, &mut seen);
            seen.files += 1;
        }
        for place in processes.iter().map(|process| process.id()).chain([proof.process()]).flat_map(told_of) {
            self.look(&place, &mut seen);
        }
        let is_own = |find: &Find| find.hit.value == self.values.len() - 1;
        let (own, finds): (Vec<Find>, Vec<Find>) = seen.finds.drain(..).partition(is_own);
        let mut complaints = proof.missed(&own, &told_of(proof.process()));
        let plants = [proof.len() - complaints.len(), proof.len()];
        proof.remove()?;
        complaints.append(&mut seen.unreadable);
        complaints.extend(finds.iter().take(TOLD_MAX).map(|find| self.complaint(find, processes)));
        if finds.len() > TOLD_MAX {
            complaints.push(format!("secrets are in clear in {} further places", finds.len() - TOLD_MAX));
        }
        Ok(Report { line: self.line(when, &seen, processes.len(), plants, finds.len()), complaints })
    }

    /// Notes what is in a file or what Linux shows as one; one that went away holds nothing.
    fn look(&self, place: &Path, seen: &mut Seen) -> u64 {
        match File::open(place).and_then(|file| self.needles.scan(file)) {
            Ok((bytes, hits)) => {
                seen.finds.extend(hits.into_iter().map(|hit| Find { place: place.to_owned(), hit }));
                bytes
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => {
                seen.unreadable.push(format!("{} could not be searched: {error}", place.display()));
                0
            }
        }
    }

    fn complaint(&self, find: &Find, processes: &[&Process]) -> String {
        let Find { place, hit: Hit { value, form, offset } } = find;
        let owner = processes.iter().find(|process| told_of(process.id()).contains(place));
        let owner = owner.map_or_else(String::new, |process| format!(" of {}", process.name));
        let name = &self.values[*value].name;
        format!("{name} is in clear in {}{owner} at byte {offset} ({})", place.display(), form.label())
    }

    fn line(
        &self,
        when: &str,
        seen: &Seen,
        processes: usize,
        [found, plants]: [usize; 2],
        finds: usize,
    ) -> String {
        let verdict = if finds == 0 { "nothing found".to_owned() } else { format!("{finds} FOUND") };
        let told = if processes == 0 {
            String::new()
        } else {
            format!(", in arguments and environments of {processes} processes")
        };
        format!(
            "search {when}: {} secrets ({} values, {} spellings in {} forms) in {} files ({} MiB){told}: {verdict}; \
             {found} of {plants} plants found; left out: {}",
            self.secrets,
            self.values.len() - 1,
            self.needles.spellings(),
            Form::ALL.len(),
            seen.files,
            seen.bytes >> 20,
            self.excluded.display()
        )
    }
}

/// Where Linux tells the environment and the arguments of a process.
fn told_of(process: u32) -> [PathBuf; 2] {
    ["environ", "cmdline"].map(|name| PathBuf::from(format!("/proc/{process}/{name}")))
}

/// All regular files below `directory`; no symbolic link is followed.
fn files(directory: &Path) -> Result<Vec<PathBuf>, LabError> {
    let entries = match fs::read_dir(directory) {
        // A node has removed it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(LabError::file(directory))?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.map_err(LabError::file(directory))?;
        let kind = entry.file_type().map_err(LabError::file(&entry.path()))?;
        if kind.is_dir() {
            all.extend(files(&entry.path())?);
        } else if kind.is_file() {
            all.push(entry.path());
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Shape;

    #[test]
    fn every_secret_of_a_lab_with_plain_files_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let lab = Lab::make(directory.path(), Shape::DEMO, 1).unwrap();
        let excluded = lab.directory.join("secrets/link-inside");
        let values = lab.secrets.iter().flat_map(values::of_secret).collect();
        let report =
            Search::of(values, lab.secrets.len(), &lab.directory, &excluded).run("here", &[]).unwrap();
        let told = report.complaints.join("\n");
        for secret in &lab.secrets {
            let name = secret.name();
            assert_eq!(told.contains(&name), !name.contains("/links/"), "{name}\n{told}");
            assert!(!told.contains(secret.value.as_str()));
        }
        assert!(report.line.contains(" FOUND;"), "{}", report.line);
    }

    #[test]
    fn a_search_of_nothing_finds_its_own_plants_only() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("below")).unwrap();
        fs::write(directory.path().join("below/file"), vec![b'x'; 3 << 20]).unwrap();
        let search = Search::of(Vec::new(), 0, directory.path(), Path::new("/none"));
        let report = search.run("here", &[]).unwrap();
        assert_eq!(report.complaints, [""; 0]);
        assert!(report.line.contains("in 2 files (3 MiB)"), "{}", report.line);
        assert_eq!(files(directory.path()).unwrap(), [directory.path().join("below/file")]);
    }

    #[test]
    fn a_plant_that_is_not_sought_is_missed() {
        let directory = tempfile::tempdir().unwrap();
        let mut search = Search::of(Vec::new(), 0, directory.path(), Path::new("/none"));
        search.throw_away = throw_away();
        let report = search.run("here", &[]).unwrap();
        let missed = |text: &&String| text.starts_with("the search does not find its own plant");
        assert_eq!(report.complaints.iter().filter(missed).count(), 19, "{:?}", report.complaints);
    }
}
