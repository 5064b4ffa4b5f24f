//! Ed25519 keys and signatures (RFC 8032), each signature for one purpose.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::Base64;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// A public key; base64 of its 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(pub Base64<32>);

/// A private key, by its seed.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: Zeroizing<[u8; 32]>,
}

/// A signature does not hold for this key and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not hold")]
pub struct SignatureError;

impl SigningKey {
    /// A new key.
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *seed).expect("aws-lc-rs aborts by itself when it has no randomness");
        Self::from_seed(seed)
    }

    /// The key of a seed.
    pub fn from_seed(seed: Zeroizing<[u8; 32]>) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).expect("any 32 bytes are a seed");
        Self { pair, seed }
    }

    /// Its seed, which is the key.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        let bytes = self.pair.public_key().as_ref();
        PublicKey(Base64(bytes.try_into().expect("an Ed25519 public key has 32 bytes")))
    }

    /// Signs `parts` for `purpose`.
    pub fn sign(&self, purpose: &str, parts: &[&[u8]]) -> Base64<SIGNATURE_BYTES> {
        let signature = self.pair.sign(&message(purpose, parts));
        Base64(signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes"))
    }
}

impl PublicKey {
    /// Whether the holder of this key signed `parts` for `purpose`.
    pub fn verify(
        &self,
        purpose: &str,
        parts: &[&[u8]],
        signature: &Base64<SIGNATURE_BYTES>,
    ) -> Result<(), SignatureError> {
        let key = ParsedPublicKey::new(&ED25519, self.0.0).map_err(|_| SignatureError)?;
        key.verify_sig(&message(purpose, parts), &signature.0).map_err(|_| SignatureError)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}

/// Purpose and a zero byte, then each part with its length, eight bytes, big-endian: no two lists have the same text.
pub(crate) fn message(purpose: &str, parts: &[&[u8]]) -> Vec<u8> {
    let length = purpose.len() + 1 + parts.iter().map(|part| 8 + part.len()).sum::<usize>();
    let mut text = Vec::with_capacity(length);
    text.extend(purpose.as_bytes());
    text.push(0);
    for part in parts {
        text.extend((part.len() as u64).to_be_bytes());
        text.extend(*part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_purpose_and_parts_alone() {
        let key = SigningKey::generate();
        let signature = key.sign("purpose", &[b"one", b"two"]);
        let public = key.public();
        assert_eq!(public.verify("purpose", &[b"one", b"two"], &signature), Ok(()));
        let others: [(&str, &[&[u8]]); 5] = [
            ("purpose-2", &[b"one", b"two"]),
            ("purpose", &[b"onet", b"wo"]),
            ("purpose", &[b"one", b"two", b""]),
            ("purpose", &[b"two", b"one"]),
            ("purpose", &[]),
        ];
        for (purpose, parts) in others {
            assert_eq!(public.verify(purpose, parts, &signature), Err(SignatureError), "{purpose} {parts:?}");
        }
        let other = SigningKey::generate().public();
        assert_eq!(other.verify("purpose", &[b"one", b"two"], &signature), Err(SignatureError));
    }

    #[test]
    fn a_key_is_its_seed_and_is_not_shown() {
        let key = SigningKey::generate();
        let again = SigningKey::from_seed(Zeroizing::new(*key.seed()));
        assert_eq!(again.public(), key.public());
        assert_eq!(format!("{key:?}"), "SigningKey(PublicKey(32 bytes))");
    }
}
