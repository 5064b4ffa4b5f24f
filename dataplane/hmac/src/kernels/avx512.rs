//! Sixteen lanes with AVX-512 (F and BW): rotations, and any function of three bits, are one instruction.

use std::arch::x86_64::{
    __m512i, _mm_set_epi64x, _mm512_add_epi32, _mm512_broadcast_i32x4, _mm512_load_si512, _mm512_loadu_si512,
    _mm512_ror_epi32, _mm512_set1_epi32, _mm512_shuffle_epi8, _mm512_shuffle_i32x4, _mm512_srli_epi32,
    _mm512_store_si512, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use super::wide::wide_compress;
use super::{Block, Columns, Compress, K};

const LANES: usize = 16;

/// Truth tables of three bits, for `ternarylogic`.
const XOR: i32 = 0x96;
const CHOOSE: i32 = 0xCA;
const MAJORITY: i32 = 0xE8;

/// Proof that the processor, and the system's saved state, have AVX-512 F and BW.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512 {
    _detected: (),
}

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let there =
            std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bw");
        there.then_some(Self { _detected: () })
    }
}

impl Compress<LANES> for Avx512 {
    type States = Columns<LANES>;

    fn compress(self, states: &mut Columns<LANES>, blocks: &[&[Block]; LANES]) {
        // SAFETY: an `Avx512` exists only where `detect` found every feature that the function asks for.
        unsafe { compress(states, blocks) }
    }
}

wide_compress!("avx512f,avx512bw", 16, __m512i);

#[inline]
#[target_feature(enable = "avx512f")]
fn add(left: __m512i, right: __m512i) -> __m512i {
    _mm512_add_epi32(left, right)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(left: __m512i, right: __m512i) -> __m512i {
    _mm512_xor_si512(left, right)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor3(first: __m512i, second: __m512i, third: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32(first, second, third, XOR)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn splat(word: u32) -> __m512i {
    _mm512_set1_epi32(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn choose(which: __m512i, one: __m512i, zero: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32(which, one, zero, CHOOSE)
}

/// The majority; what it would leave for the next round is not needed here.
#[inline]
#[target_feature(enable = "avx512f")]
fn majority([a, b, c]: [__m512i; 3], b_xor_c: __m512i) -> (__m512i, __m512i) {
    (_mm512_ternarylogic_epi32(a, b, c, MAJORITY), b_xor_c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn rotate<const RIGHT: i32, const LEFT: i32>(word: __m512i) -> __m512i {
    _mm512_ror_epi32(word, RIGHT)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn shift<const RIGHT: u32>(word: __m512i) -> __m512i {
    _mm512_srli_epi32(word, RIGHT)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_chains(states: &Columns<LANES>) -> [__m512i; 8] {
    let mut chains = [splat(0); 8];
    for (chain, column) in chains.iter_mut().zip(&states.0) {
        // SAFETY: a column is 64 bytes, and `Columns` is aligned to 64.
        *chain = unsafe { _mm512_load_si512(column.as_ptr().cast()) };
    }
    chains
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_chains(states: &mut Columns<LANES>, chains: &[__m512i; 8]) {
    for (column, chain) in states.0.iter_mut().zip(chains) {
        // SAFETY: a column is 64 bytes, and `Columns` is aligned to 64.
        unsafe { _mm512_store_si512(column.as_mut_ptr().cast(), *chain) }
    }
}

/// The words of each lane's block, a word of all lanes in each vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_block(blocks: &[&[Block]; LANES], at: usize) -> [__m512i; 16] {
    let big_endian = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203));
    let mut rows = [splat(0); LANES];
    for (row, blocks) in rows.iter_mut().zip(blocks) {
        // SAFETY: a block is 64 bytes, and the load asks for no alignment.
        let words = unsafe { _mm512_loadu_si512(blocks[at].as_ptr().cast()) };
        *row = _mm512_shuffle_epi8(words, big_endian);
    }
    transpose(&rows)
}

/// Rows of sixteen words become columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: &[__m512i; 16]) -> [__m512i; 16] {
    let mut quarters = [[splat(0); 4]; 4];
    for (quarter, rows) in quarters.iter_mut().zip(rows.as_chunks::<4>().0) {
        *quarter = four_rows(*rows);
    }
    let mut columns = *rows;
    for at in 0..4 {
        let (first, second) = (quarters[0][at], quarters[1][at]);
        let (third, fourth) = (quarters[2][at], quarters[3][at]);
        let low = [_mm512_shuffle_i32x4(first, second, 0x44), _mm512_shuffle_i32x4(third, fourth, 0x44)];
        let high = [_mm512_shuffle_i32x4(first, second, 0xEE), _mm512_shuffle_i32x4(third, fourth, 0xEE)];
        columns[at] = _mm512_shuffle_i32x4(low[0], low[1], 0x88);
        columns[4 + at] = _mm512_shuffle_i32x4(low[0], low[1], 0xDD);
        columns[8 + at] = _mm512_shuffle_i32x4(high[0], high[1], 0x88);
        columns[12 + at] = _mm512_shuffle_i32x4(high[0], high[1], 0xDD);
    }
    columns
}

/// Transposes the 4 × 4 words in each quarter of the rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn four_rows([first, second, third, fourth]: [__m512i; 4]) -> [__m512i; 4] {
    let low = [_mm512_unpacklo_epi32(first, second), _mm512_unpacklo_epi32(third, fourth)];
    let high = [_mm512_unpackhi_epi32(first, second), _mm512_unpackhi_epi32(third, fourth)];
    [
        _mm512_unpacklo_epi64(low[0], low[1]),
        _mm512_unpackhi_epi64(low[0], low[1]),
        _mm512_unpacklo_epi64(high[0], high[1]),
        _mm512_unpackhi_epi64(high[0], high[1]),
    ]
}
