//! Pure machines and formats of the data plane: bytes and times in, decisions and bytes out.
//!
//! No socket, file, thread, clock or randomness: `now` and random bytes are arguments, cryptography
//! comes in through the traits of [`crypto`]. The node and the simulation drive the same code.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod access;
pub mod crypto;
pub mod dedupe;
pub mod deliver;
pub mod envelope;
pub mod event;
pub mod hops;
pub mod http1;
pub mod id;
pub mod journal;
pub mod link;
pub mod record;
pub mod trace;
pub mod verify;
