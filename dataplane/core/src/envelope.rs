//! The envelope: what is signed for each event on the link and for each delivery, and how it is checked.
//!
//! Signed text: `zen-event-v1 LF key-id LF t LF n LF event-id LF endpoint LF audience LF content-type LF
//! headers LF` and then the body; HMAC-SHA256. `t` is Unix ms in decimal, `n` 16 bytes in lower-case hex,
//! `headers` the SHA-256 of canonical header lines: all of `Event::headers` on the link,
//! `Event::forwarded_headers` on a delivery. Refused: a field with a control character or over its bound,
//! a signature older or newer than the window, a nonce seen before. `docs/wire-formats.md` has each byte.

mod delivery;
mod replay;
mod signature;

use alloc::vec::Vec;

pub use delivery::{
    DeliveryError, DeliveryVerifier, ReceivedDelivery, is_forwarded_name, write_forwarded_headers,
};
pub use replay::{REPLAY_WINDOW_BITS, Replay, ReplayWindow};
pub use signature::{SIGNATURE_BYTES_MAX, SIGNATURE_TAGS_MAX, SignatureHeader, write_signature};

use crate::crypto::Digest;
use crate::event::CONTENT_TYPE_BYTES_MAX;
use crate::id::{EndpointId, EventId, NAME_BYTES_MAX, encode_hex, is_name};

#[doc(hidden)]
pub mod fuzz {
    //! Asserting entry points for fuzz targets.
    pub use super::delivery::fuzz_delivery;
    pub use super::replay::fuzz_replay_window;
    pub use super::signature::fuzz_signature_header;
}

/// First line of the signed text; a change of the text changes this line.
pub const CONTEXT: &str = "zen-event-v1";
/// How far `t` may be from the checker's clock, either way, ms.
pub const SIGNATURE_WINDOW_MS: u64 = 300_000;
/// Most targets one event may name on the link.
pub const TARGETS_MAX: usize = 32;
/// Longest audience, bytes: an egress name, a colon, and comma-separated targets.
pub const AUDIENCE_BYTES_MAX: usize = NAME_BYTES_MAX + TARGETS_MAX * (NAME_BYTES_MAX + 1);

/// Everything that is signed beside the body.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    /// Names the key to the checker; a name in the sense of [`is_name`].
    pub key_id: &'a str,
    /// Unix ms at which it was signed.
    pub time_ms: u64,
    /// Never used twice under one key within the window.
    pub nonce: [u8; 16],
    /// The event.
    pub event_id: EventId,
    /// Where the event came in.
    pub endpoint: EndpointId,
    /// Whom it is for: a target, or on the link `<egress>:<target>,<target>`.
    pub audience: &'a str,
    /// The event's content type, or empty.
    pub content_type: &'a str,
    /// SHA-256 of the canonical header lines.
    pub headers_digest: &'a Digest,
}

/// Why metadata cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The key id is not a name.
    #[error("envelope: the key id is not a name")]
    KeyId,
    /// The audience is empty, too long, or holds a control character.
    #[error("envelope: the audience is empty, too long, or holds a control character")]
    Audience,
    /// The content type is too long or holds a control character.
    #[error("envelope: the content type is too long or holds a control character")]
    ContentType,
}

impl Metadata<'_> {
    /// Appends the signed text up to and without the body; appends nothing when it refuses.
    pub fn write_canonical(&self, out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        self.check()?;
        out.extend_from_slice(CONTEXT.as_bytes());
        out.push(b'\n');
        push_line(out, self.key_id.as_bytes());
        push_decimal(out, self.time_ms);
        out.push(b'\n');
        push_hex_line(out, &self.nonce);
        push_line(out, &self.event_id.text());
        push_hex_line(out, &self.endpoint.0);
        push_line(out, self.audience.as_bytes());
        push_line(out, self.content_type.as_bytes());
        push_hex_line(out, self.headers_digest);
        Ok(())
    }

    fn check(&self) -> Result<(), EnvelopeError> {
        if !is_name(self.key_id) {
            return Err(EnvelopeError::KeyId);
        }
        if self.audience.is_empty() || self.audience.len() > AUDIENCE_BYTES_MAX || has_control(self.audience)
        {
            return Err(EnvelopeError::Audience);
        }
        if self.content_type.len() > CONTENT_TYPE_BYTES_MAX || has_control(self.content_type) {
            return Err(EnvelopeError::ContentType);
        }
        Ok(())
    }
}

/// Whether a signature made at `time_ms` is inside the window at `now_ms`, bounds included.
pub fn is_fresh(time_ms: u64, now_ms: u64) -> bool {
    time_ms.abs_diff(now_ms) <= SIGNATURE_WINDOW_MS
}

fn has_control(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_control())
}

fn push_line(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.push(b'\n');
}

fn push_hex_line(out: &mut Vec<u8>, bytes: &[u8]) {
    push_hex(out, bytes);
    out.push(b'\n');
}

fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len() * 2, 0);
    encode_hex(bytes, &mut out[start..]);
}

fn push_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
pub(crate) mod tests {
    use std::format;

    use super::*;
    use crate::crypto::{Mac, MacJob, Tag};

    /// HMAC and SHA-256 by the portable crates, for this module's tests and the link's.
    #[derive(Debug)]
    pub(crate) struct TestMac;

    impl Mac for TestMac {
        type Key = hmac::Hmac<sha2::Sha256>;

        fn prepare(&self, secret: &[u8]) -> Self::Key {
            hmac::KeyInit::new_from_slice(secret).expect("HMAC takes keys of any length")
        }

        fn sign(&self, jobs: &[MacJob<'_, Self::Key>], tags: &mut Vec<Tag>) {
            tags.clear();
            tags.extend(jobs.iter().map(|job| {
                let mut mac = job.key.clone();
                job.parts.iter().for_each(|part| hmac::Mac::update(&mut mac, part));
                <Tag>::from(hmac::Mac::finalize(mac).into_bytes())
            }));
        }

        fn sha256(&self, bytes: &[u8]) -> Digest {
            <sha2::Sha256 as sha2::Digest>::digest(bytes).into()
        }
    }

    const SAMPLE: Metadata<'static> = Metadata {
        key_id: "link-1",
        time_ms: 1_700_000_000_123,
        nonce: [0xab; 16],
        event_id: EventId([0x11; 16]),
        endpoint: EndpointId([0x22; 16]),
        audience: "inside:billing,audit",
        content_type: "application/json",
        headers_digest: &[0x33; 32],
    };

    #[test]
    fn the_text_is_the_documented_one() {
        let mut out = b"before".to_vec();
        SAMPLE.write_canonical(&mut out).unwrap();
        let expected = format!(
            "beforezen-event-v1\nlink-1\n1700000000123\n{}\n11111111-1111-1111-1111-111111111111\n{}\n\
             inside:billing,audit\napplication/json\n{}\n",
            "ab".repeat(16),
            "22".repeat(16),
            "33".repeat(32)
        );
        assert_eq!(core::str::from_utf8(&out).unwrap(), expected);
    }

    #[test]
    fn decimal_time_has_no_padding() {
        for (value, text) in [(0, "0"), (9, "9"), (10, "10"), (u64::MAX, "18446744073709551615")] {
            let mut out = Vec::new();
            push_decimal(&mut out, value);
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn no_field_may_break_a_line() {
        for byte in (0..0x20).chain([0x7f]) {
            let text = format!("a{}b", char::from(byte));
            let mut out = Vec::new();
            let refused = |metadata: Metadata<'_>, out: &mut Vec<u8>| metadata.write_canonical(out).err();
            assert_eq!(refused(Metadata { key_id: &text, ..SAMPLE }, &mut out), Some(EnvelopeError::KeyId));
            assert_eq!(
                refused(Metadata { audience: &text, ..SAMPLE }, &mut out),
                Some(EnvelopeError::Audience)
            );
            assert_eq!(
                refused(Metadata { content_type: &text, ..SAMPLE }, &mut out),
                Some(EnvelopeError::ContentType)
            );
            assert!(out.is_empty());
        }
    }

    #[test]
    fn fields_over_their_bound_are_refused() {
        let long = "x".repeat(AUDIENCE_BYTES_MAX + 1);
        let mut out = Vec::new();
        for (metadata, error) in [
            (Metadata { key_id: "", ..SAMPLE }, EnvelopeError::KeyId),
            (Metadata { key_id: &long[..=NAME_BYTES_MAX], ..SAMPLE }, EnvelopeError::KeyId),
            (Metadata { audience: "", ..SAMPLE }, EnvelopeError::Audience),
            (Metadata { audience: &long, ..SAMPLE }, EnvelopeError::Audience),
            (
                Metadata { content_type: &long[..=CONTENT_TYPE_BYTES_MAX], ..SAMPLE },
                EnvelopeError::ContentType,
            ),
        ] {
            assert_eq!(metadata.write_canonical(&mut out), Err(error));
        }
        assert!(
            Metadata { audience: &long[1..], content_type: "", ..SAMPLE }.write_canonical(&mut out).is_ok()
        );
    }

    #[test]
    fn the_window_includes_its_bounds() {
        let now = 1_700_000_000_000;
        assert!(is_fresh(now - 300_000, now) && is_fresh(now + 300_000, now));
        assert!(!is_fresh(now - 300_001, now) && !is_fresh(now + 300_001, now));
        assert!(!is_fresh(0, u64::MAX) && !is_fresh(u64::MAX, 0));
    }
}
