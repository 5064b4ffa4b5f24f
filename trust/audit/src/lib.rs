//! A log that shows when it was changed: a Merkle tree over stored bytes (RFC 6962, RFC 9162), signed checkpoints and
//! cosignatures (C2SP signed-note, tlog-checkpoint, tlog-cosignature), proofs for one entry (tlog-proof).
//!
//! Pure: no file, socket or clock; whoever stores entries gives nodes by number. A chain of hashes would not do: cut at its
//! end or written anew it is whole. So witnesses keep the last checkpoint they saw and sign only what continues it.
//! Refused: text that is not the one form of a note, proofs with a hash too many, a log that is shorter or another one.

#![forbid(unsafe_code)]

mod checkpoint;
mod entry;
mod export;
pub mod fuzz;
mod hash;
mod key;
mod note;
mod proof;
mod proof_text;
mod segment;
mod tree;
mod witness;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use entry::{Entry, EntryError, Outcome, REQUEST_ID_BYTES_MAX, TEXT_BYTES_MAX};
pub use export::{Export, ExportError, Finding, Trust, verify_export};
pub use hash::{HASH_BYTES, Hash, leaf_hash, node_hash};
pub use key::{KeyError, LogKey, SignatureKind, SigningKey, is_key_name};
pub use note::{NOTE_BYTES_MAX, Note, NoteError, NoteSignature, SIGNATURES_MAX};
pub use proof::{ProofError, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};
pub use proof_text::{EntryProof, ProofTextError};
pub use segment::{
    Digest, DigestError, Segment, SegmentFault, SegmentFinding, segment_lines, verify_digests,
    verify_segments,
};
pub use tree::{Frontier, Node, Nodes, SIZE_MAX, root_of};
pub use witness::{Alarm, Witness};
