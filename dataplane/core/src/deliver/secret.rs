//! Signing secrets as files hold them: `whsec_<base64>` (Standard Webhooks, "Signature scheme").
//!
//! Text enters, secret bytes leave, wiped when dropped. Refused: other lengths, any other encoding.

use alloc::vec;
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Shortest secret, bytes (Standard Webhooks).
pub const SECRET_BYTES_MIN: usize = 24;
/// Longest secret, bytes (Standard Webhooks); also one block of HMAC-SHA256.
pub const SECRET_BYTES_MAX: usize = 64;

const PREFIX: &str = "whsec_";
const TEXT_BYTES_MAX: usize = SECRET_BYTES_MAX.div_ceil(3) * 4;

/// Why a text is not a secret. Never says what the text was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not padded standard base64 after the optional prefix.
    #[error("secret: not base64 (expected `whsec_` and padded standard base64)")]
    Encoding,
    /// Shorter or longer than the bounds.
    #[error("secret: expected {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes before base64")]
    Length,
}

/// Reads a secret; the prefix is optional and white space around the text is ignored.
pub fn parse_secret(text: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let text = text.trim_ascii();
    let text = text.strip_prefix(PREFIX).unwrap_or(text);
    if text.len() > TEXT_BYTES_MAX {
        return Err(SecretError::Length);
    }
    // At its full size from the start: growing would leave a copy behind.
    let mut secret = Zeroizing::new(vec![0; TEXT_BYTES_MAX]);
    let bytes = STANDARD.decode_slice(text, &mut secret).map_err(|_| SecretError::Encoding)?;
    if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes) {
        return Err(SecretError::Length);
    }
    secret.truncate(bytes);
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    const TEXT: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn prefix_and_surrounding_space_are_optional() {
        let secret = parse_secret(TEXT).unwrap();
        assert_eq!(secret.len(), 24);
        assert_eq!(secret[..4], [0x31, 0xf2, 0x90, 0xf6]);
        for text in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", " whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"] {
            assert_eq!(parse_secret(text).as_ref(), Ok(&secret), "{text}");
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        for end in 0..TEXT.len() {
            assert!(parse_secret(&TEXT[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn length_and_encoding_are_checked() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        for (text, expected) in [
            (of(0), SecretError::Length),
            (of(23), SecretError::Length),
            (of(65), SecretError::Length),
            (of(66), SecretError::Length),
            (of(4096), SecretError::Length),
            (TEXT.replace('f', "_"), SecretError::Encoding),
            (TEXT.replace('f', " "), SecretError::Encoding),
            (TEXT.replace("whsec_", "whsec_whsec_"), SecretError::Encoding),
            (TEXT.replace("whsec_", "whpk_"), SecretError::Encoding),
            (of(25).replace('=', ""), SecretError::Encoding),
        ] {
            assert_eq!(parse_secret(&text), Err(expected), "{text}");
        }
        for bytes in [24, 25, 26, 63, 64] {
            assert_eq!(parse_secret(&of(bytes)).map(|secret| secret.len()), Ok(bytes));
        }
    }
}
