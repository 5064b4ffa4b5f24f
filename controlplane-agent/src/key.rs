//! Private keys, P-256: made in memory, sealed by lockd, never in clear on disk.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use zeroize::{Zeroize, Zeroizing};

/// A private key; wiped when dropped.
pub(crate) struct PrivateKey(KeyPair);

impl PrivateKey {
    pub(crate) fn generate() -> Self {
        let made = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        Self(made.expect("aws-lc-rs aborts by itself when it has no randomness"))
    }

    /// Of PKCS #8, PEM.
    pub(crate) fn from_pem(pem: &[u8]) -> Option<Self> {
        let pem = std::str::from_utf8(pem).ok()?;
        KeyPair::from_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).ok().map(Self)
    }

    /// PKCS #8, PEM.
    pub(crate) fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// PKCS #8, DER.
    pub(crate) fn der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize_der())
    }

    /// `SubjectPublicKeyInfo`, DER.
    pub(crate) fn public_key(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// PKCS #10, PEM: the key and nothing else, since who we are is not ours to say.
    pub(crate) fn request(&self) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.0).expect("a P-256 key signs");
        request.pem().expect("DER is text in PEM")
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer;

    use super::*;

    #[test]
    fn a_key_is_read_back_and_asks_for_nothing_but_itself() {
        let key = PrivateKey::generate();
        let again = PrivateKey::from_pem(key.pem().as_bytes()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        let request = key.request();
        let (_, pem) = x509_parser::pem::parse_x509_pem(request.as_bytes()).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        let info = &request.certification_request_info;
        assert_eq!(info.subject_pki.raw, key.public_key());
        assert_eq!(info.subject.iter().count() + info.attributes().len(), 0);
        assert!(PrivateKey::from_pem(b"no key").is_none());
    }
}
