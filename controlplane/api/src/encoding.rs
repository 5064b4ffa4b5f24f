//! Bytes in JSON: base64 for keys, nonces and files, hex for ids. Other spellings of the same bytes are refused.

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `N` bytes, written as base64 with padding (RFC 4648 section 4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Base64<const N: usize>(pub [u8; N]);

/// 128 bits, written as 32 digits of lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hex16(pub [u8; 16]);

impl<const N: usize> Serialize for Base64<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Base64<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64_STANDARD.decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| D::Error::custom(format_args!("not the base64 of {N} bytes")))
    }
}

/// Never shown: it may be a key.
impl<const N: usize> fmt::Debug for Base64<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }
}

impl fmt::Display for Hex16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hex16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hex16 {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten().ok_or(())?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl Serialize for Hex16 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex16 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| D::Error::custom("not 32 digits of lower-case hex"))
    }
}

/// A name of a tenant, cluster or member: as names of nodes are, and one step of a SPIFFE id's path.
pub fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_spelling_is_read() {
        assert_eq!(serde_json::from_str::<Base64<2>>("\"AAE=\"").unwrap(), Base64([0, 1]));
        for text in ["\"AAE\"", "\"AAF=\"", "\"AAEC\"", "\"AA E=\"", "\"\"", "1"] {
            assert!(serde_json::from_str::<Base64<2>>(text).is_err(), "{text}");
        }
        let id = "00112233445566778899aabbccddeeff";
        assert_eq!(id.parse::<Hex16>().unwrap().to_string(), id);
        for text in ["", "0", "00112233445566778899AABBCCDDEEFF", "+0112233445566778899aabbccddeeff"] {
            assert!(text.parse::<Hex16>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_one_step_of_a_path() {
        for name in ["a", "edge-1", "A.b_c"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", ".a", "a/b", "a b", "ü", &"a".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
