//! `zen-control authority ...` and `zen-control recovery`: the CAs, and what a cluster may do when its certificate has ended.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use zen_control::{
    Advanced, ControlError, Database, Directory, Force, Need, RecoveryPolicy, RootSpread, Straggler,
};

use super::{State, now_ms, print};

#[derive(Debug, Subcommand)]
pub(super) enum AuthorityCommand {
    /// Print the CAs, and who does not know a second root yet.
    Status(State),
    /// Prepare the next issuing CA with the root's key.
    Renew(Renew),
    /// Make a second root, which all clusters learn; its issuing CA signs when they have.
    RotateRoot(Change),
    /// Take the old root out of everything, when nobody needs it.
    RetireRoot(Change),
}

#[derive(Debug, Args)]
pub(super) struct Renew {
    #[command(flatten)]
    state: State,
    /// The root's key, if it is not in the directory; it is read once.
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Change {
    #[command(flatten)]
    state: State,
    /// Do it although somebody loses his connections; who, is printed.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Recovery {
    #[command(flatten)]
    state: State,
    /// Which cluster.
    #[arg(long)]
    cluster: String,
    /// off, once or auto.
    #[arg(long)]
    policy: Option<RecoveryPolicy>,
    /// Count anew.
    #[arg(long)]
    reset: bool,
}

pub(super) fn run(command: AuthorityCommand) -> Result<(), ControlError> {
    match command {
        AuthorityCommand::Status(state) => {
            let (directory, database) = state.open()?;
            for line in zen_control::authority_lines(&directory, now_ms())? {
                println!("{line}");
            }
            root_change(&directory, &database)?;
        }
        AuthorityCommand::Renew(renew) => {
            let (directory, mut database) = renew.state.open()?;
            let root_key = renew.root_key.as_deref();
            say_done(&zen_control::renew_issuing(&directory, &mut database, root_key, now_ms())?);
        }
        AuthorityCommand::RotateRoot(change) => {
            let (directory, mut database) = change.state.open()?;
            let stragglers = zen_control::rotate_root(&directory, &mut database, change.force(), now_ms())?;
            println!("all clusters learn the new root; see: zen-control authority status");
            say_stragglers(&stragglers);
        }
        AuthorityCommand::RetireRoot(change) => {
            let (directory, mut database) = change.state.open()?;
            let broken = zen_control::retire_root(&directory, &mut database, change.force(), now_ms())?;
            println!("the old root is gone; {} good certificates led to it", broken.live_leaves);
            say_stragglers(&broken.stragglers);
        }
    }
    Ok(())
}

/// Says how far a change of the root is, if there is one.
pub(super) fn root_change(directory: &Directory, database: &Database) -> Result<(), ControlError> {
    if let Some(spread) = zen_control::root_spread(directory, database, now_ms())? {
        say_spread(&spread);
    }
    Ok(())
}

pub(super) fn recovery(recovery: &Recovery) -> Result<(), ControlError> {
    let (_, mut database) = recovery.state.open()?;
    let change = (recovery.policy, recovery.reset);
    let state = zen_control::set_recovery(&mut database, &recovery.cluster, change)?;
    println!("{}: recovery {}, used {} times", recovery.cluster, state.policy, state.used);
    Ok(())
}

impl Change {
    fn force(&self) -> Force {
        if self.force { Force::Yes } else { Force::No }
    }
}

fn say_done(advanced: &Advanced) {
    advanced.done.iter().for_each(|step| println!("{step}"));
    match advanced.need {
        Some(Need::RootKey { by_ms }) => {
            println!("the next issuing CA needs the root's key by {}", print::time_of(by_ms));
        }
        Some(Need::Root { by_ms }) => println!("the root ends {}: rotate it", print::time_of(by_ms)),
        None => {}
    }
}

fn say_spread(spread: &RootSpread) {
    let signing = if spread.is_signing { "signs" } else { "waits until everybody knows it, and a day" };
    println!("the second root {signing}; {} good certificates lead to the old one", spread.live_leaves);
    say_stragglers(&spread.stragglers);
}

fn say_stragglers(stragglers: &[Straggler]) {
    for Straggler { cluster, member, knows } in stragglers {
        let who = member.as_deref().map_or("its agent".to_owned(), print::escaped);
        println!("  does not know the new root: {cluster}, {who} {knows}");
    }
}
