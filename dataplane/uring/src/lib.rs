//! The reactor: sockets, files, timers and a doorbell, by completion, one reactor a worker thread.
//!
//! In go listening and connected sockets, buffers to send or write, and deadlines. Out of
//! [`Reactor::tick`] come [`Completion`]s, everything that is there at once. Buffers belong to the
//! reactor until their completion; ids carry a generation, so a stale one does nothing.
//! Refused: more sockets, listeners or files than [`Limits`] allows. Two backends do the work:
//! `ring/` with `io_uring` (Linux 6.1 or newer, `io_uring_enter(2)`), `epoll/` where that is blocked
//! (`epoll(7)`); [`Backend::choose`] says which. The rest is what they share.

mod backend;
mod bind;
mod buffer;
mod completion;
mod cores;
mod epoll;
mod error;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod pool;
mod reactor;
mod ring;
mod socket;
mod table;
mod timers;
mod waker;

pub use backend::{Backend, Chosen, Io, UnknownIo};
pub use bind::{BoundSocket, bind_reuseport};
pub use buffer::{AlignedBuffer, BLOCK_BYTES, ReceiveBuffer};
pub use completion::{Completion, FileId, ListenerId, SocketId};
pub use cores::{online_cores, pin_to_core};
pub use error::{BindError, DrainTimeout, OpError, PinError, SetupError};
pub use reactor::{Counters, FILE_OPERATIONS_PER_FILE_MAX, Limits, Reactor};
pub use ring::{Probe, RingMode, probe};
pub use waker::Waker;
