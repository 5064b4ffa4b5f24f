//! The `peers` command: starts each peer in a lab of its own and shows that it does what its row claims.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum as _;

use super::durable::check_durable;
use super::{Hops, Peer, Settings, await_listening, check, start};
use crate::bench::start_sink;
use crate::error::LabError;
use crate::lab::{Lab, Shape};
use crate::tls::KeyExchange;

/// A short body, one of several TCP segments, and nearly the longest of the scenarios.
const BODIES_BYTES: [usize; 3] = [1, 8192, 30_000];
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Options of `peers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which; all of them without a name.
    #[arg(value_enum)]
    peers: Vec<Peer>,
    /// Directory of the lab; made anew each time.
    #[arg(long, default_value = "lab/peers")]
    dir: PathBuf,
    /// Threads of each hop.
    #[arg(long, default_value_t = 1)]
    threads: u32,
}

/// Prints a line for each peer; an error at the first that does not do its work, or is not installed.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let peers = if options.peers.is_empty() { Peer::value_variants() } else { options.peers.as_slice() };
    for &peer in peers {
        let version = peer.check_installed()?;
        for hops in [Hops::Ingest, Hops::Both].into_iter().take(peer.hops()) {
            let lab = Lab::make(&options.dir, Shape::BENCH, options.threads)?;
            let settings = Settings { threads: options.threads, key_exchange: KeyExchange::X25519, hops };
            let mut sink = start_sink(&lab)?;
            await_listening(lab.target, std::slice::from_mut(&mut sink)).await?;
            let mut processes = start(peer, &lab, &settings).await?;
            check(peer, &lab, &settings, &BODIES_BYTES).await?;
            for process in processes.iter_mut().chain([&mut sink]) {
                process.stop(STOP_TIMEOUT).await;
            }
        }
        if peer.is_baseline() {
            let lab = Lab::make(&options.dir, Shape::BENCH, options.threads)?;
            let acknowledged = check_durable(peer, &lab, options.threads).await?;
            println!(
                "{}: all {acknowledged} events that it took before SIGKILL are in its journal",
                peer.label()
            );
        }
        println!("{}: as its row says; {version}, lacks {}", peer.label(), peer.lacks().join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
