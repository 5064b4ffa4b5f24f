//! What is done against secrets staying in memory: freed heap is wiped, pages are locked, there are no core dumps.
//!
//! Best effort: registers, the kernel's socket buffers and what a hypervisor pages out are beyond a process. The
//! only unsafe code of lockd is here.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::slice;

use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use serde::Deserialize;
use zeroize::Zeroize;

/// Stack that is overwritten at once, and how many times over: an opening's frames are above that.
const STACK_BYTES: usize = 16 * 1024;
const STACK_DEPTH: usize = 4;

/// The system's allocator; what is given back is wiped first, whoever wrote it: our code, age, JSON, the standard library.
#[derive(Debug)]
pub struct WipingAllocator;

// SAFETY: every call goes to `System` with the arguments as they came; wiping touches a block only before it is given back.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block has this many bytes and nobody else uses it: it is being given back.
        let bytes = unsafe { slice::from_raw_parts_mut(block.cast::<MaybeUninit<u8>>(), layout.size()) };
        bytes.zeroize();
        // SAFETY: block and layout are those of the allocation, as the caller vouches.
        unsafe { System.dealloc(block, layout) };
    }
}

/// Whether a daemon starts without its memory locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMemory {
    /// It does not.
    #[default]
    Require,
    /// It does, and says so.
    Try,
}

/// Why memory is not guarded. Each says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Pages cannot be locked.
    #[error(
        "memory cannot be locked: {0}; give LimitMEMLOCK=infinity or CAP_IPC_LOCK, or set memory.lock = \"try\""
    )]
    Lock(Errno),
    /// Core dumps cannot be refused.
    #[error("core dumps cannot be refused: {0}")]
    Core(Errno),
}

/// No core dump of this process is written, and no other process of its user may look into it.
pub fn refuse_core_dumps() -> Result<(), MemoryError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(MemoryError::Core)?;
    set_dumpable(false).map_err(MemoryError::Core)
}

/// Locks all pages, those to come as well.
pub fn lock_pages() -> Result<(), MemoryError> {
    use_one_arena();
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).map_err(MemoryError::Lock)
}

/// Overwrites the stack below the caller's frame, where an opening had its keys.
pub fn wipe_stack() {
    wipe_frames(STACK_DEPTH);
}

#[inline(never)]
fn wipe_frames(depth: usize) {
    let mut area = [0xa5_u8; STACK_BYTES];
    if depth > 1 {
        wipe_frames(depth - 1);
    }
    black_box(&mut area).zeroize();
}

/// Each further arena of the C library would reserve, and so lock, 64 MiB.
fn use_one_arena() {
    // SAFETY: mallopt takes any values; it is called before there is a second thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
