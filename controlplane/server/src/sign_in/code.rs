//! One-time codes of an authenticator: TOTP (RFC 6238) with SHA-1, 30 s and six digits, as all of them have it.
//!
//! Its key is derived from a salt that the database keeps and the key that it does not keep.

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::key::SignInKey;
use crate::database::integer;

const STEP_MS: u64 = 30_000;
const DIGITS: u32 = 6;
/// Steps by which a clock may be off.
const STEPS_OFF: u64 = 1;
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What an authenticator is told once.
pub(super) struct CodeKey(Zeroizing<[u8; 20]>);

impl CodeKey {
    /// Of an account's salt.
    pub(super) fn derive(key: &SignInKey, salt: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*key.0);
        let mut context = hmac::Context::with_key(&key);
        context.update(b"zen-control one-time codes\n");
        context.update(salt);
        let tag = context.sign();
        Self(Zeroizing::new(tag.as_ref()[..20].try_into().expect("SHA-256 has more")))
    }

    /// As people type it (RFC 4648 base32).
    pub(super) fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(32));
        for five in self.0.chunks(5) {
            let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            for at in (0..8).rev() {
                text.push(char::from(ALPHABET[(bits >> (5 * at) & 31) as usize]));
            }
        }
        text
    }

    /// As authenticators read it.
    pub(super) fn url(&self, person: &str) -> Zeroizing<String> {
        let text = self.text();
        Zeroizing::new(format!("otpauth://totp/Zen%20Mesh:{person}?secret={}&issuer=Zen%20Mesh", &*text))
    }

    /// The step that a code is of, if it is one of now and later than `used`: each is good once.
    pub(super) fn step(&self, code: &str, used: i64, now_ms: u64) -> Option<i64> {
        let code: String = code.chars().filter(|character| *character != ' ').collect();
        if code.len() != DIGITS as usize || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let now = now_ms / STEP_MS;
        let steps = now.saturating_sub(STEPS_OFF)..=now + STEPS_OFF;
        let mut found = None;
        for step in steps {
            let number = integer(step);
            let expected = format!("{:06}", self.code(step));
            let is_it =
                aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_bytes(), code.as_bytes());
            if is_it.is_ok() && number > used {
                found = Some(number);
            }
        }
        found
    }

    fn code(&self, step: u64) -> u32 {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &*self.0);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let at = usize::from(tag.as_ref()[19] & 15);
        let four = tag.as_ref()[at..at + 4].try_into().expect("four of twenty bytes");
        (u32::from_be_bytes(four) & 0x7fff_ffff) % 10_u32.pow(DIGITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standard() -> CodeKey {
        CodeKey(Zeroizing::new(*b"12345678901234567890"))
    }

    /// RFC 6238 appendix B, whose codes have two digits more.
    #[test]
    fn codes_are_those_of_the_standard() {
        for (seconds, code) in [
            (59_u64, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            let step = integer(seconds / 30);
            assert_eq!(standard().step(code, 0, seconds * 1000), Some(step), "{seconds}");
            assert_eq!(standard().step(code, step, seconds * 1000), None, "it was used");
            assert_eq!(standard().step(code, 0, (seconds + 30) * 1000), Some(step), "a clock is late");
            assert_eq!(standard().step(code, 0, (seconds + 90) * 1000), None, "too late");
        }
        assert_eq!(standard().step("287 082", 0, 59_000), Some(1), "as people type it");
        for bad in ["", "28708", "2870820", "28708a", "-87082", "２８７０８２"] {
            assert_eq!(standard().step(bad, 0, 59_000), None, "{bad}");
        }
    }

    #[test]
    fn the_key_is_base32() {
        assert_eq!(&*standard().text(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert!(standard().url("ann").starts_with("otpauth://totp/Zen%20Mesh:ann?secret=GEZDGNBV"));
    }
}
