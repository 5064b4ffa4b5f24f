//! Receipts of commands, and `receipts`, which checks what is there.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use zen_audit::{LogKey, SegmentFinding};
use zen_lockd::daemon::Config;
use zen_lockd::receipts::{Act, ReceiptLog, Receipts, Stage, may_write, verify};

use super::error::CliError;

/// Where a host's configuration is.
pub(crate) const CONFIG: &str = "/etc/zen-lockd/zen-lockd.toml";
const UNSIGNED: u8 = 3;
const FAILED: u8 = 4;

/// Options of `receipts`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The directory, or a copy of it.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// The public key of its digests, as somebody else kept it [default: receipts.pub of the directory].
    #[arg(long, value_name = "NAME+ID+BASE64")]
    key: Option<String>,
}

/// An act with its first line.
pub(crate) struct Begun {
    log: Option<ReceiptLog>,
    act: Act,
}

impl Begun {
    /// Its line is on the drive before it is done. Where there is no vault, or it is somebody else's, there is nothing of
    /// it that could be done, and no line.
    pub(crate) fn of(config: &Path, name: &'static str, target: String) -> Result<Self, CliError> {
        let mut begun = Self { log: None, act: Act::own(name, Stage::Begun, Some(target)) };
        if config.as_os_str() == CONFIG && !config.exists() {
            return Ok(begun);
        }
        let (directory, limits) = Config::read_receipts(config)?;
        if may_write(&directory) {
            let log = ReceiptLog::open(&directory, limits)?;
            log.act(&begun.act)?;
            begun.log = Some(log);
        }
        Ok(begun)
    }

    /// How it ended.
    pub(crate) fn end(self, done: &Result<ExitCode, CliError>) -> Result<(), CliError> {
        let Some(log) = self.log else { return Ok(()) };
        let (stage, reason) = match done {
            Ok(code) if *code == ExitCode::SUCCESS => (Stage::Done, None),
            Ok(_) => (Stage::Failed, Some("not all of it was done".to_owned())),
            Err(error) => (Stage::Failed, Some(error.to_string())),
        };
        let act = Act::own(self.act.act, stage, self.act.target);
        Ok(log.act(&Act { reason, ..act })?)
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, CliError> {
    let key = options.key.as_deref().map(LogKey::parse).transpose()?;
    let (key, finding) = verify(&options.directory, key)?;
    println!("key         {key}");
    let SegmentFinding { first, verified, unsigned, fault } = finding;
    println!("PASS        [{first},{verified}) signed, and as they were");
    if let Some(fault) = fault {
        println!("FAIL        from {verified}: {fault}");
        return Ok(ExitCode::from(FAILED));
    }
    if unsigned > 0 {
        println!("UNSIGNED    [{verified},{}) no digest yet", verified + unsigned);
        return Ok(ExitCode::from(UNSIGNED));
    }
    Ok(ExitCode::SUCCESS)
}
