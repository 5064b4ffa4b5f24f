//! `zen-dataplane reload`.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::{CliError, Node, cell};

/// Which node takes its configuration again.
#[derive(Debug, Args)]
pub struct Reload {
    #[command(flatten)]
    node: Node,
}

impl Reload {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        let applied = self.node.client()?.post("/reload", &json!({}))?;
        let mut out = io::stdout();
        if self.node.json {
            return Ok(writeln!(out, "{applied}")?);
        }
        let managed = match &applied["managed"] {
            number if number.is_u64() => format!(", of the managed generation {number}"),
            _ => String::new(),
        };
        Ok(writeln!(out, "generation {} in force{managed}", cell(&applied, "applied"))?)
    }
}
