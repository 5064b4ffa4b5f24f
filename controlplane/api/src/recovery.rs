//! Recovery of an agent whose certificate has ended: a nonce, then one request that its binding key signs on this connection.
//!
//! The connection is mutual TLS 1.3 with a self-signed certificate of the binding key, which came with the enrollment. The
//! proof is bound to it by an exporter (RFC 9266). The certificate that ended proves nothing, and is not shown.

use serde::{Deserialize, Serialize};

use crate::encoding::is_name;
use crate::{Base64, EXPORTER_BYTES, NONCE_BYTES, PublicKey, SIGNATURE_BYTES, SignatureError, SigningKey};

/// Where a nonce comes from: `GET`, with the query `cluster`; the answer is [`crate::NonceAnswer`].
pub const RECOVERY_NONCE: &str = "/v1/agents/recover/nonce";
/// Where an agent recovers: `POST`; the answer is [`crate::CertificateAnswer`].
pub const RECOVER: &str = "/v1/agents/recover";

const PURPOSE: &str = "zen-recover-v1";

/// What an agent sends, once its new key is on its disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryRequest {
    /// Whose agent it is.
    pub cluster: String,
    /// Of the answer before.
    pub nonce: Base64<NONCE_BYTES>,
    /// PKCS #10, PEM (RFC 2986): its public key alone counts.
    pub csr: String,
    /// By the binding key, over the [`RecoveryProof`].
    pub signature: Base64<SIGNATURE_BYTES>,
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct RecoveryProof<'a> {
    /// Whose agent it is.
    pub cluster: &'a str,
    /// The control plane's.
    pub nonce: &'a Base64<NONCE_BYTES>,
    /// The request, as it is sent.
    pub csr: &'a str,
    /// Of this connection.
    pub exporter: &'a [u8; EXPORTER_BYTES],
}

impl RecoveryRequest {
    /// Whether it names a cluster as clusters are named.
    pub fn names_well(&self) -> bool {
        is_name(&self.cluster)
    }
}

impl RecoveryProof<'_> {
    /// Signs with the binding key.
    pub fn sign(&self, key: &SigningKey) -> Base64<SIGNATURE_BYTES> {
        key.sign(PURPOSE, &self.parts())
    }

    /// Whether the binding key signed this.
    pub fn verify(&self, key: &PublicKey, signature: &Base64<SIGNATURE_BYTES>) -> Result<(), SignatureError> {
        key.verify(PURPOSE, &self.parts(), signature)
    }

    fn parts(&self) -> [&[u8]; 4] {
        [self.cluster.as_bytes(), &self.nonce.0, self.csr.as_bytes(), self.exporter]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_for_one_cluster_nonce_key_and_connection() {
        let key = SigningKey::generate();
        let (nonce, another) = (Base64([1; NONCE_BYTES]), Base64([2; NONCE_BYTES]));
        let proof =
            RecoveryProof { cluster: "edge", nonce: &nonce, csr: "csr", exporter: &[4; EXPORTER_BYTES] };
        let signature = proof.sign(&key);
        assert_eq!(proof.verify(&key.public(), &signature), Ok(()));
        for changed in [
            RecoveryProof { cluster: "core", ..proof },
            RecoveryProof { nonce: &another, ..proof },
            RecoveryProof { csr: "other", ..proof },
            RecoveryProof { exporter: &[5; EXPORTER_BYTES], ..proof },
        ] {
            assert_eq!(changed.verify(&key.public(), &signature), Err(SignatureError), "{changed:?}");
        }
        assert!(proof.verify(&SigningKey::generate().public(), &signature).is_err());
    }
}
