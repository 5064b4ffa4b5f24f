//! The `deliver` command: so many events through both nodes to a target, each held against what arrived.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::crash::{Arena, await_arrivals, load_plan, print_complaints, serve_targets};
use crate::error::LabError;
use crate::lab::{Lab, Metrics, Shape, Tuning, node_program};
use crate::load::{LoadPlan, run_load};
use crate::record::Comparison;

/// Small files are prepared soon, also on an emulated machine.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Budgets that nobody uses up.
const EBPF: &str = "[ebpf.guard]\nmode = \"enforce\"\nrequired = true\nsyn_per_second = 100000\n\
    packets_per_second = 10000000\n[ebpf.fence]\nmode = \"enforce\"\nrequired = true\n[ebpf.steer]\nrequired = true\n\
    [ebpf.observe]\nrequired = true\n";

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
    /// With all BPF programs, which must be in force, count, and refuse nothing; needs root.
    #[arg(long)]
    ebpf: bool,
}

/// Sends and compares; the exit code is the verdict.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let program = node_program(options.node.as_deref())?;
    let sections = if options.ebpf { EBPF } else { "" };
    let tuning = Tuning {
        segment_bytes: Some(SEGMENT_BYTES),
        pin_workers: options.ebpf,
        sections: [sections; 2],
        ..Tuning::NONE
    };
    let lab = Lab::make_tuned(&options.dir, Shape::CRASH, options.workers, tuning)?;
    let sink = serve_targets(&lab).await?;
    let plan = LoadPlan { events_max: options.events, ..load_plan(&lab, options.connections, options.rate)? };
    let mut arena = Arena::start(lab, program).await?;
    let report = run_load(plan, Arc::clone(&arena.load)).await;
    await_arrivals(&report.accepted, &sink, || arena.check()).await?;
    let faults = if options.ebpf { ebpf_faults(&arena).await } else { Vec::new() };
    let mut complaints = [faults, arena.stop().await].concat();
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

/// What is wrong with the programs of each node, by what it counts.
async fn ebpf_faults(arena: &Arena) -> Vec<String> {
    let mut faults = Vec::new();
    for (node, _) in &arena.nodes {
        let metrics = Metrics::scrape(node.admin).await;
        for (name, label, is_wanted) in [
            ("zen_fence_connections_total", "=\"passed\"", true),
            ("zen_tcp_connections_total", "=\"opened\"", true),
            ("zen_ebpf_missing", "", false),
            ("zen_guard_packets_total", "=\"refused\"", false),
            ("zen_fence_connections_total", "=\"refused\"", false),
        ] {
            let count = metrics.sum(name, label);
            if (count > 0.0) != is_wanted {
                faults.push(format!("{}: {name}{{{label}}} is {count}", node.name));
            }
        }
    }
    faults
}
