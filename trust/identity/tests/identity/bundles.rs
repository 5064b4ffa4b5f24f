//! What a root must be, and SPIFFE bundle documents (rules 10, 11 and 18 of the checklist).

use base64::Engine as _;
use rcgen::{CertificateParams, IsCa, KeyUsagePurpose};
use serde_json::{Value, json};
use zen_identity::{
    BUNDLE_ROOTS_MAX, BundleError, PeerUsage, RootFault, TrustBundle, TrustBundles, TrustDomain, check_svid,
};

use crate::pki::{Ca, DOMAIN, at, pem, uri};

const NOW: i64 = 1_800_000_000;

fn read_pem(text: &str) -> Result<TrustBundle, BundleError> {
    TrustBundle::from_pem(TrustDomain::parse(DOMAIN).unwrap(), text.as_bytes())
}

fn read_root(edit: impl FnOnce(&mut CertificateParams)) -> Result<TrustBundle, BundleError> {
    read_pem(&pem(&[&Ca::root(NOW, edit).der]))
}

fn fault_of(bundle: &Result<TrustBundle, BundleError>) -> Option<RootFault> {
    match bundle {
        Err(BundleError::Root { fault, .. }) => Some(*fault),
        _ => None,
    }
}

#[test]
fn rule_18_a_root_is_a_ca_that_signs_certificates() {
    assert_eq!(read_root(|_| {}).unwrap().len(), 1);
    assert_eq!(fault_of(&read_root(|params| params.is_ca = IsCa::ExplicitNoCa)), Some(RootFault::NotCa));
    assert_eq!(fault_of(&read_root(|params| params.is_ca = IsCa::NoCa)), Some(RootFault::NotCa));
    let crl_only = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::CrlSign];
    assert_eq!(fault_of(&read_root(crl_only)), Some(RootFault::KeyCertSign));
    assert_eq!(fault_of(&read_root(|params| params.key_usages.clear())), Some(RootFault::KeyCertSign));
}

#[test]
fn rule_11_a_roots_id_has_no_path() {
    let edit =
        |params: &mut CertificateParams| params.subject_alt_names = vec![uri("spiffe://example.org/ca")];
    assert_eq!(fault_of(&read_root(edit)), Some(RootFault::SpiffeId));
    assert!(read_root(|params| params.subject_alt_names.clear()).is_ok());
}

#[test]
fn a_bad_root_is_named_by_its_place() {
    let (good, bad) = (Ca::root(NOW, |_| {}), Ca::root(NOW, |params| params.is_ca = IsCa::NoCa));
    let error = read_pem(&pem(&[&good.der, &bad.der])).unwrap_err();
    assert_eq!(error.to_string(), "root 1 of the bundle is not a CA: basicConstraints lacks cA");
}

#[test]
fn a_pem_file_without_certificates_or_with_too_many_is_refused() {
    assert!(matches!(read_pem(""), Err(BundleError::Empty)));
    assert!(matches!(read_pem("-----BEGIN CERTIFICATE-----\nAA"), Err(BundleError::Pem(_))));
    let text = pem(&[&Ca::root(NOW, |_| {}).der]);
    assert_eq!(read_pem(&text.repeat(BUNDLE_ROOTS_MAX)).unwrap().len(), BUNDLE_ROOTS_MAX);
    assert!(matches!(read_pem(&text.repeat(BUNDLE_ROOTS_MAX + 1)), Err(BundleError::TooMany)));
}

fn read_document(document: &Value) -> Result<TrustBundle, BundleError> {
    TrustBundle::from_spiffe_json(TrustDomain::parse(DOMAIN).unwrap(), document.to_string().as_bytes())
}

#[test]
fn rule_10_only_known_x509_keys_count_and_of_each_the_first_certificate() {
    let (root, other) = (Ca::root(NOW, |_| {}), Ca::root(NOW, |_| {}));
    let encode = |ca: &Ca| base64::engine::general_purpose::STANDARD.encode(&ca.der);
    let bundle = read_document(&json!({
        "spiffe_sequence": 12, "spiffe_refresh_hint": 300, "unknown": true,
        "keys": [
            { "kty": "EC", "use": "jwt-svid", "kid": "1", "x5c": [encode(&other)] },
            { "kty": "EC", "use": "x509-SVID", "x5c": [encode(&other)] },
            { "kty": "oct", "use": "x509-svid", "x5c": [encode(&other)] },
            { "use": "x509-svid", "x5c": [encode(&other)] },
            { "kty": "EC", "x5c": [encode(&other)] },
            { "kty": "EC", "use": "x509-svid" },
            { "kty": "EC", "use": "x509-svid", "x5c": [] },
            { "kty": "EC", "use": "x509-svid", "crv": "P-256", "x5c": [encode(&root), encode(&other)] },
        ],
    }))
    .unwrap();
    assert_eq!(bundle.len(), 1);
    let bundles = TrustBundles::new([bundle]);
    let check = |ca: &Ca| check_svid(&[ca.leaf(|_| {}).der], &bundles, at(NOW), PeerUsage::Client);
    assert!(check(&root).is_ok());
    assert!(check(&other).is_err());
}

#[test]
fn rule_10_a_key_id_is_refused() {
    let root = base64::engine::general_purpose::STANDARD.encode(&Ca::root(NOW, |_| {}).der);
    let key = json!({ "keys": [{ "kty": "EC", "use": "x509-svid", "kid": "1", "x5c": [root] }] });
    assert!(matches!(read_document(&key), Err(BundleError::KeyId)));
}

#[test]
fn rule_9_a_document_without_roots_trusts_nobody() {
    assert!(read_document(&json!({ "keys": [] })).unwrap().is_empty());
    for not_a_document in [json!({}), json!([]), json!({ "keys": {} })] {
        assert!(matches!(read_document(&not_a_document), Err(BundleError::Document)), "{not_a_document}");
    }
    let not_base64 = json!({ "keys": [{ "kty": "EC", "use": "x509-svid", "x5c": ["?"] }] });
    assert!(matches!(read_document(&not_base64), Err(BundleError::Document)));
}
