//! A trust domain of a test: CA, leaves, configurations.
#![allow(dead_code, reason = "each test file uses what it needs")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SubjectPublicKeyInfo,
};
use time::OffsetDateTime;
use zen_control_api::{Configuration, Hex16, SigningKey};

pub const TRUST_DOMAIN: &str = "acme.example";
pub const AGENT_ID: &str = "spiffe://acme.example/agent/edge";
pub const NOW_MS: u64 = 1_700_000_000_000;
pub const HOUR_MS: u64 = 3_600_000;

/// A CA of the trust domain.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a test's root");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params.not_before, params.not_after) = (at(0), at(NOW_MS * 2));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    /// PEM.
    pub fn roots(&self) -> String {
        self.issuer.pem()
    }

    /// A leaf for the key of a request, PEM, good from `from_ms` for 36 hours.
    pub fn certify(&self, public_key: &SubjectPublicKeyInfo, id: &str, from_ms: u64) -> String {
        self.certify_until(public_key, id, (from_ms, from_ms + 36 * HOUR_MS))
    }

    /// The same, for as long as is said.
    pub fn certify_until(
        &self,
        public_key: &impl PublicKeyData,
        id: &str,
        (from_ms, until_ms): (u64, u64),
    ) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (at(from_ms), at(until_ms));
        params.signed_by(public_key, &self.issuer).unwrap().pem()
    }
}

/// A new key, as a request shows it.
pub fn public_key() -> SubjectPublicKeyInfo {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    SubjectPublicKeyInfo::from_der(&key.subject_public_key_info()).unwrap()
}

pub fn at(ms: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(ms / 1000).unwrap()).unwrap()
}

/// What stays of a bundle.
pub fn enrolled(key: &SigningKey) -> zen_agent::core::EnrolledWith {
    zen_agent::core::EnrolledWith {
        bundle_id: Hex16([1; 16]),
        tenant: "acme".to_owned(),
        cluster: "edge".to_owned(),
        trust_domain: TRUST_DOMAIN.to_owned(),
        control_plane: vec!["https://control.example".to_owned()],
        configuration_key: key.public(),
        audit_key: None,
    }
}

/// An empty configuration.
pub fn configuration(version: u64, roots: &str) -> Configuration {
    Configuration {
        version,
        tenant: "acme".to_owned(),
        cluster: "edge".to_owned(),
        trust_bundle: roots.to_owned(),
        members: BTreeMap::new(),
        deny_list: "{\"version\":1,\"entries\":[]}".to_owned(),
        secrets: BTreeMap::new(),
        link_keys: BTreeMap::new(),
        link_statements: BTreeMap::new(),
    }
}
