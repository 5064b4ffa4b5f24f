//! All shards of a node: which one a key belongs to.

use alloc::vec::Vec;

use super::EventKey;

/// Most shards of a node.
pub const SHARDS_MAX: usize = 256;

/// A fixed list of shards, or of locks or addresses that lead to them; the key picks one.
#[derive(Debug)]
pub struct Shards<S> {
    list: Vec<S>,
}

impl<S> Shards<S> {
    /// `list` has 1 to [`SHARDS_MAX`] members, and its order stays the same.
    pub fn new(list: Vec<S>) -> Self {
        assert!((1..=SHARDS_MAX).contains(&list.len()), "the number of shards is checked at start");
        Self { list }
    }

    /// The shard of `key`.
    pub fn of(&self, key: &EventKey) -> &S {
        &self.list[self.index_of(key)]
    }

    /// The shard of `key`.
    pub fn of_mut(&mut self, key: &EventKey) -> &mut S {
        let index = self.index_of(key);
        &mut self.list[index]
    }

    /// Index of the shard of `key`.
    pub fn index_of(&self, key: &EventKey) -> usize {
        // The upper bits of the half that does not choose the line; the index uses its lower ones.
        ((u128::from(key.high()) * self.list.len() as u128) >> 64) as usize
    }

    /// All of them, in order.
    pub fn iter(&self) -> core::slice::Iter<'_, S> {
        self.list.iter()
    }

    /// All of them, in order.
    pub fn iter_mut(&mut self) -> core::slice::IterMut<'_, S> {
        self.list.iter_mut()
    }
}

impl<'a, S> IntoIterator for &'a Shards<S> {
    type Item = &'a S;
    type IntoIter = core::slice::Iter<'a, S>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, S> IntoIterator for &'a mut Shards<S> {
    type Item = &'a mut S;
    type IntoIter = core::slice::IterMut<'a, S>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}
