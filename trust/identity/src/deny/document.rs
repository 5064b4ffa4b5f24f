//! The deny list as it is written: JSON in, entries out.
//!
//! ```json
//! {"version": 1, "entries": [{"spiffe_id": "spiffe://example.org/a", "reason": "left", "until_ms": 1}]}
//! ```
//!
//! Each entry names one of `serial`, `spki_sha256` (both in hex) and `spiffe_id`. Refused: another version,
//! unknown and doubled members, entries that name nothing or two things, and what is beyond the bounds.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{DenyEntry, DenyList};
use crate::SpiffeId;

/// Longest deny list, bytes.
pub const DENY_LIST_BYTES_MAX: usize = 1 << 20;
/// Most entries of a deny list.
pub const DENY_LIST_ENTRIES_MAX: usize = 100_000;
/// What the list in force and the next one may take, bytes: its text, what is copied out of it, and a table that is
/// moved once more while it grows.
pub const DENY_LIST_MEMORY_BYTES: usize =
    3 * DENY_LIST_BYTES_MAX + ENTRIES_LIKELY_MAX.next_power_of_two() * 5 / 2 * ENTRY_BYTES;
/// Longest reason, bytes.
const REASON_BYTES_MAX: usize = 256;
/// Longest serial number: twenty octets (RFC 5280 section 4.1.2.2) and a sign, in hex.
const SERIAL_DIGITS_MAX: usize = 42;
/// The only version there is.
const VERSION: u64 = 1;
/// As short as an entry can be.
const SHORTEST: &str = "{\"serial\":\"00\"},";
const ENTRIES_LIKELY_MAX: usize = DENY_LIST_BYTES_MAX / SHORTEST.len();
const ENTRY_BYTES: usize = size_of::<(DenyEntry, u64)>();
/// So the size of the file is what bounds the entries, and the count is the format's word on it.
const _: () = assert!(ENTRIES_LIKELY_MAX < DENY_LIST_ENTRIES_MAX);

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(rename = "version", deserialize_with = "version")]
    _version: (),
    #[serde(deserialize_with = "entries")]
    pub(super) entries: DenyList,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default, deserialize_with = "present")]
    serial: Option<String>,
    #[serde(default, deserialize_with = "present")]
    spki_sha256: Option<String>,
    #[serde(default, deserialize_with = "present")]
    spiffe_id: Option<String>,
    #[serde(default, deserialize_with = "present")]
    reason: Option<String>,
    #[serde(default, deserialize_with = "present")]
    until_ms: Option<u64>,
}

impl Entry {
    fn check(self) -> Result<(DenyEntry, u64), Fault> {
        if self.reason.is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
            return Err(Fault::Reason);
        }
        let entry = match (self.serial, self.spki_sha256, self.spiffe_id) {
            (Some(serial), None, None) => DenyEntry::Serial(serial_of(&serial).ok_or(Fault::Serial)?),
            (None, Some(hash), None) => DenyEntry::PublicKey(hash_of(&hash).ok_or(Fault::PublicKey)?),
            (None, None, Some(id)) => DenyEntry::Id(SpiffeId::parse(&id).map_err(|_| Fault::Id)?),
            _ => return Err(Fault::NotOne),
        };
        Ok((entry, self.until_ms.unwrap_or(u64::MAX)))
    }
}

/// What is wrong with an entry; line and column come with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("an entry names one of serial, spki_sha256 and spiffe_id")]
    NotOne,
    #[error("serial is not 2 to 42 hex digits, two for each byte")]
    Serial,
    #[error("spki_sha256 is not 64 hex digits")]
    PublicKey,
    #[error("spiffe_id is not a SPIFFE id")]
    Id,
    #[error("reason is over 256 bytes")]
    Reason,
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = DenyList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut written: A) -> Result<DenyList, A::Error> {
        let mut list = Vec::new();
        for _ in 0..DENY_LIST_ENTRIES_MAX {
            let Some(entry) = written.next_element::<Entry>()? else { return Ok(DenyList::of(list)) };
            list.push(entry.check().map_err(A::Error::custom)?);
        }
        match written.next_element::<IgnoredAny>()? {
            None => Ok(DenyList::of(list)),
            Some(_) => Err(A::Error::custom("there are more than 100000 entries")),
        }
    }
}

fn entries<'de, D: Deserializer<'de>>(from: D) -> Result<DenyList, D::Error> {
    from.deserialize_seq(Entries)
}

fn version<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    let version = u64::deserialize(from)?;
    if version == VERSION { Ok(()) } else { Err(D::Error::custom("version is not 1")) }
}

/// A member that is there holds a value; null is none.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn serial_of(text: &str) -> Option<Vec<u8>> {
    let fits = !text.is_empty() && text.len() <= SERIAL_DIGITS_MAX && text.len().is_multiple_of(2);
    let digits = text.as_bytes();
    fits.then(|| digits.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect())?
}

fn hash_of(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 2 * hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(hash)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

    fn list(entries: &str) -> Result<DenyList, String> {
        let text = format!("{{\"version\":1,\"entries\":[{entries}]}}");
        DenyList::from_json(text.as_bytes()).map_err(|error| error.to_string())
    }

    fn id(text: &str) -> DenyEntry {
        DenyEntry::Id(SpiffeId::parse(text).expect("a SPIFFE id"))
    }

    #[test]
    fn entries_are_read() {
        let key = hash_of(HASH).expect("64 digits");
        assert_eq!((key[1], key[31]), (0x11, 0xff));
        let table = [
            ("", vec![]),
            ("{\"serial\":\"00f00d\"}", vec![(DenyEntry::Serial(vec![0xf0, 0x0d]), u64::MAX)]),
            ("{\"serial\":\"F00D\",\"until_ms\":7}", vec![(DenyEntry::Serial(vec![0xf0, 0x0d]), 7)]),
            ("{\"serial\":\"00\"}", vec![(DenyEntry::Serial(vec![]), u64::MAX)]),
            (
                "{\"spiffe_id\":\"spiffe://a.b/c\",\"reason\":\"left\"}",
                vec![(id("spiffe://a.b/c"), u64::MAX)],
            ),
            // Of two for the same the one that ends later counts, in either order.
            (
                "{\"serial\":\"01\",\"until_ms\":9},{\"serial\":\"0001\",\"until_ms\":5}",
                vec![(DenyEntry::Serial(vec![1]), 9)],
            ),
            (
                "{\"serial\":\"01\",\"until_ms\":5},{\"serial\":\"01\"}",
                vec![(DenyEntry::Serial(vec![1]), u64::MAX)],
            ),
        ];
        for (text, expected) in table {
            let read = list(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read.entries, expected, "{text}");
        }
        let read = list(&format!("{{\"spki_sha256\":\"{HASH}\"}}")).expect("a hash in hex");
        assert_eq!(read, DenyList::new([DenyEntry::PublicKey(key)]));
        let reason = "r".repeat(REASON_BYTES_MAX);
        assert!(list(&format!("{{\"serial\":\"01\",\"reason\":\"{reason}\"}}")).is_ok());
    }

    #[test]
    fn each_fault_is_named() {
        let long = format!("{{\"serial\":\"{}\"}}", "0".repeat(SERIAL_DIGITS_MAX + 2));
        let reason = format!("{{\"serial\":\"01\",\"reason\":\"{}\"}}", "r".repeat(REASON_BYTES_MAX + 1));
        let table = [
            ("{}", "names one of"),
            ("{\"reason\":\"nobody\"}", "names one of"),
            ("{\"serial\":\"01\",\"spiffe_id\":\"spiffe://a.b/c\"}", "names one of"),
            ("{\"serial\":\"\"}", "serial is not"),
            ("{\"serial\":\"1\"}", "serial is not"),
            ("{\"serial\":\"0x\"}", "serial is not"),
            ("{\"serial\":\"+1\"}", "serial is not"),
            (&*long, "serial is not"),
            ("{\"serial\":1}", "expected a string"),
            ("{\"serial\":null}", "expected a string"),
            ("{\"serial\":\"01\",\"serial\":\"01\"}", "duplicate field"),
            ("{\"spki_sha256\":\"00\"}", "spki_sha256 is not"),
            ("{\"spiffe_id\":\"spiffe://A/c\"}", "spiffe_id is not"),
            ("{\"spiffe_id\":\"spiffe://a/*\"}", "spiffe_id is not"),
            ("{\"serial\":\"01\",\"until\":1}", "unknown field"),
            ("{\"serial\":\"01\",\"until_ms\":-1}", "expected u64"),
            ("{\"serial\":\"01\",\"until_ms\":1.5}", "expected u64"),
            (&*reason, "reason is over"),
            ("\"serial\"", "expected struct Entry"),
        ];
        for (text, expected) in table {
            let error = list(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        let table = [
            ("", "EOF"),
            ("{\"entries\":[]}", "missing field `version`"),
            ("{\"version\":1}", "missing field `entries`"),
            ("{\"version\":2,\"entries\":[]}", "version is not 1"),
            ("{\"version\":\"1\",\"entries\":[]}", "expected u64"),
            ("{\"version\":1,\"entries\":{}}", "a list of entries"),
            ("{\"version\":1,\"entries\":[],\"more\":1}", "unknown field"),
            ("{\"version\":1,\"entries\":[]} x", "trailing"),
        ];
        for (text, expected) in table {
            let error = DenyList::from_json(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_list_of_a_mebibyte_is_read_and_a_longer_one_is_not() {
        let entries = ENTRIES_LIKELY_MAX - 100;
        let text = format!("{{\"version\":1,\"entries\":[{}", SHORTEST.repeat(entries));
        let mut text = format!("{}]}}", text.trim_end_matches(','));
        text.push_str(&" ".repeat(DENY_LIST_BYTES_MAX - text.len()));
        assert!(DenyList::from_json(text.as_bytes()).is_ok());
        text.push(' ');
        let error = DenyList::from_json(text.as_bytes()).expect_err("a byte too long");
        assert_eq!(error.to_string(), "the deny list is over 1 MiB");
    }
}
