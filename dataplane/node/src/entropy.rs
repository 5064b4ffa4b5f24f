//! Random bytes from the system's generator, fetched in blocks so that an event id costs no call.

/// Bytes fetched at once.
const BLOCK_BYTES: usize = 4096;

/// A block of random bytes that is used up and fetched again.
pub struct Entropy {
    block: Box<[u8; BLOCK_BYTES]>,
    used: usize,
}

impl Default for Entropy {
    fn default() -> Self {
        Self { block: Box::new([0; BLOCK_BYTES]), used: BLOCK_BYTES }
    }
}

impl Entropy {
    /// Fresh random bytes; no byte is handed out twice.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= BLOCK_BYTES) };
        if self.used + N > BLOCK_BYTES {
            getrandom::fill(&mut self.block[..])
                .expect("the kernel's generator is seeded before a node starts");
            self.used = 0;
        }
        let taken = &mut self.block[self.used..self.used + N];
        let bytes = (&*taken).try_into().expect("N bytes were taken");
        taken.fill(0);
        self.used += N;
        bytes
    }
}
