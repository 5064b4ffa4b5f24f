//! Commands: for a running node, over its admin socket, dead letters, events, targets and reloads; `probe` and `route` need none.
//!
//! Arguments enter; a table for people or a JSON object per line leaves. Exit codes: 0 done, 1 refused or failed, 2 bad arguments.

mod client;
mod dead_letters;
mod drops;
mod ebpf;
mod events;
mod probe;
mod reload;
mod route;
mod targets;
mod time;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

pub use self::client::CliError;
use self::client::Client;
use crate::config;

/// What is asked of a running node.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Deliveries that were given up: list, show, send again, throw away.
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// Programs in the kernel that guard, fence, steer and observe the node's sockets.
    #[command(subcommand)]
    Ebpf(ebpf::Ebpf),
    /// Events: the life of one, sent again by time, the body of one; or what the kernel refuses, as it happens.
    Events(events::Asked),
    /// Targets: how they are, pause, resume.
    #[command(subcommand)]
    Targets(targets::Targets),
    /// Take the configuration again, as SIGHUP does, and say what came of it.
    Reload(reload::Reload),
    /// What this kernel gives a node: `io_uring` and eBPF, feature by feature. No node is needed.
    Probe,
    /// Which flows would take an event, and why; or what an output would make of it. No node is needed.
    Route(route::Route),
}

/// Which node, and how it is shown.
#[derive(Debug, Args)]
pub struct Node {
    /// The node's admin socket.
    #[arg(long, value_name = "PATH", required_unless_present = "config", conflicts_with = "config")]
    socket: Option<PathBuf>,
    /// The node's configuration file, which names its admin socket.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// JSON, an object a line, in place of a table.
    #[arg(long)]
    json: bool,
}

impl Node {
    fn client(&self) -> Result<Client, CliError> {
        match (&self.socket, &self.config) {
            (Some(socket), _) => Ok(Client::new(socket.clone())),
            (None, Some(file)) => client_of(file),
            (None, None) => unreachable!("clap wants one of them"),
        }
    }
}

/// Runs a command.
pub fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::DeadLetters(command) => command.run(),
        Command::Ebpf(command) => command.run(),
        Command::Events(asked) => asked.run(),
        Command::Targets(command) => command.run(),
        Command::Probe => probe::run(),
        Command::Reload(command) => command.run(),
        Command::Route(command) => Ok(command.run()?),
    }
}

/// The node whose configuration this is.
fn client_of(file: &std::path::Path) -> Result<Client, CliError> {
    let raw = config::read(file).map_err(|error| CliError::Config(format!("configuration: {error}")))?;
    let no_socket = || CliError::Config(format!("{}: admin.socket is not configured", file.display()));
    let socket = raw.admin.socket.ok_or_else(no_socket)?;
    Ok(Client::new(file.parent().unwrap_or(file).join(socket)))
}

/// An argument as it stands in a path or query: only what needs no escape.
fn plain<'a>(name: &str, value: &'a str) -> Result<&'a str, CliError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if !value.is_empty() && value.bytes().all(is_plain) {
        return Ok(value);
    }
    Err(CliError::Argument(format!("{name}: {value:?} is not a name, an id or a number")))
}

/// Writes rows in columns as wide as their widest cell.
fn write_table(header: &[&str], rows: &[Vec<String>]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let header: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
    let lines = || std::iter::once(&header).chain(rows);
    let width = |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    for line in lines() {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// A member as text; `-` for what is not there.
fn cell(object: &Value, name: &str) -> String {
    match &object[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}
