//! `bench --allocations`: how often the hops allocate for one event, and where.
//!
//! Probes (uprobes, by `perf`) on the node's allocator, and on the C library's for the code in C, count in the
//! release build as it is shipped. Two loads of different length are counted, and only what the longer
//! one adds is divided by its additional events, so connections and tables do not count.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::contender::{Cell, Contender, WARM_UP};
use super::profile::record;
use super::stacks::{Places, Stack, output_of, read};
use crate::error::LabError;
use crate::load::{LoadState, run_load};

/// What Rust code comes to in mimalloc; a node without it allocates by the C library's functions.
const OWN_FUNCTIONS: [&str; 3] = ["mi_malloc_aligned", "mi_zalloc_aligned", "mi_realloc_aligned"];
const C_FUNCTIONS: [&str; 4] = ["malloc", "calloc", "realloc", "posix_memalign"];
const EVENTS_SHORT: u64 = 2_000;
const EVENTS_LONG: u64 = 22_000;
const ATTACH_TIME: Duration = Duration::from_millis(700);
const SITES_TIME: Duration = Duration::from_millis(1500);
const STACK_BYTES: &str = "dwarf,2048";
/// Sites that are printed make up this share of all.
const SHARE_MIN: f64 = 0.005;
/// Where the allocator is chosen: between every allocation and whoever wants it.
const ALLOCATOR: &str = "node/src/main.rs";
/// Where the code of the node lies, in the paths of its line tables.
const OWN_CODE: [&str; 2] = ["/dataplane/", "/trust/"];

/// Counts, finds the sites, and prints.
pub(super) async fn run(contender: &mut Contender, cell: Cell, program: &Path) -> Result<(), LabError> {
    let counts = count(contender, cell).await?;
    let probes = Probes::add(contender.hops[0].id())?;
    let recording = contender.lab.directory.join("allocations.data");
    let pids = [contender.hops[0].id(), contender.hops[1].id()];
    let state = Arc::new(LoadState::default());
    let before = contender.delivered().await;
    let sending = tokio::spawn(run_load(contender.plan(cell)?, Arc::clone(&state)));
    tokio::time::sleep(WARM_UP).await;
    let mut perf = record(&recording, pids, &["-e", &probes.events()], STACK_BYTES, SITES_TIME)?;
    while matches!(perf.try_wait(), Ok(None)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(probes);
    state.stop();
    sending.await.expect("the load does not panic");
    let accepted = state.accepted.load(std::sync::atomic::Ordering::Relaxed) as f64;
    contender.await_delivered(before + accepted).await?;

    let stacks = read(&recording)?;
    let places = Places::resolve(program, &stacks)?;
    for (at, name) in ["ingester", "egress"].into_iter().enumerate() {
        let own: Vec<&Stack> = stacks.iter().filter(|stack| stack.process == pids[at]).collect();
        print_sites(name, cell, counts[at], &own, &places);
    }
    Ok(())
}

/// Allocations of each hop for one event.
pub(super) async fn count(contender: &mut Contender, cell: Cell) -> Result<[f64; 2], LabError> {
    let probes = Probes::add(contender.hops[0].id())?;
    // The first load makes connections and fills tables.
    contender.send(cell, EVENTS_SHORT).await?;
    let short = counted(contender, cell, &probes, EVENTS_SHORT).await?;
    let long = counted(contender, cell, &probes, EVENTS_LONG).await?;
    let events = (EVENTS_LONG - EVENTS_SHORT) as f64;
    Ok(std::array::from_fn(|hop| (long[hop] as f64 - short[hop] as f64) / events))
}

async fn counted(
    contender: &mut Contender,
    cell: Cell,
    probes: &Probes,
    events: u64,
) -> Result<[u64; 2], LabError> {
    let outputs = ["first", "second"].map(|hop| contender.lab.directory.join(format!("{hop}.counts")));
    let mut tools = Vec::new();
    for (process, output) in contender.hops.iter().zip(&outputs) {
        tools.push(stat(process.id(), probes, output)?);
    }
    tokio::time::sleep(ATTACH_TIME).await;
    contender.send(cell, events).await?;
    for tool in &mut tools {
        // An error means that it has ended by itself; then its counts are missing.
        let _ = kill(Pid::from_raw(tool.id().cast_signed()), Signal::SIGINT);
        tool.wait().map_err(|error| LabError::Tool { what: "perf".to_owned(), reason: error.to_string() })?;
    }
    let mut counts = [0; 2];
    for (count, output) in counts.iter_mut().zip(&outputs) {
        *count = sum(&fs::read_to_string(output).map_err(LabError::file(output))?);
        if *count == 0 {
            let reason = "no allocation was seen: the probes do not reach the node's allocator".to_owned();
            return Err(LabError::Tool { what: "perf".to_owned(), reason });
        }
    }
    Ok(counts)
}

fn stat(pid: u32, probes: &Probes, output: &Path) -> Result<Child, LabError> {
    Command::new("perf")
        .args(["stat", "-x", ",", "-e", &probes.events(), "-p", &pid.to_string(), "-o"])
        .arg(output)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| LabError::Tool { what: "perf".to_owned(), reason: error.to_string() })
}

/// The sum of the first fields of `perf stat -x,`.
fn sum(counts: &str) -> u64 {
    counts.lines().filter_map(|line| line.split(',').next()?.parse::<u64>().ok()).sum()
}

/// Probes of this process; they are gone when it is dropped.
struct Probes {
    group: String,
}

impl Probes {
    /// On the program that the process `pid` runs, and on the C library that it has loaded.
    fn add(pid: u32) -> Result<Self, LabError> {
        let program = PathBuf::from(format!("/proc/{pid}/exe"));
        let program = program.canonicalize().map_err(LabError::file(&program))?;
        let symbols = output_of("nm", Command::new("nm").arg(&program))?;
        let names: Vec<&str> =
            symbols.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)).collect();
        let own: Vec<&str> = OWN_FUNCTIONS.into_iter().filter(|name| names.contains(name)).collect();
        let probes = Self { group: format!("zen_lab_{}", std::process::id()) };
        probes.place(&library_of(pid)?, &C_FUNCTIONS)?;
        if !own.is_empty() {
            probes.place(&program, &own)?;
        }
        Ok(probes)
    }

    fn place(&self, object: &Path, functions: &[&str]) -> Result<(), LabError> {
        let mut perf = Command::new("perf");
        perf.args(["probe", "-q", "-x"]).arg(object);
        for function in functions {
            perf.args(["--add", &format!("{}:{function}={function}", self.group)]);
        }
        output_of("perf", &mut perf).map(drop)
    }

    fn events(&self) -> String {
        format!("{}:*", self.group)
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        let mut perf = Command::new("perf");
        perf.args(["probe", "-q", "-d", &format!("{}:*", self.group)]);
        if let Err(error) = output_of("perf", &mut perf) {
            eprintln!("the probes {} could not be removed: {error}", self.group);
        }
    }
}

fn library_of(pid: u32) -> Result<PathBuf, LabError> {
    let maps = PathBuf::from(format!("/proc/{pid}/maps"));
    let text = fs::read_to_string(&maps).map_err(LabError::file(&maps))?;
    let path = text.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
    let library = path.into_iter().find(|path| path.ends_with("/libc.so.6")).map(PathBuf::from);
    library.ok_or_else(|| LabError::Tool {
        what: "perf".to_owned(),
        reason: "the node has not loaded the C library libc.so.6, whose allocator is counted".to_owned(),
    })
}

fn print_sites(hop: &str, cell: Cell, per_event: f64, stacks: &[&Stack], places: &Places) {
    println!(
        "\n{hop}, {} connections, {} B: {per_event:.1} allocations per event; {} stacks\n",
        cell.connections,
        cell.body_bytes,
        stacks.len()
    );
    let mut sites: BTreeMap<String, u64> = BTreeMap::new();
    for stack in stacks {
        *sites.entry(site(stack, places)).or_default() += 1;
    }
    let mut sites: Vec<(String, f64)> =
        sites.into_iter().map(|(site, count)| (site, count as f64 / stacks.len() as f64)).collect();
    sites.sort_by(|left, right| right.1.total_cmp(&left.1));
    println!("| per event | where, and who called |");
    println!("|---|---|");
    for (site, share) in sites.iter().filter(|(_, share)| *share >= SHARE_MIN) {
        println!("| {:.2} | {site} |", share * per_event);
    }
}

/// The innermost two places in code of ours.
fn site(stack: &Stack, places: &Places) -> String {
    let all = stack.frames.iter().enumerate().flat_map(|(at, frame)| places.of(at, frame));
    let own = all.filter_map(|place| OWN_CODE.iter().find_map(|root| Some(place.split_once(root)?.1)));
    let own = own.filter(|place| !place.starts_with(ALLOCATOR));
    let found: Vec<String> = own.take(2).map(|place| format!("`{place}`")).collect();
    if found.is_empty() { "elsewhere".to_owned() } else { found.join(" ← ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_the_first_fields() {
        let text = "# started on\n\n110492,,zen_lab_7:malloc,2007,100.00,,\n5,,zen_lab_7:calloc,1,100.00,,\n\
            <not counted>,,zen_lab_7:realloc,0,100.00,,\n";
        assert_eq!(sum(text), 110_497);
    }

    #[test]
    fn this_process_has_a_c_library() {
        assert!(library_of(std::process::id()).unwrap().exists());
    }
}
