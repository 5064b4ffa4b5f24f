//! What is wanted of a run, and what came out: `goal NAME: VALUE (wanted ...) met|missed`.
//!
//! In: everything that was measured. Out: a [`Goal`] each, and a remark for each that could not be told. What was not measured is missed.

use super::found::{Found, Value};
use super::system::System;
use crate::peers::Peer;
use crate::results::{CpuPerEvent, Goal, Round, Row};

const HAPROXY: System = System::Peer(Peer::HaProxy);
const KIB: u64 = 1024;

/// Up to where a value is met.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
}

impl Bound {
    /// What is not a number is not met.
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::Below(most) => value < most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

/// One thing that is wanted.
struct Wanted {
    name: String,
    /// The scenario that tells.
    scenario: &'static str,
    bound: Bound,
    /// Behind the bound.
    of: &'static str,
    value: Value,
}

/// Goals, and why some have no value.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// In a fixed order.
    pub(super) goals: Vec<Goal>,
    /// Words for the reader.
    pub(super) remarks: Vec<String>,
}

/// Judges what was found; goals of scenarios that `asked` does not have are left out.
pub(super) fn judge(found: &Found, asked: impl Fn(&str) -> bool) -> Verdicts {
    let mut verdicts = Verdicts::default();
    let all = [hops(found), connections(found), latencies(found), own(found)];
    for wanted in all.into_iter().flatten().filter(|wanted| asked(wanted.scenario)) {
        verdicts.add(wanted);
    }
    verdicts
}

impl Verdicts {
    fn add(&mut self, wanted: Wanted) {
        let finite = wanted.value.and_then(|value| {
            if value.is_finite() { Ok(value) } else { Err("nothing was measured".to_owned()) }
        });
        if let Err(reason) = &finite {
            self.remarks.push(format!("{} is missed because it was not measured: {reason}", wanted.name));
        }
        let value = finite.ok();
        let bound = match wanted.bound {
            Bound::AtMost(most) => format!("<= {most:.2}"),
            Bound::Below(most) => format!("< {most:.2}"),
            Bound::AtLeast(least) => format!(">= {least:.2}"),
        };
        self.goals.push(Goal {
            met: value.is_some_and(|value| wanted.bound.is_met(value)),
            name: wanted.name,
            value,
            wanted: format!("{bound} {}", wanted.of),
        });
    }
}

/// As a line.
pub(super) fn line(goal: &Goal) -> String {
    let value = goal.value.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.2}"));
    let verdict = if goal.met { "met" } else { "missed" };
    format!("goal {}: {value} (wanted {}) {verdict}", goal.name, goal.wanted)
}

/// CPU of the hops beside HAProxy's.
fn hops(found: &Found) -> Vec<Wanted> {
    let mut all = vec![Wanted {
        name: "ingest-cpu-256x1KiB".to_owned(),
        scenario: "ingest-only",
        bound: Bound::AtMost(0.20),
        of: "of HAProxy's first hop",
        value: found.ratio(("ingest-only", KIB, 256), [System::Zen, HAPROXY], first_hop_us),
    }];
    for (scenario, body, size) in [("keep-alive", KIB, "1KiB"), ("keep-alive-8k", 8 * KIB, "8KiB")] {
        for (connections, most) in [(256, 0.25), (32, 0.40)] {
            all.push(Wanted {
                name: format!("two-hops-cpu-{connections}x{size}"),
                scenario,
                bound: Bound::AtMost(most),
                of: "of the HAProxy pair, whole machine",
                value: found.ratio((scenario, body, connections), [System::Zen, HAPROXY], machine_us),
            });
        }
    }
    all
}

/// Handshakes and memory beside HAProxy and nginx.
fn connections(found: &Found) -> Vec<Wanted> {
    let peers = ["haproxy", "nginx"].map(|name| (name, System::parse(name)));
    let mut all = Vec::new();
    for (name, system) in &peers {
        let value = match system {
            // Events for a second of CPU are one over CPU for an event.
            Ok(peer) => found
                .ratio(("new-connections", KIB, 32), [System::Zen, *peer], first_hop_us)
                .map(|share| 1.0 / share),
            Err(error) => Err(error.to_string()),
        };
        all.push(Wanted {
            name: format!("new-connections-{name}"),
            scenario: "new-connections",
            bound: Bound::AtLeast(2.0),
            of: "times the events that it handles in a second of CPU",
            value,
        });
    }
    let bytes =
        |system: System| found.over_all("idle-connections", system, |round| round.idle_connection_bytes);
    let own = bytes(System::Zen);
    let least = peers.iter().map(|(_, system)| match system {
        Ok(peer) => bytes(*peer),
        Err(error) => Err(error.to_string()),
    });
    let least =
        least.collect::<Result<Vec<_>, _>>().map(|both| both.into_iter().fold(f64::INFINITY, f64::min));
    let share = own.clone().and_then(|own| Ok(own / least?));
    all.push(Wanted {
        name: "idle-connection-bytes".to_owned(),
        scenario: "idle-connections",
        bound: Bound::AtMost(8192.0),
        of: "bytes for each idle connection",
        value: own,
    });
    all.push(Wanted {
        name: "idle-connection-share".to_owned(),
        scenario: "idle-connections",
        bound: Bound::AtMost(0.50),
        of: "of the better of HAProxy and nginx",
        value: share,
    });
    all
}

fn latencies(found: &Found) -> Vec<Wanted> {
    let p99 = |system| found.at_70_percent("rates", system);
    vec![
        Wanted {
            name: "p99-at-70-percent".to_owned(),
            scenario: "rates",
            bound: Bound::Below(1.0),
            of: "of HAProxy's, each at 70 % of what it carries",
            value: p99(System::Zen).and_then(|own| Ok(own / p99(HAPROXY)?)),
        },
        Wanted {
            name: "nine-of-ten-p99".to_owned(),
            scenario: "dead-target",
            bound: Bound::AtMost(1.05),
            of: "of the p99 with ten healthy targets",
            value: found.said(found.nine_of_ten.clone(), "dead-target"),
        },
    ]
}

/// The mesh beside itself.
fn own(found: &Found) -> Vec<Wanted> {
    let cell = ("keep-alive", KIB, 256);
    let mut all = vec![
        Wanted {
            name: "workers-1-to-2".to_owned(),
            scenario: "workers",
            bound: Bound::AtLeast(1.8),
            of: "times the events of one worker",
            value: found.said(found.workers.clone(), "workers"),
        },
        Wanted {
            name: "cpu-uring-256x1KiB".to_owned(),
            scenario: cell.0,
            bound: Bound::AtMost(1.0),
            of: "of epoll, whole machine",
            value: found.ratio(cell, [System::Zen, System::ZenEpoll], machine_us),
        },
    ];
    all.push(Wanted {
        name: "hmac-batch-256x1KiB".to_owned(),
        scenario: cell.0,
        bound: Bound::AtLeast(12.0),
        of: "messages in the ingester's median batch",
        value: found.said(found.batch.map(Ok), cell.0),
    });
    for (at, hop, allocations) in [(0, "ingester", 2.0), (1, "egress", 4.0)] {
        all.push(Wanted {
            name: format!("syscalls-{hop}-256x1KiB"),
            scenario: cell.0,
            bound: Bound::AtMost(0.5),
            of: "enters per event",
            value: found.said(found.enters.map(|enters| Ok(enters[at])), cell.0),
        });
        all.push(Wanted {
            name: format!("allocations-{hop}-256x1KiB"),
            scenario: cell.0,
            bound: Bound::AtMost(allocations),
            of: "per event",
            value: found.said(found.allocations.clone().map(|counted| counted.map(|both| both[at])), cell.0),
        });
    }
    all.push(Wanted {
        name: "flood".to_owned(),
        scenario: "flood",
        bound: Bound::AtLeast(0.80),
        of: "of the events that are left without a flood",
        value: found.said(found.flood.clone(), "flood"),
    });
    all
}

/// What the system costs the machine.
fn machine_us(round: &Round) -> Option<f64> {
    round.cpu_us.map(|cpu| cpu.machine)
}

/// Where the first hop alone is measured: all but a second hop's process. Of the mesh that leaves the kernel's threads and
/// interrupts of both hops with the first.
fn first_hop_us(round: &Round) -> Option<f64> {
    round.cpu_us.map(|CpuPerEvent { machine, second, .. }| machine - second)
}

impl Found {
    /// What a scenario found by itself.
    fn said(&self, value: Option<Value>, scenario: &str) -> Value {
        value.unwrap_or_else(|| Err(self.why_not(scenario)))
    }

    fn why_not(&self, scenario: &str) -> String {
        self.failures.get(scenario).cloned().unwrap_or_else(|| format!("scenario {scenario} did not run"))
    }

    /// The ratio of medians of two systems in a cell: scenario, bytes of a body, connections.
    fn ratio(
        &self,
        (scenario, body_bytes, connections): (&str, u64, u32),
        systems: [System; 2],
        pick: impl Fn(&Round) -> Option<f64>,
    ) -> Value {
        let of = |system: System| {
            let row = self.rows.iter().find(|row| {
                row.scenario == scenario
                    && row.system == system.label()
                    && (row.body_bytes, row.connections) == (body_bytes, connections)
                    && row.offered_per_s.is_none()
            });
            self.median_of(row, scenario, system, &pick)
        };
        let [one, other] = systems;
        Ok(of(one)? / of(other)?)
    }

    /// The median of a system's only row in a scenario.
    fn over_all(&self, scenario: &str, system: System, pick: impl Fn(&Round) -> Option<f64>) -> Value {
        let row = self.rows.iter().find(|row| row.scenario == scenario && row.system == system.label());
        self.median_of(row, scenario, system, &pick)
    }

    /// p99 at the rate that is nearest to 70 % of what a system carries.
    fn at_70_percent(&self, scenario: &str, system: System) -> Value {
        let carried = self.carried.iter().find(|(name, _)| *name == system.label()).map(|(_, rate)| *rate);
        let carried = carried.ok_or_else(|| self.missing(scenario, system))?;
        let far = |row: &&Row| row.offered_per_s.map_or(f64::INFINITY, |rate| (rate / carried - 0.7).abs());
        let own = self.rows.iter().filter(|row| row.scenario == scenario && row.system == system.label());
        let row = own.filter(|row| far(row) < 0.02).min_by(|left, right| far(left).total_cmp(&far(right)));
        let p99 = |round: &Round| Some(round.load.latency.at(0.99)).filter(|us| us.is_finite());
        self.median_of(row, scenario, system, &p99)
    }

    fn median_of(
        &self,
        row: Option<&Row>,
        scenario: &str,
        system: System,
        pick: &impl Fn(&Round) -> Option<f64>,
    ) -> Value {
        let values: Vec<f64> = row.into_iter().flat_map(|row| &row.rounds).filter_map(pick).collect();
        if values.is_empty() { Err(self.missing(scenario, system)) } else { Ok(median(values)) }
    }

    fn missing(&self, scenario: &str, system: System) -> String {
        if self.rows.iter().any(|row| row.scenario == scenario) {
            format!("{} has no figure in scenario {scenario}", system.label())
        } else {
            self.why_not(scenario)
        }
    }
}

/// The middle value, or the mean of the middle two; of none, not a number.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    let lower = if values.len().is_multiple_of(2) { upper.saturating_sub(1) } else { upper };
    match (values.get(lower), values.get(upper)) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Latency, Load};

    fn row(scenario: &str, system: System, body_bytes: u64, connections: u32, us: &[f64]) -> Row {
        let cpu = |us: f64| CpuPerEvent { machine: us, second: us / 2.0, ..CpuPerEvent::default() };
        let rounds = us.iter().map(|&us| Round {
            load: Load::default(),
            cpu_us: Some(cpu(us)),
            idle_connection_bytes: Some(us),
            slowdown: None,
        });
        Row {
            scenario: scenario.to_owned(),
            system: system.label().to_owned(),
            lacks: Vec::new(),
            body_bytes,
            connections,
            offered_per_s: None,
            rounds: rounds.collect(),
        }
    }

    fn verdict(found: &Found, name: &str) -> Goal {
        judge(found, |_| true).goals.into_iter().find(|goal| goal.name == name).expect(name)
    }

    #[test]
    fn goals_are_met_up_to_their_bound_and_not_beyond() {
        for (zen, haproxy, met) in [(25.0, 100.0, true), (25.1, 100.0, false), (5.0, 19.9, false)] {
            let rows = vec![
                row("keep-alive", System::Zen, 1024, 256, &[zen, 0.0, 1e9]),
                row("keep-alive", HAPROXY, 1024, 256, &[haproxy]),
            ];
            let goal = verdict(&Found { rows, ..Found::default() }, "two-hops-cpu-256x1KiB");
            assert_eq!(goal.met, met, "{zen} of {haproxy}: {goal:?}");
        }
        for (value, met) in [(1.79, false), (1.8, true)] {
            let found = Found { workers: Some(Ok(value)), ..Found::default() };
            assert_eq!(verdict(&found, "workers-1-to-2").met, met, "{value}");
        }
    }

    #[test]
    fn p99_must_be_below_and_is_that_of_each_ones_own_70_percent() {
        let at = |system: System, rate: f64, p99: f64| {
            let mut row = row("rates", system, 1024, 256, &[1.0]);
            row.offered_per_s = Some(rate);
            let latency = Latency { count: 1, curve: vec![(0.99, p99), (1.0, 9e9)], ..Latency::default() };
            row.rounds[0].load.latency = latency;
            row
        };
        for (own, met) in [(999.0, true), (1000.0, false)] {
            let rows =
                vec![at(System::Zen, 850.0, 1.0), at(System::Zen, 700.0, own), at(HAPROXY, 70.0, 1000.0)];
            let carried = vec![(System::Zen.label().to_owned(), 1000.0), (HAPROXY.label().to_owned(), 100.0)];
            let goal = verdict(&Found { rows, carried, ..Found::default() }, "p99-at-70-percent");
            assert_eq!(goal.met, met, "{goal:?}");
        }
    }

    #[test]
    fn what_was_not_measured_is_missed_and_says_why() {
        let mut found = Found { nine_of_ten: Some(Ok(f64::NAN)), ..Found::default() };
        found.failures.insert("workers".to_owned(), "this machine has two cores".to_owned());
        found.rows = vec![row("keep-alive", System::Zen, 1024, 256, &[1.0])];
        let verdicts = judge(&found, |_| true);
        assert!(verdicts.goals.iter().all(|goal| !goal.met && goal.value.is_none()), "{:?}", verdicts.goals);
        assert_eq!(verdicts.remarks.len(), verdicts.goals.len());
        for part in [
            "two cores",
            "nothing was measured",
            "HAProxy has no figure in scenario keep-alive",
            "flood did not run",
        ] {
            assert!(
                verdicts.remarks.iter().any(|remark| remark.contains(part)),
                "{part}: {:?}",
                verdicts.remarks
            );
        }
        let goal = verdict(&found, "workers-1-to-2");
        assert_eq!(
            line(&goal),
            "goal workers-1-to-2: not measured (wanted >= 1.80 times the events of one worker) missed"
        );
    }

    #[test]
    fn the_first_hop_is_what_the_second_did_not_use_and_the_better_peer_counts() {
        let rows = vec![
            row("ingest-only", System::Zen, 1024, 256, &[40.0]),
            row("ingest-only", HAPROXY, 1024, 256, &[200.0]),
            row("idle-connections", System::Zen, 1024, 2000, &[8192.0]),
            row("idle-connections", HAPROXY, 1024, 2000, &[20_000.0]),
        ];
        let found = Found { rows, ..Found::default() };
        assert!(verdict(&found, "ingest-cpu-256x1KiB").met);
        assert!(verdict(&found, "idle-connection-bytes").met);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(
            [vec![3.0, 1.0, 2.0], vec![1.0, 4.0], vec![7.0]].map(|values| (median(values) * 2.0) as u32),
            [4, 5, 14]
        );
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn goals_of_scenarios_that_nobody_asked_for_are_left_out() {
        let names: Vec<String> = judge(&Found::default(), |name| name == "rates")
            .goals
            .into_iter()
            .map(|goal| goal.name)
            .collect();
        assert_eq!(names, ["p99-at-70-percent"]);
    }
}
