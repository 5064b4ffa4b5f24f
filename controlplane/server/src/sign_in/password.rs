//! Passwords: argon2id (RFC 9106) with a salt of each account and a key of the control plane.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::prelude::{BASE64_STANDARD_NO_PAD, Engine as _};
use zeroize::Zeroizing;

use super::key::SignInKey;
use super::secret::random;

/// Memory of one hash, KiB.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over it.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;
/// Shortest password, bytes.
pub(crate) const PASSWORD_BYTES_MIN: usize = 12;
/// Longest password, bytes.
pub(crate) const PASSWORD_BYTES_MAX: usize = 256;
/// Names the parameters in what is kept, so that others can follow.
const VERSION: &str = "a1";

/// What is kept of a password.
pub(super) fn hashed(key: &SignInKey, password: &str) -> String {
    let salt = random::<16>();
    let hash = hash(key, &salt, password);
    format!("{VERSION}:{}:{}", BASE64_STANDARD_NO_PAD.encode(salt), BASE64_STANDARD_NO_PAD.encode(*hash))
}

/// Whether it is the password; with nothing kept, the same work for nothing.
pub(super) fn is_right(key: &SignInKey, kept: Option<&str>, password: &str) -> bool {
    let parts = kept.and_then(parts);
    let (salt, expected) = parts.unwrap_or_default();
    let hash = hash(key, &salt, password);
    verify_slices_are_equal(&*hash, &expected).is_ok() && parts.is_some()
}

fn parts(kept: &str) -> Option<([u8; 16], [u8; 32])> {
    let (salt, hash) = kept.strip_prefix(VERSION)?.strip_prefix(':')?.split_once(':')?;
    let bytes = |text: &str| BASE64_STANDARD_NO_PAD.decode(text).ok();
    Some((bytes(salt)?.try_into().ok()?, bytes(hash)?.try_into().ok()?))
}

fn hash(key: &SignInKey, salt: &[u8; 16], password: &str) -> Zeroizing<[u8; 32]> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(32)).expect("these are within the bounds");
    let argon2 = Argon2::new_with_secret(&*key.0, Algorithm::Argon2id, Version::V0x13, params);
    let mut hash = Zeroizing::new([0; 32]);
    let hashed = argon2.expect("the key is short").hash_password_into(password.as_bytes(), salt, &mut *hash);
    hashed.expect("lengths of salt, password and hash are within the bounds");
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_is_right_and_only_with_the_key() {
        let key = SignInKey(Zeroizing::new([1; 32]));
        let kept = hashed(&key, "correct horse battery");
        assert!(is_right(&key, Some(&kept), "correct horse battery"));
        assert!(!is_right(&key, Some(&kept), "correct horse batter"));
        assert!(!is_right(&key, None, "correct horse battery"));
        assert!(!is_right(&key, None, ""));
        assert!(!is_right(&SignInKey(Zeroizing::new([2; 32])), Some(&kept), "correct horse battery"));
        assert_ne!(kept, hashed(&key, "correct horse battery"), "each has a salt of its own");
        for other in ["", "a1:", "a2:AAAA:AAAA", "a1:AAAA:AAAA", &kept[..kept.len() - 1]] {
            assert!(!is_right(&key, Some(other), "correct horse battery"), "{other}");
        }
    }
}
