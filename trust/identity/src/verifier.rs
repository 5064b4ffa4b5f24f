//! The SPIFFE check inside a handshake, in both directions: a chain in, a verdict for rustls out.
//!
//! The name in the client's request is ignored: the SPIFFE id says who the peer is, and a policy
//! whether that is whom we meant.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::svid::{PeerUsage, SvidError, check_chain};
use crate::tls::tls13_signatures;
use crate::{Decision, Denial, SharedPolicy, SpiffeId, SvidStore};

/// Why a peer's handshake was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    /// Its certificate is no valid SVID.
    #[error("the peer's SVID is refused: {0}")]
    Svid(#[from] SvidError),
    /// Its SVID is valid, but the policy does not allow it.
    #[error("the policy does not allow {id} ({decision:?})")]
    Policy {
        /// Who it is.
        id: SpiffeId,
        /// What the policy said.
        decision: Decision,
    },
}

impl PeerRefused {
    /// A label for counting refusals; one of a fixed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Svid(error) => error.label(),
            Self::Policy { .. } => "policy",
        }
    }

    /// Whether nobody is taken, whoever it is.
    pub fn is_deny_list_stale(&self) -> bool {
        matches!(self, Self::Svid(SvidError::DenyListStale))
    }

    /// What of the peer the deny list names, if that is why.
    pub fn denial(&self) -> Option<Denial> {
        match self {
            Self::Svid(SvidError::Denied(denial)) => Some(*denial),
            Self::Svid(_) | Self::Policy { .. } => None,
        }
    }
}

/// Our reason inside a rustls error, if it is one of ours.
pub fn peer_refused(error: &Error) -> Option<&PeerRefused> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}

/// Checks peers against the store's bundles and a policy, both as they are at that moment.
#[derive(Debug)]
pub(crate) struct SpiffeVerifier {
    store: Arc<SvidStore>,
    policy: Arc<SharedPolicy>,
}

impl SpiffeVerifier {
    pub(crate) fn new(store: Arc<SvidStore>, policy: Arc<SharedPolicy>) -> Arc<Self> {
        Arc::new(Self { store, policy })
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixTime,
        usage: PeerUsage,
    ) -> Result<(), PeerRefused> {
        let id = check_chain(leaf, issuers, &self.store.bundles(), now, usage)?;
        self.store.check_deny_list()?;
        match self.policy.decide(&id) {
            Decision::Allowed => Ok(()),
            decision @ (Decision::Denied | Decision::NotListed) => Err(PeerRefused::Policy { id, decision }),
        }
    }
}

impl ServerCertVerifier for SpiffeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now, PeerUsage::Server).map_err(rustls_error)?;
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures!();
}

impl ClientCertVerifier for SpiffeVerifier {
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
        self.check(end_entity, intermediates, now, PeerUsage::Client).map_err(rustls_error)?;
        Ok(ClientCertVerified::assertion())
    }

    tls13_signatures!();
}

/// Checks a target as another verifier does, and then whether the store's deny list names it.
#[derive(Debug)]
pub(crate) struct DenyingVerifier {
    inner: Arc<dyn ServerCertVerifier>,
    store: Arc<SvidStore>,
}

impl DenyingVerifier {
    pub(crate) fn new(inner: Arc<dyn ServerCertVerifier>, store: Arc<SvidStore>) -> Arc<Self> {
        Arc::new(Self { inner, store })
    }
}

impl ServerCertVerifier for DenyingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let chain: Vec<_> = std::iter::once(end_entity)
            .chain(intermediates)
            .map(|der| CertificateDer::from(&**der))
            .collect();
        let refused = |error| rustls_error(PeerRefused::from(error));
        self.store.check_deny_list().map_err(refused)?;
        match self.store.deny_list().denies(&chain, now) {
            Some(denial) => Err(refused(SvidError::Denied(denial))),
            None => Ok(verified),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Our reason inside a rustls error: [`peer_refused`] and its like find it there.
pub(crate) fn rustls_error(refused: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(Arc::new(refused))).into()
}
