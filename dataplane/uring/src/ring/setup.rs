//! Making a ring with the best flags this kernel takes, and saying what was found.

use std::{fmt, io};

use io_uring::{IoUring, opcode};

use super::{pool::ReceivePool, queue::Queue};
use crate::error::SetupError;

/// Largest completion queue (`io_uring_setup(2)`).
pub(super) const COMPLETION_ENTRIES_MAX: u32 = 1 << 16;
/// Queue size of a ring that is only asked what it can do.
const PROBE_ENTRIES: u32 = 8;

/// Every operation the reactor uses. `SendZc` is not used: it came with multishot receive, which has no
/// operation number of its own to ask for.
const OPCODES: [(&str, u8); 11] = [
    ("accept", opcode::AcceptMulti::CODE),
    ("connect", opcode::Connect::CODE),
    ("multishot receive", opcode::SendZc::CODE),
    ("receive", opcode::RecvMulti::CODE),
    ("send", opcode::Send::CODE),
    ("shutdown", opcode::Shutdown::CODE),
    ("close", opcode::Close::CODE),
    ("read", opcode::Read::CODE),
    ("write", opcode::Write::CODE),
    ("fsync", opcode::Fsync::CODE),
    ("cancel", opcode::AsyncCancel2::CODE),
];

/// Ring flags, best first; the kernel's first refusal is the reason for the next (`io_uring_setup(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingMode {
    /// `SINGLE_ISSUER`, `DEFER_TASKRUN` and `NO_SQARRAY`: Linux 6.6.
    DeferNoArray,
    /// `SINGLE_ISSUER` and `DEFER_TASKRUN`: Linux 6.1.
    Defer,
    /// `COOP_TASKRUN`: Linux 5.19; completions are processed at any system call.
    Cooperative,
    /// No flags: completions interrupt the thread, at about twice the CPU.
    Plain,
}

impl RingMode {
    pub(super) const ALL: [Self; 4] = [Self::DeferNoArray, Self::Defer, Self::Cooperative, Self::Plain];

    /// Whether the kernel tells in the ring that deferred work waits for the next enter.
    pub(super) fn tells_deferred_work(self) -> bool {
        self != Self::Plain
    }
}

impl fmt::Display for RingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeferNoArray => "SINGLE_ISSUER|DEFER_TASKRUN|NO_SQARRAY",
            Self::Defer => "SINGLE_ISSUER|DEFER_TASKRUN (no NO_SQARRAY before Linux 6.6)",
            Self::Cooperative => "COOP_TASKRUN (no DEFER_TASKRUN before Linux 6.1)",
            Self::Plain => "no flags (no COOP_TASKRUN before Linux 5.19)",
        })
    }
}

/// What this kernel offers; its `Display` is one line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The flags that a ring gets.
    pub mode: RingMode,
    /// The operations used, all of them supported.
    pub operations: Vec<&'static str>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "io_uring with {}, provided buffer ring, operations {}",
            self.mode,
            self.operations.join(", ")
        )
    }
}

/// Makes a small ring as [`Reactor::new`](crate::Reactor::new) would, and drops it.
pub fn probe() -> Result<Probe, SetupError> {
    let (ring, mode) = build(PROBE_ENTRIES, PROBE_ENTRIES * 2)?;
    check_opcodes(&ring)?;
    let pool = ReceivePool::new(1, 1);
    // SAFETY: `pool` was made after the ring but is dropped by hand after it.
    unsafe { pool.register(&ring.submitter())? };
    let queue = Queue::new(ring, mode)?;
    drop(queue);
    drop(pool);
    Ok(Probe { mode, operations: OPCODES.iter().map(|(name, _)| *name).collect() })
}

/// A ring with the first mode that the kernel takes.
pub(super) fn build(entries: u32, completions: u32) -> Result<(IoUring, RingMode), SetupError> {
    const CALL: &str = "io_uring_setup";
    let mut refusal = io::Error::from_raw_os_error(libc::EINVAL);
    for mode in RingMode::ALL {
        match build_as(mode, entries, completions) {
            Ok(ring) if !ring.params().is_feature_nodrop() || !ring.params().is_feature_ext_arg() => {
                return Err(SetupError::TooOld { call: CALL, lacks: "NODROP and EXT_ARG" });
            }
            Ok(ring) => return Ok((ring, mode)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refusal = error,
            Err(error) => return Err(SetupError::sort(CALL, "", error)),
        }
    }
    Err(SetupError::sort(CALL, "CQSIZE and SUBMIT_ALL", refusal))
}

pub(super) fn build_as(mode: RingMode, entries: u32, completions: u32) -> Result<IoUring, io::Error> {
    let mut builder = IoUring::builder();
    builder.setup_clamp().setup_cqsize(completions).setup_submit_all();
    if mode.tells_deferred_work() {
        builder.setup_taskrun_flag();
    }
    match mode {
        RingMode::DeferNoArray => {
            builder.setup_single_issuer().setup_defer_taskrun().setup_no_sqarray();
        }
        RingMode::Defer => {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        RingMode::Cooperative => {
            builder.setup_coop_taskrun();
        }
        RingMode::Plain => {}
    }
    builder.dontfork().build(entries)
}

/// Refuses a kernel that lacks an operation.
pub(super) fn check_opcodes(ring: &IoUring) -> Result<(), SetupError> {
    const CALL: &str = "io_uring_register";
    let mut supported = io_uring::Probe::new();
    let asked = ring.submitter().register_probe(&mut supported);
    asked.map_err(|source| SetupError::sort(CALL, "probing", source))?;
    match OPCODES.iter().find(|(_, code)| !supported.is_supported(*code)) {
        Some((name, _)) => Err(SetupError::TooOld { call: CALL, lacks: name }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_offers_what_is_used() {
        let probe = probe().unwrap();
        assert!(matches!(probe.mode, RingMode::DeferNoArray | RingMode::Defer), "{probe}");
        assert!(probe.to_string().contains("multishot receive"), "{probe}");
    }
}
