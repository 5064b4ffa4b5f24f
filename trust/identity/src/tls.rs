//! The crypto provider, and the configurations of a mutual TLS hop (RFC 8446).
//!
//! Resumption is off on every mutual TLS hop: a resumed session shows no certificate, so neither the
//! SVID nor the policy would be checked again. Early data is off for the same reason and for replay.

use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use crate::verifier::SpiffeVerifier;
use crate::{IdentityError, SharedPolicy, SvidStore};

/// The one crypto provider: aws-lc-rs, post-quantum hybrid key exchange first.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        Arc::new(CryptoProvider {
            kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
            ..default_provider()
        })
    };
    PROVIDER.get_or_init(make).clone()
}

/// A name for rustls where SPIFFE ids name the peers; it is neither sent nor compared.
pub fn spiffe_server_name() -> ServerName<'static> {
    ServerName::try_from("spiffe.invalid").expect("a valid DNS name")
}

impl SvidStore {
    /// The listening end of a hop: our SVID, a mandatory client SVID that `policy` allows.
    pub fn server_config(
        self: &Arc<Self>,
        policy: Arc<SharedPolicy>,
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(SpiffeVerifier::new(self.clone(), policy))
            .with_cert_resolver(self.clone());
        config.alpn_protocols = protocols(alpn);
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    /// The dialling end of a hop: our SVID, and a server SVID that `policy` allows.
    pub fn client_config(
        self: &Arc<Self>,
        policy: Arc<SharedPolicy>,
        alpn: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, IdentityError> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(SpiffeVerifier::new(self.clone(), policy))
            .with_client_cert_resolver(self.clone());
        config.alpn_protocols = protocols(alpn);
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Arc::new(config))
    }
}

pub(crate) fn signature_algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

fn protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

/// What is the same in all our verifiers: there is no TLS 1.2, and signatures of TLS 1.3 are checked by [`signature_algorithms`].
macro_rules! tls13_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &rustls_pki_types::CertificateDer<'_>,
            _signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Err(rustls::PeerIncompatible::Tls12NotOffered.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls_pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = $crate::tls::signature_algorithms();
            rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            $crate::tls::signature_algorithms().supported_schemes()
        }
    };
}

pub(crate) use tls13_signatures;
