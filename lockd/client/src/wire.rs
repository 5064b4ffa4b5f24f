//! The frames of lockd's socket: one greeting, then a request and a reply, again and again.
//!
//! The greeting's nonce comes back in every request: a request was written after lockd had looked at the caller,
//! so the kernel's word on who wrote it is about the process that was looked at. Integers are big-endian.

use crate::{NAME_BYTES_MAX, NameError, SecretName};

/// Bytes of a greeting's nonce.
pub const NONCE_BYTES: usize = 16;
/// What a connection's requests repeat.
pub type Nonce = [u8; NONCE_BYTES];
/// Bytes of a greeting.
pub const GREETING_BYTES: usize = MAGIC.len() + NONCE_BYTES;
/// Bytes in front of a request that say how long the rest is.
pub const REQUEST_HEAD_BYTES: usize = 2;
/// Most bytes of a request behind its length.
pub const REQUEST_BYTES_MAX: usize = NONCE_BYTES + 1 + NAME_BYTES_MAX;
/// Length and verdict of a reply.
pub const REPLY_HEAD_BYTES: usize = 5;
/// Most bytes of a secret.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

const MAGIC: &[u8; 8] = b"zenlock1";
const OPEN: u8 = 1;

const _: () = assert!(REQUEST_BYTES_MAX <= u16::MAX as usize);

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The greeting of something else, or of another version.
    #[error("this is not a lockd of version 1")]
    Magic,
    /// A length that no frame has.
    #[error("a frame of {0} bytes")]
    Length(usize),
    /// A request of an unknown kind.
    #[error("an unknown kind of request: {0}")]
    Kind(u8),
    /// A verdict that is none.
    #[error("an unknown verdict: {0}")]
    Verdict(u8),
    /// A name that is none.
    #[error("{0}")]
    Name(#[from] NameError),
}

/// What lockd says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Random, of this connection.
    pub nonce: Nonce,
}

impl Greeting {
    /// The bytes.
    pub fn encode(&self) -> [u8; GREETING_BYTES] {
        let mut bytes = [0; GREETING_BYTES];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[MAGIC.len()..].copy_from_slice(&self.nonce);
        bytes
    }

    /// Reads a greeting.
    pub fn decode(bytes: &[u8; GREETING_BYTES]) -> Result<Self, WireError> {
        let (magic, nonce) = bytes.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(WireError::Magic);
        }
        Ok(Self { nonce: nonce.try_into().expect("what follows the magic is the nonce") })
    }
}

/// Asks for one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of the greeting.
    pub nonce: Nonce,
    /// Which secret.
    pub name: SecretName,
}

impl Request {
    /// The bytes, their length first.
    pub fn encode(&self) -> Vec<u8> {
        let length = NONCE_BYTES + 1 + self.name.as_str().len();
        let mut bytes = Vec::with_capacity(REQUEST_HEAD_BYTES + length);
        bytes.extend((length as u16).to_be_bytes());
        bytes.extend(self.nonce);
        bytes.push(OPEN);
        bytes.extend(self.name.as_str().as_bytes());
        bytes
    }

    /// How many bytes follow a request's head.
    pub fn decode_head(head: [u8; REQUEST_HEAD_BYTES]) -> Result<usize, WireError> {
        let length = usize::from(u16::from_be_bytes(head));
        if !(NONCE_BYTES + 2..=REQUEST_BYTES_MAX).contains(&length) {
            return Err(WireError::Length(length));
        }
        Ok(length)
    }

    /// Reads what follows the head.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (nonce, rest) = bytes.split_first_chunk().ok_or(WireError::Length(bytes.len()))?;
        let (&kind, name) = rest.split_first().ok_or(WireError::Length(bytes.len()))?;
        if kind != OPEN {
            return Err(WireError::Kind(kind));
        }
        let name = std::str::from_utf8(name).map_err(|_| NameError::Segment)?;
        Ok(Self { nonce: *nonce, name: SecretName::parse(name)? })
    }
}

/// Why lockd gives no value. Whoever is not granted a name learns nothing of it, not even whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No grant names this process and this secret.
    #[error("lockd's policy does not grant it to this process")]
    Denied,
    /// Granted, and not there.
    #[error("lockd has no such secret")]
    Missing,
    /// Granted and there, and it cannot be opened: the reason is in lockd's receipt.
    #[error("lockd cannot open it; `zen-lockd check` and its receipts say why")]
    Sealed,
    /// A request that breaks the protocol.
    #[error("lockd did not understand the request")]
    Malformed,
    /// All of lockd's places are taken.
    #[error("lockd is busy")]
    Busy,
}

impl Refusal {
    const ALL: [Self; 5] = [Self::Denied, Self::Missing, Self::Sealed, Self::Malformed, Self::Busy];

    fn code(self) -> u8 {
        match self {
            Self::Denied => 1,
            Self::Missing => 2,
            Self::Sealed => 3,
            Self::Malformed => 4,
            Self::Busy => 5,
        }
    }
}

/// The head of a reply: what was decided, and how long the value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyHead {
    /// So many bytes of value follow.
    Value(usize),
    /// Nothing follows.
    Refused(Refusal),
}

impl ReplyHead {
    /// The bytes.
    pub fn encode(self) -> [u8; REPLY_HEAD_BYTES] {
        let (length, code) = match self {
            Self::Value(length) => (length, 0),
            Self::Refused(refusal) => (0, refusal.code()),
        };
        assert!(length <= VALUE_BYTES_MAX, "an opened value is bounded");
        let [a, b, c, d] = (length as u32).to_be_bytes();
        [a, b, c, d, code]
    }

    /// Reads a head.
    pub fn decode(head: [u8; REPLY_HEAD_BYTES]) -> Result<Self, WireError> {
        let [a, b, c, d, code] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if code == 0 && length <= VALUE_BYTES_MAX {
            return Ok(Self::Value(length));
        }
        if length != 0 {
            return Err(WireError::Length(length));
        }
        let refusal = Refusal::ALL.into_iter().find(|refusal| refusal.code() == code);
        refusal.map(Self::Refused).ok_or(WireError::Verdict(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request { nonce: *b"0123456789abcdef", name: SecretName::parse("edge/webhooks/github").unwrap() }
    }

    #[test]
    fn frames_are_as_documented() {
        assert_eq!(&Greeting { nonce: *b"0123456789abcdef" }.encode(), b"zenlock10123456789abcdef");
        assert_eq!(request().encode(), b"\x00\x250123456789abcdef\x01edge/webhooks/github");
        assert_eq!(ReplyHead::Value(258).encode(), [0, 0, 1, 2, 0]);
        assert_eq!(ReplyHead::Refused(Refusal::Sealed).encode(), [0, 0, 0, 0, 3]);
    }

    #[test]
    fn frames_are_read_back() {
        let greeting = Greeting { nonce: [7; NONCE_BYTES] };
        assert_eq!(Greeting::decode(&greeting.encode()), Ok(greeting));
        let bytes = request().encode();
        let (head, rest) = bytes.split_first_chunk().unwrap();
        assert_eq!(Request::decode_head(*head), Ok(rest.len()));
        assert_eq!(Request::decode(rest), Ok(request()));
        for head in
            Refusal::ALL.map(ReplyHead::Refused).into_iter().chain([ReplyHead::Value(VALUE_BYTES_MAX)])
        {
            assert_eq!(ReplyHead::decode(head.encode()), Ok(head));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(Greeting::decode(b"zenlock20123456789abcdef"), Err(WireError::Magic));
        assert_eq!(Request::decode_head([0, 17]), Err(WireError::Length(17)));
        assert_eq!(Request::decode_head([0xff, 0xff]), Err(WireError::Length(65535)));
        assert_eq!(Request::decode(b"0123"), Err(WireError::Length(4)));
        assert_eq!(Request::decode(b"0123456789abcdef"), Err(WireError::Length(16)));
        assert_eq!(Request::decode(b"0123456789abcdef\x02a/b/c"), Err(WireError::Kind(2)));
        assert_eq!(Request::decode(b"0123456789abcdef\x01a/../c"), Err(NameError::Segment.into()));
        assert_eq!(Request::decode(b"0123456789abcdef\x01a/\xff/c"), Err(NameError::Segment.into()));
        assert_eq!(ReplyHead::decode([0, 1, 0, 1, 0]), Err(WireError::Length(65537)));
        assert_eq!(ReplyHead::decode([0, 0, 0, 1, 1]), Err(WireError::Length(1)));
        assert_eq!(ReplyHead::decode([0, 0, 0, 0, 9]), Err(WireError::Verdict(9)));
    }
}
