//! What ends a connection, and how it is said to the peer.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::frame::{FrameType, begin_frame, end_frame};
use super::{FRAME_BYTES_MAX, VERSION_MAX, VERSION_MIN};
use crate::envelope::{EnvelopeError, Replay};
use crate::event::EventError;

/// Why a connection ends; all are final.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// A frame is empty or over its bound.
    #[error("a frame of {bytes} bytes; 1 to {FRAME_BYTES_MAX} are allowed, fewer before the hello")]
    FrameLength {
        /// What its length field says.
        bytes: u32,
    },
    /// A frame type that version 1 does not have.
    #[error("unknown frame type {0}")]
    FrameType(u8),
    /// A frame's fields do not fill it, or one is out of its range.
    #[error("a malformed {0:?} frame")]
    Malformed(FrameType),
    /// A frame that does not belong there.
    #[error("an unexpected {0:?} frame")]
    Unexpected(FrameType),
    /// The first frame is of another protocol.
    #[error("not a Zen Mesh link")]
    Magic,
    /// No protocol version in common.
    #[error("the peer speaks link versions {min} to {max}, this node {VERSION_MIN} to {VERSION_MAX}")]
    Version {
        /// The peer's oldest.
        min: u16,
        /// The peer's newest.
        max: u16,
    },
    /// Both are senders or both are receivers.
    #[error("the peer has the same role as this node")]
    Role,
    /// The peer is not the node that is configured.
    #[error("the peer is not the node that is expected here")]
    NodeName,
    /// The peer meant to reach another node.
    #[error("the peer expects another node here")]
    PeerName,
    /// The peer offers another stream than was asked for.
    #[error("the peer offers another stream")]
    Stream,
    /// The peer resumes behind everything that this node's journal ever gave it.
    #[error("the peer has more of this stream than its journal holds")]
    ResumeAhead,
    /// The peer refused, and said why.
    #[error("refused by the peer ({:?}): {}", .0.code, .0.text)]
    Refused(Refuse),
    /// An event was signed with a key this node does not have.
    #[error("an event is signed with an unknown key")]
    KeyUnknown,
    /// An event's signing time is outside the window.
    #[error("an event's signing time is outside the window")]
    Stale,
    /// An event's counter was used before.
    #[error("an event is replayed: {0}")]
    Replay(#[from] Replay),
    /// Sequences do not ascend.
    #[error("event sequences do not ascend")]
    Order,
    /// More events or bytes than were granted.
    #[error("more was sent than was granted")]
    Credit,
    /// An event is not in its encoding.
    #[error("{0}")]
    Event(#[from] EventError),
    /// An event cannot have been signed.
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    /// A tag does not match its event.
    #[error("an event's tag does not match")]
    Tag,
    /// An acknowledgement of what was not sent, or one that takes something back.
    #[error("an acknowledgement that cannot be")]
    Ack,
    /// As many links as may be are open.
    #[error("as many links as this node may have are open")]
    Busy,
    /// A stream that is new here, beyond `STREAMS_MAX` that are known.
    #[error("as many streams as this node may know are known")]
    TooManyStreams,
    /// The handshake took too long.
    #[error("the handshake took too long")]
    HandshakeTimeout,
    /// Nothing came for too long.
    #[error("the peer has fallen silent")]
    PeerSilent,
}

impl LinkError {
    /// A metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::FrameLength { .. } => "frame_length",
            Self::FrameType(_) => "frame_type",
            Self::Malformed(_) => "malformed",
            Self::Unexpected(_) => "unexpected",
            Self::Magic => "magic",
            Self::Version { .. } => "version",
            Self::Role => "role",
            Self::NodeName => "node_name",
            Self::PeerName => "peer_name",
            Self::Stream => "stream",
            Self::ResumeAhead => "resume_ahead",
            Self::Refused(_) => "refused",
            Self::KeyUnknown => "key_unknown",
            Self::Stale => "stale",
            Self::Replay(_) => "replay",
            Self::Order => "order",
            Self::Credit => "credit",
            Self::Event(_) => "event",
            Self::Envelope(_) => "envelope",
            Self::Tag => "tag",
            Self::Ack => "ack",
            Self::Busy => "busy",
            Self::TooManyStreams => "streams",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::PeerSilent => "peer_silent",
        }
    }

    /// What to tell the peer before closing; nothing after its own refusal.
    pub fn refuse_code(&self) -> Option<RefuseCode> {
        match self {
            Self::Refused(_) => None,
            Self::Version { .. } => Some(RefuseCode::Version),
            Self::Role => Some(RefuseCode::Role),
            Self::NodeName | Self::PeerName => Some(RefuseCode::Peer),
            Self::Stream | Self::ResumeAhead => Some(RefuseCode::Stream),
            Self::KeyUnknown | Self::Stale | Self::Replay(_) | Self::Tag => Some(RefuseCode::Authentication),
            Self::Busy | Self::TooManyStreams => Some(RefuseCode::Busy),
            Self::HandshakeTimeout | Self::PeerSilent => Some(RefuseCode::Timeout),
            Self::FrameLength { .. }
            | Self::FrameType(_)
            | Self::Malformed(_)
            | Self::Unexpected(_)
            | Self::Magic
            | Self::Order
            | Self::Credit
            | Self::Event(_)
            | Self::Envelope(_)
            | Self::Ack => Some(RefuseCode::Protocol),
        }
    }

    /// Appends the refusal that tells the peer, if there is one.
    pub fn write_refuse(&self, out: &mut Vec<u8>) {
        if let Some(code) = self.refuse_code() {
            write_refuse(out, code, &self.to_string());
        }
    }
}

/// The last frame of a connection: why it is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// For machines.
    pub code: RefuseCode,
    /// For people: at most 255 bytes of UTF-8 without control characters.
    pub text: String,
}

/// Reasons of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseCode {
    /// 1: no version in common.
    Version,
    /// 2: the node's name is unknown, or not the expected one.
    Peer,
    /// 3: both have the same role.
    Role,
    /// 4: no such stream.
    Stream,
    /// 5: a frame that breaks the protocol.
    Protocol,
    /// 6: a key, tag, time or counter that does not hold.
    Authentication,
    /// 7: too many connections, or going away.
    Busy,
    /// 8: too slow.
    Timeout,
    /// A code of a later version.
    Other(u8),
}

impl RefuseCode {
    fn to_byte(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::Peer => 2,
            Self::Role => 3,
            Self::Stream => 4,
            Self::Protocol => 5,
            Self::Authentication => 6,
            Self::Busy => 7,
            Self::Timeout => 8,
            Self::Other(code) => code,
        }
    }

    fn from_byte(code: u8) -> Self {
        match code {
            1 => Self::Version,
            2 => Self::Peer,
            3 => Self::Role,
            4 => Self::Stream,
            5 => Self::Protocol,
            6 => Self::Authentication,
            7 => Self::Busy,
            8 => Self::Timeout,
            other => Self::Other(other),
        }
    }
}

impl Refuse {
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let (&[code, len], text) = payload.split_first_chunk::<2>()?;
        let text = core::str::from_utf8(text).ok()?;
        if text.len() != usize::from(len) || text.bytes().any(|byte| byte.is_ascii_control()) {
            return None;
        }
        Some(Self { code: RefuseCode::from_byte(code), text: text.into() })
    }
}

/// Appends a refusal; `text` is cut to 255 bytes, and its control characters become spaces.
pub fn write_refuse(out: &mut Vec<u8>, code: RefuseCode, text: &str) {
    let text = &text[..text.floor_char_boundary(255)];
    let frame = begin_frame(out, FrameType::Refuse);
    out.push(code.to_byte());
    out.push(text.len() as u8);
    out.extend(text.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
    end_frame(out, frame);
}
