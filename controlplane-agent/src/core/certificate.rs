//! What the control plane issued, looked at as a peer would before anything is installed.

use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use zen_identity::{
    BundleError, PeerUsage, SpiffeIdError, SvidError, TrustBundle, TrustBundles, TrustDomain, check_svid,
};

use super::Validity;

/// How far ahead a certificate may begin to be waited for, ms: the control plane's own begins that long before it is made.
pub const CERTIFICATE_WAIT_MAX_MS: u64 = 3_600_000;

/// A certificate that stood every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, PEM, leaf first.
    pub chain: String,
    /// Whose it is.
    pub spiffe_id: String,
    /// The leaf's.
    pub validity: Validity,
    /// The leaf's `SubjectPublicKeyInfo`, DER.
    pub public_key: Vec<u8>,
}

/// Why a certificate is not installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Not PEM, or no certificate.
    #[error("the chain cannot be read")]
    Malformed,
    /// The trust domain has no such name.
    #[error("the trust domain is none: {0}")]
    TrustDomain(SpiffeIdError),
    /// The roots are no roots.
    #[error("the trust bundle is refused: {0}")]
    Bundle(String),
    /// A peer with these roots would refuse it.
    #[error("every peer would refuse the certificate: {0}")]
    Svid(#[from] SvidError),
    /// Somebody else's.
    #[error("the certificate is for {found}, not for {expected}")]
    Id {
        /// Whose it should be.
        expected: String,
        /// Whose it is.
        found: String,
    },
    /// For a key that we did not send.
    #[error("the certificate is for another key")]
    Key,
}

impl From<BundleError> for CertificateFault {
    fn from(error: BundleError) -> Self {
        Self::Bundle(error.to_string())
    }
}

/// Checks a chain, PEM, against roots, PEM, as both ends of a handshake would.
pub fn check_certificate(
    chain: &str,
    trust_bundle: &str,
    trust_domain: &str,
    wall_ms: u64,
) -> Result<Certificate, CertificateFault> {
    let domain = TrustDomain::parse(trust_domain).map_err(CertificateFault::TrustDomain)?;
    let bundles = TrustBundles::new([TrustBundle::from_pem(domain, trust_bundle.as_bytes())?]);
    let certificates: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| CertificateFault::Malformed)?;
    let now = UnixTime::since_unix_epoch(Duration::from_millis(wall_ms));
    let id = check_svid(&certificates, &bundles, now, PeerUsage::Client)?;
    check_svid(&certificates, &bundles, now, PeerUsage::Server)?;
    let leaf = certificates.first().ok_or(CertificateFault::Malformed)?;
    let (validity, public_key) = leaf_of(leaf).ok_or(CertificateFault::Malformed)?;
    Ok(Certificate { chain: chain.to_owned(), spiffe_id: id.as_str().to_owned(), validity, public_key })
}

/// When a certificate that was refused because it has not begun yet can be put in force, Unix ms.
pub fn begins_later(chain: &str, fault: &CertificateFault, wall_ms: u64) -> Option<u64> {
    let is_early = *fault == CertificateFault::Svid(SvidError::NotYetValid);
    let begins_ms = Certificate::installed(chain).filter(|_| is_early)?.validity.not_before_ms;
    (begins_ms > wall_ms && begins_ms - wall_ms <= CERTIFICATE_WAIT_MAX_MS).then_some(begins_ms)
}

impl Certificate {
    /// A chain that is installed already: only its leaf is read, whatever the time is.
    pub fn installed(chain: &str) -> Option<Self> {
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).ok()?;
        let spiffe_id = zen_identity::peer_id(Some(std::slice::from_ref(&leaf)))?.as_str().to_owned();
        let (validity, public_key) = leaf_of(&leaf)?;
        Some(Self { chain: chain.to_owned(), spiffe_id, validity, public_key })
    }

    /// Refuses one that is for somebody else, or for a key that we did not send.
    pub fn for_us(self, spiffe_id: &str, public_key: &[u8]) -> Result<Self, CertificateFault> {
        if self.spiffe_id != spiffe_id {
            return Err(CertificateFault::Id { expected: spiffe_id.to_owned(), found: self.spiffe_id });
        }
        if self.public_key != public_key {
            return Err(CertificateFault::Key);
        }
        Ok(self)
    }
}

fn leaf_of(leaf: &CertificateDer<'_>) -> Option<(Validity, Vec<u8>)> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    let validity = Validity {
        not_before_ms: ms(leaf.validity().not_before.timestamp()),
        not_after_ms: ms(leaf.validity().not_after.timestamp()),
    };
    Some((validity, leaf.public_key().raw.to_vec()))
}
