//! Why a program is not in force.

use aya::maps::MapError;
use aya::programs::ProgramError;

use crate::cgroup::CgroupError;

/// Why a program is not in force. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EbpfError {
    /// The cgroup.
    #[error("{0}")]
    Cgroup(#[from] CgroupError),
    /// The object was made for other tables.
    #[error(
        "{object}: its tables have version {found}, this node wants {wanted}; run scripts/build-ebpf and build again"
    )]
    Version {
        /// Its name.
        object: &'static str,
        /// The version in it; 0 if it has none.
        found: u32,
        /// Ours.
        wanted: u32,
    },
    /// The object lacks a program or a map, or is none.
    #[error("{object}: {what}; run scripts/build-ebpf and build again")]
    Object {
        /// Its name.
        object: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Maps cannot be made.
    #[error(
        "{object}: the kernel refuses its maps: {reason}; give CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN)"
    )]
    Maps {
        /// Its name.
        object: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// The kernel does not take the program.
    #[error(
        "{program}: the kernel refuses it: {reason}; it needs Linux {kernel} or newer, CAP_BPF and CAP_NET_ADMIN"
    )]
    Load {
        /// Its name.
        program: &'static str,
        /// The kernel it needs.
        kernel: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// It cannot be attached.
    #[error("{program}: it cannot be attached to {place}: {reason}")]
    Attach {
        /// Its name.
        program: &'static str,
        /// Where.
        place: String,
        /// What the kernel said.
        reason: String,
    },
    /// A table cannot be written or read.
    #[error("{table}: {source}; the old state stays")]
    Table {
        /// Its name.
        table: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// More entries than the table holds.
    #[error("{table}: {count} entries, {max} at most; merge networks")]
    TooMany {
        /// Its name.
        table: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: u32,
    },
}

/// What went wrong, down to its cause.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Lines of the verifier that are about itself.
const STATISTICS: [&str; 3] = ["processed", "stack depth", "verification time"];

/// The kernel's word, without the pages of the verifier's log.
pub(crate) fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let is_word =
                |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start));
            let last = log.lines().rev().find(is_word);
            match last {
                Some(line) => format!("{io_error} ({line})"),
                None => io_error.to_string(),
            }
        }
        ProgramError::SyscallError(error) => format!("{}: {}", error.call, error.io_error),
        error => error.to_string(),
    }
}
