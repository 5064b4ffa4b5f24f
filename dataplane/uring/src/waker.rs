//! The doorbell: any thread may ring it, and the reactor's tick ends with `Completion::Woken`.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::{
    errno::Errno,
    sys::eventfd::{EfdFlags, EventFd},
};

/// Wakes one reactor. Cheap to clone, and to call again before the reactor has noticed.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    event: EventFd,
    rung: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> Result<Self, io::Error> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?;
        Ok(Self(Arc::new(Bell { event, rung: AtomicBool::new(false) })))
    }

    /// Makes the tick that runs, or the next one, return. What was written before is visible after it.
    pub fn wake(&self) {
        if self.0.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        while let Err(error) = self.0.event.write(1) {
            assert_eq!(error, Errno::EINTR, "write to an eventfd that counts to one");
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }

    /// Accepts rings again; called before what the ring announced is looked at.
    pub(crate) fn rearm(&self) {
        self.0.rung.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
