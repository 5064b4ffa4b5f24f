//! What rules are evaluated against.

use zen_core::event::Event;

use crate::Document;

/// One event, borrowed. Nothing of it is copied.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The endpoint's name in the configuration.
    pub endpoint: &'a str,
    /// The source's `Content-Type`, or empty.
    pub content_type: &'a str,
    /// Canonical header lines `name:value LF`, names lower case, as `zen_core::event` has them.
    pub headers: &'a str,
    /// The body, parsed on first use.
    pub document: &'a Document<'a>,
}

impl<'a> Subject<'a> {
    /// The event's own headers and content type; metadata lines are not conditions' to see.
    pub fn of_event(event: &Event<'a>, endpoint: &'a str, document: &'a Document<'a>) -> Self {
        Self { endpoint, content_type: event.content_type, headers: event.forwarded_headers(), document }
    }

    /// The values of all lines with this lower-case name.
    pub(crate) fn header_values(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.headers.split_terminator('\n');
        lines.filter_map(move |line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    /// The content type without parameters and spaces around it.
    pub(crate) fn media_type(&self) -> &'a str {
        self.content_type.split(';').next().unwrap_or_default().trim()
    }
}
