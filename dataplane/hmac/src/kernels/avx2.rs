//! Eight lanes with AVX2, for `x86_64` without SHA extensions.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_load_si256, _mm256_loadu_si256, _mm256_or_si256,
    _mm256_permute2x128_si256, _mm256_set_epi8, _mm256_set1_epi32, _mm256_shuffle_epi8, _mm256_slli_epi32,
    _mm256_srli_epi32, _mm256_store_si256, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use super::wide::wide_compress;
use super::{Block, Columns, Compress, K};

const LANES: usize = 8;

/// Proof that the processor has AVX2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2 {
    _detected: (),
}

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx2").then_some(Self { _detected: () })
    }
}

impl Compress<LANES> for Avx2 {
    type States = Columns<LANES>;

    fn compress(self, states: &mut Columns<LANES>, blocks: &[&[Block]; LANES]) {
        // SAFETY: an `Avx2` exists only where `detect` found the feature that the function asks for.
        unsafe { compress(states, blocks) }
    }
}

wide_compress!("avx2", 8, __m256i);

#[inline]
#[target_feature(enable = "avx2")]
fn add(left: __m256i, right: __m256i) -> __m256i {
    _mm256_add_epi32(left, right)
}

#[inline]
#[target_feature(enable = "avx2")]
fn xor(left: __m256i, right: __m256i) -> __m256i {
    _mm256_xor_si256(left, right)
}

#[inline]
#[target_feature(enable = "avx2")]
fn xor3(first: __m256i, second: __m256i, third: __m256i) -> __m256i {
    xor(xor(first, second), third)
}

#[inline]
#[target_feature(enable = "avx2")]
fn splat(word: u32) -> __m256i {
    _mm256_set1_epi32(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx2")]
fn choose(which: __m256i, one: __m256i, zero: __m256i) -> __m256i {
    xor(zero, _mm256_and_si256(which, xor(one, zero)))
}

/// The majority, and `a ^ b`, which is the next round's `b ^ c`.
#[inline]
#[target_feature(enable = "avx2")]
fn majority([a, b, _]: [__m256i; 3], b_xor_c: __m256i) -> (__m256i, __m256i) {
    let a_xor_b = xor(a, b);
    (xor(b, _mm256_and_si256(a_xor_b, b_xor_c)), a_xor_b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn rotate<const RIGHT: i32, const LEFT: i32>(word: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_srli_epi32(word, RIGHT), _mm256_slli_epi32(word, LEFT))
}

#[inline]
#[target_feature(enable = "avx2")]
fn shift<const RIGHT: i32>(word: __m256i) -> __m256i {
    _mm256_srli_epi32(word, RIGHT)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_chains(states: &Columns<LANES>) -> [__m256i; 8] {
    let mut chains = [splat(0); 8];
    for (chain, column) in chains.iter_mut().zip(&states.0) {
        // SAFETY: a column is 32 bytes, and `Columns` is aligned to 64.
        *chain = unsafe { _mm256_load_si256(column.as_ptr().cast()) };
    }
    chains
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_chains(states: &mut Columns<LANES>, chains: &[__m256i; 8]) {
    for (column, chain) in states.0.iter_mut().zip(chains) {
        // SAFETY: a column is 32 bytes, and `Columns` is aligned to 64.
        unsafe { _mm256_store_si256(column.as_mut_ptr().cast(), *chain) }
    }
}

/// The words of each lane's block, a word of all lanes in each vector.
#[inline]
#[target_feature(enable = "avx2")]
fn load_block(blocks: &[&[Block]; LANES], at: usize) -> [__m256i; 16] {
    let mut words = [splat(0); 16];
    for half in 0..2 {
        let mut rows = [splat(0); LANES];
        for (row, blocks) in rows.iter_mut().zip(blocks) {
            *row = load_half(&blocks[at], half);
        }
        words[half * 8..half * 8 + 8].copy_from_slice(&transpose(rows));
    }
    words
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_half(block: &Block, half: usize) -> __m256i {
    let big_endian = _mm256_set_epi8(
        12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1,
        2, 3,
    );
    let bytes = &block.as_chunks::<32>().0[half];
    // SAFETY: a half is 32 bytes, and the load asks for no alignment.
    let words = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    _mm256_shuffle_epi8(words, big_endian)
}

/// Rows of eight words become columns.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    let top = four_rows([rows[0], rows[1], rows[2], rows[3]]);
    let bottom = four_rows([rows[4], rows[5], rows[6], rows[7]]);
    let mut columns = rows;
    for at in 0..4 {
        columns[at] = _mm256_permute2x128_si256(top[at], bottom[at], 0x20);
        columns[4 + at] = _mm256_permute2x128_si256(top[at], bottom[at], 0x31);
    }
    columns
}

/// Transposes the 4 × 4 words in each half of the rows.
#[inline]
#[target_feature(enable = "avx2")]
fn four_rows([first, second, third, fourth]: [__m256i; 4]) -> [__m256i; 4] {
    let low = [_mm256_unpacklo_epi32(first, second), _mm256_unpacklo_epi32(third, fourth)];
    let high = [_mm256_unpackhi_epi32(first, second), _mm256_unpackhi_epi32(third, fourth)];
    [
        _mm256_unpacklo_epi64(low[0], low[1]),
        _mm256_unpackhi_epi64(low[0], low[1]),
        _mm256_unpacklo_epi64(high[0], high[1]),
        _mm256_unpackhi_epi64(high[0], high[1]),
    ]
}
