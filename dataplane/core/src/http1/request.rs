//! Requests (RFC 9112 section 3): one parser per connection, one request after the other.

use core::mem;

use memchr::memchr;

use super::body::{Body, BodyError};
use super::characters::is_token;
use super::chunked::ChunkError;
use super::fields::{FieldError, Fields, Span, check_controls};
use super::framing::{Framing, FramingError};
use super::line::LineBuffer;
use super::problem::Status;
use super::target::{TargetError, TargetParts, is_host};
use super::{Limits, Progress, Version};

/// A request's method (RFC 9110 section 9, RFC 5789), case-sensitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// HEAD: its answer has no body.
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// PATCH
    Patch,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// Any other token.
    Other,
}

impl Method {
    /// Its name; empty for a method that is not known.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "",
        }
    }
}

/// Why a request is refused. [`RequestError::status`] says with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Over [`Limits::request_line_bytes_max`].
    #[error("request line is too long")]
    RequestLineTooLong,
    /// Not `method SP target SP version`.
    #[error("malformed request line")]
    RequestLine,
    /// The method is not a token.
    #[error("method is not a token")]
    Method,
    /// The target is refused.
    #[error("request target: {0}")]
    Target(#[from] TargetError),
    /// A version other than HTTP/1.0 and HTTP/1.1.
    #[error("HTTP version is not supported")]
    VersionUnsupported,
    /// Over [`Limits::header_bytes_max`].
    #[error("header section is too long")]
    HeadTooLong,
    /// Over [`Limits::header_count_max`].
    #[error("too many header fields")]
    TooManyFields,
    /// A line of the head is malformed.
    #[error("header section: {0}")]
    Field(#[from] FieldError),
    /// HTTP/1.1 without Host.
    #[error("Host is missing")]
    HostMissing,
    /// More than one Host.
    #[error("Host is repeated")]
    HostRepeated,
    /// Host is not a host with an optional port.
    #[error("Host is not valid")]
    HostInvalid,
    /// Host is not the host of the absolute-form target.
    #[error("Host differs from the request target")]
    HostDiffers,
    /// The body's length is ambiguous or unknown.
    #[error("{0}")]
    Framing(#[from] FramingError),
    /// POST, PUT or PATCH with neither Content-Length nor `chunked`.
    #[error("a length is required")]
    LengthRequired,
    /// Over the body bound in force.
    #[error("body is too large")]
    BodyTooLarge,
    /// An Expect other than `100-continue`.
    #[error("expectation cannot be met")]
    Expectation,
    /// The chunked body is malformed.
    #[error("body: {0}")]
    Chunk(ChunkError),
}

impl RequestError {
    /// The answer to give before closing.
    pub fn status(&self) -> Status {
        match self {
            Self::RequestLineTooLong => Status::UriTooLong414,
            Self::VersionUnsupported => Status::VersionNotSupported505,
            Self::HeadTooLong | Self::TooManyFields => Status::HeaderFieldsTooLarge431,
            Self::LengthRequired => Status::LengthRequired411,
            Self::BodyTooLarge => Status::PayloadTooLarge413,
            Self::Expectation => Status::ExpectationFailed417,
            Self::Framing(FramingError::CodingUnsupported) => Status::NotImplemented501,
            Self::Framing(
                FramingError::LengthInvalid
                | FramingError::LengthRepeated
                | FramingError::LengthAndCoding
                | FramingError::CodingInvalid
                | FramingError::CodingRepeated
                | FramingError::CodingInHttp10,
            )
            | Self::RequestLine
            | Self::Method
            | Self::Target(_)
            | Self::Field(_)
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::HostDiffers
            | Self::Chunk(_) => Status::BadRequest400,
        }
    }
}

/// The head of a request; every text in it has been checked.
pub struct RequestHead {
    method: Method,
    version: Version,
    target: Span,
    parts: TargetParts,
    fields: Fields,
    framing: Framing,
    host: Option<Span>,
    expects_continue: bool,
}

impl RequestHead {
    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The target as sent.
    pub fn target(&self) -> &str {
        self.fields.text(self.target)
    }

    /// The path as sent, percent-encoded, without query; `*` for the asterisk-form.
    pub fn path(&self) -> &str {
        self.parts.path(self.target())
    }

    /// What follows the first `?`.
    pub fn query(&self) -> Option<&str> {
        self.parts.query(self.target())
    }

    /// The first value of the field with this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.first(name)
    }

    /// All fields in order: lower-case name, value without surrounding white space.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter()
    }

    /// Content-Length, bytes.
    pub fn content_length(&self) -> Option<u64> {
        self.framing.length
    }

    /// Whether the client may wait for [`super::CONTINUE`] before it sends the body.
    pub fn expects_continue(&self) -> bool {
        // RFC 9110 section 10.1.1: the expectation of an HTTP/1.0 client is ignored.
        self.expects_continue && self.version == Version::Http11 && self.has_body()
    }

    /// Whether another request may follow on this connection.
    pub fn keep_alive(&self) -> bool {
        self.framing.is_persistent(self.version)
    }

    /// Host and port that the request is for; empty if an HTTP/1.0 client named none.
    pub fn host(&self) -> &str {
        let of_target = self.parts.authority(self.target());
        of_target.or_else(|| self.host.map(|host| self.fields.text(host))).unwrap_or_default()
    }

    /// Whether body bytes follow the head.
    pub fn has_body(&self) -> bool {
        self.framing.chunked || self.framing.length.is_some_and(|length| length > 0)
    }

    fn new() -> Self {
        Self {
            method: Method::Other,
            version: Version::Http11,
            target: Span::default(),
            parts: TargetParts::default(),
            fields: Fields::default(),
            framing: Framing::default(),
            host: None,
            expects_continue: false,
        }
    }

    /// Starts over with a request line.
    fn handle_request_line(&mut self, line: &[u8]) -> Result<(), RequestError> {
        check_controls(line)?;
        let line = core::str::from_utf8(line).map_err(|_| FieldError::NotUtf8)?;
        let (method, rest) = split_at_space(line)?;
        let (target, version) = split_at_space(rest)?;
        let method = parse_method(method).ok_or(RequestError::Method)?;
        let version = Version::parse(version).ok_or(RequestError::RequestLine)?;
        let version = version.map_err(|()| RequestError::VersionUnsupported)?;
        let parts = TargetParts::parse(target, method)?;
        let mut fields = mem::take(&mut self.fields);
        fields.clear();
        let target = fields.push_text(target);
        *self = Self { method, version, target, parts, fields, ..Self::new() };
        Ok(())
    }

    fn handle_field_line(&mut self, line: &[u8]) -> Result<(), RequestError> {
        let (name, value, place) = self.fields.push_line(line)?;
        match name {
            b"host" if self.host.is_some() => Err(RequestError::HostRepeated),
            b"host" if !is_host(value) => Err(RequestError::HostInvalid),
            b"host" => {
                self.host = Some(place);
                Ok(())
            }
            b"expect" if !value.eq_ignore_ascii_case(b"100-continue") => Err(RequestError::Expectation),
            b"expect" => {
                self.expects_continue = true;
                Ok(())
            }
            _ => Ok(self.framing.handle_field(name, value)?),
        }
    }

    /// What only the whole head shows; returns the body to come.
    fn finish(&mut self, body_bytes_max: usize) -> Result<Body, RequestError> {
        self.fields.seal();
        self.framing.check(self.version)?;
        let host = self.host.map(|host| self.fields.text(host));
        if host.is_none() && self.version == Version::Http11 {
            return Err(RequestError::HostMissing);
        }
        if let (Some(host), Some(authority)) = (host, self.parts.authority(self.target()))
            && !host.eq_ignore_ascii_case(authority)
        {
            return Err(RequestError::HostDiffers);
        }
        if self.framing.chunked {
            return Ok(Body::chunked());
        }
        match self.framing.length {
            Some(length) if length > body_bytes_max as u64 => Err(RequestError::BodyTooLarge),
            Some(remaining) => Ok(Body::Length { remaining }),
            None if matches!(self.method, Method::Post | Method::Put | Method::Patch) => {
                Err(RequestError::LengthRequired)
            }
            None => Ok(Body::Length { remaining: 0 }),
        }
    }
}

/// Reads the requests of one connection.
pub struct RequestParser {
    limits: Limits,
    body_bytes_max: usize,
    lines: LineBuffer,
    head: RequestHead,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// RFC 9112 section 2.2: one empty line before a request is ignored.
    RequestLine {
        empty_line_seen: bool,
    },
    Fields {
        head_bytes: usize,
    },
    Body(Body),
    Failed(RequestError),
}

impl RequestParser {
    /// A parser at the start of a connection.
    pub fn new(limits: Limits) -> Self {
        limits.assert_consistent();
        Self {
            limits,
            body_bytes_max: limits.body_bytes_max,
            lines: LineBuffer::default(),
            head: RequestHead::new(),
            state: State::RequestLine { empty_line_seen: false },
        }
    }

    /// Takes bytes off the front of `input`; call again until [`Progress::NeedMore`]. After
    /// [`Progress::End`] the next call starts the next request. An error stays.
    pub fn handle_bytes<'i>(&mut self, input: &mut &'i [u8]) -> Result<Progress<'i>, RequestError> {
        let progress = match &mut self.state {
            State::Failed(error) => Err(*error),
            State::RequestLine { .. } | State::Fields { .. } => self.handle_head(input),
            State::Body(body) => {
                body.handle_bytes(&mut self.lines, input, self.body_bytes_max).map_err(|error| match error {
                    BodyError::TooLarge => RequestError::BodyTooLarge,
                    BodyError::Chunk(error) => RequestError::Chunk(error),
                })
            }
        };
        match progress {
            Err(error) => self.state = State::Failed(error),
            Ok(Progress::End) => {
                self.state = State::RequestLine { empty_line_seen: false };
                self.body_bytes_max = self.limits.body_bytes_max;
            }
            Ok(_) => {}
        }
        progress
    }

    /// The request's head, from [`Progress::Head`] until bytes of the next request are handled.
    pub fn head(&self) -> &RequestHead {
        &self.head
    }

    /// Bounds the body of the current request further; it cannot be loosened. A Content-Length over it
    /// makes the next call an error: make that call before answering `100 Continue`.
    pub fn set_body_bytes_max(&mut self, max: usize) {
        self.body_bytes_max = self.body_bytes_max.min(max);
        if let State::Body(Body::Length { remaining }) = self.state
            && remaining > self.body_bytes_max as u64
        {
            self.state = State::Failed(RequestError::BodyTooLarge);
        }
    }

    /// Whether the parser is between two requests, with nothing of the next one received.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::RequestLine { .. }) && self.lines.is_idle()
    }

    /// Memory held for head and lines, bytes; kept for the next request.
    pub fn buffer_bytes(&self) -> usize {
        self.lines.buffer_bytes() + self.head.fields.buffer_bytes()
    }

    /// Between two requests: gives its memory back.
    pub fn shrink(&mut self) {
        if self.is_idle() {
            self.lines = LineBuffer::default();
            self.head = RequestHead::new();
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    fn handle_head(&mut self, input: &mut &[u8]) -> Result<Progress<'static>, RequestError> {
        loop {
            match &mut self.state {
                State::RequestLine { empty_line_seen } => {
                    let bytes_max = self.limits.request_line_bytes_max;
                    let line = self
                        .lines
                        .take(input, bytes_max)
                        .map_err(|error| FieldError::from_line(error, RequestError::RequestLineTooLong))?;
                    let Some(line) = line else { return Ok(Progress::NeedMore) };
                    if line.is_empty() && !*empty_line_seen {
                        *empty_line_seen = true;
                        continue;
                    }
                    self.head.handle_request_line(line)?;
                    self.state = State::Fields { head_bytes: line.len() + 2 };
                }
                State::Fields { head_bytes } => {
                    let bytes_max = self.limits.header_bytes_max - *head_bytes;
                    let line = self
                        .lines
                        .take(input, bytes_max)
                        .map_err(|error| FieldError::from_line(error, RequestError::HeadTooLong))?;
                    let Some(line) = line else { return Ok(Progress::NeedMore) };
                    if line.is_empty() {
                        self.state = State::Body(self.head.finish(self.body_bytes_max)?);
                        return Ok(Progress::Head);
                    }
                    *head_bytes += line.len() + 2;
                    if self.head.fields.len() == self.limits.header_count_max {
                        return Err(RequestError::TooManyFields);
                    }
                    self.head.handle_field_line(line)?;
                }
                State::Body(_) | State::Failed(_) => unreachable!("only called while in the head"),
            }
        }
    }
}

fn split_at_space(text: &str) -> Result<(&str, &str), RequestError> {
    let at = memchr(b' ', text.as_bytes()).ok_or(RequestError::RequestLine)?;
    Ok((&text[..at], &text[at + 1..]))
}

fn parse_method(text: &str) -> Option<Method> {
    Some(match text {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        _ if is_token(text.as_bytes()) => Method::Other,
        _ => return None,
    })
}
