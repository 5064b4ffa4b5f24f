//! TLS 1.3 for the lab's client and sink: rustls with aws-lc-rs, keys and roots from PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::LabError;

/// A source's side: trusts the CAs in `authorities`, presents no certificate.
pub(crate) fn source_config(authorities: &Path) -> Result<Arc<ClientConfig>, LabError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable(authorities))?
        .with_root_certificates(roots(authorities)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A target's side: requires a client certificate that the CAs in `authorities` issued.
pub(crate) fn target_config(
    certificate: &Path,
    key: &Path,
    authorities: &Path,
) -> Result<Arc<ServerConfig>, LabError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), provider())
        .build()
        .map_err(|source| LabError::Tls(format!("{}: {source}", authorities.display())))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(unusable(key))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable(certificate))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(certificate)?, private)
        .map_err(unusable(certificate))?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(file: &Path) -> Result<RootCertStore, LabError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(unusable(file))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, LabError> {
    CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(unusable(file))
}

fn unusable<E: std::fmt::Display>(file: &Path) -> impl FnOnce(E) -> LabError {
    let file = file.to_owned();
    move |source| LabError::Tls(format!("{}: {source}", file.display()))
}
