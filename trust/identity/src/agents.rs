//! Both ends of the control plane's listener, TLS 1.3 with certificates on both sides (RFC 8446).
//!
//! Control plane: [`SvidStore::agent_server_config`] takes an X.509-SVID, with every check that peers get, or a self-signed
//! certificate of an Ed25519 key, whose holder is known by that key alone; [`agent_peer`] says which it was.
//!
//! Agent: [`enrollment_client_config`] before it has an identity, out of the bundle's seed and pins;
//! [`SvidStore::control_client_config`] from then on. Both talk to `spiffe://TRUST-DOMAIN/control` and nobody else;
//! [`control_refused`] finds the reason in a rustls error. Server name: [`crate::spiffe_server_name`].

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use rustls::client::Resumption;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DistinguishedName, Error, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::{Certificate, trim_serial};
use crate::svid::{PeerUsage, check_chain, leaf, unix_time};
use crate::tls::{provider, tls13_signatures};
use crate::verifier::rustls_error;
use crate::{
    CHAIN_CERTIFICATES_MAX, IdentityError, PeerRefused, Policy, SharedPolicy, SpiffeId, SpiffePattern,
    SvidError, SvidStore, TrustBundle, TrustBundles, TrustDomain,
};

/// The path of the control plane's SPIFFE id.
pub const CONTROL_PATH: &str = "/control";
/// Longest self-signed certificate of a bundle's key, bytes.
pub const BUNDLE_CERTIFICATE_BYTES_MAX: usize = 2048;

/// Who a client of the control plane is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentPeer {
    /// It has an identity.
    Svid(PeerSvid),
    /// It holds this Ed25519 key: whether that is the key of a bundle is not said here.
    BundleKey([u8; 32]),
}

/// What is known of a peer's leaf after the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSvid {
    /// Who it is.
    pub id: SpiffeId,
    /// Big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// The leaf's last second.
    pub not_after: UnixTime,
}

/// Why a client does not talk to a server: it is not the control plane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlRefused {
    /// No certificate of its chain has a pinned key.
    #[error("none of the bundle's CAs issued the server's certificate; is this the right control plane?")]
    Pin,
    /// Its certificate is no valid SVID.
    #[error("the control plane's SVID is refused: {0}")]
    Svid(#[from] SvidError),
    /// It is somebody else.
    #[error("the server is {0}, which is not the control plane")]
    Id(SpiffeId),
}

/// Who came in, after a handshake of [`SvidStore::agent_server_config`]; none for certificates that it does not take.
pub fn agent_peer(certificates: Option<&[CertificateDer<'_>]>) -> Option<AgentPeer> {
    let (der, issuers) = certificates?.split_first()?;
    if let Some(key) = self_signed_key(der, issuers) {
        return Some(AgentPeer::BundleKey(key));
    }
    let certificate = Certificate::parse(der).ok()?;
    let id = leaf::spiffe_id(&certificate).ok()?;
    let not_after = unix_time(certificate.validity().not_after);
    let serial = trim_serial(certificate.serial()).to_vec();
    Some(AgentPeer::Svid(PeerSvid { id, serial, not_after }))
}

/// The control plane's SPIFFE id.
pub fn control_id(trust_domain: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://{trust_domain}{CONTROL_PATH}")).expect("a trust domain and a path")
}

/// SHA-256 of a certificate's `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7), as pins have it.
pub fn public_key_hash(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let certificate = Certificate::parse(certificate).ok()?;
    digest(&SHA256, certificate.public_key_info()).as_ref().try_into().ok()
}

/// An agent before it has an identity: it shows a self-signed certificate of `seed`'s Ed25519 key, which is made here, and
/// takes `spiffe://TRUST-DOMAIN/control` under a CA whose public key's hash is among `pins`.
pub fn enrollment_client_config(
    seed: &[u8; 32],
    pins: &[[u8; 32]],
    trust_domain: &TrustDomain,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, IdentityError> {
    let verifier = PinVerifier { pins: pins.to_vec(), trust_domain: trust_domain.clone() };
    let (certificate, key) = self_signed(seed);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// Our reason inside a rustls error of a client's handshake with the control plane, whichever configuration it had.
pub fn control_refused(error: &Error) -> Option<ControlRefused> {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return None };
    if let Some(refused) = other.0.downcast_ref::<ControlRefused>() {
        return Some(refused.clone());
    }
    match other.0.downcast_ref::<PeerRefused>()? {
        PeerRefused::Svid(error) => Some(ControlRefused::Svid(error.clone())),
        PeerRefused::Policy { id, .. } => Some(ControlRefused::Id(id.clone())),
    }
}

impl SvidStore {
    /// The control plane's listener: our SVID, and a mandatory certificate of the client (see [`agent_peer`]).
    pub fn agent_server_config(self: &Arc<Self>, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(AgentVerifier { store: self.clone() }))
            .with_cert_resolver(self.clone());
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    /// An agent that has an identity: our SVID, and the control plane of its trust domain.
    pub fn control_client_config(
        self: &Arc<Self>,
        alpn: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, IdentityError> {
        let control = control_id(self.id().trust_domain());
        let pattern = SpiffePattern::parse(control.as_str()).expect("an id with a path is a pattern");
        self.client_config(SharedPolicy::new(Policy::new(vec![pattern], Vec::new())), alpn)
    }
}

/// Takes what [`agent_peer`] knows, as the store's bundles are at that moment.
#[derive(Debug)]
struct AgentVerifier {
    store: Arc<SvidStore>,
}

impl ClientCertVerifier for AgentVerifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self_signed_key(end_entity, intermediates).is_some() {
            return Ok(ClientCertVerified::assertion());
        }
        check_chain(end_entity, intermediates, &self.store.bundles(), now, PeerUsage::Client)
            .map_err(|error| rustls_error(PeerRefused::Svid(error)))?;
        Ok(ClientCertVerified::assertion())
    }

    tls13_signatures!();
}

/// Knows the control plane by the public key of its CA.
#[derive(Debug)]
struct PinVerifier {
    pins: Vec<[u8; 32]>,
    trust_domain: TrustDomain,
}

impl PinVerifier {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), ControlRefused> {
        let is_pinned = |issuer: &&CertificateDer<'_>| {
            public_key_hash(issuer).is_some_and(|hash| self.pins.contains(&hash))
        };
        // Whoever only copies a pinned key cannot sign with it, so its certificate leads nowhere.
        let mut bundle = TrustBundle::empty(self.trust_domain.clone());
        for issuer in issuers.iter().take(CHAIN_CERTIFICATES_MAX).filter(is_pinned) {
            bundle.push(issuer).map_err(|_| ControlRefused::Pin)?;
        }
        if bundle.is_empty() {
            return Err(ControlRefused::Pin);
        }
        let id = check_chain(leaf, issuers, &TrustBundles::new([bundle]), now, PeerUsage::Server)?;
        if id != control_id(self.trust_domain.as_str()) {
            return Err(ControlRefused::Id(id));
        }
        Ok(())
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now).map_err(rustls_error)?;
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures!();
}

/// The key of a chain that is one certificate, signed by its own Ed25519 key; nothing else in it counts.
fn self_signed_key(leaf: &CertificateDer<'_>, issuers: &[CertificateDer<'_>]) -> Option<[u8; 32]> {
    if !issuers.is_empty() || leaf.len() > BUNDLE_CERTIFICATE_BYTES_MAX {
        return None;
    }
    let Ok(([], certificate)) = X509Certificate::from_der(leaf) else { return None };
    let info = certificate.public_key();
    let algorithms =
        [&info.algorithm, &certificate.signature_algorithm, &certificate.tbs_certificate.signature];
    let is_ed25519 = |algorithm: &&x509_parser::x509::AlgorithmIdentifier<'_>| {
        algorithm.parameters.is_none() && algorithm.algorithm.as_bytes() == ED25519_OID
    };
    if !algorithms.iter().all(is_ed25519) || certificate.issuer().as_raw() != certificate.subject().as_raw() {
        return None;
    }
    let bytes: [u8; 32] = info.subject_public_key.data.as_ref().try_into().ok()?;
    let key = ParsedPublicKey::new(&ED25519, bytes).ok()?;
    key.verify_sig(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data).ok()?;
    Some(bytes)
}

/// `1.3.101.112`, content of the OBJECT IDENTIFIER (RFC 8410 section 3).
const ED25519_OID: &[u8] = &[0x2b, 0x65, 0x70];
/// `SEQUENCE { OBJECT IDENTIFIER }` of it.
const ED25519_ALGORITHM: &[u8] = &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
/// `OneAsymmetricKey`, version 1, up to the seed (RFC 8410 section 7).
const PKCS8_PREFIX: &[u8] = &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// Without an end (RFC 5280 section 4.1.2.5): it proves a key on one connection, and is never kept.
const VALIDITY: &[u8] = b"\x30\x20\x17\x0d700101000000Z\x18\x0f99991231235959Z";
/// `commonName = bundle`.
const NAME: &[u8] = b"\x30\x11\x31\x0f\x30\x0d\x06\x03\x55\x04\x03\x0c\x06bundle";

fn self_signed(seed: &[u8; 32]) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
    let key = [&[0x30, 0x2a], ED25519_ALGORITHM, &[3, 0x21, 0], pair.public_key().as_ref()].concat();
    let (version, serial): (&[u8], &[u8]) = (&[0xa0, 3, 2, 1, 2], &[2, 1, 1]);
    let body = [version, serial, ED25519_ALGORITHM, NAME, VALIDITY, NAME, &key].concat();
    let body = sequence(&body);
    let signature = pair.sign(&body);
    let whole = [&body, ED25519_ALGORITHM, &[3, 0x41, 0], signature.as_ref()].concat();
    let private = PrivatePkcs8KeyDer::from([PKCS8_PREFIX, seed].concat());
    (sequence(&whole).into(), private.into())
}

/// `SEQUENCE` of 128 to 65,535 bytes, which these are.
fn sequence(content: &[u8]) -> Vec<u8> {
    let mut text = match u8::try_from(content.len()) {
        Ok(length) => vec![0x30, 0x81, length],
        Err(_) => [&[0x30, 0x82][..], &(content.len() as u16).to_be_bytes()].concat(),
    };
    text.extend(content);
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

    use super::*;

    #[test]
    fn a_bundle_s_certificate_tells_its_key() {
        let (certificate, _) = self_signed(&[7; 32]);
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
        assert_eq!(agent_peer(Some(std::slice::from_ref(&certificate))), Some(AgentPeer::BundleKey(key)));
        assert!(webpki::EndEntityCert::try_from(&certificate).is_ok(), "rustls reads it");
        for at in 0..certificate.len() {
            let mut changed = certificate.to_vec();
            changed[at] ^= 1;
            let found = agent_peer(Some(&[changed.into()]));
            // An unused bit of the signature's BIT STRING is nothing that was signed.
            assert!(found.is_none() || found == Some(AgentPeer::BundleKey(key)), "byte {at}: {found:?}");
        }
        assert_eq!(agent_peer(Some(&[certificate.clone(), certificate])), None);
        assert_eq!(agent_peer(Some(&[])), None);
        assert_eq!(agent_peer(None), None);
    }

    #[test]
    fn certificates_of_other_makers_tell_their_key_if_it_is_ed25519() {
        let params = CertificateParams::default();
        let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let own = params.self_signed(&ed25519).unwrap();
        let key: [u8; 32] = ed25519.public_key_raw().try_into().unwrap();
        assert_eq!(agent_peer(Some(&[own.der().clone()])), Some(AgentPeer::BundleKey(key)));

        let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        assert_eq!(agent_peer(Some(&[params.self_signed(&p256).unwrap().der().clone()])), None);
        let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let issuer = rcgen::Issuer::new(params.clone(), other);
        let by_another = params.signed_by(&ed25519, &issuer).unwrap();
        assert_eq!(agent_peer(Some(&[by_another.der().clone()])), None);
    }
}
