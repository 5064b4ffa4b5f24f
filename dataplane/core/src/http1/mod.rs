//! HTTP/1.1 messages: framing by RFC 9112, fields by RFC 9110, problem details by RFC 9457.
//!
//! In: bytes in pieces of any size. Out: a head, body slices borrowed from the input, an end; the result
//! does not depend on where the input was cut. Refused, never repaired: Content-Length with
//! Transfer-Encoding, a repeated Content-Length even if equal, any coding but one `chunked`, obs-fold,
//! bare CR or LF, space around a field name, control characters, a missing or doubled Host, and
//! whatever goes over a bound. A field value may hold UTF-8 as opaque text; in a request other
//! octets over 127 are refused, in a response they become U+FFFD.
//! Trailers are checked and dropped. Errors are sticky: the connection cannot be used again.

mod body;
mod characters;
mod chunked;
mod fields;
mod framing;
#[doc(hidden)]
pub mod fuzz;
mod line;
mod problem;
mod request;
mod response;
mod target;
#[cfg(test)]
mod tests;
mod write;

pub use chunked::{CHUNK_EXTENSION_BYTES_MAX, ChunkError, TRAILER_BYTES_MAX};
pub use fields::FieldError;
pub use framing::FramingError;
pub use problem::{Status, write_problem};
pub use request::{Method, RequestError, RequestHead, RequestParser};
pub use response::{INTERIM_RESPONSES_MAX, ResponseError, ResponseParser};
pub use target::TargetError;
pub use write::{CONTINUE, Connection, write_request_head, write_response};

/// Largest `header_bytes_max` a parser takes, bytes: offsets into a head are 32 bits wide.
pub const HEADER_BYTES_CEILING: usize = 1024 * 1024;

/// What one message may take. A parser keeps the memory of the largest head it saw, and never a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request or status line with its CRLF, bytes; at most `header_bytes_max`.
    pub request_line_bytes_max: usize,
    /// Field lines of a head.
    pub header_count_max: usize,
    /// Whole head with its empty line, bytes; at most [`HEADER_BYTES_CEILING`].
    pub header_bytes_max: usize,
    /// Body after transfer decoding, bytes.
    pub body_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_line_bytes_max: 8192,
            header_count_max: 64,
            header_bytes_max: 32 * 1024,
            body_bytes_max: 1024 * 1024,
        }
    }
}

impl Limits {
    fn assert_consistent(&self) {
        assert!(self.header_bytes_max <= HEADER_BYTES_CEILING, "header_bytes_max is over its ceiling");
        assert!(self.request_line_bytes_max <= self.header_bytes_max, "a request line is part of its head");
    }
}

/// How far a parser came with the bytes it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'i> {
    /// The input is used up and the message is not complete.
    NeedMore,
    /// The head is complete and can be read; the body comes next.
    Head,
    /// A piece of the body after transfer decoding, never empty.
    Body(&'i [u8]),
    /// The message is complete; what is left of the input belongs to the next one.
    End,
}

/// The versions this module speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

impl Version {
    /// `Some(Err(()))` is a well-formed version this module does not speak.
    fn parse(text: &str) -> Option<Result<Self, ()>> {
        match text.as_bytes() {
            b"HTTP/1.1" => Some(Ok(Self::Http11)),
            b"HTTP/1.0" => Some(Ok(Self::Http10)),
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Some(Err(())),
            _ => None,
        }
    }
}
