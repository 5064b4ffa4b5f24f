//! Receive buffers in a stack: the one that was used last is the next, and still in the cache.

use crate::{buffer::ReceiveBuffer, pool::BufferMemory};

#[derive(Debug)]
pub(super) struct ReceivePool {
    memory: BufferMemory,
    free: Vec<u16>,
}

impl ReceivePool {
    pub(super) fn new(count: u16, buffer_bytes: u32) -> Self {
        Self { memory: BufferMemory::new(count, buffer_bytes), free: (0..count).rev().collect() }
    }

    pub(super) fn available(&self) -> usize {
        self.free.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.memory.dropped()
    }

    /// The buffer that `take` hands out next, if there is one.
    pub(super) fn space(&mut self) -> Option<&mut [u8]> {
        let index = *self.free.last()?;
        Some(self.memory.space(index))
    }

    /// Hands out the buffer that `space` showed, with `len` bytes in it.
    pub(super) fn take(&mut self, len: usize) -> ReceiveBuffer {
        let index = self.free.pop().expect("`space` showed one");
        self.memory.hand_out(index, len as u32)
    }

    pub(super) fn bytes(&self, buffer: &ReceiveBuffer) -> &[u8] {
        self.memory.bytes(buffer)
    }

    pub(super) fn bytes_mut(&mut self, buffer: &mut ReceiveBuffer) -> &mut [u8] {
        self.memory.bytes_mut(buffer)
    }

    pub(super) fn recycle(&mut self, buffer: ReceiveBuffer) {
        self.free.push(self.memory.take_back(buffer));
    }

    /// Gives back what the caller dropped.
    pub(super) fn take_back_dropped(&mut self) {
        while let Some(index) = self.memory.pop_dropped() {
            self.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_filled_handed_out_and_taken_back() {
        let mut pool = ReceivePool::new(2, 4);
        pool.space().unwrap().copy_from_slice(b"abcd");
        let first = pool.take(3);
        pool.space().unwrap().fill(b'x');
        let second = pool.take(4);
        assert_eq!((pool.bytes(&first), pool.bytes(&second)), (&b"abc"[..], &b"xxxx"[..]));
        assert!(pool.space().is_none());
        pool.recycle(first);
        drop(second);
        assert_eq!((pool.available(), pool.dropped()), (1, 1));
        pool.take_back_dropped();
        assert_eq!(pool.available(), 2);
    }
}
