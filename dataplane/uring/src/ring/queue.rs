//! The two queues of the ring and the one place that enters the kernel.
//!
//! Operations that find the submission queue full wait in a backlog, in order, and go out in the same
//! tick. The kernel keeps completions that find their queue full (NODROP) until the next enter.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsRawFd, RawFd},
    ptr,
    time::Duration,
};

use io_uring::{EnterFlags, IoUring, cqueue, squeue, types};
use nix::errno::Errno;

use super::{setup::RingMode, token::Token};
use crate::error::SetupError;

/// How long to let completions come in when the kernel has no memory for more operations.
const CONGESTED_WAIT_MS: u64 = 1;
/// `IORING_REGISTER_RING_FDS` and its reverse, `<linux/io_uring.h>`.
const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingFdUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

const _: () = assert!(size_of::<RingFdUpdate>() == 16);

pub(super) struct Queue {
    ring: IoUring,
    mode: RingMode,
    /// Index of the ring in the thread's own table, which spares a descriptor look-up at each enter.
    registered: Option<u32>,
    backlog: VecDeque<squeue::Entry>,
    congested: bool,
    pub(super) in_flight: u64,
    pub(super) enters: u64,
    pub(super) submissions: u64,
    pub(super) completions: u64,
}

impl Queue {
    pub(super) fn new(ring: IoUring, mode: RingMode) -> Result<Self, SetupError> {
        let mut update = RingFdUpdate { offset: u32::MAX, reserved: 0, data: ring.as_raw_fd() as u64 };
        register(ring.as_raw_fd(), REGISTER_RING_FDS, &mut update).map_err(|error| {
            SetupError::sort("io_uring_register", "registered ring descriptors", error.into())
        })?;
        let backlog = VecDeque::with_capacity(ring.params().sq_entries() as usize);
        let this = Self {
            ring,
            mode,
            registered: Some(update.offset),
            backlog,
            congested: false,
            in_flight: 0,
            enters: 0,
            submissions: 0,
            completions: 0,
        };
        // A filter may forbid this call alone, and must be found out before the first tick.
        let entered = this.call(0, Some(Duration::ZERO));
        entered.map_err(|error| SetupError::sort("io_uring_enter", "EXT_ARG", error.into()))?;
        Ok(this)
    }

    /// Queues an operation for the next enter.
    ///
    /// # Safety
    /// The memory and descriptors that `entry` names stay valid until its last completion.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.encode());
        self.in_flight += 1;
        if !self.backlog.is_empty() || !self.push_now(&entry) {
            self.backlog.push_back(entry);
        }
    }

    /// Submits all, then waits up to `wait` until there is a completion, read or unread.
    pub(super) fn submit_and_wait(&mut self, wait: Option<Duration>) {
        loop {
            self.refill();
            let wait = if self.backlog.is_empty() { wait } else { Some(Duration::ZERO) };
            let to_submit = self.ring.submission().len() as u32;
            if to_submit == 0 && wait == Some(Duration::ZERO) && !self.has_deferred_work() {
                return;
            }
            self.enter(to_submit, wait);
            if self.congested || self.backlog.is_empty() {
                return;
            }
        }
    }

    /// Moves the completions that are there into `arrived`.
    pub(super) fn collect(&mut self, arrived: &mut Vec<cqueue::Entry>) {
        arrived.extend(self.ring.completion());
        let ended = arrived.iter().filter(|entry| !cqueue::more(entry.flags())).count() as u64;
        assert!(ended <= self.in_flight, "a completion without an operation");
        self.in_flight -= ended;
        self.completions += arrived.len() as u64;
    }

    /// Whether the kernel still holds completions that did not fit into their queue.
    pub(super) fn overflowed(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    fn refill(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.push_now(&entry) {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    fn push_now(&mut self, entry: &squeue::Entry) -> bool {
        let mut submission = self.ring.submission();
        // SAFETY: the caller of `push` keeps what the entry names valid until its completion.
        unsafe { submission.push(entry) }.is_ok()
    }

    /// Whether an enter would find something although there is nothing to submit.
    fn has_deferred_work(&mut self) -> bool {
        let tells = self.mode.tells_deferred_work();
        let submission = self.ring.submission();
        !tells || submission.taskrun() || submission.cq_overflow()
    }

    /// `io_uring_enter(2)`. Out of memory or completions to flush first: `congested`, and the next call
    /// only waits. An interruption or the end of `wait` is no error; whatever else can come is a bug.
    fn enter(&mut self, to_submit: u32, wait: Option<Duration>) {
        let rest = Duration::from_millis(CONGESTED_WAIT_MS);
        let (to_submit, wait) = if self.congested {
            (0, Some(wait.map_or(rest, |wait| wait.min(rest))))
        } else {
            (to_submit, wait)
        };
        self.congested = false;
        self.enters += 1;
        match self.call(to_submit, wait) {
            Ok(submitted) => self.submissions += u64::from(submitted),
            Err(Errno::ETIME | Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::EBUSY) => self.congested = true,
            Err(error) => panic!("io_uring_enter: {error}"),
        }
    }

    fn call(&self, to_submit: u32, wait: Option<Duration>) -> Result<u32, Errno> {
        let at_least = u32::from(wait != Some(Duration::ZERO));
        let timeout = wait.map(types::Timespec::from);
        let arguments = types::SubmitArgs::new();
        let arguments = timeout.as_ref().map_or(arguments, |timeout| arguments.timespec(timeout));
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        let fd = match self.registered {
            Some(index) => {
                flags |= EnterFlags::REGISTERED_RING;
                index.cast_signed()
            }
            None => self.ring.as_raw_fd(),
        };
        // SAFETY: `arguments` is a transparent `io_uring_getevents_arg`; it and `timeout` outlive the call.
        let submitted = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                fd,
                to_submit,
                at_least,
                flags.bits(),
                ptr::from_ref(&arguments),
                size_of_val(&arguments),
            )
        };
        Errno::result(submitted).map(|submitted| submitted as u32)
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("mode", &self.mode)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let Some(offset) = self.registered.take() else { return };
        let mut update = RingFdUpdate { offset, reserved: 0, data: 0 };
        // The thread's table would keep the ring alive; at a thread's end the kernel clears it anyway.
        let _ = register(self.ring.as_raw_fd(), UNREGISTER_RING_FDS, &mut update);
    }
}

fn register(ring: RawFd, what: libc::c_uint, update: &mut RingFdUpdate) -> Result<(), Errno> {
    // SAFETY: one `io_uring_rsrc_update`, borrowed for the call.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, what, ptr::from_mut(update), 1) };
    Errno::result(result).map(drop)
}

/// The error of an operation that ended with `result`, a negated errno.
pub(super) fn failure(result: i32) -> io::Error {
    io::Error::from_raw_os_error(-result)
}
