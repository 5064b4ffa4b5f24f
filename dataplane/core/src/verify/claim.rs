//! What a request claims, read from its headers: time, and the signatures it shows; its event id is checked.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use smallvec::SmallVec;

use super::secret::{PublicKey, Secret};
use super::{Refusal, RequestView, SOURCE_ID_BYTES_MAX};
use crate::crypto::HashAlgorithm;
use crate::id::decode_hex;

/// Room for the longest tag or signature: SHA-512 and Ed25519 have 64 bytes.
pub(super) const SIGNATURE_BYTES_MAX: usize = 64;

/// Longest timestamp, digits; a larger one would be beyond the year 300,000,000 in ms.
const TIMESTAMP_DIGITS_MAX: usize = 19;

/// A decoded signature at the start of the array; the scheme knows its length.
pub(super) type Signature = [u8; SIGNATURE_BYTES_MAX];

/// Those of a request: nearly always one, which takes no memory of its own.
pub(super) type Signatures = SmallVec<[Signature; 1]>;

/// What the headers say, before any body byte.
pub(super) struct Claim<'a> {
    /// Text signed before the body; an unused part is empty.
    pub(super) preamble: [&'a str; 4],
    pub(super) proof: Proof<'a>,
}

/// What would prove the claim.
pub(super) enum Proof<'a> {
    /// One of `tags` is the HMAC under one of `secrets`.
    Mac { algorithm: HashAlgorithm, secrets: &'a [Secret], tags: Signatures },
    /// One of `signatures` is by one of `keys`.
    Ed25519 { keys: &'a [PublicKey], signatures: Signatures },
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Base 16 (RFC 4648 section 8), all lower or all upper case.
    Hex,
    /// Base 64 (RFC 4648 section 4), padded and canonical.
    Base64,
}

impl Encoding {
    /// Reads a signature of exactly `bytes` bytes.
    pub(super) fn decode(self, text: &str, bytes: usize) -> Result<Signature, Refusal> {
        assert!(bytes <= SIGNATURE_BYTES_MAX);
        let mut signature = [0; SIGNATURE_BYTES_MAX];
        match self {
            Self::Hex => decode_either_case(text, &mut signature[..bytes])?,
            Self::Base64 => decode_base64(text, &mut signature[..bytes])?,
        }
        Ok(signature)
    }
}

/// Bytes of a tag.
pub(super) fn tag_bytes(algorithm: HashAlgorithm) -> usize {
    match algorithm {
        HashAlgorithm::Sha1 => 20,
        HashAlgorithm::Sha256 => 32,
        HashAlgorithm::Sha512 => 64,
    }
}

/// The value of a header that may come once. A value that is not text is empty, which no parser accepts.
pub(super) fn optional<'r>(request: &'r impl RequestView, name: &str) -> Result<Option<&'r str>, Refusal> {
    match request.header_count(name) {
        0 => Ok(None),
        1 => Ok(Some(request.header(name).unwrap_or(""))),
        _ => Err(Refusal::DoubledHeader),
    }
}

/// The value of a header that must come once, or `missing`.
pub(super) fn required<'r>(
    request: &'r impl RequestView,
    name: &str,
    missing: Refusal,
) -> Result<&'r str, Refusal> {
    optional(request, name)?.ok_or(missing)
}

/// Refuses what is not a provider's event id: 1 to [`SOURCE_ID_BYTES_MAX`] bytes of printable ASCII.
pub(super) fn check_source_id(text: &str) -> Result<(), Refusal> {
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if text.is_empty() || text.len() > SOURCE_ID_BYTES_MAX || !printable {
        return Err(Refusal::MalformedSourceId);
    }
    Ok(())
}

/// Reads decimal digits, in units of `unit_ms`, and refuses a time outside `now_ms` ± `window_ms`.
pub(super) fn check_fresh(text: &str, unit_ms: u64, now_ms: u64, window_ms: u64) -> Result<(), Refusal> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() || text.len() > TIMESTAMP_DIGITS_MAX || !digits {
        return Err(Refusal::MalformedTimestamp);
    }
    let units: u64 = text.parse().map_err(|_| Refusal::MalformedTimestamp)?;
    let sent_ms = units.checked_mul(unit_ms).ok_or(Refusal::FutureTimestamp)?;
    if now_ms.saturating_sub(sent_ms) > window_ms {
        return Err(Refusal::StaleTimestamp);
    }
    if sent_ms.saturating_sub(now_ms) > window_ms {
        return Err(Refusal::FutureTimestamp);
    }
    Ok(())
}

fn decode_either_case(text: &str, bytes: &mut [u8]) -> Result<(), Refusal> {
    let upper = text.bytes().any(|byte| byte.is_ascii_uppercase());
    let lower = text.bytes().any(|byte| byte.is_ascii_lowercase());
    if text.len() != bytes.len() * 2 || (upper && lower) {
        return Err(Refusal::MalformedSignature);
    }
    let mut digits = [0; SIGNATURE_BYTES_MAX * 2];
    let digits = &mut digits[..text.len()];
    digits.copy_from_slice(text.as_bytes());
    digits.make_ascii_lowercase();
    decode_hex(digits, bytes).map_err(|_| Refusal::MalformedSignature)
}

fn decode_base64(text: &str, bytes: &mut [u8]) -> Result<(), Refusal> {
    if text.len() != bytes.len().div_ceil(3) * 4 {
        return Err(Refusal::MalformedSignature);
    }
    // The decoder wants room for whole groups of three.
    let mut groups = [0; SIGNATURE_BYTES_MAX.div_ceil(3) * 3];
    let length = STANDARD.decode_slice(text, &mut groups).map_err(|_| Refusal::MalformedSignature)?;
    if length != bytes.len() {
        return Err(Refusal::MalformedSignature);
    }
    bytes.copy_from_slice(&groups[..length]);
    Ok(())
}
