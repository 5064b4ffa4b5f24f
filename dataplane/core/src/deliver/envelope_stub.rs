//! Zen-Signature text: the canonical metadata that is signed before the body, and the header value.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use crate::crypto::{Digest, Tag};
use crate::id::{EndpointId, EventId, encode_hex};

/// What is signed of an event beside its body.
pub(super) struct Metadata<'a> {
    pub(super) key_id: &'a str,
    pub(super) time_ms: u64,
    pub(super) nonce: [u8; 16],
    pub(super) event_id: EventId,
    pub(super) endpoint: EndpointId,
    pub(super) audience: &'a str,
    pub(super) content_type: &'a str,
    pub(super) headers_digest: &'a Digest,
}

/// A field holds a control character.
#[derive(Debug)]
pub(super) struct EnvelopeError;

impl Metadata<'_> {
    /// Appends everything that is signed before the body.
    pub(super) fn write_canonical(&self, out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        let fields = [self.key_id, self.audience, self.content_type];
        if fields.iter().any(|field| field.bytes().any(|byte| byte.is_ascii_control())) {
            return Err(EnvelopeError);
        }
        let mut text = String::new();
        let (key_id, time_ms, audience, content_type) =
            (self.key_id, self.time_ms, self.audience, self.content_type);
        let (event_id, endpoint) = (self.event_id, self.endpoint);
        let (nonce, headers) = (EndpointId(self.nonce), hex(self.headers_digest));
        write!(
            text,
            "zen-event-v1\n{key_id}\n{time_ms}\n{nonce}\n{event_id}\n{endpoint}\n{audience}\n{content_type}\n{headers}\n"
        )
        .expect("a String takes any text");
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Appends `k=<key id>,t=<ms>,n=<32 hex>` and one `,v1=<64 hex>` per tag.
pub(super) fn write_signature(out: &mut String, key_id: &str, time_ms: u64, nonce: [u8; 16], tags: &[Tag]) {
    write!(out, "k={key_id},t={time_ms},n={}", EndpointId(nonce)).expect("a String takes any text");
    for tag in tags {
        out.push_str(",v1=");
        out.push_str(&hex(tag));
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    let mut text = [0; 64];
    encode_hex(bytes, &mut text);
    String::from(core::str::from_utf8(&text).expect("hex digits are ASCII"))
}
