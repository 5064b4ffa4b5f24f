//! Programs in the kernel that guard, fence, steer and observe this node's sockets.
//!
//! They are loaded before the node gives up its privileges, and belong to this process: whatever ends it ends them. What
//! is missing degrades one feature and is said once, with the remedy, unless it is required: then the start fails.

mod destinations;
mod drops;
mod local;
mod metrics;
mod programs;
mod stations;
mod status;

pub use drops::{Drops, now};
pub use metrics::EbpfMetrics;
pub use programs::{Need, Programs};
pub use stations::Stations;
