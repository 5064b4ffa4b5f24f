//! Scenarios that other commands of this program measure: a dead target beside nine, and a flood.

use std::process::{Command, Stdio};

use super::Stage;
use super::file::Scenario;
use super::found::{Found, Value};
use super::goals::median;
use crate::error::LabError;
use crate::pairs::nine_of_ten;

/// p99 of deliveries to nine targets beside a dead one, over that with ten healthy ones: the median of the rounds.
pub(super) async fn dead_target(
    stage: &Stage<'_>,
    scenario: &Scenario,
    found: &mut Found,
) -> Result<(), LabError> {
    let directory = stage.directory.join("dead-target");
    let pace = (scenario.full.rounds, scenario.full.seconds);
    let rounds = nine_of_ten(&directory, stage.node, pace, scenario.connections[0]).await?;
    let of = |half: usize| median(rounds.iter().map(|both| both[half]).collect());
    let ratios: Vec<f64> = rounds.iter().map(|[healthy, dead]| dead / healthy).collect();
    found.remarks.push(format!(
        "dead-target: p99 of deliveries to the nine {:.2} ms, beside a dead one {:.2} ms; the ratios of the rounds: {}",
        of(0),
        of(1),
        ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(", ")
    ));
    found.nine_of_ten = Some(Ok(median(ratios)));
    Ok(())
}

/// Runs `zen-perf flood`, whose table becomes a remark.
pub(super) fn flood(stage: &Stage<'_>, scenario: &Scenario, found: &mut Found) -> Result<(), LabError> {
    if !nix::unistd::geteuid().is_root() {
        let reason = "it makes a network namespace and loads BPF programs; run it as root".to_owned();
        return Err(LabError::Tool { what: "flood".to_owned(), reason });
    }
    let failed = |source| LabError::Start { program: "zen-perf".into(), source };
    let output = Command::new(std::env::current_exe().map_err(failed)?)
        .arg("flood")
        .args([
            "--rounds",
            &scenario.full.rounds.to_string(),
            "--seconds",
            &scenario.full.seconds.to_string(),
        ])
        .args(["--connections", &scenario.connections[0].to_string()])
        .arg("--dir")
        .arg(stage.directory.join("flood"))
        .arg("--node")
        .arg(stage.node)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(failed)?;
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{words}");
    let Some(kept) = kept(&words) else {
        return Err(LabError::Tool {
            what: "zen-perf flood".to_owned(),
            reason: "it said nothing of its goal".to_owned(),
        });
    };
    found.remarks.extend(
        words.lines().filter(|line| line.starts_with("| ")).skip(1).map(|row| format!("flood: {row}")),
    );
    found.flood = Some(kept);
    Ok(())
}

/// The share in `goal flood: SHARE kept with the guard (...): VERDICT`; a run that does not count has none.
fn kept(words: &str) -> Option<Value> {
    let line = words.lines().find_map(|line| line.strip_prefix("goal flood: "))?;
    if let Some((_, reason)) = line.split_once("does not count: ") {
        return Some(Err(reason.to_owned()));
    }
    Some(Ok(line.split(' ').next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_in_the_goal_line() {
        let met = "x\ngoal flood: 0.92 kept with the guard (wanted >= 0.80), 0.58 without: met\n";
        assert_eq!(kept(met), Some(Ok(0.92)));
        let nothing = "goal flood: 0.92 kept with the guard (wanted >= 0.80), 0.70 without: does not count: without a guard more than 0.60 is left\n";
        assert_eq!(kept(nothing), Some(Err("without a guard more than 0.60 is left".to_owned())));
        assert_eq!(kept("no goal"), None);
    }
}
