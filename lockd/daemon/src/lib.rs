//! An age vault: secrets are sealed to recipients at the edge, lie on disk as ciphertext, and are opened on their
//! node for the process that needs them.
//!
//! Enters: sealed files, lockd's own keys, a policy, requests over a unix socket. Leaves: values, to whom the policy
//! names, and a receipt of each opening. Refused: ciphertext whose envelope belongs elsewhere, callers that are not
//! who they seem, paths through symbolic links, keys that others may read.

#![deny(unsafe_code)]

pub mod daemon;
pub mod files;
pub mod fuzz;
#[expect(unsafe_code, reason = "the one file of lockd that may hold it")]
pub mod memory;
pub mod policy;
pub mod receipts;
pub mod vault;
