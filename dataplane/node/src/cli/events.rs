//! `zen-dataplane events`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::Client;
use super::dead_letters::write_tally;
use super::{CliError, Node, cell, client_of, drops, plain, time, write_table};

/// A command, or `--follow`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Asked {
    /// Show packets and connections that guard and fence refuse, or would, as they are told, until Ctrl-C.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    node: Option<Node>,
    #[command(subcommand)]
    command: Option<Events>,
}

impl Asked {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        match (self.command, self.node) {
            (Some(command), _) => command.run(),
            (None, Some(node)) if self.follow => drops::follow(&node),
            (None, _) => {
                Err(CliError::Argument("give a command, or --follow and a node: see --help".to_owned()))
            }
        }
    }
}

/// What is asked about events.
#[derive(Debug, Subcommand)]
pub enum Events {
    /// The life of one event, as the journals of one node or of several tell it.
    Show {
        #[command(flatten)]
        nodes: Nodes,
        /// The event's id.
        #[arg(value_name = "EVENT")]
        id: String,
    },
    /// Send events again that an egress still has, done or not.
    Replay {
        #[command(flatten)]
        node: Node,
        /// That it took in then or later: 2026-01-31T12:00:00Z, or 2h ago.
        #[arg(long, value_name = "TIME", required_unless_present = "id")]
        since: Option<String>,
        /// That it took in then or before; now without it.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// Of this endpoint.
        #[arg(long, value_name = "ENDPOINT")]
        endpoint: Option<String>,
        /// This event.
        #[arg(long, value_name = "EVENT")]
        id: Option<String>,
        /// To this target instead of those that it went to.
        #[arg(long, value_name = "TARGET")]
        to: Option<String>,
    },
    /// Write the body of one to standard output, where `admin.bodies` allows it; it is logged who looks, and why.
    Body {
        #[command(flatten)]
        node: Node,
        /// The event's id.
        #[arg(value_name = "EVENT")]
        id: String,
        /// Why: it goes into the node's log.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// Which nodes, and how it is shown.
#[derive(Debug, Args)]
pub struct Nodes {
    /// A node's admin socket; several are asked in turn.
    #[arg(long, value_name = "PATH", required_unless_present = "config")]
    socket: Vec<PathBuf>,
    /// A node's configuration file, which names its admin socket.
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// JSON, an object a line, in place of a table.
    #[arg(long)]
    json: bool,
}

impl Events {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        match self {
            Self::Show { nodes, id } => show(&nodes, &id),
            Self::Replay { node, since, until, endpoint, id, to } => {
                let mut body = Map::new();
                for (name, text) in [("since_ms", since), ("until_ms", until)] {
                    if let Some(text) = text {
                        body.insert(name.to_owned(), time::parse(&text)?.into());
                    }
                }
                for (name, text) in [("endpoint", endpoint), ("event", id), ("to", to)] {
                    if let Some(text) = text {
                        body.insert(name.to_owned(), text.into());
                    }
                }
                let answer = node.client()?.post("/events/replay", &Value::Object(body))?;
                write_tally(&node, &answer)
            }
            Self::Body { node, id, reason } => {
                let path = format!("/events/{}/body", plain("EVENT", &id)?);
                let body = node.client()?.post_bytes(&path, &json!({ "reason": reason }))?;
                Ok(io::stdout().write_all(&body)?)
            }
        }
    }
}

fn show(nodes: &Nodes, id: &str) -> Result<(), CliError> {
    let path = format!("/events/{}", plain("EVENT", id)?);
    let mut clients: Vec<Client> = nodes.socket.iter().cloned().map(Client::new).collect();
    for file in &nodes.config {
        clients.push(client_of(file)?);
    }
    let mut steps = Vec::new();
    for client in clients {
        let life = client.get(&path)?;
        for step in life["steps"].as_array().into_iter().flatten() {
            let mut step = step.clone();
            step["node"] = life["node"].clone();
            steps.push(step);
        }
    }
    if steps.is_empty() {
        return Err(CliError::Unknown(id.to_owned()));
    }
    // Clocks of two nodes differ, and an event was accepted before anything else. Stable: what one node wrote in the same ms stays.
    steps.sort_by_key(|step| (step["step"] != "accepted", step["time_ms"].as_u64()));
    if nodes.json {
        let mut out = io::stdout().lock();
        return steps.iter().try_for_each(|step| Ok(writeln!(out, "{step}")?));
    }
    let rows: Vec<Vec<String>> = steps.iter().map(row).collect();
    write_table(&["TIME", "NODE", "JOURNAL", "STEP", "DETAIL"], &rows)
}

fn row(step: &Value) -> Vec<String> {
    let at = step["time_ms"].as_u64().map_or_else(|| "-".to_owned(), time::show);
    let shown = ["time_ms", "node", "journal", "sequence", "step"];
    let members = step.as_object().into_iter().flatten();
    let details = members.filter(|(name, value)| !shown.contains(&name.as_str()) && !value.is_null());
    let details: Vec<String> = details.map(|(name, value)| detail(name, value)).collect();
    vec![at, cell(step, "node"), cell(step, "journal"), cell(step, "step"), details.join(" ")]
}

fn detail(name: &str, value: &Value) -> String {
    match (name, value) {
        ("due_ms", Value::Number(due_ms)) => format!("due={}", time::show(due_ms.as_u64().unwrap_or(0))),
        (_, Value::String(text)) => format!("{name}={text}"),
        (_, Value::Array(names)) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            format!("{name}={}", names.join(","))
        }
        _ => format!("{name}={value}"),
    }
}
