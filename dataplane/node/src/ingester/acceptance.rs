//! From a verified request to an event on its way into the journal: id, metadata, headers, routes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use zen_core::event::{Event, QUARANTINE_LINE, push_header_line, push_number_line};
use zen_core::hops::HOPS_LINE;
use zen_core::http1::RequestHead;
use zen_core::verify::Verified;
use zen_rules::{Document, Headers, Matched, Subject};

use super::access::Marks;
use super::trace::{Received, push_trace};
use super::{Accepted, Claim, Ingester};
use crate::config::Endpoint;
use crate::spans::OpenSpan;
use crate::stream::Stream;

/// Room for most events' header lines, and for everything before a body; bytes.
const HEAD_BYTES: usize = 512;

/// Makes the event of a request, decides where it goes, and encodes what stands before its body.
pub fn accepted(
    stream: &Stream,
    head: &RequestHead,
    claim: Option<Claim>,
    endpoint: &Arc<Endpoint>,
    (verified, marks): (&Verified<'_>, Marks<'_>),
    (body, since): (Vec<u8>, Instant),
    ingester: &mut Ingester,
) -> Accepted {
    let (id, now_us) = ingester.new_event_id();
    let mut lines = String::from_utf8(ingester.take_buffer(HEAD_BYTES)).expect("it is empty");
    push_metadata(&mut lines, endpoint, (verified, marks), now_us, ingester.generation());
    let received = push_trace(&mut lines, head, ingester);
    push_forwarded(&mut lines, head, &endpoint.forward_headers);
    let event = Event {
        id,
        endpoint: endpoint.id,
        content_type: &event_content_type(head.header("content-type").unwrap_or_default()),
        headers: &lines,
        body: &body,
    };
    if marks.quarantine.is_some() {
        ingester.metrics().events_quarantined.add(1);
    }
    let matched = route(head, endpoint, &body, ingester);
    let mut encoded = ingester.take_buffer(HEAD_BYTES);
    endpoint.routing.encode(&mut encoded, claim.as_ref().map(|claim| &claim.key), matched);
    event.encode_head(&mut encoded).expect("the parser's bounds are tighter than the event's");
    ingester.give_buffer(lines.into_bytes());
    Accepted {
        socket: stream.socket,
        since,
        id,
        claim,
        endpoint: Arc::clone(endpoint),
        matched,
        head: encoded,
        body,
        span: received.map(|Received { trace, span, parent }| {
            Box::new(OpenSpan {
                trace_id: trace,
                span_id: span,
                parent_id: parent,
                event_id: id,
                endpoint: endpoint.id,
                start_us: now_us,
            })
        }),
    }
}

/// Which flows take the event; what could not be decided, or leads nowhere, is counted.
fn route(head: &RequestHead, endpoint: &Endpoint, body: &[u8], ingester: &Ingester) -> Matched {
    let document = Document::new(body);
    let subject = Subject {
        endpoint: &endpoint.name,
        content_type: head.header("content-type").unwrap_or_default(),
        headers: Headers::Request(head),
        document: &document,
    };
    let routed = endpoint.routing.route(&subject);
    if let Some(fault) = routed.fault() {
        ingester.metrics().flows_undecided.add(fault.label());
    }
    if routed.is_empty() {
        ingester.metrics().events_unrouted.add(1);
    }
    routed.matched()
}

/// A content type over the bound is not forwarded rather than cut; a tab, which HTTP allows, is a space.
fn event_content_type(value: &str) -> Cow<'_, str> {
    if value.len() > zen_core::event::CONTENT_TYPE_BYTES_MAX {
        return Cow::Borrowed("");
    }
    without_tabs(value)
}

fn without_tabs(value: &str) -> Cow<'_, str> {
    if value.contains('\t') { Cow::Owned(value.replace('\t', " ")) } else { Cow::Borrowed(value) }
}

/// Appends the lines of our own, which come first.
fn push_metadata(
    lines: &mut String,
    endpoint: &Endpoint,
    (verified, marks): (&Verified<'_>, Marks<'_>),
    now_us: u64,
    generation: u64,
) {
    push_number_line(lines, ":accepted-us", now_us);
    push_number_line(lines, ":generation", generation);
    if marks.hops > 0 {
        push_number_line(lines, HOPS_LINE, marks.hops.into());
    }
    if let Some(header) = marks.quarantine {
        push_header_line(lines, QUARANTINE_LINE, header);
    }
    if let Some(source_id) = verified.source_id {
        push_header_line(lines, ":source-id", source_id);
    }
    push_header_line(lines, ":tenant", &endpoint.tenant);
}

/// Appends the source's headers that are forwarded, as far as they fit.
fn push_forwarded(lines: &mut String, head: &RequestHead, names: &[String]) {
    for name in names {
        for (_, value) in head.headers().filter(|header| header.0.eq_ignore_ascii_case(name)) {
            if lines.len() + name.len() + value.len() + 2 > zen_core::event::HEADERS_BYTES_MAX {
                return;
            }
            push_header_line(lines, name, &without_tabs(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use zen_core::event::CONTENT_TYPE_BYTES_MAX;
    use zen_core::http1::{Limits, Progress, RequestParser};
    use zen_core::id::{EndpointId, EventId};

    use super::*;

    #[test]
    fn headers_are_forwarded_in_the_configured_order_while_they_fit() {
        let long = "v".repeat(7000);
        let names = ["X-A", "x-other", "x-c", "x-c", "x-c", "x-d"];
        let lines = names.map(|name| format!("{name}: {long}\r\n")).concat();
        let text = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nx-b: 1\t2\r\n{lines}\r\n");
        let mut parser = RequestParser::new(Limits { header_bytes_max: 1 << 17, ..Limits::default() });
        assert_eq!(parser.handle_bytes(&mut text.as_bytes()), Ok(Progress::Head));
        let names = ["x-a", "x-b", "x-c", "x-d"].map(str::to_owned);
        let mut lines = ":tenant:acme\n".to_owned();
        push_forwarded(&mut lines, parser.head(), &names);
        let expected = format!(":tenant:acme\nx-a:{long}\nx-b:1 2\nx-c:{long}\nx-c:{long}\nx-c:{long}\n");
        assert!(lines == expected, "{} bytes, {} expected", lines.len(), expected.len());
    }

    #[test]
    fn every_content_type_that_http_allows_fits_an_event() {
        let longest = "a".repeat(CONTENT_TYPE_BYTES_MAX);
        let longer = format!("{longest}a");
        for (value, expected) in [
            ("", ""),
            ("application/json", "application/json"),
            ("application/json;\tcharset=utf-8", "application/json; charset=utf-8"),
            (&*longest, &*longest),
            (&*longer, ""),
        ] {
            let content_type = event_content_type(value);
            assert_eq!(content_type, expected);
            let event = Event {
                id: EventId([1; 16]),
                endpoint: EndpointId([2; 16]),
                content_type: &content_type,
                headers: "",
                body: b"",
            };
            assert_eq!(event.encode_head(&mut Vec::new()), Ok(()), "{value:?}");
        }
    }
}
