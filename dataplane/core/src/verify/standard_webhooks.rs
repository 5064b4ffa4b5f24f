//! Standard Webhooks 1.0.0: `webhook-id`, `webhook-timestamp` and `webhook-signature`, which is a list of
//! `v1,<base64 HMAC-SHA256>` and `v1a,<base64 Ed25519>` over `id.timestamp.body`, with one space between.
//!
//! Unknown versions are passed over; a malformed `v1` or `v1a` refuses the whole header. Where `v1a`
//! is shown and the endpoint has a public key, `v1` is not looked at. An id with a full stop is refused:
//! bytes could move between id, timestamp and body.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use zeroize::Zeroizing;

use super::claim::{
    Claim, Encoding, Proof, SIGNATURE_BYTES_MAX, Signatures, check_fresh, check_source_id, required,
    tag_bytes,
};
use super::secret::{PublicKey, Secret, check_count};
use super::{
    PUBLIC_KEY_CHECKS_MAX, Refusal, RequestView, SECRET_BYTES_MAX, SIGNATURES_MAX, STANDARD_WINDOW_MS,
    SchemeError,
};
use crate::crypto::HashAlgorithm;

pub(super) const SOURCE_ID_HEADER: &str = "webhook-id";
const TIMESTAMP_HEADER: &str = "webhook-timestamp";
const SIGNATURE_HEADER: &str = "webhook-signature";

/// Standard Webhooks, with an endpoint's secrets and public keys.
#[derive(Debug)]
pub struct StandardWebhooks {
    secrets: Vec<Secret>,
    keys: Vec<PublicKey>,
}

impl StandardWebhooks {
    pub(super) fn new(texts: &[String]) -> Result<Self, SchemeError> {
        check_count(texts.len())?;
        let mut scheme = Self { secrets: Vec::new(), keys: Vec::new() };
        for (index, text) in texts.iter().enumerate() {
            if text.starts_with("whsk_") {
                return Err(SchemeError::SigningKey { index });
            }
            if let Some(text) = text.strip_prefix("whpk_") {
                let key = decode_secret(index, text)?;
                let bytes = key.as_slice().try_into().map_err(|_| SchemeError::PublicKeyLength { index })?;
                scheme.keys.push(PublicKey { index, bytes });
                continue;
            }
            let text = text.strip_prefix("whsec_").unwrap_or(text);
            scheme.secrets.push(Secret::new(index, decode_secret(index, text)?)?);
        }
        Ok(scheme)
    }

    /// For HMAC, in the configured order.
    pub(super) fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    pub(super) fn claim<'a>(
        &'a self,
        request: &'a impl RequestView,
        now_ms: u64,
    ) -> Result<Claim<'a>, Refusal> {
        let signatures = required(request, SIGNATURE_HEADER, Refusal::MissingSignature)?;
        let timestamp = required(request, TIMESTAMP_HEADER, Refusal::MissingTimestamp)?;
        let id = required(request, SOURCE_ID_HEADER, Refusal::MissingSourceId)?;
        check_source_id(id)?;
        if id.contains('.') {
            return Err(Refusal::MalformedSourceId);
        }
        check_fresh(timestamp, 1000, now_ms, STANDARD_WINDOW_MS)?;
        let proof = self.strongest(Presented::parse(signatures)?)?;
        Ok(Claim { preamble: [id, ".", timestamp, "."], proof })
    }

    /// The strongest version that is both shown and configured; no other is tried.
    fn strongest(&self, presented: Presented) -> Result<Proof<'_>, Refusal> {
        let Presented { v1, v1a } = presented;
        if !v1a.is_empty() && !self.keys.is_empty() {
            if v1a.len() * self.keys.len() > PUBLIC_KEY_CHECKS_MAX {
                return Err(Refusal::TooManySignatures);
            }
            return Ok(Proof::Ed25519 { keys: &self.keys, signatures: v1a });
        }
        if v1.is_empty() || self.secrets.is_empty() {
            return Err(Refusal::UnsupportedSignature);
        }
        Ok(Proof::Mac { algorithm: HashAlgorithm::Sha256, secrets: &self.secrets, tags: v1 })
    }
}

/// The signatures of one header, by version.
struct Presented {
    v1: Signatures,
    v1a: Signatures,
}

impl Presented {
    fn parse(header: &str) -> Result<Self, Refusal> {
        let mut presented = Self { v1: Signatures::new(), v1a: Signatures::new() };
        for (count, signature) in header.split(' ').enumerate() {
            if count == SIGNATURES_MAX {
                return Err(Refusal::TooManySignatures);
            }
            let (version, text) = signature.split_once(',').ok_or(Refusal::MalformedSignature)?;
            match version {
                "v1" => {
                    presented.v1.push(Encoding::Base64.decode(text, tag_bytes(HashAlgorithm::Sha256))?);
                }
                "v1a" => presented.v1a.push(Encoding::Base64.decode(text, SIGNATURE_BYTES_MAX)?),
                _ => {}
            }
        }
        Ok(presented)
    }
}

/// Decodes, with or without padding, into memory that is wiped even when this fails.
fn decode_secret(index: usize, text: &str) -> Result<Zeroizing<Vec<u8>>, SchemeError> {
    if text.len() > SECRET_BYTES_MAX.div_ceil(3) * 4 {
        return Err(SchemeError::LongSecret { index });
    }
    let mut secret = Zeroizing::new(vec![0; text.len().div_ceil(4) * 3]);
    let decoded = STANDARD_PAD_INDIFFERENT.decode_slice(text, &mut secret);
    let length = decoded.map_err(|_| SchemeError::NotBase64 { index })?;
    secret.truncate(length);
    Ok(secret)
}
