//! The two kinds of buffers that cross the interface: aligned ones for files, and the handles of
//! the pool that received bytes lie in.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    cell::{Cell, RefCell},
    ops::{Deref, DerefMut},
    ptr::NonNull,
    rc::Rc,
    slice,
};

/// Alignment of an [`AlignedBuffer`], and the block that `O_DIRECT` transfers are counted in, bytes.
pub const BLOCK_BYTES: usize = 4096;

/// Heap bytes at a multiple of [`BLOCK_BYTES`], zeroed at first; fit for `O_DIRECT`.
#[derive(Debug)]
pub struct AlignedBuffer {
    start: NonNull<u8>,
    len: usize,
}

impl AlignedBuffer {
    /// A zeroed buffer of exactly `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        let layout = layout(bytes);
        // SAFETY: the layout's size is at least one block.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, len: bytes }
    }

    /// The first byte, for the kernel: a raw pointer that outlives no borrow of ours.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

// SAFETY: the buffer is the only owner of its memory, as a `Box<[u8]>` would be.
unsafe impl Send for AlignedBuffer {}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `new` allocated and zeroed `len` bytes at `start`; the borrow of `self` keeps them.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes it the only borrow.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the layout of the same length.
        unsafe { dealloc(self.start.as_ptr(), layout(self.len)) }
    }
}

/// Whole blocks, at least one, so that the kernel never shares a block with somebody else's heap.
fn layout(bytes: usize) -> Layout {
    let whole = bytes.max(1).next_multiple_of(BLOCK_BYTES);
    Layout::from_size_align(whole, BLOCK_BYTES).expect("a buffer is far below half the address space")
}

/// Received bytes in a buffer of the reactor's pool. Give it back with `Reactor::recycle`; one that is
/// dropped instead returns at the next tick and is counted in `Counters::receive_buffers_dropped`.
#[derive(Debug)]
pub struct ReceiveBuffer {
    index: u16,
    len: u32,
    ledger: Option<Rc<Ledger>>,
}

impl ReceiveBuffer {
    pub(crate) fn new(index: u16, len: u32, ledger: &Rc<Ledger>) -> Self {
        Self { index, len, ledger: Some(Rc::clone(ledger)) }
    }

    /// Bytes received, never 0.
    #[expect(
        clippy::len_without_is_empty,
        reason = "an empty receive is the end of the stream, not a buffer"
    )]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    pub(crate) fn is_from(&self, ledger: &Rc<Ledger>) -> bool {
        self.ledger.as_ref().is_some_and(|own| Rc::ptr_eq(own, ledger))
    }

    /// Ends the handle without an entry in the ledger.
    pub(crate) fn release(mut self) -> u16 {
        self.ledger = None;
        self.index
    }
}

impl Drop for ReceiveBuffer {
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            ledger.count.set(ledger.count.get() + 1);
            ledger.dropped.borrow_mut().push(self.index);
        }
    }
}

/// Where dropped handles of one pool leave their index.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) dropped: RefCell<Vec<u16>>,
    pub(crate) count: Cell<u64>,
}

impl Ledger {
    pub(crate) fn new(buffers: u16) -> Rc<Self> {
        Rc::new(Self { dropped: RefCell::new(Vec::with_capacity(usize::from(buffers))), count: Cell::new(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_buffers_are_aligned_zeroed_and_of_the_length_asked_for() {
        for bytes in [0, 1, 4095, 4096, 4097, 1 << 20] {
            let mut buffer = AlignedBuffer::new(bytes);
            assert_eq!(buffer.start().addr() % BLOCK_BYTES, 0, "{bytes}");
            assert_eq!(buffer.len(), bytes);
            assert!(buffer.iter().all(|&byte| byte == 0));
            buffer.fill(7);
            let moved = std::thread::spawn(move || buffer.iter().all(|&byte| byte == 7));
            assert!(moved.join().unwrap());
        }
    }

    #[test]
    fn a_dropped_handle_is_in_the_ledger_and_a_released_one_is_not() {
        let ledger = Ledger::new(4);
        drop(ReceiveBuffer::new(3, 10, &ledger));
        assert_eq!(ReceiveBuffer::new(2, 10, &ledger).release(), 2);
        assert_eq!(*ledger.dropped.borrow(), [3]);
        assert_eq!(ledger.count.get(), 1);
        assert!(!ReceiveBuffer::new(1, 10, &ledger).is_from(&Ledger::new(4)));
    }
}
