//! One, two or four lanes with the SHA2 instructions of `ARMv8` (Arm ARM, FEAT_SHA256).

use std::arch::aarch64::{
    uint32x4_t, vaddq_u32, vld1q_u8, vld1q_u32, vreinterpretq_u32_u8, vrev32q_u8, vsha256h2q_u32,
    vsha256hq_u32, vsha256su0q_u32, vsha256su1q_u32, vst1q_u32,
};

use super::{Block, Chain, Compress, K, Rows};

/// Proof that the processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArmSha {
    _detected: (),
}

impl ArmSha {
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("sha2").then_some(Self { _detected: () })
    }
}

impl<const W: usize> Compress<W> for ArmSha {
    type States = Rows<W>;

    fn compress(self, states: &mut Rows<W>, blocks: &[&[Block]; W]) {
        // SAFETY: an `ArmSha` exists only where `detect` found the feature that the function asks for.
        unsafe { compress(&mut states.0, blocks) }
    }
}

/// A chain's state: A B C D and E F G H.
type State = [uint32x4_t; 2];

#[target_feature(enable = "neon,sha2")]
fn compress<const W: usize>(chains: &mut [Chain; W], blocks: &[&[Block]; W]) {
    let mut packed = [[load_words(&[0; 4]); 2]; W];
    for lane in 0..W {
        let halves = chains[lane].as_chunks::<4>().0;
        packed[lane] = [load_words(&halves[0]), load_words(&halves[1])];
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
                    next[lane] = four_rounds(next[lane], vaddq_u32(words[lane][at], constants));
                }
            }
        }
        for lane in 0..W {
            packed[lane][0] = vaddq_u32(packed[lane][0], next[lane][0]);
            packed[lane][1] = vaddq_u32(packed[lane][1], next[lane][1]);
        }
    }
    for (chain, packed) in chains.iter_mut().zip(packed) {
        for (half, words) in chain.as_chunks_mut::<4>().0.iter_mut().zip(packed) {
            // SAFETY: a half is four words.
            unsafe { vst1q_u32(half.as_mut_ptr(), words) }
        }
    }
}

#[inline]
#[target_feature(enable = "neon,sha2")]
fn four_rounds([abcd, efgh]: State, words: uint32x4_t) -> State {
    [vsha256hq_u32(abcd, efgh, words), vsha256h2q_u32(efgh, abcd, words)]
}

/// The four message words that replace the oldest, which are at `oldest`.
#[inline]
#[target_feature(enable = "neon,sha2")]
fn schedule(words: &[uint32x4_t; 4], oldest: usize) -> uint32x4_t {
    let (second, third, newest) = (words[(oldest + 1) % 4], words[(oldest + 2) % 4], words[(oldest + 3) % 4]);
    vsha256su1q_u32(vsha256su0q_u32(words[oldest], second), third, newest)
}

#[inline]
#[target_feature(enable = "neon")]
fn load_blocks<const W: usize>(blocks: &[&[Block]; W], at: usize) -> [[uint32x4_t; 4]; W] {
    let mut words = [[load_words(&[0; 4]); 4]; W];
    for (words, blocks) in words.iter_mut().zip(blocks) {
        *words = load_block(&blocks[at]);
    }
    words
}

#[inline]
#[target_feature(enable = "neon")]
fn load_block(block: &Block) -> [uint32x4_t; 4] {
    let mut words = [load_words(&[0; 4]); 4];
    for (word, quarter) in words.iter_mut().zip(block.as_chunks::<16>().0) {
        // SAFETY: a quarter is 16 bytes.
        let bytes = unsafe { vld1q_u8(quarter.as_ptr()) };
        *word = vreinterpretq_u32_u8(vrev32q_u8(bytes));
    }
    words
}

#[inline]
#[target_feature(enable = "neon")]
fn load_words(words: &[u32; 4]) -> uint32x4_t {
    // SAFETY: four words are what the load takes.
    unsafe { vld1q_u32(words.as_ptr()) }
}
