//! Live traffic: what it notices while many dead letters of another target are replayed.
//!
//! One replay of all letters; with the target paused it stands still, so that each round has a half without it.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::stage::Stage;
use super::targets::Mood;
use super::{Options, Rounds, goal};
use crate::error::LabError;
use crate::lab::{DARK_TARGET, Metrics, Shape, Tuning};

const P99_RATIO_MAX: f64 = 1.10;
const LETTERS: &str = "zen_dead_letters_kept";
const TUNING: Tuning = Tuning {
    relayed: &[DARK_TARGET],
    node: "memory_bytes_max = 1073741824",
    ingester: "idempotency = { keys_max = 20000 }",
    egress: "events_max = 200000\ndead_letters_max = 150000",
    ..Tuning::NONE
};

/// Prints both p99 and their ratio; whether the goal was met.
pub(super) async fn run(options: &Options, program: &Path) -> Result<bool, LabError> {
    let mut stage = Stage::start(options, program, Shape::REPLAY, TUNING, Mood::Refusing).await?;
    let (live, dark) = (stage.lab.endpoints[..1].to_vec(), stage.lab.endpoints[1..].to_vec());
    let rate = stage.half_load(options, &live, |_| true).await?;
    println!("replay: {} dead letters beside {rate} live events/s", options.letters);
    stage.send(&dark, options.letters).await?;
    let all = options.letters as f64;
    stage.await_metric("all are dead letters", async |metrics| metrics.sum(LETTERS, "") >= all).await?;
    stage.moody[0].set(Mood::Good);
    order(&stage, program, &["targets", "pause", DARK_TARGET]).await?;
    order(&stage, program, &["dead-letters", "replay", "--target", DARK_TARGET]).await?;
    let (mut calm, mut beside, mut ratios) = (Rounds::default(), Rounds::default(), Rounds::default());
    let mut per_second = Rounds::default();
    for round in 0..options.rounds {
        let mut p99_ms = [0.0; 2];
        let before = letters(&stage).await;
        if before == 0.0 {
            println!("the letters lasted for {round} rounds: replay more, or measure shorter");
            break;
        }
        for turn in 0..2 {
            let is_beside = (round + turn) % 2 == 1;
            let verb = if is_beside { "resume" } else { "pause" };
            order(&stage, program, &["targets", verb, DARK_TARGET]).await?;
            let begun = Instant::now();
            let latency_us = stage.measure(&live, |_| true, rate, options.length()).await?;
            p99_ms[usize::from(is_beside)] = latency_us.value_at_quantile(0.99) as f64 / 1000.0;
            if is_beside {
                per_second.0.push((before - letters(&stage).await) / begun.elapsed().as_secs_f64());
            }
        }
        eprintln!("round {}: p99 {:.2} ms, beside the replay {:.2} ms", round + 1, p99_ms[0], p99_ms[1]);
        calm.0.push(p99_ms[0]);
        beside.0.push(p99_ms[1]);
        ratios.0.push(p99_ms[1] / p99_ms[0]);
    }
    println!("p99 of live deliveries, ms: {}, beside the replay {}", calm.text(2), beside.text(2));
    println!("replayed a second: {}, {} letters left", per_second.text(0), letters(&stage).await);
    println!("peak memory: {}", stage.stop(program).await?);
    Ok(goal("replay-p99", &ratios, P99_RATIO_MAX))
}

async fn letters(stage: &Stage) -> f64 {
    Metrics::scrape(stage.lab.egresses[0].admin).await.sum(LETTERS, "")
}

/// As an operator would; what is not done when the command ends goes on in the node.
async fn order(stage: &Stage, program: &Path, arguments: &[&str]) -> Result<(), LabError> {
    let mut command = Command::new(program);
    command.args(arguments).arg("--config").arg(&stage.lab.egresses[0].config);
    let ran =
        tokio::task::spawn_blocking(move || command.output()).await.expect("the command does not panic");
    let output = ran.map_err(|source| LabError::Start { program: program.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Failed {
        program: "zen-dataplane",
        remedy: "see the log of the egress in the lab's directory",
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
