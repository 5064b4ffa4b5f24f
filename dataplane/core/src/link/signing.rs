//! What both ends compute over an event, with memory that is kept from batch to batch.

use alloc::string::String;
use alloc::vec::Vec;

use crate::crypto::{Mac, MacJob, Tag};
use crate::envelope::{EnvelopeError, Metadata};
use crate::event::Event;

/// Signed texts of a batch and its tags.
pub(super) struct Signing<K: 'static> {
    audience: String,
    texts: Vec<u8>,
    ends: Vec<usize>,
    jobs: Vec<MacJob<'static, K>>,
    tags: Vec<Tag>,
}

/// What is signed beside the event.
pub(super) struct Signed<'a> {
    pub(super) key_id: &'a str,
    pub(super) time_ms: u64,
    pub(super) session: [u8; 8],
    pub(super) counter: u64,
    pub(super) egress: &'a str,
}

impl<K> Signing<K> {
    pub(super) fn new() -> Self {
        Self {
            audience: String::new(),
            texts: Vec::new(),
            ends: Vec::new(),
            jobs: Vec::new(),
            tags: Vec::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.texts.clear();
        self.ends.clear();
    }

    /// Adds the signed text of the batch's next event.
    pub(super) fn push<'t, M: Mac<Key = K>>(
        &mut self,
        mac: &M,
        signed: &Signed<'_>,
        targets: impl Iterator<Item = &'t str>,
        event: &Event<'_>,
    ) -> Result<(), EnvelopeError> {
        self.write_audience(signed.egress, targets);
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&signed.session);
        nonce[8..].copy_from_slice(&signed.counter.to_be_bytes());
        let metadata = Metadata {
            key_id: signed.key_id,
            time_ms: signed.time_ms,
            nonce,
            event_id: event.id,
            endpoint: event.endpoint,
            audience: &self.audience,
            content_type: event.content_type,
            headers_digest: &mac.sha256(event.headers.as_bytes()),
        };
        metadata.write_canonical(&mut self.texts)?;
        self.ends.push(self.texts.len());
        Ok(())
    }

    /// One tag per pushed event, for the keys and bodies given in the same order, by one call of `mac`.
    pub(super) fn sign<'a, M: Mac<Key = K>>(
        &mut self,
        mac: &M,
        keys_and_bodies: impl Iterator<Item = (&'a K, &'a [u8])>,
    ) -> &[Tag] {
        let mut jobs: Vec<MacJob<'_, K>> = core::mem::take(&mut self.jobs);
        let mut start = 0;
        for (&end, (key, body)) in self.ends.iter().zip(keys_and_bodies) {
            jobs.push(MacJob { key, parts: [&self.texts[start..end], body] });
            start = end;
        }
        assert_eq!(jobs.len(), self.ends.len(), "a key and a body for each text");
        mac.sign(&jobs, &mut self.tags);
        assert_eq!(self.tags.len(), jobs.len(), "a tag for each job");
        self.jobs = emptied(jobs);
        &self.tags
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.texts.capacity() + self.ends.capacity() + self.jobs.capacity() + self.tags.capacity()
    }

    /// `<egress>:<target>,<target>`; neither mark can be part of a name.
    fn write_audience<'t>(&mut self, egress: &str, targets: impl Iterator<Item = &'t str>) {
        self.audience.clear();
        self.audience.push_str(egress);
        for (index, target) in targets.enumerate() {
            self.audience.push(if index == 0 { ':' } else { ',' });
            self.audience.push_str(target);
        }
    }
}

impl<K> core::fmt::Debug for Signing<K> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Signing(..)")
    }
}

/// The same memory without its jobs, so that their borrows end; collecting in place keeps the allocation.
fn emptied<'a, K>(mut jobs: Vec<MacJob<'_, K>>) -> Vec<MacJob<'a, K>> {
    jobs.clear();
    jobs.into_iter().map(|_| unreachable!("the jobs were cleared")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emptied_memory_is_kept() {
        let jobs: Vec<MacJob<'_, u8>> = Vec::with_capacity(256);
        assert_eq!(emptied(jobs).capacity(), 256);
    }
}
