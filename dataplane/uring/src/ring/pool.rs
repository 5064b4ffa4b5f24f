//! Receive buffers that the kernel takes from a shared ring when bytes arrive
//! (`io_uring_register_buf_ring(3)`): idle sockets hold no memory.

use std::{
    rc::Rc,
    slice,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{Submitter, types::BufRingEntry};

use crate::{
    buffer::{AlignedBuffer, Ledger, ReceiveBuffer},
    error::SetupError,
};

/// The pool's number among those of the ring: there is one.
pub(super) const GROUP: u16 = 0;

#[derive(Debug)]
pub(super) struct ReceivePool {
    /// `count` entries of `struct io_uring_buf`, a power of two.
    entries: AlignedBuffer,
    memory: AlignedBuffer,
    count: u16,
    buffer_bytes: u32,
    tail: u16,
    /// Buffers that are not in the kernel's ring.
    outside: u16,
    ledger: Rc<Ledger>,
}

impl ReceivePool {
    pub(super) fn new(count: u16, buffer_bytes: u32) -> Self {
        let mut this = Self {
            entries: AlignedBuffer::new(usize::from(count) * size_of::<BufRingEntry>()),
            memory: AlignedBuffer::new(usize::from(count) * buffer_bytes as usize),
            count,
            buffer_bytes,
            tail: 0,
            outside: count,
            ledger: Ledger::new(count),
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
        // SAFETY: `entries` is page aligned, holds `count` entries, and outlives the ring: the caller's word.
        let registered = unsafe {
            submitter.register_buf_ring_with_flags(self.entries.start().addr() as u64, self.count, GROUP, 0)
        };
        registered.map_err(|source| SetupError::sort("io_uring_register", "provided buffer rings", source))
    }

    /// Buffers that the kernel can take, as far as completions seen tell.
    pub(super) fn available(&self) -> u16 {
        self.count - self.outside
    }

    pub(super) fn dropped(&self) -> u64 {
        self.ledger.count.get()
    }

    /// The buffer that a completion names, with `len` bytes in it.
    pub(super) fn take(&mut self, index: u16, len: u32) -> ReceiveBuffer {
        assert!(index < self.count && len <= self.buffer_bytes && self.outside < self.count);
        self.outside += 1;
        ReceiveBuffer::new(index, len, &self.ledger)
    }

    pub(super) fn bytes(&self, buffer: &ReceiveBuffer) -> &[u8] {
        assert!(buffer.is_from(&self.ledger), "a receive buffer of another reactor");
        let start = self.start_of(buffer.index());
        // SAFETY: `take` checked index and length; the kernel leaves the buffer alone until it is given
        // back, which takes `&mut self` and the handle.
        unsafe { slice::from_raw_parts(start, buffer.len()) }
    }

    pub(super) fn recycle(&mut self, buffer: ReceiveBuffer) {
        assert!(buffer.is_from(&self.ledger), "a receive buffer of another reactor");
        self.give(buffer.release());
    }

    /// Gives back what the caller dropped.
    pub(super) fn take_back_dropped(&mut self) {
        while let Some(index) = self.pop_dropped() {
            self.give(index);
        }
    }

    fn pop_dropped(&self) -> Option<u16> {
        self.ledger.dropped.borrow_mut().pop()
    }

    fn start_of(&self, index: u16) -> *mut u8 {
        let offset = usize::from(index) * self.buffer_bytes as usize;
        assert!(offset < self.memory.len());
        // SAFETY: inside `memory`, asserted above.
        unsafe { self.memory.start().add(offset) }
    }

    /// Puts a buffer into the kernel's ring and publishes the new tail.
    #[expect(clippy::cast_ptr_alignment, reason = "an aligned buffer begins at a page")]
    fn give(&mut self, index: u16) {
        let start = self.start_of(index);
        let first = self.entries.start().cast::<BufRingEntry>();
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: below `count`, so inside `entries`.
        let entry = unsafe { first.add(at) };
        // SAFETY: the kernel only reads entries, and none at or past the tail.
        let entry = unsafe { &mut *entry };
        entry.set_addr(start.addr() as u64);
        entry.set_len(self.buffer_bytes);
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
