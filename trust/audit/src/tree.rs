//! The tree as it grows: of each size its complete subtrees, and from them any root.

use crate::hash::{Hash, node_hash};

/// Most entries of a log; sizes are kept as signed integers by databases.
pub const SIZE_MAX: u64 = 1 << 62;

/// A complete subtree: the `index`-th of those with `2^level` leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// 0 for leaves.
    pub level: u8,
    /// From 0, left to right.
    pub index: u64,
}

/// Where hashes of complete subtrees are kept.
pub trait Nodes {
    /// Why one could not be read.
    type Error;

    /// The hash of a subtree that is complete.
    fn hash(&self, node: Node) -> Result<Hash, Self::Error>;
}

/// The right edge of a tree: all that is needed to add entries and to say its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Complete subtrees, largest first; one for each bit that `size` has.
    subtrees: Vec<Hash>,
}

impl Frontier {
    /// The frontier of a tree that is stored.
    pub fn load<N: Nodes>(nodes: &N, size: u64) -> Result<Self, N::Error> {
        let subtrees = subtrees(0, size).map(|node| nodes.hash(node)).collect::<Result<_, _>>()?;
        Ok(Self { size, subtrees })
    }

    /// How many entries there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds an entry; all subtrees that it completes, its own leaf first, are handed to `store`.
    ///
    /// # Panics
    ///
    /// At [`SIZE_MAX`] entries.
    pub fn append(&mut self, leaf: Hash, mut store: impl FnMut(Node, Hash)) {
        assert!(self.size < SIZE_MAX, "a log has fewer than 2^62 entries");
        let mut node = Node { level: 0, index: self.size };
        let mut hash = leaf;
        store(node, hash);
        while node.index % 2 == 1 {
            let left = self.subtrees.pop().expect("each bit of the size has its subtree");
            hash = node_hash(&left, &hash);
            node = Node { level: node.level + 1, index: node.index / 2 };
            store(node, hash);
        }
        self.subtrees.push(hash);
        self.size += 1;
    }

    /// The root hash.
    pub fn root(&self) -> Hash {
        fold(&self.subtrees)
    }
}

/// The root of the first `size` entries of a tree that is stored.
pub fn root_of<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, N::Error> {
    range_root(nodes, 0, size)
}

/// The hash over the leaves `[from, to)`; `from` is where a subtree of that length may begin.
pub(crate) fn range_root<N: Nodes>(nodes: &N, from: u64, to: u64) -> Result<Hash, N::Error> {
    let hashes = subtrees(from, to).map(|node| nodes.hash(node)).collect::<Result<Vec<_>, _>>()?;
    Ok(fold(&hashes))
}

/// Largest first, so the smaller ones are joined first.
fn fold(subtrees: &[Hash]) -> Hash {
    let mut hashes = subtrees.iter().rev();
    let Some(&last) = hashes.next() else { return Hash::of_nothing() };
    hashes.fold(last, |right, left| node_hash(left, &right))
}

/// The complete subtrees over `[from, to)`, largest first.
fn subtrees(from: u64, to: u64) -> impl Iterator<Item = Node> {
    let mut at = from;
    std::iter::from_fn(move || {
        let left = to - at;
        let level = left.checked_ilog2()?;
        let node = Node { level: level as u8, index: at >> level };
        at += 1 << level;
        Some(node)
    })
}
