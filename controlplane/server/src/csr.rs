//! What may be in a certificate request (PKCS #10, RFC 2986): a key, and the name that its holder will get anyway.
//!
//! Enters: PEM and the id that is assigned. Leaves: the key, whose holder signed the request. Refused: every subject,
//! every name but the assigned id, every other extension and attribute, and keys that are not P-256, P-384 or Ed25519.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    ParsedPublicKey, VerificationAlgorithm,
};
use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use tokio_rustls::rustls::pki_types::CertificateSigningRequestDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::AlgorithmIdentifier;
use zen_control_api::CSR_BYTES_MAX;
use zen_identity::SpiffeId;

const EC_KEY: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const ED25519_KEY: &str = "1.3.101.112";
const ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const ECDSA_SHA384: &str = "1.2.840.10045.4.3.3";

/// A key whose holder asked.
#[derive(Debug)]
pub struct AcceptedKey {
    info: SubjectPublicKeyInfo,
    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub hash: [u8; 32],
}

/// What is wrong with a certificate request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrFault {
    /// Too long.
    #[error("the certificate request has over {CSR_BYTES_MAX} bytes")]
    Length,
    /// No PKCS #10 in PEM, or more than one.
    #[error("the certificate request is not one PKCS #10 request in PEM")]
    Malformed,
    /// The subject is not empty.
    #[error("the certificate request has a subject; it must be empty, names are assigned")]
    Subject,
    /// A name that is not the assigned id.
    #[error("the certificate request has a name that is not the assigned SPIFFE id")]
    Name,
    /// An attribute that is no request for extensions.
    #[error("the certificate request has an attribute other than one request for extensions")]
    Attribute,
    /// An extension that is no subjectAltName.
    #[error("the certificate request has an extension other than subjectAltName")]
    Extension,
    /// A key of another algorithm, or none.
    #[error("the key is not P-256, P-384 or Ed25519")]
    Key,
    /// Whoever asked does not hold the key.
    #[error("the certificate request's signature is not by its key")]
    Signature,
}

impl PublicKeyData for AcceptedKey {
    fn der_bytes(&self) -> &[u8] {
        self.info.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.info.algorithm()
    }
}

/// The key of a request that asks for nothing but `assigned`.
pub fn check_csr(pem: &str, assigned: &SpiffeId) -> Result<AcceptedKey, CsrFault> {
    if pem.len() > CSR_BYTES_MAX {
        return Err(CsrFault::Length);
    }
    if pem.matches("-----BEGIN").count() != 1 {
        return Err(CsrFault::Malformed);
    }
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes());
    let der = der.map_err(|_| CsrFault::Malformed)?;
    let Ok(([], request)) = X509CertificationRequest::from_der(&der) else { return Err(CsrFault::Malformed) };
    let info = &request.certification_request_info;
    if info.version.0 != 0 {
        return Err(CsrFault::Malformed);
    }
    if info.subject.iter_rdn().next().is_some() {
        return Err(CsrFault::Subject);
    }
    check_attributes(&request, assigned)?;
    check_signature(&request)?;
    let raw = info.subject_pki.raw;
    let accepted = SubjectPublicKeyInfo::from_der(raw).map_err(|_| CsrFault::Key)?;
    // What will be certified is written anew; only if it is the same text was it this key that was proven.
    if accepted.subject_public_key_info() != raw {
        return Err(CsrFault::Key);
    }
    let hash = digest(&SHA256, raw).as_ref().try_into().expect("SHA-256 is 32 bytes");
    Ok(AcceptedKey { info: accepted, hash })
}

fn check_attributes(request: &X509CertificationRequest<'_>, assigned: &SpiffeId) -> Result<(), CsrFault> {
    let extensions = match request.certification_request_info.attributes() {
        [] => return Ok(()),
        [one] => match one.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(requested) => &requested.extensions,
            _ => return Err(CsrFault::Attribute),
        },
        _ => return Err(CsrFault::Attribute),
    };
    match &extensions[..] {
        [] => Ok(()),
        [one] => check_names(one, assigned),
        _ => Err(CsrFault::Extension),
    }
}

fn check_names(extension: &X509Extension<'_>, assigned: &SpiffeId) -> Result<(), CsrFault> {
    let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
        return Err(CsrFault::Extension);
    };
    match names.general_names[..] {
        [GeneralName::URI(uri)] if uri == assigned.as_str() => Ok(()),
        _ => Err(CsrFault::Name),
    }
}

fn check_signature(request: &X509CertificationRequest<'_>) -> Result<(), CsrFault> {
    let info = &request.certification_request_info;
    let key = &info.subject_pki;
    let signature = request.signature_algorithm.algorithm.to_id_string();
    let algorithm: &'static dyn VerificationAlgorithm =
        match (key_kind(&key.algorithm).ok_or(CsrFault::Key)?, signature.as_str()) {
            (KeyKind::P256, ECDSA_SHA256) => &ECDSA_P256_SHA256_ASN1,
            (KeyKind::P256, ECDSA_SHA384) => &ECDSA_P256_SHA384_ASN1,
            (KeyKind::P384, ECDSA_SHA256) => &ECDSA_P384_SHA256_ASN1,
            (KeyKind::P384, ECDSA_SHA384) => &ECDSA_P384_SHA384_ASN1,
            (KeyKind::Ed25519, ED25519_KEY) => &ED25519,
            _ => return Err(CsrFault::Signature),
        };
    let public = &key.subject_public_key.data;
    let length = match key_kind(&key.algorithm).ok_or(CsrFault::Key)? {
        KeyKind::P256 => 65,
        KeyKind::P384 => 97,
        KeyKind::Ed25519 => 32,
    };
    if public.len() != length {
        return Err(CsrFault::Key);
    }
    let public = ParsedPublicKey::new(algorithm, public).map_err(|_| CsrFault::Key)?;
    public.verify_sig(info.raw, &request.signature_value.data).map_err(|_| CsrFault::Signature)
}

#[derive(Clone, Copy)]
enum KeyKind {
    P256,
    P384,
    Ed25519,
}

fn key_kind(algorithm: &AlgorithmIdentifier<'_>) -> Option<KeyKind> {
    let curve = || algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    match algorithm.algorithm.to_id_string().as_str() {
        ED25519_KEY if algorithm.parameters.is_none() => Some(KeyKind::Ed25519),
        EC_KEY => match curve()?.to_id_string().as_str() {
            P256 => Some(KeyKind::P256),
            P384 => Some(KeyKind::P384),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
        ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
        PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, SanType,
    };

    use super::*;
    use crate::fuzz::fuzz_csr;

    const OWN: &str = "spiffe://acme.example/agent/edge";

    fn check(pem: &str) -> Result<AcceptedKey, CsrFault> {
        fuzz_csr(pem.as_bytes());
        check_csr(pem, &SpiffeId::parse(OWN).unwrap())
    }

    fn csr(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn a_key_is_taken_and_the_assigned_name_may_be_there() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            for text in [csr(&key, |_| {}), csr(&key, |params| params.subject_alt_names = vec![uri(OWN)])] {
                let accepted = check(&text).unwrap();
                assert_eq!(accepted.subject_public_key_info(), key.subject_public_key_info());
                let hash = digest(&SHA256, &key.subject_public_key_info());
                assert_eq!(accepted.hash, hash.as_ref());
            }
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let p521 = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
        let named = |name: SanType| csr(&key, |params| params.subject_alt_names = vec![name]);
        let two = |second: SanType| csr(&key, |params| params.subject_alt_names = vec![uri(OWN), second]);
        let good = csr(&key, |_| {});
        let usages = csr(&key, |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
        let server =
            csr(&key, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        let ca = csr(&key, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        let custom = CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
        let dns = || SanType::DnsName("a.b".try_into().unwrap());
        for (text, fault) in [
            (csr(&key, |params| params.distinguished_name.push(DnType::CommonName, "a")), CsrFault::Subject),
            (named(dns()), CsrFault::Name),
            (named(SanType::IpAddress([127, 0, 0, 1].into())), CsrFault::Name),
            (named(SanType::Rfc822Name("a@b".try_into().unwrap())), CsrFault::Name),
            (named(uri("spiffe://acme.example/agent/core")), CsrFault::Name),
            (named(uri("spiffe://acme.example/agent/edge/")), CsrFault::Name),
            (named(uri("SPIFFE://acme.example/agent/edge")), CsrFault::Name),
            (two(uri(OWN)), CsrFault::Name),
            (two(dns()), CsrFault::Name),
            (usages, CsrFault::Extension),
            (server, CsrFault::Extension),
            (ca, CsrFault::Extension),
            (csr(&key, |params| params.custom_extensions = vec![custom]), CsrFault::Extension),
            (csr(&p521, |_| {}), CsrFault::Key),
            (String::new(), CsrFault::Malformed),
            (good.clone() + &good, CsrFault::Malformed),
            (good.replace("CERTIFICATE REQUEST", "CERTIFICATE"), CsrFault::Malformed),
            (good[..good.len() / 2].to_owned(), CsrFault::Malformed),
            ("x".repeat(CSR_BYTES_MAX + 1), CsrFault::Length),
        ] {
            assert_eq!(check(&text).unwrap_err(), fault, "{text}");
        }
    }

    #[test]
    fn no_changed_byte_is_taken_for_another_key() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let good = csr(&key, |params| params.subject_alt_names = vec![uri(OWN)]);
        for at in 0..good.len() {
            for other in ['A', 'z', '-', '\n', '\0'] {
                let mut changed: Vec<char> = good.chars().collect();
                changed[at] = other;
                let changed: String = changed.into_iter().collect();
                if let Ok(accepted) = check(&changed) {
                    assert_eq!(accepted.der_bytes(), key.der_bytes(), "byte {at}");
                }
            }
        }
    }
}
