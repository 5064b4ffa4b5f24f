//! Event keys: what a source calls its event becomes 128 bits under a key of this node.
//!
//! A source must not be able to aim at slots of the table or at another endpoint's keys, hence a keyed
//! hash over the endpoint and the id. That two of `n` keys are equal has probability `n² / 2^129`:
//! 10^-23 for 100 million keys, less than a bit flipped by the memory, so no id is kept to compare.

use alloc::string::String;
use core::fmt;

use super::json::JsonPath;
use super::siphash::siphash128;
use crate::id::{EndpointId, EventId};
use crate::verify::{RequestView, SOURCE_ID_BYTES_MAX, Verified};

/// First byte of what is hashed: keys of different kinds are never equal.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Domain {
    Check = 0,
    Id = 1,
    Body = 2,
    Event = 3,
}

/// An event's key: 128 bits that only this node can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey(pub [u8; 16]);

impl EventKey {
    pub(super) fn low(&self) -> u64 {
        u64::from_le_bytes(self.0[..8].try_into().expect("8 of 16 bytes"))
    }

    pub(super) fn high(&self) -> u64 {
        u64::from_le_bytes(self.0[8..].try_into().expect("8 of 16 bytes"))
    }
}

/// Makes keys. All shards of a node, and its index records, need the same hash key.
#[derive(Clone)]
pub struct KeyHasher {
    hash_key: [u8; 16],
}

impl KeyHasher {
    /// `hash_key` is random, kept by the node for as long as its index records.
    pub fn new(hash_key: [u8; 16]) -> Self {
        Self { hash_key }
    }

    /// The key of an event that its source calls `id`, whichever header or field that came from.
    pub fn id_key(&self, endpoint: EndpointId, id: &[u8]) -> EventKey {
        self.hash(Domain::Id, &[&endpoint.0, id])
    }

    /// The key of an event that has only its body.
    pub fn body_key(&self, endpoint: EndpointId, body: &[u8]) -> EventKey {
        self.hash(Domain::Body, &[&endpoint.0, body])
    }

    /// The key of an event that has its id: the second layer, at the egress.
    pub fn event_key(&self, event_id: EventId) -> EventKey {
        self.hash(Domain::Event, &[&event_id.0])
    }

    /// Tells one hash key from another without telling it: index records begin with it.
    pub fn check(&self) -> [u8; 8] {
        self.hash(Domain::Check, &[]).0[..8].try_into().expect("8 of 16 bytes")
    }

    fn hash(&self, domain: Domain, parts: &[&[u8]]) -> EventKey {
        let [first, second] = [0, 1].map(|part| parts.get(part).copied().unwrap_or_default());
        EventKey(siphash128(&self.hash_key, &[&[domain as u8], first, second]))
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyHasher").finish_non_exhaustive()
    }
}

/// What an endpoint's events are known by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeySource {
    /// The id that the scheme names: `X-GitHub-Delivery`, `webhook-id`, the configured header.
    #[default]
    Scheme,
    /// The value of a header, such as `idempotency-key`; its name in lower case.
    Header(String),
    /// A member of the body, which is JSON.
    Json(JsonPath),
    /// The whole body: only for sources that never send the same body twice and mean it.
    Body,
}

/// Why a request's key cannot be read. The source's fault: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The header or member came more than once.
    #[error("the event's id came more than once")]
    Doubled,
    /// Empty, longer than [`SOURCE_ID_BYTES_MAX`], not printable ASCII (header), with a control character or
    /// not a string, number or boolean (member).
    #[error("the event's id is empty, too long or of a form that is not taken")]
    Malformed,
    /// The body is not JSON, or nested too deeply.
    #[error("the event's id is a member of the body, and the body is not JSON")]
    NotJson,
}

impl KeySource {
    /// The key of a verified request; `None` if it has no id, which makes it an event of its own.
    pub fn key(
        &self,
        hasher: &KeyHasher,
        endpoint: EndpointId,
        request: &impl RequestView,
        verified: &Verified<'_>,
        body: &[u8],
    ) -> Result<Option<EventKey>, KeyError> {
        let id = match self {
            Self::Scheme => verified.source_id,
            Self::Header(name) => header_value(request, name)?,
            Self::Json(path) => {
                return path.value(body, |id| hasher.id_key(endpoint, id));
            }
            Self::Body => return Ok(Some(hasher.body_key(endpoint, body))),
        };
        Ok(id.map(|id| hasher.id_key(endpoint, id.as_bytes())))
    }
}

fn header_value<'a>(request: &'a impl RequestView, name: &str) -> Result<Option<&'a str>, KeyError> {
    match request.header_count(name) {
        0 => return Ok(None),
        1 => {}
        _ => return Err(KeyError::Doubled),
    }
    // A value that is not text is none.
    let value = request.header(name).ok_or(KeyError::Malformed)?;
    let printable = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if value.is_empty() || value.len() > SOURCE_ID_BYTES_MAX || !printable {
        return Err(KeyError::Malformed);
    }
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use std::collections::BTreeSet;

    use super::*;

    /// Header lines; `None` is a value that is not text.
    struct Request(Vec<(&'static str, Option<String>)>);

    impl RequestView for Request {
        fn method(&self) -> &'static str {
            "POST"
        }

        fn target(&self) -> &'static str {
            "/"
        }

        fn header(&self, name: &str) -> Option<&str> {
            self.0.iter().find(|line| line.0 == name)?.1.as_deref()
        }

        fn header_count(&self, name: &str) -> usize {
            self.0.iter().filter(|line| line.0 == name).count()
        }
    }

    const ENDPOINT: EndpointId = EndpointId([9; 16]);

    fn header_key(values: &[Option<&str>]) -> Result<Option<EventKey>, KeyError> {
        let lines = values.iter().map(|value| ("idempotency-key", value.map(ToString::to_string)));
        let verified = Verified { source_id: Some("not read"), secret_index: 0 };
        let source = KeySource::Header("idempotency-key".into());
        source.key(&KeyHasher::new([1; 16]), ENDPOINT, &Request(lines.collect()), &verified, b"")
    }

    #[test]
    fn a_header_is_a_key_when_it_is_there_once_and_printable() {
        let expected = KeyHasher::new([1; 16]).id_key(ENDPOINT, b"a b");
        assert_eq!(header_key(&[Some("a b")]), Ok(Some(expected)));
        assert_eq!(header_key(&[]), Ok(None));
        assert_eq!(header_key(&[Some("a"), Some("a")]), Err(KeyError::Doubled));
        let (longest, longer) = ("x".repeat(SOURCE_ID_BYTES_MAX), "x".repeat(SOURCE_ID_BYTES_MAX + 1));
        assert!(header_key(&[Some(&longest)]).is_ok());
        for value in [Some(""), Some("ä"), Some("\t"), Some(&longer), None] {
            assert_eq!(header_key(&[value]), Err(KeyError::Malformed), "{value:?}");
        }
    }

    #[test]
    fn scheme_and_body_are_read_where_they_are_asked_for() {
        let hasher = KeyHasher::new([1; 16]);
        let none = Verified { source_id: None, secret_index: 0 };
        let some = Verified { source_id: Some("id"), secret_index: 0 };
        let key = |source: KeySource, verified: &Verified<'_>| {
            source.key(&hasher, ENDPOINT, &Request(Vec::new()), verified, b"body").unwrap()
        };
        assert_eq!(key(KeySource::Scheme, &some), Some(hasher.id_key(ENDPOINT, b"id")));
        assert_eq!(key(KeySource::Scheme, &none), None);
        let json = KeySource::Json("a.b".parse().unwrap());
        let read = |body: &[u8]| json.key(&hasher, ENDPOINT, &Request(Vec::new()), &some, body);
        assert_eq!(read(b"{\"a\":{\"b\":\"id\"}}"), Ok(Some(hasher.id_key(ENDPOINT, b"id"))));
        assert_eq!(read(b"{\"a\":{\"b\":7}}"), Ok(Some(hasher.id_key(ENDPOINT, b"\x007"))));
        assert_eq!((read(b"{}"), read(b"a=b")), (Ok(None), Err(KeyError::NotJson)));
        assert_eq!(key(KeySource::Body, &some), Some(hasher.body_key(ENDPOINT, b"body")));
    }

    #[test]
    fn endpoint_kind_id_and_hash_key_each_make_another_key() {
        let id = [9; 16];
        let mut keys = BTreeSet::new();
        for hash_key in [[1; 16], [2; 16]] {
            let hasher = KeyHasher::new(hash_key);
            for endpoint in [EndpointId([9; 16]), EndpointId([8; 16])] {
                keys.extend([hasher.id_key(endpoint, &id), hasher.id_key(endpoint, &id[1..])]);
                keys.extend([hasher.body_key(endpoint, &id), hasher.body_key(endpoint, b"")]);
            }
            keys.insert(hasher.event_key(EventId(id)));
            keys.insert(hasher.id_key(EndpointId(id), b""));
            let mut check = [0; 16];
            check[..8].copy_from_slice(&hasher.check());
            keys.insert(EventKey(check));
        }
        assert_eq!(keys.len(), 22);
    }
}
