//! Responses (RFC 9112 section 4) to requests that are never HEAD or CONNECT and never ask to upgrade.

use alloc::string::String;

use super::body::{Body, BodyError};
use super::chunked::ChunkError;
use super::fields::{FieldError, Fields, check_controls};
use super::framing::{Framing, FramingError};
use super::line::LineBuffer;
use super::{Limits, Progress, Version};

/// Interim (1xx) responses skipped before one final response.
pub const INTERIM_RESPONSES_MAX: u32 = 8;

/// Why a response is refused: always the target's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Bytes that answer no request.
    #[error("response bytes without a request")]
    Unsolicited,
    /// The connection ended before the first byte of the response.
    #[error("connection closed before a response")]
    ClosedBeforeResponse,
    /// The connection ended within the response.
    #[error("connection closed within the response")]
    Truncated,
    /// Over [`Limits::request_line_bytes_max`].
    #[error("status line is too long")]
    StatusLineTooLong,
    /// Not `version SP three digits [SP reason]`, or a status outside 100 to 599.
    #[error("malformed status line")]
    StatusLine,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    #[error("HTTP version is not supported")]
    VersionUnsupported,
    /// 101 although nothing was asked for.
    #[error("unasked switch of protocols")]
    SwitchingProtocols,
    /// Over [`INTERIM_RESPONSES_MAX`].
    #[error("too many interim responses")]
    TooManyInterim,
    /// Over [`Limits::header_bytes_max`].
    #[error("header section is too long")]
    HeadTooLong,
    /// Over [`Limits::header_count_max`].
    #[error("too many header fields")]
    TooManyFields,
    /// A line of the head is malformed.
    #[error("header section: {0}")]
    Field(#[from] FieldError),
    /// The body's length is ambiguous or unknown.
    #[error("{0}")]
    Framing(#[from] FramingError),
    /// Over [`Limits::body_bytes_max`]; the head has been reported before.
    #[error("body is too large")]
    BodyTooLarge,
    /// The chunked body is malformed.
    #[error("body: {0}")]
    Chunk(ChunkError),
}

/// Reads the responses of one connection, one for each [`ResponseParser::start`].
pub struct ResponseParser {
    limits: Limits,
    lines: LineBuffer,
    fields: Fields,
    framing: Framing,
    version: Version,
    status: u16,
    persistent: bool,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Idle,
    StatusLine { interim: u32 },
    Fields { interim: u32, head_bytes: usize },
    Body(Body),
    Failed(ResponseError),
}

impl ResponseParser {
    /// A parser that expects nothing yet.
    pub fn new(limits: Limits) -> Self {
        limits.assert_consistent();
        Self {
            limits,
            lines: LineBuffer::default(),
            fields: Fields::default(),
            framing: Framing::default(),
            version: Version::Http11,
            status: 0,
            persistent: false,
            state: State::Idle,
        }
    }

    /// A request (not HEAD) is being sent: the next bytes answer it.
    pub fn start(&mut self) {
        match self.state {
            State::Idle => self.state = State::StatusLine { interim: 0 },
            State::Failed(_) => {}
            State::StatusLine { .. } | State::Fields { .. } | State::Body(_) => {
                panic!("a request before the last response was complete")
            }
        }
    }

    /// Takes bytes off the front of `input`; call again until [`Progress::NeedMore`] or
    /// [`Progress::End`]. An error stays.
    pub fn handle_bytes<'i>(&mut self, input: &mut &'i [u8]) -> Result<Progress<'i>, ResponseError> {
        let progress = match &mut self.state {
            State::Failed(error) => Err(*error),
            State::Idle if input.is_empty() => Ok(Progress::NeedMore),
            State::Idle => Err(ResponseError::Unsolicited),
            State::StatusLine { .. } | State::Fields { .. } => self.handle_head(input),
            State::Body(Body::Length { remaining }) if *remaining > self.limits.body_bytes_max as u64 => {
                Err(ResponseError::BodyTooLarge)
            }
            State::Body(body) => {
                let progress = body.handle_bytes(&mut self.lines, input, self.limits.body_bytes_max);
                progress.map_err(|error| match error {
                    BodyError::TooLarge => ResponseError::BodyTooLarge,
                    BodyError::Chunk(error) => ResponseError::Chunk(error),
                })
            }
        };
        match progress {
            Err(error) => self.state = State::Failed(error),
            Ok(Progress::End) => self.state = State::Idle,
            Ok(_) => {}
        }
        progress
    }

    /// The connection has ended: completes a body that ends there, is [`Progress::NeedMore`] between
    /// two responses, an error within one.
    pub fn handle_eof(&mut self) -> Result<Progress<'static>, ResponseError> {
        let error = match self.state {
            State::Idle => return Ok(Progress::NeedMore),
            State::Body(Body::UntilClose { .. } | Body::Length { remaining: 0 }) => {
                self.state = State::Idle;
                return Ok(Progress::End);
            }
            State::Failed(error) => error,
            State::StatusLine { interim: 0 } if self.lines.is_idle() => ResponseError::ClosedBeforeResponse,
            State::StatusLine { .. } | State::Fields { .. } | State::Body(_) => ResponseError::Truncated,
        };
        self.state = State::Failed(error);
        Err(error)
    }

    /// The final status, 200 to 599, from [`Progress::Head`] until the next response begins.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first value of the field with this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.first(name)
    }

    /// All fields in order: lower-case name, value without surrounding white space.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter()
    }

    /// Whether the connection takes another request after [`Progress::End`].
    pub fn keep_alive(&self) -> bool {
        self.persistent && !matches!(self.state, State::Failed(_))
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    fn handle_head(&mut self, input: &mut &[u8]) -> Result<Progress<'static>, ResponseError> {
        loop {
            match &mut self.state {
                State::StatusLine { interim } => {
                    let interim = *interim;
                    let bytes_max = self.limits.request_line_bytes_max;
                    let line = self
                        .lines
                        .take(input, bytes_max)
                        .map_err(|error| FieldError::from_line(error, ResponseError::StatusLineTooLong))?;
                    let Some(line) = line else { return Ok(Progress::NeedMore) };
                    (self.version, self.status) = parse_status_line(line)?;
                    self.fields.clear();
                    self.framing = Framing::default();
                    self.state = State::Fields { interim, head_bytes: line.len() + 2 };
                }
                State::Fields { interim, head_bytes } => {
                    let bytes_max = self.limits.header_bytes_max - *head_bytes;
                    let line = self
                        .lines
                        .take(input, bytes_max)
                        .map_err(|error| FieldError::from_line(error, ResponseError::HeadTooLong))?;
                    let Some(line) = line else { return Ok(Progress::NeedMore) };
                    if !line.is_empty() {
                        *head_bytes += line.len() + 2;
                        if self.fields.len() == self.limits.header_count_max {
                            return Err(ResponseError::TooManyFields);
                        }
                        // Replacement characters keep a stray octet from hiding a field of framing.
                        let line = String::from_utf8_lossy(line);
                        let (name, value, _) = self.fields.push_line(line.as_bytes())?;
                        self.framing.handle_field(name, value)?;
                        continue;
                    }
                    let interim = *interim;
                    self.fields.seal();
                    self.framing.check(self.version)?;
                    if self.status >= 200 {
                        self.start_body();
                        return Ok(Progress::Head);
                    }
                    if self.status == 101 {
                        return Err(ResponseError::SwitchingProtocols);
                    }
                    if interim == INTERIM_RESPONSES_MAX {
                        return Err(ResponseError::TooManyInterim);
                    }
                    self.state = State::StatusLine { interim: interim + 1 };
                }
                State::Idle | State::Body(_) | State::Failed(_) => {
                    unreachable!("only called while in the head")
                }
            }
        }
    }

    fn start_body(&mut self) {
        let body = match (self.status, self.framing.length) {
            (204 | 304, _) => Body::Length { remaining: 0 },
            _ if self.framing.chunked => Body::chunked(),
            (_, Some(remaining)) => Body::Length { remaining },
            (_, None) => Body::UntilClose { received: 0 },
        };
        let delimited = !matches!(body, Body::UntilClose { .. });
        self.persistent = delimited && self.framing.is_persistent(self.version);
        self.state = State::Body(body);
    }
}

fn parse_status_line(line: &[u8]) -> Result<(Version, u16), ResponseError> {
    check_controls(line)?;
    // Bytes, because the reason may be of any encoding; it is dropped.
    let (version, rest) = line.split_at_checked(8).ok_or(ResponseError::StatusLine)?;
    let version = core::str::from_utf8(version).map_err(|_| ResponseError::StatusLine)?;
    let version = Version::parse(version).ok_or(ResponseError::StatusLine)?;
    let version = version.map_err(|()| ResponseError::VersionUnsupported)?;
    // The space before an empty reason is often left out.
    let digits = match rest {
        [b' ', digits @ ..] if digits.len() == 3 => digits,
        [b' ', digits @ ..] if digits.get(3) == Some(&b' ') => &digits[..3],
        _ => return Err(ResponseError::StatusLine),
    };
    match digits {
        &[hundreds @ b'1'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            let [hundreds, tens, ones] = [hundreds, tens, ones].map(|digit| u16::from(digit - b'0'));
            Ok((version, hundreds * 100 + tens * 10 + ones))
        }
        _ => Err(ResponseError::StatusLine),
    }
}
