//! The small process that gets a node its identity and configuration.
//!
//! Enters: an enrollment bundle once, then certificates and signed configurations of the control plane. Leaves: directories of
//! generations that lockd and nodes read, reloads over the nodes' admin sockets, reports, metrics. Refused: what is not
//! signed, not newer, or would not be accepted by a peer. Private keys are on disk only as ciphertext for the host's lockd.
//! A control plane that is away changes nothing. `docs/agent.md` has it all.

#![forbid(unsafe_code)]

pub mod core;

mod agent;
mod clock;
mod config;
mod control_plane;
mod enroll;
mod files;
mod holder;
mod http;
mod key;
mod link_keys;
mod lockd;
mod metrics;
mod node;
mod publish;
mod reach;
mod recover;
mod relay;
mod run;
mod state;
mod status;
mod sync;

pub use config::{Config, ConfigError};
pub use enroll::{EnrollError, enroll};
pub use run::{RunError, run};
pub use status::{Exit, status};
