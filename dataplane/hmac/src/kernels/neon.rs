//! Four lanes with NEON, for `aarch64` without SHA2 instructions.

use std::arch::aarch64::{
    uint32x4_t, uint64x2_t, vaddq_u32, vbslq_u32, vdupq_n_u32, veorq_u32, vld1q_u8, vld1q_u32,
    vreinterpretq_u32_u8, vreinterpretq_u32_u64, vreinterpretq_u64_u32, vrev32q_u8, vshlq_n_u32, vshrq_n_u32,
    vsriq_n_u32, vst1q_u32, vtrn1q_u32, vtrn1q_u64, vtrn2q_u32, vtrn2q_u64,
};

use super::wide::wide_compress;
use super::{Block, Columns, Compress, K};

const LANES: usize = 4;

/// Proof that the processor has NEON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon {
    _detected: (),
}

impl Neon {
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self { _detected: () })
    }
}

impl Compress<LANES> for Neon {
    type States = Columns<LANES>;

    fn compress(self, states: &mut Columns<LANES>, blocks: &[&[Block]; LANES]) {
        // SAFETY: a `Neon` exists only where `detect` found the feature that the function asks for.
        unsafe { compress(states, blocks) }
    }
}

wide_compress!("neon", 4, uint32x4_t);

#[inline]
#[target_feature(enable = "neon")]
fn add(left: uint32x4_t, right: uint32x4_t) -> uint32x4_t {
    vaddq_u32(left, right)
}

#[inline]
#[target_feature(enable = "neon")]
fn xor(left: uint32x4_t, right: uint32x4_t) -> uint32x4_t {
    veorq_u32(left, right)
}

#[inline]
#[target_feature(enable = "neon")]
fn xor3(first: uint32x4_t, second: uint32x4_t, third: uint32x4_t) -> uint32x4_t {
    xor(xor(first, second), third)
}

#[inline]
#[target_feature(enable = "neon")]
fn splat(word: u32) -> uint32x4_t {
    vdupq_n_u32(word)
}

#[inline]
#[target_feature(enable = "neon")]
fn choose(which: uint32x4_t, one: uint32x4_t, zero: uint32x4_t) -> uint32x4_t {
    vbslq_u32(which, one, zero)
}

/// The majority, and `a ^ b`, which is the next round's `b ^ c`.
#[inline]
#[target_feature(enable = "neon")]
fn majority([a, b, c]: [uint32x4_t; 3], _: uint32x4_t) -> (uint32x4_t, uint32x4_t) {
    let a_xor_b = xor(a, b);
    (vbslq_u32(a_xor_b, c, b), a_xor_b)
}

#[inline]
#[target_feature(enable = "neon")]
fn rotate<const RIGHT: i32, const LEFT: i32>(word: uint32x4_t) -> uint32x4_t {
    vsriq_n_u32::<RIGHT>(vshlq_n_u32::<LEFT>(word), word)
}

#[inline]
#[target_feature(enable = "neon")]
fn shift<const RIGHT: i32>(word: uint32x4_t) -> uint32x4_t {
    vshrq_n_u32::<RIGHT>(word)
}

#[inline]
#[target_feature(enable = "neon")]
fn load_chains(states: &Columns<LANES>) -> [uint32x4_t; 8] {
    let mut chains = [splat(0); 8];
    for (chain, column) in chains.iter_mut().zip(&states.0) {
        // SAFETY: a column is four words.
        *chain = unsafe { vld1q_u32(column.as_ptr()) };
    }
    chains
}

#[inline]
#[target_feature(enable = "neon")]
fn store_chains(states: &mut Columns<LANES>, chains: &[uint32x4_t; 8]) {
    for (column, chain) in states.0.iter_mut().zip(chains) {
        // SAFETY: a column is four words.
        unsafe { vst1q_u32(column.as_mut_ptr(), *chain) }
    }
}

/// The words of each lane's block, a word of all lanes in each vector.
#[inline]
#[target_feature(enable = "neon")]
fn load_block(blocks: &[&[Block]; LANES], at: usize) -> [uint32x4_t; 16] {
    let mut words = [splat(0); 16];
    for quarter in 0..4 {
        let mut rows = [splat(0); LANES];
        for (row, blocks) in rows.iter_mut().zip(blocks) {
            *row = load_quarter(&blocks[at], quarter);
        }
        words[quarter * 4..quarter * 4 + 4].copy_from_slice(&transpose(rows));
    }
    words
}

#[inline]
#[target_feature(enable = "neon")]
fn load_quarter(block: &Block, quarter: usize) -> uint32x4_t {
    let bytes = &block.as_chunks::<16>().0[quarter];
    // SAFETY: a quarter is 16 bytes.
    let bytes = unsafe { vld1q_u8(bytes.as_ptr()) };
    vreinterpretq_u32_u8(vrev32q_u8(bytes))
}

/// Rows of four words become columns.
#[inline]
#[target_feature(enable = "neon")]
fn transpose([first, second, third, fourth]: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
    let even = (wide(vtrn1q_u32(first, second)), wide(vtrn1q_u32(third, fourth)));
    let odd = (wide(vtrn2q_u32(first, second)), wide(vtrn2q_u32(third, fourth)));
    [
        narrow(vtrn1q_u64(even.0, even.1)),
        narrow(vtrn1q_u64(odd.0, odd.1)),
        narrow(vtrn2q_u64(even.0, even.1)),
        narrow(vtrn2q_u64(odd.0, odd.1)),
    ]
}

#[inline]
#[target_feature(enable = "neon")]
fn wide(words: uint32x4_t) -> uint64x2_t {
    vreinterpretq_u64_u32(words)
}

#[inline]
#[target_feature(enable = "neon")]
fn narrow(words: uint64x2_t) -> uint32x4_t {
    vreinterpretq_u32_u64(words)
}
