//! `zen-dataplane targets`.

use std::io::{self, Write};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{CliError, Node, cell, plain, write_table};

const COLUMNS: [(&str, &str); 7] = [
    ("TARGET", "name"),
    ("STATE", "state"),
    ("HELD", "held_ms"),
    ("WAITING", "waiting"),
    ("IN FLIGHT", "in_flight"),
    ("CAP", "in_flight_cap"),
    ("OLDEST", "oldest_ms"),
];

/// What is asked about targets.
#[derive(Debug, Subcommand)]
pub enum Targets {
    /// How all of them are.
    List {
        #[command(flatten)]
        node: Node,
    },
    /// How one is, and what failed last.
    Show {
        #[command(flatten)]
        node: Node,
        /// Its name.
        #[arg(value_name = "TARGET")]
        name: String,
    },
    /// Send nothing until it is resumed, also after a restart; what comes for it is kept.
    Pause {
        #[command(flatten)]
        node: Node,
        /// Its name.
        #[arg(value_name = "TARGET")]
        name: String,
    },
    /// Send again, after a pause or a 410.
    Resume {
        #[command(flatten)]
        node: Node,
        /// Its name.
        #[arg(value_name = "TARGET")]
        name: String,
    },
}

impl Targets {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        match self {
            Self::List { node } => list(&node),
            Self::Show { node, name } => show(&node, &name),
            Self::Pause { node, name } => hold(&node, &name, "pause"),
            Self::Resume { node, name } => hold(&node, &name, "resume"),
        }
    }
}

fn list(node: &Node) -> Result<(), CliError> {
    let answer = node.client()?.get("/targets")?;
    let targets = answer["targets"].as_array().cloned().unwrap_or_default();
    if node.json {
        let mut out = io::stdout().lock();
        return targets.iter().try_for_each(|target| Ok(writeln!(out, "{target}")?));
    }
    let rows: Vec<Vec<String>> = targets.iter().map(row).collect();
    write_table(&COLUMNS.map(|(title, _)| title), &rows)
}

fn show(node: &Node, name: &str) -> Result<(), CliError> {
    let target = node.client()?.get(&format!("/targets/{}", plain("TARGET", name)?))?;
    if node.json {
        return Ok(writeln!(io::stdout(), "{target}")?);
    }
    let title = |name: &str| name.to_lowercase();
    let mut rows: Vec<Vec<String>> =
        COLUMNS.iter().zip(row(&target)).map(|((name, _), cell)| vec![title(name), cell]).collect();
    let failure = &target["last_failure"];
    if failure.is_object() {
        rows.push(vec!["last failure".to_owned(), cell(failure, "outcome")]);
        rows.push(vec!["status".to_owned(), cell(failure, "status")]);
        rows.push(vec!["age".to_owned(), span(&failure["age_ms"])]);
        rows.push(vec!["answer".to_owned(), cell(failure, "excerpt")]);
    }
    write_table(&["", ""], &rows)
}

fn hold(node: &Node, name: &str, verb: &str) -> Result<(), CliError> {
    let path = format!("/targets/{}/{verb}", plain("TARGET", name)?);
    let target = node.client()?.post(&path, &json!({}))?;
    let mut out = io::stdout();
    if node.json {
        return Ok(writeln!(out, "{target}")?);
    }
    let waiting =
        if target["waiting"].is_null() { String::new() } else { format!(", {} waiting", target["waiting"]) };
    Ok(writeln!(out, "{name}: {}{waiting}", cell(&target, "state"))?)
}

fn row(target: &Value) -> Vec<String> {
    let cell = |(_, name): &(&str, &str)| {
        if name.ends_with("_ms") { span(&target[*name]) } else { cell(target, name) }
    };
    COLUMNS.iter().map(cell).collect()
}

/// Milliseconds as a person reads them.
fn span(ms: &Value) -> String {
    match ms.as_u64() {
        None => "-".to_owned(),
        Some(ms @ 0..1_000) => format!("{ms}ms"),
        Some(ms @ 1_000..120_000) => format!("{}s", ms / 1_000),
        Some(ms @ 120_000..7_200_000) => format!("{}m", ms / 60_000),
        Some(ms) => format!("{}h", ms / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let shown = [0, 999, 1_000, 119_999, 120_000, 7_199_999, 7_200_000].map(|ms| span(&json!(ms)));
        assert_eq!(shown, ["0ms", "999ms", "1s", "119s", "2m", "119m", "2h"]);
        assert_eq!(span(&Value::Null), "-");
    }
}
