//! A node, asked over its admin socket: to take what was published, to send dead letters again, and for what it keeps of
//! its deliveries.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zen_control_api::{OrderEnd, REASON_BYTES_MAX as ORDER_REASON_BYTES_MAX};

use crate::http::{Answer, HttpError, Request, exchange};

/// A reload reads files, asks lockd, and resolves names.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A node waits for an order that long itself, and for a list.
const ASK_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest list of what a node keeps, bytes.
const LIST_BYTES_MAX: usize = 2 << 20;
const REASON_BYTES_MAX: usize = 4096;

/// What a node said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It runs by this generation.
    Applied(u64),
    /// It goes on as before.
    Rejected(String),
    /// It cannot be asked, or not now.
    Unreachable(String),
}

#[derive(Deserialize)]
struct Applied {
    managed: Option<u64>,
}

#[derive(Deserialize)]
struct Tally {
    done: u64,
    skipped: u64,
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

/// Asks the node at `socket` to reload.
pub(crate) async fn reload(socket: &Path) -> Told {
    match timeout(RELOAD_TIMEOUT, ask(socket, "POST", "/reload", None, ANSWER_BYTES_MAX)).await {
        Ok(Ok(answer)) => read(&answer),
        Ok(Err(error)) => Told::Unreachable(format!("{}: {error}; is the node running?", socket.display())),
        Err(_) => Told::Unreachable(format!("{}: no answer within {RELOAD_TIMEOUT:?}", socket.display())),
    }
}

/// Has the node at `socket` send dead letters again.
pub(crate) async fn replay(socket: &Path, letters: &BTreeSet<String>) -> OrderEnd {
    let body = serde_json::json!({ "ids": letters }).to_string();
    let asked = ask(socket, "POST", "/dead-letters/replay", Some(body.as_bytes()), ANSWER_BYTES_MAX);
    let reason = match timeout(ASK_TIMEOUT, asked).await {
        Ok(Ok(Answer { status: 200..=299, body, .. })) => match serde_json::from_slice(&body) {
            Ok(Tally { done, skipped }) => return OrderEnd::Done { done, skipped },
            Err(_) => "what came back is no answer of a node of this version".to_owned(),
        },
        Ok(Ok(answer)) => format!("answered {}: {}", answer.status, reason_of(&answer.body)),
        Ok(Err(error)) => format!("{}: {error}; is the node running?", socket.display()),
        Err(_) => format!("{}: no answer within {ASK_TIMEOUT:?}", socket.display()),
    };
    OrderEnd::Failed { reason: short(reason, ORDER_REASON_BYTES_MAX) }
}

/// What the node has at `target`; nothing if it has no such page.
pub(crate) async fn get<T: DeserializeOwned>(socket: &Path, target: &str) -> Result<Option<T>, String> {
    let answer = match timeout(ASK_TIMEOUT, ask(socket, "GET", target, None, LIST_BYTES_MAX)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(format!("{}: {error}", socket.display())),
        Err(_) => return Err(format!("{}: no answer within {ASK_TIMEOUT:?}", socket.display())),
    };
    match answer.status {
        200 => {
            let read = serde_json::from_slice(&answer.body);
            read.map(Some).map_err(|error| format!("{target}: no answer of a node of this version: {error}"))
        }
        404 => Ok(None),
        status => {
            Err(short(format!("{target}: answered {status}: {}", reason_of(&answer.body)), REASON_BYTES_MAX))
        }
    }
}

async fn ask(
    socket: &Path,
    method: &'static str,
    target: &str,
    body: Option<&[u8]>,
    body_bytes_max: usize,
) -> Result<Answer, HttpError> {
    let mut stream = UnixStream::connect(socket).await?;
    exchange(&mut stream, Request { method, target, host: "node", body }, body_bytes_max).await
}

fn read(answer: &Answer) -> Told {
    let Answer { status, body, .. } = answer;
    match status {
        200..=299 => match serde_json::from_slice(body) {
            Ok(Applied { managed: Some(managed) }) => Told::Applied(managed),
            Ok(Applied { managed: None }) => Told::Unreachable(
                "the node has a configuration of its own; start it with --managed".to_owned(),
            ),
            Err(_) => Told::Unreachable("what came back is no answer of a node of this version".to_owned()),
        },
        409 => Told::Rejected(short(reason_of(body), REASON_BYTES_MAX)),
        status => {
            Told::Unreachable(short(format!("answered {status}: {}", reason_of(body)), REASON_BYTES_MAX))
        }
    }
}

fn reason_of(body: &[u8]) -> String {
    let detail = serde_json::from_slice(body).map(|Problem { detail }| detail);
    detail.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned())
}

fn short(mut reason: String, bytes_max: usize) -> String {
    let end = (0..=bytes_max.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    reason.truncate(end.unwrap_or(0));
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_node_is_one_of_three() {
        for (status, body, expected) in [
            (200, "{\"applied\":3,\"managed\":7}\n", Told::Applied(7)),
            (409, "{\"type\":\"about:blank\",\"detail\":\"no\"}", Told::Rejected("no".to_owned())),
            (409, "no", Told::Rejected("no".to_owned())),
            (429, "{\"detail\":\"later\"}", Told::Unreachable("answered 429: later".to_owned())),
        ] {
            let answer = Answer { status, retry_after_ms: None, body: body.as_bytes().to_vec() };
            assert_eq!(read(&answer), expected);
        }
        for body in ["{\"applied\":3,\"managed\":null}", "", "{}"] {
            let answer = Answer { status: 200, retry_after_ms: None, body: body.as_bytes().to_vec() };
            assert!(matches!(read(&answer), Told::Unreachable(_)), "{body}");
        }
        let short = |text| short(text, REASON_BYTES_MAX);
        assert_eq!(short("ü".repeat(REASON_BYTES_MAX)).len(), REASON_BYTES_MAX);
        assert_eq!(short(format!("a{}", "ü".repeat(REASON_BYTES_MAX))).len(), REASON_BYTES_MAX - 1);
    }
}
