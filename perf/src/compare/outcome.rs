//! What a comparison found: as JSON, as tables, and as sentences.

use serde::{Deserialize, Serialize};

use super::threads::ByName;
use super::verdict::Verdict;
use crate::report::spread::{Spread, number};
use crate::results::Round;

/// Groups of threads below this share of an event's CPU are not printed.
const THREAD_US_MIN: f64 = 0.05;

/// All of it, as `--json` writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outcome {
    /// As [`crate::results::FORMAT`].
    pub(super) format: u32,
    /// Processor, cores and kernel.
    pub(super) machine: String,
    /// What to type for the same.
    pub(super) command: String,
    /// What both carried.
    pub(super) load: String,
    /// The first and the second.
    pub(super) sides: [SideOutcome; 2],
    /// By what was compared; `None` if too few rounds had both values.
    pub(super) verdicts: Vec<(Quantity, Option<Verdict>)>,
    /// What the reader has to know.
    pub(super) remarks: Vec<String>,
}

/// One side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SideOutcome {
    /// Its name in tables.
    pub(super) name: String,
    /// What it does not do of the work.
    pub(super) lacks: Vec<String>,
    /// In the order in which they ran; round for round beside the other side's.
    pub(super) rounds: Vec<Round>,
    /// CPU µs for each event by group of threads, over all rounds, warm-up included.
    pub(super) threads: ByName,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Quantity {
    /// All processors less sender, target and strangers, for each event.
    Cpu,
    /// Events per second.
    Throughput,
    /// Of the accepting answer.
    P99,
}

impl Quantity {
    /// In the order in which they are told.
    pub(super) const ALL: [Self; 3] = [Self::Cpu, Self::Throughput, Self::P99];

    /// Its value in a round; not a number where it was not measured.
    pub(super) fn of(self, round: &Round) -> f64 {
        match self {
            Self::Cpu => round.cpu_us.map_or(f64::NAN, |cpu| cpu.machine),
            Self::Throughput => round.load.accepted_per_s,
            Self::P99 => round.load.latency.at(0.99) / 1000.0,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Cpu => "CPU, whole machine, µs per event",
            Self::Throughput => "events/s",
            Self::P99 => "p99 of the answer, ms",
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Throughput => 0,
            Self::Cpu | Self::P99 => 2,
        }
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Cpu => ("uses", "CPU"),
            Self::Throughput => ("takes", "events/s"),
            Self::P99 => ("has", "p99"),
        }
    }
}

impl Outcome {
    /// Judges what was measured.
    pub(super) fn judge(&mut self) {
        let [first, second] = &self.sides;
        let judged = Quantity::ALL.map(|quantity| {
            let pairs = first.rounds.iter().zip(&second.rounds);
            (quantity, Verdict::of(pairs.map(|(one, two)| (quantity.of(one), quantity.of(two)))))
        });
        self.verdicts = judged.to_vec();
    }

    /// Everything for people, the verdicts last.
    pub(super) fn lines(&self) -> Vec<String> {
        let [first, second] = &self.sides;
        let mut lines = vec![self.machine.clone(), self.load.clone(), String::new()];
        lines.push(format!("| | {} | {} | second / first, round by round |", first.name, second.name));
        lines.push("|---|---|---|---|".to_owned());
        for quantity in Quantity::ALL {
            lines.push(self.row(quantity.label(), quantity.digits(), &|round| quantity.of(round)));
        }
        for (label, part) in [
            ("hop 1, µs", 0),
            ("hop 2, µs", 1),
            ("threads of the kernel, µs", 2),
            ("target, µs", 3),
            ("sender, µs", 4),
            ("strangers, µs", 5),
        ] {
            let of = move |round: &Round| {
                let cpu = round.cpu_us.unwrap_or_default();
                [cpu.first, cpu.second, cpu.kernel, cpu.sink, cpu.sender, cpu.strangers][part]
            };
            lines.push(self.row(label, 2, &of));
        }
        lines.extend(self.thread_lines());
        lines.push(String::new());
        for side in self.sides.iter().filter(|side| !side.lacks.is_empty()) {
            lines.push(format!("{} does not do: {}", side.name, side.lacks.join(", ")));
        }
        lines.extend(self.remarks.iter().cloned());
        lines.extend(self.verdicts.iter().map(|(quantity, verdict)| {
            let (verb, what) = quantity.words();
            let text = verdict.as_ref().map(|verdict| verdict.text(&second.name, verb, &first.name, what));
            format!("verdict: {}", text.unwrap_or_else(|| format!("{what}: too few rounds have it")))
        }));
        lines
    }

    fn row(&self, label: &str, digits: usize, of: &dyn Fn(&Round) -> f64) -> String {
        let [one, two] = [0, 1].map(|at: usize| {
            let spread = Spread::of(self.sides[at].rounds.iter().map(of));
            spread.map_or_else(|| "–".to_owned(), |spread| spread.text(digits))
        });
        let rounds = self.sides[0].rounds.iter().zip(&self.sides[1].rounds);
        let ratios = rounds.map(|(first, second)| of(second) / of(first));
        let ratios: Vec<String> = ratios
            .map(|ratio| if ratio.is_finite() { format!("{ratio:.2}") } else { "–".to_owned() })
            .collect();
        format!("| {label} | {one} | {two} | {} |", ratios.join(" "))
    }

    /// A row for each group of threads that matters on either side.
    fn thread_lines(&self) -> Vec<String> {
        let [first, second] = [&self.sides[0], &self.sides[1]].map(|side| &side.threads);
        let of = |threads: &ByName, name: &str| threads.get(name).copied().unwrap_or(0.0);
        let mut names: Vec<&String> =
            first.keys().chain(second.keys().filter(|name| !first.contains_key(*name))).collect();
        names.retain(|name| of(first, name).max(of(second, name)) >= THREAD_US_MIN);
        names.sort();
        let mut lines = vec![
            String::new(),
            "| threads, µs per event, warm-up included | first | second |".to_owned(),
            "|---|---|---|".to_owned(),
        ];
        lines.extend(names.iter().map(|name| {
            format!("| {name} | {} | {} |", number(of(first, name), 2), number(of(second, name), 2))
        }));
        if names.is_empty() { Vec::new() } else { lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{CpuPerEvent, Latency, Load};

    fn side(name: &str, machine: &[f64]) -> SideOutcome {
        let round = |&machine: &f64| Round {
            load: Load {
                accepted_per_s: 1000.0 / machine,
                latency: Latency { count: 9, curve: vec![(1.0, 5000.0)], ..Latency::default() },
                ..Load::default()
            },
            cpu_us: Some(CpuPerEvent { machine, first: machine, ..CpuPerEvent::default() }),
            idle_connection_bytes: None,
            slowdown: None,
        };
        SideOutcome {
            name: name.to_owned(),
            lacks: if name == "b" { vec!["durability".to_owned()] } else { Vec::new() },
            rounds: machine.iter().map(round).collect(),
            threads: ByName::from([(format!("hop 1: {name}"), 3.0), ("kernel: jbd".to_owned(), 0.01)]),
        }
    }

    fn outcome(first: &[f64], second: &[f64]) -> Outcome {
        let mut outcome = Outcome {
            format: 1,
            machine: "Machine: m".to_owned(),
            command: "c".to_owned(),
            load: "l".to_owned(),
            sides: [side("a", first), side("b", second)],
            verdicts: Vec::new(),
            remarks: vec!["a remark".to_owned()],
        };
        outcome.judge();
        outcome
    }

    #[test]
    fn each_quantity_has_its_sentence() {
        let first = [10.0, 10.2, 9.9, 10.1, 10.0, 9.8];
        let outcome = outcome(&first, &first.map(|us| us * 0.9));
        let text = outcome.lines().join("\n");
        for part in [
            "verdict: b uses 0.900 (0.900 to 0.900) of a's CPU: stands out",
            "verdict: b takes 1.111 (1.111 to 1.111) of a's events/s: stands out",
            "verdict: b has 1.000 (1.000 to 1.000) of a's p99: does not stand out from the noise",
            "b does not do: durability",
            "a remark",
            "0.90 0.90 0.90 0.90 0.90 0.90",
            "| hop 1: a | 3.00 | 0.00 |",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("jbd") && !text.contains("NaN"), "{text}");
        let json = serde_json::to_string(&outcome).unwrap();
        // The last bit of a number may change on the way, which no line shows.
        assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap().lines(), outcome.lines());
    }

    #[test]
    fn what_was_not_measured_has_no_verdict() {
        let mut outcome = outcome(&[10.0; 6], &[9.0; 6]);
        outcome.sides[1].rounds.iter_mut().for_each(|round| round.cpu_us = None);
        outcome.judge();
        assert!(outcome.lines().iter().any(|line| line == "verdict: CPU: too few rounds have it"));
    }
}
