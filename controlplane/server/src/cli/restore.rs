//! `restore`: a copy comes back, and what it cannot know is said.

use std::path::PathBuf;

use clap::Args;
use zen_control::ControlError;

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The control plane's directory, with its keys; no server runs in it.
    #[arg(long)]
    dir: PathBuf,
    /// What `backup` wrote.
    #[arg(long)]
    from: PathBuf,
}

/// Restores, and says what to do next.
pub(super) fn run(restore: &Restore) -> Result<(), ControlError> {
    let restored = zen_control::restore(&restore.dir, &restore.from, super::now_ms())?;
    println!("{} clusters, each with a version above all that agents have", restored.clusters);
    println!("{} bundles were open, and are revoked: make new ones", restored.revoked_bundles);
    if let Some(newest_ms) = restored.newest_ms {
        println!("The newest thing that the copy knows of is of {}.", super::print::time(newest_ms));
    }
    println!("Whatever was set or denied later has to be said again: run configuration set, run deny.");
    println!(
        "Agents that enrolled or renewed later are strangers: they get in by recovery, or with a new bundle."
    );
    if let Some(before) = restored.before {
        println!("The database that was there is {}.", before.display());
    }
    Ok(())
}
