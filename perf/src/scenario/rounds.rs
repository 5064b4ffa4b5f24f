//! Rounds over systems and loads: all of a scenario's systems run side by side and take turns, so that each meets the same machine.
//!
//! A system that fails is told in a remark and takes no further part; the others go on.

use super::Stage;
use super::cell::{Measured, measure};
use super::file::Scenario;
use super::found::Found;
use super::goals::median;
use super::placement::Placement;
use super::running::{Running, Setup};
use super::sender::Order;
use super::system::System;
use crate::error::LabError;
use crate::lab::Tuning;
use crate::results::Row;

const WARM_UP_S: u64 = 1;
/// Closed loops that say what a system carries.
const CARRYING_ROUNDS: usize = 2;
/// The cell of the goals on calls, and of the profile.
pub(super) const GOAL_SCENARIO: &str = "keep-alive";
const GOAL_CONNECTIONS: u32 = 256;

/// Closed loops.
pub(super) async fn closed(
    stage: &Stage<'_>,
    scenario: &Scenario,
    systems: &[System],
    found: &mut Found,
) -> Result<(), LabError> {
    let most = scenario.workers.iter().copied().max().unwrap_or(1);
    let (wanted, cores) = (Placement::wanted(most), stage.placement.count());
    if most > 1 && wanted > cores {
        let what = "too few cores".to_owned();
        let reason = format!(
            "{most} workers of each hop, sink and sender want {wanted}, and this machine has {cores}"
        );
        return Err(LabError::Tool { what, reason });
    }
    let mut group = Group::start(stage, scenario, systems, found).await?;
    let orders: Vec<Order> =
        scenario.connections.iter().map(|&connections| order(scenario, connections, None)).collect();
    let mut carried = vec![Vec::new(); group.running.len()];
    let (mut enters, mut batches) = (Vec::new(), Vec::new());
    for round in 0..scenario.full.rounds {
        for (at, order) in orders.iter().enumerate() {
            for who in turns(round + at, group.running.len()) {
                let Some(measured) = group.measure(stage, scenario, who, order, found).await else {
                    continue;
                };
                carried[who].push(measured.carried_per_s);
                if scenario.name == GOAL_SCENARIO
                    && order.connections == GOAL_CONNECTIONS
                    && group.systems[who] == System::Zen
                {
                    enters.extend(measured.enters);
                    batches.extend(measured.batch);
                }
            }
        }
    }
    if !enters.is_empty() {
        found.enters = Some([0, 1].map(|hop| median(enters.iter().map(|both| both[hop]).collect())));
    }
    if !batches.is_empty() {
        found.batch = Some(median(batches));
    }
    if let [one, .., two] = carried.as_slice()
        && scenario.workers.len() > 1
    {
        found.workers = Some(Ok(median(two.clone()) / median(one.clone())));
    }
    group.stop().await;
    Ok(())
}

/// Closed loops that say what each carries, then set rates.
pub(super) async fn rates(
    stage: &Stage<'_>,
    scenario: &Scenario,
    systems: &[System],
    found: &mut Found,
) -> Result<(), LabError> {
    let mut group = Group::start(stage, scenario, systems, found).await?;
    let connections = scenario.connections[0];
    let mut carried = vec![Vec::new(); group.running.len()];
    for round in 0..CARRYING_ROUNDS {
        for who in turns(round, group.running.len()) {
            let full = order(scenario, connections, None);
            let Some(measured) = group.measure(stage, scenario, who, &full, found).await else { continue };
            carried[who].push(measured.carried_per_s);
        }
    }
    let carried: Vec<f64> = carried.into_iter().map(median).collect();
    for (running, &rate) in group.running.iter().zip(&carried) {
        if let Some(running) = running {
            eprintln!("{}: {} carries {rate:.0} events/s", scenario.name, running.label());
            found.carried.push((running.label(), rate));
        }
    }
    for round in 0..scenario.full.rounds {
        for (at, &percent) in scenario.rates_percent.iter().enumerate() {
            for who in turns(round + at, group.running.len()) {
                let rate = (carried[who] * f64::from(percent) / 100.0).round();
                let order = order(scenario, connections, Some(rate));
                group.measure(stage, scenario, who, &order, found).await;
            }
        }
    }
    group.stop().await;
    Ok(())
}

/// All systems of a scenario; those that failed are gone.
struct Group {
    running: Vec<Option<Running>>,
    systems: Vec<System>,
}

impl Group {
    async fn start(
        stage: &Stage<'_>,
        scenario: &Scenario,
        systems: &[System],
        found: &mut Found,
    ) -> Result<Self, LabError> {
        let mut group = Self { running: Vec::new(), systems: Vec::new() };
        let mut last = None;
        for &workers in &scenario.workers {
            for &system in systems {
                match Running::start(&setup(stage, scenario, system, workers)).await {
                    Ok(running) => {
                        group.running.push(Some(running));
                        group.systems.push(system);
                    }
                    Err(error) => {
                        let words =
                            format!("{}: {} could not be started: {error}", scenario.name, system.label());
                        eprintln!("{words}");
                        found.remarks.push(words);
                        last = Some(error);
                    }
                }
            }
        }
        match last {
            Some(error) if group.running.is_empty() => Err(error),
            _ => Ok(group),
        }
    }

    /// One cell; `None` if that system is gone, or goes now.
    async fn measure(
        &mut self,
        stage: &Stage<'_>,
        scenario: &Scenario,
        who: usize,
        order: &Order,
        found: &mut Found,
    ) -> Option<Measured> {
        let system = self.systems[who];
        let running = self.running[who].as_mut()?;
        let rate = order.rate_per_s.map_or(String::new(), |rate| format!(", {rate:.0} events/s"));
        eprintln!("{}: {} connections{rate}, {}", scenario.name, order.connections, running.label());
        match measure(running, order, stage.placement).await {
            Ok(measured) => {
                let row = Row {
                    scenario: scenario.name.clone(),
                    system: running.label(),
                    lacks: system.lacks(),
                    body_bytes: scenario.body_bytes,
                    connections: order.connections,
                    offered_per_s: order.rate_per_s,
                    rounds: Vec::new(),
                };
                found.add(row, measured.round.clone());
                Some(measured)
            }
            Err(error) => {
                let words = format!("{}: {} takes no further part: {error}", scenario.name, running.label());
                eprintln!("{words}");
                found.remarks.push(words);
                self.running[who].take()?.stop().await;
                None
            }
        }
    }

    async fn stop(self) {
        for running in self.running.into_iter().flatten() {
            running.stop().await;
        }
    }
}

/// What starts a system in a scenario.
pub(super) fn setup<'a>(stage: &Stage<'a>, scenario: &Scenario, system: System, workers: u32) -> Setup<'a> {
    Setup {
        system,
        hops: scenario.hops,
        workers,
        tuning: Tuning::NONE,
        body_bytes: scenario.body_bytes as usize,
        directory: stage.directory,
        node: stage.node,
        placement: stage.placement,
    }
}

fn order(scenario: &Scenario, connections: u32, rate_per_s: Option<f64>) -> Order {
    Order {
        body_bytes: scenario.body_bytes,
        mix: scenario.mix,
        connections,
        new_connections: scenario.new_connections,
        duplicates_percent: scenario.duplicates_percent,
        rate_per_s,
        warm_up_s: WARM_UP_S,
        seconds: scenario.full.seconds,
    }
}

/// Who goes when in a round: another begins each time, and every other round goes the other way about, so that nobody
/// always runs behind the same one.
pub(super) fn turns(round: usize, count: usize) -> Vec<usize> {
    let rotated = (0..count).map(|turn| (round / 2 + turn) % count);
    if round.is_multiple_of(2) { rotated.collect() } else { rotated.rev().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_turn_in_each_round_and_begins_as_often_as_the_others() {
        for count in 1..6 {
            let mut first = vec![0; count];
            for round in 0..2 * count {
                let mut turns = turns(round, count);
                first[turns[0]] += 1;
                turns.sort_unstable();
                assert_eq!(turns, (0..count).collect::<Vec<_>>());
            }
            assert_eq!(first, vec![2; count]);
        }
        assert!(turns(3, 0).is_empty());
    }

    #[test]
    fn nobody_always_runs_behind_the_same_one() {
        let behind = |round: usize| {
            let turns = turns(round, 3);
            let at = turns.iter().position(|&who| who == 2).unwrap();
            at.checked_sub(1).map(|before| turns[before])
        };
        let seen: std::collections::BTreeSet<_> = (0..6).map(behind).collect();
        assert_eq!(seen.len(), 3, "{seen:?}");
    }
}
