//! Sealing and opening: plain age files whose plaintext is an envelope.
//!
//! age authenticates no sender: whoever knows a recipient can make a file for it. So the envelope says where the
//! value belongs, and may be signed by its author; opening checks both.

mod author;
mod envelope;
mod keys;
mod open;
mod seal;

pub use author::{Author, AuthorError, AuthorKey};
pub use envelope::{ENVELOPE_BYTES_MAX, Envelope, EnvelopeError, Scope};
pub use keys::{IDENTITIES_MAX, Identities, KeyError, Recipients};
pub use open::{Expected, OpenError, Opened, SEALED_BYTES_MAX, open};
pub use seal::{Format, SealError, seal};
