//! `keygen`, `pubkey` and `rotate-key`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use zen_lockd::files::{KeyFile, KeySource, create_new, replace};
use zen_lockd::vault::{AuthorKey, Identities};

use super::error::CliError;
use super::store::{Store, opens_with};

const MODE: u32 = 0o400;

/// Options of `keygen`.
#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// The new key file; it must not be there yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// An author's signing key (Ed25519) instead of an own key (X25519).
    #[arg(long)]
    author: bool,
}

/// Options of `pubkey`.
#[derive(Debug, Args)]
pub(crate) struct Pubkey {
    /// A key file of either kind.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Options of `rotate-key`.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// The own key file.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Remove all keys but the newest; everything in the given places must open with that one.
    #[arg(long, requires = "places")]
    finish: bool,
    /// Directories of sealed files, and manifests, that this key opens.
    #[arg(value_name = "PLACE", id = "places")]
    places: Vec<PathBuf>,
}

impl Keygen {
    /// What it makes.
    pub(crate) fn target(&self) -> String {
        self.out.display().to_string()
    }
}

impl Rotate {
    /// What it changes.
    pub(crate) fn target(&self) -> String {
        let finishes = if self.finish { "finish " } else { "" };
        format!("{finishes}{}", self.key_file.display())
    }
}

pub(crate) fn keygen(options: &Keygen) -> Result<ExitCode, CliError> {
    let (text, public) = if options.author {
        let key = AuthorKey::generate();
        (key.pem().to_owned().into(), key.author().to_string())
    } else {
        let keys = Identities::generate();
        (keys.text(), keys.recipients().remove(0))
    };
    create_new(&options.out, text.as_bytes(), MODE).map_err(CliError::io(&options.out))?;
    println!("{public}");
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn pubkey(options: &Pubkey) -> Result<ExitCode, CliError> {
    let text = KeyFile(options.file.clone()).read()?;
    if text.starts_with("-----BEGIN") {
        println!("{}", AuthorKey::from_pem(&text)?.author());
    } else {
        Identities::parse(&text)?.recipients().iter().for_each(|recipient| println!("{recipient}"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn rotate(options: &Rotate) -> Result<ExitCode, CliError> {
    let keys = Identities::parse(&KeyFile(options.key_file.clone()).read()?)?;
    if options.finish { finish(options, &keys) } else { begin(&options.key_file, &keys) }
}

/// From here on both open; what is new is sealed to the new one.
fn begin(file: &Path, keys: &Identities) -> Result<ExitCode, CliError> {
    let next = keys.with_new()?;
    replace(file, next.text().as_bytes(), MODE).map_err(CliError::io(file))?;
    let recipients = next.recipients();
    println!("{}", recipients[0]);
    eprintln!(
        "{} keys are in the file now. Next: reload the daemon (SIGHUP); zen-lockd rekey --add {} --remove {} PLACE...; \
         then zen-lockd rotate-key --finish PLACE..., and reload again.",
        recipients.len(),
        recipients[0],
        recipients[1],
    );
    Ok(ExitCode::SUCCESS)
}

fn finish(options: &Rotate, keys: &Identities) -> Result<ExitCode, CliError> {
    let newest = keys.newest();
    let mut stragglers = 0;
    for place in &options.places {
        for (name, sealed) in Store::at(place)?.entries()? {
            let opened = sealed.map_err(|error| error.to_string());
            if let Err(reason) = opened.and_then(|sealed| opens_with(&newest, &name, &sealed)) {
                stragglers += 1;
                println!("straggler {name}: {reason}");
            }
        }
    }
    if stragglers > 0 {
        return Err(CliError::Stragglers(stragglers));
    }
    replace(&options.key_file, newest.text().as_bytes(), MODE).map_err(CliError::io(&options.key_file))?;
    println!("{} old keys removed, {} stays", keys.count() - 1, newest.recipients()[0]);
    Ok(ExitCode::SUCCESS)
}
