//! The `scenarios` command: the mesh and its peers under the loads of `perf/scenarios/`, in interleaved rounds.
//!
//! Out: `result.json` and a page beside it, a table, what the reader has to know, and a line for each goal. What cannot run
//! here is a remark, and its goals are missed; a name that nobody has, or a named system that is not installed, ends the run
//! before it begins. A run is invalid if HAProxy did much worse than its reference on a machine as fast as the reference's.

mod cell;
mod file;
mod found;
mod goals;
mod idle;
mod machine;
mod others;
mod placement;
mod rounds;
mod running;
mod sender;
mod side;
mod system;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::file::{Kind, Mode, Scenario};
use self::found::Found;
use self::placement::Placement;
use self::rounds::GOAL_SCENARIO;
pub(crate) use self::side::{Side, SideLoad, SideSetup, WARM_UP_S};
use self::system::System;
use crate::bench::insights;
use crate::error::LabError;
use crate::lab::node_program;
use crate::results::{self, FORMAT, Run, Stages};

const PROFILE_LENGTH: Duration = Duration::from_secs(8);

/// Options of `scenarios`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("mode").required(true).multiple(false).args(["quick", "full"]))]
pub(crate) struct Options {
    /// Under five minutes: fewer scenarios, rounds and systems.
    #[arg(long)]
    quick: bool,
    /// Everything, with a profile by stage.
    #[arg(long)]
    full: bool,
    /// Scenarios, by the names of their files [default: all of the run].
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Systems: zen, zen-epoll, haproxy, ... [default: all that a scenario names and that are installed].
    #[arg(long, value_delimiter = ',')]
    systems: Vec<String>,
    /// Rounds of each scenario, instead of its own.
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds that are measured each time, instead of the scenario's own.
    #[arg(long)]
    seconds: Option<u64>,
    /// Directory of the labs; made anew each time. Its disk is what is measured.
    #[arg(long, default_value = "lab/scenarios")]
    dir: PathBuf,
    /// Directory of the results [default: `lab/runs/quick` or `lab/runs/full`].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where the scenarios are.
    #[arg(long, default_value = "perf/scenarios")]
    scenarios: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Fail if a goal is missed.
    #[arg(long)]
    strict: bool,
}

/// What all scenarios share.
struct Stage<'a> {
    directory: &'a Path,
    node: &'a Path,
    placement: &'a Placement,
}

impl Options {
    fn mode(&self) -> Mode {
        if self.full { Mode::Full } else { Mode::Quick }
    }

    fn out(&self) -> PathBuf {
        let name = if self.full { "lab/runs/full" } else { "lab/runs/quick" };
        self.out.clone().unwrap_or_else(|| PathBuf::from(name))
    }

    fn chosen(&self) -> Result<Vec<Scenario>, LabError> {
        let mut chosen = file::select(&file::read_all(&self.scenarios)?, self.mode(), &self.only)?;
        for scenario in &mut chosen {
            scenario.full.rounds = self.rounds.unwrap_or(scenario.full.rounds).max(1);
            scenario.full.seconds = self.seconds.unwrap_or(scenario.full.seconds).max(1);
        }
        Ok(chosen)
    }
}

/// Measures, writes and prints.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let (begun, begun_unix_s) = (Instant::now(), unix_s());
    let node = node_program(options.node.as_deref())?;
    let scenarios = options.chosen()?;
    let mut found = Found::default();
    let (allowed, versions) = allowed(&options, &scenarios, &node, &mut found)?;
    let placement = Placement::here();
    std::fs::create_dir_all(&options.dir).map_err(LabError::file(&options.dir))?;
    let machine = machine::describe(&placement, &options.dir, versions);
    println!("{}, {} cores, Linux {}, {}", machine.processor, machine.cores, machine.kernel, machine.disk);
    println!("{}\n", machine.placement.join("; "));
    let stage = Stage { directory: &options.dir, node: &node, placement: &placement };
    for scenario in &scenarios {
        if let Err(error) = measure(&stage, scenario, &allowed, &mut found).await {
            eprintln!("{}: {error}", scenario.name);
            found.failures.insert(scenario.name.clone(), error.to_string());
        }
    }
    let stages = look_inside(&options, &stage, &scenarios, &allowed, &mut found).await;
    let (words, is_valid) = found.validity();
    let asked = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let verdicts = goals::judge(&found, asked);
    let remarks = [words, found.doubts(), found.remarks.clone(), verdicts.remarks].concat();
    let run = Run {
        format: FORMAT,
        begun_unix_s,
        took_s: begun.elapsed().as_secs_f64(),
        revision: machine::revision(),
        command: command(std::env::args().skip(2)),
        machine,
        rows: found.rows,
        stages,
        goals: verdicts.goals,
        remarks,
    };
    publish(&run, &options.out())?;
    let met = run.goals.iter().all(|goal| goal.met);
    Ok(if is_valid && (met || !options.strict) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The systems that take part, and their versions. One that was named must be there; of the others, whoever is missing is a
/// remark.
fn allowed(
    options: &Options,
    scenarios: &[Scenario],
    node: &Path,
    found: &mut Found,
) -> Result<(Vec<System>, Vec<String>), LabError> {
    let named = options.systems.iter().map(|name| System::parse(name)).collect::<Result<Vec<_>, _>>()?;
    let candidates = if named.is_empty() { System::all() } else { named.clone() };
    let wanted = |system: &System| scenarios.iter().any(|scenario| !scenario.systems(&[*system]).is_empty());
    let (mut allowed, mut versions) = (Vec::new(), Vec::new());
    for system in candidates.into_iter().filter(wanted) {
        match system.version(node) {
            Ok(version) => {
                allowed.push(system);
                versions.extend(version);
            }
            Err(error) if named.is_empty() => {
                let words = format!("{} does not take part: {error}", system.label());
                eprintln!("{words}");
                found.remarks.push(words);
            }
            Err(error) => return Err(error),
        }
    }
    versions.sort();
    versions.dedup();
    Ok((allowed, versions))
}

async fn measure(
    stage: &Stage<'_>,
    scenario: &Scenario,
    allowed: &[System],
    found: &mut Found,
) -> Result<(), LabError> {
    let begun = Instant::now();
    let systems = scenario.systems(allowed);
    if systems.is_empty() {
        let reason = "none of its systems takes part (--systems)".to_owned();
        return Err(LabError::Tool { what: scenario.name.clone(), reason });
    }
    eprintln!("{}: {}", scenario.name, scenario.description);
    match scenario.kind {
        Kind::Closed => rounds::closed(stage, scenario, &systems, found).await?,
        Kind::Rates => rounds::rates(stage, scenario, &systems, found).await?,
        Kind::Idle => idle::run(stage, scenario, &systems, found).await?,
        Kind::DeadTarget => others::dead_target(stage, scenario, found).await?,
        Kind::Flood => others::flood(stage, scenario, found)?,
    }
    eprintln!("{}: {:.0} s, varied: {}\n", scenario.name, begun.elapsed().as_secs_f64(), scenario.varies);
    Ok(())
}

/// Allocations of the mesh, and in a full run its CPU by stage; both with `perf`, which not every machine has.
async fn look_inside(
    options: &Options,
    stage: &Stage<'_>,
    scenarios: &[Scenario],
    allowed: &[System],
    found: &mut Found,
) -> Vec<Stages> {
    let is_asked = scenarios.iter().any(|scenario| scenario.name == GOAL_SCENARIO);
    if !is_asked || !allowed.contains(&System::Zen) {
        return Vec::new();
    }
    eprintln!("{GOAL_SCENARIO}: looking inside, with perf");
    let profile_length = options.full.then_some(PROFILE_LENGTH);
    match insights(&stage.directory.join("inside"), stage.node, profile_length).await {
        Ok(insights) => {
            found.allocations = Some(Ok(insights.allocations));
            let stages = |(hop, stages): (&str, Vec<(String, f64)>)| Stages {
                system: System::Zen.label().to_owned(),
                hop: hop.to_owned(),
                scenario: GOAL_SCENARIO.to_owned(),
                stages,
            };
            insights.stages.into_iter().map(stages).collect()
        }
        Err(error) => {
            found.allocations = Some(Err(error.to_string()));
            found.remarks.push(format!("no look inside the hops: {error}"));
            Vec::new()
        }
    }
}

/// Writes the result and its page, prints the rest.
fn publish(run: &Run, out: &Path) -> Result<(), LabError> {
    std::fs::create_dir_all(out).map_err(LabError::file(out))?;
    results::write(&out.join("result.json"), run)?;
    table::print(&run.rows);
    run.remarks.iter().for_each(|remark| println!("{remark}"));
    match page(out) {
        Ok(()) => println!("\nresult.json and report.html are in {}; {:.0} s", out.display(), run.took_s),
        Err(error) => println!("\nresult.json is in {}, without a page: {error}", out.display()),
    }
    run.goals.iter().for_each(|goal| println!("{}", goals::line(goal)));
    Ok(())
}

/// `zen-perf report`, which reads what was written.
fn page(out: &Path) -> Result<(), LabError> {
    let failed = |source| LabError::Start { program: "zen-perf".into(), source };
    let own = std::env::current_exe().map_err(failed)?;
    let output = Command::new(own).arg("report").arg(out).stdin(Stdio::null()).output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(LabError::Failed { program: "zen-perf report", remedy: "its reason is below", output: words })
}

/// What to type for the same.
fn command(arguments: impl Iterator<Item = String>) -> String {
    let words = arguments.map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    ["./scripts/bench".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_typed_again() {
        let words = ["--quick", "--out", "a b"].map(str::to_owned);
        assert_eq!(command(words.into_iter()), "./scripts/bench --quick --out 'a b'");
    }
}
