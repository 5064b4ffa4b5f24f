//! Secrets and public keys of an endpoint, each with its place in the configured list. Secrets are wiped
//! when dropped and never shown.

use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use super::{SECRET_BYTES_MAX, SECRETS_MAX, SchemeError};

/// Bytes of an Ed25519 public key.
pub(super) const PUBLIC_KEY_BYTES: usize = 32;

/// A shared secret, 1 to [`SECRET_BYTES_MAX`] bytes.
pub(super) struct Secret {
    /// Place in the configured list.
    pub(super) index: usize,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

impl Secret {
    pub(super) fn new(index: usize, bytes: Zeroizing<Vec<u8>>) -> Result<Self, SchemeError> {
        match bytes.len() {
            0 => Err(SchemeError::EmptySecret { index }),
            1..=SECRET_BYTES_MAX => Ok(Self { index, bytes }),
            _ => Err(SchemeError::LongSecret { index }),
        }
    }

    /// All of a list, in its order.
    pub(super) fn list(secrets: &[Vec<u8>]) -> Result<Vec<Self>, SchemeError> {
        check_count(secrets.len())?;
        let copies = secrets.iter().map(|secret| Zeroizing::new(secret.clone()));
        copies.enumerate().map(|(index, secret)| Self::new(index, secret)).collect()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("index", &self.index).finish_non_exhaustive()
    }
}

/// An Ed25519 public key.
#[derive(Clone, Copy, Debug)]
pub(super) struct PublicKey {
    /// Place in the configured list.
    pub(super) index: usize,
    pub(super) bytes: [u8; PUBLIC_KEY_BYTES],
}

/// Refuses a list of no secrets or too many.
pub(super) fn check_count(secrets: usize) -> Result<(), SchemeError> {
    match secrets {
        0 => Err(SchemeError::NoSecret),
        1..=SECRETS_MAX => Ok(()),
        _ => Err(SchemeError::TooManySecrets),
    }
}
