//! Our own certificates: PEM in, a chain with its signing key out.
//!
//! Refused: a key that does not belong to the leaf. An [`Svid`] obeys the same rules that we hold
//! peers to, so that a mistake of the issuer shows here and not at every peer. A [`Chain`] can be
//! looked at before its key is.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::certificate::{Certificate, Unreadable, Validity};
use crate::svid::{PeerUsage, SvidError, check_svid, leaf, unix_time};
use crate::tls::provider;
use crate::{SpiffeId, TrustBundles};

/// Our own X.509-SVID: chain, leaf first, and key.
#[derive(Clone)]
pub struct Svid {
    key_pair: KeyPair,
    id: SpiffeId,
}

impl Svid {
    /// Reads a chain, leaf first, and its private key (PKCS #8, SEC 1 or PKCS #1).
    pub fn from_pem(certificate_pem: &[u8], private_key_pem: &[u8]) -> Result<Self, KeyPairError> {
        Self::new(Chain::from_pem(certificate_pem)?, private_key_pem)
    }

    /// Adds its private key to a chain.
    pub(crate) fn new(chain: Chain, private_key_pem: &[u8]) -> Result<Self, KeyPairError> {
        let key_pair = chain.with_key(private_key_pem)?;
        let id = leaf::check_leaf(&Certificate::parse(&key_pair.certified.cert[0])?)?;
        Ok(Self { key_pair, id })
    }

    /// Checks our own chain as a peer with these bundles would, dialled and dialling.
    pub fn verify(&self, bundles: &TrustBundles, now: UnixTime) -> Result<(), SvidError> {
        verify(&self.key_pair.certified.cert, bundles, now)
    }

    /// Who we are.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The last second of the leaf.
    pub fn not_after(&self) -> UnixTime {
        unix_time(self.key_pair.validity.not_after)
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.key_pair.certified
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

/// A chain, leaf first, without its key.
pub(crate) struct Chain {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) validity: Validity,
}

impl Chain {
    pub(crate) fn from_pem(certificate_pem: &[u8]) -> Result<Self, KeyPairError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(certificate_pem)
            .collect::<Result<_, _>>()
            .map_err(|_| KeyPairError::CertificatePem)?;
        let leaf = certificates.first().ok_or(KeyPairError::NoCertificate)?;
        let validity = Certificate::parse(leaf)?.validity();
        Ok(Self { certificates, validity })
    }

    /// As [`Svid::verify`].
    pub(crate) fn verify(&self, bundles: &TrustBundles, now: UnixTime) -> Result<(), SvidError> {
        verify(&self.certificates, bundles, now)
    }

    pub(crate) fn with_key(self, private_key_pem: &[u8]) -> Result<KeyPair, KeyPairError> {
        let key = PrivateKeyDer::from_pem_slice(private_key_pem).map_err(|_| KeyPairError::KeyPem)?;
        // rustls wipes the DER of the key once it is loaded.
        let key = provider().key_provider.load_private_key(key).map_err(|_| KeyPairError::Key)?;
        let certified = CertifiedKey::new(self.certificates, key);
        certified.keys_match().map_err(|_| KeyPairError::Mismatch)?;
        Ok(KeyPair { certified: Arc::new(certified), validity: self.validity })
    }
}

/// A chain with the key of its leaf.
#[derive(Clone)]
pub(crate) struct KeyPair {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) validity: Validity,
}

fn verify(chain: &[CertificateDer<'_>], bundles: &TrustBundles, now: UnixTime) -> Result<(), SvidError> {
    for usage in [PeerUsage::Client, PeerUsage::Server] {
        check_svid(chain, bundles, now, usage)?;
    }
    Ok(())
}

/// Why a certificate and a key make no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyPairError {
    /// The certificate file is not PEM.
    #[error("the certificate file is not PEM")]
    CertificatePem,
    /// The certificate file holds no certificate.
    #[error("the certificate file holds no certificate")]
    NoCertificate,
    /// The leaf cannot be read.
    #[error("the leaf certificate cannot be read")]
    Malformed,
    /// There is no private key in PEM.
    #[error("the key is no PEM private key (PKCS #8, SEC 1 or PKCS #1)")]
    KeyPem,
    /// The key has an algorithm or form that is not supported.
    #[error("the private key is not usable; use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits and more")]
    Key,
    /// The key is another one than the leaf's.
    #[error(
        "the private key is not that of the first certificate; the leaf comes first, both of one generation"
    )]
    Mismatch,
    /// The leaf is no X.509-SVID.
    #[error("not an X.509-SVID: {0}")]
    Svid(#[from] SvidError),
}

impl From<Unreadable> for KeyPairError {
    fn from(_: Unreadable) -> Self {
        Self::Malformed
    }
}
