//! What the BPF programs and the node share: map keys and values, events, and the arithmetic of verdicts.
//!
//! Everything is `repr(C)` without padding that is not named, since the kernel compares keys byte by byte. Addresses are 16
//! bytes, IPv4 in its mapped form (RFC 4291 section 2.5.5.2), so that one table serves both families.
//!
//! Tables that a reload replaces hold two generations: entries of the next one are written beside those in force, then one
//! word says which counts ([`slot`]). A program sees the old table or the new one, never a mix.

#![no_std]
#![allow(
    clippy::inline_always,
    reason = "a BPF program is one function: the verifier follows no call with a reference"
)]

pub mod address;
pub mod event;
pub mod fence;
pub mod guard;
pub mod observe;
pub mod packet;
#[cfg(feature = "user")]
mod pod;
pub mod steer;

/// A kernel whose objects have another version of these tables refuses to serve this node, and the other way round.
pub const VERSION: u32 = 1;

/// Two generations are there at most; their settings lie in slots 0 and 1.
pub const fn slot(generation: u32) -> u32 {
    generation & 1
}
