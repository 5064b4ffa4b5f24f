//! Identifiers: events (UUIDv7, RFC 9562 section 5.7), endpoints (128 random bits) and names.

use core::fmt;
use core::str::FromStr;

/// Longest name of a tenant, target, node or key id, bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Whether `name` is a name: 1 to [`NAME_BYTES_MAX`] bytes of `[A-Za-z0-9._-]`.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// An event's id: a UUIDv7, made once at the ingester.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub [u8; 16]);

impl EventId {
    /// A UUIDv7 from Unix milliseconds (48 bits are kept) and 10 random bytes.
    pub fn new(now_ms: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Self(bytes)
    }
}

/// Makes the event ids of one worker: each above the one before (RFC 9562 section 6.2, method 2), also while
/// the clock was set back.
#[derive(Debug, Default)]
pub struct EventIds {
    unix_ms: u64,
    /// The 74 random bits of the newest id.
    random: u128,
}

impl EventIds {
    /// The next id, from Unix milliseconds and 10 random bytes.
    pub fn next(&mut self, unix_ms: u64, random: [u8; 10]) -> EventId {
        let fresh = random.iter().fold(0_u128, |bits, &byte| bits << 8 | u128::from(byte));
        if unix_ms > self.unix_ms {
            let (high, low) = ((fresh >> 64) & RANDOM_HIGH, fresh & RANDOM_LOW);
            (self.unix_ms, self.random) = (unix_ms, high << 62 | low);
        } else {
            // A step that cannot be guessed, small enough that the bits last for years in one millisecond.
            self.random += 1 + (fresh & u128::from(u32::MAX));
            self.unix_ms += (self.random >> 74) as u64;
            self.random &= RANDOM_HIGH << 62 | RANDOM_LOW;
        }
        let bytes = (((self.random >> 62) << 64) | (self.random & RANDOM_LOW)).to_be_bytes();
        EventId::new(self.unix_ms, *bytes.last_chunk().expect("10 of 16 bytes"))
    }
}

/// The random bits of an event id in front of its variant.
const RANDOM_HIGH: u128 = (1 << 12) - 1;
/// Those behind it.
const RANDOM_LOW: u128 = (1 << 62) - 1;

impl EventId {
    /// Its text, as [`fmt::Display`] writes it: lower-case hex digits in five groups.
    pub fn text(&self) -> [u8; 36] {
        let mut text = [b'-'; 36];
        for (bytes, at) in [(0..4, 0), (4..6, 9), (6..8, 14), (8..10, 19), (10..16, 24)] {
            encode_hex(&self.0[bytes.clone()], &mut text[at..at + bytes.len() * 2]);
        }
        text
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(core::str::from_utf8(&self.text()).expect("hex digits and dashes are ASCII"))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EventId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let text = text.as_bytes();
        if text.len() != 36 || [8, 13, 18, 23].iter().any(|&dash| text[dash] != b'-') {
            return Err(IdError::Malformed);
        }
        let mut bytes = [0; 16];
        let mut digits = text.iter().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23));
        for byte in &mut bytes {
            let high = digits.next().and_then(|(_, &digit)| hex_value(digit)).ok_or(IdError::Malformed)?;
            let low = digits.next().and_then(|(_, &digit)| hex_value(digit)).ok_or(IdError::Malformed)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

/// An endpoint's id: 128 random bits, 32 lower-case hex digits in the ingest URL `/hooks/<id>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub [u8; 16]);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        encode_hex(&self.0, &mut text);
        f.pad(core::str::from_utf8(&text).expect("hex digits are ASCII"))
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EndpointId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut bytes = [0; 16];
        decode_hex(text.as_bytes(), &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// Why a text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Wrong length, or a character that is not a lower-case hex digit.
    #[error("not a well-formed identifier")]
    Malformed,
}

/// Writes `bytes` as lower-case hex; `text` is exactly twice as long.
pub fn encode_hex(bytes: &[u8], text: &mut [u8]) {
    assert_eq!(text.len(), bytes.len() * 2);
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&HEX_PAIRS[usize::from(*byte)]);
    }
}

/// Both digits of each byte.
const HEX_PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Reads lower-case hex of exactly twice the length of `bytes`.
pub fn decode_hex(text: &[u8], bytes: &mut [u8]) -> Result<(), IdError> {
    if text.len() != bytes.len() * 2 {
        return Err(IdError::Malformed);
    }
    for (pair, byte) in text.chunks_exact(2).zip(bytes) {
        let high = hex_value(pair[0]).ok_or(IdError::Malformed)?;
        let low = hex_value(pair[1]).ok_or(IdError::Malformed)?;
        *byte = high << 4 | low;
    }
    Ok(())
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn event_id_is_the_rfc_9562_example() {
        // RFC 9562 appendix A.6: unix_ts_ms 0x017F22E279B0, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F.
        let id = EventId::new(0x017f_22e2_79b0, [0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f]);
        assert_eq!(id.to_string(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn ids_of_a_worker_ascend_whatever_the_clock_does() {
        let mut ids = EventIds::default();
        let mut last = ids.next(1000, [0xff; 10]);
        assert_eq!(last, EventId::new(1000, [0xff; 10]));
        // Within a millisecond, over the end of the random bits, forward, an hour back, and forward again.
        for (unix_ms, random) in [
            (1000, [0; 10]),
            (1000, [0xff; 10]),
            (3_601_000, [0; 10]),
            (1_000, [0; 10]),
            (1_001, [7; 10]),
            (3_600_999, [0xff; 10]),
            (3_602_000, [1; 10]),
        ] {
            let next = ids.next(unix_ms, random);
            assert!(next > last, "{last} then {next}");
            assert_eq!((next.0[6] >> 4, next.0[8] >> 6), (7, 2), "version and variant of {next}");
            last = next;
        }
        assert_eq!(last, EventId::new(3_602_000, [1; 10]));
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in [
            "",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
            "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
            "017f22e2779b0-7cc3-98c4-dc0c0c07398f",
        ] {
            assert_eq!(text.parse::<EventId>(), Err(IdError::Malformed), "{text}");
        }
        assert_eq!("00".parse::<EndpointId>(), Err(IdError::Malformed));
        assert_eq!("0123456789ABCDEF0123456789abcdef".parse::<EndpointId>(), Err(IdError::Malformed));
        assert!("0123456789abcdef0123456789abcdef".parse::<EndpointId>().is_ok());
    }

    #[test]
    fn names_have_no_separators() {
        assert!(is_name("billing-1.eu_west"));
        for name in ["", "a b", "a:b", "a,b", "a\n", "ä", &"x".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
