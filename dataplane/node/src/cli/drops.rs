//! `zen-dataplane events --follow`.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use super::{CliError, Node, cell, time};

/// How often the node is asked.
const POLL: Duration = Duration::from_millis(250);

/// Writes refusals, those included that the node still has, until the terminal or the node goes.
pub fn follow(node: &Node) -> Result<(), CliError> {
    let (client, mut after) = (node.client()?, 0);
    loop {
        let answer = client.get(&format!("/drops?after={after}"))?;
        let mut out = io::stdout().lock();
        for dropped in answer["drops"].as_array().into_iter().flatten() {
            if node.json { writeln!(out, "{dropped}")? } else { writeln!(out, "{}", line(dropped))? }
        }
        out.flush()?;
        after = answer["last"].as_u64().unwrap_or(after);
        std::thread::sleep(POLL);
    }
}

fn line(dropped: &Value) -> String {
    let at = dropped["time_ms"].as_u64().map_or_else(|| "-".to_owned(), time::show);
    let verdict = if dropped["enforced"] == true { "refused" } else { "observed" };
    let place = if dropped["at_interface"] == true { " at its interface" } else { "" };
    let (program, reason) = (cell(dropped, "program"), cell(dropped, "reason"));
    let (address, port) = (cell(dropped, "address"), cell(dropped, "port"));
    let direction = if program == "guard" { "from" } else { "to" };
    format!("{at}  {program:<5}  {verdict}  {reason}  {direction} {address}, port {port}{place}")
}
