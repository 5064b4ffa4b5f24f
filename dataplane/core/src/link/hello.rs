//! The hello: versions first, in a place that no later version may move.

use alloc::string::String;
use alloc::vec::Vec;

use super::error::LinkError;
use super::frame::{Fields, FrameType, begin_frame, end_frame};
use super::{VERSION_MAX, VERSION_MIN};
use crate::id::is_name;

const MAGIC: [u8; 4] = *b"ZENL";

/// What a node says of itself when a connection begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version it speaks.
    pub version_min: u16,
    /// Newest version it speaks.
    pub version_max: u16,
    /// What it does on this connection.
    pub role: Role,
    /// The worker journal: which one a sender serves, which one a receiver wants.
    pub stream: u16,
    /// How many streams a sender has; 0 from a receiver.
    pub streams: u16,
    /// The journal behind a sender's stream; zeros from a receiver.
    pub journal_id: [u8; 16],
    /// Its name.
    pub node: String,
    /// The name of the node it means to reach.
    pub peer: String,
}

/// Who sends events on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The ingester.
    Sender,
    /// The egress.
    Receiver,
}

impl Hello {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        assert!(is_name(&self.node) && is_name(&self.peer), "nodes have names");
        let frame = begin_frame(out, FrameType::Hello);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version_min.to_le_bytes());
        out.extend_from_slice(&self.version_max.to_le_bytes());
        out.push(match self.role {
            Role::Sender => 1,
            Role::Receiver => 2,
        });
        out.extend_from_slice(&self.stream.to_le_bytes());
        out.extend_from_slice(&self.streams.to_le_bytes());
        out.extend_from_slice(&self.journal_id);
        for name in [&self.node, &self.peer] {
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
        }
        end_frame(out, frame);
    }

    pub(super) fn parse(payload: &[u8]) -> Result<Self, LinkError> {
        let mut fields = Fields(payload);
        if fields.bytes().ok_or(LinkError::Magic)? != MAGIC {
            return Err(LinkError::Magic);
        }
        let malformed = LinkError::Malformed(FrameType::Hello);
        let (Some(min), Some(max)) = (fields.u16(), fields.u16()) else { return Err(malformed) };
        if min > max || min == 0 {
            return Err(malformed);
        }
        if max < VERSION_MIN || min > VERSION_MAX {
            return Err(LinkError::Version { min, max });
        }
        Self::parse_rest(min, max, fields).ok_or(malformed)
    }

    fn parse_rest(version_min: u16, version_max: u16, mut fields: Fields<'_>) -> Option<Self> {
        let role = match fields.u8()? {
            1 => Role::Sender,
            2 => Role::Receiver,
            _ => return None,
        };
        let (stream, streams) = (fields.u16()?, fields.u16()?);
        let journal_id = fields.bytes()?;
        let node = fields.name()?.into();
        let peer = fields.name()?.into();
        let consistent = match role {
            Role::Sender => stream < streams,
            Role::Receiver => streams == 0 && journal_id == [0; 16],
        };
        // A newer peer may say more; version 1 has nothing after the names.
        let whole = fields.0.is_empty() || version_max > VERSION_MAX;
        (consistent && whole).then_some(Self {
            version_min,
            version_max,
            role,
            stream,
            streams,
            journal_id,
            node,
            peer,
        })
    }

    /// Whether this peer's hello is the one that `ours` belongs with.
    pub(super) fn check_against(&self, ours: &Self) -> Result<(), LinkError> {
        if self.role == ours.role {
            return Err(LinkError::Role);
        }
        if self.node != ours.peer {
            return Err(LinkError::NodeName);
        }
        if self.peer != ours.node {
            return Err(LinkError::PeerName);
        }
        if self.stream != ours.stream {
            return Err(LinkError::Stream);
        }
        Ok(())
    }
}
