//! The `duplicates` command: one sending in ten is of an earlier event, while nodes are killed under load.
//!
//! Half of the repeats come while the first sending is under way on another connection. Success: nothing lost,
//! each event answered with one id, and delivered under that id only. Deliveries of one id more than
//! once are counted: that is what a killed egress may repeat.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::crash::{Arena, await_arrivals, load_plan, serve_targets};
use crate::error::LabError;
use crate::lab::{Lab, Shape, node_program};
use crate::load::{LoadPlan, LoadReport, Repeats, run_load};
use crate::random::{Random, system_seed};
use crate::record::{Accepted, Comparison};
use crate::stop::StopSignal;

/// Options of `duplicates`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often a node is killed.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Repeats a run's choice of victims and moments [default: random, printed].
    #[arg(long)]
    seed: Option<u64>,
    /// Connections of the load.
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// Sendings per second; 0 is as fast as the answers come.
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// Directory of the lab; made anew each time.
    #[arg(long, default_value = "lab/duplicates")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Workers per node; 0 is one per core.
    #[arg(long, default_value_t = 2)]
    workers: u32,
}

/// Sends, kills, compares; the exit code is the verdict.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let mut stop = StopSignal::new()?;
    let seed = options.seed.unwrap_or_else(system_seed);
    println!("duplicates: seed {seed}, {} kills", options.kills);
    let program = node_program(options.node.as_deref())?;
    let lab = Lab::make(&options.dir, Shape::CRASH, options.workers)?;
    let sink = serve_targets(&lab).await?;
    let plan = LoadPlan { repeats: Repeats::Tenth, ..load_plan(&lab, options.connections, options.rate)? };
    let mut arena = Arena::start(lab, program).await?;
    let sending = tokio::spawn(run_load(plan, Arc::clone(&arena.load)));
    let mut random = Random::new(seed);
    tokio::select! {
        killed = arena.kill_all(options.kills, &mut random) => killed?,
        () = stop.wait() => println!("duplicates: stopped by a signal; what was sent until now is checked"),
    }
    arena.load.stop();
    let report = sending.await.expect("the load does not panic");
    let (report, conflicts) = one_answer_each(report);
    await_arrivals(&report.accepted, &sink, || arena.check()).await?;
    let complaints = arena.stop().await;
    let comparison = Comparison::new(&report.accepted, &sink.arrivals());
    Ok(judge(&arena, seed, &report, &comparison, [complaints, conflicts].concat()))
}

/// All answers for an event must give one id; they are taken as one acceptance.
fn one_answer_each(mut report: LoadReport) -> (LoadReport, Vec<String>) {
    let mut events: HashMap<u64, Accepted> = HashMap::new();
    let mut conflicts = Vec::new();
    for accepted in report.accepted.drain(..) {
        let first = events.entry(accepted.number).or_insert_with(|| accepted.clone());
        if first.event_id != accepted.event_id {
            let (number, first, second) = (accepted.number, &first.event_id, &accepted.event_id);
            conflicts.push(format!("event {number} was answered with {first} and with {second}"));
        }
    }
    report.accepted = events.into_values().collect();
    (report, conflicts)
}

fn judge(
    arena: &Arena,
    seed: u64,
    report: &LoadReport,
    comparison: &Comparison,
    mut complaints: Vec<String>,
) -> ExitCode {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let kills: Vec<String> = arena
        .nodes
        .iter()
        .zip(&arena.kills)
        .map(|((node, _), kills)| format!("{} {kills}", node.name))
        .collect();
    let (answered, duplicates) = (count(&arena.load.accepted), count(&arena.load.duplicates));
    println!(
        "duplicates: seed {seed}, kills {} ({}), answered {answered}, of them 200 with the first id {duplicates}, \
         retries {}, events {}, delivered {}, repeated with the same id {}, LOST {}, DOUBLED {}",
        arena.kills.iter().sum::<u32>(),
        kills.join(", "),
        count(&arena.load.retries),
        comparison.accepted,
        comparison.delivered,
        comparison.duplicates,
        comparison.lost.len(),
        comparison.doubled.len(),
    );
    complaints.extend(report.refused.iter().map(|(status, count)| format!("{count} refused with {status}")));
    complaints.extend(comparison.complaints());
    // A sending beyond one for each event was a duplicate, unless it was the one that nobody had answered.
    if answered - comparison.accepted > duplicates || comparison.accepted == 0 {
        complaints
            .push(format!("{answered} answers for {} events, {duplicates} duplicates", comparison.accepted));
    }
    for complaint in &complaints {
        println!("duplicates: {complaint}");
    }
    if complaints.is_empty() {
        return ExitCode::SUCCESS;
    }
    arena.nodes.iter().for_each(|(_, process)| println!("{}", process.log_tail()));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ids_for_one_event_are_a_conflict() {
        let accepted =
            |number, id: &str| Accepted { number, event_id: id.to_owned(), body_sha256: [number as u8; 32] };
        let mut report = LoadReport::new();
        report.accepted = vec![accepted(1, "a"), accepted(1, "a"), accepted(2, "b")];
        let (mut report, conflicts) = one_answer_each(report);
        assert_eq!((report.accepted.len(), conflicts.len()), (2, 0));
        report.accepted.push(accepted(1, "c"));
        assert_eq!(one_answer_each(report).1.len(), 1);
    }
}
