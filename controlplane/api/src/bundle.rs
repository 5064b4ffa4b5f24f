//! The enrollment bundle: one file that lets one agent in, once, for a short time.
//!
//! It holds the seed of an Ed25519 key of which the control plane keeps the public half alone: what leaks there
//! admits nobody. It pins the control plane's CA, so that the agent knows whom it talks to before it has an identity.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::encoding::is_name;
use crate::{Base64, Hex16, NOTE_KEY_BYTES_MAX, PublicKey, SigningKey};

/// Longest bundle, bytes.
pub const BUNDLE_BYTES_MAX: usize = 16 * 1024;
/// Most addresses of a control plane.
pub const BUNDLE_URLS_MAX: usize = 4;
/// Most CAs that are pinned: more than one while it changes.
pub const CA_PINS_MAX: usize = 4;
const VERSION: u32 = 1;
const URL_BYTES_MAX: usize = 512;
const PIN_PREFIX: &str = "sha256:";

/// SHA-256 of a CA's `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7), written `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CaPin(pub [u8; 32]);

/// A text is no pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pin is sha256: and 64 digits of lower-case hex")]
pub struct PinError;

/// What an operator hands to a new cluster.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollmentBundle {
    version: u32,
    /// Names it at the control plane; no secret.
    pub bundle_id: Hex16,
    /// Whose cluster it is.
    pub tenant: String,
    /// The cluster that is let in.
    pub cluster: String,
    /// Of all SVIDs.
    pub trust_domain: String,
    /// Where agents connect, `https://HOST:PORT`, to be tried in order.
    pub control_plane: Vec<String>,
    /// One of these CAs issued the control plane's certificate.
    pub ca_pins: Vec<CaPin>,
    /// Signs configurations.
    pub configuration_key: PublicKey,
    /// Signs the audit log's checkpoints, as notes write keys: agents are its witnesses. Bundles made before there was a log
    /// have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_key: Option<String>,
    /// Unix ms; nobody is let in from then on.
    pub expires_at_ms: u64,
    seed: Zeroizing<String>,
}

/// Why a file is no bundle. Never says what is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Too long.
    #[error("the bundle has over {BUNDLE_BYTES_MAX} bytes")]
    Length,
    /// Not the object that it should be.
    #[error("the file is no enrollment bundle (line {line}, column {column}); make a new one")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// Made by a newer control plane.
    #[error("the bundle has version {0}, this program knows version {VERSION}")]
    Version(u32),
    /// A name, address or pin that is none, or none at all.
    #[error("the bundle's {0} is missing or wrong; make a new one")]
    Field(&'static str),
}

impl EnrollmentBundle {
    /// A bundle of a new key.
    pub fn new(
        key: &SigningKey,
        (bundle_id, tenant, cluster): (Hex16, &str, &str),
        trust_domain: &str,
        (control_plane, ca_pins): (Vec<String>, Vec<CaPin>),
        configuration_key: PublicKey,
        expires_at_ms: u64,
    ) -> Result<Self, BundleError> {
        let seed = Base64(*key.seed());
        let seed = serde_json::to_value(seed).ok().and_then(|value| value.as_str().map(str::to_owned));
        Self {
            version: VERSION,
            bundle_id,
            tenant: tenant.to_owned(),
            cluster: cluster.to_owned(),
            trust_domain: trust_domain.to_owned(),
            control_plane,
            ca_pins,
            configuration_key,
            audit_key: None,
            expires_at_ms,
            seed: seed.expect("base64 is a text").into(),
        }
        .checked()
    }

    /// The same, with the key of the audit log.
    pub fn with_audit_key(self, key: String) -> Result<Self, BundleError> {
        Self { audit_key: Some(key), ..self }.checked()
    }

    /// Reads a bundle's file.
    pub fn decode(text: &[u8]) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        if text.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::Length);
        }
        let Versioned { version } = serde_json::from_slice(text).map_err(malformed)?;
        if version != VERSION {
            return Err(BundleError::Version(version));
        }
        serde_json::from_slice::<Self>(text).map_err(malformed)?.checked()
    }

    /// The text of its file, to be shown once.
    pub fn encode(&self) -> Zeroizing<String> {
        Zeroizing::new(serde_json::to_string_pretty(self).expect("texts and numbers are JSON"))
    }

    /// The key that proves who holds the bundle.
    pub fn key(&self) -> SigningKey {
        self.seed_key().expect("checked when it was read")
    }

    fn seed_key(&self) -> Option<SigningKey> {
        let seed: Base64<32> =
            serde_json::from_value(serde_json::Value::String(self.seed.to_string())).ok()?;
        Some(SigningKey::from_seed(Zeroizing::new(seed.0)))
    }

    fn checked(self) -> Result<Self, BundleError> {
        let is_url = |url: &String| {
            let host = url.strip_prefix("https://").unwrap_or_default();
            !host.is_empty()
                && url.len() <= URL_BYTES_MAX
                && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
        };
        let is_domain = |domain: &str| {
            let is_part = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
            (1..=255).contains(&domain.len()) && domain.bytes().all(is_part)
        };
        let is_key =
            |key: &String| key.len() <= NOTE_KEY_BYTES_MAX && key.bytes().all(|byte| byte.is_ascii_graphic());
        let fields = [
            ("tenant", is_name(&self.tenant)),
            ("cluster", is_name(&self.cluster)),
            ("trust_domain", is_domain(&self.trust_domain)),
            (
                "control_plane",
                is_count(self.control_plane.len(), BUNDLE_URLS_MAX) && self.control_plane.iter().all(is_url),
            ),
            ("ca_pins", is_count(self.ca_pins.len(), CA_PINS_MAX)),
            ("audit_key", self.audit_key.as_ref().is_none_or(is_key)),
            ("seed", self.seed_key().is_some()),
        ];
        match fields.into_iter().find(|(_, is_good)| !is_good) {
            Some((field, _)) => Err(BundleError::Field(field)),
            None => Ok(self),
        }
    }
}

fn is_count(count: usize, max: usize) -> bool {
    (1..=max).contains(&count)
}

fn malformed(error: serde_json::Error) -> BundleError {
    BundleError::Malformed { line: error.line(), column: error.column() }
}

impl fmt::Display for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PIN_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CaPin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let digits = text.strip_prefix(PIN_PREFIX).filter(|digits| digits.len() == 64).ok_or(PinError)?;
        let (first, second) = digits.split_at_checked(32).ok_or(PinError)?;
        let [first, second] = [first, second].map(|half| half.parse::<Hex16>().map_err(|()| PinError));
        let mut pin = [0; 32];
        pin[..16].copy_from_slice(&first?.0);
        pin[16..].copy_from_slice(&second?.0);
        Ok(Self(pin))
    }
}

impl Serialize for CaPin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CaPin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> (SigningKey, EnrollmentBundle) {
        let key = SigningKey::generate();
        let places = (vec!["https://control.example:8444".to_owned()], vec![CaPin([7; 32])]);
        let names = (Hex16([1; 16]), "acme", "edge");
        let bundle =
            EnrollmentBundle::new(&key, names, "acme.example", places, SigningKey::generate().public(), 99);
        (key, bundle.unwrap())
    }

    #[test]
    fn a_bundle_is_read_back_with_its_key() {
        let (key, bundle) = bundle();
        let read = EnrollmentBundle::decode(bundle.encode().as_bytes()).unwrap();
        assert_eq!(read.key().public(), key.public());
        assert_eq!((read.tenant.as_str(), read.cluster.as_str(), read.expires_at_ms), ("acme", "edge", 99));
        assert_eq!(read.ca_pins, [CaPin([7; 32])]);
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        let (_, bundle) = bundle();
        let text = bundle.encode();
        for (from, to, field) in [
            ("\"acme\"", "\"ac/me\"", "tenant"),
            ("\"edge\"", "\"..\"", "cluster"),
            ("\"acme.example\"", "\"Acme.example\"", "trust_domain"),
            ("https://control", "http://control", "control_plane"),
            ("https://control.example:8444", "https://control.example/../", "control_plane"),
            ("\"seed\": \"", "\"seed\": \"AA", "seed"),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, *text);
            assert_eq!(EnrollmentBundle::decode(changed.as_bytes()).unwrap_err(), BundleError::Field(field));
        }
        let later = text.replace("\"version\": 1", "\"version\": 2, \"more\": 1");
        assert_eq!(EnrollmentBundle::decode(later.as_bytes()).unwrap_err(), BundleError::Version(2));
        for changed in [
            text.replace("sha256:", "sha1:"),
            text.replace("\"version\": 1", "\"version\": 1, \"more\": 1"),
            text[..text.len() - 1].to_owned(),
            String::new(),
        ] {
            let error = EnrollmentBundle::decode(changed.as_bytes()).unwrap_err();
            assert!(matches!(error, BundleError::Malformed { .. }), "{error}");
        }
        assert_eq!(
            EnrollmentBundle::decode(&vec![b' '; BUNDLE_BYTES_MAX + 1]).unwrap_err(),
            BundleError::Length
        );
    }

    #[test]
    fn a_pin_has_one_spelling() {
        let pin = CaPin([0xab; 32]);
        assert_eq!(pin.to_string().parse(), Ok(pin));
        for text in ["", "sha256:", &pin.to_string().to_uppercase(), &format!("{pin}00"), &"ü".repeat(36)] {
            assert_eq!(text.parse::<CaPin>(), Err(PinError), "{text}");
        }
        assert_eq!(format!("sha256:{}", "é".repeat(32)).parse::<CaPin>(), Err(PinError));
    }
}
