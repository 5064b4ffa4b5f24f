//! The trace that an event belongs to: its source's, or one that begins here for a share of events.

use zen_core::event::push_header_line;
use zen_core::http1::RequestHead;
use zen_core::trace::{
    TRACEPARENT, TRACEPARENT_LINE, TRACESTATE, TRACESTATE_LINE, TraceParent, combine_tracestate,
};

use super::Ingester;

/// Appends the lines of a request's trace, if it has one that can be read, or of a new one.
pub fn push_trace(lines: &mut String, head: &RequestHead, ingester: &mut Ingester) {
    let Some(value) = head.header(TRACEPARENT) else {
        if let Some(parent) = ingester.new_trace() {
            push_parent(lines, parent);
        }
        return;
    };
    let is_single = values(head, TRACEPARENT).count() == 1;
    let Some(parent) = TraceParent::parse(value).filter(|_| is_single) else { return };
    push_parent(lines, parent);
    let states: Vec<&str> = values(head, TRACESTATE).collect();
    if let Some(state) = combine_tracestate(states.iter().copied()) {
        push_header_line(lines, TRACESTATE_LINE, &state);
    }
}

fn push_parent(lines: &mut String, parent: TraceParent) {
    push_header_line(lines, TRACEPARENT_LINE, &parent.to_string());
}

fn values<'h>(head: &'h RequestHead, name: &'static str) -> impl Iterator<Item = &'h str> {
    head.headers().filter(move |header| header.0.eq_ignore_ascii_case(name)).map(|header| header.1)
}
