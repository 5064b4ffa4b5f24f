//! Receive buffers that the kernel takes from a shared ring when bytes arrive
//! (`io_uring_register_buf_ring(3)`): idle sockets hold no memory.

use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::{Submitter, types::BufRingEntry};

use crate::{
    buffer::{AlignedBuffer, ReceiveBuffer},
    error::SetupError,
    pool::BufferMemory,
};

/// The pool's number among those of the ring: there is one.
pub(super) const GROUP: u16 = 0;

#[derive(Debug)]
pub(super) struct ReceivePool {
    /// One entry of `struct io_uring_buf` for each buffer, a power of two.
    entries: AlignedBuffer,
    memory: BufferMemory,
    tail: u16,
    /// Buffers that are not in the kernel's ring.
    outside: u16,
}

impl ReceivePool {
    pub(super) fn new(count: u16, buffer_bytes: u32) -> Self {
        let mut this = Self {
            entries: AlignedBuffer::new(usize::from(count) * size_of::<BufRingEntry>()),
            memory: BufferMemory::new(count, buffer_bytes),
            tail: 0,
            outside: count,
        };
        for index in 0..count {
            this.give(index);
        }
        this
    }

    /// Lets the kernel take buffers from now on.
    ///
    /// # Safety
    /// The pool is freed after the ring, or never.
    pub(super) unsafe fn register(&self, submitter: &Submitter<'_>) -> Result<(), SetupError> {
        let (entries, count) = (self.entries.start().addr() as u64, self.memory.count());
        // SAFETY: `entries` is page aligned, holds `count` entries, and outlives the ring: the caller's word.
        let registered = unsafe { submitter.register_buf_ring_with_flags(entries, count, GROUP, 0) };
        registered.map_err(|source| SetupError::sort("io_uring_register", "provided buffer rings", source))
    }

    /// Buffers that the kernel can take, as far as completions seen tell.
    pub(super) fn available(&self) -> u16 {
        self.memory.count() - self.outside
    }

    pub(super) fn dropped(&self) -> u64 {
        self.memory.dropped()
    }

    /// The buffer that a completion names, with `len` bytes in it.
    pub(super) fn take(&mut self, index: u16, len: u32) -> ReceiveBuffer {
        assert!(self.outside < self.memory.count());
        self.outside += 1;
        self.memory.hand_out(index, len)
    }

    pub(super) fn bytes(&self, buffer: &ReceiveBuffer) -> &[u8] {
        self.memory.bytes(buffer)
    }

    pub(super) fn bytes_mut(&mut self, buffer: &mut ReceiveBuffer) -> &mut [u8] {
        self.memory.bytes_mut(buffer)
    }

    pub(super) fn recycle(&mut self, buffer: ReceiveBuffer) {
        let index = self.memory.take_back(buffer);
        self.give(index);
    }

    /// Gives back what the caller dropped.
    pub(super) fn take_back_dropped(&mut self) {
        while let Some(index) = self.memory.pop_dropped() {
            self.give(index);
        }
    }

    /// Puts a buffer into the kernel's ring and publishes the new tail.
    #[expect(clippy::cast_ptr_alignment, reason = "an aligned buffer begins at a page")]
    fn give(&mut self, index: u16) {
        let start = self.memory.start_of(index);
        let first = self.entries.start().cast::<BufRingEntry>();
        let at = usize::from(self.tail & (self.memory.count() - 1));
        // SAFETY: below the count, so inside `entries`.
        let entry = unsafe { first.add(at) };
        // SAFETY: the kernel only reads entries, and none at or past the tail.
        let entry = unsafe { &mut *entry };
        entry.set_addr(start.addr() as u64);
        entry.set_len(self.memory.buffer_bytes());
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        self.outside -= 1;
        // SAFETY: `first` is the first entry of the ring, zeroed at allocation.
        let tail = unsafe { BufRingEntry::tail(first) };
        // SAFETY: two aligned bytes of `entries` that are only ever accessed as an atomic.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_counted_out_and_in() {
        let mut pool = ReceivePool::new(4, 16);
        assert_eq!(pool.available(), 4);
        let (first, second) = (pool.take(3, 16), pool.take(0, 1));
        assert_eq!((pool.bytes(&first).len(), pool.bytes(&second).len()), (16, 1));
        assert_eq!(pool.available(), 2);
        pool.recycle(first);
        drop(second);
        assert_eq!((pool.available(), pool.dropped()), (3, 1));
        pool.take_back_dropped();
        assert_eq!(pool.available(), 4);
    }

    #[test]
    #[should_panic(expected = "another reactor")]
    fn a_buffer_of_another_pool_is_a_bug() {
        let (mut pool, mut other) = (ReceivePool::new(2, 16), ReceivePool::new(2, 16));
        let buffer = other.take(0, 1);
        pool.recycle(buffer);
    }
}
