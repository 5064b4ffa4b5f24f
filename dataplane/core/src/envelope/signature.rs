//! The `zen-signature` header: `k=<key id>,t=<unix ms>,n=<32 hex>,v1=<64 hex>[,v1=<64 hex>]`.
//!
//! Strict: this order, no spaces, lower-case hex, decimal without leading zeros, 1 to 4 tags.

use alloc::string::String;
use core::fmt::Write as _;

use crate::crypto::Tag;
use crate::id::{decode_hex, encode_hex, is_name};

/// Most `v1` values in one header; more than one during a key's rotation.
pub const SIGNATURE_TAGS_MAX: usize = 4;
/// Longest header value, bytes.
pub const SIGNATURE_BYTES_MAX: usize =
    2 + crate::id::NAME_BYTES_MAX + 3 + 20 + 3 + 32 + SIGNATURE_TAGS_MAX * (4 + 64);

/// A parsed `zen-signature`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureHeader<'a> {
    /// Names the key.
    pub key_id: &'a str,
    /// Unix ms at which it was signed.
    pub time_ms: u64,
    /// Fresh for each attempt.
    pub nonce: [u8; 16],
    tags: [Tag; SIGNATURE_TAGS_MAX],
    tag_count: usize,
}

/// The value is not in the one form that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed zen-signature")]
pub struct MalformedSignature;

impl<'a> SignatureHeader<'a> {
    /// Reads a header value.
    pub fn parse(value: &'a str) -> Result<Self, MalformedSignature> {
        if value.len() > SIGNATURE_BYTES_MAX {
            return Err(MalformedSignature);
        }
        let mut fields = value.split(',');
        let mut field = |name: &str| fields.next().and_then(|field| field.strip_prefix(name));
        let key_id = field("k=").filter(|id| is_name(id)).ok_or(MalformedSignature)?;
        let time_ms = field("t=").and_then(parse_decimal).ok_or(MalformedSignature)?;
        let mut nonce = [0; 16];
        let digits = field("n=").ok_or(MalformedSignature)?;
        decode_hex(digits.as_bytes(), &mut nonce).map_err(|_| MalformedSignature)?;

        let mut tags = [[0; 32]; SIGNATURE_TAGS_MAX];
        let mut tag_count = 0;
        for field in fields {
            let digits = field.strip_prefix("v1=").ok_or(MalformedSignature)?;
            let tag = tags.get_mut(tag_count).ok_or(MalformedSignature)?;
            decode_hex(digits.as_bytes(), tag).map_err(|_| MalformedSignature)?;
            tag_count += 1;
        }
        if tag_count == 0 {
            return Err(MalformedSignature);
        }
        Ok(Self { key_id, time_ms, nonce, tags, tag_count })
    }

    /// The `v1` values, 1 to [`SIGNATURE_TAGS_MAX`].
    pub fn tags(&self) -> &[Tag] {
        &self.tags[..self.tag_count]
    }
}

/// Appends a header value; `key_id` is a name and `tags` are 1 to [`SIGNATURE_TAGS_MAX`].
pub fn write_signature(out: &mut String, key_id: &str, time_ms: u64, nonce: &[u8; 16], tags: &[Tag]) {
    assert!(is_name(key_id), "a key id is a name");
    assert!((1..=SIGNATURE_TAGS_MAX).contains(&tags.len()), "1 to 4 tags");
    write!(out, "k={key_id},t={time_ms},n=").expect("a String takes any text");
    push_hex(out, nonce);
    for tag in tags {
        out.push_str(",v1=");
        push_hex(out, tag);
    }
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    let mut digits = [0; 64];
    let digits = &mut digits[..bytes.len() * 2];
    encode_hex(bytes, digits);
    out.push_str(core::str::from_utf8(digits).expect("hex digits are ASCII"));
}

/// Decimal digits without sign or leading zeros.
fn parse_decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || text.starts_with(|first: char| matches!(first, '1'..='9'));
    if !canonical {
        return None;
    }
    text.parse().ok()
}

/// Whatever parses is written back as the same bytes.
#[doc(hidden)]
pub fn fuzz_signature_header(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let Ok(header) = SignatureHeader::parse(text) else { return };
    let mut again = String::new();
    write_signature(&mut again, header.key_id, header.time_ms, &header.nonce, header.tags());
    assert_eq!(again, text);
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    fn sample() -> String {
        let mut out = String::new();
        write_signature(&mut out, "billing-1", 1_700_000_000_123, &[0xab; 16], &[[1; 32], [2; 32]]);
        out
    }

    #[test]
    fn round_trip() {
        let text = sample();
        let expected = format!(
            "k=billing-1,t=1700000000123,n={},v1={},v1={}",
            "ab".repeat(16),
            "01".repeat(32),
            "02".repeat(32)
        );
        assert_eq!(text, expected);
        let header = SignatureHeader::parse(&text).unwrap();
        assert_eq!((header.key_id, header.time_ms), ("billing-1", 1_700_000_000_123));
        assert_eq!((header.nonce, header.tags()), ([0xab; 16], &[[1; 32], [2; 32]][..]));
    }

    #[test]
    fn the_bound_is_the_longest_value() {
        let mut out = String::new();
        write_signature(&mut out, &"k".repeat(64), u64::MAX, &[0; 16], &[[0; 32]; 4]);
        assert_eq!(out.len(), SIGNATURE_BYTES_MAX);
        assert!(SignatureHeader::parse(&out).is_ok());
    }

    #[test]
    fn anything_else_is_refused() {
        let good = sample();
        for end in (0..good.len()).filter(|&end| end != good.len() - 68) {
            assert!(SignatureHeader::parse(&good[..end]).is_err(), "{end}");
        }
        let tag = format!(",v1={}", "01".repeat(32));
        for bad in [
            good.replace("k=", "K="),
            good.replace("k=billing-1,", ""),
            good.replace("t=1", "t=01"),
            good.replace("t=1", "t=+1"),
            good.replace("t=1700000000123", "t=18446744073709551616"),
            good.replace("n=ab", "n=AB"),
            good.replace(",n=", ", n="),
            good.replace("v1=", "v2="),
            good.replace("billing-1", "bill\ning"),
            good.replace("billing-1", ""),
            good.clone() + ",",
            good.clone() + &tag.repeat(3),
            " ".to_string() + &good,
        ] {
            assert_eq!(SignatureHeader::parse(&bad), Err(MalformedSignature), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_parses_is_canonical(at in 0_usize..200, byte in any::<u8>()) {
            let mut bytes = sample().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            fuzz_signature_header(&bytes);
        }
    }
}
