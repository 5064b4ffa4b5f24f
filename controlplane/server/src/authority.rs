//! The CAs: roots that only sign issuing CAs, and an issuing CA that signs leaves (RFC 5280, SPIFFE X509-SVID).
//!
//! P-256 throughout. Leaves have one URI name and nothing from whoever asked but a key. No certificate outlives its issuer.

mod ledger;
mod made;
mod rotation;
#[cfg(test)]
mod simulation;
mod spread;
mod steps;

use std::net::{Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zen_control_api::{Base64, CaPin, SigningKey};
use zen_identity::{SpiffeId, control_id, public_key_hash};
use zeroize::Zeroizing;

use self::ledger::{Kind, Ledger};
use crate::directory::{self, Directory, PRIVATE_MODE};
use crate::{ControlError, Refusal};

pub use rotation::Need;
pub(crate) use spread::note_roots;
pub use spread::{RootSpread, Straggler, root_spread};
pub use steps::{Advanced, Force, advance, initialize, renew_issuing, retire_root, rotate_root};

/// How long a leaf lives, ms.
pub const LEAF_LIFE_MS: u64 = 36 * 3600 * 1000;
/// How far back a leaf begins, for clocks that are behind.
const BACKDATE: Duration = Duration::seconds(60);
/// The same for CAs and the listener, who have to be known to somebody whose clock is minutes off: he is told so then.
const AUTHORITY_BACKDATE: Duration = Duration::hours(1);
const ROOT_LIFE: Duration = Duration::days(5 * 365);
const ISSUING_LIFE_MS: u64 = 90 * 24 * 3600 * 1000;

/// The issuing CA that signs, and the roots.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    issuing: String,
    /// The root that signed it.
    root: String,
    trust_bundle: String,
    not_after_ms: u64,
    ledger: String,
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

impl Authority {
    /// The issuing CA of a directory, if key and certificate belong together.
    pub fn load(directory: &Directory) -> Result<Self, ControlError> {
        let text = Ledger::text(directory)?;
        let ledger = Ledger::parse(&text, &directory.path(directory::AUTHORITY))?;
        let active = ledger.active();
        let certificate = Kind::Issuing.certificate(active.number);
        let issuing = directory.read(&certificate)?.to_string();
        let root = directory.read(&Kind::Root.certificate(active.root))?.to_string();
        let key = KeyPair::from_pem(&directory.read(&Kind::Issuing.key(active.number))?)?;
        ledger.write_roots(directory)?;
        Self::of((issuing, key), root, ledger.trust_bundle(directory)?, text).map_err(|fault| match fault {
            Some(error) => error.into(),
            None => ControlError::Content {
                path: directory.path(&certificate),
                what: "the certificate of the issuing CA's key",
            },
        })
    }

    /// Nothing if key and certificate do not belong together.
    fn of(
        (issuing, key): (String, KeyPair),
        root: String,
        trust_bundle: String,
        ledger: String,
    ) -> Result<Self, Option<rcgen::Error>> {
        let der = CertificateDer::from_pem_slice(issuing.as_bytes()).map_err(|_| None)?;
        let own = digest(&SHA256, &key.subject_public_key_info());
        let not_after_ms = end_of(&issuing).ok_or(None)?;
        if public_key_hash(&der).is_none_or(|hash| hash != own.as_ref()) {
            return Err(None);
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self { issuer, issuing, root, trust_bundle, not_after_ms, ledger })
    }

    /// Roots of the trust domain, PEM.
    pub fn trust_bundle(&self) -> &str {
        &self.trust_bundle
    }

    /// When the issuing CA ends, Unix ms.
    pub fn not_after_ms(&self) -> u64 {
        self.not_after_ms
    }

    /// Whether the directory's CAs are those that were loaded.
    pub(crate) fn is_current(&self, directory: &Directory) -> Result<bool, ControlError> {
        Ok(Ledger::text(directory)? == self.ledger)
    }

    /// A leaf for `id` and `key`, both of which were checked.
    pub(crate) fn issue(
        &self,
        id: &SpiffeId,
        key: &impl PublicKeyData,
        now_ms: u64,
    ) -> Result<Issued, Refusal> {
        self.issue_for(id, key, LEAF_LIFE_MS, now_ms)
    }

    /// The same with a life of its own.
    pub(crate) fn issue_for(
        &self,
        id: &SpiffeId,
        key: &impl PublicKeyData,
        life_ms: u64,
        now_ms: u64,
    ) -> Result<Issued, Refusal> {
        self.issue_from(id, key, (moment(now_ms) - BACKDATE, life_ms), &[], now_ms)
    }

    fn issue_from(
        &self,
        id: &SpiffeId,
        key: &impl PublicKeyData,
        (not_before, life_ms): (OffsetDateTime, u64),
        names: &[SanType],
        now_ms: u64,
    ) -> Result<Issued, Refusal> {
        let not_after_ms = (now_ms + life_ms).min(self.not_after_ms) / 1000 * 1000;
        if not_after_ms <= now_ms {
            return Err(Refusal::AuthorityOver);
        }
        let (mut params, serial) = parameters();
        params.not_before = not_before;
        params.not_after = moment(not_after_ms);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        params.subject_alt_names.extend_from_slice(names);
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
        let id = control_id(trust_domain);
        let issued = self.issue_from(
            &id,
            &key,
            (moment(now_ms) - AUTHORITY_BACKDATE, LEAF_LIFE_MS),
            &own_names()?,
            now_ms,
        );
        let issued = issued.map_err(|refusal| match refusal {
            Refusal::Issue(error) => ControlError::Issue(error),
            _ => ControlError::AuthorityOver,
        })?;
        let key = Zeroizing::new(key.serialize_pem());
        let text = Zeroizing::new([issued.chain.as_str(), &self.root, &key].concat());
        directory.replace(directory::SERVER, &text, PRIVATE_MODE)
    }

    /// Whether the listener's certificate is of this issuing CA.
    pub(crate) fn certified_server(&self, directory: &Directory) -> bool {
        directory.read(directory::SERVER).is_ok_and(|text| text.contains(&self.issuing))
    }
}

/// The CAs of a directory in words, a line each.
pub fn authority_lines(directory: &Directory, now_ms: u64) -> Result<Vec<String>, ControlError> {
    Ok(Ledger::read(directory)?.lines(now_ms))
}

/// For clients of people, which compare names of hosts: whoever comes from elsewhere asks for localhost too.
fn own_names() -> Result<[SanType; 3], ControlError> {
    let (four, six) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    Ok([
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(four.into()),
        SanType::IpAddress(six.into()),
    ])
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

/// All roots of a directory, PEM.
pub(crate) fn trust_bundle(directory: &Directory) -> Result<String, ControlError> {
    Ledger::read(directory)?.trust_bundle(directory)
}

/// The roots' pins.
pub(crate) fn root_pins(directory: &Directory) -> Result<Vec<CaPin>, ControlError> {
    pins_of(&trust_bundle(directory)?).ok_or_else(|| no_certificate(directory, directory::ROOTS))
}

/// Pins of certificates, PEM.
pub(crate) fn pins_of(pem: &str) -> Option<Vec<CaPin>> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    certificates.map(|der| public_key_hash(&der.ok()?).map(CaPin)).collect()
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

fn start_of(pem: &str) -> Option<u64> {
    validity_of(pem, |validity| validity.not_before.timestamp())
}

fn end_of(pem: &str) -> Option<u64> {
    validity_of(pem, |validity| validity.not_after.timestamp())
}

fn validity_of(pem: &str, side: impl FnOnce(&x509_parser::certificate::Validity) -> i64) -> Option<u64> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(u64::try_from(side(certificate.validity())).ok()? * 1000)
}

fn no_certificate(directory: &Directory, name: &str) -> ControlError {
    ControlError::Content { path: directory.path(name), what: "a certificate" }
}
