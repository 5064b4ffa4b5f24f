//! The audit log: who changed or was refused what, kept in the transaction of the change itself. No entry, no change.
//!
//! Enters: acts, and cosignatures of witnesses. Leaves: entries whose bytes are stored as they were hashed, checkpoints signed
//! by a key of their own, proofs, exports. Refused: an act outside of a transaction, an entry that is over its bounds, any
//! change while the tree's hashes are not those that earlier entries left, and a start with less than was signed for.
//! What makes a changed log visible is not here: agents remember checkpoints and cosign.

mod checkpoint;
mod commands;
mod keeper;
mod log;
mod read;
mod refused;
mod restart;
mod sink;
mod tables;
mod witness;

pub use self::commands::{AuditRange, audit_key, audit_ranges, audit_witnesses, export_audit, sign_audit};
pub use self::restart::{AuditSettings, accept_truncation};

pub(crate) use self::checkpoint::{Due, Signer, consistency, create_key, ensure_key, latest};
pub(crate) use self::keeper::{CHECKPOINT_EVERY, Keeper};
pub(crate) use self::log::{Act, append, append_agent, append_command, append_system, new_request_id};
pub(crate) use self::read::{
    FILTER_BYTES_MAX, Filter, REQUEST_ENTRIES_MAX, entries, entry_bytes, entry_proof, export, is_long, verify,
};
pub(crate) use self::refused::{append_consumed, append_refused};
pub(crate) use self::restart::carry_over;
pub(crate) use self::tables::TABLES;
pub(crate) use self::witness::{keep_cosignature, register_witness, with_cosignatures, witnesses};
