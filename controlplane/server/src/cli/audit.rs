//! `zen-control audit`: what the log's keeper can say of it. `zen-audit verify` says it without the keeper.

use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use zen_control::{AuditSettings, ControlError};

use super::{State, now_ms};

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Print the key that checkpoints are verified with.
    Key(State),
    /// Print the keys of the agents that are witnesses, and how many entries each has cosigned.
    Witnesses(State),
    /// Sign what is new, and print the newest checkpoint with its cosignatures.
    Checkpoint(Checkpoint),
    /// Write all entries and checkpoints, for `zen-audit verify`.
    Export(Export),
    /// Walk through all entries; who does not trust this host runs `zen-audit verify` on an export elsewhere.
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(super) struct Checkpoint {
    #[command(flatten)]
    state: State,
    /// Where the second copy is, as `audit.checkpoint_file` says it to the server.
    #[arg(long, value_name = "FILE")]
    checkpoint_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    state: State,
    /// A new file, mode 0600; the standard output without it.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    state: State,
    /// How many witnesses have to have cosigned.
    #[arg(long, default_value_t = 1)]
    quorum: usize,
}

pub(super) fn run(command: AuditCommand) -> Result<(), ControlError> {
    match command {
        AuditCommand::Key(state) => {
            let (directory, database) = state.open()?;
            println!("{}", zen_control::audit_key(&directory, &database)?);
        }
        AuditCommand::Witnesses(state) => {
            for (cluster, key, cosigned) in zen_control::audit_witnesses(&state.open()?.1)? {
                let cosigned = cosigned.map_or("nothing yet".to_owned(), |size| size.to_string());
                println!("{cluster} {key} {cosigned}");
            }
        }
        AuditCommand::Checkpoint(checkpoint) => {
            let (directory, mut database) = checkpoint.state.open()?;
            let settings =
                AuditSettings { checkpoint_file: checkpoint.checkpoint_file, ..AuditSettings::default() };
            print!("{}", zen_control::sign_audit(&directory, &mut database, &settings, now_ms())?);
        }
        AuditCommand::Export(order) => export(&order)?,
        AuditCommand::Verify(order) => verify(&order)?,
    }
    Ok(())
}

fn export(order: &Export) -> Result<(), ControlError> {
    let (_, mut database) = order.state.open()?;
    let Some(out) = &order.out else {
        return zen_control::export_audit(&mut database, &mut io::stdout().lock());
    };
    let failed = |source| ControlError::File { path: out.clone(), source };
    let mut file = BufWriter::new(new_file(out).map_err(failed)?);
    zen_control::export_audit(&mut database, &mut file)?;
    file.flush().and_then(|()| file.get_ref().sync_all()).map_err(failed)
}

fn new_file(path: &std::path::Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn verify(order: &Verify) -> Result<(), ControlError> {
    let (directory, mut database) = order.state.open()?;
    let found = zen_control::audit_ranges(&directory, &mut database, order.quorum)?;
    println!("PASS [0,{})", found.anchored);
    let end = found.fault.map_or(found.entries, |fault| fault.at());
    if found.anchored < end {
        println!("UNANCHORED [{},{end})", found.anchored);
    }
    match found.fault {
        None => Ok(()),
        Some(fault) => {
            println!("FAIL from {}", fault.at());
            Err(ControlError::AuditFault(fault))
        }
    }
}
