//! What a target's deliveries are ordered by: the key of each event.
//!
//! Events enter, keys of 64 bits leave; events of different endpoints never share one. An event that does not have the
//! header or the member has none, and neither has one whose value is of a form that is no id (`dedupe`): it is not ordered.

use alloc::string::String;

use crate::dedupe::{JsonPath, KeyHasher};
use crate::event::Event;

/// Collisions put two keys in one line, which delays and loses nothing, so the hash need not be secret.
const HASH_KEY: [u8; 16] = *b"zen-order-by-key";

/// What deliveries share that go out one at a time, in the order of their arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderBy {
    /// The endpoint that they came in at.
    Endpoint,
    /// The value of a header that the endpoint forwards; its name in lower case.
    Header(String),
    /// A member of the body, which is JSON.
    Json(JsonPath),
}

impl OrderBy {
    /// The key of an event; never 0.
    pub fn key(&self, event: &Event<'_>) -> Option<u64> {
        let hasher = KeyHasher::new(HASH_KEY);
        let key = |value: &[u8]| hasher.id_key(event.endpoint, value);
        let key = match self {
            Self::Endpoint => key(b""),
            Self::Header(name) => {
                let mut values = event.header_lines().filter(|line| line.0 == name).map(|line| line.1);
                let value = values.next().filter(|value| !value.is_empty())?;
                if values.next().is_some() {
                    return None;
                }
                key(value.as_bytes())
            }
            Self::Json(path) => path.value(event.body, key).ok().flatten()?,
        };
        let [low, ..] = *key.0.as_chunks::<8>().0 else { unreachable!("16 bytes are two words") };
        Some(u64::from_le_bytes(low).max(1))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::id::{EndpointId, EventId};

    fn event<'a>(endpoint: u8, headers: &'a str, body: &'a str) -> Event<'a> {
        let (id, endpoint) = (EventId([7; 16]), EndpointId([endpoint; 16]));
        Event { id, endpoint, content_type: "", headers, body: body.as_bytes() }
    }

    #[test]
    fn a_key_is_of_an_endpoint_and_a_value() {
        let json = OrderBy::Json("data.id".parse().unwrap());
        let header = OrderBy::Header("x-order".into());
        let (one, two) = ("x-a:1\nx-order:1\n", "x-a:1\nx-order:2\n");
        let keys: Vec<Option<u64>> = [
            OrderBy::Endpoint.key(&event(1, one, "")),
            OrderBy::Endpoint.key(&event(2, one, "")),
            header.key(&event(1, one, "")),
            header.key(&event(1, two, "")),
            header.key(&event(2, one, "")),
            json.key(&event(1, "", r#"{"data":{"id":"2"}}"#)),
            json.key(&event(1, "", r#"{"data":{"id":2}}"#)),
        ]
        .to_vec();
        for (index, key) in keys.iter().enumerate() {
            // The header's 2 and the member's "2" are one value.
            let same = keys.iter().filter(|other| *other == key).count();
            assert!(key.is_some_and(|key| key > 0), "{index}");
            assert_eq!(same, if matches!(index, 3 | 5) { 2 } else { 1 }, "{index}");
        }
        assert_eq!(OrderBy::Endpoint.key(&event(1, "", "x")), keys[0]);
        assert_eq!(header.key(&event(1, "x-order:1\n", "y")), keys[2]);
    }

    #[test]
    fn what_has_no_value_has_no_key() {
        let json = OrderBy::Json("data.id".parse().unwrap());
        for body in
            ["", "{}", "[]", r#"{"data":{"id":null}}"#, r#"{"data":{"id":{}}}"#, r#"{"data":{"id":1}"#]
        {
            assert_eq!(json.key(&event(1, "", body)), None, "{body}");
        }
        let header = OrderBy::Header("x-order".into());
        for headers in ["", "x-orders:1\n", "x-order:\n", "x-order:1\nx-order:2\n", ":x-order:1\n"] {
            assert_eq!(header.key(&event(1, headers, "")), None, "{headers:?}");
        }
    }
}
