//! A provider's keys (RFC 7517): JSON in, keys that verify out. Keys of kinds that are not ours are passed over.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::Deserialize;

/// Most keys of a provider.
const KEYS_MAX: usize = 64;
/// Longest number of a key, bytes: RSA of 8192 bits.
const KEY_BYTES_MAX: usize = 1024;

/// Algorithms that are taken: the list, whatever a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

/// A key that verifies.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) id: Option<String>,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256([u8; 65]),
    Ed25519([u8; 32]),
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Algorithm {
    /// Of a token's header.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

impl Key {
    /// The keys of a set; none if it is no set.
    pub(super) fn read_all(text: &[u8]) -> Option<Vec<Self>> {
        let set: RawSet = serde_json::from_slice(text).ok()?;
        if set.keys.len() > KEYS_MAX {
            return None;
        }
        Some(
            set.keys
                .into_iter()
                .filter_map(|key| serde_json::from_value(key).ok().and_then(Self::read))
                .collect(),
        )
    }

    fn read(raw: RawKey) -> Option<Self> {
        if raw.usage.is_some_and(|usage| usage != "sig") {
            return None;
        }
        let bytes = |text: Option<String>| {
            let text = text.filter(|text| text.len() <= KEY_BYTES_MAX * 2)?;
            BASE64_URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() <= KEY_BYTES_MAX)
        };
        let material = match (raw.kty.as_str(), raw.crv.as_deref()) {
            ("RSA", None) => Material::Rsa { modulus: bytes(raw.n)?, exponent: bytes(raw.e)? },
            ("EC", Some("P-256")) => {
                let point = [vec![4], bytes(raw.x)?, bytes(raw.y)?].concat();
                Material::P256(point.try_into().ok()?)
            }
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes(raw.x)?.try_into().ok()?),
            _ => return None,
        };
        let key = Self { id: raw.kid, material };
        let is_for_it = raw.alg.is_none_or(|name| Algorithm::named(&name) == Some(key.algorithm()));
        is_for_it.then_some(key)
    }

    /// The only one that it is for.
    pub(super) fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
            Material::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// Whether it made a signature.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.material {
            Material::Rsa { modulus, exponent } => {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Material::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature),
        };
        verified.is_ok()
    }
}
