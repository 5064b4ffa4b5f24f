//! Batches: `count:u16`, then for each event `sequence:u64 time_ms:u64 counter:u64 tag[32] key_id targets
//! event_len:u32 event`; a name is a length byte and its bytes, targets a count byte and names.

use alloc::vec::Vec;

use super::BATCH_EVENTS_MAX;
use super::frame::Fields;
use crate::crypto::Tag;
use crate::envelope::TARGETS_MAX;
use crate::event::EVENT_BYTES_MAX;

/// A batch whose entries are whole and within their bounds; events are not decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchFrame<'a> {
    count: usize,
    entries: &'a [u8],
}

/// One entry of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchEvent<'a> {
    /// Sequence in the sender's journal; ascending on a connection, with gaps.
    pub sequence: u64,
    /// Unix ms at which it was signed.
    pub time_ms: u64,
    /// Second half of its nonce.
    pub counter: u64,
    /// Its HMAC-SHA256.
    pub tag: &'a Tag,
    /// Names the key.
    pub key_id: &'a str,
    /// Where the egress is to deliver it.
    pub targets: Targets<'a>,
    /// The event in its encoding.
    pub encoded: &'a [u8],
}

/// Names of targets, 1 to [`TARGETS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets<'a> {
    count: u8,
    names: &'a [u8],
}

impl<'a> BatchFrame<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let count = usize::from(fields.u16()?);
        if !(1..=BATCH_EVENTS_MAX).contains(&count) {
            return None;
        }
        let entries = fields.0;
        for _ in 0..count {
            BatchEvent::parse(&mut fields)?;
        }
        fields.0.is_empty().then_some(Self { count, entries })
    }

    /// How many events it has, 1 to [`BATCH_EVENTS_MAX`].
    pub fn count(&self) -> usize {
        self.count
    }

    /// Its entries, in order.
    pub fn events(&self) -> impl Iterator<Item = BatchEvent<'a>> + use<'a> {
        let mut fields = Fields(self.entries);
        (0..self.count).map(move |_| BatchEvent::parse(&mut fields).expect("entries were parsed before"))
    }
}

impl<'a> BatchEvent<'a> {
    fn parse(fields: &mut Fields<'a>) -> Option<Self> {
        let (sequence, time_ms, counter) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (tag, key_id) = (fields.array()?, fields.name()?);
        let targets = Targets::parse(fields)?;
        let len = fields.u32()? as usize;
        if len > EVENT_BYTES_MAX {
            return None;
        }
        Some(Self { sequence, time_ms, counter, tag, key_id, targets, encoded: fields.slice(len)? })
    }

    /// Appends an entry; names and counts are within their bounds.
    pub(super) fn write<'t>(&self, targets: impl ExactSizeIterator<Item = &'t str>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.time_ms.to_le_bytes());
        out.extend_from_slice(&self.counter.to_le_bytes());
        out.extend_from_slice(self.tag);
        push_name(out, self.key_id);
        out.push(targets.len() as u8);
        targets.for_each(|target| push_name(out, target));
        out.extend_from_slice(&(self.encoded.len() as u32).to_le_bytes());
        out.extend_from_slice(self.encoded);
    }
}

impl<'a> Targets<'a> {
    /// No targets; never on the wire.
    pub(super) const NONE: Self = Self { count: 0, names: &[] };

    fn parse(fields: &mut Fields<'a>) -> Option<Self> {
        let count = fields.u8()?;
        if !(1..=TARGETS_MAX).contains(&usize::from(count)) {
            return None;
        }
        let start = fields.0;
        for _ in 0..count {
            fields.name()?;
        }
        Some(Self { count, names: &start[..start.len() - fields.0.len()] })
    }

    /// The names, in the sender's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a str> + Clone + use<'a> {
        let mut fields = Fields(self.names);
        (0..self.count).map(move |_| fields.name().expect("names were parsed before"))
    }
}

fn push_name(out: &mut Vec<u8>, name: &str) {
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}
