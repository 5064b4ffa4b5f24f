//! One, two or four lanes with the SHA extensions of `x86_64` (Intel SDM volume 1, section 12.4).
//!
//! One chain leaves the unit idle for half of each instruction's latency or more; others run in that time. Plain
//! loops, not `array::map`: what has not the features of its caller is called, not inlined.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    _mm_storeu_si128,
};

use super::{Block, Chain, Compress, K, Rows};

/// Proof that the processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShaNi {
    _detected: (),
}

impl ShaNi {
    pub(crate) fn detect() -> Option<Self> {
        let there = std::arch::is_x86_feature_detected!("sha")
            && std::arch::is_x86_feature_detected!("sse4.1")
            && std::arch::is_x86_feature_detected!("ssse3");
        there.then_some(Self { _detected: () })
    }
}

impl<const W: usize> Compress<W> for ShaNi {
    type States = Rows<W>;

    fn compress(self, states: &mut Rows<W>, blocks: &[&[Block]; W]) {
        // SAFETY: a `ShaNi` exists only where `detect` found every feature that the function asks for.
        unsafe { compress(&mut states.0, blocks) }
    }
}

/// A chain's state in the order of the instructions: A B E F and C D G H.
type State = [__m128i; 2];

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn compress<const W: usize>(chains: &mut [Chain; W], blocks: &[&[Block]; W]) {
    let mut packed = [[load_words(&[0; 4]); 2]; W];
    for lane in 0..W {
        packed[lane] = pack(&chains[lane]);
    }
    for at in 0..blocks[0].len() {
        let mut words = load_blocks(blocks, at);
        let mut next = packed;
        for group in 0..4 {
            // Indices are constants once this is unrolled, and all state stays in registers.
            for at in 0..4 {
                let constants = load_words(&K.as_chunks().0[group * 4 + at]);
                for lane in 0..W {
                    if group > 0 {
                        words[lane][at] = schedule(&words[lane], at);
                    }
                    next[lane] = four_rounds(next[lane], _mm_add_epi32(words[lane][at], constants));
                }
            }
        }
        for lane in 0..W {
            packed[lane][0] = _mm_add_epi32(packed[lane][0], next[lane][0]);
            packed[lane][1] = _mm_add_epi32(packed[lane][1], next[lane][1]);
        }
    }
    for (chain, packed) in chains.iter_mut().zip(packed) {
        *chain = unpack(packed);
    }
}

#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn four_rounds([abef, cdgh]: State, words: __m128i) -> State {
    let cdgh = _mm_sha256rnds2_epu32(cdgh, abef, words);
    let abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(words, 0x0E));
    [abef, cdgh]
}

/// The four message words that replace the oldest, which are at `oldest`.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn schedule(words: &[__m128i; 4], oldest: usize) -> __m128i {
    let (second, third, newest) = (words[(oldest + 1) % 4], words[(oldest + 2) % 4], words[(oldest + 3) % 4]);
    let partial =
        _mm_add_epi32(_mm_sha256msg1_epu32(words[oldest], second), _mm_alignr_epi8(newest, third, 4));
    _mm_sha256msg2_epu32(partial, newest)
}

#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn load_blocks<const W: usize>(blocks: &[&[Block]; W], at: usize) -> [[__m128i; 4]; W] {
    let mut words = [[load_words(&[0; 4]); 4]; W];
    for (words, blocks) in words.iter_mut().zip(blocks) {
        *words = load_block(&blocks[at]);
    }
    words
}

#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn load_block(block: &Block) -> [__m128i; 4] {
    let big_endian = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
    let mut words = [big_endian; 4];
    for (word, quarter) in words.iter_mut().zip(block.as_chunks::<16>().0) {
        // SAFETY: a quarter is 16 bytes, and the load asks for no alignment.
        let bytes = unsafe { _mm_loadu_si128(quarter.as_ptr().cast()) };
        *word = _mm_shuffle_epi8(bytes, big_endian);
    }
    words
}

#[inline]
#[target_feature(enable = "sse2")]
fn load_words(words: &[u32; 4]) -> __m128i {
    // SAFETY: four words are 16 bytes, and the load asks for no alignment.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn pack(chain: &Chain) -> State {
    let (halves, _) = chain.as_chunks::<4>();
    let badc = _mm_shuffle_epi32(load_words(&halves[0]), 0xB1);
    let hgfe = _mm_shuffle_epi32(load_words(&halves[1]), 0x1B);
    [_mm_alignr_epi8(badc, hgfe, 8), _mm_blend_epi16(hgfe, badc, 0xF0)]
}

#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn unpack([abef, cdgh]: State) -> Chain {
    let feba = _mm_shuffle_epi32(abef, 0x1B);
    let dchg = _mm_shuffle_epi32(cdgh, 0xB1);
    let mut chain = [[0_u32; 4]; 2];
    for (half, words) in
        chain.iter_mut().zip([_mm_blend_epi16(feba, dchg, 0xF0), _mm_alignr_epi8(dchg, feba, 8)])
    {
        // SAFETY: four words are 16 bytes, and the store asks for no alignment.
        unsafe { _mm_storeu_si128(half.as_mut_ptr().cast(), words) }
    }
    *chain.as_flattened().first_chunk().expect("two halves of four words")
}
