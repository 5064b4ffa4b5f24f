//! Spans of events that are being received: they end with the answer.

use zen_core::journal::Sequence;
use zen_core::trace::{TraceParent, attempt_span};

use super::Ingester;
use crate::clock::Clock;
use crate::spans::{OpenSpan, Span, SpanKind};

/// Spans of events that have no answer yet, in one worker.
const OPEN_SPANS_MAX: usize = 1024;
/// Memory for them, bytes.
pub const OPEN_SPANS_BYTES: usize = 2 * OPEN_SPANS_MAX * size_of::<(Sequence, OpenSpan)>();

impl Ingester {
    /// A trace for an event that came without one, for a share of them.
    pub fn new_trace(&mut self) -> Option<TraceParent> {
        let below = self.snapshot.tracing.sample_below;
        if below == 0 || u64::from(u32::from_le_bytes(self.entropy.bytes())) >= below {
            return None;
        }
        TraceParent::begin(self.entropy.bytes(), self.entropy.bytes())
    }

    /// Whether spans of sampled events go anywhere.
    pub fn exports_spans(&self) -> bool {
        self.snapshot.tracing.export.is_some()
    }

    /// The id of a span that begins now.
    pub fn new_span_id(&mut self) -> [u8; 8] {
        attempt_span(&self.entropy.bytes())
    }

    /// Keeps the span of an event that is being written.
    pub(super) fn hold_span(&mut self, sequence: Sequence, span: OpenSpan) {
        if self.spans.len() < OPEN_SPANS_MAX {
            self.spans.push_back((sequence, span));
        } else {
            self.metrics.spans_dropped.add("full");
        }
    }

    /// Events up to here have their answers.
    pub(super) fn end_spans(&mut self, answered: Sequence) {
        while let Some((_, open)) = self.spans.pop_front_if(|span| span.0 <= answered) {
            let Some(export) = &self.snapshot.tracing.export else { return };
            let (kind, outcome, end_us) = (SpanKind::Receive, "accepted", Clock::now().wall_us);
            export.handle_span(Span { open, kind, outcome, end_us }, &self.metrics);
        }
    }
}
