//! Enrollment: a nonce, then one request that proves who holds the bundle and the new key, on this very connection.
//!
//! The connection is mutual TLS 1.3 already: the agent shows a self-signed certificate of the bundle's key. The
//! proof is bound to it by an exporter (RFC 9266), so that nobody in the middle can use it elsewhere.

use serde::{Deserialize, Serialize};

use crate::{Base64, Hex16, PublicKey, SIGNATURE_BYTES, SignatureError, SigningKey};

/// Where a nonce comes from: `GET`, with the query `bundle_id`.
pub const NONCE: &str = "/v1/agents/bootstrap/nonce";
/// Where an agent enrolls: `POST`.
pub const ENROLL: &str = "/v1/agents/bootstrap";
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
/// What both ends export from the connection (RFC 8446 section 7.5), without a context.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// Bytes of it.
pub const EXPORTER_BYTES: usize = 32;
/// Longest certificate request, PEM, bytes.
pub const CSR_BYTES_MAX: usize = 8 * 1024;

const PURPOSE: &str = "zen-enroll-v1";

/// Good for one attempt within a minute.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonceAnswer {
    /// To be signed.
    pub nonce: Base64<NONCE_BYTES>,
    /// The control plane's clock, Unix ms: an agent whose own is far off says so, and does not enroll.
    pub server_time_ms: u64,
}

/// What an agent sends, once its key is on its disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollmentRequest {
    /// Which bundle.
    pub bundle_id: Hex16,
    /// Of the answer before.
    pub nonce: Base64<NONCE_BYTES>,
    /// PKCS #10, PEM (RFC 2986): its public key alone counts.
    pub csr: String,
    /// Long-lived; by it an agent whose certificate has ended may be known again.
    pub binding_key: PublicKey,
    /// By the bundle's key, over the [`EnrollmentProof`].
    pub signature: Base64<SIGNATURE_BYTES>,
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct EnrollmentProof<'a> {
    /// Which bundle.
    pub bundle_id: Hex16,
    /// The control plane's.
    pub nonce: &'a Base64<NONCE_BYTES>,
    /// The request, as it is sent.
    pub csr: &'a str,
    /// As it is sent.
    pub binding_key: &'a PublicKey,
    /// Of this connection.
    pub exporter: &'a [u8; EXPORTER_BYTES],
}

/// An identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollmentAnswer {
    /// X.509-SVID and its issuers, PEM, leaf first.
    pub certificate_chain: String,
    /// Roots of the trust domain, PEM.
    pub trust_bundle: String,
    /// Counts certificates of this identity, from 1.
    pub generation: u64,
    /// The control plane's clock, Unix ms.
    pub server_time_ms: u64,
}

impl EnrollmentProof<'_> {
    /// Signs with the bundle's key.
    pub fn sign(&self, key: &SigningKey) -> Base64<SIGNATURE_BYTES> {
        key.sign(PURPOSE, &self.parts())
    }

    /// Whether the bundle's key signed this.
    pub fn verify(&self, key: &PublicKey, signature: &Base64<SIGNATURE_BYTES>) -> Result<(), SignatureError> {
        key.verify(PURPOSE, &self.parts(), signature)
    }

    fn parts(&self) -> [&[u8]; 5] {
        [&self.bundle_id.0, &self.nonce.0, self.csr.as_bytes(), &self.binding_key.0.0, self.exporter]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_for_one_bundle_nonce_key_and_connection() {
        let (key, binding) = (SigningKey::generate(), SigningKey::generate().public());
        let other = SigningKey::generate().public();
        let (nonce, another) = (Base64([1; NONCE_BYTES]), Base64([2; NONCE_BYTES]));
        let proof = EnrollmentProof {
            bundle_id: Hex16([3; 16]),
            nonce: &nonce,
            csr: "csr",
            binding_key: &binding,
            exporter: &[4; EXPORTER_BYTES],
        };
        let signature = proof.sign(&key);
        assert_eq!(proof.verify(&key.public(), &signature), Ok(()));
        for changed in [
            EnrollmentProof { bundle_id: Hex16([4; 16]), ..proof },
            EnrollmentProof { nonce: &another, ..proof },
            EnrollmentProof { csr: "other", ..proof },
            EnrollmentProof { binding_key: &other, ..proof },
            EnrollmentProof { exporter: &[5; EXPORTER_BYTES], ..proof },
        ] {
            assert_eq!(changed.verify(&key.public(), &signature), Err(SignatureError), "{changed:?}");
        }
    }
}
