//! A trust domain: roots, an issuing CA, and whoever is denied.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use time::OffsetDateTime;

pub(crate) const DAY_S: i64 = 24 * 3600;
/// The serial number that the deny list names.
const DENIED_SERIAL: [u8; 16] = [0x5d; 16];

/// What a peer shows: a chain, leaf first, and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The chain.
    pub chain: String,
    /// PKCS #8.
    pub key: String,
}

/// What a deny list has to name so that the denied are refused.
#[derive(Clone, Debug)]
pub struct Denied {
    /// Hex.
    pub serial: String,
    /// SHA-256 of the subjectPublicKeyInfo, hex.
    pub spki_sha256: String,
    /// The id of whoever is good, with `-denied` behind it.
    pub spiffe_id: String,
}

/// A trust domain whose SVIDs a system under test takes.
pub struct Domain {
    pub(crate) name: String,
    pub(crate) root: Ca,
    /// Roots of the bundle outside their validity.
    pub(crate) ended: Ca,
    pub(crate) coming: Ca,
    pub(crate) issuing: Ca,
    pub(crate) denied_key: KeyPair,
}

pub(crate) struct Ca {
    pub(crate) pem: String,
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) key_pem: String,
}

impl Domain {
    /// A domain with a root of its own.
    pub fn new(name: &str) -> Self {
        Self::under(name, Ca::root(name, |_| {}))
    }

    /// A domain whose root is somebody else's: PEM of certificate and key. Its bundle is not [`Domain::bundle`].
    pub fn of_root(name: &str, certificate: &str, key: &str) -> Self {
        let pair = KeyPair::from_pem(key).expect("a root's key is PKCS #8");
        let issuer = Issuer::from_ca_cert_pem(certificate, pair).expect("a root's certificate is PEM");
        Self::under(name, Ca { pem: certificate.to_owned(), issuer, key_pem: key.to_owned() })
    }

    fn under(name: &str, root: Ca) -> Self {
        let issuing = root.ca(name, |_| {});
        let now = now();
        let ended = Ca::root(name, |params| {
            params.distinguished_name = named("an old root");
            set_window(params, now - 2 * DAY_S, now - DAY_S);
        });
        let coming = Ca::root(name, |params| {
            params.distinguished_name = named("a next root");
            set_window(params, now + DAY_S, now + 2 * DAY_S);
        });
        Self { name: name.to_owned(), root, ended, coming, issuing, denied_key: new_key() }
    }

    /// The bundle, PEM: the root, one that has ended, and one that has not begun.
    pub fn bundle(&self) -> String {
        [&*self.root.pem, &self.ended.pem, &self.coming.pem].concat()
    }

    /// A valid SVID with this path, `a/b`.
    pub fn good(&self, path: &str) -> Shown {
        self.leaf(path, |_| {})
    }

    /// Whom a deny list names; `path` is whose ids are in question.
    pub fn denied(&self, path: &str) -> Denied {
        let hash = digest(&SHA256, &self.denied_key.subject_public_key_info());
        Denied {
            serial: hex(&DENIED_SERIAL),
            spki_sha256: hex(hash.as_ref()),
            spiffe_id: self.id(&format!("{path}-denied")),
        }
    }

    /// `spiffe://DOMAIN/PATH`.
    pub fn id(&self, path: &str) -> String {
        format!("spiffe://{}/{path}", self.name)
    }

    /// A leaf of the issuing CA with one edit.
    pub(crate) fn leaf(&self, path: &str, edit: impl FnOnce(&mut CertificateParams)) -> Shown {
        self.issuing.leaf(&self.id(path), edit).behind(&[&self.issuing])
    }

    /// A leaf of a CA that is the issuing CA with one edit.
    pub(crate) fn leaf_of(&self, path: &str, edit: impl FnOnce(&mut CertificateParams)) -> Shown {
        let issuing = self.root.ca(&self.name, edit);
        issuing.leaf(&self.id(path), |_| {}).behind(&[&issuing])
    }

    pub(crate) fn denied_serial() -> SerialNumber {
        SerialNumber::from(DENIED_SERIAL.to_vec())
    }
}

impl Denied {
    /// A deny list of all of them, as a node reads it.
    pub fn document(&self) -> String {
        let Self { serial, spki_sha256, spiffe_id } = self;
        format!(
            "{{\"version\":1,\"entries\":[{{\"serial\":\"{serial}\"}},{{\"spki_sha256\":\"{spki_sha256}\"}},\
             {{\"spiffe_id\":\"{spiffe_id}\"}}]}}"
        )
    }
}

impl Ca {
    /// A self-signed CA, valid a day to each side of now.
    pub(crate) fn root(domain: &str, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::root_with(domain, new_key(), edit)
    }

    pub(crate) fn root_with(domain: &str, key: KeyPair, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(domain, "a root");
        edit(&mut params);
        let pem = params.self_signed(&key).expect("the parameters are complete").pem();
        Self { pem, key_pem: key.serialize_pem(), issuer: Issuer::new(params, key) }
    }

    /// A CA below this one.
    pub(crate) fn ca(&self, domain: &str, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(domain, "an issuing CA");
        edit(&mut params);
        let key = new_key();
        let pem = params.signed_by(&key, &self.issuer).expect("the parameters are complete").pem();
        Self { pem, key_pem: key.serialize_pem(), issuer: Issuer::new(params, key) }
    }

    /// A valid leaf with one edit, without a chain.
    pub(crate) fn leaf(&self, id: &str, edit: impl FnOnce(&mut CertificateParams)) -> Shown {
        self.leaf_for(&new_key(), id, edit)
    }

    pub(crate) fn leaf_for(
        &self,
        key: &KeyPair,
        id: &str,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Shown {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri(id)];
        params.use_authority_key_identifier_extension = true;
        set_window(&mut params, now() - DAY_S, now() + DAY_S);
        edit(&mut params);
        let leaf = params.signed_by(key, &self.issuer).expect("the parameters are complete");
        Shown { chain: leaf.pem(), key: key.serialize_pem() }
    }
}

impl Shown {
    /// The same with these CAs behind it.
    pub(crate) fn behind(self, issuers: &[&Ca]) -> Self {
        let issuers: String = issuers.iter().map(|issuer| &*issuer.pem).collect();
        Self { chain: self.chain + &issuers, key: self.key }
    }
}

fn ca_params(domain: &str, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))];
    set_window(&mut params, now() - DAY_S, now() + DAY_S);
    params
}

pub(crate) fn new_key() -> KeyPair {
    KeyPair::generate().expect("aws-lc-rs makes P-256 keys")
}

pub(crate) fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

pub(crate) fn set_window(params: &mut CertificateParams, not_before: i64, not_after: i64) {
    let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).expect("a day from now");
    (params.not_before, params.not_after) = (at(not_before), at(not_after));
}

/// Unix seconds: the systems under test have the real clock.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since.as_secs()).expect("it is before the end of time")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
