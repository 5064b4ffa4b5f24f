//! The SHA-256 compression function (FIPS 180-4 section 6.2.2) over two independent chains at once.
//!
//! On `x86_64` with SHA extensions (Intel SDM volume 1, section 12.4) only; [`Two::detect`] says whether. One
//! chain leaves the unit idle for half of each instruction's latency; the second runs in that time.

/// Proof that the processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Two {
    _detected: (),
}

impl Two {
    /// `None` where the instructions are not there.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn detect() -> Option<Self> {
        let there = std::arch::is_x86_feature_detected!("sha")
            && std::arch::is_x86_feature_detected!("sse4.1")
            && std::arch::is_x86_feature_detected!("ssse3");
        there.then_some(Self { _detected: () })
    }

    /// `None` where the instructions are not there.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn detect() -> Option<Self> {
        None
    }

    /// Hashes as many blocks of each chain as the shorter has.
    #[cfg(target_arch = "x86_64")]
    #[expect(clippy::unused_self, reason = "the value is the proof")]
    pub(crate) fn compress(self, states: &mut [[u32; 8]; 2], blocks: [&[[u8; 64]]; 2]) {
        // SAFETY: a `Two` exists only where `detect` found every feature that the function asks for.
        unsafe { x86::compress(states, blocks) }
    }

    /// Never called: there is no `Two` here.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn compress(self, _: &mut [[u32; 8]; 2], _: [&[[u8; 64]]; 2]) {
        unreachable!("no detection without the instructions")
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
        _mm_shuffle_epi32, _mm_storeu_si128,
    };

    /// FIPS 180-4 section 4.2.2.
    const K: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    /// A chain's state in the order of the instructions: A B E F and C D G H.
    type State = [__m128i; 2];

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub(super) fn compress(states: &mut [[u32; 8]; 2], blocks: [&[[u8; 64]]; 2]) {
        let mut packed = [pack(&states[0]), pack(&states[1])];
        for (first, second) in blocks[0].iter().zip(blocks[1]) {
            let mut words = [load_block(first), load_block(second)];
            let mut next = packed;
            for group in 0..4 {
                // Indices are constants once this is unrolled, and all state stays in registers.
                for at in 0..4 {
                    let constants = load_words(&K[group * 4 + at]);
                    for lane in 0..2 {
                        if group > 0 {
                            words[lane][at] = schedule(&words[lane], at);
                        }
                        next[lane] = four_rounds(next[lane], _mm_add_epi32(words[lane][at], constants));
                    }
                }
            }
            for lane in 0..2 {
                packed[lane][0] = _mm_add_epi32(packed[lane][0], next[lane][0]);
                packed[lane][1] = _mm_add_epi32(packed[lane][1], next[lane][1]);
            }
        }
        for (state, packed) in states.iter_mut().zip(packed) {
            *state = unpack(packed);
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
        let [second, third, newest] =
            [words[(oldest + 1) % 4], words[(oldest + 2) % 4], words[(oldest + 3) % 4]];
        let partial =
            _mm_add_epi32(_mm_sha256msg1_epu32(words[oldest], second), _mm_alignr_epi8(newest, third, 4));
        _mm_sha256msg2_epu32(partial, newest)
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn load_block(block: &[u8; 64]) -> [__m128i; 4] {
        let big_endian = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
        let (quarters, _) = block.as_chunks::<16>();
        // SAFETY: a quarter is 16 bytes, and the load asks for no alignment.
        let load = |at: usize| unsafe { _mm_loadu_si128(quarters[at].as_ptr().cast()) };
        [0, 1, 2, 3].map(|at| _mm_shuffle_epi8(load(at), big_endian))
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn load_words(words: &[u32; 4]) -> __m128i {
        // SAFETY: four words are 16 bytes, and the load asks for no alignment.
        unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn pack(state: &[u32; 8]) -> State {
        let (halves, _) = state.as_chunks::<4>();
        let badc = _mm_shuffle_epi32(load_words(&halves[0]), 0xB1);
        let hgfe = _mm_shuffle_epi32(load_words(&halves[1]), 0x1B);
        [_mm_alignr_epi8(badc, hgfe, 8), _mm_blend_epi16(hgfe, badc, 0xF0)]
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn unpack([abef, cdgh]: State) -> [u32; 8] {
        let feba = _mm_shuffle_epi32(abef, 0x1B);
        let dchg = _mm_shuffle_epi32(cdgh, 0xB1);
        let mut state = [[0_u32; 4]; 2];
        for (half, words) in
            state.iter_mut().zip([_mm_blend_epi16(feba, dchg, 0xF0), _mm_alignr_epi8(dchg, feba, 8)])
        {
            // SAFETY: four words are 16 bytes, and the store asks for no alignment.
            unsafe { _mm_storeu_si128(half.as_mut_ptr().cast(), words) }
        }
        *state.as_flattened().first_chunk().expect("two halves of four words")
    }
}
