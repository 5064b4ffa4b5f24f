//! The memory of a backend's receive buffers, and the handles that go out and come back.
//!
//! Which buffers are free, and who may fill one, is the backend's business.

use std::{rc::Rc, slice};

use crate::buffer::{AlignedBuffer, Ledger, ReceiveBuffer};

/// `count` buffers of `buffer_bytes` each, side by side.
#[derive(Debug)]
pub(crate) struct BufferMemory {
    memory: AlignedBuffer,
    count: u16,
    buffer_bytes: u32,
    ledger: Rc<Ledger>,
}

impl BufferMemory {
    pub(crate) fn new(count: u16, buffer_bytes: u32) -> Self {
        let memory = AlignedBuffer::new(usize::from(count) * buffer_bytes as usize);
        Self { memory, count, buffer_bytes, ledger: Ledger::new(count) }
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    pub(crate) fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.ledger.count.get()
    }

    /// The handle of a buffer that was filled with `len` bytes.
    pub(crate) fn hand_out(&self, index: u16, len: u32) -> ReceiveBuffer {
        assert!(index < self.count && len <= self.buffer_bytes);
        ReceiveBuffer::new(index, len, &self.ledger)
    }

    /// Ends a handle; its buffer may be filled again.
    pub(crate) fn take_back(&self, buffer: ReceiveBuffer) -> u16 {
        assert!(buffer.is_from(&self.ledger), "a receive buffer of another reactor");
        buffer.release()
    }

    /// The next of the buffers whose handles were dropped.
    pub(crate) fn pop_dropped(&self) -> Option<u16> {
        self.ledger.dropped.borrow_mut().pop()
    }

    pub(crate) fn bytes(&self, buffer: &ReceiveBuffer) -> &[u8] {
        assert!(buffer.is_from(&self.ledger), "a receive buffer of another reactor");
        let start = self.start_of(buffer.index());
        // SAFETY: `hand_out` checked index and length; nobody fills the buffer until it is taken back,
        // which takes the handle and the backend's `&mut self`.
        unsafe { slice::from_raw_parts(start, buffer.len()) }
    }

    /// As [`BufferMemory::bytes`], to be worked on where they are.
    pub(crate) fn bytes_mut(&mut self, buffer: &mut ReceiveBuffer) -> &mut [u8] {
        assert!(buffer.is_from(&self.ledger), "a receive buffer of another reactor");
        let start = self.start_of(buffer.index());
        // SAFETY: as for `bytes`; both `&mut` make it the only borrow.
        unsafe { slice::from_raw_parts_mut(start, buffer.len()) }
    }

    /// All of a buffer that has no handle, to fill it.
    pub(crate) fn space(&mut self, index: u16) -> &mut [u8] {
        let start = self.start_of(index);
        // SAFETY: inside `memory`, as `start_of` checked; `&mut self` makes it the only borrow.
        unsafe { slice::from_raw_parts_mut(start, self.buffer_bytes as usize) }
    }

    pub(crate) fn start_of(&self, index: u16) -> *mut u8 {
        assert!(index < self.count);
        let offset = usize::from(index) * self.buffer_bytes as usize;
        // SAFETY: inside `memory`, asserted above.
        unsafe { self.memory.start().add(offset) }
    }
}
