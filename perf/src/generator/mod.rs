//! The `load` command: signed webhooks from one thread, so that one core of it can fill one core of a server.
//!
//! In: a server, its CA, endpoints with their secrets, and a rate or none. Out: a table, and as files the result
//! (`results::Load`), a log of histograms, the accepted events. What the client itself could not do is said, in the
//! result and in words. Refused: options that contradict each other, files that cannot be read, a server that
//! does not answer at all.

mod arrivals;
pub(crate) mod check;
mod client;
mod connection;
mod draw;
mod options;
mod output;
mod plan;
mod requests;
mod tally;
mod tickets;
mod usage;
mod wire;

use std::process::ExitCode;
use std::time::SystemTime;

use self::client::Client;
pub(crate) use self::options::Options;
use self::output::{Recorder, table, write_log};
use crate::error::LabError;
use crate::results;

/// Sends, and writes what came of it.
pub(crate) fn run(options: &Options) -> Result<ExitCode, LabError> {
    if let Some(core) = options.core {
        zen_uring::pin_to_core(core)
            .map_err(|error| LabError::Tool { what: "--core".to_owned(), reason: error.to_string() })?;
    }
    let plan = options.plan()?;
    let recorder = options.record.as_deref().map(Recorder::new).transpose()?;
    let begun = SystemTime::now();
    let outcome = Client::new(&plan, recorder)?.run()?;
    if let Some(path) = &options.json {
        results::write(path, &outcome.load)?;
    }
    if let Some(path) = &options.hdr {
        write_log(path, begun, &outcome.seconds)?;
    }
    print!("{}", table(&outcome.load));
    for words in &outcome.words {
        eprintln!("zen-perf: {words}");
    }
    if plan.says_phases {
        println!("phase done");
    }
    match outcome.all_failed {
        None => Ok(ExitCode::SUCCESS),
        Some(reason) => Err(LabError::Tool {
            what: format!("each of {} requests to {} failed", outcome.load.sent, plan.address),
            reason: format!("{reason}; look into the server's log"),
        }),
    }
}
