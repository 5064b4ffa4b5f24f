//! Everything that a run has found so far, and what its reader has to know.

use std::collections::BTreeMap;

use super::goals::median;
use crate::results::{Round, Row};

/// HAProxy's CPU per event of both hops, µs, at 1 KiB and so many connections, on the reference machine.
const REFERENCE_US: [(u32, f64); 2] = [(32, 28.8 + 27.3), (256, 43.0 + 40.0)];
const REFERENCE_SCENARIO: &str = "keep-alive";
const REFERENCE_SYSTEM: &str = "HAProxy";
/// How much worse than its reference HAProxy may be.
const WORSE_MAX: f64 = 1.25;
/// More of the busy time in processes of others deserves a word.
const STRANGERS_SHARE_MAX: f64 = 0.05;

/// A value, or why there is none.
pub(super) type Value = Result<f64, String>;

/// Rows, and what scenarios that have no rows found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order in which they began.
    pub(super) rows: Vec<Row>,
    /// Events per second that each system carries, both accepted and delivered, by its label.
    pub(super) carried: Vec<(String, f64)>,
    /// Calls for each event of the mesh's hops on `io_uring`.
    pub(super) enters: Option<[f64; 2]>,
    /// Messages of the mesh's median batch of sources' signatures.
    pub(super) batch: Option<f64>,
    /// Allocations for each event of the mesh's hops.
    pub(super) allocations: Option<Result<[f64; 2], String>>,
    /// p99 of deliveries beside a dead target, over that without one.
    pub(super) nine_of_ten: Option<Value>,
    /// Events per second with two workers, over one.
    pub(super) workers: Option<Value>,
    /// Share of events that is left in a flood.
    pub(super) flood: Option<Value>,
    /// Scenarios that could not run, with the reason.
    pub(super) failures: BTreeMap<String, String>,
    /// Words for the reader.
    pub(super) remarks: Vec<String>,
}

impl Found {
    /// Adds a round to the row that has all but the rounds of `row`.
    pub(super) fn add(&mut self, row: Row, round: Round) {
        let is_same = |other: &Row| Row { rounds: Vec::new(), ..other.clone() } == row;
        if let Some(own) = self.rows.iter_mut().find(|other| is_same(other)) {
            return own.rounds.push(round);
        }
        self.rows.push(Row { rounds: vec![round], ..row });
    }

    /// Remarks on rows whose rounds are not what they seem.
    pub(super) fn doubts(&self) -> Vec<String> {
        self.rows.iter().flat_map(doubts_of).collect()
    }

    /// How HAProxy did beside its reference, and whether the run counts.
    pub(super) fn validity(&self) -> (Vec<String>, bool) {
        let mut words = Vec::new();
        let mut is_valid = true;
        for (connections, reference_us) in REFERENCE_US {
            let found = self.rows.iter().find(|row| {
                row.scenario == REFERENCE_SCENARIO
                    && row.system == REFERENCE_SYSTEM
                    && row.connections == connections
            });
            let Some(row) = found else { continue };
            let cpu = |pick: fn(&crate::results::CpuPerEvent) -> f64| {
                median(row.rounds.iter().filter_map(|round| round.cpu_us.as_ref().map(pick)).collect())
            };
            let slowdown = median(row.rounds.iter().filter_map(|round| round.slowdown).collect());
            let (measured_us, expected_us) = (cpu(|cpu| cpu.first + cpu.second), reference_us * slowdown);
            let relation = measured_us / expected_us;
            words.push(format!(
                "HAProxy, {connections} connections, 1 KiB: {measured_us:.1} µs in both hops; reference {reference_us:.1} µs, \
                 {expected_us:.1} µs at this machine's speed ({slowdown:.2} times slower): {relation:.2} of what was expected"
            ));
            if relation > WORSE_MAX {
                words.push(format!(
                    "run INVALID: HAProxy did worse than {WORSE_MAX} times its reference at {connections} connections; \
                     try again on a quiet machine"
                ));
                is_valid = false;
            }
        }
        (words, is_valid)
    }
}

fn doubts_of(row: &Row) -> Vec<String> {
    let mut words = Vec::new();
    let who = match row.offered_per_s {
        None => format!("{}, {}, {} connections", row.scenario, row.system, row.connections),
        Some(rate) => format!("{}, {}, {rate:.0} events/s", row.scenario, row.system),
    };
    let count = |is_so: fn(&Round) -> bool| row.rounds.iter().filter(|round| is_so(round)).count();
    let all = row.rounds.len();
    let mut doubt = |rounds: usize, what: &str| {
        if rounds > 0 {
            words.push(format!("{who}: {what} in {rounds} of {all} rounds"));
        }
    };
    doubt(
        count(|round| round.load.client_fell_behind),
        "the load generator could not hold the rate, so latencies are its own",
    );
    doubt(count(|round| round.load.failed > 0), "requests failed");
    doubt(count(|round| !round.load.refused.is_empty()), "events were refused");
    doubt(count(|round| round.load.wrongly_accepted > 0), "wrong signatures were accepted");
    doubt(count(is_disturbed), "strangers' processes had more than 5 % of the busy time");
    words
}

fn is_disturbed(round: &Round) -> bool {
    round.cpu_us.is_some_and(|cpu| {
        let busy = cpu.machine + cpu.sink + cpu.sender + cpu.strangers;
        cpu.strangers > STRANGERS_SHARE_MAX * busy
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{CpuPerEvent, Load};

    fn row(connections: u32) -> Row {
        Row {
            scenario: REFERENCE_SCENARIO.to_owned(),
            system: REFERENCE_SYSTEM.to_owned(),
            lacks: Vec::new(),
            body_bytes: 1024,
            connections,
            offered_per_s: None,
            rounds: Vec::new(),
        }
    }

    fn round(hop_us: f64, strangers: f64) -> Round {
        let cpu = CpuPerEvent {
            machine: 2.0 * hop_us,
            first: hop_us,
            second: hop_us,
            strangers,
            ..CpuPerEvent::default()
        };
        Round { load: Load::default(), cpu_us: Some(cpu), idle_connection_bytes: None, slowdown: Some(1.0) }
    }

    #[test]
    fn a_rival_much_worse_than_its_reference_invalidates_the_run() {
        for (hop_us, is_valid) in [(41.5, true), (51.0, true), (53.0, false)] {
            let mut found = Found::default();
            found.add(row(256), round(hop_us, 0.0));
            let (words, valid) = found.validity();
            assert_eq!(valid, is_valid, "{words:?}");
            assert_eq!(words.iter().any(|line| line.contains("run INVALID")), !is_valid, "{words:?}");
        }
        assert!(Found::default().validity().1);
    }

    #[test]
    fn rounds_go_to_their_row_and_doubts_are_said_once() {
        let mut found = Found::default();
        let mut behind = round(1.0, 0.0);
        behind.load.client_fell_behind = true;
        for (connections, round) in
            [(32, round(1.0, 0.0)), (256, round(1.0, 0.0)), (32, behind), (32, round(1.0, 1.0))]
        {
            found.add(row(connections), round);
        }
        assert_eq!(found.rows.iter().map(|row| row.rounds.len()).collect::<Vec<_>>(), [3, 1]);
        let doubts = found.doubts();
        assert_eq!(doubts.len(), 2, "{doubts:?}");
        assert!(
            doubts[0].contains("could not hold the rate") && doubts[0].ends_with("in 1 of 3 rounds"),
            "{doubts:?}"
        );
        assert!(doubts[1].contains("strangers"), "{doubts:?}");
    }
}
