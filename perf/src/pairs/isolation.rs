//! Twenty targets under load: what the other seventeen notice when three are dead, slow and lying.

use std::path::Path;

use super::stage::Stage;
use super::targets::Mood;
use super::{Options, Rounds, goal};
use crate::error::LabError;
use crate::lab::{BAD_TARGETS, Shape, Tuning};

const P99_RATIO_MAX: f64 = 1.05;
const MOODS: [Mood; BAD_TARGETS.len()] = [Mood::Dead, Mood::Slow, Mood::Lying];
/// Retries that come often, so that a bad target has much to do, and is done soon when it is well again.
const TUNING: Tuning = Tuning {
    relayed: &BAD_TARGETS,
    // Twenty queues of 100,000 places are more than the default.
    node: "memory_bytes_max = 1073741824",
    target: "retry_schedule_ms = [1000, 2000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000]",
    ..Tuning::NONE
};

/// Prints both p99 and their ratio; whether the goal was met.
pub(super) async fn run(options: &Options, program: &Path) -> Result<bool, LabError> {
    let mut stage = Stage::start(options, program, Shape::TWENTY, TUNING, Mood::Good).await?;
    let endpoints = stage.lab.endpoints.to_vec();
    let is_healthy = |endpoint| endpoint >= BAD_TARGETS.len();
    let rate = stage.half_load(options, &endpoints, is_healthy).await?;
    println!(
        "isolation: 20 targets, {rate} events/s, three of them dead, slow (30 s) and lying (200 and 2 GB)"
    );
    let (mut calm, mut disturbed, mut ratios) = (Rounds::default(), Rounds::default(), Rounds::default());
    for round in 0..options.rounds {
        let mut p99_ms = [0.0; 2];
        for turn in 0..2 {
            let is_disturbed = (round + turn) % 2 == 1;
            if is_disturbed {
                stage.moody.iter().zip(MOODS).for_each(|(target, mood)| target.set(mood));
            }
            let latency_us = stage.measure(&endpoints, is_healthy, rate, options.length()).await?;
            p99_ms[usize::from(is_disturbed)] = latency_us.value_at_quantile(0.99) as f64 / 1000.0;
            stage.moody.iter().for_each(|target| target.set(Mood::Good));
            stage.await_metric("the backlog is delivered", async |metrics| is_idle(metrics)).await?;
        }
        eprintln!("round {}: p99 {:.2} ms, disturbed {:.2} ms", round + 1, p99_ms[0], p99_ms[1]);
        calm.0.push(p99_ms[0]);
        disturbed.0.push(p99_ms[1]);
        ratios.0.push(p99_ms[1] / p99_ms[0]);
    }
    println!("p99 of deliveries to the other targets, ms: {}, disturbed {}", calm.text(2), disturbed.text(2));
    println!("peak memory: {}", stage.stop(program).await?);
    Ok(goal("isolation-p99", &ratios, P99_RATIO_MAX))
}

/// Ten targets at half load, all healthy and then one of them dead, in turns: p99 of deliveries to the nine, ms, of each
/// round. Call it on the main thread.
pub(crate) async fn nine_of_ten(
    directory: &Path,
    program: &Path,
    (rounds, seconds): (usize, u64),
    connections: u32,
) -> Result<Vec<[f64; 2]>, LabError> {
    let options = Options::of(directory, (rounds, seconds), connections);
    let tuning = Tuning { relayed: &BAD_TARGETS[..1], ..TUNING };
    let mut stage = Stage::start(&options, program, Shape::TEN, tuning, Mood::Good).await?;
    let endpoints = stage.lab.endpoints.to_vec();
    let is_healthy = |endpoint| endpoint > 0;
    let rate = stage.half_load(&options, &endpoints, is_healthy).await?;
    let mut p99_ms = Vec::new();
    for round in 0..rounds {
        let mut both = [0.0; 2];
        for turn in 0..2 {
            let is_dead = (round + turn) % 2 == 1;
            stage.moody[0].set(if is_dead { Mood::Dead } else { Mood::Good });
            let latency_us = stage.measure(&endpoints, is_healthy, rate, options.length()).await?;
            both[usize::from(is_dead)] = latency_us.value_at_quantile(0.99) as f64 / 1000.0;
            stage.moody[0].set(Mood::Good);
            stage.await_metric("the backlog is delivered", async |metrics| is_idle(metrics)).await?;
        }
        eprintln!("dead target: {rate} events/s, p99 {:.2} ms, beside a dead one {:.2} ms", both[0], both[1]);
        p99_ms.push(both);
    }
    stage.stop(program).await?;
    Ok(p99_ms)
}

fn is_idle(metrics: &crate::lab::Metrics) -> bool {
    metrics.sum("zen_events_live", "") == 0.0
}
