//! CloudEvents 1.0.2 for targets that want them, in the modes of its HTTP binding: binary and structured.
//!
//! An event enters, and of a structured one whether its body is JSON; header lines or a body leave. The id is the
//! event's, the time that of its acceptance; type and source are configured, and the source is otherwise the path
//! where the event came in. The source's own `ce-` headers never stand beside ours.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::event::{CONTENT_TYPE_BYTES_MAX, Event, push_header_line};

/// Content type of one structured event.
pub const STRUCTURED_CONTENT_TYPE: &str = "application/cloudevents+json";
/// Content type of structured events, a line each.
pub const LINES_CONTENT_TYPE: &str = "application/x-ndjson";
/// Type of an event, unless one is configured.
pub const DEFAULT_TYPE: &str = "io.zen-mesh.webhook";
/// Longest configured type or source, bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 256;
/// Everything of a structured event but its data, at most; bytes.
pub const ENVELOPE_BYTES_MAX: usize = 2 * ATTRIBUTE_BYTES_MAX + 2 * CONTENT_TYPE_BYTES_MAX + 256;
/// The header lines of a binary event, at most; bytes.
pub const CE_HEADERS_BYTES_MAX: usize = 2 * ATTRIBUTE_BYTES_MAX + 256;

/// What a target's events are called, beyond what each says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvents {
    kind: String,
    source: Option<String>,
}

/// What cannot be an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// The type.
    #[error("type: expected 1 to {ATTRIBUTE_BYTES_MAX} of visible ASCII without quotes, backslash and %")]
    Type,
    /// The source.
    #[error("source: expected 1 to {ATTRIBUTE_BYTES_MAX} of visible ASCII without quotes, backslash and %")]
    Source,
}

/// A body, as a structured event holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// One JSON text: a part of the event.
    Json(&'a [u8]),
    /// Anything else: base64.
    Bytes(&'a [u8]),
}

impl CloudEvents {
    /// Checks what is configured.
    pub fn new(kind: Option<&str>, source: Option<&str>) -> Result<Self, AttributeError> {
        // What neither a header has to encode (HTTP binding 3.1.3.2) nor JSON to escape.
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"'\\%".contains(&byte);
        let fits = |text: &str| (1..=ATTRIBUTE_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain);
        let kind = kind.unwrap_or(DEFAULT_TYPE);
        if !fits(kind) {
            return Err(AttributeError::Type);
        }
        if source.is_some_and(|source| !fits(source)) {
            return Err(AttributeError::Source);
        }
        Ok(Self { kind: kind.into(), source: source.map(Into::into) })
    }

    /// Appends the canonical lines of a binary event: its own, and among them ours.
    pub fn write_headers(&self, event: &Event<'_>, out: &mut String) {
        let (before, after) = around(event.headers);
        out.push_str(before);
        let (id, time) = (format_id(event), accepted_at(event));
        push_header_line(out, "ce-id", &id);
        push_header_line(out, "ce-source", &self.source_of(event));
        push_header_line(out, "ce-specversion", "1.0");
        if let Some(time) = time {
            push_header_line(out, "ce-time", &time);
        }
        push_header_line(out, "ce-type", &self.kind);
        out.push_str(after);
    }

    /// Appends a structured event (JSON format 1.0.2).
    pub fn write_structured(&self, event: &Event<'_>, data: Data<'_>, out: &mut Vec<u8>) {
        let mut text = String::with_capacity(ENVELOPE_BYTES_MAX);
        let (id, source, kind) = (format_id(event), self.source_of(event), &self.kind);
        let _ = write!(text, r#"{{"specversion":"1.0","id":"{id}","source":"{source}","type":"{kind}""#);
        if let Some(time) = accepted_at(event) {
            let _ = write!(text, r#","time":"{time}""#);
        }
        if !event.content_type.is_empty() {
            text.push_str(r#","datacontenttype":"#);
            push_json_string(&mut text, event.content_type);
        }
        out.reserve(text.len() + structured_data_bytes(data));
        match data {
            Data::Json(b"") | Data::Bytes(b"") => out.extend_from_slice(text.as_bytes()),
            Data::Json(body) => {
                text.push_str(r#","data":"#);
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(body);
            }
            Data::Bytes(body) => {
                text.push_str(r#","data_base64":""#);
                out.extend_from_slice(text.as_bytes());
                push_base64(out, body);
                out.push(b'"');
            }
        }
        out.push(b'}');
    }

    /// Appends a structured event as a line of its own: JSON has line ends only where a space may be, too.
    pub fn write_line(&self, event: &Event<'_>, data: Data<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        self.write_structured(event, data, out);
        for byte in out[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
        out.push(b'\n');
    }

    fn source_of(&self, event: &Event<'_>) -> String {
        match &self.source {
            Some(source) => source.clone(),
            None => alloc::format!("/hooks/{}", event.endpoint),
        }
    }
}

/// Appends the event's lines without those of a CloudEvent that the source sent.
pub fn write_other_headers(event: &Event<'_>, out: &mut String) {
    let (before, after) = around(event.headers);
    out.push_str(before);
    out.push_str(after);
}

/// Whether a content type says JSON; no content type does, too (CloudEvents 1.0.2, `datacontenttype`).
pub fn says_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let Some((_, subtype)) = media_type.split_once('/') else { return media_type.is_empty() };
    let is_suffixed = |suffix: &str| {
        subtype.len() >= suffix.len()
            && subtype.as_bytes()[subtype.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
    };
    subtype.eq_ignore_ascii_case("json") || is_suffixed("+json")
}

/// A structured event of a body of this length, at most; bytes.
pub const fn structured_bytes_max(body_bytes: usize) -> usize {
    ENVELOPE_BYTES_MAX + body_bytes.div_ceil(3) * 4
}

/// Sorted lines before and behind those whose names begin with `ce-`.
fn around(lines: &str) -> (&str, &str) {
    // By name, as the lines are sorted: `ce:` is before `ce-`, though the colon is behind the hyphen.
    let start = end_of_lines(lines, |line| line.split(':').next().is_some_and(|name| name < "ce-"));
    let end = start + end_of_lines(&lines[start..], |line| line.starts_with("ce-"));
    (&lines[..start], &lines[end..])
}

/// Where the first lines end for which `holds`.
fn end_of_lines(lines: &str, holds: impl Fn(&str) -> bool) -> usize {
    lines.split_inclusive('\n').take_while(|line| holds(line)).map(str::len).sum()
}

fn format_id(event: &Event<'_>) -> String {
    alloc::format!("{}", event.id)
}

fn structured_data_bytes(data: Data<'_>) -> usize {
    match data {
        Data::Json(body) => body.len() + 1,
        Data::Bytes(body) => body.len().div_ceil(3) * 4 + 2,
    }
}

/// The only characters that JSON must escape in what has no control characters.
fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).expect("there is room for all of it");
    debug_assert_eq!(start + written, out.len());
}

/// When the ingester took the event (RFC 3339), milliseconds kept.
fn accepted_at(event: &Event<'_>) -> Option<String> {
    let accepted_us: u64 = event.metadata(":accepted-us")?.parse().ok()?;
    rfc_3339(accepted_us / 1000)
}

fn rfc_3339(unix_ms: u64) -> Option<String> {
    const DAY_MS: u64 = 86_400_000;
    let (year, month, day) = civil(unix_ms / DAY_MS)?;
    let ms = unix_ms % DAY_MS;
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    Some(alloc::format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"))
}

/// The date of a day since 1970-01-01; none behind the year 9999. Years begin in March here, so leap days end them.
fn civil(days: u64) -> Option<(u64, u64, u64)> {
    let days = days.checked_add(719_468)?;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year <= 9999).then_some((year, month, day))
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;
    use std::vec;

    use super::*;

    const HEADERS: &str = ":accepted-us:1645557742000999\n:tenant:acme\n\
        cd-a:1\nce:0\nce-id:evil\nce-type:evil\nce-zzz:evil\ncf-a:2\nx-b:3\n";

    fn sample() -> Event<'static> {
        Event {
            id: "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap(),
            endpoint: "000102030405060708090a0b0c0d0e0f".parse().unwrap(),
            content_type: "application/json",
            headers: HEADERS,
            body: b"{\"a\": 1}",
        }
    }

    fn structured(event: &Event<'_>, data: Data<'_>) -> String {
        let mut out = Vec::new();
        CloudEvents::new(None, None).unwrap().write_structured(event, data, &mut out);
        assert!(out.len() <= structured_bytes_max(event.body.len()));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_binary_event_has_our_attributes_in_place_of_the_sources() {
        let named = CloudEvents::new(Some("com.example.push"), Some("https://example.com/a?b=c")).unwrap();
        let mut out = String::new();
        named.write_headers(&sample(), &mut out);
        assert_eq!(
            out,
            ":accepted-us:1645557742000999\n:tenant:acme\ncd-a:1\nce:0\nce-id:017f22e2-79b0-7cc3-98c4-dc0c0c07398f\nce-source:https://example.com/a?b=c\n\
             ce-specversion:1.0\nce-time:2022-02-22T19:22:22.000Z\nce-type:com.example.push\ncf-a:2\nx-b:3\n"
        );
        let mut out = String::new();
        CloudEvents::new(None, None).unwrap().write_headers(&Event { headers: "", ..sample() }, &mut out);
        assert_eq!(
            out,
            "ce-id:017f22e2-79b0-7cc3-98c4-dc0c0c07398f\nce-source:/hooks/000102030405060708090a0b0c0d0e0f\n\
             ce-specversion:1.0\nce-type:io.zen-mesh.webhook\n"
        );
        let mut others = String::new();
        write_other_headers(&sample(), &mut others);
        assert_eq!(others, ":accepted-us:1645557742000999\n:tenant:acme\ncd-a:1\nce:0\ncf-a:2\nx-b:3\n");
    }

    #[test]
    fn a_structured_event_holds_json_as_it_is_and_bytes_as_base64() {
        let head = "{\"specversion\":\"1.0\",\"id\":\"017f22e2-79b0-7cc3-98c4-dc0c0c07398f\",\
            \"source\":\"/hooks/000102030405060708090a0b0c0d0e0f\",\"type\":\"io.zen-mesh.webhook\",\
            \"time\":\"2022-02-22T19:22:22.000Z\"";
        let event = sample();
        assert_eq!(
            structured(&event, Data::Json(event.body)),
            format!("{head},\"datacontenttype\":\"application/json\",\"data\":{{\"a\": 1}}}}")
        );
        let bytes = Event { content_type: "", body: &[0xff, 0, 10], ..event };
        assert_eq!(structured(&bytes, Data::Bytes(bytes.body)), format!("{head},\"data_base64\":\"/wAK\"}}"));
        let empty = Event { content_type: "a/b; c=\"d\\e\"", body: b"", ..event };
        let expected = format!("{head},\"datacontenttype\":\"a/b; c=\\\"d\\\\e\\\"\"}}");
        assert_eq!(structured(&empty, Data::Bytes(b"")), expected);
        assert_eq!(structured(&empty, Data::Json(b"")), expected);
    }

    #[test]
    fn a_line_ends_once_and_says_the_same() {
        let event = Event { body: b"{\r\n \"a\":\n\"\\n\"\n}\n", ..sample() };
        let (mut line, named) = (b"before\n".to_vec(), CloudEvents::new(None, None).unwrap());
        named.write_line(&event, Data::Json(event.body), &mut line);
        let line = line.strip_prefix(b"before\n").unwrap();
        assert_eq!(line.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count(), 1);
        assert_eq!(line.last(), Some(&b'\n'));
        let read = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        assert_eq!(read(line), read(structured(&event, Data::Json(event.body)).as_bytes()));
    }

    #[test]
    fn a_structured_event_is_json_and_within_its_bound() {
        let (text, body) = ("\"".repeat(CONTENT_TYPE_BYTES_MAX), vec![0xa5; 1000]);
        let longest = "a".repeat(ATTRIBUTE_BYTES_MAX);
        let named = CloudEvents::new(Some(&longest), Some(&longest)).unwrap();
        let event = Event { content_type: &text, body: &body, ..sample() };
        let mut out = Vec::new();
        named.write_structured(&event, Data::Bytes(&body), &mut out);
        assert!(out.len() <= structured_bytes_max(body.len()), "{}", out.len());
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(read["datacontenttype"], text);
        assert_eq!(STANDARD.decode(read["data_base64"].as_str().unwrap()).unwrap(), body);
        let mut lines = String::new();
        named.write_headers(&Event { headers: ":accepted-us:1\n", ..event }, &mut lines);
        assert!(lines.len() <= CE_HEADERS_BYTES_MAX, "{}", lines.len());
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (unix_s, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(rfc_3339(unix_s * 1000).as_deref(), Some(expected));
        }
        assert_eq!(rfc_3339(1).as_deref(), Some("1970-01-01T00:00:00.001Z"));
        assert_eq!((rfc_3339(253_402_300_800_000), rfc_3339(u64::MAX)), (None, None));
    }

    #[test]
    fn json_is_what_says_so() {
        let json = ["", "application/json", "Application/JSON; charset=utf-8", "text/json", "a/b+JSON ;x"];
        assert!(json.into_iter().all(says_json));
        let other = ["text/plain", "application/jsonx", "application/xml", "json", "application/", "é/é"];
        assert!(!other.into_iter().any(says_json));
    }

    #[test]
    fn attributes_are_checked() {
        let long = "t".repeat(ATTRIBUTE_BYTES_MAX + 1);
        for bad in ["", "a b", "a\"", "a\\", "a%20", "é", "a\r\nx:y", long.as_str()] {
            assert_eq!(CloudEvents::new(Some(bad), None), Err(AttributeError::Type), "{bad}");
            assert_eq!(CloudEvents::new(None, Some(bad)), Err(AttributeError::Source), "{bad}");
        }
        assert_eq!(AttributeError::Type.to_string().split(':').next(), Some("type"));
    }
}
