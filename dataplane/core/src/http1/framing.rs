//! Where a body ends (RFC 9112 section 6) and whether the connection outlives it (section 9.3).

use super::Version;
use super::characters::{is_token, trim_ows};

/// Why the length of a body is ambiguous or unknown: always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Not 1 to 19 decimal digits: a sign, a space, a list, nothing, or too many.
    #[error("Content-Length is not a number")]
    LengthInvalid,
    /// More than one Content-Length, even if they agree.
    #[error("Content-Length is repeated")]
    LengthRepeated,
    /// Content-Length and Transfer-Encoding in one message.
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// Not a list of tokens, or `chunked` twice or not last.
    #[error("Transfer-Encoding is not well-formed")]
    CodingInvalid,
    /// More than one Transfer-Encoding line.
    #[error("Transfer-Encoding is repeated")]
    CodingRepeated,
    /// A coding other than `chunked`.
    #[error("a transfer coding other than chunked")]
    CodingUnsupported,
    /// Transfer-Encoding in an HTTP/1.0 message.
    #[error("Transfer-Encoding in HTTP/1.0")]
    CodingInHttp10,
}

/// What the fields of a head say about its framing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Framing {
    /// Content-Length, bytes.
    pub(super) length: Option<u64>,
    /// Transfer-Encoding is `chunked`.
    pub(super) chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Framing {
    /// Takes a field; its name is in lower case.
    pub(super) fn handle_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), FramingError> {
        match name {
            b"content-length" => {
                if self.length.is_some() {
                    return Err(FramingError::LengthRepeated);
                }
                self.length = Some(parse_length(value)?);
            }
            b"transfer-encoding" => {
                if self.chunked {
                    return Err(FramingError::CodingRepeated);
                }
                check_coding(value)?;
                self.chunked = true;
            }
            b"connection" => {
                for option in value.split(|&byte| byte == b',').map(trim_ows) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Refuses what only the whole head shows.
    pub(super) fn check(&self, version: Version) -> Result<(), FramingError> {
        if !self.chunked {
            return Ok(());
        }
        if self.length.is_some() {
            return Err(FramingError::LengthAndCoding);
        }
        match version {
            Version::Http10 => Err(FramingError::CodingInHttp10),
            Version::Http11 => Ok(()),
        }
    }

    pub(super) fn is_persistent(&self, version: Version) -> bool {
        match version {
            Version::Http10 => self.keep_alive && !self.close,
            Version::Http11 => !self.close,
        }
    }
}

fn parse_length(value: &[u8]) -> Result<u64, FramingError> {
    if !(1..=19).contains(&value.len()) || !value.iter().all(u8::is_ascii_digit) {
        return Err(FramingError::LengthInvalid);
    }
    // 19 digits are below 2^64.
    Ok(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Accepts `chunked` alone. RFC 9112 section 6.3 wants 400 where it is misplaced, 501 for others.
fn check_coding(value: &[u8]) -> Result<(), FramingError> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut chunked_seen = false;
    for coding in value.split(|&byte| byte == b',').map(trim_ows) {
        if chunked_seen || !is_token(coding) {
            return Err(FramingError::CodingInvalid);
        }
        chunked_seen = coding.eq_ignore_ascii_case(b"chunked");
    }
    Err(FramingError::CodingUnsupported)
}
