//! What a target is sent of an event: its body as it is, or as a CloudEvent.

use zen_core::deliver::cloudevents::{
    CloudEvents, Data, STRUCTURED_CONTENT_TYPE, says_json, structured_bytes_max, write_other_headers,
};
use zen_core::deliver::{Attempt, DeliveryRequest, Outcome};
use zen_core::event::Event;

use crate::config::Format;
use crate::crypto::NodeCrypto;
use crate::egress::owner::Owner;
use crate::mesh::EventBytes;

/// Prepares a request in the target's format; a body is made where it is not the event's.
pub(super) fn prepare_as(
    owner: &Owner,
    event: &Event<'_>,
    attempt: Attempt,
    request: &mut DeliveryRequest,
) -> Result<Option<EventBytes>, Outcome> {
    let mut headers = String::new();
    match &owner.target.format {
        Format::Original => {
            prepare(owner, event, attempt, request)?;
            Ok(None)
        }
        Format::Binary(attributes) => {
            attributes.write_headers(event, &mut headers);
            prepare(owner, &Event { headers: &headers, ..*event }, attempt, request)?;
            Ok(None)
        }
        Format::Structured(attributes) => {
            write_other_headers(event, &mut headers);
            let body = structured(attributes, event);
            let sent =
                Event { content_type: STRUCTURED_CONTENT_TYPE, headers: &headers, body: &body, ..*event };
            prepare(owner, &sent, attempt, request)?;
            Ok(Some(EventBytes::from(body)))
        }
    }
}

/// The event as it stands in a structured one.
pub(super) fn data_of<'a>(event: &Event<'a>) -> Data<'a> {
    let is_json = says_json(event.content_type) && zen_rules::is_json(event.body);
    if is_json { Data::Json(event.body) } else { Data::Bytes(event.body) }
}

fn structured(attributes: &CloudEvents, event: &Event<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    attributes.write_structured(event, data_of(event), &mut body);
    debug_assert!(body.len() <= structured_bytes_max(event.body.len()));
    body
}

pub(super) fn prepare(
    owner: &Owner,
    event: &Event<'_>,
    attempt: Attempt,
    request: &mut DeliveryRequest,
) -> Result<(), Outcome> {
    owner.target.signer.prepare(&NodeCrypto, event, attempt, request).map_err(|_| Outcome::Refused)
}
