//! Path validation to one bundle (RFC 5280 section 6.1), and what it leaves out about issuers.

use std::cell::Cell;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::TrustBundle;
use crate::bundle::signing_id_is_allowed;
use crate::certificate::{Certificate, Window};
use crate::svid::{PeerUsage, SvidError};
use crate::tls::signature_algorithms;

/// A path from the leaf over `issuers` to a root of `bundle` that is valid itself.
pub(crate) fn check_path(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: UnixTime,
    usage: PeerUsage,
) -> Result<(), SvidError> {
    let root_window = Cell::new(Window::Within);
    let check_root = |path: &VerifiedPath<'_>| {
        let validity = bundle.validity_of(path.anchor()).expect("webpki returns an anchor it was given");
        match validity.at(now) {
            Window::Within => Ok(()),
            outside => {
                root_window.set(outside);
                Err(webpki::Error::UnknownIssuer)
            }
        }
    };
    let purpose = match usage {
        PeerUsage::Client => KeyUsage::client_auth(),
        PeerUsage::Server => KeyUsage::server_auth(),
    };
    let end_entity = EndEntityCert::try_from(leaf).map_err(sort)?;
    let verified = end_entity.verify_for_usage(
        signature_algorithms().all,
        bundle.anchors(),
        issuers,
        now,
        purpose,
        None,
        Some(&check_root),
    );
    match (verified, root_window.get()) {
        (Ok(_), _) => Ok(()),
        (Err(_), Window::After) => Err(SvidError::RootExpired),
        (Err(_), Window::Before) => Err(SvidError::RootNotYetValid),
        (Err(error), Window::Within) => Err(sort(error)),
    }
}

/// What RFC 5280 leaves to the profile: usage and name of a signing certificate.
pub(crate) fn check_issuer(issuer: &Certificate<'_>) -> Result<(), SvidError> {
    if !issuer.key_usage()?.is_some_and(|usage| usage.value.key_cert_sign()) {
        return Err(SvidError::SigningCertificateUsage);
    }
    if !signing_id_is_allowed(issuer)? {
        return Err(SvidError::SigningCertificateId);
    }
    Ok(())
}

fn sort(error: webpki::Error) -> SvidError {
    match error {
        webpki::Error::UnknownIssuer => SvidError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => SvidError::Signature,
        webpki::Error::CertExpired { .. } => SvidError::Expired,
        webpki::Error::CertNotValidYet { .. } => SvidError::NotYetValid,
        webpki::Error::EndEntityUsedAsCa => SvidError::IssuerNotCa,
        webpki::Error::NameConstraintViolation | webpki::Error::MalformedNameConstraint => {
            SvidError::NameConstraints
        }
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            SvidError::Malformed
        }
        other => SvidError::Path(other),
    }
}
