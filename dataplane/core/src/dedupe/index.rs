//! Where a key's entry lies: an open-addressing table of 32-bit slots in lines of 64 bytes.
//!
//! A slot holds an entry's position and as many bits of its key as there is room for, so that a lookup
//! reads one line and seldom an entry that is another's. The last slot of a line counts the keys that
//! found it full and went on: a lookup ends where it is 0, and removing leaves no tombstone.

use alloc::vec;
use alloc::vec::Vec;

use super::EventKey;

const SLOTS: usize = 15;
/// Keys per line when the table is as full as it may be: 80 %.
const KEYS_PER_LINE: u32 = 12;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line {
    /// 0 is free, else key bits above and position + 1 below.
    slots: [u32; SLOTS],
    /// Keys that went past this line.
    passed: u32,
}

const _: () = assert!(size_of::<Line>() == 64);

const EMPTY: Line = Line { slots: [0; SLOTS], passed: 0 };

impl Line {
    /// A bit for each slot that is `tag` under `mask`; without branches, so that it is done for many at once.
    fn candidates(&self, tag: u32, mask: u32) -> u32 {
        let slots = self.slots.iter().enumerate();
        slots.fold(0, |found, (at, slot)| found | u32::from(slot & mask == tag) << at)
    }

    /// Where `slot` is; 0 is a free one.
    fn place_of(&self, slot: u32) -> Option<usize> {
        let found = self.candidates(slot, u32::MAX);
        (found != 0).then(|| found.trailing_zeros() as usize)
    }
}

/// Finds positions below `keys_max` by key.
#[derive(Debug)]
pub(super) struct Index {
    lines: Vec<Line>,
    position_bits: u32,
    held: u32,
}

/// Bytes of the index for so many keys.
pub(super) const fn memory_bytes(keys_max: u32) -> usize {
    keys_max.div_ceil(KEYS_PER_LINE) as usize * size_of::<Line>()
}

impl Index {
    pub(super) fn new(keys_max: u32) -> Self {
        let lines = vec![EMPTY; keys_max.div_ceil(KEYS_PER_LINE) as usize];
        // Positions + 1 are 1 to `keys_max`.
        Self { lines, position_bits: u32::BITS - keys_max.leading_zeros(), held: 0 }
    }

    /// How many keys it holds.
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// The position of `key`; `is_it` says whether a candidate is that key's entry.
    pub(super) fn find(&self, key: &EventKey, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let (mut at, tag) = (self.home(key), self.tag(key));
        loop {
            let line = &self.lines[at];
            let mut candidates = line.candidates(tag, !self.position_mask());
            while candidates != 0 {
                let slot = line.slots[candidates.trailing_zeros() as usize];
                candidates &= candidates - 1;
                // A free slot looks like a key whose bits are all 0.
                let position = (slot & self.position_mask()).wrapping_sub(1);
                if slot != 0 && is_it(position) {
                    return Some(position);
                }
            }
            if line.passed == 0 {
                return None;
            }
            at = self.after(at);
        }
    }

    /// Adds a key that is not there, at a position that no other key has.
    pub(super) fn insert(&mut self, key: &EventKey, position: u32) {
        assert!((self.held as usize) < self.lines.len() * SLOTS, "there are more slots than positions");
        let (mut at, slot) = (self.home(key), self.slot(key, position));
        loop {
            let line = &mut self.lines[at];
            if let Some(free) = line.place_of(0) {
                line.slots[free] = slot;
                self.held += 1;
                return;
            }
            line.passed += 1;
            at = self.after(at);
        }
    }

    /// Removes `key` from `position`; false if it is not there.
    pub(super) fn remove(&mut self, key: &EventKey, position: u32) -> bool {
        let (home, slot) = (self.home(key), self.slot(key, position));
        let mut at = home;
        let taken = loop {
            let line = &self.lines[at];
            if let Some(taken) = line.place_of(slot) {
                break taken;
            }
            if line.passed == 0 {
                return false;
            }
            at = self.after(at);
        };
        self.lines[at].slots[taken] = 0;
        self.held -= 1;
        let mut past = home;
        while past != at {
            self.lines[past].passed -= 1;
            past = self.after(past);
        }
        true
    }

    pub(super) fn clear(&mut self) {
        self.lines.fill(EMPTY);
        self.held = 0;
    }

    /// Bytes in use.
    pub(super) fn memory_bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }

    fn home(&self, key: &EventKey) -> usize {
        ((u128::from(key.low()) * self.lines.len() as u128) >> 64) as usize
    }

    /// Bits that neither choose the line nor the shard.
    fn tag(&self, key: &EventKey) -> u32 {
        (key.high() as u32) & !self.position_mask()
    }

    fn slot(&self, key: &EventKey, position: u32) -> u32 {
        debug_assert!(position < self.position_mask());
        self.tag(key) | (position + 1)
    }

    fn position_mask(&self) -> u32 {
        (1 << self.position_bits) - 1
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.lines.len() { 0 } else { at + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedupe::KeyHasher;
    use crate::id::EventId;

    #[test]
    fn a_full_index_finds_every_key_near_its_home_and_ends_as_it_began() {
        const KEYS: u32 = 100_000;
        let hasher = KeyHasher::new([7; 16]);
        let keys: Vec<EventKey> =
            (0..KEYS).map(|n| hasher.event_key(EventId(u128::from(n).to_be_bytes()))).collect();
        let mut index = Index::new(KEYS);
        for (position, key) in keys.iter().enumerate() {
            index.insert(key, position as u32);
        }
        assert_eq!(index.held(), KEYS);
        for (position, key) in keys.iter().enumerate() {
            assert_eq!(index.find(key, |at| keys[at as usize] == *key), Some(position as u32));
        }
        let full = index.lines.iter().filter(|line| line.passed > 0).count();
        assert!(full * 4 < index.lines.len(), "{full} of {} lines send lookups on", index.lines.len());
        for (position, key) in keys.iter().enumerate().rev() {
            assert!(index.remove(key, position as u32));
            assert!(!index.remove(key, position as u32));
        }
        assert!(index.lines.iter().all(|line| line.passed == 0 && line.slots == [0; SLOTS]));
    }

    /// Keys with one home: what an attacker could do to a table whose hash he knew.
    #[test]
    fn keys_of_one_home_spill_over_and_stay_found() {
        let keys: Vec<EventKey> = (0..48_u8).map(|n| EventKey([n; 16].map(|_| 0xff - n % 2))).collect();
        let mut index = Index::new(48);
        (0..48).for_each(|position| index.insert(&keys[position as usize], position));
        for position in (0..48).step_by(3) {
            assert!(index.remove(&keys[position as usize], position));
        }
        for position in 0..48 {
            let found = index.find(&keys[position as usize], |at| at == position);
            assert_eq!(found.is_some(), position % 3 != 0);
        }
    }
}
