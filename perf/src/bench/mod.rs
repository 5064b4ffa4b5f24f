//! The `bench` command: both hops of the mesh beside HAProxy, closed loop, in interleaved rounds.
//!
//! Out: a Markdown table with medians and spread of events per second, CPU microseconds per event (whole
//! machine and per process) and latency of the 202; then a line for each goal. The run is invalid if
//! HAProxy did much worse than its reference on a machine as fast as the reference's.

mod allocations;
mod calibration;
mod contender;
mod cpu;
mod goals;
mod profile;
mod stacks;
pub(crate) mod syscalls;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

pub(crate) use self::calibration::Calibration;
use self::contender::{Cell, Figures, RIVAL};
pub(crate) use self::contender::{Contender, Kind, Programs, start_sink};
pub(crate) use self::cpu::{CpuTimes, KERNEL_THREAD, TICK_US, family, machine};
use crate::error::LabError;
use crate::lab::node_program;
use crate::peers::{self, Peer};

/// The cell of the goals, the profile and the counts.
const GOAL_CELL: Cell = Cell { body_bytes: 1024, connections: 256 };

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rounds over all cells; medians are over rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each cell that are measured.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Directory of the labs; made anew each time. Its disk is what is measured.
    #[arg(long, default_value = "lab/bench")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Workers per node; 0 is one per core.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Who runs, in interleaved rounds.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Uring, Kind::Epoll, Kind::HaProxy])]
    contenders: Vec<Kind>,
    /// Bytes of bodies.
    #[arg(long, value_delimiter = ',', default_values_t = [1024, 8192])]
    bodies: Vec<usize>,
    /// Connections at once.
    #[arg(long, value_delimiter = ',', default_values_t = [32, 256])]
    connections: Vec<u32>,
    /// Fail if a goal is missed.
    #[arg(long)]
    strict: bool,
    /// No race: where the CPU time of the hops goes, by stage, at 256 connections and 1 KiB.
    #[arg(long)]
    profile: bool,
    /// No race: allocations of the hops for each event, and where they are made.
    #[arg(long, conflicts_with = "profile")]
    allocations: bool,
}

/// All rounds of a contender in a cell.
struct Row {
    cell: Cell,
    kind: Kind,
    rounds: Vec<Figures>,
}

impl Row {
    /// The median over rounds of what `pick` takes.
    fn median(&self, pick: impl Fn(&Figures) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rounds.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Measures and prints.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let programs = Programs { node: node_program(options.node.as_deref())? };
    if options.profile || options.allocations {
        let mut contender = Contender::start(Kind::Uring, &options.dir, options.workers, &programs).await?;
        let length = Duration::from_secs(options.seconds);
        if options.profile {
            profile::run(&mut contender, GOAL_CELL, length, &programs.node).await?;
        } else {
            allocations::run(&mut contender, GOAL_CELL, &programs.node).await?;
        }
        contender.stop().await;
        return Ok(ExitCode::SUCCESS);
    }
    race(&options, &programs).await
}

/// Allocations of each hop for an event, and CPU by stage of each hop, of a mesh on `io_uring` at 256 connections and 1 KiB.
pub(crate) struct Insights {
    /// Ingester and egress.
    pub(crate) allocations: [f64; 2],
    /// Hop, and µs per event of each stage, the largest first.
    pub(crate) stages: Vec<(&'static str, Vec<(String, f64)>)>,
}

/// Looks into a mesh of its own, with `perf`; without `profile_length` there are no stages. Call it on the main thread.
pub(crate) async fn insights(
    directory: &Path,
    node: &Path,
    profile_length: Option<Duration>,
) -> Result<Insights, LabError> {
    let programs = Programs { node: node.to_owned() };
    let mut contender = Contender::start(Kind::Uring, directory, 1, &programs).await?;
    let allocations = allocations::count(&mut contender, GOAL_CELL).await?;
    let stages = match profile_length {
        Some(length) => profile::stages(&mut contender, GOAL_CELL, length, node).await?,
        None => Vec::new(),
    };
    contender.stop().await;
    Ok(Insights { allocations, stages })
}

async fn race(options: &Options, programs: &Programs) -> Result<ExitCode, LabError> {
    let mut contenders = Vec::new();
    for &kind in &options.contenders {
        let contender = Contender::start(kind, &options.dir, options.workers, programs).await?;
        if kind == Kind::HaProxy {
            check_haproxy(&contender, &options.bodies).await?;
        }
        contenders.push(contender);
    }
    let mut rows = rows(options);
    for round in 0..options.rounds {
        for (at, cell) in cells(options).enumerate() {
            // Who goes first changes, so that no contender always runs behind the same one.
            for turn in 0..contenders.len() {
                let count = contenders.len();
                let contender = &mut contenders[(round + at + turn) % count];
                let (body, connections) = (cell.body_bytes, cell.connections);
                eprintln!(
                    "round {}: {body} B, {connections} connections, {}",
                    round + 1,
                    contender.kind.label()
                );
                let figures = contender.measure(cell, Duration::from_secs(options.seconds)).await?;
                let row = rows.iter_mut().find(|row| row.cell == cell && row.kind == contender.kind);
                row.expect("there is a row for each").rounds.push(figures);
            }
        }
    }
    let counted = match contenders.iter_mut().find(|contender| contender.kind == Kind::Uring) {
        Some(contender) => Some(allocations::count(contender, GOAL_CELL).await),
        None => None,
    };
    for contender in &mut contenders {
        contender.stop().await;
    }
    print_table(options, &rows);
    let valid = goals::print_validity(&rows);
    let met = goals::print(&rows, counted);
    Ok(if valid && (met || !options.strict) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn check_haproxy(contender: &Contender, bodies: &[usize]) -> Result<(), LabError> {
    peers::check(Peer::HaProxy, &contender.lab, &RIVAL, bodies).await?;
    println!("HAProxy: both hops refuse a wrong signature and a changed last byte with 403.\n");
    Ok(())
}

fn cells(options: &Options) -> impl Iterator<Item = Cell> {
    options.bodies.iter().flat_map(|&body_bytes| {
        options.connections.iter().map(move |&connections| Cell { body_bytes, connections })
    })
}

fn rows(options: &Options) -> Vec<Row> {
    let pairs = cells(options).flat_map(|cell| options.contenders.iter().map(move |&kind| (cell, kind)));
    pairs.map(|(cell, kind)| Row { cell, kind, rounds: Vec::new() }).collect()
}

fn print_table(options: &Options, rows: &[Row]) {
    println!("{}\n", machine());
    println!(
        "{} rounds of {} s, interleaved, workers = {}, nothing pinned; median (least to most). CPU is µs per event until its\n\
         delivery. \"machine\": all processors less sender, sink and strangers' processes; \"kernel\": kernel threads;\n\
         \"strangers\": processes that have nothing to do with the run.\n",
        options.rounds, options.seconds, options.workers
    );
    println!(
        "| body | connections | who | events/s | machine | hop 1 | hop 2 | kernel | sink | sender | strangers | answer p50 ms | p99 | p999 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        let of = |pick: fn(&Figures) -> f64, digits| spread(row.rounds.iter().map(pick), digits);
        let columns = [
            row.cell.body_bytes.to_string(),
            row.cell.connections.to_string(),
            row.kind.label().to_owned(),
            of(|one| one.events_per_s, 0),
            of(|one| one.cpu.machine(), 1),
            of(|one| one.cpu.first, 1),
            of(|one| one.cpu.second, 1),
            of(|one| one.cpu.kernel, 1),
            of(|one| one.cpu.sink, 0),
            of(|one| one.cpu.sender, 0),
            of(|one| one.cpu.others, 0),
            of(|one| one.answer_ms[0], 2),
            of(|one| one.answer_ms[1], 1),
            of(|one| one.answer_ms[2], 1),
        ];
        println!("| {} |", columns.join(" | "));
    }
    println!();
}

/// `median (least to most)` with `digits` after the point.
fn spread(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.as_slice() {
        [] => "-".to_owned(),
        [one] => format!("{one:.digits$}"),
        [least, .., most] => {
            format!("{:.digits$} ({least:.digits$} to {most:.digits$})", values[values.len() / 2])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_median_and_range() {
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter(), 0), "2 (1 to 3)");
        assert_eq!(spread([1.25].into_iter(), 2), "1.25");
        assert_eq!(spread([].into_iter(), 0), "-");
    }
}
