//! Seeded simulation of the whole path: sources, ingesters, egresses, targets, network, disks and clocks, over the
//! machines of `zen-core` and virtual time.
//!
//! A seed enters; what the run came to leaves, or the first broken promise with the steps before it. The same seed
//! gives the same run on every machine. `docs/simulation.md` says what is simulated and what is not.
#![forbid(unsafe_code)]

mod checker;
mod context;
mod crypto;
mod deliveries;
mod disk;
mod egress;
mod index;
mod ingester;
mod journal;
mod keys;
mod link;
mod network;
mod notes;
mod plan;
mod prng;
mod receiving;
mod retention;
mod sending;
mod source;
mod target;
mod treatment;
mod waker;
mod world;

pub use checker::Violation;
pub use plan::{Planted, UnknownFault};
pub use world::{Failure, Summary, run, trace};
