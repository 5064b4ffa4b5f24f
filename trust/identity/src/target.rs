//! The hop from egress to target: roots and our identity in, a client configuration out (RFC 8446).
//!
//! A target is known by its name under the system's or a private CA (RFC 9525, checked by webpki),
//! or by its SPIFFE id. We present our SVID by default. Resumption is off, so that a rotated
//! certificate on either side takes effect with the next connection.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::tls::provider;
use crate::verifier::{DenyingVerifier, SpiffeVerifier};
use crate::{IdentityError, SharedPolicy, SvidStore};

/// How a target proves who it is.
#[derive(Clone, Debug)]
pub enum TargetRoots {
    /// By its name, under the operating system's CAs.
    System,
    /// By its name, under the CAs of this PEM text.
    Pem(Vec<u8>),
    /// By its SPIFFE id; its name is not compared.
    Spiffe {
        /// Whose bundles count.
        store: Arc<SvidStore>,
        /// Which ids are the target.
        policy: Arc<SharedPolicy>,
    },
    /// As `roots` say, and not on the deny list of `store`, which the other ways by name do not look at.
    NotDenied {
        /// How it proves who it is.
        roots: Box<TargetRoots>,
        /// Whose deny list counts.
        store: Arc<SvidStore>,
    },
}

/// The configuration for one target; `client` is what we present, if anything.
pub fn target_client_config(
    roots: TargetRoots,
    client: Option<Arc<SvidStore>>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier(roots)?);
    let mut config = match client {
        Some(store) => builder.with_client_cert_resolver(store),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn verifier(roots: TargetRoots) -> Result<Arc<dyn ServerCertVerifier>, IdentityError> {
    let roots = match roots {
        TargetRoots::Spiffe { store, policy } => return Ok(SpiffeVerifier::new(store, policy)),
        TargetRoots::System => system_roots()?,
        TargetRoots::Pem(pem) => private_roots(&pem)?,
        TargetRoots::NotDenied { roots, store } => return Ok(DenyingVerifier::new(verifier(*roots)?, store)),
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    Ok(verifier.expect("roots that are not empty, and no revocation lists"))
}

/// Unreadable entries of a system store are skipped, as every system does.
fn system_roots() -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(IdentityError::NoSystemRoots);
    }
    Ok(roots)
}

pub(crate) fn private_roots(pem: &[u8]) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|_| IdentityError::NoRoots)?).map_err(|_| IdentityError::NoRoots)?;
    }
    if roots.is_empty() {
        return Err(IdentityError::NoRoots);
    }
    Ok(roots)
}
