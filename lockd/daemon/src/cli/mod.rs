//! The command line. Keys come from files of mode 0400 or descriptors; no secret is ever an argument or in the
//! environment, and none is printed but by `open` and `get`.

mod check;
mod error;
mod input;
mod keys;
mod manifest;
mod open;
mod receipts;
mod rekey;
mod seal;
mod store;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use zen_lockd::daemon;
use zen_lockd::files::{Descriptor, KeyFile, KeySource};
use zen_lockd::memory::refuse_core_dumps;
use zen_lockd::vault::Identities;

use self::error::CliError;

/// An age vault: seals secrets, opens them on their node, and hands them to the processes that policy names.
#[derive(Debug, Parser)]
#[command(name = "zen-lockd", version, about, disable_help_subcommand = true)]
struct Cli {
    /// The host's configuration, TOML: what the daemon runs by, and where commands leave their receipts.
    #[arg(long, global = true, value_name = "FILE", default_value = receipts::CONFIG)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an own key, or with --author the key of somebody who seals.
    Keygen(keys::Keygen),
    /// Print the public keys of a key file.
    Pubkey(keys::Pubkey),
    /// Seal values from JSON, YAML, dotenv or a file.
    Seal(seal::Options),
    /// Open one sealed file.
    Open(open::Open),
    /// Seal everything anew, to more or fewer recipients.
    Rekey(rekey::Options),
    /// Say what can be opened, and why the rest cannot.
    Check(check::Options),
    /// Add a new own key beside the old one, or finish with the old ones gone.
    RotateKey(keys::Rotate),
    /// Run the daemon.
    Run(Run),
    /// Ask the daemon for a secret.
    Get(open::Get),
    /// Check a directory of receipts, or a copy of one, against its digests.
    Receipts(receipts::Options),
}

#[derive(Debug, Args)]
struct Run {
    /// error, warn, info, debug or trace.
    #[arg(long, default_value = "info")]
    log: String,
}

/// Where an own key comes from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct KeyArguments {
    /// The own key, an age identity file of mode 0400.
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The own key from an open descriptor.
    #[arg(long, value_name = "N")]
    identity_fd: Option<u32>,
}

impl KeyArguments {
    fn read(&self) -> Result<Identities, CliError> {
        let source: Box<dyn KeySource> = match (&self.identity, self.identity_fd) {
            (Some(file), _) => Box::new(KeyFile(file.clone())),
            (None, Some(number)) => Box::new(Descriptor(number)),
            (None, None) => unreachable!("clap demands one of them"),
        };
        Ok(Identities::parse(&source.read()?)?)
    }
}

/// Parses, runs, and says what went wrong.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.config, cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("zen-lockd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Path, command: Command) -> Result<ExitCode, CliError> {
    if let Command::Run(Run { log }) = command {
        let filter = EnvFilter::try_new(log)
            .map_err(|_| CliError::Usage("--log: give error, warn, info, debug or trace"))?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .with_target(false)
            .init();
        daemon::run(config)?;
        return Ok(ExitCode::SUCCESS);
    }
    refuse_core_dumps().map_err(daemon::DaemonError::from)?;
    let Some((name, target)) = act(&command) else { return execute(command) };
    let act = receipts::Begun::of(config, name, target)?;
    let done = execute(command);
    act.end(&done)?;
    done
}

/// What changes or opens something, and of what: it leaves receipts.
fn act(command: &Command) -> Option<(&'static str, String)> {
    match command {
        Command::Keygen(options) => Some(("keygen", options.target())),
        Command::Seal(options) => Some(("seal", options.target())),
        Command::Open(options) => Some(("open", options.target())),
        Command::Rekey(options) => options.target().map(|target| ("rekey", target)),
        Command::RotateKey(options) => Some(("rotate-key", options.target())),
        Command::Pubkey(_) | Command::Check(_) | Command::Run(_) | Command::Get(_) | Command::Receipts(_) => {
            None
        }
    }
}

fn execute(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Keygen(options) => keys::keygen(&options),
        Command::Pubkey(options) => keys::pubkey(&options),
        Command::Seal(options) => seal::run(&options),
        Command::Open(options) => open::open_file(&options),
        Command::Rekey(options) => rekey::run(&options),
        Command::Check(options) => check::run(&options),
        Command::RotateKey(options) => keys::rotate(&options),
        Command::Get(options) => open::get(&options),
        Command::Receipts(options) => receipts::run(&options),
        Command::Run(_) => unreachable!("it is run above"),
    }
}
