//! The tree and its proofs: published values, the definition of RFC 6962 as an oracle, and everything that can be wrong in a proof.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::Tree;
use zen_audit::{
    Frontier, Hash, ProofError, consistency_proof, inclusion_proof, leaf_hash, node_hash, root_of,
    verify_consistency, verify_inclusion,
};

/// The leaves that RFC 6962 implementations test with.
const LEAVES: [&[u8]; 8] = [
    &[],
    &[0x00],
    &[0x10],
    &[0x20, 0x21],
    &[0x30, 0x31],
    &[0x40, 0x41, 0x42, 0x43],
    &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
    &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
];
const ROOT_1: &str = "bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=";
const ROOT_2: &str = "+sVCA+fMaWzw38tCySodnbr3CtnmIfS9jZhmLwDjwSU=";
const ROOT_3: &str = "rra8/idLcKFPsGel5VeCZNsPqbUa9eC6FZFY8yngbnc=";
const ROOT_5: &str = "Tju7H3tHjc/nH7YxYxUZo7yhLJrvyhYSv85ME6hiZNQ=";
const ROOT_6: &str = "duZ9rbzfHhDht03cYIq9L5jfsW+851J3tSMqEn8gh+8=";
const ROOT_7: &str = "3bib5AOAnjJXUNPSY814kpwpQreUKjS3fhIslZSnTIw=";
const ROOT_8: &str = "XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=";
const LEAF_1: &str = "lqKW0iTyhcZ77pPDD4owkVfw2qNdxbh+QQt4YwoJz8c=";
const NODE_2_4: &str = "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=";
const NODE_0_4: &str = "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc=";
const NODE_4_6: &str = "DrxdNDf74tsVi58Sah0RjjCBgQMdCpSfje3t68VY72o=";
const NODE_4_8: &str = "a0eq8p7jwq+a+Im8H7klTavTEXfxYjLdaqsDXKOb9uQ=";
const NODE_6_8: &str = "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=";
const LEAF_4: &str = "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=";
const LEAF_6: &str = "sIaT7C5yFZcTBkHoIR5+7cy0wmQTlj7ubB4u0W/7Gl8=";

fn published() -> Tree {
    let mut tree = Tree::default();
    for leaf in LEAVES {
        tree.append(leaf_hash(leaf));
    }
    tree
}

fn hash(text: &str) -> Hash {
    Hash::from_base64(text).unwrap()
}

/// The definition, word for word: no index arithmetic to be wrong in the same way.
fn defined_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of_nothing(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&defined_root(left), &defined_root(right))
        }
    }
}

#[test]
fn roots_are_the_published_ones() {
    let tree = published();
    for (size, root) in
        [(1, ROOT_1), (2, ROOT_2), (3, ROOT_3), (5, ROOT_5), (6, ROOT_6), (7, ROOT_7), (8, ROOT_8)]
    {
        assert_eq!(root_of(&tree, size).unwrap(), hash(root), "{size} entries");
    }
    assert_eq!(Frontier::default().root().to_string(), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
}

#[test]
fn proofs_are_the_published_ones() {
    let tree = published();
    let inclusion: [(u64, u64, &str, &[&str]); 4] = [
        (0, 8, ROOT_8, &[LEAF_1, NODE_2_4, NODE_4_8]),
        (5, 8, ROOT_8, &[LEAF_4, NODE_6_8, NODE_0_4]),
        (2, 3, ROOT_3, &[ROOT_2]),
        (1, 5, ROOT_5, &[ROOT_1, NODE_2_4, LEAF_4]),
    ];
    for (index, size, root, expected) in inclusion {
        let proof = inclusion_proof(&tree, index, size).unwrap();
        assert_eq!(proof, expected.iter().map(|text| hash(text)).collect::<Vec<_>>(), "{index} of {size}");
        let leaf = leaf_hash(LEAVES[index as usize]);
        verify_inclusion(&leaf, (index, size), &proof, &hash(root)).unwrap();
    }
    let consistency: [(u64, &str, u64, &str, &[&str]); 4] = [
        (1, ROOT_1, 8, ROOT_8, &[LEAF_1, NODE_2_4, NODE_4_8]),
        (6, ROOT_6, 8, ROOT_8, &[NODE_4_6, NODE_6_8, NODE_0_4]),
        (2, ROOT_2, 5, ROOT_5, &[NODE_2_4, LEAF_4]),
        (6, ROOT_6, 7, ROOT_7, &[NODE_4_6, LEAF_6, NODE_0_4]),
    ];
    for (first, first_root, second, second_root, expected) in consistency {
        let proof = consistency_proof(&tree, first, second).unwrap();
        assert_eq!(proof, expected.iter().map(|text| hash(text)).collect::<Vec<_>>(), "{first} to {second}");
        verify_consistency((first, &hash(first_root)), (second, &hash(second_root)), &proof).unwrap();
    }
}

#[test]
fn every_size_has_the_defined_root_and_is_loaded_as_it_was() {
    let (mut tree, mut leaves) = (Tree::default(), Vec::new());
    for number in 0..200_u64 {
        assert_eq!(tree.frontier.root(), defined_root(&leaves), "{number} entries");
        assert_eq!(Frontier::load(&tree, number).unwrap(), tree.frontier);
        leaves.push(leaf_hash(&number.to_be_bytes()));
        tree.append(leaves[number as usize]);
    }
}

/// Hashes that a proof might have and should not: each place changed in a bit, left out, doubled; something before and after.
fn mutations(proof: &[Hash], roots: &[Hash]) -> Vec<Vec<Hash>> {
    let mut made = Vec::new();
    for at in 0..proof.len() {
        for bit in [0, 4, 255] {
            let mut changed = proof.to_vec();
            changed[at].0[bit / 8] ^= 1 << (bit % 8);
            made.push(changed);
        }
        let mut shorter = proof.to_vec();
        shorter.remove(at);
        made.push(shorter);
        let mut longer = proof.to_vec();
        longer.insert(at, proof[at]);
        made.push(longer);
        let mut swapped = proof.to_vec();
        swapped.swap(0, at);
        made.push(swapped);
    }
    for extra in roots.iter().copied().chain([Hash([0; 32]), Hash::of_nothing()]) {
        made.push([&[extra], proof].concat());
        made.push([proof, &[extra]].concat());
    }
    made.retain(|mutation| mutation != proof);
    made
}

#[test]
fn every_entry_of_every_tree_has_one_proof() {
    const SIZES: u64 = 40;
    let tree = Tree::of(SIZES);
    for size in 1..=SIZES {
        let root = root_of(&tree, size).unwrap();
        for index in 0..size {
            let leaf = leaf_hash(&index.to_be_bytes());
            let proof = inclusion_proof(&tree, index, size).unwrap();
            assert_eq!(verify_inclusion(&leaf, (index, size), &proof, &root), Ok(()), "{index} of {size}");
            for wrong in mutations(&proof, &[root, leaf]) {
                assert!(verify_inclusion(&leaf, (index, size), &wrong, &root).is_err(), "{index} of {size}");
            }
            let other = leaf_hash(b"another");
            assert_eq!(verify_inclusion(&other, (index, size), &proof, &root), Err(ProofError::Root));
            assert_eq!(verify_inclusion(&leaf, (index, size), &proof, &other), Err(ProofError::Root));
            for place in [index.wrapping_sub(1), index + 1, index ^ 2] {
                assert!(verify_inclusion(&leaf, (place, size), &proof, &root).is_err(), "{place} of {size}");
            }
        }
    }
}

#[test]
fn every_tree_continues_every_smaller_one_by_one_proof() {
    const SIZES: u64 = 40;
    let tree = Tree::of(SIZES);
    let roots: Vec<Hash> = (0..=SIZES).map(|size| root_of(&tree, size).unwrap()).collect();
    for second in 0..=SIZES {
        for first in 0..=second {
            let (old, new) = (roots[first as usize], roots[second as usize]);
            let proof = consistency_proof(&tree, first, second).unwrap();
            let verify = |first, old: &Hash, second, new: &Hash, proof: &[Hash]| {
                verify_consistency((first, old), (second, new), proof)
            };
            assert_eq!(verify(first, &old, second, &new, &proof), Ok(()), "{first} to {second}");
            for wrong in mutations(&proof, &[old, new]) {
                assert!(verify(first, &old, second, &new, &wrong).is_err(), "{first} to {second}");
            }
            let other = Hash([9; 32]);
            assert!(verify(first, &other, second, &new, &proof).is_err());
            // From an empty tree every tree goes on, so nothing is said of the later one.
            if first != 0 {
                assert!(verify(first, &old, second, &other, &proof).is_err());
            }
            if first != second && first != 0 {
                assert!(verify(first, &new, second, &old, &proof).is_err(), "swapped roots");
                assert!(verify(second, &new, first, &old, &proof).is_err(), "swapped trees");
            }
        }
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let (root, leaf) = (Hash([1; 32]), Hash([2; 32]));
    for (index, size) in [(0, 0), (1, 1), (u64::MAX, 1), (u64::MAX, u64::MAX)] {
        let refused = Err(ProofError::Sizes { first: index, second: size });
        assert_eq!(verify_inclusion(&leaf, (index, size), &[], &root), refused);
    }
    assert_eq!(
        verify_consistency((2, &root), (1, &root), &[]),
        Err(ProofError::Sizes { first: 2, second: 1 })
    );
    for (first, second) in [(u64::MAX - 1, u64::MAX), (1, u64::MAX), (u64::MAX / 2 + 1, u64::MAX)] {
        assert!(verify_consistency((first, &root), (second, &root), &[leaf; 70]).is_err());
        assert!(verify_inclusion(&leaf, (first, second), &[leaf; 70], &root).is_err());
    }
}
