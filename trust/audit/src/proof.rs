//! Proofs that an entry is in a tree, and that a tree continues another one (RFC 9162 section 2.1.3 and 2.1.4).

use crate::hash::{Hash, node_hash};
use crate::tree::{Nodes, range_root};

/// Why a proof shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// There is no such entry, or a later tree that is smaller.
    #[error("the sizes cannot be: {first} and {second}")]
    Sizes {
        /// The entry's index, or the size of the earlier tree.
        first: u64,
        /// The size of the tree.
        second: u64,
    },
    /// Too many or too few hashes.
    #[error("the proof has {found} hashes")]
    Length {
        /// How many there are.
        found: usize,
    },
    /// It leads to another root.
    #[error("the proof leads to another root")]
    Root,
}

/// The hashes from the leaf's sibling up, for the entry at `index` of the first `size`.
///
/// # Panics
///
/// If `index` is not below `size`.
pub fn inclusion_proof<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    assert!(index < size, "an entry is one of the tree's");
    let (mut from, mut to) = (0, size);
    let mut proof = Vec::new();
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            proof.push(range_root(nodes, middle, to)?);
            to = middle;
        } else {
            proof.push(range_root(nodes, from, middle)?);
            from = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// That the first `second` entries begin with the first `first`; empty if one of them is all or nothing.
///
/// # Panics
///
/// If `first` is over `second`.
pub fn consistency_proof<N: Nodes>(nodes: &N, first: u64, second: u64) -> Result<Vec<Hash>, N::Error> {
    assert!(first <= second, "a tree continues a smaller one");
    let (mut from, mut to) = (0, second);
    let mut proof = Vec::new();
    if first == 0 || first == second {
        return Ok(proof);
    }
    while to != first {
        let middle = from + split(to - from);
        if first <= middle {
            proof.push(range_root(nodes, middle, to)?);
            to = middle;
        } else {
            proof.push(range_root(nodes, from, middle)?);
            from = middle;
        }
    }
    // The verifier has the earlier root itself if that is one complete subtree from the left edge.
    if from != 0 {
        proof.push(range_root(nodes, from, to)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that `leaf` is the entry at `index` of the tree with `size` entries and this root.
pub fn verify_inclusion(
    leaf: &Hash,
    (index, size): (u64, u64),
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Sizes { first: index, second: size });
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for step in proof {
        if last == 0 {
            return Err(ProofError::Length { found: proof.len() });
        }
        if at % 2 == 1 || at == last {
            hash = node_hash(step, &hash);
            skip_lone_levels(&mut at, &mut last);
        } else {
            hash = node_hash(&hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length { found: proof.len() });
    }
    if hash == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Checks that the tree with `second` entries continues the one with `first`.
pub fn verify_consistency(
    (first, first_root): (u64, &Hash),
    (second, second_root): (u64, &Hash),
    proof: &[Hash],
) -> Result<(), ProofError> {
    if first > second {
        return Err(ProofError::Sizes { first, second });
    }
    let length = Err(ProofError::Length { found: proof.len() });
    if first == second || first == 0 {
        let expected = if first == 0 { Hash::of_nothing() } else { *second_root };
        let is_root = *first_root == expected;
        return match (proof.is_empty(), is_root) {
            (false, _) => length,
            (true, false) => Err(ProofError::Root),
            (true, true) => Ok(()),
        };
    }
    let (mut at, mut last) = (first - 1, second - 1);
    while at % 2 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let mut steps = proof.iter();
    let begin = if at == 0 { Some(first_root) } else { steps.next() };
    let Some(begin) = begin else { return length };
    let (mut earlier, mut later) = (*begin, *begin);
    for step in steps {
        if last == 0 {
            return length;
        }
        if at % 2 == 1 || at == last {
            earlier = node_hash(step, &earlier);
            later = node_hash(step, &later);
            skip_lone_levels(&mut at, &mut last);
        } else {
            later = node_hash(&later, step);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return length;
    }
    if earlier == *first_root && later == *second_root { Ok(()) } else { Err(ProofError::Root) }
}

/// A node at the right edge without a sibling is carried up unchanged.
fn skip_lone_levels(at: &mut u64, last: &mut u64) {
    while at.is_multiple_of(2) && *at != 0 {
        *at >>= 1;
        *last >>= 1;
    }
}

/// The largest power of two below a length of at least two.
fn split(length: u64) -> u64 {
    1 << (length - 1).ilog2()
}
