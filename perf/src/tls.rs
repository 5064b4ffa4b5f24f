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

/// Which key exchanges a side offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyExchange {
    /// Post-quantum first.
    All,
    /// X25519 alone, which every peer of a comparison has.
    X25519,
}

/// A source's side: trusts the CAs in `authorities`, presents no certificate.
pub(crate) fn source_config(authorities: &Path) -> Result<Arc<ClientConfig>, LabError> {
    client_config(authorities, None, KeyExchange::All)
}

/// A client that trusts the CAs in `authorities` and presents `identity`, a certificate and its key.
pub(crate) fn client_config(
    authorities: &Path,
    identity: Option<(&Path, &Path)>,
    exchange: KeyExchange,
) -> Result<Arc<ClientConfig>, LabError> {
    let builder = ClientConfig::builder_with_provider(provider(exchange))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable(authorities))?
        .with_root_certificates(roots(authorities)?);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(unusable(key))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, private)
                .map_err(unusable(certificate))?
        }
    };
    Ok(Arc::new(config))
}

/// A target's side: requires a client certificate that the CAs in `authorities` issued.
pub(crate) fn target_config(
    certificate: &Path,
    key: &Path,
    authorities: &Path,
) -> Result<Arc<ServerConfig>, LabError> {
    server_config(certificate, key, authorities, KeyExchange::All)
}

/// The same, with a choice of key exchanges.
pub(crate) fn server_config(
    certificate: &Path,
    key: &Path,
    authorities: &Path,
    exchange: KeyExchange,
) -> Result<Arc<ServerConfig>, LabError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), provider(exchange))
            .build()
            .map_err(|source| LabError::Tls(format!("{}: {source}", authorities.display())))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(unusable(key))?;
    let mut config = ServerConfig::builder_with_provider(provider(exchange))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable(certificate))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(certificate)?, private)
        .map_err(unusable(certificate))?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn provider(exchange: KeyExchange) -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if exchange == KeyExchange::X25519 {
        provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    }
    Arc::new(provider)
}

fn roots(file: &Path) -> Result<RootCertStore, LabError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(unusable(file))?;
    }
    if roots.is_empty() {
        return Err(LabError::Tls(format!("{}: has no certificate; name a PEM file of CAs", file.display())));
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
