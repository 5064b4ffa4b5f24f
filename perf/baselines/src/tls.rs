//! The server's side of TLS 1.3, with the settings of the node's public listener: one ticket for each handshake.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{KeyExchange, StartError};

/// The configuration for all threads, which share its ticket keys.
pub(crate) fn server_config(
    certificate: &Path,
    key: &Path,
    exchange: KeyExchange,
) -> Result<Arc<ServerConfig>, StartError> {
    let mut provider = default_provider();
    if exchange == KeyExchange::X25519 {
        provider.kx_groups = vec![kx_group::X25519];
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|source| unusable(certificate, source))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|source| unusable(key, source))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites and key exchange groups")
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|source| unusable(certificate, source))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new().expect("aws-lc-rs aborts by itself when it has no randomness");
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

fn unusable(path: &Path, reason: impl std::fmt::Display) -> StartError {
    StartError::Tls { path: path.to_owned(), reason: reason.to_string() }
}
