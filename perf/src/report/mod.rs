//! The `report` command.

use std::process::ExitCode;

use crate::error::LabError;

/// Options of `report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

/// Writes a report.
pub(crate) fn run(_options: &Options) -> Result<ExitCode, LabError> {
    Ok(ExitCode::FAILURE)
}
