//! Buffers that connections share and use again, and the count of what they hold.

use super::Ingester;

/// Buffers for bodies, heads and answers that are kept for reuse.
pub const SPARE_BUFFERS_MAX: usize = 256;
/// Longest of them, bytes.
pub const SPARE_BUFFER_BYTES_MAX: usize = 8 * 1024;
/// Longest plaintext buffer kept for the next receive, bytes.
pub const SCRATCH_BYTES_MAX: usize = 256 * 1024;

impl Ingester {
    /// Counts what a connection holds in place of what was `counted`; `false` if that is over the bound.
    pub fn count_memory(&mut self, counted: &mut usize, holds: usize) -> bool {
        let others = self.memory_bytes - *counted;
        if holds > *counted && others + holds > self.settings().body_memory_bytes_max {
            return false;
        }
        self.memory_bytes = others + holds;
        *counted = holds;
        true
    }

    /// Memory that was counted is free again.
    pub fn give_memory(&mut self, bytes: usize) {
        self.memory_bytes -= bytes;
    }

    /// The buffer that receiving connections share.
    pub fn take_scratch(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch)
    }

    /// Takes it back.
    pub fn give_scratch(&mut self, scratch: Vec<u8>) {
        if scratch.capacity() > self.scratch.capacity() && scratch.capacity() <= SCRATCH_BYTES_MAX {
            self.scratch = scratch;
        }
    }

    /// An empty buffer with room for `expected` bytes.
    pub fn take_buffer(&mut self, expected: usize) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.reserve(expected);
        buffer
    }

    /// Takes such a buffer back.
    pub fn give_buffer(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BUFFER_BYTES_MAX {
            self.spare.push(buffer);
        }
    }
}
