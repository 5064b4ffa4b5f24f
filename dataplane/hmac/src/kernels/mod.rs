//! SHA-256 compression (FIPS 180-4 section 6.2.2) over several independent chains at once, one kernel a file.
//!
//! Enters: chaining values and whole blocks, as many for each lane. Leaves: the chaining values after them. A
//! kernel's value is the proof that this processor has its instructions; nothing else makes one.

#[cfg(target_arch = "aarch64")]
pub(crate) mod arm_sha;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod one;
#[cfg(target_arch = "x86_64")]
pub(crate) mod sha_ni;
mod wide;
#[cfg(test)]
pub(crate) mod wrong;

use zeroize::Zeroize;

pub(crate) const BLOCK_BYTES: usize = 64;
/// The widest kernel.
pub(crate) const LANES_MAX: usize = 16;

pub(crate) type Block = [u8; BLOCK_BYTES];
pub(crate) type Chain = [u32; 8];

/// Compresses `W` lanes at once.
pub(crate) trait Compress<const W: usize>: Copy {
    /// How it wants its chaining values to lie.
    type States: States;

    /// Takes every block of each lane; all lanes have as many as the first.
    fn compress(self, states: &mut Self::States, blocks: &[&[Block]; W]);
}

/// The chaining values of all lanes.
pub(crate) trait States: Zeroize {
    const ZERO: Self;

    fn put(&mut self, lane: usize, chain: &Chain);
    fn chain(&self, lane: usize) -> Chain;
}

/// A lane after the other: for kernels that work on each for itself.
pub(crate) struct Rows<const W: usize>(pub(crate) [Chain; W]);

/// All lanes' first words, then all their second ones: for kernels with a lane in each element.
#[repr(align(64))]
pub(crate) struct Columns<const W: usize>(pub(crate) [[u32; W]; 8]);

impl<const W: usize> States for Rows<W> {
    const ZERO: Self = Self([[0; 8]; W]);

    fn put(&mut self, lane: usize, chain: &Chain) {
        self.0[lane] = *chain;
    }

    fn chain(&self, lane: usize) -> Chain {
        self.0[lane]
    }
}

impl<const W: usize> States for Columns<W> {
    const ZERO: Self = Self([[0; W]; 8]);

    fn put(&mut self, lane: usize, chain: &Chain) {
        for (column, word) in self.0.iter_mut().zip(chain) {
            column[lane] = *word;
        }
    }

    fn chain(&self, lane: usize) -> Chain {
        self.0.each_ref().map(|column| column[lane])
    }
}

impl<const W: usize> Zeroize for Rows<W> {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl<const W: usize> Zeroize for Columns<W> {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

/// FIPS 180-4 section 4.2.2.
pub(crate) const K: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];
