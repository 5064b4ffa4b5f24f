//! Certificates that sources may show at the public listener: private roots in, a verifier out (RFC 5280).
//!
//! A source without a certificate is let through here; whether it needs one is its endpoint's to say. One
//! that is shown must be valid. Chains over [`SOURCE_CHAIN_BYTES_MAX`] are refused, since each connection keeps its own.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::IdentityError;
use crate::certificate::Certificate;
use crate::target::private_roots;
use crate::tls::provider;

/// Longest chain of a source, all certificates together, bytes.
pub const SOURCE_CHAIN_BYTES_MAX: usize = 8 * 1024;

/// The DNS names of a peer's leaf in lower case, wildcards as they are; after a handshake that checked it.
pub fn peer_dns_names(certificates: Option<&[CertificateDer<'_>]>) -> Vec<String> {
    let leaf = certificates.and_then(<[_]>::first).and_then(|leaf| Certificate::parse(leaf).ok());
    leaf.map(|leaf| leaf.dns_names()).unwrap_or_default()
}

/// A verifier under the CAs of a PEM text.
pub(crate) fn source_verifier(roots: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, IdentityError> {
    let roots = Arc::new(private_roots(roots)?);
    let webpki =
        WebPkiClientVerifier::builder_with_provider(roots, provider()).allow_unauthenticated().build();
    Ok(Arc::new(SourceVerifier(webpki.expect("roots that are not empty, and no revocation lists"))))
}

#[derive(Debug)]
struct SourceVerifier(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for SourceVerifier {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bytes: usize = intermediates.iter().map(|certificate| certificate.len()).sum();
        if leaf.len() + bytes > SOURCE_CHAIN_BYTES_MAX {
            return Err(CertificateError::BadEncoding.into());
        }
        self.0.verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
