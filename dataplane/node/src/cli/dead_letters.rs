//! `zen-dataplane dead-letters`.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::Client;
use super::{CliError, Node, cell, plain, time, write_table};

/// Letters asked for at a time.
const PAGE: usize = 1000;
const COLUMNS: [&str; 9] =
    ["LETTER", "EVENT", "TARGET", "REASON", "STATUS", "ATTEMPTS", "REPLAYS", "BYTES", "DIED"];

/// What is done with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List them, in the order in which they died.
    List {
        #[command(flatten)]
        node: Node,
        #[command(flatten)]
        filter: Filter,
        /// At most so many.
        #[arg(long, value_name = "NUMBER", default_value_t = 100)]
        limit: usize,
    },
    /// Show one: what is known of it, never its body.
    Show {
        #[command(flatten)]
        node: Node,
        /// As `list` shows it, such as 0-1234-0.
        #[arg(value_name = "LETTER")]
        id: String,
    },
    /// Send them again, with their event ids and the header `zen-replay`.
    Replay {
        #[command(flatten)]
        node: Node,
        #[command(flatten)]
        chosen: Chosen,
        /// To this target instead.
        #[arg(long, value_name = "TARGET")]
        to: Option<String>,
    },
    /// Throw them away for good.
    Discard {
        #[command(flatten)]
        node: Node,
        #[command(flatten)]
        chosen: Chosen,
    },
}

/// Which letters.
#[derive(Debug, Args)]
pub struct Filter {
    /// Of this target.
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// That died of this, such as `server_error`; docs/operations.md lists reasons.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// That died on this side: `destination` or `pipeline`.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Of this event.
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// That died then or later: 2026-01-31T12:00:00Z, or 2h ago.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// That died then or before.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// Which letters: some by name, those that match, or all.
#[derive(Debug, Args)]
pub struct Chosen {
    /// As `list` shows them; none with a filter.
    #[arg(value_name = "LETTER")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All of them.
    #[arg(long)]
    all: bool,
}

impl DeadLetters {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        match self {
            Self::List { node, filter, limit } => list(&node, &filter, limit),
            Self::Show { node, id } => show(&node, &id),
            Self::Replay { node, chosen, to } => order(&node, "/dead-letters/replay", &chosen, to.as_deref()),
            Self::Discard { node, chosen } => order(&node, "/dead-letters/discard", &chosen, None),
        }
    }
}

impl Filter {
    /// Members as the admin interface names them.
    fn members(&self) -> Result<Map<String, Value>, CliError> {
        let mut members = Map::new();
        let texts = [
            ("target", &self.target),
            ("reason", &self.reason),
            ("kind", &self.kind),
            ("event", &self.event),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                members.insert(name.to_owned(), plain(name, text)?.into());
            }
        }
        for (name, text) in [("since_ms", &self.since), ("until_ms", &self.until)] {
            if let Some(text) = text {
                members.insert(name.to_owned(), time::parse(text)?.into());
            }
        }
        Ok(members)
    }
}

impl Chosen {
    fn members(&self) -> Result<Map<String, Value>, CliError> {
        let filter = self.filter.members()?;
        let ways = [!self.ids.is_empty(), !filter.is_empty(), self.all];
        if ways.into_iter().filter(|is_taken| *is_taken).count() != 1 {
            let say = "give letters, a filter (see --help), or --all: one of them";
            return Err(CliError::Argument(say.to_owned()));
        }
        let (name, value) =
            if self.ids.is_empty() { ("filter", filter.into()) } else { ("ids", json!(self.ids)) };
        Ok(Map::from_iter([(name.to_owned(), value)]))
    }
}

fn list(node: &Node, filter: &Filter, limit: usize) -> Result<(), CliError> {
    let (client, mut letters) = (node.client()?, Vec::new());
    let mut query = String::new();
    for (name, value) in filter.members()? {
        query = format!("{query}&{name}={}", value.to_string().trim_matches('"'));
    }
    loop {
        let page = page(&client, &query, limit - letters.len())?;
        letters.extend(page["letters"].as_array().cloned().unwrap_or_default());
        let Some(next) = page["next"].as_str().filter(|_| letters.len() < limit) else { break };
        query.truncate(query.find("&after=").unwrap_or(query.len()));
        query = format!("{query}&after={}", plain("next", next)?);
    }
    if node.json {
        let mut out = io::stdout().lock();
        return letters.iter().try_for_each(|letter| Ok(writeln!(out, "{letter}")?));
    }
    let rows: Vec<Vec<String>> = letters.iter().map(row).collect();
    write_table(&COLUMNS, &rows)
}

fn page(client: &Client, query: &str, left: usize) -> Result<Value, CliError> {
    client.get(&format!("/dead-letters?limit={}{query}", left.clamp(1, PAGE)))
}

fn row(letter: &Value) -> Vec<String> {
    let mut row: Vec<String> = ["id", "event", "target", "reason", "status", "attempts", "replays", "bytes"]
        .into_iter()
        .map(|name| cell(letter, name))
        .collect();
    row.push(letter["died_ms"].as_u64().map_or_else(|| "-".to_owned(), time::show));
    row
}

fn show(node: &Node, id: &str) -> Result<(), CliError> {
    let letter = node.client()?.get(&format!("/dead-letters/{}", plain("LETTER", id)?))?;
    if node.json {
        return Ok(writeln!(io::stdout(), "{letter}")?);
    }
    let rows: Vec<Vec<String>> =
        COLUMNS.iter().zip(row(&letter)).map(|(name, cell)| vec![name.to_lowercase(), cell]).collect();
    let side = vec!["kind".to_owned(), cell(&letter, "kind")];
    write_table(&["", ""], &[rows, vec![side]].concat())
}

fn order(node: &Node, path: &str, chosen: &Chosen, to: Option<&str>) -> Result<(), CliError> {
    let mut body = chosen.members()?;
    if let Some(to) = to {
        body.insert("to".to_owned(), to.into());
    }
    let answer = node.client()?.post(path, &Value::Object(body))?;
    write_tally(node, &answer)
}

/// What came of an order.
pub(super) fn write_tally(node: &Node, answer: &Value) -> Result<(), CliError> {
    let mut out = io::stdout();
    if node.json {
        return Ok(writeln!(out, "{answer}")?);
    }
    let (state, done, skipped) = (cell(answer, "state"), cell(answer, "done"), cell(answer, "skipped"));
    writeln!(out, "{state}: {done} done, {skipped} skipped")?;
    if state == "under way" {
        writeln!(out, "it goes on in the node; zen_replay_pending says how much is left")?;
    }
    Ok(())
}
