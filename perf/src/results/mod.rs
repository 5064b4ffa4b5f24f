//! What measurements leave behind, as JSON: one file for a load, one for a run of the lab.
//!
//! Written by `load` and by `bench`, read by `report` and `compare`. All times are µs, all rates per second. A field
//! that was not measured is `null`, never zero.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::pki::write_file;

/// The format that this program writes and reads.
pub(crate) const FORMAT: u32 = 1;

/// `result.json` of a run: what was measured, where, and by which command.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// Seconds since 1970.
    pub(crate) begun_unix_s: u64,
    /// Seconds that all of it took.
    pub(crate) took_s: f64,
    /// The revision of the source, with `+` if files differed from it.
    pub(crate) revision: String,
    /// What to type to measure the same.
    pub(crate) command: String,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// One for each scenario, system and offered rate.
    pub(crate) rows: Vec<Row>,
    /// CPU by stage of an event's life, of the systems that were profiled.
    pub(crate) stages: Vec<Stages>,
    /// What was wanted and what came out.
    pub(crate) goals: Vec<Goal>,
    /// What the reader has to know: runs that do not count, why something was not measured.
    pub(crate) remarks: Vec<String>,
}

/// Where a run took place.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    /// As the processor calls itself.
    pub(crate) processor: String,
    /// Those that programs may use.
    pub(crate) cores: usize,
    /// Release of Linux.
    pub(crate) kernel: String,
    /// Main memory.
    pub(crate) memory_bytes: u64,
    /// File system and device below the labs.
    pub(crate) disk: String,
    /// Instructions that matter here: `sha_ni`, `avx2`, `avx512f`, ...
    pub(crate) features: Vec<String>,
    /// Versions of the peers that ran, as `nginx 1.22.1`.
    pub(crate) versions: Vec<String>,
    /// Which cores do what, as `sender: 1`.
    pub(crate) placement: Vec<String>,
}

/// One system under one load, in all rounds.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// Name of the scenario's file, without its ending.
    pub(crate) scenario: String,
    /// Who: `zen, io_uring`, `HAProxy`, ...
    pub(crate) system: String,
    /// What this system does not do of the work: `durability`, `dedupe`, ...
    pub(crate) lacks: Vec<String>,
    /// Bytes of a body, the median where they differ.
    pub(crate) body_bytes: u64,
    /// Connections at once.
    pub(crate) connections: u32,
    /// Events per second that were offered; `None` is a closed loop.
    pub(crate) offered_per_s: Option<f64>,
    /// In the order in which they ran.
    pub(crate) rounds: Vec<Round>,
}

/// One row in one round.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Round {
    /// What came of the load.
    pub(crate) load: Load,
    /// CPU for each event; `None` where it was not looked at.
    pub(crate) cpu_us: Option<CpuPerEvent>,
    /// Resident bytes of the first hop for each idle connection that was held.
    pub(crate) idle_connection_bytes: Option<f64>,
    /// How much slower the machine was than the reference machine, just before: 1 is as fast.
    pub(crate) slowdown: Option<f64>,
}

/// Microseconds of processor time for each event.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct CpuPerEvent {
    /// All processors less sender, sink and strangers: what the system costs the machine.
    pub(crate) machine: f64,
    /// The first hop's process.
    pub(crate) first: f64,
    /// The second hop's process; zero where there is none.
    pub(crate) second: f64,
    /// Threads of the kernel.
    pub(crate) kernel: f64,
    /// The target.
    pub(crate) sink: f64,
    /// The load generator.
    pub(crate) sender: f64,
    /// Processes that have nothing to do with it.
    pub(crate) strangers: f64,
}

/// What a load generator saw: the whole JSON of `load --json`.
///
/// A request belongs to the span in which it was due (open loop) or sent (closed loop), whenever its answer came:
/// `sent` is `accepted`, all `refused`, `failed` and `junk` together, and `offered` is `sent` and `unsent`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Load {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// Seconds of the measured span.
    pub(crate) seconds: f64,
    /// Events that were due in it; `None` is a closed loop.
    pub(crate) offered: Option<u64>,
    /// Requests sent in it.
    pub(crate) sent: u64,
    /// Events that were due and never sent: the queue was full, or the end came first.
    #[serde(default)]
    pub(crate) unsent: u64,
    /// Accepting answers that came within the span, per second: the throughput, also beyond saturation.
    #[serde(default)]
    pub(crate) accepted_per_s: f64,
    /// Answered with 200 or 202.
    pub(crate) accepted: u64,
    /// Of them, those that were called duplicates.
    pub(crate) duplicates: u64,
    /// Of `sent`, those of an event that had been accepted before.
    #[serde(default)]
    pub(crate) repeated: u64,
    /// Other answers, by status.
    pub(crate) refused: std::collections::BTreeMap<u16, u64>,
    /// Of `refused`, those of wrong signatures, which must be refused with 401 or 403.
    #[serde(default)]
    pub(crate) expected_refusals: u64,
    /// Of `accepted`, those of wrong signatures, which must not be.
    #[serde(default)]
    pub(crate) wrongly_accepted: u64,
    /// Bytes that are no HTTP, for which the server ended the connection.
    #[serde(default)]
    pub(crate) junk: u64,
    /// The longest pause that a `retry-after` asked for, seconds.
    #[serde(default)]
    pub(crate) retry_after_s_max: Option<u64>,
    /// Requests whose connection failed, or whose answer did not come in time.
    pub(crate) failed: u64,
    /// Connections opened, and of them those that resumed a session.
    pub(crate) connects: u64,
    /// See [`Self::connects`].
    pub(crate) resumed: u64,
    /// Whether the client itself could not hold the rate; then latencies are the client's.
    pub(crate) client_fell_behind: bool,
    /// Whether events that were due had to wait for a connection more often than not: the server is slower.
    #[serde(default)]
    pub(crate) server_fell_behind: bool,
    /// Share of the span in which the client's thread ran, or waited for its core.
    #[serde(default)]
    pub(crate) client_busy: f64,
    /// How late the client sent, at the 99th percentile; `None` in a closed loop.
    pub(crate) send_lag_p99_us: Option<f64>,
    /// CPU of the client, for each answer.
    pub(crate) client_cpu_us: f64,
    /// From when a request was due (open loop) or sent (closed loop) to its accepting answer.
    pub(crate) latency: Latency,
    /// The command of the generator.
    pub(crate) command: String,
}

/// Quantiles of a latency, from an HDR histogram with three digits.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Latency {
    /// How many were recorded.
    pub(crate) count: u64,
    /// Microseconds.
    pub(crate) mean_us: f64,
    /// Microseconds.
    pub(crate) max_us: f64,
    /// `(quantile, µs)` in ascending order, from 0 to 1: all steps of the histogram's percentile iterator, for plots.
    pub(crate) curve: Vec<(f64, f64)>,
}

impl Latency {
    /// The latency of a quantile between 0 and 1: of the first step at or above it; `NAN` if nothing was recorded.
    pub(crate) fn at(&self, quantile: f64) -> f64 {
        let found = self.curve.iter().find(|(step, _)| *step >= quantile);
        found.or(self.curve.last()).map_or(f64::NAN, |(_, us)| *us)
    }
}

/// CPU by stage of one hop of a system.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the file says what the list is of")]
pub(crate) struct Stages {
    /// Who.
    pub(crate) system: String,
    /// `ingester` or `egress`.
    pub(crate) hop: String,
    /// The scenario that ran.
    pub(crate) scenario: String,
    /// Stage and µs per event, the largest first.
    pub(crate) stages: Vec<(String, f64)>,
}

/// One goal: `goal NAME: VALUE (wanted ...) met|missed`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Goal {
    /// Words joined by hyphens.
    pub(crate) name: String,
    /// `None` if it could not be measured; then it is missed.
    pub(crate) value: Option<f64>,
    /// As `<= 0.25 of HAProxy, whole machine`.
    pub(crate) wanted: String,
    /// Whether it was reached.
    pub(crate) met: bool,
}

/// Reads a JSON file of this module.
pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, LabError> {
    let bytes = std::fs::read(path).map_err(LabError::file(path))?;
    serde_json::from_slice(&bytes).map_err(|source| LabError::Json { path: path.to_owned(), source })
}

/// Writes a JSON file of this module, for people to read.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), LabError> {
    let text = serde_json::to_vec_pretty(value).expect("numbers and texts are JSON");
    write_file(path, &text, 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_that_of_the_next_step() {
        let latency =
            Latency { count: 4, curve: vec![(0.5, 10.0), (0.99, 30.0), (1.0, 50.0)], ..Latency::default() };
        assert_eq!([0.0, 0.5, 0.6, 0.999, 1.0].map(|at| latency.at(at) as u32), [10, 10, 30, 50, 50]);
        assert!(Latency::default().at(0.5).is_nan());
    }
}
