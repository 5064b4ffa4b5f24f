//! The `vault` command: how fast lockd's socket answers, and what a thousand secrets cost a node's start.
//!
//! Callers ask one after the other on a connection each, as a node does. Starts with files and with lockd take turns: each is
//! `zen-dataplane --check-config` of the same endpoints, from the process's start to its end.

mod site;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use zen_lock::{Client, Listener, SecretName};

use self::site::{Custody, Site};
use crate::bench::machine;
use crate::error::LabError;
use crate::lab::node_program;
use crate::pairs::Rounds;

const LATENCY_US_MAX: u64 = 10_000_000;
const WARM_UP: Duration = Duration::from_millis(300);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Options of `vault`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rounds over all of it.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds for each number of callers.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How many callers ask at once, each number in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 8])]
    callers: Vec<usize>,
    /// Secrets that a node starts with.
    #[arg(long, default_value_t = 1000)]
    secrets: usize,
    /// Directory of the lab; made anew each time.
    #[arg(long, default_value = "lab/vault")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
}

/// What the rounds of one number of callers came to.
struct Row {
    callers: usize,
    p50_us: Rounds,
    p99_us: Rounds,
    per_s: Rounds,
}

/// Measures, and prints a table and a line.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let node = node_program(options.node.as_deref())?;
    let site = Site::make(&options.dir, options.secrets, node)?;
    println!("{}; {} rounds, values of 40 bytes, sealed to one key", machine(), options.rounds);
    let mut lockd = site.start().await?;
    let mut rows: Vec<Row> = options.callers.iter().map(|callers| Row::new(*callers)).collect();
    let (mut files, mut asked, mut ratios) = (Rounds::default(), Rounds::default(), Rounds::default());
    for round in 0..options.rounds {
        for row in &mut rows {
            row.measure(&site, Duration::from_secs(options.seconds))?;
        }
        let mut took_ms = [0.0; 2];
        for turn in 0..2 {
            let at = (round + turn) % 2;
            took_ms[at] = site.check_config([Custody::Files, Custody::Lockd][at])?;
        }
        eprintln!(
            "round {}: start with files {:.0} ms, with lockd {:.0} ms",
            round + 1,
            took_ms[0],
            took_ms[1]
        );
        files.0.push(took_ms[0]);
        asked.0.push(took_ms[1]);
        ratios.0.push(took_ms[1] / took_ms[0]);
    }
    lockd.stop(STOP_TIMEOUT).await;
    println!("| callers | p50, µs | p99, µs | requests/s |\n|---|---|---|---|");
    rows.iter().for_each(Row::print);
    println!(
        "start with {} secrets: from files {} ms, from lockd {} ms, ratio {}",
        options.secrets,
        files.text(0),
        asked.text(0),
        ratios.text(2)
    );
    Ok(ExitCode::SUCCESS)
}

impl Row {
    fn new(callers: usize) -> Self {
        let (p50_us, p99_us, per_s) = (Rounds::default(), Rounds::default(), Rounds::default());
        Self { callers, p50_us, p99_us, per_s }
    }

    fn measure(&mut self, site: &Site, length: Duration) -> Result<(), LabError> {
        let names = site.names();
        let (from, until) = (Instant::now() + WARM_UP, Instant::now() + WARM_UP + length);
        let ask = |caller| ask(site, &names, caller * names.len() / self.callers, (from, until));
        let parts: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.callers).map(|caller| scope.spawn(move || ask(caller))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a caller does not panic")).collect()
        });
        let mut all = histogram();
        for part in parts {
            all.add(part?).expect("both have the same bounds");
        }
        self.p50_us.0.push(all.value_at_quantile(0.5) as f64);
        self.p99_us.0.push(all.value_at_quantile(0.99) as f64);
        self.per_s.0.push(all.len() as f64 / length.as_secs_f64());
        Ok(())
    }

    fn print(&self) {
        let [p50, p99, per_s] = [&self.p50_us, &self.p99_us, &self.per_s].map(|rounds| rounds.text(0));
        println!("| {} | {p50} | {p99} | {per_s} |", self.callers);
    }
}

/// Asks for one secret after the other, beginning with `first`; latencies of the window.
fn ask(
    site: &Site,
    names: &[SecretName],
    first: usize,
    (from, until): (Instant, Instant),
) -> Result<Histogram<u64>, LabError> {
    let mut client = Client::connect(&site.socket(), Listener::RootOrSelf)?;
    let mut latency_us = histogram();
    for name in names.iter().cycle().skip(first) {
        let begun = Instant::now();
        client.open(name)?;
        let ended = Instant::now();
        if ended >= until {
            break;
        }
        if begun >= from {
            latency_us.saturating_record((ended - begun).as_micros() as u64);
        }
    }
    Ok(latency_us)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds are in order")
}
