//! The checks on a peer's X.509-SVID: a chain in, its SPIFFE id out.
//!
//! Order: the leaf by itself ([`leaf`]), the bundle of the leaf's own trust domain, RFC 5280 path
//! validation, the signing certificates, the deny list. Every rule has an [`SvidError`] of its own.
//! There is no leeway on time: issuers backdate. Sources: X509-SVID sections 2 to 5, SPIFFE-ID
//! section 2, Federation sections 5 and 7, RFC 5280 sections 4.1 and 4.2.

pub(crate) mod leaf;
mod path;

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::certificate::{Certificate, Unreadable};
use crate::deny::Denial;
use crate::{SpiffeId, SpiffeIdError, TrustBundles};

/// Longest chain a peer may send, leaf included.
pub const CHAIN_CERTIFICATES_MAX: usize = 8;

/// What a peer uses its certificate for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerUsage {
    /// The peer dialled us.
    Client,
    /// We dialled the peer.
    Server,
}

/// Checks a chain, leaf first, against the bundle of the leaf's own trust domain.
pub fn check_svid(
    chain: &[CertificateDer<'_>],
    bundles: &TrustBundles,
    now: UnixTime,
    usage: PeerUsage,
) -> Result<SpiffeId, SvidError> {
    let (leaf, issuers) = chain.split_first().ok_or(SvidError::EmptyChain)?;
    check_chain(leaf, issuers, bundles, now, usage)
}

pub(crate) fn check_chain(
    leaf_der: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    bundles: &TrustBundles,
    now: UnixTime,
    usage: PeerUsage,
) -> Result<SpiffeId, SvidError> {
    if issuers.len() >= CHAIN_CERTIFICATES_MAX {
        return Err(SvidError::ChainTooLong);
    }
    let leaf = Certificate::parse(leaf_der)?;
    let id = leaf::check_leaf(&leaf)?;
    let bundle = bundles.get(id.trust_domain()).ok_or(SvidError::UnknownTrustDomain)?;
    if bundle.is_empty() {
        return Err(SvidError::BundleEmpty);
    }
    path::check_path(leaf_der, issuers, bundle, now, usage)?;
    for issuer in issuers {
        let issuer = Certificate::parse(issuer)?;
        path::check_issuer(&issuer)?;
        if bundles.deny_list().holds_key_of(&issuer, now) {
            return Err(SvidError::Denied(Denial::PublicKey));
        }
    }
    match bundles.deny_list().check_leaf(&leaf, Some(&id), now) {
        Some(denial) => Err(SvidError::Denied(denial)),
        None => Ok(id),
    }
}

/// The id of a peer whose handshake succeeded.
pub fn peer_id(certificates: Option<&[CertificateDer<'_>]>) -> Option<SpiffeId> {
    let leaf = Certificate::parse(certificates?.first()?).ok()?;
    leaf::spiffe_id(&leaf).ok()
}

/// The last second of a peer's leaf; a connection ends there.
pub fn peer_not_after(certificates: Option<&[CertificateDer<'_>]>) -> Option<UnixTime> {
    let leaf = Certificate::parse(certificates?.first()?).ok()?;
    Some(unix_time(leaf.validity().not_after))
}

pub(crate) fn unix_time(seconds: i64) -> UnixTime {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

/// The rule a peer's chain breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// No certificate was sent.
    #[error("no certificate was sent")]
    EmptyChain,
    /// Over [`CHAIN_CERTIFICATES_MAX`].
    #[error("the chain has more than 8 certificates")]
    ChainTooLong,
    /// A certificate or one of its extensions cannot be read, or an extension is doubled (RFC 5280 section 4.2).
    #[error("a certificate of the chain cannot be read")]
    Malformed,
    /// No path to a root of the leaf's own trust domain (X509-SVID section 5.1, Federation section 7).
    #[error("no root of the leaf's trust domain issued this chain")]
    UnknownIssuer,
    /// A signature of the path is wrong (RFC 5280 section 6.1.3 (a)(1)).
    #[error("a signature of the chain is wrong")]
    Signature,
    /// A certificate of the path has expired (RFC 5280 section 6.1.3 (a)(2)).
    #[error("a certificate of the chain has expired")]
    Expired,
    /// A certificate of the path is not valid yet (RFC 5280 section 6.1.3 (a)(2)).
    #[error("a certificate of the chain is not valid yet; compare the clocks")]
    NotYetValid,
    /// An issuer on the path is not a CA (RFC 5280 section 6.1.4 (k)).
    #[error("an issuer of the chain is not a CA")]
    IssuerNotCa,
    /// Any other fault of the path (RFC 5280 section 6.1).
    #[error("path validation failed: {0}")]
    Path(webpki::Error),
    /// The leaf's `cA` is true (X509-SVID section 5.2).
    #[error("the leaf is a CA")]
    LeafIsCa,
    /// The leaf's keyUsage has `keyCertSign` (X509-SVID section 5.2).
    #[error("the leaf may sign certificates")]
    KeyCertSign,
    /// The leaf's keyUsage has `cRLSign` (X509-SVID section 5.2).
    #[error("the leaf may sign revocation lists")]
    CrlSign,
    /// The leaf has no URI name (X509-SVID section 2).
    #[error("the leaf has no URI name")]
    NoUri,
    /// The leaf has a second URI name, of whatever scheme (X509-SVID section 2).
    #[error("the leaf has more than one URI name")]
    SeveralUris,
    /// The URI is not a SPIFFE id in its exact form (SPIFFE-ID section 2).
    #[error("the leaf's URI is not a SPIFFE id: {0}")]
    Id(SpiffeIdError),
    /// The SPIFFE id has no path (X509-SVID section 3.1).
    #[error("the leaf's SPIFFE id has no path")]
    NoPath,
    /// There is no bundle for the leaf's trust domain (Federation section 5).
    #[error("there is no trust bundle for the leaf's trust domain")]
    UnknownTrustDomain,
    /// The bundle of the leaf's trust domain has no roots (Trust Domain and Bundle section 3).
    #[error("the trust bundle of the leaf's trust domain is empty")]
    BundleEmpty,
    /// A signing certificate's SPIFFE id has a path (X509-SVID section 3.2).
    #[error("a signing certificate has a SPIFFE id with a path")]
    SigningCertificateId,
    /// A signing certificate lacks `keyCertSign` (X509-SVID section 4.3).
    #[error("a signing certificate may not sign certificates: keyUsage lacks keyCertSign")]
    SigningCertificateUsage,
    /// The leaf has no keyUsage (X509-SVID section 4.3).
    #[error("the leaf has no keyUsage")]
    KeyUsageMissing,
    /// The leaf's keyUsage is not critical (X509-SVID section 4.3).
    #[error("the leaf's keyUsage is not critical")]
    KeyUsageNotCritical,
    /// The leaf's keyUsage lacks `digitalSignature` (X509-SVID section 4.3).
    #[error("the leaf's keyUsage lacks digitalSignature")]
    DigitalSignatureMissing,
    /// The leaf's keyUsage has more than signature, encipherment and agreement (X509-SVID section 4.3).
    #[error("the leaf's keyUsage has bits that no SVID needs")]
    KeyUsageExcess,
    /// The leaf's extendedKeyUsage lacks server or client authentication (X509-SVID section 4.4).
    #[error("the leaf's extendedKeyUsage does not hold both serverAuth and clientAuth")]
    ExtendedKeyUsage,
    /// The leaf has no basicConstraints (X509-SVID section 4.1).
    #[error("the leaf has no basicConstraints")]
    BasicConstraintsMissing,
    /// The leaf's subject is empty and its names are not critical (X509-SVID section 3.1).
    #[error("the leaf's subject is empty, but its subjectAltName is not critical")]
    NamesNotCritical,
    /// The root that issued the chain has expired.
    #[error("the root of the chain has expired; renew the trust bundle")]
    RootExpired,
    /// The root that issued the chain is not valid yet.
    #[error("the root of the chain is not valid yet; compare the clocks")]
    RootNotYetValid,
    /// A name constraint of the path is broken, or of a type that is not supported (X509-SVID section 4.2).
    #[error("a name constraint of the chain does not hold, or has a type that is not supported")]
    NameConstraints,
    /// Nobody is taken until our deny list is confirmed again (see [`Handshakes`](crate::Handshakes)).
    #[error(
        "our deny list has not been confirmed for too long; see why the agent does not reach the control plane"
    )]
    DenyListStale,
    /// The deny list names the peer.
    #[error("the peer is on the deny list ({0:?})")]
    Denied(Denial),
}

impl SvidError {
    /// A label for counting refusals; one of a fixed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::EmptyChain | Self::ChainTooLong | Self::Malformed => "malformed",
            Self::UnknownIssuer | Self::Signature | Self::IssuerNotCa | Self::Path(_) => "path",
            Self::Expired | Self::RootExpired => "expired",
            Self::NotYetValid | Self::RootNotYetValid => "not_yet_valid",
            Self::LeafIsCa | Self::KeyCertSign | Self::CrlSign => "signing_certificate",
            Self::NoUri | Self::SeveralUris | Self::Id(_) | Self::NoPath => "spiffe_id",
            Self::UnknownTrustDomain | Self::BundleEmpty => "trust_domain",
            Self::SigningCertificateId | Self::SigningCertificateUsage | Self::NameConstraints => "issuer",
            Self::KeyUsageMissing
            | Self::KeyUsageNotCritical
            | Self::DigitalSignatureMissing
            | Self::KeyUsageExcess
            | Self::ExtendedKeyUsage
            | Self::BasicConstraintsMissing
            | Self::NamesNotCritical => "constraints",
            Self::DenyListStale => "deny_list_stale",
            Self::Denied(_) => "denied",
        }
    }
}

impl From<Unreadable> for SvidError {
    fn from(_: Unreadable) -> Self {
        Self::Malformed
    }
}
