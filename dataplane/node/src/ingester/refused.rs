//! A request refused: what the source is told, what is counted, and what becomes of the connection.

use std::borrow::Cow;

use zen_core::http1::{Connection, RequestError, Status, write_problem};
use zen_core::verify::Refusal;

/// A request refused.
#[derive(Debug)]
pub struct Refused {
    status: Status,
    /// The metric's label.
    pub reason: &'static str,
    detail: Cow<'static, str>,
    retry_after_s: u64,
    connection: Connection,
}

impl Refused {
    /// Ends the connection; the source may try again in a second, where that helps.
    pub fn new(status: Status, reason: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        let connection = Connection::Close;
        Self { status, reason, detail: detail.into(), retry_after_s: 1, connection }
    }

    /// Too many requests; there is room for another after `wait_us`.
    pub fn rate(reason: &'static str, wait_us: u64) -> Self {
        let detail = "too many requests; send it again later";
        let retry_after_s = wait_us.div_ceil(1_000_000).max(1);
        Self { retry_after_s, ..Self::new(Status::TooManyRequests429, reason, detail) }
    }

    /// The connection stays, since the whole request was read from somebody who was verified.
    pub fn and_stays(self) -> Self {
        Self { connection: Connection::KeepAlive, ..self }
    }

    /// Whether the connection ends.
    pub fn closes(&self) -> bool {
        self.connection == Connection::Close
    }

    /// Appends the answer.
    pub fn write(&self, answer: &mut Vec<u8>, connection: Connection) {
        let retry_after_s = self.retry_after_s.to_string();
        let allow = [("Allow", "POST")];
        let retry = [("Retry-After", retry_after_s.as_str())];
        let extra: &[(&str, &str)] = match self.status {
            Status::MethodNotAllowed405 => &allow,
            Status::TooManyRequests429 | Status::Unavailable503 => &retry,
            _ => &[],
        };
        write_problem(answer, self.status, &self.detail, extra, connection);
    }
}

impl From<&RequestError> for Refused {
    fn from(error: &RequestError) -> Self {
        let reason = if error.status() == Status::PayloadTooLarge413 { "too_large" } else { "framing" };
        Self::new(error.status(), reason, error.to_string())
    }
}

impl From<Refusal> for Refused {
    /// One text for all, so that nobody learns what is missing.
    fn from(refusal: Refusal) -> Self {
        let detail = "the signature or credential is missing or not valid";
        Self::new(Status::Unauthorized401, refusal.label(), detail)
    }
}
