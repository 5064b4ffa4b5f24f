//! The event: one encoding from the ingester's journal over the link to the egress's journal.
//!
//! `id[16] endpoint[16] content_type_len:u16 headers_len:u32 body_len:u32 content_type headers body`,
//! integers little-endian. `headers` is the canonical form: lines `name:value LF`, names lower case
//! and sorted, first the metadata lines whose names begin with `:` (`:accepted-us`, `:generation`,
//! `:hops`, `:quarantine`, `:source-id`, `:tenant`, `:traceparent`, `:tracestate`), then the forwarded headers of the source.

use alloc::vec::Vec;

use crate::id::{EndpointId, EventId};

/// Bytes before the content type.
pub const EVENT_HEAD_BYTES: usize = 42;
/// Longest content type, bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;
/// Longest canonical headers, bytes.
pub const HEADERS_BYTES_MAX: usize = 32 * 1024;
/// Longest body, bytes; what an endpoint allows is configured below it.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longest encoded event, bytes.
pub const EVENT_BYTES_MAX: usize =
    EVENT_HEAD_BYTES + CONTENT_TYPE_BYTES_MAX + HEADERS_BYTES_MAX + BODY_BYTES_MAX;

/// Metadata of an event that a header rule holds back: the header's name.
pub const QUARANTINE_LINE: &str = ":quarantine";

/// An event, borrowed from the buffer that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Made once at the ingester.
    pub id: EventId,
    /// Where it came in.
    pub endpoint: EndpointId,
    /// The source's `Content-Type`, or empty.
    pub content_type: &'a str,
    /// Canonical header lines; see the module.
    pub headers: &'a str,
    /// The body as received, after transfer decoding.
    pub body: &'a [u8],
}

/// Why bytes are not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Lengths and bytes disagree.
    #[error("event: lengths and bytes disagree")]
    Length,
    /// A field is over its bound.
    #[error("event: a field is over its bound")]
    Bound,
    /// Content type or headers are not in canonical form.
    #[error("event: a header line is not in canonical form")]
    Header,
}

impl<'a> Event<'a> {
    /// Reads an event that fills `bytes` exactly.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, EventError> {
        let (head, rest) = bytes.split_at_checked(EVENT_HEAD_BYTES).ok_or(EventError::Length)?;
        let content_type_len = usize::from(u16::from_le_bytes([head[32], head[33]]));
        let headers_len = u32::from_le_bytes([head[34], head[35], head[36], head[37]]) as usize;
        let body_len = u32::from_le_bytes([head[38], head[39], head[40], head[41]]) as usize;
        if content_type_len > CONTENT_TYPE_BYTES_MAX
            || headers_len > HEADERS_BYTES_MAX
            || body_len > BODY_BYTES_MAX
        {
            return Err(EventError::Bound);
        }
        if rest.len() != content_type_len + headers_len + body_len {
            return Err(EventError::Length);
        }
        let (content_type, rest) = rest.split_at(content_type_len);
        let (headers, body) = rest.split_at(headers_len);
        let event = Self {
            id: EventId(head[..16].try_into().expect("16 of 42 bytes")),
            endpoint: EndpointId(head[16..32].try_into().expect("16 of 42 bytes")),
            content_type: core::str::from_utf8(content_type).map_err(|_| EventError::Header)?,
            headers: core::str::from_utf8(headers).map_err(|_| EventError::Header)?,
            body,
        };
        event.check()?;
        Ok(event)
    }

    /// The id of an encoded event, without a look at the rest.
    pub fn id_of(bytes: &[u8]) -> Option<EventId> {
        bytes.first_chunk().map(|id| EventId(*id))
    }

    /// Whether an encoded event bears a metadata line, without a look at the rest.
    pub fn has_metadata(bytes: &[u8], name: &str) -> bool {
        let Some((head, rest)) = bytes.split_at_checked(EVENT_HEAD_BYTES) else { return false };
        let content_type_len = usize::from(u16::from_le_bytes([head[32], head[33]]));
        let headers_len = u32::from_le_bytes([head[34], head[35], head[36], head[37]]) as usize;
        let headers = rest.get(content_type_len..).and_then(|rest| rest.get(..headers_len));
        let lines = headers.unwrap_or_default().split(|&byte| byte == b'\n');
        let mut metadata = lines.take_while(|line| line.first() == Some(&b':'));
        metadata
            .any(|line| line.strip_prefix(name.as_bytes()).is_some_and(|value| value.first() == Some(&b':')))
    }

    /// Everything of the encoding before the body, appended to `out`; the body follows it.
    pub fn encode_head(&self, out: &mut Vec<u8>) -> Result<(), EventError> {
        self.check()?;
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.endpoint.0);
        out.extend_from_slice(&(self.content_type.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.headers.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.body.len() as u32).to_le_bytes());
        out.extend_from_slice(self.content_type.as_bytes());
        out.extend_from_slice(self.headers.as_bytes());
        Ok(())
    }

    /// All header lines as `(name, value)`, metadata first.
    pub fn header_lines(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        lines(self.headers).filter_map(|line| {
            let colon = 1 + memchr::memchr(b':', line.as_bytes().get(1..)?)?;
            Some((&line[..colon], &line[colon + 1..]))
        })
    }

    /// The value of a metadata line such as `:tenant`.
    pub fn metadata(&self, name: &str) -> Option<&'a str> {
        debug_assert!(name.starts_with(':'));
        let mut lines = self.header_lines().take_while(|line| line.0.starts_with(':'));
        lines.find(|line| line.0 == name).map(|line| line.1)
    }

    /// The canonical lines of the source's own headers, without metadata.
    pub fn forwarded_headers(&self) -> &'a str {
        let metadata = lines(self.headers).take_while(|line| line.starts_with(':'));
        let bytes: usize = metadata.map(|line| line.len() + 1).sum();
        self.headers.get(bytes..).unwrap_or_default()
    }

    fn check(&self) -> Result<(), EventError> {
        if self.content_type.len() > CONTENT_TYPE_BYTES_MAX
            || self.headers.len() > HEADERS_BYTES_MAX
            || self.body.len() > BODY_BYTES_MAX
        {
            return Err(EventError::Bound);
        }
        if self.content_type.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(EventError::Header);
        }
        check_canonical(self.headers)
    }
}

/// The lines of a text, each without its end.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut begin = 0;
    memchr::memchr_iter(b'\n', text.as_bytes()).map(move |end| {
        let line = &text[begin..end];
        begin = end + 1;
        line
    })
}

/// Refuses anything but sorted `name:value LF` lines without control characters.
fn check_canonical(headers: &str) -> Result<(), EventError> {
    let bytes = headers.as_bytes();
    // Without an early exit, so that whole vectors are compared at once.
    let bad = bytes.iter().fold(false, |bad, &byte| bad | (byte.is_ascii_control() && byte != b'\n'));
    if bad || bytes.last().is_some_and(|&last| last != b'\n') {
        return Err(EventError::Header);
    }
    let mut previous: &[u8] = b"";
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        let line = &bytes[start..end];
        start = end + 1;
        let rest = line.get(1..).ok_or(EventError::Header)?;
        let colon = 1 + memchr::memchr(b':', rest).ok_or(EventError::Header)?;
        let name = &line[..colon];
        let bare = name.strip_prefix(b":").unwrap_or(name);
        // A letter first, so that metadata lines sort before all others.
        let named = bare.first().is_some_and(u8::is_ascii_lowercase)
            && bare.iter().all(|&byte| IS_NAME_BYTE[usize::from(byte)]);
        if !named || name < previous {
            return Err(EventError::Header);
        }
        previous = name;
    }
    Ok(())
}

/// Appends one canonical line; the caller appends names in ascending order.
pub fn push_header_line(out: &mut alloc::string::String, name: &str, value: &str) {
    out.push_str(name);
    out.push(':');
    out.push_str(value);
    out.push('\n');
}

/// Appends one canonical line whose value is a number in decimal.
pub fn push_number_line(out: &mut alloc::string::String, name: &str, value: u64) {
    use core::fmt::Write;
    writeln!(out, "{name}:{value}").expect("a string takes any text");
}

/// RFC 9110 `tchar`, lower case only.
pub(crate) const IS_NAME_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: &str =
        ":accepted-us:1700000000000000\n:tenant:acme\nx-github-event:push\nx-github-event:second\n";

    fn sample() -> Event<'static> {
        Event {
            id: EventId([7; 16]),
            endpoint: EndpointId([9; 16]),
            content_type: "application/json",
            headers: HEADERS,
            body: b"{\"a\":1}",
        }
    }

    fn encoded(event: &Event<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        event.encode_head(&mut bytes).unwrap();
        bytes.extend_from_slice(event.body);
        bytes
    }

    #[test]
    fn round_trip_and_getters() {
        let bytes = encoded(&sample());
        let event = Event::decode(&bytes).unwrap();
        assert_eq!(event, sample());
        assert_eq!((Event::id_of(&bytes), Event::id_of(&bytes[..15])), (Some(event.id), None));
        assert_eq!(event.metadata(":tenant"), Some("acme"));
        assert_eq!(event.metadata(":absent"), None);
        let marked = |name| Event::has_metadata(&bytes, name);
        assert!(marked(":tenant") && marked(":accepted-us") && !marked(":ten") && !marked(QUARANTINE_LINE));
        let in_body = Event { headers: "", body: b":quarantine:x\n", ..event };
        assert!(!Event::has_metadata(&encoded(&in_body), QUARANTINE_LINE), "a body is no metadata");
        assert_eq!(event.forwarded_headers(), "x-github-event:push\nx-github-event:second\n");
        assert_eq!(event.header_lines().count(), 4);
    }

    #[test]
    fn lines_are_appended_in_canonical_form() {
        let mut lines = alloc::string::String::new();
        push_number_line(&mut lines, ":accepted-us", u64::MAX);
        push_number_line(&mut lines, ":generation", 0);
        push_header_line(&mut lines, "x-a", "b: c");
        assert_eq!(lines, ":accepted-us:18446744073709551615\n:generation:0\nx-a:b: c\n");
        assert_eq!(check_canonical(&lines), Ok(()));
    }

    #[test]
    fn every_truncation_and_extension_is_refused() {
        let mut bytes = encoded(&sample());
        for end in 0..bytes.len() {
            assert!(Event::decode(&bytes[..end]).is_err(), "{end}");
        }
        bytes.push(0);
        assert_eq!(Event::decode(&bytes), Err(EventError::Length));
    }

    #[test]
    fn non_canonical_headers_are_refused() {
        for headers in
            ["a:1", "b:1\na:1\n", "A:1\n", ":\n", "\n", "a b:1\n", "a:\u{1}\n", "a\n", "a:1\r\n", "::1\n"]
        {
            let event = Event { headers, ..sample() };
            assert_eq!(event.encode_head(&mut Vec::new()), Err(EventError::Header), "{headers:?}");
        }
        let event = Event { content_type: "a\nb", ..sample() };
        assert_eq!(event.encode_head(&mut Vec::new()), Err(EventError::Header));
    }
}
