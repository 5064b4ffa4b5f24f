//! Loop detection: how many nodes an event has passed, as the `zen-hops` header says.
//!
//! Each delivery carries one more than its event came with; a source that is no node sends none, which is 0. So an
//! event that a target hands back to an endpoint grows with each round, and the endpoint's bound ends it with 508
//! (RFC 5842 section 7.2). Refused: a header that comes twice, or is not a decimal number of 0 to 255.

use crate::event::Event;
use crate::verify::RequestView;

/// The header of requests and deliveries.
pub const HOPS_HEADER: &str = "zen-hops";
/// The event's metadata line; events that passed no node have none.
pub const HOPS_LINE: &str = ":hops";

/// The header is there and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("zen-hops comes twice, or is not a number of 0 to 255")]
pub struct MalformedHops;

/// How many nodes the event of a request has passed.
pub fn received_hops(request: &impl RequestView) -> Result<u8, MalformedHops> {
    let Some(value) = request.header(HOPS_HEADER) else { return Ok(0) };
    if request.header_count(HOPS_HEADER) > 1 {
        return Err(MalformedHops);
    }
    parse(value).ok_or(MalformedHops)
}

/// What a delivery of `event` says: this node is one more.
pub fn sent_hops(event: &Event<'_>) -> u8 {
    event.metadata(HOPS_LINE).and_then(parse).unwrap_or(0).saturating_add(1)
}

/// Digits alone: `parse` would take a sign, and leading zeros would be a second form.
fn parse(value: &str) -> Option<u8> {
    let is_plain =
        value.bytes().all(|byte| byte.is_ascii_digit()) && (value == "0" || !value.starts_with('0'));
    if is_plain { value.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use alloc::borrow::ToOwned;
    use alloc::format;

    use super::*;
    use crate::id::{EndpointId, EventId};
    use crate::verify::fuzz::Headers;

    #[test]
    fn what_a_request_says() {
        for (lines, expected) in [
            (&[][..], Ok(0)),
            (&["0"], Ok(0)),
            (&["1"], Ok(1)),
            (&["8"], Ok(8)),
            (&["255"], Ok(255)),
            (&["256"], Err(MalformedHops)),
            (&["99999999999999999999"], Err(MalformedHops)),
            (&[""], Err(MalformedHops)),
            (&["01"], Err(MalformedHops)),
            (&["00"], Err(MalformedHops)),
            (&["+1"], Err(MalformedHops)),
            (&["-1"], Err(MalformedHops)),
            (&["1.0"], Err(MalformedHops)),
            (&["0x1"], Err(MalformedHops)),
            (&["1,1"], Err(MalformedHops)),
            (&["one"], Err(MalformedHops)),
            (&["1", "1"], Err(MalformedHops)),
        ] {
            let lines = lines.iter().map(|value| (HOPS_HEADER.to_owned(), value.as_bytes().to_vec()));
            let request = Headers(lines.collect());
            assert_eq!(received_hops(&request), expected, "{request:?}");
        }
    }

    #[test]
    fn a_delivery_is_one_hop_more() {
        for (hops, expected) in [("", 1), (":hops:1\n", 2), (":hops:254\n", 255), (":hops:255\n", 255)] {
            let headers = format!(":accepted-us:1\n{hops}:tenant:acme\n");
            let event = Event {
                id: EventId([7; 16]),
                endpoint: EndpointId([9; 16]),
                content_type: "",
                headers: &headers,
                body: b"",
            };
            assert_eq!(sent_hops(&event), expected, "{headers}");
        }
    }
}
