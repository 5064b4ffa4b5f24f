//! The steerer's tables: which worker runs on a processor.

/// Workers of a node.
pub const WORKERS_MAX: u32 = 64;
/// Processors that are told apart; connections on others are hashed.
pub const PROCESSORS_MAX: u32 = 1024;
/// In the table of processors: no worker is pinned there.
pub const NO_WORKER: u32 = 0;

/// Connections, of one processor.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Counts {
    /// Given to the worker of the processor.
    pub steered: u64,
    /// Left to the kernel's hash.
    pub hashed: u64,
}
