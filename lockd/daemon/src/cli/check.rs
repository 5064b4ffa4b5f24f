//! `check`: what can be opened, with which key, and why the rest cannot.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use zen_lock::SecretName;
use zen_lockd::vault::{Author, Expected, Identities, OpenError, open};

use super::KeyArguments;
use super::error::CliError;
use super::store::Store;

/// Options of `check`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    key: KeyArguments,
    /// A recipient to whom everything should be sealed.
    #[arg(long = "recipient", value_name = "AGE1")]
    recipients: Vec<String>,
    /// An author, one of whom should have signed everything.
    #[arg(long = "author", value_name = "BASE64")]
    authors: Vec<Author>,
    /// Say nothing of what is good.
    #[arg(long)]
    quiet: bool,
    /// Directories of sealed files, and zen-lock manifests.
    #[arg(value_name = "PLACE", required = true)]
    places: Vec<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, CliError> {
    let keys = options.key.read()?;
    let (mut good, mut bad) = (0, 0);
    for place in &options.places {
        for (name, sealed) in Store::at(place)?.entries()? {
            let sealed = sealed.map_err(|error| error.to_string());
            match sealed.and_then(|sealed| look(options, &keys, &name, &sealed)) {
                Ok(note) => {
                    good += 1;
                    if !options.quiet {
                        println!("good {name}: {note}");
                    }
                }
                Err(reason) => {
                    bad += 1;
                    println!("bad {name}: {reason}");
                }
            }
        }
    }
    println!("{good} good, {bad} bad");
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look(options: &Options, keys: &Identities, name: &SecretName, sealed: &[u8]) -> Result<String, String> {
    let authors = [options.authors.as_slice()];
    let authors = if options.authors.is_empty() { &[][..] } else { &authors[..] };
    let expected = Expected { place: name, authors };
    // One key after the other, so that it is known which ones are still needed.
    let opened = keys.each().enumerate().map(|(index, key)| (index + 1, open(sealed, &key, expected)));
    let mut opened = opened.skip_while(|(_, opened)| matches!(opened, Err(OpenError::OtherKeys)));
    let Some((number, opened)) = opened.next() else { return Err(OpenError::OtherKeys.to_string()) };
    let envelope = opened.map_err(|error| error.to_string())?.envelope;
    if let Some(missing) = options.recipients.iter().find(|wanted| !envelope.recipients.contains(wanted)) {
        return Err(format!("it is not sealed to {missing}, as far as it says"));
    }
    let signed = envelope.author.map_or(String::new(), |author| format!(", signed by {author}"));
    let recipients = envelope.recipients.len();
    Ok(format!("key {number} of {} opens it, {recipients} recipients{signed}", keys.count()))
}
