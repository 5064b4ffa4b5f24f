//! Checking deliveries as a target does: key, window, signature, and each (time, nonce) once.
//!
//! Enters: a received delivery's headers and body. Leaves: its event id, or the reason for refusing it.
//! Memory is bounded: with more deliveries inside the window than it may remember, it refuses.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use subtle::{Choice, ConstantTimeEq};

use super::signature::{MalformedSignature, SIGNATURE_TAGS_MAX, SignatureHeader};
use super::{EnvelopeError, Metadata, SIGNATURE_WINDOW_MS, is_fresh};
use crate::crypto::{Mac, MacJob, Tag};
use crate::id::{EndpointId, EventId, IdError};

/// A delivery as it came in; absent headers are empty.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedDelivery<'a> {
    /// `zen-signature`.
    pub signature: &'a str,
    /// `zen-event-id` (`webhook-id` is the same).
    pub event_id: &'a str,
    /// `zen-endpoint`.
    pub endpoint: &'a str,
    /// `content-type`.
    pub content_type: &'a str,
    /// The forwarded headers in canonical form; see [`write_forwarded_headers`].
    pub headers: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// Checks the deliveries of one target.
#[derive(Debug)]
pub struct DeliveryVerifier<K> {
    target: String,
    keys: Vec<(String, K)>,
    seen: BTreeSet<(u64, [u8; 16])>,
    seen_max: usize,
    text: Vec<u8>,
    tags: Vec<Tag>,
}

/// Why a delivery is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// No `zen-signature`, or not in its one form.
    #[error("delivery: {0}")]
    Signature(#[from] MalformedSignature),
    /// `zen-event-id` or `zen-endpoint` is not an identifier.
    #[error("delivery: {0}")]
    Id(#[from] IdError),
    /// A field cannot have been signed.
    #[error("delivery: {0}")]
    Envelope(#[from] EnvelopeError),
    /// No key of that id.
    #[error("delivery: the key id is unknown")]
    KeyUnknown,
    /// Outside the window.
    #[error("delivery: the time is outside the window")]
    Stale,
    /// No `v1` value is right.
    #[error("delivery: the signature does not match")]
    Mismatch,
    /// This time and nonce came before.
    #[error("delivery: seen before")]
    Replayed,
    /// More deliveries within the window than may be remembered.
    #[error("delivery: no room to remember it")]
    MemoryFull,
}

impl<K> DeliveryVerifier<K> {
    /// `keys` may hold several secrets of one id during rotation; `seen_max` bounds what is remembered
    /// over twice the window.
    pub fn new(target: &str, keys: Vec<(String, K)>, seen_max: usize) -> Self {
        Self {
            target: target.into(),
            keys,
            seen: BTreeSet::new(),
            seen_max,
            text: Vec::new(),
            tags: Vec::new(),
        }
    }

    /// Checks one delivery and remembers it.
    pub fn verify<M: Mac<Key = K>>(
        &mut self,
        mac: &M,
        delivery: &ReceivedDelivery<'_>,
        now_ms: u64,
    ) -> Result<EventId, DeliveryError> {
        let header = SignatureHeader::parse(delivery.signature)?;
        let event_id = delivery.event_id.parse()?;
        if !is_fresh(header.time_ms, now_ms) {
            return Err(DeliveryError::Stale);
        }
        self.text.clear();
        Metadata {
            key_id: header.key_id,
            time_ms: header.time_ms,
            nonce: header.nonce,
            event_id,
            endpoint: delivery.endpoint.parse::<EndpointId>()?,
            audience: &self.target,
            content_type: delivery.content_type,
            headers_digest: &mac.sha256(delivery.headers.as_bytes()),
        }
        .write_canonical(&mut self.text)?;

        let parts = [self.text.as_slice(), delivery.body];
        let of_id = self.keys.iter().filter(|key| key.0 == header.key_id);
        let jobs: Vec<_> = of_id.map(|(_, key)| MacJob { key, parts }).collect();
        if jobs.is_empty() {
            return Err(DeliveryError::KeyUnknown);
        }
        mac.sign(&jobs, &mut self.tags);
        if !any_equal(&self.tags, header.tags()) {
            return Err(DeliveryError::Mismatch);
        }
        self.remember((header.time_ms, header.nonce), now_ms)?;
        Ok(event_id)
    }

    /// How many deliveries are remembered.
    pub fn remembered(&self) -> usize {
        self.seen.len()
    }

    fn remember(&mut self, delivery: (u64, [u8; 16]), now_ms: u64) -> Result<(), DeliveryError> {
        let oldest_fresh = now_ms.saturating_sub(SIGNATURE_WINDOW_MS);
        while self.seen.first().is_some_and(|first| first.0 < oldest_fresh) {
            self.seen.pop_first();
        }
        if self.seen.contains(&delivery) {
            return Err(DeliveryError::Replayed);
        }
        if self.seen.len() >= self.seen_max {
            return Err(DeliveryError::MemoryFull);
        }
        self.seen.insert(delivery);
        Ok(())
    }
}

/// Compares each tag with each, whatever was found before.
fn any_equal(ours: &[Tag], theirs: &[Tag]) -> bool {
    assert!(theirs.len() <= SIGNATURE_TAGS_MAX);
    let mut found = Choice::from(0);
    for our in ours {
        for their in theirs {
            found |= our.ct_eq(their);
        }
    }
    found.into()
}

/// Whether a header (lower-case name) belongs to the source and is signed: not one that a delivery
/// writes itself, nor one that the HTTP connection or a proxy owns.
pub fn is_forwarded_name(name: &str) -> bool {
    const OWNED: [&str; 21] = [
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "x-real-ip",
    ];
    const OWNED_PREFIXES: [&str; 4] = [":", "webhook-", "x-forwarded-", "zen-"];
    !OWNED.contains(&name) && !OWNED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Appends the canonical lines of the forwarded ones among a delivery's headers (lower-case names, values
/// without white space around them): sorted by name, equal names in the order received.
pub fn write_forwarded_headers<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>, out: &mut String) {
    let mut lines: Vec<_> = headers.into_iter().filter(|(name, _)| is_forwarded_name(name)).collect();
    lines.sort_by_key(|line| line.0);
    for (name, value) in lines {
        crate::event::push_header_line(out, name, value);
    }
}

/// No delivery is accepted unless its signature was made with the key, which here never signs.
#[doc(hidden)]
pub fn fuzz_delivery(data: &[u8]) {
    struct ZeroMac;
    impl Mac for ZeroMac {
        type Key = ();
        fn prepare(&self, _: &[u8]) {}
        fn sign(&self, jobs: &[MacJob<'_, ()>], tags: &mut Vec<Tag>) {
            tags.clear();
            tags.resize(jobs.len(), [0xee; 32]);
        }
        fn sha256(&self, _: &[u8]) -> Tag {
            [0; 32]
        }
    }
    let mut verifier = DeliveryVerifier::new("t", alloc::vec![("k".into(), ())], 4);
    let text = core::str::from_utf8(data).unwrap_or("");
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or("");
    let delivery = ReceivedDelivery {
        signature: line(),
        event_id: line(),
        endpoint: line(),
        content_type: line(),
        headers: line(),
        body: data,
    };
    let first = verifier.verify(&ZeroMac, &delivery, 1000);
    let second = verifier.verify(&ZeroMac, &delivery, 1000);
    match first {
        Ok(_) => assert_eq!(second, Err(DeliveryError::Replayed)),
        Err(error) => assert_eq!(second, Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec;

    use proptest::prelude::*;

    use super::super::tests::TestMac;
    use super::super::write_signature;
    use super::*;

    const NOW: u64 = 1_700_000_000_000;
    const EVENT: EventId = EventId([1; 16]);
    const ENDPOINT: EndpointId = EndpointId([2; 16]);

    fn verifier(seen_max: usize) -> DeliveryVerifier<<TestMac as Mac>::Key> {
        let keys = vec![
            ("billing-1".to_string(), TestMac.prepare(b"new secret")),
            ("billing-1".to_string(), TestMac.prepare(b"old secret")),
            ("other".to_string(), TestMac.prepare(b"third secret")),
        ];
        DeliveryVerifier::new("billing", keys, seen_max)
    }

    fn signed(secret: &[u8], time_ms: u64, nonce: u8, audience: &str) -> String {
        let mut text = Vec::new();
        Metadata {
            key_id: "billing-1",
            time_ms,
            nonce: [nonce; 16],
            event_id: EVENT,
            endpoint: ENDPOINT,
            audience,
            content_type: "text/plain",
            headers_digest: &TestMac.sha256(b"x-a:1\n"),
        }
        .write_canonical(&mut text)
        .unwrap();
        let mut tags = Vec::new();
        TestMac.sign(&[MacJob { key: &TestMac.prepare(secret), parts: [&text, b"body"] }], &mut tags);
        let mut header = String::new();
        write_signature(&mut header, "billing-1", time_ms, &[nonce; 16], &tags);
        header
    }

    fn check(
        verifier: &mut DeliveryVerifier<<TestMac as Mac>::Key>,
        signature: &str,
        change: impl FnOnce(&mut ReceivedDelivery<'_>),
        now_ms: u64,
    ) -> Result<EventId, DeliveryError> {
        let (event_id, endpoint) = (EVENT.to_string(), ENDPOINT.to_string());
        let mut delivery = ReceivedDelivery {
            signature,
            event_id: &event_id,
            endpoint: &endpoint,
            content_type: "text/plain",
            headers: "x-a:1\n",
            body: b"body",
        };
        change(&mut delivery);
        verifier.verify(&TestMac, &delivery, now_ms)
    }

    #[test]
    fn accepted_once_with_either_secret_of_its_id() {
        let mut verifier = verifier(8);
        let (first, second) =
            (signed(b"new secret", NOW, 1, "billing"), signed(b"old secret", NOW, 2, "billing"));
        assert_eq!(check(&mut verifier, &first, |_| {}, NOW), Ok(EVENT));
        assert_eq!(check(&mut verifier, &second, |_| {}, NOW), Ok(EVENT));
        assert_eq!(check(&mut verifier, &first, |_| {}, NOW + 5), Err(DeliveryError::Replayed));
        let wrong = signed(b"third secret", NOW, 3, "billing");
        assert_eq!(check(&mut verifier, &wrong, |_| {}, NOW), Err(DeliveryError::Mismatch));
    }

    #[test]
    fn each_signed_field_counts() {
        let good = signed(b"new secret", NOW, 1, "billing");
        let refused = |signature: &str, change: fn(&mut ReceivedDelivery<'_>)| {
            check(&mut verifier(8), signature, change, NOW).unwrap_err()
        };
        let mismatch = DeliveryError::Mismatch;
        assert_eq!(refused(&good.replace("t=1700000000000", "t=1700000000001"), |_| {}), mismatch);
        assert_eq!(refused(&good.replace("n=01", "n=02"), |_| {}), mismatch);
        assert_eq!(refused(&good.replace("k=billing-1", "k=other"), |_| {}), mismatch);
        assert_eq!(refused(&good.replace("k=billing-1", "k=absent"), |_| {}), DeliveryError::KeyUnknown);
        assert_eq!(refused(&signed(b"new secret", NOW, 1, "audit"), |_| {}), mismatch);
        assert_eq!(refused(&good, |d| d.event_id = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"), mismatch);
        assert_eq!(refused(&good, |d| d.endpoint = "0123456789abcdef0123456789abcdef"), mismatch);
        assert_eq!(refused(&good, |d| d.content_type = "text/html"), mismatch);
        assert_eq!(refused(&good, |d| d.headers = "x-a:2\n"), mismatch);
        assert_eq!(refused(&good, |d| d.body = b"bodz"), mismatch);
        assert!(matches!(refused(&good, |d| d.event_id = ""), DeliveryError::Id(_)));
        assert!(matches!(refused("", |_| {}), DeliveryError::Signature(_)));
        assert!(matches!(refused(&good, |d| d.content_type = "a\nb"), DeliveryError::Envelope(_)));
    }

    #[test]
    fn the_memory_is_bounded_and_follows_the_window() {
        let mut verifier = verifier(2);
        for nonce in 1..=2 {
            assert!(check(&mut verifier, &signed(b"new secret", NOW, nonce, "billing"), |_| {}, NOW).is_ok());
        }
        let third = signed(b"new secret", NOW + 300_000, 3, "billing");
        assert_eq!(check(&mut verifier, &third, |_| {}, NOW + 300_000), Err(DeliveryError::MemoryFull));
        assert_eq!(check(&mut verifier, &third, |_| {}, NOW + 300_001), Ok(EVENT));
        assert_eq!(verifier.remembered(), 1);
        let first = signed(b"new secret", NOW, 1, "billing");
        assert_eq!(check(&mut verifier, &first, |_| {}, NOW + 300_001), Err(DeliveryError::Stale));
    }

    #[test]
    fn forwarded_headers_are_sorted_and_stable() {
        let mut out = String::new();
        let headers = [
            ("x-b", "1"),
            ("host", "h"),
            ("x-a", "2"),
            ("zen-attempt", "1"),
            ("x-b", "0"),
            ("webhook-id", "i"),
        ];
        write_forwarded_headers(headers, &mut out);
        assert_eq!(out, "x-a:2\nx-b:1\nx-b:0\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn refusals_are_stable(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_delivery(&data);
        }
    }

    #[test]
    fn fuzz_entry_reaches_acceptance() {
        let line =
            |tag: &str| std::format!("k=k,t=5,n={},v1={tag}\n{EVENT}\n{ENDPOINT}\n\n", "00".repeat(16));
        fuzz_delivery(line(&"ee".repeat(32)).as_bytes());
        fuzz_delivery(line(&"ed".repeat(32)).as_bytes());
    }
}
