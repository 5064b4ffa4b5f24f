//! Loads, attaches, fills and reads the BPF programs of the appliance.
//!
//! Enters: what a configuration asks for, already checked. Leaves: programs at the node's own cgroup, interfaces and listeners,
//! their counts, and events of refusals. Each type here is one program; dropping it detaches it, and so does the end of the
//! process however it comes, since links and maps live as long as their descriptors. Nothing is pinned.
//!
//! What a reload changes is replaced as a whole: entries of the next generation are written beside those in force, one word
//! makes them count, and only then the old ones go. If anything fails before that word, the old state stays.

mod cgroup;
mod error;
mod events;
mod fence;
mod generations;
mod guard;
mod objects;
mod observe;
mod probe;
mod steer;

pub use aya::programs::XdpMode;
pub use cgroup::{Cgroup, CgroupError};
pub use error::EbpfError;
pub use events::Refusals;
pub use fence::{Fence, FenceRules, Reach};
pub use guard::{Guard, GuardRules, Listener, Network, Rate};
pub use observe::{Observe, Place};
pub use probe::{Feature, probe};
pub use steer::Steer;
pub use zen_ebpf_abi as abi;
