//! `zen-agent`: see [`zen_agent`], and `zen-agent --help`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use zen_agent::{Config, Exit};

/// Gets a node its identity and configuration from the control plane.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turns an enrollment bundle into an identity; can be repeated with the same bundle.
    Enroll {
        /// The bundle, as the control plane showed it once.
        #[arg(long, value_name = "FILE")]
        bundle: PathBuf,
        /// The agent's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Renews certificates, publishes configurations, tells nodes, reports.
    Run {
        /// The agent's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// What the state directory says; status 1 if something needs a look.
    Status {
        /// The agent's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let filter = EnvFilter::new("info");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let done = match &command {
        Command::Enroll { bundle, config } => enroll(bundle, config),
        Command::Run { config } => run(config),
        Command::Status { config } => status(config),
    };
    done.unwrap_or_else(|error| {
        eprintln!("zen-agent: {error}");
        ExitCode::from(2)
    })
}

fn enroll(bundle: &Path, config: &Path) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let config = Config::read(config)?;
    let (spiffe_id, not_after_ms) = runtime()?.block_on(zen_agent::enroll(bundle, &config))?;
    let bundle = bundle.display();
    println!("enrolled as {spiffe_id}; the certificate ends at {not_after_ms} (Unix ms)");
    println!("the bundle is not needed any more: remove {bundle}, and start `zen-agent run`");
    Ok(ExitCode::SUCCESS)
}

fn run(config: &Path) -> Result<ExitCode, Box<dyn std::error::Error>> {
    runtime()?.block_on(zen_agent::run(Config::read(config)?))?;
    Ok(ExitCode::SUCCESS)
}

fn status(config: &Path) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let (text, exit) = zen_agent::status(&Config::read(config)?)?;
    print!("{text}");
    Ok(match exit {
        Exit::Good => ExitCode::SUCCESS,
        Exit::Trouble => ExitCode::FAILURE,
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build()
}
