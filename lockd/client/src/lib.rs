//! How a process asks its host's lockd for a secret.
//!
//! Enters: names of secrets. Leaves: their values, over a unix socket, in memory that is wiped when dropped.
//! Refused: names that could mean another file, frames of any length but their own, a daemon of another user.
//! The bytes are in `docs/wire-formats.md`; who is answered is lockd's policy, on what the kernel says of the caller.

#![forbid(unsafe_code)]

mod client;
pub mod fuzz;
mod name;
mod wire;

pub use client::{Client, ClientError, Listener};
pub use name::{NAME_BYTES_MAX, NameError, SEGMENT_BYTES_MAX, SecretName};
pub use wire::{
    GREETING_BYTES, Greeting, NONCE_BYTES, Nonce, REPLY_HEAD_BYTES, REQUEST_BYTES_MAX, REQUEST_HEAD_BYTES,
    Refusal, ReplyHead, Request, VALUE_BYTES_MAX, WireError,
};
