//! Certificates after enrollment: the agent's own renewal, and those of the nodes that it looks after.

use serde::{Deserialize, Serialize};

use crate::encoding::is_name;

/// Where certificates come from: `POST`, by the agent over mutual TLS.
pub const CERTIFICATES: &str = "/agent/v1/certificates";
/// Longest name of a member, bytes.
pub const MEMBER_BYTES_MAX: usize = 64;

/// Asks for a certificate for a new key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// The member it is for; none for the agent itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// PKCS #10, PEM: its public key alone counts.
    pub csr: String,
    /// Of the certificate that this identity has now, 0 if it has none: an identity that was cloned shows itself here.
    pub generation: u64,
}

/// A certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateAnswer {
    /// X.509-SVID and its issuers, PEM, leaf first.
    pub certificate_chain: String,
    /// Roots of the trust domain, PEM.
    pub trust_bundle: String,
    /// Of this certificate.
    pub generation: u64,
    /// The control plane's clock, Unix ms.
    pub server_time_ms: u64,
}

impl CertificateRequest {
    /// Whether it names a member as members are named.
    pub fn names_well(&self) -> bool {
        self.member.as_deref().is_none_or(is_name)
    }
}
