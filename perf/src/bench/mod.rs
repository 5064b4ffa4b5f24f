//! The `bench` command: a look inside both hops of the mesh under load, at 256 connections and 1 KiB.
//!
//! Out: CPU time by stage, or allocations for each event and where they are made. What the mesh costs beside its peers is
//! measured by `scenarios`.

mod allocations;
mod calibration;
mod contender;
mod cpu;
mod profile;
mod stacks;
pub(crate) mod syscalls;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

pub(crate) use self::calibration::Calibration;
use self::contender::Cell;
pub(crate) use self::contender::{Contender, Kind, Programs, start_sink};
pub(crate) use self::cpu::{CpuTimes, KERNEL_THREAD, TICK_US, family, machine};
use crate::error::LabError;
use crate::lab::node_program;

/// The cell of the goals, the profile and the counts.
const GOAL_CELL: Cell = Cell { body_bytes: 1024, connections: 256 };

/// Options of `bench`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false).args(["profile", "allocations"]))]
pub(crate) struct Options {
    /// Where the CPU time of the hops goes, by stage.
    #[arg(long)]
    profile: bool,
    /// Allocations of the hops for each event, and where they are made.
    #[arg(long)]
    allocations: bool,
    /// What drives the nodes.
    #[arg(long, value_enum, default_value_t = Kind::Uring)]
    io: Kind,
    /// Seconds that are measured and recorded.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Directory of the lab; made anew each time. Its disk is what is measured.
    #[arg(long, default_value = "lab/bench")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Workers per node; 0 is one per core.
    #[arg(long, default_value_t = 1)]
    workers: u32,
}

/// Measures and prints.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let programs = Programs { node: node_program(options.node.as_deref())? };
    let mut contender = Contender::start(options.io, &options.dir, options.workers, &programs).await?;
    if options.profile {
        let length = Duration::from_secs(options.seconds);
        profile::run(&mut contender, GOAL_CELL, length, &programs.node).await?;
    } else {
        allocations::run(&mut contender, GOAL_CELL, &programs.node).await?;
    }
    contender.stop().await;
    Ok(ExitCode::SUCCESS)
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
