//! `run`: the server, as a file and the command line say.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;
use zen_control::{ControlError, RunOptions, RunSettings};

/// Two threads carry connections; what blocks has threads of its own.
const WORKERS: usize = 2;
/// Open files that no connection of an agent needs after its handshake: arrivals, people, the database.
const FILES_BESIDE: u64 = 4_500;

#[derive(Debug, Args)]
pub(super) struct Run {
    /// TOML; options of the command line come first.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The control plane's directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where agents connect [default: 0.0.0.0:8444].
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Where people connect [default: 127.0.0.1:8445].
    #[arg(long)]
    people_listen: Option<SocketAddr>,
    /// Where browsers connect: dashboard, sign-in, and the API with a token [default: nowhere].
    #[arg(long)]
    web_listen: Option<SocketAddr>,
    /// How long a request for a configuration waits, give or take a tenth [default: 55s].
    #[arg(long, value_parser = super::life)]
    long_poll: Option<Duration>,
    /// Go on although the audit log has fewer or other entries than were signed for; that this was said is an entry.
    #[arg(long)]
    accept_truncation: bool,
    /// error, warn, info, debug or trace [default: info].
    #[arg(long)]
    log: Option<String>,
}

/// Serves until it is told to end.
pub(super) fn run(run: Run) -> Result<(), ControlError> {
    let options = RunOptions {
        directory: run.dir,
        listen: run.listen,
        people_listen: run.people_listen,
        web_listen: run.web_listen,
        long_poll: run.long_poll,
        accept_truncation: run.accept_truncation,
        log: run.log,
    };
    let settings = RunSettings::read(run.config.as_deref(), options)?;
    let filter = EnvFilter::try_new(&settings.log);
    let filter = filter.map_err(|_| ControlError::Argument("--log is error, warn, info, debug or trace"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    allow_files(settings.connections_max as u64);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = runtime.map_err(|source| ControlError::File { path: "threads".into(), source })?;
    let served = runtime.block_on(zen_control::serve(&settings));
    runtime.shutdown_timeout(Duration::from_secs(2));
    served
}

/// As many open files as the system lets us have; whether these are enough is said now, and not by connections that fail.
fn allow_files(connections_max: u64) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let allowed = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let wanted = connections_max + FILES_BESIDE;
    if allowed < wanted {
        tracing::warn!(
            allowed,
            wanted,
            "few open files are allowed: set LimitNOFILE=, or a smaller agents.connections_max"
        );
    }
}
