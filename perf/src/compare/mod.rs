//! The `compare` command.

use std::process::ExitCode;

use crate::error::LabError;

/// Options of `compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

/// Compares.
#[expect(clippy::unused_async, reason = "a stub")]
pub(crate) async fn run(_options: Options) -> Result<ExitCode, LabError> {
    Ok(ExitCode::FAILURE)
}
