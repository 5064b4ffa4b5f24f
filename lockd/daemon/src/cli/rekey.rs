//! `rekey`: one verb for new data keys and other recipients.
//!
//! What a value may be used for is taken from its envelope and from nowhere else: not from labels, annotations or
//! the name of a file. A value that lies where its envelope does not allow it is a straggler, not a chance to move it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use zen_lock::SecretName;
use zen_lockd::vault::{Format, Identities, Recipients, seal};

use super::KeyArguments;
use super::error::CliError;
use super::store::{Store, open_at};

/// Begins armored text.
const ARMOR: &[u8] = b"-----BEGIN AGE";

/// Options of `rekey`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    key: KeyArguments,
    /// To whom everything is sealed from now on, and to nobody else.
    #[arg(long = "recipient", value_name = "AGE1", conflicts_with_all = ["add", "remove"])]
    recipients: Vec<String>,
    /// One more recipient, beside those of each value.
    #[arg(long, value_name = "AGE1")]
    add: Vec<String>,
    /// A recipient less.
    #[arg(long, value_name = "AGE1")]
    remove: Vec<String>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Directories of sealed files, and zen-lock manifests.
    #[arg(value_name = "PLACE", required = true)]
    places: Vec<PathBuf>,
}

impl Options {
    /// What is sealed anew; nothing in a dry run.
    pub(crate) fn target(&self) -> Option<String> {
        let places: Vec<String> = self.places.iter().map(|place| place.display().to_string()).collect();
        (!self.dry_run).then(|| places.join(" "))
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, CliError> {
    let keys = options.key.read()?;
    // Bad recipients are refused before anything is touched.
    for given in [&options.recipients, &options.add, &options.remove] {
        if !given.is_empty() {
            Recipients::parse(given.iter().map(String::as_str))?;
        }
    }
    let (mut rekeyed, mut stragglers) = (0, 0);
    for place in &options.places {
        let mut store = Store::at(place)?;
        let mut sealed_anew = Vec::new();
        for (name, sealed) in store.entries()? {
            let sealed = sealed.map_err(|error| error.to_string());
            match sealed.and_then(|sealed| anew(options, &keys, &name, &sealed)) {
                Ok(sealed) => sealed_anew.push((name, sealed)),
                Err(reason) => {
                    stragglers += 1;
                    println!("straggler {name}: {reason}");
                }
            }
        }
        rekeyed += sealed_anew.len();
        if !options.dry_run {
            store.replace(sealed_anew)?;
        }
    }
    let would = if options.dry_run { "would be " } else { "" };
    println!("{rekeyed} {would}sealed anew, {stragglers} stragglers");
    if !options.remove.is_empty() && !options.dry_run {
        println!("whoever was removed can still open older copies: change the values that matter");
    }
    Ok(if stragglers == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn anew(options: &Options, keys: &Identities, name: &SecretName, sealed: &[u8]) -> Result<Vec<u8>, String> {
    let mut envelope = open_at(keys, name, sealed).map_err(|error| error.to_string())?.envelope;
    let recipients = recipients(options, &envelope.recipients)?;
    let format = if sealed.starts_with(ARMOR) { Format::Armored } else { Format::Binary };
    seal(&mut envelope, &recipients, format).map_err(|error| error.to_string())
}

/// The whole set that was given, or that of the envelope with what is added and removed.
fn recipients(options: &Options, before: &[String]) -> Result<Recipients, String> {
    if !options.recipients.is_empty() {
        return Recipients::parse(options.recipients.iter().map(String::as_str))
            .map_err(|error| error.to_string());
    }
    if before.is_empty() {
        return Err("it does not say to whom it is sealed; give all of them with --recipient".to_owned());
    }
    let kept = before.iter().filter(|recipient| !options.remove.contains(recipient));
    Recipients::parse(kept.chain(&options.add).map(String::as_str)).map_err(|error| error.to_string())
}
