//! `open` and `get`: the two commands that give out a value, to a file or a pipe.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use zen_lock::{Client, Listener, SecretName};
use zen_lockd::files::create_new;

use super::KeyArguments;
use super::error::CliError;
use super::store::open_at;

const MODE: u32 = 0o600;

/// Options of `open`.
#[derive(Debug, Args)]
pub(crate) struct Open {
    #[command(flatten)]
    key: KeyArguments,
    /// The sealed file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where it belongs, NAMESPACE/NAME/KEY: the envelope must agree.
    #[arg(long, value_name = "NAME")]
    place: SecretName,
    /// A new file of mode 0600 for the value.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Options of `get`.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The daemon's socket.
    #[arg(long, value_name = "PATH", default_value = "/run/zen-lockd/lockd.sock")]
    socket: PathBuf,
    /// The number of the user that must listen there [default: root or oneself].
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
    /// A new file of mode 0600 for the value.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// NAMESPACE/NAME/KEY.
    #[arg(value_name = "NAME")]
    name: SecretName,
}

impl Open {
    /// Which value.
    pub(crate) fn target(&self) -> String {
        format!("{} of {}", self.place, self.file.display())
    }
}

pub(crate) fn open_file(options: &Open) -> Result<ExitCode, CliError> {
    let keys = options.key.read()?;
    let sealed = fs::read(&options.file).map_err(CliError::io(&options.file))?;
    let opened = open_at(&keys, &options.place, &sealed)
        .map_err(|source| CliError::Open { name: options.place.clone(), source })?;
    give(&opened.envelope.value, options.out.as_deref())
}

pub(crate) fn get(options: &Get) -> Result<ExitCode, CliError> {
    let listener = options.user.map_or(Listener::RootOrSelf, Listener::User);
    let value = Client::connect(&options.socket, listener)?.open(&options.name)?;
    give(&value, options.out.as_deref())
}

fn give(value: &[u8], out: Option<&Path>) -> Result<ExitCode, CliError> {
    let standard_output = Path::new("standard output");
    match out {
        Some(file) => create_new(file, value, MODE).map_err(CliError::io(file))?,
        None if io::stdout().is_terminal() => return Err(CliError::Terminal),
        None => {
            let mut output = io::stdout().lock();
            let written = output.write_all(value).and_then(|()| output.flush());
            written.map_err(CliError::io(standard_output))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
