//! The CAs: a root that only signs issuing CAs, and an issuing CA that signs leaves (RFC 5280, SPIFFE X509-SVID).
//!
//! P-256 throughout. Leaves have one URI name and nothing from whoever asked but a key. No certificate outlives its issuer.

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zen_control_api::{Base64, CaPin, SigningKey, is_name};
use zen_identity::{SpiffeId, TrustDomain, control_id, public_key_hash};
use zeroize::Zeroizing;

use crate::database::{self, Owner};
use crate::deny::hex;
use crate::directory::{self, Directory, KEY_MODE, PRIVATE_MODE, PUBLIC_MODE};
use crate::{ControlError, Refusal};

/// How long a leaf lives, ms.
pub const LEAF_LIFE_MS: u64 = 36 * 3600 * 1000;
/// How far back a certificate begins, for clocks that are behind.
const BACKDATE: Duration = Duration::seconds(60);
const ROOT_LIFE: Duration = Duration::days(5 * 365);
const ISSUING_LIFE: Duration = Duration::days(90);

/// The issuing CA.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    issuing: String,
    root: String,
    not_after_ms: u64,
}

/// A new certificate.
pub(crate) struct Issued {
    pub(crate) serial: [u8; SERIAL_BYTES],
    /// PEM, leaf first, without the root.
    pub(crate) chain: String,
    pub(crate) not_after_ms: u64,
}

/// A one in front keeps it positive and of one length, then 128 random bits.
pub(crate) const SERIAL_BYTES: usize = 17;

/// Makes a control plane where there is none.
pub fn initialize(
    path: &std::path::Path,
    trust_domain: &str,
    tenant: &str,
    now_ms: u64,
) -> Result<Directory, ControlError> {
    let trust_domain = TrustDomain::parse(trust_domain).map_err(ControlError::TrustDomain)?;
    if !is_name(tenant) {
        return Err(ControlError::Argument("a tenant is 1 to 64 letters, digits, dots, dashes, underscores"));
    }
    let prepared = Directory::prepare(path)?;
    let owner = Owner { trust_domain: trust_domain.to_string(), tenant: tenant.to_owned() };
    let filled = fill(&prepared, &owner, now_ms);
    if filled.is_err() {
        prepared.discard();
    }
    filled?;
    let published = prepared.clone().publish(path);
    if published.is_err() {
        prepared.discard();
    }
    published
}

fn fill(directory: &Directory, owner: &Owner, now_ms: u64) -> Result<(), ControlError> {
    let now = moment(now_ms);
    let mut params = authority_parameters("Zen Mesh root CA", 1);
    params.not_before = now - BACKDATE;
    params.not_after = now + ROOT_LIFE;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let root = params.self_signed(&key)?;
    directory.create(directory::ROOT_KEY, &Zeroizing::new(key.serialize_pem()), KEY_MODE)?;
    directory.create(directory::ROOT, &root.pem(), PUBLIC_MODE)?;
    let (issuing, issuing_key) = issuing(&Issuer::new(params, key), now + ROOT_LIFE, now)?;
    directory.create(directory::ISSUING_KEY, &issuing_key, KEY_MODE)?;
    directory.create(directory::ISSUING, &issuing, PUBLIC_MODE)?;
    let seed = serde_json::to_string(&Base64(*SigningKey::generate().seed()));
    let seed = Zeroizing::new(seed.expect("base64 is a text"));
    directory.create(directory::CONFIGURATION_KEY, &seed, KEY_MODE)?;
    database::create_database(directory, owner)
}

/// Replaces the issuing CA by a new one under the same root; leaves of the old one stay good.
pub fn renew_issuing(directory: &Directory, now_ms: u64) -> Result<(), ControlError> {
    let key = KeyPair::from_pem(&directory.read(directory::ROOT_KEY)?)?;
    let root = directory.read(directory::ROOT)?;
    let end = end_of(&root).ok_or_else(|| no_certificate(directory, directory::ROOT))?;
    let root = Issuer::from_ca_cert_pem(&root, key)?;
    let (certificate, key) = issuing(&root, moment(end), moment(now_ms))?;
    // A crash in between leaves a certificate and a key that do not match, which the start says; the next run mends it.
    directory.replace(directory::ISSUING_KEY, &key, KEY_MODE)?;
    directory.replace(directory::ISSUING, &certificate, PUBLIC_MODE)
}

fn issuing(
    root: &Issuer<'_, KeyPair>,
    root_end: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<(String, Zeroizing<String>), ControlError> {
    let mut params = authority_parameters("Zen Mesh issuing CA", 0);
    params.not_before = now - BACKDATE;
    params.not_after = (now + ISSUING_LIFE).min(root_end);
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, root)?;
    Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
}

impl Authority {
    /// The issuing CA of a directory, if key and certificate belong together.
    pub fn load(directory: &Directory) -> Result<Self, ControlError> {
        let root = directory.read(directory::ROOT)?.to_string();
        let issuing = directory.read(directory::ISSUING)?.to_string();
        let key = KeyPair::from_pem(&directory.read(directory::ISSUING_KEY)?)?;
        let der = CertificateDer::from_pem_slice(issuing.as_bytes());
        let der = der.map_err(|_| no_certificate(directory, directory::ISSUING))?;
        let own = digest(&SHA256, &key.subject_public_key_info());
        let not_after_ms = end_of(&issuing).ok_or_else(|| no_certificate(directory, directory::ISSUING))?;
        if public_key_hash(&der).is_none_or(|hash| hash != own.as_ref()) {
            let path = directory.path(directory::ISSUING);
            return Err(ControlError::Content { path, what: "the certificate of issuing.key" });
        }
        Ok(Self { issuer: Issuer::from_ca_cert_der(&der, key)?, issuing, root, not_after_ms })
    }

    /// Roots of the trust domain, PEM.
    pub fn trust_bundle(&self) -> &str {
        &self.root
    }

    /// When the issuing CA ends, Unix ms.
    pub fn not_after_ms(&self) -> u64 {
        self.not_after_ms
    }

    /// A leaf for `id` and `key`, both of which were checked.
    pub(crate) fn issue(
        &self,
        id: &SpiffeId,
        key: &impl PublicKeyData,
        now_ms: u64,
    ) -> Result<Issued, Refusal> {
        let not_after_ms = (now_ms + LEAF_LIFE_MS).min(self.not_after_ms) / 1000 * 1000;
        if not_after_ms <= now_ms {
            return Err(Refusal::AuthorityOver);
        }
        let (mut params, serial) = parameters();
        params.not_before = moment(now_ms) - BACKDATE;
        params.not_after = moment(not_after_ms);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, &self.issuer)?;
        Ok(Issued { serial, chain: leaf.pem() + &self.issuing, not_after_ms })
    }

    /// Writes a new certificate and key for the listener, with the root, so that a pin finds it.
    pub(crate) fn certify_server(
        &self,
        directory: &Directory,
        trust_domain: &str,
        now_ms: u64,
    ) -> Result<(), ControlError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let issued =
            self.issue(&control_id(trust_domain), &key, now_ms).map_err(|refusal| match refusal {
                Refusal::Issue(error) => ControlError::Issue(error),
                _ => ControlError::AuthorityOver,
            })?;
        let key = Zeroizing::new(key.serialize_pem());
        let text = Zeroizing::new([issued.chain.as_str(), &self.root, &key].concat());
        directory.replace(directory::SERVER, &text, PRIVATE_MODE)
    }
}

/// The key that signs configurations.
pub(crate) fn configuration_key(directory: &Directory) -> Result<SigningKey, ControlError> {
    let text = directory.read(directory::CONFIGURATION_KEY)?;
    let seed: Base64<32> = serde_json::from_str(&text).map_err(|_| ControlError::Content {
        path: directory.path(directory::CONFIGURATION_KEY),
        what: "the seed of a key",
    })?;
    Ok(SigningKey::from_seed(Zeroizing::new(seed.0)))
}

/// The root's pin.
pub(crate) fn root_pin(directory: &Directory) -> Result<CaPin, ControlError> {
    let root = directory.read(directory::ROOT)?;
    let der = CertificateDer::from_pem_slice(root.as_bytes()).ok();
    let hash = der.and_then(|der| public_key_hash(&der));
    hash.map(CaPin).ok_or_else(|| no_certificate(directory, directory::ROOT))
}

fn authority_parameters(name: &str, intermediates: u8) -> CertificateParams {
    let (mut params, serial) = parameters();
    let tail = hex(&serial[SERIAL_BYTES - 4..]);
    params.distinguished_name.push(DnType::CommonName, format!("{name} {tail}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(intermediates));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn parameters() -> (CertificateParams, [u8; SERIAL_BYTES]) {
    let mut serial = [1; SERIAL_BYTES];
    aws_lc_rs::rand::fill(&mut serial[1..]).expect("aws-lc-rs aborts by itself when it has no randomness");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    (params, serial)
}

fn moment(ms: u64) -> OffsetDateTime {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn end_of(pem: &str) -> Option<u64> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(u64::try_from(certificate.validity().not_after.timestamp()).ok()? * 1000)
}

fn no_certificate(directory: &Directory, name: &str) -> ControlError {
    ControlError::Content { path: directory.path(name), what: "a certificate" }
}
