//! The `sink` command.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::faults::{Faults, Outage};
use super::recorder::Recorder;
use super::{Sink, SinkState, Target};
use crate::error::LabError;
use crate::lab::read_json;
use crate::load::Record;
use crate::record::Comparison;
use crate::stop::StopSignal;
use crate::tls::{KeyExchange, server_config};

/// Options of `sink`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9443")]
    listen: SocketAddr,
    /// Its certificate, PEM.
    #[arg(long)]
    certificate: PathBuf,
    /// The certificate's key, PEM.
    #[arg(long)]
    key: PathBuf,
    /// CA of the client certificates it requires.
    #[arg(long)]
    client_ca: PathBuf,
    /// JSON list of targets: name, secret (a lab has one as `targets.json`).
    #[arg(long)]
    targets: PathBuf,
    /// Count only: no signature check, nothing kept in memory.
    #[arg(long)]
    count_only: bool,
    /// Offer no key exchange but X25519.
    #[arg(long)]
    x25519: bool,
    /// Milliseconds that each answer waits.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    latency_ms: u64,
    /// Share of deliveries that get a 503.
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    error_percent: u8,
    /// From second `AT_S` after the start on, for `FOR_S` seconds, connections are reset and refused; repeatable.
    #[arg(long, value_name = "AT_S:FOR_S")]
    outage: Vec<Outage>,
    /// A line for each delivery that is answered with 200, for `zen-perf account`.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Print counts every so many seconds; without it only at the end.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    stats_every: Option<u64>,
    /// Which deliveries get their 503: the same ones for the same number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Serves until SIGTERM or Ctrl-C, then prints what came; fails if a signature did.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let targets: Vec<Target> = read_json(&options.targets)?;
    let state = Arc::new(SinkState::default());
    let exchange = if options.x25519 { KeyExchange::X25519 } else { KeyExchange::All };
    let tls = server_config(&options.certificate, &options.key, &options.client_ca, exchange)?;
    let record = if options.count_only { Record::Counts } else { Record::Events };
    let mut sink = Sink::new(TlsAcceptor::from(tls), &targets, record, Arc::clone(&state));
    let latency = Duration::from_millis(options.latency_ms);
    let faults = Faults::new(latency, options.error_percent, options.outage, options.seed);
    sink.faults = Arc::new(faults.map_err(|reason| LabError::Tool { what: "--outage".to_owned(), reason })?);
    let recorder = options.record.as_deref().map(Recorder::create).transpose()?.map(Arc::new);
    sink.recorder.clone_from(&recorder);
    let mut stop = StopSignal::new()?;
    let listener =
        TcpListener::bind(options.listen).await.map_err(LabError::socket("cannot listen (--listen)"))?;
    let serving = tokio::spawn(sink.serve(listener));
    match options.stats_every {
        None => stop.wait().await,
        Some(seconds) => {
            let every = Duration::from_secs(seconds);
            tokio::select! {
                () = stop.wait() => {}
                () = print_counts(&state, &targets, every) => {}
            }
        }
    }
    serving.abort();
    recorder.map_or(Ok(()), |recorder| recorder.finish())?;
    let comparison = Comparison::new(&[], &state.arrivals());
    println!(
        "deliveries {}, events {}, invalid {}",
        state.count.load(Ordering::Relaxed),
        state.distinct(),
        comparison.invalid.len()
    );
    println!("{}", by_target(&state, &targets));
    Ok(if comparison.invalid.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line at each turn, for ever.
async fn print_counts(state: &SinkState, targets: &[Target], every: Duration) {
    let mut before = 0;
    loop {
        tokio::time::sleep(every).await;
        let count = state.count.load(Ordering::Relaxed);
        let rate = (count - before) as f64 / every.as_secs_f64();
        println!("deliveries {count}, {rate:.0}/s; {}", by_target(state, targets));
        before = count;
    }
}

fn by_target(state: &SinkState, targets: &[Target]) -> String {
    let counts = targets.iter().map(|target| format!("{} {}", target.name, state.count_of(&target.name)));
    let refused = state.refused.load(Ordering::Relaxed);
    format!("by target: {}; refused as asked: {refused}", counts.collect::<Vec<_>>().join(", "))
}
