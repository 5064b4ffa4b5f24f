//! Attempts of sampled events as spans.

use std::sync::Arc;

use zen_core::deliver::{Attempt, Outcome};
use zen_core::event::Event;
use zen_core::trace::{TraceParent, attempt_span};

use super::{Deliveries, Job, outcome_label};
use crate::clock::Clock;
use crate::spans::{OpenSpan, Span, SpanKind};

impl Deliveries {
    /// The attempt's span, if spans are exported and the event's trace is sampled.
    pub(super) fn open_span(&self, event: &Event<'_>, attempt: &Attempt) -> Option<Box<OpenSpan>> {
        self.snapshot.tracing.export.as_ref()?;
        let parent = TraceParent::of_event(event).filter(TraceParent::is_sampled)?;
        Some(Box::new(OpenSpan {
            trace_id: parent.trace_id,
            span_id: attempt_span(&attempt.nonce),
            parent_id: parent.parent_id,
            event_id: event.id,
            endpoint: event.endpoint,
            start_us: self.clock.wall_us,
        }))
    }

    pub(super) fn end_span(&self, target: &Arc<str>, job: &Job, outcome: &Outcome) {
        let Some(open) = job.span.as_deref().copied() else { return };
        let Some(export) = &self.snapshot.tracing.export else { return };
        let attempts = self.owners.get(target).map_or(0, |owner| owner.queue.attempts(job.key));
        let kind =
            SpanKind::Deliver { target: Arc::clone(target), attempt: attempts, status: outcome.status() };
        let (outcome, end_us) = (outcome_label(outcome), Clock::now().wall_us);
        export.handle_span(Span { open, kind, outcome, end_us }, &self.metrics);
    }
}
