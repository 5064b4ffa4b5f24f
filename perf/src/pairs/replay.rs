//! Live traffic: what it notices when many dead letters of another target are replayed.

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
    segment_bytes: None,
    node: "memory_bytes_max = 1073741824",
    ingester: "",
    egress: "events_max = 200000\ndead_letters_max = 150000",
    target: "",
};

/// Prints both p99 and their ratio; whether the goal was met.
pub(super) async fn run(options: &Options, program: &Path) -> Result<bool, LabError> {
    let mut stage = Stage::start(options, program, Shape::REPLAY, TUNING, Mood::Refusing).await?;
    let (live, dark) = (stage.lab.endpoints[..1].to_vec(), stage.lab.endpoints[1..].to_vec());
    let rate = stage.half_load(options, &live, |_| true).await?;
    println!("replay: {} dead letters beside {rate} live events/s", options.letters);
    let (mut calm, mut beside, mut ratios) = (Rounds::default(), Rounds::default(), Rounds::default());
    let mut replay_s = Rounds::default();
    for round in 0..options.rounds {
        stage.moody[0].set(Mood::Refusing);
        stage.send(&dark, options.letters).await?;
        let letters = options.letters as f64;
        stage
            .await_metric("all are dead letters", async |metrics| metrics.sum(LETTERS, "") >= letters)
            .await?;
        let alone = stage.measure(&live, |_| true, rate, options.length()).await?;
        stage.moody[0].set(Mood::Good);
        let begun = Instant::now();
        order_replay(&stage, program).await?;
        let during = stage.measure(&live, |_| true, rate, options.length()).await?;
        let left = Metrics::scrape(stage.lab.egresses[0].admin).await.sum(LETTERS, "");
        stage.await_metric("all are replayed", async |metrics| metrics.sum(LETTERS, "") == 0.0).await?;
        replay_s.0.push(begun.elapsed().as_secs_f64());
        let p99_ms = [alone, during].map(|latency_us| latency_us.value_at_quantile(0.99) as f64 / 1000.0);
        eprintln!(
            "round {}: p99 {:.2} ms, beside the replay {:.2} ms; {left} letters left at its end",
            round + 1,
            p99_ms[0],
            p99_ms[1]
        );
        calm.0.push(p99_ms[0]);
        beside.0.push(p99_ms[1]);
        ratios.0.push(p99_ms[1] / p99_ms[0]);
    }
    println!("p99 of live deliveries, ms: {}, beside the replay {}", calm.text(2), beside.text(2));
    println!("a replay took {} s", replay_s.text(0));
    println!("peak memory: {}", stage.stop(program).await?);
    Ok(goal("replay-p99", &ratios, P99_RATIO_MAX))
}

/// As an operator would; what is not done when the command ends goes on in the node.
async fn order_replay(stage: &Stage, program: &Path) -> Result<(), LabError> {
    let mut command = Command::new(program);
    command.args(["dead-letters", "replay", "--target", DARK_TARGET, "--config"]);
    command.arg(&stage.lab.egresses[0].config);
    let ran =
        tokio::task::spawn_blocking(move || command.output()).await.expect("the command does not panic");
    let output = ran.map_err(|source| LabError::Start { program: program.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Failed {
        program: "zen-dataplane dead-letters replay",
        remedy: "see the log of the egress in the lab's directory",
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
