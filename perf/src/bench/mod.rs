//! The `bench` command: closed loop through ingester and egress to a sink, in interleaved rounds.
//!
//! Out: a Markdown table with medians and spread of events per second, CPU microseconds per event (whole
//! machine and per process) and latency of the 202. CPU counts until the last event is delivered.

mod cpu;
pub(crate) mod syscalls;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_rustls::TlsConnector;

use self::cpu::CpuTimes;
use crate::error::LabError;
use crate::lab::{Lab, Metrics, Process, Shape, TARGET_IDENTITY, node_program, wait_ready};
use crate::load::{LoadPlan, LoadState, Record, run_load};
use crate::random::system_seed;
use crate::samples::{Samples, Sizes};
use crate::tls::source_config;

const BODY_BYTES: [usize; 2] = [1024, 8192];
const CONNECTIONS: [u32; 2] = [32, 256];
const WARM_UP: Duration = Duration::from_secs(1);
const BACKLOG_TIMEOUT: Duration = Duration::from_mins(2);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);
const DELIVERED: &str = "zen_deliveries_total";
const DELIVERED_LABEL: &str = "=\"delivered\"";

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rounds over all cells; medians are over rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each cell that are measured.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Directory of the lab; made anew each time. Its disk is what is measured.
    #[arg(long, default_value = "lab/bench")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Workers per node; 0 is one per core.
    #[arg(long, default_value_t = 1)]
    workers: u32,
}

/// What is varied.
#[derive(Clone, Copy, Debug)]
struct Cell {
    body_bytes: usize,
    connections: u32,
}

/// One cell in one round.
#[derive(Clone, Debug)]
struct Figures {
    events_per_s: f64,
    /// Whole machine, ingester, egress, sink, sender, rest; microseconds per event.
    cpu_us: [f64; 6],
    /// p50, p99, p999 of the 202, milliseconds.
    answer_ms: [f64; 3],
}

/// The running processes of a benchmark.
struct Bench {
    lab: Lab,
    ingester: Process,
    egress: Process,
    sink: Process,
}

/// Measures and prints.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let program = node_program(options.node.as_deref())?;
    let lab = Lab::make(&options.dir, Shape::BENCH, options.workers)?;
    let mut bench = Bench::start(lab, &program).await?;
    let cells = BODY_BYTES
        .iter()
        .flat_map(|&body_bytes| CONNECTIONS.iter().map(move |&connections| Cell { body_bytes, connections }));
    let mut results: Vec<(Cell, Vec<Figures>)> = cells.map(|cell| (cell, Vec::new())).collect();
    for round in 1..=options.rounds {
        for (cell, figures) in &mut results {
            eprintln!("round {round}: {} B, {} connections", cell.body_bytes, cell.connections);
            figures.push(bench.measure(*cell, Duration::from_secs(options.seconds)).await?);
        }
    }
    print_table(&options, &results);
    for process in [&mut bench.ingester, &mut bench.egress, &mut bench.sink] {
        if process.stop(STOP_TIMEOUT).await.is_none() {
            eprintln!("{} had to be killed", process.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Bench {
    async fn start(lab: Lab, program: &std::path::Path) -> Result<Self, LabError> {
        let sink = start_sink(&lab)?;
        let mut egress = lab.start(&lab.egresses[0], program)?;
        let mut ingester = lab.start(&lab.ingester, program)?;
        wait_ready(&lab.egresses[0], &mut egress).await?;
        wait_ready(&lab.ingester, &mut ingester).await?;
        Ok(Self { lab, ingester, egress, sink })
    }

    async fn measure(&mut self, cell: Cell, length: Duration) -> Result<Figures, LabError> {
        let state = Arc::new(LoadState::default());
        let delivered_before = self.delivered().await;
        let sending = tokio::spawn(run_load(self.plan(cell)?, Arc::clone(&state)));
        tokio::time::sleep(WARM_UP).await;
        let accepted = || state.accepted.load(Ordering::Relaxed);
        let (accepted_before, cpu_before, begun) = (accepted(), self.cpu(), Instant::now());
        let delivered_at_start = self.delivered().await;
        state.measure();
        tokio::time::sleep(length).await;
        let (events, elapsed) = (accepted() - accepted_before, begun.elapsed());
        state.stop();
        let report = sending.await.expect("the load does not panic");
        self.await_delivered(delivered_before + accepted() as f64).await?;
        let cpu = self.cpu().since(&cpu_before);
        // Work in the measured span: half of an event is its acceptance, half its delivery.
        let accepted_in_span = accepted() - accepted_before;
        let delivered_in_span = self.delivered().await - delivered_at_start;
        let handled = f64::midpoint(accepted_in_span as f64, delivered_in_span).max(1.0);
        let answer_ms = [0.5, 0.99, 0.999].map(|q| report.latency_us.value_at_quantile(q) as f64 / 1000.0);
        let cpu_us = cpu.map(|us| us / handled);
        Ok(Figures { events_per_s: events as f64 / elapsed.as_secs_f64(), cpu_us, answer_ms })
    }

    fn cpu(&self) -> CpuTimes {
        let own = std::process::id();
        CpuTimes::read([self.ingester.id(), self.egress.id(), self.sink.id(), own])
    }

    async fn delivered(&self) -> f64 {
        Metrics::scrape(self.lab.egresses[0].admin).await.sum(DELIVERED, DELIVERED_LABEL)
    }

    async fn await_delivered(&mut self, count: f64) -> Result<(), LabError> {
        let begun = Instant::now();
        while self.delivered().await < count && begun.elapsed() < BACKLOG_TIMEOUT {
            self.ingester.check()?;
            self.egress.check()?;
            self.sink.check()?;
            tokio::time::sleep(POLL).await;
        }
        if begun.elapsed() >= BACKLOG_TIMEOUT {
            eprintln!("the backlog was not delivered within {} s", BACKLOG_TIMEOUT.as_secs());
        }
        Ok(())
    }

    fn plan(&self, cell: Cell) -> Result<LoadPlan, LabError> {
        Ok(LoadPlan {
            address: self.lab.public,
            tls: TlsConnector::from(source_config(&self.lab.pki.public_ca())?),
            endpoints: Arc::clone(&self.lab.endpoints),
            samples: Arc::new(Samples::new(Sizes::Fixed(cell.body_bytes))?),
            connections: cell.connections,
            events_max: u64::MAX,
            rate_per_s: 0,
            record: Record::Counts,
            run: system_seed(),
        })
    }
}

fn start_sink(lab: &Lab) -> Result<Process, LabError> {
    let own = std::env::current_exe()
        .map_err(|source| LabError::Start { program: PathBuf::from("zen-perf"), source })?;
    let listen = lab.target.to_string();
    let (certificate, key) = (lab.pki.certificate(TARGET_IDENTITY), lab.pki.key(TARGET_IDENTITY));
    let (bundle, targets) = (lab.pki.bundle(), lab.directory.join("targets.json"));
    let arguments: [&OsStr; 12] = [
        "sink".as_ref(),
        "--count-only".as_ref(),
        "--listen".as_ref(),
        listen.as_ref(),
        "--certificate".as_ref(),
        certificate.as_ref(),
        "--key".as_ref(),
        key.as_ref(),
        "--client-ca".as_ref(),
        bundle.as_ref(),
        "--targets".as_ref(),
        targets.as_ref(),
    ];
    Process::start("sink", &own, &arguments, &lab.log("sink"))
}

fn print_table(options: &Options, results: &[(Cell, Vec<Figures>)]) {
    println!("{}\n", cpu::machine());
    println!(
        "{} rounds of {} s, interleaved, workers = {}; median (least to most). CPU is µs per event until its delivery;\n\
         \"rest\" is the machine less the four processes: kernel workers, interrupts, whatever else ran.\n",
        options.rounds, options.seconds, options.workers
    );
    println!(
        "| body | connections | events/s | machine | ingester | egress | sink | sender | rest | 202 p50 ms | p99 | p999 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for (cell, figures) in results {
        let rate = spread(figures.iter().map(|one| one.events_per_s), 0);
        let mut columns = vec![cell.body_bytes.to_string(), cell.connections.to_string(), rate];
        columns.extend((0..6).map(|at| spread(figures.iter().map(|one| one.cpu_us[at]), 0)));
        columns.extend((0..3).map(|at| spread(figures.iter().map(|one| one.answer_ms[at]), 2)));
        println!("| {} |", columns.join(" | "));
    }
}

/// `median (least to most)` with `digits` after the point.
fn spread(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.as_slice() {
        [] => "-".to_owned(),
        [one] => format!("{one:.digits$}"),
        [least, .., most] => {
            format!("{:.digits$} ({least:.digits$} to {most:.digits$})", values[values.len() / 2])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_median_and_range() {
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter(), 0), "2 (1 to 3)");
        assert_eq!(spread([1.25].into_iter(), 2), "1.25");
        assert_eq!(spread([].into_iter(), 0), "-");
    }
}
