//! GitHub: `X-Hub-Signature-256: sha256=<64 hex>`, HMAC-SHA256 over the body. The SHA-1 header
//! `X-Hub-Signature` is never read. `X-GitHub-Delivery` is the event id; GitHub does not sign it.

use alloc::vec::Vec;

use smallvec::smallvec;

use super::claim::{Claim, Encoding, Proof, check_source_id, optional, required, tag_bytes};
use super::secret::Secret;
use super::{Refusal, RequestView, SchemeError};
use crate::crypto::HashAlgorithm;

const SIGNATURE_HEADER: &str = "x-hub-signature-256";
pub(super) const SOURCE_ID_HEADER: &str = "x-github-delivery";
const PREFIX: &str = "sha256=";

/// GitHub's scheme, with an endpoint's secrets.
#[derive(Debug)]
pub struct GitHub {
    secrets: Vec<Secret>,
}

impl GitHub {
    pub(super) fn new(secrets: &[Vec<u8>]) -> Result<Self, SchemeError> {
        Ok(Self { secrets: Secret::list(secrets)? })
    }

    /// For HMAC, in the configured order.
    pub(super) fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    pub(super) fn claim<'a>(&'a self, request: &'a impl RequestView) -> Result<Claim<'a>, Refusal> {
        let algorithm = HashAlgorithm::Sha256;
        let signature = required(request, SIGNATURE_HEADER, Refusal::MissingSignature)?;
        let text = signature.strip_prefix(PREFIX).ok_or(Refusal::MalformedSignature)?;
        let tag = Encoding::Hex.decode(text, tag_bytes(algorithm))?;
        optional(request, SOURCE_ID_HEADER)?.map_or(Ok(()), check_source_id)?;
        let proof = Proof::Mac { algorithm, secrets: &self.secrets, tags: smallvec![tag] };
        Ok(Claim { preamble: [""; 4], proof })
    }
}
