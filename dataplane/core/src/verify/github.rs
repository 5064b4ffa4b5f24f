//! GitHub: `X-Hub-Signature-256: sha256=<64 hex>`, HMAC-SHA256 over the body. The SHA-1 header
//! `X-Hub-Signature` is never read. `X-GitHub-Delivery` is the event id; GitHub does not sign it.

use alloc::vec;
use alloc::vec::Vec;

use super::claim::{Claim, Encoding, Proof, optional, required, source_id, tag_bytes};
use super::secret::Secret;
use super::{Refusal, RequestView, SchemeError};
use crate::crypto::HashAlgorithm;

const SIGNATURE_HEADER: &str = "x-hub-signature-256";
const SOURCE_ID_HEADER: &str = "x-github-delivery";
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

    pub(super) fn claim<'a>(&'a self, request: &'a impl RequestView) -> Result<Claim<'a>, Refusal> {
        let algorithm = HashAlgorithm::Sha256;
        let signature = required(request, SIGNATURE_HEADER, Refusal::MissingSignature)?;
        let text = signature.strip_prefix(PREFIX).ok_or(Refusal::MalformedSignature)?;
        let tag = Encoding::Hex.decode(text, tag_bytes(algorithm))?;
        let source_id = optional(request, SOURCE_ID_HEADER)?.map(source_id).transpose()?;
        let proof = Proof::Mac { algorithm, secrets: &self.secrets, tags: vec![tag] };
        Ok(Claim { source_id, preamble: [""; 4], proof })
    }
}
