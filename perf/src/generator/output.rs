//! What a load leaves behind beside its JSON: lines while it runs, a table, a log of histograms, accepted events.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError};

use super::plan::Plan;
use super::tally::{Tally, dense, refusals};
use crate::error::LabError;
use crate::load::answered_id;
use crate::results::Load;
use crate::signature::hex;

/// Logs are in µs, and their readers want the largest of an interval in seconds or ms: this gives ms.
const MAX_DIVISOR: f64 = 1000.0;

/// Says what happens while it does.
#[derive(Debug)]
pub(super) struct Announcer {
    says_phases: bool,
    shows_progress: bool,
    accepted: u64,
    failed: u64,
    at_ns: u64,
}

impl Announcer {
    /// As the plan wants it.
    pub(super) fn new(plan: &Plan) -> Self {
        let (says_phases, shows_progress) = (plan.says_phases, plan.shows_progress);
        Self { says_phases, shows_progress, accepted: 0, failed: 0, at_ns: 0 }
    }

    /// A phase begins.
    pub(super) fn phase(&self, name: &str) {
        if self.says_phases {
            let mut out = io::stdout().lock();
            // Who does not read has gone; the load goes on.
            let _ = writeln!(out, "phase {name}").and_then(|()| out.flush());
        }
    }

    /// A second has gone by.
    pub(super) fn progress(&mut self, now_ns: u64, tally: &Tally, flights: usize) {
        if self.shows_progress && now_ns > self.at_ns {
            let seconds = (now_ns - self.at_ns) as f64 / 1e9;
            let ms = |quantile| tally.second_us.value_at_quantile(quantile) as f64 / 1000.0;
            let _ = writeln!(
                io::stderr(),
                "{:4.0} s: {:.0}/s accepted, p50 {:.2} ms, p99 {:.2} ms, {flights} on the way, {} failed",
                now_ns as f64 / 1e9,
                (tally.accepted_ever - self.accepted) as f64 / seconds,
                ms(0.5),
                ms(0.99),
                tally.failed_ever - self.failed,
            );
        }
        (self.accepted, self.failed, self.at_ns) = (tally.accepted_ever, tally.failed_ever, now_ns);
    }
}

/// Latencies of a second.
#[derive(Debug)]
pub(super) struct Second {
    /// Its end, ms since the start.
    pub(super) end_ms: u64,
    /// µs and how often.
    pub(super) values: Vec<(u64, u64)>,
}

/// Writes an `HdrHistogram` log, version 2, compressed, with an interval for each second.
pub(super) fn write_log(path: &Path, begun: SystemTime, seconds: &[Second]) -> Result<(), LabError> {
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let written = (|| {
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment("latency, µs")
            .with_start_time(begun)
            .with_max_value_divisor(MAX_DIVISOR)
            .begin_log_with(&mut text, &mut serializer)?;
        let mut begin = Duration::ZERO;
        for second in seconds {
            let end = Duration::from_millis(second.end_ms);
            log.write_histogram(&dense(&second.values), begin, end.saturating_sub(begin), None)?;
            begin = end;
        }
        Ok::<(), IntervalLogWriterError<_>>(())
    })();
    written
        .map_err(|error| LabError::Tool { what: path.display().to_string(), reason: error.to_string() })?;
    std::fs::write(path, text).map_err(LabError::file(path))
}

/// Writes accepted events one by one.
#[derive(Debug)]
pub(super) struct Recorder {
    path: PathBuf,
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

impl Recorder {
    /// Begins a file.
    pub(super) fn new(path: &Path) -> Result<Self, LabError> {
        let file = File::create(path).map_err(LabError::file(path))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), failed: None })
    }

    /// Notes an event with its answer and its body.
    pub(super) fn accepted(&mut self, number: u64, answer: &[u8], body: &[u8]) {
        let id = answered_id(answer).unwrap_or_default();
        let digest = hex(&zen_hmac::sha256(body));
        if let Err(error) = writeln!(self.file, "{number}\t{id}\t{digest}") {
            self.failed.get_or_insert(error);
        }
    }

    /// Ends the file; what failed on the way is said here.
    pub(super) fn finish(mut self) -> Result<(), LabError> {
        let flushed = self.failed.take().map_or_else(|| self.file.flush(), Err);
        flushed.map_err(LabError::file(&self.path))
    }
}

/// The result as a table.
pub(super) fn table(load: &Load) -> String {
    let ms = |us: f64| if us.is_nan() { "none".to_owned() } else { format!("{:.3} ms", us / 1000.0) };
    let mut rows = vec![
        ("span", format!("{:.2} s", load.seconds)),
        ("throughput", format!("{:.0} accepted/s", load.accepted_per_s)),
    ];
    if let Some(offered) = load.offered {
        let rate = offered as f64 / load.seconds;
        rows.push(("offered", format!("{offered} ({rate:.0}/s), {} of them never sent", load.unsent)));
    }
    rows.push(("sent", format!("{}, {} of them again", load.sent, load.repeated)));
    rows.push(("accepted", format!("{}, {} of them as duplicates", load.accepted, load.duplicates)));
    rows.push(("refused", refusals(&load.refused)));
    if load.expected_refusals > 0 {
        rows.push(("wrong signatures", format!("{} refused, as they must be", load.expected_refusals)));
    }
    if load.junk > 0 {
        rows.push(("junk", format!("{} connections ended by the server", load.junk)));
    }
    if let Some(seconds) = load.retry_after_s_max {
        rows.push(("retry after", format!("{seconds} s at most")));
    }
    rows.push(("failed", load.failed.to_string()));
    rows.push(("connections", format!("{}, {} of them resumed", load.connects, load.resumed)));
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
        rows.push((name, ms(load.latency.at(quantile))));
    }
    rows.push(("max", ms(load.latency.max_us)));
    if let Some(lag_us) = load.send_lag_p99_us {
        rows.push(("sent late, p99", ms(lag_us)));
    }
    rows.push((
        "client",
        format!("{:.2} µs CPU an answer, busy {:.0} %", load.client_cpu_us, load.client_busy * 100.0),
    ));
    let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<17} {value}\n")).collect();
    lines.concat()
}
