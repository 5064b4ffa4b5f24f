//! Frames: `length:u32 type:u8 payload`, integers little-endian, length counting type and payload.
//!
//! Enters: bytes as TLS records bring them. Leaves: frames that borrow from the reader's buffer.
//! Refused: lengths over their bound, unknown types, fields that do not fill their frame.

use alloc::vec::Vec;

use super::batch::BatchFrame;
use super::error::{LinkError, Refuse};
use super::hello::Hello;
use super::{FIRST_FRAME_BYTES_MAX, FRAME_BYTES_MAX};
use crate::id::is_name;

const LENGTH_BYTES: usize = 4;
/// One whole frame fits, and one TLS record of the next.
pub const BUFFER_BYTES_MAX: usize = LENGTH_BYTES + FRAME_BYTES_MAX + 64 * 1024;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Who is there; first in each direction.
    Hello(Hello),
    /// Why the connection is closed.
    Refuse(Refuse),
    /// The receiver is ready for batches.
    Start(Start),
    /// Events.
    Batch(BatchFrame<'a>),
    /// What is durable, and how much more may come.
    Ack(Ack),
    /// Asks for a pong with the same value.
    Ping(u64),
    /// Answers a ping.
    Pong(u64),
    /// The peer will send (or take) no more events on this connection.
    Goodbye(GoodbyeReason),
}

/// Types of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    /// See [`Frame::Hello`].
    Hello = 1,
    /// See [`Frame::Refuse`].
    Refuse = 2,
    /// See [`Frame::Start`].
    Start = 3,
    /// See [`Frame::Batch`].
    Batch = 4,
    /// See [`Frame::Ack`].
    Ack = 5,
    /// See [`Frame::Ping`].
    Ping = 6,
    /// See [`Frame::Pong`].
    Pong = 7,
    /// See [`Frame::Goodbye`].
    Goodbye = 8,
}

/// The receiver's first word after the hellos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Random, of this connection: the first half of each nonce.
    pub session: [u8; 8],
    /// Highest sequence of that journal that is durable at the receiver; 0 for none.
    pub resume_after: u64,
    /// Event bytes that may come.
    pub credit_bytes: u64,
    /// Events that may come.
    pub credit_events: u32,
}

/// Progress of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Every event of this stream up to this sequence is durable.
    pub durable: u64,
    /// Event bytes granted since the connection began, those of [`Start`] included.
    pub credit_bytes: u64,
    /// Events granted since the connection began, those of [`Start`] included.
    pub credit_events: u64,
}

/// Why a side takes its leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoodbyeReason {
    /// 1: the node is shutting down.
    Drain,
    /// 2: its configuration changed.
    Reconfigured,
    /// A reason of a later version.
    Other(u8),
}

impl Frame<'_> {
    /// The frame's type.
    pub fn frame_type(&self) -> FrameType {
        match self {
            Self::Hello(_) => FrameType::Hello,
            Self::Refuse(_) => FrameType::Refuse,
            Self::Start(_) => FrameType::Start,
            Self::Batch(_) => FrameType::Batch,
            Self::Ack(_) => FrameType::Ack,
            Self::Ping(_) => FrameType::Ping,
            Self::Pong(_) => FrameType::Pong,
            Self::Goodbye(_) => FrameType::Goodbye,
        }
    }
}

impl FrameType {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Refuse,
            3 => Self::Start,
            4 => Self::Batch,
            5 => Self::Ack,
            6 => Self::Ping,
            7 => Self::Pong,
            8 => Self::Goodbye,
            _ => return None,
        })
    }
}

impl Start {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let frame = begin_frame(out, FrameType::Start);
        out.extend_from_slice(&self.session);
        out.extend_from_slice(&self.resume_after.to_le_bytes());
        out.extend_from_slice(&self.credit_bytes.to_le_bytes());
        out.extend_from_slice(&self.credit_events.to_le_bytes());
        end_frame(out, frame);
    }

    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            session: fields.bytes()?,
            resume_after: fields.u64()?,
            credit_bytes: fields.u64()?,
            credit_events: fields.u32()?,
        })
    }
}

impl Ack {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let frame = begin_frame(out, FrameType::Ack);
        out.extend_from_slice(&self.durable.to_le_bytes());
        out.extend_from_slice(&self.credit_bytes.to_le_bytes());
        out.extend_from_slice(&self.credit_events.to_le_bytes());
        end_frame(out, frame);
    }

    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { durable: fields.u64()?, credit_bytes: fields.u64()?, credit_events: fields.u64()? })
    }
}

impl GoodbyeReason {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let frame = begin_frame(out, FrameType::Goodbye);
        out.push(match self {
            Self::Drain => 1,
            Self::Reconfigured => 2,
            Self::Other(reason) => reason,
        });
        end_frame(out, frame);
    }

    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        Some(match fields.u8()? {
            1 => Self::Drain,
            2 => Self::Reconfigured,
            other => Self::Other(other),
        })
    }
}

/// Puts frames together from a byte stream; its memory is bounded by one frame.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    taken: usize,
    past_first: PastFirst,
    failed: Option<LinkError>,
}

/// Whether the connection's first frame came, which has a tighter bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PastFirst {
    #[default]
    No,
    Yes,
}

impl FrameReader {
    /// A reader at the start of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `bytes` and says how many. It takes all, unless the frames that it
    /// already has were not polled: then poll, and call again with the rest.
    #[must_use]
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> usize {
        self.compact();
        let count = bytes.len().min(BUFFER_BYTES_MAX - self.buffer.len());
        let needed = self.buffer.len() + count;
        if needed > self.buffer.capacity() {
            // Doubling, but never over the bound.
            let room = needed.max(2 * self.buffer.capacity()).min(BUFFER_BYTES_MAX);
            self.buffer.reserve_exact(room - self.buffer.len());
        }
        self.buffer.extend_from_slice(&bytes[..count]);
        count
    }

    /// The next whole frame. Errors are final.
    pub fn poll_frame(&mut self) -> Result<Option<Frame<'_>>, LinkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let bytes_max = match self.past_first {
            PastFirst::No => FIRST_FRAME_BYTES_MAX,
            PastFirst::Yes => FRAME_BYTES_MAX,
        };
        match parse_frame(&self.buffer[self.taken..], bytes_max) {
            Ok(Some((frame, size))) => {
                self.taken += size;
                self.past_first = PastFirst::Yes;
                Ok(Some(frame))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Bytes of frames not yet polled.
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.taken
    }

    fn compact(&mut self) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
    }
}

/// Reads the frame at the front of `bytes`, if it is whole, with its size including the length field.
/// `bytes_max` is the bound on its length field.
pub fn parse_frame(bytes: &[u8], bytes_max: usize) -> Result<Option<(Frame<'_>, usize)>, LinkError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length);
    if length == 0 || length as usize > bytes_max {
        return Err(LinkError::FrameLength { bytes: length });
    }
    let Some(&kind) = rest.first() else { return Ok(None) };
    let kind = FrameType::from_byte(kind).ok_or(LinkError::FrameType(kind))?;
    let Some(payload) = rest.get(1..length as usize) else { return Ok(None) };
    Ok(Some((parse_payload(kind, payload)?, LENGTH_BYTES + length as usize)))
}

fn parse_payload(kind: FrameType, payload: &[u8]) -> Result<Frame<'_>, LinkError> {
    let mut fields = Fields(payload);
    let frame = match kind {
        FrameType::Hello => return Hello::parse(payload).map(Frame::Hello),
        FrameType::Refuse => {
            return Refuse::parse(payload).map(Frame::Refuse).ok_or(LinkError::Malformed(kind));
        }
        FrameType::Batch => {
            return BatchFrame::parse(payload).map(Frame::Batch).ok_or(LinkError::Malformed(kind));
        }
        FrameType::Start => Start::parse(&mut fields).map(Frame::Start),
        FrameType::Ack => Ack::parse(&mut fields).map(Frame::Ack),
        FrameType::Ping => fields.u64().map(Frame::Ping),
        FrameType::Pong => fields.u64().map(Frame::Pong),
        FrameType::Goodbye => GoodbyeReason::parse(&mut fields).map(Frame::Goodbye),
    };
    frame.filter(|_| fields.0.is_empty()).ok_or(LinkError::Malformed(kind))
}

/// Appends a frame's head and returns where it begins, for [`end_frame`].
pub(super) fn begin_frame(out: &mut Vec<u8>, kind: FrameType) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.push(kind as u8);
    start
}

/// Fills in the length of the frame that began at `start`.
pub(super) fn end_frame(out: &mut [u8], start: usize) {
    let length = out.len() - start - LENGTH_BYTES;
    assert!((1..=FRAME_BYTES_MAX).contains(&length), "frames are written within their bound");
    out[start..start + LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
}

pub(super) fn write_ping(out: &mut Vec<u8>, value: u64) {
    write_u64(out, FrameType::Ping, value);
}

pub(super) fn write_pong(out: &mut Vec<u8>, value: u64) {
    write_u64(out, FrameType::Pong, value);
}

fn write_u64(out: &mut Vec<u8>, kind: FrameType, value: u64) {
    let frame = begin_frame(out, kind);
    out.extend_from_slice(&value.to_le_bytes());
    end_frame(out, frame);
}

/// Takes fields off the front of a payload; `None` when it is too short.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.array().copied()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A length byte and a name.
    pub(super) fn name(&mut self) -> Option<&'a str> {
        let len = self.u8()?;
        let bytes = self.slice(usize::from(len))?;
        core::str::from_utf8(bytes).ok().filter(|name| is_name(name))
    }
}
