//! What rules are evaluated against.

use zen_core::event::Event;
use zen_core::http1::RequestHead;

use crate::Document;

/// One event, borrowed. Nothing of it is copied.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The endpoint's name in the configuration.
    pub endpoint: &'a str,
    /// The source's `Content-Type`, or empty.
    pub content_type: &'a str,
    /// The source's headers.
    pub headers: Headers<'a>,
    /// The body, parsed on first use.
    pub document: &'a Document<'a>,
}

/// Where headers are found.
#[derive(Clone, Copy)]
pub enum Headers<'a> {
    /// All of the request, as the ingester has it.
    Request(&'a RequestHead),
    /// Canonical lines `name:value LF`, names lower case, as an event keeps those that are forwarded.
    Lines(&'a str),
}

impl<'a> Subject<'a> {
    /// An event that was kept: of its headers there are those that are forwarded.
    pub fn of_event(event: &Event<'a>, endpoint: &'a str, document: &'a Document<'a>) -> Self {
        let headers = Headers::Lines(event.forwarded_headers());
        Self { endpoint, content_type: event.content_type, headers, document }
    }

    /// The values of all lines with this lower-case name.
    pub(crate) fn header_values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        let (request, lines) = match self.headers {
            Headers::Request(head) => (Some(head), ""),
            Headers::Lines(lines) => (None, lines),
        };
        let requested = request.into_iter().flat_map(RequestHead::headers);
        let requested = requested.filter(move |header| header.0 == name).map(|header| header.1);
        let kept = lines.split_terminator('\n');
        requested.chain(kept.filter_map(move |line| line.strip_prefix(name)?.strip_prefix(':')))
    }

    /// The content type without parameters and spaces around it.
    pub(crate) fn media_type(&self) -> &'a str {
        self.content_type.split(';').next().unwrap_or_default().trim()
    }
}

#[cfg(test)]
mod tests {
    use zen_core::event::Event;
    use zen_core::http1::{Limits, RequestParser};
    use zen_core::id::{EndpointId, EventId};

    use super::*;

    #[test]
    fn headers_are_those_of_a_request_or_those_kept() {
        let mut parser = RequestParser::new(Limits::default());
        let text = "POST / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-b: 2\r\nx-A:  3 \r\nContent-Length: 0\r\n\r\n";
        parser.handle_bytes(&mut text.as_bytes()).unwrap();
        let document = Document::new(b"");
        let headers = Headers::Request(parser.head());
        let subject = Subject { endpoint: "e", content_type: " a/b ;c=d", headers, document: &document };
        assert_eq!(subject.header_values("x-a").collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!((subject.header_values("x").count(), subject.media_type()), (0, "a/b"));

        let event = Event {
            id: EventId([1; 16]),
            endpoint: EndpointId([2; 16]),
            content_type: "a/b",
            headers: ":tenant:t\nx-a:1\nx-a:3\nx-ab:2\n",
            body: b"",
        };
        let subject = Subject::of_event(&event, "e", &document);
        assert_eq!(subject.header_values("x-a").collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!(subject.header_values(":tenant").count(), 0);
    }
}
