//! The `deliver` command: so many events through both nodes to a target, each held against what arrived.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::crash::{Arena, await_arrivals, load_plan, print_complaints, serve_targets};
use crate::error::LabError;
use crate::lab::{Lab, Shape, node_program};
use crate::load::{LoadPlan, run_load};
use crate::record::Comparison;

/// Options of `deliver`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many.
    #[arg(long, default_value_t = 100)]
    events: u64,
    /// Events per second; 0 is as fast as the answers come.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Connections of the load.
    #[arg(long, default_value_t = 4)]
    connections: u32,
    /// Directory of the lab; made anew each time.
    #[arg(long, default_value = "lab/deliver")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Workers per node; 0 is one per core.
    #[arg(long, default_value_t = 1)]
    workers: u32,
}

/// Sends and compares; the exit code is the verdict.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let program = node_program(options.node.as_deref())?;
    let lab = Lab::make(&options.dir, Shape::CRASH, options.workers)?;
    let sink = serve_targets(&lab).await?;
    let plan = LoadPlan { events_max: options.events, ..load_plan(&lab, options.connections, options.rate)? };
    let mut arena = Arena::start(lab, program).await?;
    let report = run_load(plan, Arc::clone(&arena.load)).await;
    await_arrivals(&report.accepted, &sink, || arena.check()).await?;
    let mut complaints = arena.stop().await;
    let comparison = Comparison::new(&report.accepted, &sink.arrivals());
    if comparison.delivered != options.events {
        complaints.push(format!("{} of {} events were delivered", comparison.delivered, options.events));
    }
    println!("delivered {}", comparison.delivered);
    let is_good = print_complaints("deliver", &report, &comparison, complaints) && comparison.lost.is_empty();
    if !is_good {
        arena.nodes.iter().for_each(|(_, process)| println!("{}", process.log_tail()));
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
