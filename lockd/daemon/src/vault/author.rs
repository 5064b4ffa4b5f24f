//! Who sealed a value: an Ed25519 signature (RFC 8032) inside the envelope, since age itself names no sender.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};
use base64::prelude::{BASE64_STANDARD, Engine};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

const PUBLIC_KEY_BYTES: usize = 32;
const LABEL: &str = "PRIVATE KEY";
const PEM_LINE: usize = 64;

/// A public key of somebody who seals; written as base64 of its 32 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author([u8; PUBLIC_KEY_BYTES]);

/// The private key of an author, PKCS #8 (RFC 8410).
pub struct AuthorKey {
    pair: Ed25519KeyPair,
    pem: Zeroizing<String>,
}

/// What is wrong with an author.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorError {
    /// Not a public key.
    #[error("an author is the base64 of an Ed25519 public key, 32 bytes")]
    PublicKey,
    /// Not a private key.
    #[error("the author's key is no Ed25519 key in PKCS #8 PEM")]
    PrivateKey,
    /// An author without a signature, or the other way round.
    #[error("author and signature belong together")]
    Incomplete,
    /// It does not verify.
    #[error("it does not hold for this author, place and value")]
    Signature,
}

impl Author {
    /// Whether `signature` is this author's over `message`.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), AuthorError> {
        let key = ParsedPublicKey::new(&ED25519, self.0).map_err(|_| AuthorError::PublicKey)?;
        key.verify_sig(message, signature).map_err(|_| AuthorError::Signature)
    }
}

impl AuthorKey {
    /// A new key.
    pub fn generate() -> Self {
        let document = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1());
        let document = document.expect("aws-lc-rs aborts by itself when it has no randomness");
        let body = Zeroizing::new(BASE64_STANDARD.encode(document.as_ref()));
        let mut pem = Zeroizing::new(format!("-----BEGIN {LABEL}-----\n"));
        for line in body.as_bytes().chunks(PEM_LINE) {
            pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Self::from_pem(&pem).expect("it was just made")
    }

    /// Reads PKCS #8 PEM, as `keygen --author` or `openssl genpkey -algorithm ed25519` write it.
    pub fn from_pem(pem: &str) -> Result<Self, AuthorError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| AuthorError::PrivateKey)?;
        let pair = Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| AuthorError::PrivateKey)?;
        Ok(Self { pair, pem: Zeroizing::new(pem.to_owned()) })
    }

    /// The PEM text, to be written to a file of mode 0400.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Whom policy names.
    pub fn author(&self) -> Author {
        Author(self.pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes"))
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for AuthorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuthorKey").field(&self.author()).finish()
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl FromStr for Author {
    type Err = AuthorError;

    fn from_str(text: &str) -> Result<Self, AuthorError> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| AuthorError::PublicKey)?;
        bytes.try_into().map(Self).map_err(|_| AuthorError::PublicKey)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn keys_are_those_of_openssl() {
        let made = Command::new("openssl").args(["genpkey", "-algorithm", "ed25519"]).output().unwrap();
        let key = AuthorKey::from_pem(std::str::from_utf8(&made.stdout).unwrap()).unwrap();
        let signature = key.sign(b"message");
        assert_eq!(key.author().verify(b"message", &signature), Ok(()));
        assert_eq!(key.author().verify(b"massage", &signature), Err(AuthorError::Signature));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key.pem");
        std::fs::write(&file, AuthorKey::generate().pem()).unwrap();
        let read = Command::new("openssl").args(["pkey", "-noout", "-in"]).arg(file).status().unwrap();
        assert!(read.success(), "openssl reads ours");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!("".parse::<Author>(), Err(AuthorError::PublicKey));
        assert_eq!("AAAA".parse::<Author>(), Err(AuthorError::PublicKey));
        assert!(matches!(AuthorKey::from_pem("AGE-SECRET-KEY-1"), Err(AuthorError::PrivateKey)));
        let author = AuthorKey::generate().author();
        assert_eq!(author.to_string().parse(), Ok(author));
    }
}
