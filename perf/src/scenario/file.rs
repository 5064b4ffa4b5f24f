//! Scenarios as files: what is sent, to whom, how often, and whether a quick run has it.
//!
//! In: `perf/scenarios/*.toml`, where a key that is not known is refused. Out: [`Scenario`]s in the order of their names.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::system::System;
use crate::error::LabError;

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    /// The file's name without its ending.
    #[serde(skip)]
    pub(super) name: String,
    /// What it shows.
    pub(super) description: String,
    /// What differs between its rows, besides the system.
    pub(super) varies: String,
    /// How it is measured.
    pub(super) kind: Kind,
    /// Who takes part, as [`System::parse`] knows them.
    pub(super) systems: Vec<String>,
    /// Which part of the way is there.
    #[serde(default)]
    pub(super) hops: Hops,
    /// Workers, or threads, of each hop.
    #[serde(default = "one_worker")]
    pub(super) workers: Vec<u32>,
    /// Connections at once.
    pub(super) connections: Vec<u32>,
    /// Bytes of a body; of a mix, the median.
    pub(super) body_bytes: u64,
    /// Whose events' sizes the bodies have; without it all are equal.
    pub(super) mix: Option<Mix>,
    /// A connection and a full handshake for each event.
    #[serde(default)]
    pub(super) new_connections: bool,
    /// Of all sendings, those of an event that was sent before.
    #[serde(default)]
    pub(super) duplicates_percent: u32,
    /// Offered rates, in percent of what each system carries at most.
    #[serde(default)]
    pub(super) rates_percent: Vec<u32>,
    /// In a full run.
    pub(super) full: Pace,
    /// In a quick run, if it is in one.
    pub(super) quick: Option<Pace>,
}

/// How long it takes, and what a shorter run leaves out.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pace {
    /// Over all rows.
    pub(super) rounds: usize,
    /// That are measured, of each row in a round.
    pub(super) seconds: u64,
    /// Instead of the scenario's.
    pub(super) systems: Option<Vec<String>>,
    /// Instead of the scenario's.
    pub(super) connections: Option<Vec<u32>>,
    /// Instead of the scenario's.
    pub(super) rates_percent: Option<Vec<u32>>,
}

/// How a scenario is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// As fast as the answers come.
    Closed,
    /// At set rates, behind a closed loop that says what each system carries.
    Rates,
    /// Connections that say nothing.
    Idle,
    /// Deliveries to nine targets, with and without a tenth that is dead.
    DeadTarget,
    /// Events that are left during a flood.
    Flood,
}

/// Which hops run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Hops {
    /// The first alone: it leads to the target. The mesh's second hop runs, and its process is not counted.
    Ingest,
    /// Both.
    #[default]
    Both,
}

/// Sizes that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mix {
    /// As GitHub's events have them.
    Github,
}

fn one_worker() -> Vec<u32> {
    vec![1]
}

/// Which runs there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Under five minutes.
    Quick,
    /// Everything.
    Full,
}

impl Scenario {
    /// Reads a file.
    fn read(path: &Path) -> Result<Self, LabError> {
        let text = std::fs::read_to_string(path).map_err(LabError::file(path))?;
        let broken = |source| LabError::Toml { path: path.to_owned(), source: Box::new(source) };
        let mut scenario: Self = toml::from_str(&text).map_err(broken)?;
        scenario.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for system in scenario
            .systems
            .iter()
            .chain(scenario.quick.iter().flat_map(|pace| pace.systems.iter().flatten()))
        {
            System::parse(system)?;
        }
        Ok(scenario)
    }

    /// As `mode` has it; `None` if it has not.
    pub(super) fn paced(&self, mode: Mode) -> Option<Self> {
        let pace = match mode {
            Mode::Quick => self.quick.clone()?,
            Mode::Full => self.full.clone(),
        };
        let mut paced = self.clone();
        paced.systems = pace.systems.clone().unwrap_or(paced.systems);
        paced.connections = pace.connections.clone().unwrap_or(paced.connections);
        paced.rates_percent = pace.rates_percent.clone().unwrap_or(paced.rates_percent);
        paced.full = pace;
        Some(paced)
    }

    /// Who takes part, of those that may.
    pub(super) fn systems(&self, allowed: &[System]) -> Vec<System> {
        let own = self.systems.iter().map(|name| System::parse(name).expect("read() has looked at each"));
        own.filter(|system| allowed.contains(system)).collect()
    }
}

/// All scenarios of a directory, by name.
pub(super) fn read_all(directory: &Path) -> Result<Vec<Scenario>, LabError> {
    let entries = std::fs::read_dir(directory).map_err(LabError::file(directory))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    paths.sort();
    paths.iter().map(|path| Scenario::read(path)).collect()
}

/// Those that `mode` has, or that are named; a name that nobody has is an error that lists all.
pub(super) fn select(all: &[Scenario], mode: Mode, only: &[String]) -> Result<Vec<Scenario>, LabError> {
    if let Some(unknown) = only.iter().find(|name| all.iter().all(|scenario| scenario.name != **name)) {
        let known = all.iter().map(|scenario| scenario.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(LabError::Unknown { what: "scenario", name: unknown.clone(), known });
    }
    // One that is named runs in a quick run too, at its full pace if it has no other.
    let paced = |scenario: &Scenario| {
        let named = only.contains(&scenario.name);
        scenario.paced(mode).or_else(|| named.then(|| scenario.paced(Mode::Full)).flatten())
    };
    let chosen = all.iter().filter(|scenario| only.is_empty() || only.contains(&scenario.name));
    Ok(chosen.filter_map(paced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn every_scenario_parses_and_is_in_the_documentation() {
        let all = read_all(&repository().join("perf/scenarios")).unwrap();
        let page = std::fs::read_to_string(repository().join("docs/lab.md")).unwrap();
        assert!(all.len() >= 9);
        for scenario in &all {
            assert!(page.contains(&format!("| `{}` |", scenario.name)), "{} in docs/lab.md", scenario.name);
            assert!(!scenario.connections.is_empty() && !scenario.workers.is_empty(), "{}", scenario.name);
            let is_rates = scenario.kind == Kind::Rates;
            assert_eq!(is_rates, !scenario.rates_percent.is_empty(), "rates_percent of {}", scenario.name);
        }
    }

    #[test]
    fn a_file_with_a_fault_is_refused_with_the_reason() {
        let good = std::fs::read_to_string(repository().join("perf/scenarios/keep-alive.toml")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.toml");
        for (from, to, reason) in [
            ("kind = \"closed\"", "kind = \"open\"", "unknown variant `open`"),
            ("kind = ", "sort = \"x\"\nkind = ", "unknown field `sort`"),
            ("\"haproxy\"", "\"apache\"", "no system is called apache; there are: zen, zen-epoll, haproxy"),
            ("[full]", "[slow]", "unknown field `slow`"),
            ("rounds = ", "round = ", "unknown field `round`"),
        ] {
            assert!(good.contains(from), "{from}");
            std::fs::write(&path, good.replacen(from, to, 1)).unwrap();
            let error = Scenario::read(&path).unwrap_err().to_string();
            assert!(error.contains(reason), "{to}: {error}");
        }
    }

    #[test]
    fn what_is_named_runs_and_what_nobody_knows_does_not() {
        let all = read_all(&repository().join("perf/scenarios")).unwrap();
        let names = |mode, only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            select(&all, mode, &only).map(|some| some.into_iter().map(|one| one.name).collect::<Vec<_>>())
        };
        assert_eq!(names(Mode::Full, &[]).unwrap().len(), all.len());
        assert!(names(Mode::Quick, &[]).unwrap().len() < all.len());
        assert_eq!(names(Mode::Quick, &["flood"]).unwrap(), ["flood"]);
        let error = names(Mode::Full, &["keep-alive", "nonsense"]).unwrap_err().to_string();
        assert!(error.starts_with("no scenario is called nonsense; there are: "), "{error}");
        assert!(error.contains("keep-alive"), "{error}");
    }

    #[test]
    fn a_quick_run_may_have_fewer_of_everything() {
        let all = read_all(&repository().join("perf/scenarios")).unwrap();
        let rates = all.iter().find(|scenario| scenario.kind == Kind::Rates).unwrap();
        let quick = rates.paced(Mode::Quick).unwrap();
        assert!(quick.rates_percent.len() < rates.rates_percent.len());
        assert!(quick.full.rounds <= rates.full.rounds && quick.full.seconds <= rates.full.seconds);
    }
}
