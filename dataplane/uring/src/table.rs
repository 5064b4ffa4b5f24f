//! A bounded table whose keys carry a generation: a key of a removed entry finds nothing.

/// Most entries of one table: an index takes 24 bits of `Key::pack`.
pub(crate) const TABLE_ENTRIES_MAX: u32 = 1 << 24;

/// Where an entry is, and which of the entries that were ever there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Key {
    /// One number of kind (8 bits), index (24) and generation (32), for the kernel to give back.
    pub(crate) fn pack(self, kind: u8) -> u64 {
        assert!(self.index < TABLE_ENTRIES_MAX);
        u64::from(kind) << 56 | u64::from(self.index) << 32 | u64::from(self.generation)
    }

    /// The reverse of `pack`.
    pub(crate) fn unpack(bits: u64) -> (u8, Self) {
        let index = (bits >> 32) as u32 & (TABLE_ENTRIES_MAX - 1);
        ((bits >> 56) as u8, Self { index, generation: bits as u32 })
    }
}

/// At most `entries_max` values, found by [`Key`]. Room for the keys is taken at once.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    entries_max: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Table<T> {
    pub(crate) fn new(entries_max: u32) -> Self {
        assert!(entries_max <= TABLE_ENTRIES_MAX);
        Self {
            slots: Vec::with_capacity(entries_max as usize),
            free: Vec::with_capacity(entries_max as usize),
            entries_max,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds `value`, or gives it back if the table is full.
    pub(crate) fn insert(&mut self, value: T) -> Result<Key, T> {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.value = Some(value);
            return Ok(Key { index, generation: slot.generation });
        }
        let index = self.slots.len() as u32;
        if index == self.entries_max {
            return Err(value);
        }
        self.slots.push(Slot { generation: 0, value: Some(value) });
        Ok(Key { index, generation: 0 })
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.value.as_mut()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.value.as_mut())
    }

    /// Takes the entry out; from now on its key finds nothing.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_key_finds_nothing_even_when_its_index_is_used_again() {
        let mut table = Table::new(2);
        let first = table.insert('a').unwrap();
        let second = table.insert('b').unwrap();
        assert_eq!(table.insert('c'), Err('c'));
        assert_eq!(table.remove(first), Some('a'));
        let third = table.insert('d').unwrap();
        assert_eq!((third.index, third.generation), (first.index, first.generation + 1));
        assert_eq!(table.get(first), None);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&'b'));
        assert_eq!(table.get(third), Some(&'d'));
        assert_eq!(table.len(), 2);
    }
}
