//! TLS 1.3 as a simulated agent has it: rustls with a key and chain from memory, the lab's root, and no name to look for,
//! since the control plane's certificate has a SPIFFE id alone.

use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use crate::error::LabError;

/// `OneAsymmetricKey`, version 1, up to an Ed25519 seed (RFC 8410 section 7).
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Roots, and the cryptography that all agents share.
#[derive(Debug)]
pub(super) struct Authorities {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl Authorities {
    /// Of a PEM file's text.
    pub(super) fn new(pem: &[u8]) -> Result<Arc<Self>, LabError> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(pem) {
            let root = root.map_err(|error| LabError::Tls(format!("the control plane's roots: {error}")))?;
            roots.add(root).map_err(|error| LabError::Tls(format!("the control plane's roots: {error}")))?;
        }
        Ok(Arc::new(Self { roots, provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()) }))
    }

    /// A client that shows a self-signed certificate of a bundle's seed.
    pub(super) fn by_seed(self: &Arc<Self>, seed: &[u8; 32]) -> Result<Arc<ClientConfig>, LabError> {
        let key = PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], seed].concat());
        let pair = KeyPair::try_from(&key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "bundle");
        let certificate = params.self_signed(&pair)?;
        self.client(vec![certificate.der().clone()], key.into())
    }

    /// A client that shows an SVID.
    pub(super) fn by_svid(
        self: &Arc<Self>,
        chain: &str,
        key: &KeyPair,
    ) -> Result<Arc<ClientConfig>, LabError> {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>();
        let chain = chain.map_err(|error| LabError::Tls(format!("a simulated agent's chain: {error}")))?;
        self.client(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    fn client(
        self: &Arc<Self>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<ClientConfig>, LabError> {
        let unusable = |error: Error| LabError::Tls(format!("a simulated agent's certificate: {error}"));
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ByRoot(self.clone())))
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Arc::new(config))
    }
}

/// Takes whatever the lab's root has issued: it has issued for one control plane.
#[derive(Debug)]
struct ByRoot(Arc<Authorities>);

impl ServerCertVerifier for ByRoot {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.0.provider.signature_verification_algorithms.all;
        let leaf = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.0.roots, issuers, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.provider.signature_verification_algorithms.supported_schemes()
    }
}
