//! Index records: seen keys in a compact form, for when the events themselves are no longer kept.
//!
//! `check[8] count:u32 { key[16] event_id[16] time_ms:u64 }`, integers little-endian. `check` names the
//! hash key that the keys were made with; under another they would match nothing.

use alloc::vec::Vec;

use super::{EventKey, KeyHasher};
use crate::event::EVENT_BYTES_MAX;
use crate::id::EventId;

/// Most entries of one record.
pub const INDEX_ENTRIES_MAX: usize = 4096;

const HEAD_BYTES: usize = 12;
const ENTRY_BYTES: usize = 40;
// A journal that takes the longest event takes the longest index record.
const _: () = assert!(HEAD_BYTES + INDEX_ENTRIES_MAX * ENTRY_BYTES <= EVENT_BYTES_MAX);

/// A seen key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The key.
    pub key: EventKey,
    /// The first event that had it.
    pub event_id: EventId,
    /// When that was durable, Unix ms, rounded up by less than 0.1 % of the window.
    pub time_ms: u64,
}

/// Why a payload is not an index record for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Count and length disagree.
    #[error("dedupe index: count and length disagree")]
    Length,
    /// More than [`INDEX_ENTRIES_MAX`] entries.
    #[error("dedupe index: too many entries")]
    Bound,
    /// Its keys were made with another hash key.
    #[error("dedupe index: made with another hash key")]
    HashKey,
}

/// Appends a record of up to [`INDEX_ENTRIES_MAX`] entries, taken from `entries`, and returns how many;
/// nothing is appended when there are none.
pub fn encode_index(
    out: &mut Vec<u8>,
    hasher: &KeyHasher,
    entries: &mut impl Iterator<Item = IndexEntry>,
) -> usize {
    let start = out.len();
    out.extend_from_slice(&hasher.check());
    out.extend_from_slice(&[0; 4]);
    let mut count = 0;
    for entry in entries.take(INDEX_ENTRIES_MAX) {
        out.extend_from_slice(&entry.key.0);
        out.extend_from_slice(&entry.event_id.0);
        out.extend_from_slice(&entry.time_ms.to_le_bytes());
        count += 1;
    }
    if count == 0 {
        out.truncate(start);
        return 0;
    }
    out[start + 8..start + HEAD_BYTES].copy_from_slice(&(count as u32).to_le_bytes());
    count
}

/// A record, borrowed from its payload.
#[derive(Clone, Copy, Debug)]
pub struct IndexRecord<'a> {
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> IndexRecord<'a> {
    /// Reads a payload.
    pub fn decode(payload: &'a [u8], hasher: &KeyHasher) -> Result<Self, IndexError> {
        let (head, rest) = payload.split_first_chunk::<HEAD_BYTES>().ok_or(IndexError::Length)?;
        let (check, count) = head.split_at(8);
        let count = u32::from_le_bytes(count.try_into().expect("4 of 12 bytes")) as usize;
        if count > INDEX_ENTRIES_MAX {
            return Err(IndexError::Bound);
        }
        let (entries, rest) = rest.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() || entries.len() != count {
            return Err(IndexError::Length);
        }
        if check != hasher.check() {
            return Err(IndexError::HashKey);
        }
        Ok(Self { entries })
    }

    /// The entries, in order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = IndexEntry> + use<'a> {
        self.entries.iter().map(|bytes| IndexEntry {
            key: EventKey(bytes[..16].try_into().expect("16 of 40 bytes")),
            event_id: EventId(bytes[16..32].try_into().expect("16 of 40 bytes")),
            time_ms: u64::from_le_bytes(bytes[32..].try_into().expect("8 of 40 bytes")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::encode_hex;

    fn entry(n: u64) -> IndexEntry {
        IndexEntry { key: EventKey([n as u8; 16]), event_id: EventId([2; 16]), time_ms: n << 33 }
    }

    #[test]
    fn every_truncation_extension_and_other_hash_key_is_refused() {
        let hasher = KeyHasher::new([1; 16]);
        let mut payload = Vec::new();
        assert_eq!(encode_index(&mut payload, &hasher, &mut (0..3).map(entry)), 3);
        let record = IndexRecord::decode(&payload, &hasher).unwrap();
        assert!(record.entries().eq((0..3).map(entry)));
        for end in 0..payload.len() {
            assert_eq!(
                IndexRecord::decode(&payload[..end], &hasher).err(),
                Some(IndexError::Length),
                "{end}"
            );
        }
        let other = KeyHasher::new([2; 16]);
        assert_eq!(IndexRecord::decode(&payload, &other).err(), Some(IndexError::HashKey));
        payload.push(0);
        assert_eq!(IndexRecord::decode(&payload, &hasher).err(), Some(IndexError::Length));
    }

    #[test]
    fn the_record_in_the_documentation_is_this_one() {
        let entry =
            IndexEntry { key: EventKey([2; 16]), event_id: EventId([3; 16]), time_ms: 1_700_000_000_000 };
        let mut payload = Vec::new();
        encode_index(&mut payload, &KeyHasher::new([1; 16]), &mut [entry].into_iter());
        let mut text = [0; 104];
        encode_hex(&payload, &mut text);
        let page = include_str!("../../../../docs/idempotency.md");
        let lines: Vec<&str> = text.chunks(64).map(|line| core::str::from_utf8(line).unwrap()).collect();
        assert!(page.contains(&lines.join("\n")), "{lines:#?}");
    }

    #[test]
    fn a_record_ends_at_its_bound_and_the_next_goes_on() {
        let hasher = KeyHasher::new([1; 16]);
        let mut entries = (0..=INDEX_ENTRIES_MAX as u64).map(entry);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        assert_eq!(encode_index(&mut first, &hasher, &mut entries), INDEX_ENTRIES_MAX);
        assert_eq!(encode_index(&mut second, &hasher, &mut entries), 1);
        assert_eq!(encode_index(&mut second, &hasher, &mut entries), 0);
        let record = IndexRecord::decode(&second, &hasher).unwrap();
        assert!(record.entries().eq([entry(INDEX_ENTRIES_MAX as u64)]));
        first[8..12].copy_from_slice(&(INDEX_ENTRIES_MAX as u32 + 1).to_le_bytes());
        first.extend_from_slice(&[0; ENTRY_BYTES]);
        assert_eq!(IndexRecord::decode(&first, &hasher).err(), Some(IndexError::Bound));
    }
}
