//! SipHash-2-4 with 128 bits of output, after the authors' reference implementation (Aumasson, Bernstein).

/// The hash of `parts`, as if they were concatenated.
pub(crate) fn siphash128(key: &[u8; 16], parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = SipHash::new(key);
    for part in parts {
        hash.update(part);
    }
    hash.finish()
}

struct SipHash {
    v: [u64; 4],
    /// Bytes that do not fill a word yet, low byte first.
    word: u64,
    length: usize,
}

impl SipHash {
    fn new(key: &[u8; 16]) -> Self {
        let [k0, k1] =
            [0, 8].map(|at| u64::from_le_bytes(key[at..at + 8].try_into().expect("8 of 16 bytes")));
        let v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Self { v, word: 0, length: 0 }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !self.length.is_multiple_of(8) {
            let Some((&byte, rest)) = bytes.split_first() else { return };
            self.push(byte);
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.length += 8;
            self.compress(u64::from_le_bytes(*word));
        }
        for &byte in rest {
            self.push(byte);
        }
    }

    fn push(&mut self, byte: u8) {
        self.word |= u64::from(byte) << (self.length % 8 * 8);
        self.length += 1;
        if self.length.is_multiple_of(8) {
            self.compress(self.word);
            self.word = 0;
        }
    }

    fn compress(&mut self, word: u64) {
        self.v[3] ^= word;
        self.rounds(2);
        self.v[0] ^= word;
    }

    fn finish(mut self) -> [u8; 16] {
        self.compress(self.word | (self.length as u64) << 56);
        let mut out = [0; 16];
        self.v[2] ^= 0xee;
        self.rounds(4);
        out[..8].copy_from_slice(&self.folded().to_le_bytes());
        self.v[1] ^= 0xdd;
        self.rounds(4);
        out[8..].copy_from_slice(&self.folded().to_le_bytes());
        out
    }

    fn folded(&self) -> u64 {
        self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3]
    }

    fn rounds(&mut self, count: usize) {
        let [mut a, mut b, mut c, mut d] = self.v;
        for _ in 0..count {
            a = a.wrapping_add(b);
            c = c.wrapping_add(d);
            b = b.rotate_left(13) ^ a;
            d = d.rotate_left(16) ^ c;
            a = a.rotate_left(32);
            c = c.wrapping_add(b);
            a = a.wrapping_add(d);
            b = b.rotate_left(17) ^ c;
            d = d.rotate_left(21) ^ a;
            c = c.rotate_left(32);
        }
        self.v = [a, b, c, d];
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::id::encode_hex;

    /// The authors' vectors (`vectors_sip128`): key 00..0f, input of so many bytes 00, 01, ...
    const VECTORS: [(u8, &str); 8] = [
        (0, "a3817f04ba25a8e66df67214c7550293"),
        (1, "da87c1d86b99af44347659119b22fc45"),
        (2, "8177228da4a45dc7fca38bdef60affe4"),
        (7, "a1f1ebbed8dbc153c0b84aa61ff08239"),
        (8, "3b62a9ba6258f5610f83e264f31497b4"),
        (15, "5493e99933b0a8117e08ec0f97cfc3d9"),
        (16, "6ee2a4ca67b054bbfd3315bf85230577"),
        (63, "5150d1772f50834a503e069a973fbd7c"),
    ];

    #[test]
    fn the_reference_vectors_hold_however_the_input_is_split() {
        let key = core::array::from_fn(|at| at as u8);
        for (length, expected) in VECTORS {
            let input: Vec<u8> = (0..length).collect();
            for split in 0..=input.len() {
                let (head, tail) = input.split_at(split);
                let mut hex = [0; 32];
                encode_hex(&siphash128(&key, &[head, b"", tail]), &mut hex);
                assert_eq!(core::str::from_utf8(&hex), Ok(expected), "{length}, split at {split}");
            }
        }
    }
}
