//! The trace that an event belongs to: its source's, or one that begins here for a share of events.

use zen_core::event::push_header_line;
use zen_core::http1::RequestHead;
use zen_core::trace::{
    TRACEPARENT, TRACEPARENT_LINE, TRACESTATE, TRACESTATE_LINE, TraceParent, combine_tracestate,
};

use super::Ingester;

/// The ids of the span in which a sampled event is received, if spans are exported.
pub struct Received {
    /// Its trace.
    pub trace: [u8; 16],
    /// Its own, which is the parent in the event's metadata.
    pub span: [u8; 8],
    /// The source's; zeros for a trace that begins here.
    pub parent: [u8; 8],
}

/// Appends the lines of a request's trace, if it has one that can be read, or of a new one.
pub fn push_trace(lines: &mut String, head: &RequestHead, ingester: &mut Ingester) -> Option<Received> {
    let Some(value) = head.header(TRACEPARENT) else {
        let parent = ingester.new_trace()?;
        push_parent(lines, parent);
        let received = Received { trace: parent.trace_id, span: parent.parent_id, parent: [0; 8] };
        return ingester.exports_spans().then_some(received);
    };
    let is_single = values(head, TRACEPARENT).count() == 1;
    let parent = TraceParent::parse(value).filter(|_| is_single)?;
    let span_id = (parent.is_sampled() && ingester.exports_spans()).then(|| ingester.new_span_id());
    push_parent(lines, span_id.map_or(parent, |span_id| parent.with_parent(span_id)));
    let states: Vec<&str> = values(head, TRACESTATE).collect();
    if let Some(state) = combine_tracestate(states.iter().copied()) {
        push_header_line(lines, TRACESTATE_LINE, &state);
    }
    span_id.map(|span| Received { trace: parent.trace_id, span, parent: parent.parent_id })
}

fn push_parent(lines: &mut String, parent: TraceParent) {
    push_header_line(lines, TRACEPARENT_LINE, &parent.to_string());
}

fn values<'h>(head: &'h RequestHead, name: &'static str) -> impl Iterator<Item = &'h str> {
    head.headers().filter(move |header| header.0.eq_ignore_ascii_case(name)).map(|header| header.1)
}
