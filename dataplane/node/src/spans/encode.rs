//! Spans as an `ExportTraceServiceRequest` in OTLP's JSON encoding: ids in hex, 64-bit numbers as text, enums as numbers.

use serde_json::{Value, json};
use zen_core::id::encode_hex;

use super::{Span, SpanKind};

/// One span as text, at most: names are bounded, the rest is numbers. Bytes.
pub const SPAN_TEXT_BYTES_MAX: usize = 1024;
/// The same as JSON values, a guess on the safe side: some twenty maps and a hundred strings. Bytes.
pub const SPAN_VALUE_BYTES: usize = 8 * 1024;
/// `Span.SpanKind`.
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
/// `Status.StatusCode`.
const ERROR: u8 = 2;

/// The message.
pub fn message(node: &str, spans: &[Span]) -> String {
    let resource = [text("service.name", "zen-dataplane"), text("service.instance.id", node)];
    let scope = json!({ "name": "zen-dataplane", "version": env!("CARGO_PKG_VERSION") });
    let spans: Vec<Value> = spans.iter().map(span).collect();
    let scoped = json!([{ "scope": scope, "spans": spans }]);
    json!({ "resourceSpans": [{ "resource": { "attributes": resource }, "scopeSpans": scoped }] }).to_string()
}

fn span(span: &Span) -> Value {
    let Span { open, kind, outcome, end_us } = span;
    let mut attributes = vec![
        text("zen.event.id", &open.event_id.to_string()),
        text("zen.endpoint.id", &open.endpoint.to_string()),
        text("zen.outcome", outcome),
    ];
    let (name, number, is_good) = match kind {
        SpanKind::Receive => ("receive", SERVER, *outcome == "accepted"),
        SpanKind::Deliver { target, attempt, status } => {
            attributes.push(text("zen.target", target));
            attributes.push(integer("zen.attempt", (*attempt).into()));
            if *status > 0 {
                attributes.push(integer("http.response.status_code", (*status).into()));
            }
            ("deliver", CLIENT, *outcome == "delivered")
        }
    };
    let mut made = json!({
        "traceId": hex(&open.trace_id),
        "spanId": hex(&open.span_id),
        "name": name,
        "kind": number,
        "startTimeUnixNano": nanoseconds(open.start_us),
        "endTimeUnixNano": nanoseconds((*end_us).max(open.start_us)),
        "attributes": attributes,
        "status": if is_good { json!({}) } else { json!({ "code": ERROR }) },
    });
    if open.parent_id != [0; 8] {
        made["parentSpanId"] = hex(&open.parent_id).into();
    }
    made
}

fn nanoseconds(us: u64) -> String {
    us.saturating_mul(1000).to_string()
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn integer(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

fn hex(bytes: &[u8]) -> String {
    let mut text = vec![0; 2 * bytes.len()];
    encode_hex(bytes, &mut text);
    String::from_utf8(text).expect("hex digits")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zen_core::id::{EndpointId, EventId};

    use super::super::{OpenSpan, SPANS_MAX};
    use super::*;

    fn open(parent_id: [u8; 8]) -> OpenSpan {
        OpenSpan {
            trace_id: [0x0a; 16],
            span_id: [0xb7; 8],
            parent_id,
            event_id: EventId([7; 16]),
            endpoint: EndpointId([9; 16]),
            start_us: 1_700_000_000_000_001,
        }
    }

    #[test]
    fn spans_are_encoded_as_the_protocol_says() {
        let receive = Span { open: open([0; 8]), kind: SpanKind::Receive, outcome: "accepted", end_us: 0 };
        let kind = SpanKind::Deliver { target: Arc::from("billing"), attempt: 2, status: 500 };
        let end_us = 1_700_000_000_000_501;
        let deliver = Span { open: open([1; 8]), kind, outcome: "server_error", end_us };
        let message: Value = serde_json::from_str(&super::message("edge-1", &[receive, deliver])).unwrap();
        let spans = &message["resourceSpans"][0]["scopeSpans"][0]["spans"];
        let (receive, deliver) = (&spans[0], &spans[1]);
        assert_eq!(receive["traceId"], "0a".repeat(16));
        assert_eq!(receive["spanId"], "b7".repeat(8));
        assert_eq!((&receive["parentSpanId"], &receive["kind"]), (&Value::Null, &SERVER.into()));
        assert_eq!(receive["endTimeUnixNano"], "1700000000000001000", "no span ends before it begins");
        assert_eq!((&deliver["kind"], &deliver["parentSpanId"]), (&CLIENT.into(), &"01".repeat(8).into()));
        assert_eq!(deliver["endTimeUnixNano"], "1700000000000501000");
        assert_eq!((&receive["status"], &deliver["status"]["code"]), (&json!({}), &ERROR.into()));
        let status = integer("http.response.status_code", 500);
        assert!(deliver["attributes"].as_array().unwrap().contains(&status), "{deliver}");
    }

    #[test]
    fn the_longest_span_is_within_its_bound() {
        let target = Arc::from("n".repeat(zen_core::id::NAME_BYTES_MAX));
        let kind = SpanKind::Deliver { target, attempt: u32::MAX, status: u16::MAX };
        let open = OpenSpan { start_us: u64::MAX, ..open([1; 8]) };
        let longest = Span { open, kind, outcome: "connect_name_not_found", end_us: u64::MAX };
        assert!(span(&longest).to_string().len() <= SPAN_TEXT_BYTES_MAX);
        const { assert!(SPANS_MAX >= super::super::BATCH_MAX) };
    }
}
