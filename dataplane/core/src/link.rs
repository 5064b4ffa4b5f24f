//! The link: events from an ingester's journal to an egress, over one mutual TLS connection per worker.
//!
//! Enters: bytes of the TLS stream, events to send, durable sequences. Leaves: frames, checked events,
//! acknowledgements. Either side may dial; the dialer says [`Hello`] first, then the acceptor, then the
//! receiver says [`Start`] with a session of its own choosing, then the [`Sender`] sends batches within the
//! credit it was granted and the [`Receiver`] acknowledges what is durable. Each event carries an HMAC with the
//! nonce session ‖ counter, so nothing from another connection passes, and nothing passes twice.
//! An [`Outbox`] says what one egress lacks. Refused, with the connection: any frame out of place, any failed tag, replay, order or credit; nothing of
//! a refused batch is taken. `docs/wire-formats.md` has each byte.

mod batch;
mod error;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod hello;
mod liveness;
mod outbox;
mod receiver;
mod sender;
mod signing;
#[cfg(test)]
mod tests;

pub use batch::{BatchEvent, BatchFrame, Targets};
pub use error::{LinkError, Refuse, RefuseCode, write_refuse};
pub use frame::{
    Ack, BUFFER_BYTES_MAX as FRAME_READER_BYTES_MAX, Frame, FrameReader, FrameType, GoodbyeReason, Start,
    parse_frame,
};
pub use hello::{Hello, Role};
pub use outbox::{Outbox, Routed};
pub use receiver::{Incoming, Receiver, ReceiverConfig, ReceiverEvent};
pub use sender::{Outgoing, Sender, SenderConfig, SenderEvent};

use crate::envelope::TARGETS_MAX;
use crate::event::EVENT_BYTES_MAX;
use crate::id::NAME_BYTES_MAX;

/// Oldest protocol version this code speaks.
pub const VERSION_MIN: u16 = 1;
/// Newest protocol version this code speaks.
pub const VERSION_MAX: u16 = 1;
/// Longest frame, bytes after its length field.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest first frame of a connection (a hello or a refusal), bytes after its length field.
pub const FIRST_FRAME_BYTES_MAX: usize = 512;
/// Most events in a batch.
pub const BATCH_EVENTS_MAX: usize = 256;
/// A batch is closed by the event that takes its frame to this size, bytes.
pub const BATCH_BYTES_GOAL: usize = 1024 * 1024;
/// Most events a sender has unacknowledged, whatever credit it was granted.
pub const IN_FLIGHT_EVENTS_MAX: usize = 65_536;
/// Most keys a receiver holds for one ingester.
pub const LINK_KEYS_MAX: usize = 8;
/// From the connection to the first `Start`, ms.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;
/// Without a frame for this long a side sends a ping, ms.
pub const PING_AFTER_MS: u64 = 5_000;
/// Without a frame for this long the peer is dead, ms.
pub const SILENCE_TIMEOUT_MS: u64 = 15_000;

/// Longest entry of a batch: fixed fields, key id, targets, event.
const ENTRY_BYTES_MAX: usize =
    8 + 8 + 8 + 32 + 1 + NAME_BYTES_MAX + 1 + TARGETS_MAX * (1 + NAME_BYTES_MAX) + 4 + EVENT_BYTES_MAX;
const _: () = assert!(BATCH_BYTES_GOAL + ENTRY_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(BATCH_EVENTS_MAX <= u16::MAX as usize && TARGETS_MAX <= u8::MAX as usize);
const _: () = assert!(PING_AFTER_MS < SILENCE_TIMEOUT_MS);
