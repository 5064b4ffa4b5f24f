//! Everything that can fail before an operation is under way. Each message names call and remedy.

use std::{io, net::SocketAddr};

use nix::errno::Errno;

/// Why there is no reactor.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The kernel was built without `io_uring`, or a sandbox hides it.
    #[error(
        "{call}: no io_uring here; Linux 6.1 or newer is needed, outside a sandbox that emulates the kernel"
    )]
    Missing {
        /// The system call.
        call: &'static str,
    },
    /// Policy forbids `io_uring`.
    #[error(
        "{call}: io_uring is not permitted. Either the sysctl kernel.io_uring_disabled is not 0: set it to 0, or to 1 \
         with the service's group in kernel.io_uring_group; or a seccomp profile blocks io_uring_setup, \
         io_uring_enter and io_uring_register, as container runtimes' default profiles do: allow the three in that \
         profile"
    )]
    Forbidden {
        /// The system call.
        call: &'static str,
    },
    /// The kernel has `io_uring`, but not all that is used.
    #[error("{call}: this kernel's io_uring lacks {lacks}; Linux 6.1 or newer is needed")]
    TooOld {
        /// The system call.
        call: &'static str,
        /// What is missing.
        lacks: &'static str,
    },
    /// No memory that may be locked.
    #[error(
        "{call}: out of memory for the reactor; raise RLIMIT_MEMLOCK (LimitMEMLOCK= in the unit) or the cgroup's \
         memory limit, or lower the number of sockets and buffers"
    )]
    Memory {
        /// The system call.
        call: &'static str,
    },
    /// No descriptor left.
    #[error("{call}: no file descriptor left; raise RLIMIT_NOFILE (LimitNOFILE= in the unit) or fs.file-max")]
    Descriptors {
        /// The system call.
        call: &'static str,
    },
    /// No thread for files.
    #[error(
        "cannot start a thread for files: {source}; raise the process limit (LimitNPROC= in the unit, or pids.max of the cgroup)"
    )]
    Thread {
        /// The error of the call.
        source: io::Error,
    },
    /// A limit that no reactor can have.
    #[error("reactor limit {name}: {rule}")]
    Limit {
        /// The field of `Limits`.
        name: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// Anything else.
    #[error("{call}: {source}")]
    System {
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

impl SetupError {
    /// Whether `io_uring` is blocked here, and not merely short of something that could be raised.
    pub fn is_blocked(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Forbidden { .. } | Self::TooOld { .. })
    }

    /// Sorts the error of `call`; `lacks` is what is missing if the kernel did not know an argument.
    pub(crate) fn sort(call: &'static str, lacks: &'static str, source: io::Error) -> Self {
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSYS | Errno::EOPNOTSUPP) => Self::Missing { call },
            Some(Errno::EPERM | Errno::EACCES) => Self::Forbidden { call },
            Some(Errno::EINVAL) => Self::TooOld { call, lacks },
            Some(Errno::ENOMEM) => Self::Memory { call },
            Some(Errno::EMFILE | Errno::ENFILE) => Self::Descriptors { call },
            _ => Self::System { call, source },
        }
    }
}

/// Why an operation did not begin.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// The table is full; ours now: shed or try again.
    #[error("no room for another of the {limit} {what}")]
    Full {
        /// Sockets, listeners or files.
        what: &'static str,
        /// The bound in `Limits`.
        limit: u32,
    },
    /// `listen` was given a socket that does not listen: a bug of the caller.
    #[error("the socket does not listen; call listen(2) on it first")]
    NotListening,
    /// A system call failed.
    #[error("{call}: {source}")]
    System {
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

impl OpError {
    /// For `map_err` behind a call of `nix`.
    pub(crate) fn system(call: &'static str) -> impl FnOnce(Errno) -> Self {
        move |error| Self::System { call, source: error.into() }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has it.
    #[error(
        "{call} {address}: in use by a process that does not share it; stop that process or choose another address"
    )]
    InUse {
        /// The address asked for.
        address: SocketAddr,
        /// The system call.
        call: &'static str,
    },
    /// A port below `net.ipv4.ip_unprivileged_port_start`.
    #[error(
        "{call} {address}: not permitted; give the service CAP_NET_BIND_SERVICE, lower \
         net.ipv4.ip_unprivileged_port_start, or choose a port from 1024 up"
    )]
    Privileged {
        /// The address asked for.
        address: SocketAddr,
        /// The system call.
        call: &'static str,
    },
    /// No interface has it.
    #[error(
        "{call} {address}: no interface has this address; choose one that `ip address` lists, or the wildcard"
    )]
    NotLocal {
        /// The address asked for.
        address: SocketAddr,
        /// The system call.
        call: &'static str,
    },
    /// Anything else.
    #[error("{call} {address}: {source}")]
    System {
        /// The address asked for.
        address: SocketAddr,
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

impl BindError {
    pub(crate) fn new(address: SocketAddr, call: &'static str, error: Errno) -> Self {
        match error {
            Errno::EADDRINUSE => Self::InUse { address, call },
            Errno::EACCES | Errno::EPERM => Self::Privileged { address, call },
            Errno::EADDRNOTAVAIL => Self::NotLocal { address, call },
            _ => Self::System { address, call, source: error.into() },
        }
    }
}

/// Why a thread is not on its core.
#[derive(Debug, thiserror::Error)]
#[error("sched_setaffinity to core {core}: {source}; choose one of the cores this process may use")]
pub struct PinError {
    /// The core asked for.
    pub core: usize,
    /// The error of the call.
    pub source: io::Error,
}

/// Operations were still in flight at the deadline; their buffers stay allocated for good, because the
/// kernel may still write to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{in_flight} operations were still in flight at the deadline; their buffers are leaked")]
pub struct DrainTimeout {
    /// How many.
    pub in_flight: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_errno_of_a_blocked_ring_names_its_remedy() {
        for (errno, word) in [
            (libc::ENOSYS, "6.1"),
            (libc::EOPNOTSUPP, "sandbox"),
            (libc::EPERM, "kernel.io_uring_disabled"),
            (libc::EPERM, "seccomp"),
            (libc::EINVAL, "multishot"),
            (libc::ENOMEM, "RLIMIT_MEMLOCK"),
            (libc::EMFILE, "RLIMIT_NOFILE"),
            (libc::EIO, "os error 5"),
        ] {
            let source = io::Error::from_raw_os_error(errno);
            let error = SetupError::sort("io_uring_setup", "multishot receive", source);
            let blocked = [libc::ENOSYS, libc::EOPNOTSUPP, libc::EPERM, libc::EINVAL].contains(&errno);
            assert_eq!(error.is_blocked(), blocked, "{errno}");
            let text = error.to_string();
            assert!(text.starts_with("io_uring_setup: ") && text.contains(word), "{errno}: {text}");
        }
    }
}
