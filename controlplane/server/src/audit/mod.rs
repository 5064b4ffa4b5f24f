//! The audit log: who changed or was refused what, kept in the transaction of the change itself. No entry, no change.
//!
//! Enters: acts. Leaves: entries whose bytes are stored as they were hashed, checkpoints signed by a key of their own, proofs.
//! Refused: an act outside of a transaction, an entry that is over its bounds, and any change while the tree's hashes are not
//! those that earlier entries left. What makes a changed log visible is not here: agents remember checkpoints and cosign.

mod log;
mod tables;

pub(crate) use self::log::{Act, append, append_command};
pub(crate) use self::tables::TABLES;
