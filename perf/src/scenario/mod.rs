//! The `scenarios` command.

use std::process::ExitCode;

use crate::error::LabError;

/// Options of `scenarios`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

/// Runs scenarios.
#[expect(clippy::unused_async, reason = "a stub")]
pub(crate) async fn run(_options: Options) -> Result<ExitCode, LabError> {
    Ok(ExitCode::FAILURE)
}
