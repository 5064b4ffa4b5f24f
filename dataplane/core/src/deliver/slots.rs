//! Where a target's deliveries lie while the queues refer to them: fixed slots, linked in order of arrival.

use alloc::vec::Vec;

use super::queue::Delivery;

/// Index of a slot.
pub(super) type SlotId = u32;

/// What a slot takes, bytes.
pub(super) const SLOT_BYTES: usize = size_of::<Slot>();

const NONE: SlotId = SlotId::MAX;

/// At most `entries_max` deliveries; insert, remove and the oldest are O(1).
#[derive(Debug)]
pub(super) struct Slots {
    entries: Vec<Slot>,
    entries_max: u32,
    held: u32,
    bytes: u64,
    free: SlotId,
    oldest: SlotId,
    newest: SlotId,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    delivery: Delivery,
    entered_ms: u64,
    /// Attempts that the target throttled, since it came in.
    throttled: u32,
    older: SlotId,
    /// The next free slot, when this one is free.
    newer: SlotId,
}

impl Slots {
    pub(super) fn new(entries_max: u32) -> Self {
        let entries = Vec::with_capacity(entries_max as usize);
        Self { entries, entries_max, held: 0, bytes: 0, free: NONE, oldest: NONE, newest: NONE }
    }

    /// `None` when every slot is taken.
    pub(super) fn insert(&mut self, delivery: Delivery, entered_ms: u64) -> Option<SlotId> {
        if self.held == self.entries_max {
            return None;
        }
        let slot = Slot { delivery, entered_ms, throttled: 0, older: self.newest, newer: NONE };
        let id = self.place(slot);
        match self.newest {
            NONE => self.oldest = id,
            newest => self.entries[newest as usize].newer = id,
        }
        self.newest = id;
        self.held += 1;
        self.bytes += u64::from(delivery.bytes);
        Some(id)
    }

    pub(super) fn remove(&mut self, id: SlotId) -> Delivery {
        let Slot { delivery, older, newer, .. } = self.entries[id as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        self.entries[id as usize].newer = self.free;
        self.free = id;
        self.held -= 1;
        self.bytes -= u64::from(delivery.bytes);
        delivery
    }

    pub(super) fn delivery(&self, id: SlotId) -> Delivery {
        self.entries[id as usize].delivery
    }

    pub(super) fn entered_ms(&self, id: SlotId) -> u64 {
        self.entries[id as usize].entered_ms
    }

    pub(super) fn set_attempt(&mut self, id: SlotId, attempt: u32) {
        self.entries[id as usize].delivery.attempt = attempt;
    }

    /// One attempt more that the target throttled; returns how many they are.
    pub(super) fn count_throttled(&mut self, id: SlotId) -> u32 {
        let throttled = &mut self.entries[id as usize].throttled;
        *throttled = throttled.saturating_add(1);
        *throttled
    }

    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// Sum of the deliveries' bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the longest held delivery came in, ms.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        (self.oldest != NONE).then(|| self.entries[self.oldest as usize].entered_ms)
    }

    fn place(&mut self, slot: Slot) -> SlotId {
        if self.free == NONE {
            self.entries.push(slot);
            return (self.entries.len() - 1) as SlotId;
        }
        let id = self.free;
        self.free = self.entries[id as usize].newer;
        self.entries[id as usize] = slot;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(key: u64) -> Delivery {
        Delivery { key, attempt: 0, bytes: 10, order_key: 0 }
    }

    #[test]
    fn the_oldest_is_known_whatever_order_slots_are_freed_in() {
        let mut slots = Slots::new(3);
        let [a, b, c] = [1, 2, 3].map(|key| slots.insert(delivery(key), key * 100).unwrap());
        assert_eq!(slots.insert(delivery(4), 400), None);
        assert_eq!((slots.oldest_ms(), slots.held(), slots.bytes()), (Some(100), 3, 30));
        assert_eq!(slots.remove(b).key, 2);
        assert_eq!(slots.oldest_ms(), Some(100));
        assert_eq!(slots.remove(a).key, 1);
        assert_eq!(slots.oldest_ms(), Some(300));
        let d = slots.insert(delivery(4), 400).unwrap();
        assert_eq!(slots.remove(c).key, 3);
        assert_eq!((slots.oldest_ms(), slots.bytes()), (Some(400), 10));
        assert_eq!(slots.remove(d).key, 4);
        assert_eq!((slots.oldest_ms(), slots.held(), slots.bytes()), (None, 0, 0));
    }

    #[test]
    fn freed_slots_are_used_again() {
        let mut slots = Slots::new(2);
        for key in 0..1000 {
            let id = slots.insert(delivery(key), key).unwrap();
            assert_eq!(slots.remove(id).key, key);
        }
        assert!(slots.entries.len() <= 2);
    }
}
