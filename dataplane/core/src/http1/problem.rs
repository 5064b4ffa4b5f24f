//! Statuses this data plane answers with, and their problem details (RFC 9457).

use alloc::vec::Vec;

use super::write::{Connection, push_decimal, push_head};

/// Where the problem types are described.
const TYPE_PREFIX: &str = "https://zen-mesh.io/errors/";

/// A status of ours; the number is in the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "RFC 9110 section 15, RFC 6585 and RFC 5842 describe each by its number")]
pub enum Status {
    Ok200,
    Accepted202,
    BadRequest400,
    Unauthorized401,
    Forbidden403,
    NotFound404,
    MethodNotAllowed405,
    RequestTimeout408,
    LengthRequired411,
    PayloadTooLarge413,
    UriTooLong414,
    UnsupportedMediaType415,
    ExpectationFailed417,
    TooManyRequests429,
    HeaderFieldsTooLarge431,
    InternalError500,
    NotImplemented501,
    Unavailable503,
    VersionNotSupported505,
    LoopDetected508,
}

impl Status {
    /// Every status, in order of its code.
    pub const ALL: [Self; 20] = [
        Self::Ok200,
        Self::Accepted202,
        Self::BadRequest400,
        Self::Unauthorized401,
        Self::Forbidden403,
        Self::NotFound404,
        Self::MethodNotAllowed405,
        Self::RequestTimeout408,
        Self::LengthRequired411,
        Self::PayloadTooLarge413,
        Self::UriTooLong414,
        Self::UnsupportedMediaType415,
        Self::ExpectationFailed417,
        Self::TooManyRequests429,
        Self::HeaderFieldsTooLarge431,
        Self::InternalError500,
        Self::NotImplemented501,
        Self::Unavailable503,
        Self::VersionNotSupported505,
        Self::LoopDetected508,
    ];

    /// The three-digit code.
    pub fn code(self) -> u16 {
        self.texts().0
    }

    /// The reason phrase, which is the problem's title too.
    pub fn reason(self) -> &'static str {
        self.texts().1
    }

    /// The last segment of the problem's type.
    pub fn slug(self) -> &'static str {
        self.texts().2
    }

    fn texts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Ok200 => (200, "OK", "ok"),
            Self::Accepted202 => (202, "Accepted", "accepted"),
            Self::BadRequest400 => (400, "Bad Request", "bad-request"),
            Self::Unauthorized401 => (401, "Unauthorized", "authentication"),
            Self::Forbidden403 => (403, "Forbidden", "insufficient-scope"),
            Self::NotFound404 => (404, "Not Found", "not-found"),
            Self::MethodNotAllowed405 => (405, "Method Not Allowed", "method-not-allowed"),
            Self::RequestTimeout408 => (408, "Request Timeout", "request-timeout"),
            Self::LengthRequired411 => (411, "Length Required", "length-required"),
            Self::PayloadTooLarge413 => (413, "Content Too Large", "payload-too-large"),
            Self::UriTooLong414 => (414, "URI Too Long", "uri-too-long"),
            Self::UnsupportedMediaType415 => (415, "Unsupported Media Type", "unsupported-media-type"),
            Self::ExpectationFailed417 => (417, "Expectation Failed", "expectation-failed"),
            Self::TooManyRequests429 => (429, "Too Many Requests", "rate-limited"),
            Self::HeaderFieldsTooLarge431 => {
                (431, "Request Header Fields Too Large", "header-fields-too-large")
            }
            Self::InternalError500 => (500, "Internal Server Error", "internal-error"),
            Self::NotImplemented501 => (501, "Not Implemented", "not-implemented"),
            Self::Unavailable503 => (503, "Service Unavailable", "unavailable"),
            Self::VersionNotSupported505 => (505, "HTTP Version Not Supported", "version-not-supported"),
            Self::LoopDetected508 => (508, "Loop Detected", "loop-detected"),
        }
    }
}

/// Appends a problem-details response. `detail` is for people: never a secret, an expected MAC or a body.
pub fn write_problem(
    out: &mut Vec<u8>,
    status: Status,
    detail: &str,
    extra: &[(&str, &str)],
    connection: Connection,
) {
    let mut length = 0;
    each_problem_part(status, detail, |part| length += part.len());
    push_head(out, status, "application/problem+json", extra, length, connection);
    let body_start = out.len();
    each_problem_part(status, detail, |part| out.extend_from_slice(part));
    assert_eq!(out.len() - body_start, length, "both passes see the same parts");
}

/// Hands out the body in pieces, so that its length is known without a second buffer.
fn each_problem_part(status: Status, detail: &str, mut part: impl FnMut(&[u8])) {
    part(b"{\"type\":\"");
    part(TYPE_PREFIX.as_bytes());
    part(status.slug().as_bytes());
    part(b"\",\"title\":\"");
    part(status.reason().as_bytes());
    part(b"\",\"status\":");
    push_decimal(status.code().into(), &mut part);
    part(b",\"detail\":\"");
    each_json_part(detail, &mut part);
    part(b"\"}");
}

/// `text` as the inside of a JSON string (RFC 8259 section 7).
fn each_json_part(text: &str, mut part: impl FnMut(&[u8])) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        part(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => part(&[b'\\', byte]),
            byte => {
                let mut hex = [0; 2];
                crate::id::encode_hex(&[byte], &mut hex);
                part(b"\\u00");
                part(&hex);
            }
        }
        rest = &rest[at + 1..];
    }
    part(rest);
}
