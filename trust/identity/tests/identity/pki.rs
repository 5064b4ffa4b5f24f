//! A certificate authority for tests: everything it makes is valid until a test edits one thing.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use zen_identity::{PrivateKeySource, SvidFiles, TrustBundle, TrustBundles, TrustDomain};

pub(crate) const DAY: i64 = 24 * 3600;
pub(crate) const DOMAIN: &str = "example.org";
pub(crate) const ID: &str = "spiffe://example.org/ns/edge/sa/ingester";

pub(crate) struct Ca {
    pub(crate) der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    now: i64,
}

pub(crate) struct Leaf {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

impl Ca {
    /// A root of [`DOMAIN`], valid one day to each side of `now`.
    pub(crate) fn root(now: i64, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        Self::root_with_key(now, key, edit)
    }

    pub(crate) fn root_with_key(now: i64, key: KeyPair, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(now, "root");
        edit(&mut params);
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { der, issuer: Issuer::new(params, key), now }
    }

    pub(crate) fn intermediate(&self, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(self.now, "intermediate");
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { der, issuer: Issuer::new(params, key), now: self.now }
    }

    /// An SVID of [`ID`].
    pub(crate) fn leaf(&self, edit: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri(ID)];
        params.serial_number = Some(next_serial());
        set_window(&mut params, self.now - DAY, self.now + DAY);
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        Leaf { der: params.signed_by(&key, &self.issuer).unwrap().der().clone(), key }
    }

    pub(crate) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    pub(crate) fn bundle(&self, domain: &str) -> TrustBundle {
        TrustBundle::from_pem(TrustDomain::parse(domain).unwrap(), pem(&[&self.der]).as_bytes()).unwrap()
    }

    pub(crate) fn bundles(&self) -> TrustBundles {
        TrustBundles::new([self.bundle(DOMAIN)])
    }
}

/// Writes an identity below `directory`, as an operator would.
pub(crate) fn write_identity(
    directory: &Path,
    domain: &str,
    chain: &[&CertificateDer<'_>],
    key: &KeyPair,
    root: &Ca,
) -> SvidFiles {
    let key_file = directory.join("svid.key");
    let files = SvidFiles {
        certificate_file: directory.join("svid.pem"),
        private_key: PrivateKeySource::File(key_file.clone()),
        trust_bundle_file: directory.join("bundle.pem"),
        trust_domain: TrustDomain::parse(domain).unwrap(),
    };
    fs::write(&files.certificate_file, pem(chain)).unwrap();
    write_key(&key_file, key);
    fs::write(&files.trust_bundle_file, pem(&[&root.der])).unwrap();
    files
}

pub(crate) fn write_key(file: &Path, key: &KeyPair) {
    fs::write(file, key.serialize_pem()).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn pem(chain: &[&CertificateDer<'_>]) -> String {
    use base64::Engine as _;
    let encode = |der: &&CertificateDer<'_>| {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        ["-----BEGIN CERTIFICATE-----\n", &body, "\n-----END CERTIFICATE-----\n"].concat()
    };
    chain.iter().map(encode).collect()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

pub(crate) fn set_window(params: &mut CertificateParams, not_before: i64, not_after: i64) {
    params.not_before = OffsetDateTime::from_unix_timestamp(not_before).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(not_after).unwrap();
}

pub(crate) fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// An extension that rcgen does not write, or not in this way.
pub(crate) fn extension(oid: &[u64], critical: bool, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(critical);
    extension
}

/// DER of one value shorter than 128 bytes.
pub(crate) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 128);
    [&[tag, content.len() as u8], content].concat()
}

pub(crate) fn at(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds.try_into().unwrap()))
}

pub(crate) fn now() -> i64 {
    UnixTime::now().as_secs().try_into().unwrap()
}

fn ca_params(now: i64, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri("spiffe://example.org")];
    params.serial_number = Some(next_serial());
    set_window(&mut params, now - DAY, now + DAY);
    params
}

/// rcgen derives serials from keys, which repeats them when a key is used twice.
fn next_serial() -> SerialNumber {
    thread_local!(static LAST: Cell<u64> = const { Cell::new(0x80) });
    LAST.set(LAST.get() + 1);
    SerialNumber::from(LAST.get())
}
