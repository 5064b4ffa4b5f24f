//! What the admin interface answers: JSON, and problems (RFC 9457); and how it reads a query.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Longest request body, bytes: a thousand ids and a filter.
pub const BODY_BYTES_MAX: usize = 128 * 1024;

/// Why an order or a question is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A parameter or the body is not as documented.
    #[error("{0}")]
    Request(String),
    /// There is no such letter or event.
    #[error("{0} is not here, or not any more")]
    NotFound(String),
    /// It is not allowed by the configuration.
    #[error("{0}")]
    Forbidden(&'static str),
    /// What was to come into force is not right.
    #[error("{0}")]
    Rejected(String),
    /// As many orders as may be are under way.
    #[error("{0}")]
    Busy(String),
    /// A worker did not answer, or a file cannot be read.
    #[error("{0}")]
    Unavailable(String),
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Request(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Rejected(_) => StatusCode::CONFLICT,
            Self::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let title = status.canonical_reason().unwrap_or_default();
        let body = json!({
            "type": "about:blank", "title": title, "status": status.as_u16(), "detail": self.to_string()
        });
        (status, [(header::CONTENT_TYPE, "application/problem+json")], format!("{body}\n")).into_response()
    }
}

/// A JSON answer.
pub fn json_answer(status: StatusCode, body: &impl Serialize) -> Response {
    let mut text = serde_json::to_string(body).expect("names and numbers are JSON");
    text.push('\n');
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// A JSON body of a request; unknown members are refused.
pub fn parse_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes)
        .map_err(|error| Problem::Request(format!("the body is not as documented: {error}")))
}

/// No member.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// The body of an order that says everything by its path.
pub fn empty(body: &[u8]) -> Result<(), Problem> {
    if body.is_empty() { Ok(()) } else { parse_body::<Nothing>(body).map(|_| ()) }
}

/// The parameters of a query; nothing that they may hold needs an escape.
pub fn parameters(query: Option<&str>) -> Result<Vec<(&str, &str)>, Problem> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').filter(|(_, value)| !value.is_empty() && !value.contains('%')))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| {
            Problem::Request("the query is not name=value, joined by &, without escapes".to_owned())
        })
}

/// A value that cannot be read, with its name.
pub fn malformed(name: &str, expected: &str) -> Problem {
    Problem::Request(format!("{name}: expected {expected}"))
}
