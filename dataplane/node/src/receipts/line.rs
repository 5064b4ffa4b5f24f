//! One receipt as a line of JSON.

use serde_json::json;
use zen_core::deliver::DeadReason;
use zen_core::event::Event;
use zen_core::id::encode_hex;
use zen_hmac::PreparedKey;

use super::Receipt;

/// With its line feed.
pub fn line(receipt: &Receipt, key: &PreparedKey) -> String {
    let outcome = &receipt.outcome;
    let event = receipt.event.as_ref().and_then(|bytes| Event::decode(bytes).ok());
    let digest = event.as_ref().map(|event| hex(&key.sign(&[event.body])[0]));
    let line = json!({
        "time_ms": receipt.time_ms,
        "event": receipt.event_id.map(|id| id.to_string()),
        "endpoint": event.map(|event| event.endpoint.to_string()),
        "target": &*receipt.target,
        "outcome": outcome.ending.label(),
        "reason": outcome.reason.map(DeadReason::label),
        "status": (outcome.status > 0).then_some(outcome.status),
        "attempts": outcome.attempts,
        "body_hmac_sha256": digest,
    });
    format!("{line}\n")
}

fn hex(bytes: &[u8]) -> String {
    let mut text = vec![0; 2 * bytes.len()];
    encode_hex(bytes, &mut text);
    String::from_utf8(text).expect("hex digits")
}
