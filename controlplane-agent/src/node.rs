//! A node, asked over its admin socket to take what was published.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::http::{Answer, HttpError, Request, exchange};

/// A reload reads files, asks lockd, and resolves names.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
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
struct Problem {
    detail: String,
}

/// Asks the node at `socket` to reload.
pub(crate) async fn reload(socket: &Path) -> Told {
    match timeout(RELOAD_TIMEOUT, ask(socket)).await {
        Ok(Ok(answer)) => read(&answer),
        Ok(Err(error)) => Told::Unreachable(format!("{}: {error}; is the node running?", socket.display())),
        Err(_) => Told::Unreachable(format!("{}: no answer within {RELOAD_TIMEOUT:?}", socket.display())),
    }
}

async fn ask(socket: &Path) -> Result<Answer, HttpError> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = Request { method: "POST", target: "/reload", host: "node", body: None };
    exchange(&mut stream, request, ANSWER_BYTES_MAX).await
}

fn read(answer: &Answer) -> Told {
    let Answer { status, body, .. } = answer;
    let reason = || {
        let detail = serde_json::from_slice(body).map(|Problem { detail }| detail);
        detail.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned())
    };
    match status {
        200..=299 => match serde_json::from_slice(body) {
            Ok(Applied { managed: Some(managed) }) => Told::Applied(managed),
            Ok(Applied { managed: None }) => Told::Unreachable(
                "the node has a configuration of its own; start it with --managed".to_owned(),
            ),
            Err(_) => Told::Unreachable("what came back is no answer of a node of this version".to_owned()),
        },
        409 => Told::Rejected(short(reason())),
        status => Told::Unreachable(short(format!("answered {status}: {}", reason()))),
    }
}

fn short(mut reason: String) -> String {
    let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
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
        assert_eq!(short("ü".repeat(REASON_BYTES_MAX)).len(), REASON_BYTES_MAX);
        assert_eq!(short(format!("a{}", "ü".repeat(REASON_BYTES_MAX))).len(), REASON_BYTES_MAX - 1);
    }
}
