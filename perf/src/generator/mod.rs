//! The `load` command.

use std::process::ExitCode;

use crate::error::LabError;

/// Options of `load`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

/// Sends.
pub(crate) fn run(_options: &Options) -> Result<ExitCode, LabError> {
    Ok(ExitCode::FAILURE)
}
