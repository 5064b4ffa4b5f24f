//! Capabilities: all of them go, from all sets of the main thread, before there is another thread; so no thread
//! of the node has any, and none comes back (capabilities(7), `no_new_privs` in prctl(2)).

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Threads of this process, one entry each.
const THREADS: &str = "/proc/self/task";
/// The bounding set comes before this; clearing the permitted set clears the effective one, too.
const SETS: [(CapSet, &str); 3] =
    [(CapSet::Ambient, "ambient"), (CapSet::Inheritable, "inheritable"), (CapSet::Permitted, "permitted")];

/// Why capabilities are still there.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// Another thread would keep its own.
    #[error("{count} threads run already and would keep theirs; start the node without preloaded libraries")]
    Threads {
        /// This one included.
        count: usize,
    },
    /// A set is not cleared.
    #[error(
        "the {set} set is not cleared: {source}; let the sandbox around the node permit capset and prctl"
    )]
    Set {
        /// As capabilities(7) calls it.
        set: &'static str,
        /// What the system said.
        source: caps::errors::CapsError,
    },
    /// A program that the node starts could still gain some.
    #[error("no_new_privs is not set: {0}; let the sandbox around the node permit prctl")]
    NoNewPrivileges(#[from] Errno),
}

/// Whether the node, as root, gets past the modes of files that are not its own.
pub fn overrides_modes() -> bool {
    has(Capability::CAP_DAC_OVERRIDE)
}

/// Gives up everything; a node that has nothing only promises not to gain any.
pub fn give_up() -> Result<(), CapabilityError> {
    let count = std::fs::read_dir(THREADS).map_or(1, Iterator::count);
    if count > 1 {
        return Err(CapabilityError::Threads { count });
    }
    if has(Capability::CAP_IPC_LOCK) {
        raise_locked_memory();
    }
    // Without CAP_SETPCAP the bounding set stays; nothing can be gained from it after no_new_privs.
    if has(Capability::CAP_SETPCAP) {
        clear(CapSet::Bounding, "bounding")?;
    }
    for (set, name) in SETS {
        clear(set, name)?;
    }
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// Rings, made later, will count against this limit; where it stays too low, the reactor's error names it.
fn raise_locked_memory() {
    const LIMIT: Resource = Resource::RLIMIT_MEMLOCK;
    if setrlimit(LIMIT, RLIM_INFINITY, RLIM_INFINITY).is_err() {
        let _ = getrlimit(LIMIT).and_then(|(_, hard)| setrlimit(LIMIT, hard, hard));
    }
}

fn clear(set: CapSet, name: &'static str) -> Result<(), CapabilityError> {
    caps::clear(None, set).map_err(|source| CapabilityError::Set { set: name, source })
}
