//! Spans of sampled events, from workers to an OpenTelemetry collector (OTLP over HTTP, JSON encoding).
//!
//! A worker puts a record into a bounded queue and goes on; where there is no room it is dropped and counted. A
//! thread of its own posts them in batches. A collector that hangs or refuses costs the batch, which is counted,
//! and delays nobody else. A span holds names, numbers and times, never a header or a body.

mod client;
mod encode;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use rustls_pki_types::ServerName;
use zen_core::access::ReachRules;
use zen_core::id::{EndpointId, EventId};

use self::client::PostError;
use crate::config::HostPort;
use crate::metrics::WorkerMetrics;
use crate::tls::ClientTls;

/// Spans that wait for the collector, over all workers.
pub const SPANS_MAX: usize = 4096;
/// A span in the queue, bytes.
pub const SPAN_BYTES: usize = size_of::<Span>() + 16;
/// Spans in one message.
const BATCH_MAX: usize = 256;
/// A message with its copy in TLS, and the stack of the thread; bytes.
pub const EXPORT_BYTES: usize =
    BATCH_MAX * (2 * encode::SPAN_TEXT_BYTES_MAX + encode::SPAN_VALUE_BYTES) + STACK_BYTES;
const STACK_BYTES: usize = 256 * 1024;
/// How often the queue is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// What a span is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// From the whole request to the source's answer, at the ingester.
    Receive,
    /// One delivery attempt, at the egress.
    Deliver {
        /// For whom.
        target: Arc<str>,
        /// From 1.
        attempt: u32,
        /// Of the answer; 0 if none came.
        status: u16,
    },
}

/// A span while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSpan {
    /// Its trace.
    pub trace_id: [u8; 16],
    /// Its id.
    pub span_id: [u8; 8],
    /// The span before it; all zeros if the trace begins with it.
    pub parent_id: [u8; 8],
    /// The event.
    pub event_id: EventId,
    /// Where the event came in.
    pub endpoint: EndpointId,
    /// Unix µs.
    pub start_us: u64,
}

/// A span that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What was known from its beginning.
    pub open: OpenSpan,
    /// What it is about.
    pub kind: SpanKind,
    /// How it ended, as the metrics call it.
    pub outcome: &'static str,
    /// Unix µs.
    pub end_us: u64,
}

/// Where spans go: the collector, and the queue before it.
pub struct Export {
    address: HostPort,
    /// `Host` of requests.
    host: String,
    path: String,
    tls: Option<(ClientTls, ServerName<'static>)>,
    queue: ArrayQueue<Span>,
}

impl Export {
    /// To a collector; without `tls` in clear, which is for loopback.
    pub fn new(
        address: HostPort,
        host: String,
        path: String,
        tls: Option<(ClientTls, ServerName<'static>)>,
    ) -> Self {
        Self { address, host, path, tls, queue: ArrayQueue::new(SPANS_MAX) }
    }

    /// Where the collector is.
    pub fn address(&self) -> &HostPort {
        &self.address
    }

    /// Takes a span, or drops and counts it.
    pub fn handle_span(&self, span: Span, metrics: &WorkerMetrics) {
        if self.queue.push(span).is_err() {
            metrics.spans_dropped.add("full");
        }
    }
}

/// Posts what is in the queue for as long as the process lives; its counters come out of the returned metrics.
pub fn start(
    export: Arc<Export>,
    reach: Arc<ReachRules>,
    node: String,
) -> std::io::Result<Arc<WorkerMetrics>> {
    let metrics = Arc::new(WorkerMetrics::default());
    let mut poster = Poster { export, reach, node, is_forbidden: false, metrics: Arc::clone(&metrics) };
    let run = move || loop {
        std::thread::sleep(EVERY);
        while !poster.export.queue.is_empty() && poster.post_batch() {}
    };
    std::thread::Builder::new().name("spans".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
    Ok(metrics)
}

/// The thread's own.
struct Poster {
    export: Arc<Export>,
    /// The collector's part of them cannot change while the process lives.
    reach: Arc<ReachRules>,
    node: String,
    /// Whether the last message was not sent, and that was said.
    is_forbidden: bool,
    metrics: Arc<WorkerMetrics>,
}

impl Poster {
    /// Whether the collector took it.
    fn post_batch(&mut self) -> bool {
        let spans: Vec<Span> = std::iter::from_fn(|| self.export.queue.pop()).take(BATCH_MAX).collect();
        let message = encode::message(&self.node, &spans);
        let reason = match client::post(&self.export, &self.reach, message.as_bytes()) {
            Ok(200..=299) => {
                self.is_forbidden = false;
                self.metrics.spans_exported.add(spans.len() as u64);
                return true;
            }
            Ok(status) => {
                self.is_forbidden = false;
                tracing::debug!(status, "the collector refuses spans");
                "refused"
            }
            Err(error) => self.handle_error(&error),
        };
        for _ in &spans {
            self.metrics.spans_dropped.add(reason);
        }
        false
    }

    fn handle_error(&mut self, error: &PostError) -> &'static str {
        let was_forbidden = self.is_forbidden;
        self.is_forbidden = matches!(error, PostError::Forbidden(_));
        let PostError::Forbidden(refused) = error else {
            tracing::debug!(%error, "the collector takes no spans");
            return "unreachable";
        };
        self.metrics.destinations_refused.add(refused.label());
        if !was_forbidden {
            tracing::warn!(host = self.export.address.host, "the collector is {error}");
        }
        "forbidden"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_the_queue_is_dropped_and_counted() {
        let address = HostPort { host: "localhost".to_owned(), port: 1 };
        let export = Export::new(address, String::new(), String::new(), None);
        let metrics = Arc::new(WorkerMetrics::default());
        let (trace_id, span_id, parent_id, start_us) = ([1; 16], [2; 8], [0; 8], 1);
        let (event_id, endpoint) = (EventId([3; 16]), EndpointId([4; 16]));
        let open = OpenSpan { trace_id, span_id, parent_id, event_id, endpoint, start_us };
        for _ in 0..SPANS_MAX + 3 {
            let span = Span { open, kind: SpanKind::Receive, outcome: "accepted", end_us: 2 };
            export.handle_span(span, &metrics);
        }
        assert_eq!(export.queue.len(), SPANS_MAX);
        let mut registry = prometheus_client::registry::Registry::default();
        let all = crate::metrics::Metrics::new(vec![metrics], Arc::default());
        registry.register_collector(Box::new(all));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("zen_spans_dropped_total{reason=\"full\"} 3"), "{text}");
    }
}
