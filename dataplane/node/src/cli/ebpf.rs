//! `zen-dataplane ebpf`.

use std::io::{self, Write};

use clap::Subcommand;
use serde_json::Value;

use super::{CliError, Node, cell, time, write_table};

/// What is asked about programs in the kernel.
#[derive(Debug, Subcommand)]
pub enum Ebpf {
    /// What is attached, since when, and what it counted; what is missing, and why.
    Status {
        #[command(flatten)]
        node: Node,
    },
}

impl Ebpf {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        let Self::Status { node } = self;
        let answer = node.client()?.get("/ebpf")?;
        let programs = answer["programs"].as_array().cloned().unwrap_or_default();
        if node.json {
            let mut out = io::stdout().lock();
            return programs.iter().try_for_each(|program| Ok(writeln!(out, "{program}")?));
        }
        let rows: Vec<Vec<String>> = programs.iter().map(row).collect();
        write_table(&["PROGRAM", "STATE", "SINCE", "WHERE", "COUNTS"], &rows)
    }
}

fn row(program: &Value) -> Vec<String> {
    let since = program["since_ms"].as_u64().map_or_else(|| "-".to_owned(), time::show);
    let place = if program["reason"].is_null() { cell(program, "place") } else { cell(program, "reason") };
    let mut counts = Vec::new();
    flatten("", &program["counts"], &mut counts);
    vec![cell(program, "program"), cell(program, "state"), since, place, counts.join(" ")]
}

/// Members of members as `a.b=1`.
fn flatten(name: &str, value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                let below = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                flatten(&below, value, into);
            }
        }
        value => into.push(format!("{name}={value}")),
    }
}
