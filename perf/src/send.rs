//! The `send` command: one load run against an ingester, with a summary at its end.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_rustls::TlsConnector;

use crate::error::LabError;
use crate::lab::read_json;
use crate::load::{LoadPlan, LoadReport, LoadState, Record, Repeats, run_load};
use crate::pki::write_file;
use crate::random::system_seed;
use crate::samples::{Endpoint, Samples, Sizes};
use crate::signature::hex;
use crate::tls::source_config;

/// Options of `send`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The ingester's public listener.
    #[arg(long, default_value = "127.0.0.1:8443")]
    address: SocketAddr,
    /// CA of its certificate, which names localhost.
    #[arg(long)]
    ca: PathBuf,
    /// JSON list of endpoints: id, scheme, secret (a lab has one as `endpoints.json`).
    #[arg(long)]
    endpoints: PathBuf,
    /// Connections at once, each with one request on the way.
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// Events in all.
    #[arg(long, default_value_t = 1000)]
    events: u64,
    /// Events per second; 0 is as fast as the answers come.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Bytes of each body; without it, realistic ones of 1 to 30 KB.
    #[arg(long)]
    size: Option<usize>,
    /// Write a JSON line per accepted event: number, event id, body SHA-256.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Threads of the client.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

impl Options {
    /// Threads of the client.
    pub(crate) fn threads(&self) -> usize {
        self.threads.max(1)
    }
}

/// Sends, then prints counts and latencies; fails if anything was refused.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let endpoints: Vec<Endpoint> = read_json(&options.endpoints)?;
    let plan = LoadPlan {
        address: options.address,
        tls: TlsConnector::from(source_config(&options.ca)?),
        endpoints: endpoints.into(),
        samples: Arc::new(Samples::new(options.size.map_or(Sizes::Realistic, Sizes::Fixed))?),
        connections: options.connections,
        events_max: options.events,
        rate_per_s: options.rate,
        record: if options.record.is_some() { Record::Events } else { Record::Counts },
        run: system_seed(),
        repeats: Repeats::None,
    };
    let state = Arc::new(LoadState::default());
    state.measure();
    let begun = Instant::now();
    let report = run_load(plan, Arc::clone(&state)).await;
    print_summary(&state, &report, begun.elapsed());
    if let Some(path) = &options.record {
        write_file(path, lines(&report).as_bytes(), 0o644)?;
    }
    Ok(if report.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_summary(state: &LoadState, report: &LoadReport, elapsed: Duration) {
    let accepted = state.accepted.load(Ordering::Relaxed);
    println!(
        "accepted {accepted} in {:.2} s ({:.0}/s), retries {}, connections opened {}",
        elapsed.as_secs_f64(),
        accepted as f64 / elapsed.as_secs_f64(),
        state.retries.load(Ordering::Relaxed),
        state.connects.load(Ordering::Relaxed),
    );
    let quantile = |q| report.latency_us.value_at_quantile(q) as f64 / 1000.0;
    println!(
        "202 after p50 {:.2} ms, p99 {:.2} ms, p999 {:.2} ms, max {:.2} ms",
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        report.latency_us.max() as f64 / 1000.0
    );
    for (status, count) in &report.refused {
        println!("refused with status {status}: {count}");
    }
}

fn lines(report: &LoadReport) -> String {
    let mut text = String::new();
    for event in &report.accepted {
        let (id, body) = (&event.event_id, hex(&event.body_sha256));
        writeln!(text, "{{\"number\":{},\"event_id\":\"{id}\",\"sha256\":\"{body}\"}}", event.number)
            .expect("a String takes any text");
    }
    text
}
