//! What is done with a request on every runtime: checked, looked up, written, answered.

use aws_lc_rs::hmac;

use crate::group::{Group, Ticket};
use crate::request::{Parsed, Refusal, parse};
use crate::seen::{Claim, Seen};

const PREFIX: &[u8] = b"sha256=";
const TAG_BYTES: usize = 32;

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Hop {
    key: hmac::Key,
    header: String,
    seen: Seen,
}

/// What to do next on a connection.
#[derive(Debug)]
pub(crate) enum Step {
    /// Read, until the buffer has so many bytes.
    Read { bytes_min: usize },
    /// `bytes` of the buffer are done; the answer has been written to the output.
    Answered { bytes: usize },
    /// As that, and the connection ends.
    Closing,
    /// `bytes` of the buffer are done; the answer comes by [`Hop::settle`].
    Written { bytes: usize, event: Written },
}

/// An event on its way to disk.
#[derive(Debug)]
pub(crate) struct Written {
    ticket: Ticket,
    fingerprint: u128,
    id: String,
}

impl Hop {
    /// Checks against `secret` what `header` carries.
    pub(crate) fn new(secret: &[u8], header: String) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), header, seen: Seen::new() }
    }

    /// Looks at the beginning of `buffer`; what can be answered at once is appended to `out`.
    pub(crate) fn step(&self, buffer: &[u8], group: &Group, out: &mut Vec<u8>) -> Step {
        let (bytes, id, signature, body) = match parse(buffer, &self.header) {
            Parsed::Incomplete { bytes_min } => return Step::Read { bytes_min },
            Parsed::Refused(refusal) => {
                out.extend_from_slice(match refusal {
                    Refusal::Malformed => {
                        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                    }
                    Refusal::TooLong => {
                        b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                    }
                });
                return Step::Closing;
            }
            Parsed::Request { bytes, id, signature, body } => (bytes, id, signature, body),
        };
        if !self.is_signed(signature, body) {
            out.extend_from_slice(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
            return Step::Answered { bytes };
        }
        let (fingerprint, claim) = self.seen.claim(id);
        match claim {
            Claim::New => match group.append(id, body) {
                Some(ticket) => {
                    let event = Written { ticket, fingerprint, id: id.to_owned() };
                    return Step::Written { bytes, event };
                }
                None => {
                    self.seen.settle(fingerprint, false);
                    write_unavailable(out);
                }
            },
            Claim::Pending => write_unavailable(out),
            Claim::Seen => write_json(out, "200 OK", id, ",\"duplicate\":true"),
        }
        Step::Answered { bytes }
    }

    /// Waits until an event is on disk, or is not to be, and answers it.
    pub(crate) async fn settle(&self, event: Written, out: &mut Vec<u8>) {
        let durable = event.ticket.await;
        self.seen.settle(event.fingerprint, durable);
        if durable {
            write_json(out, "202 Accepted", &event.id, "");
        } else {
            write_unavailable(out);
        }
    }

    fn is_signed(&self, signature: &[u8], body: &[u8]) -> bool {
        let tag = signature.strip_prefix(PREFIX).and_then(tag_of);
        tag.is_some_and(|tag| hmac::verify(&self.key, body, &tag).is_ok())
    }
}

fn tag_of(digits: &[u8]) -> Option<[u8; TAG_BYTES]> {
    let mut tag = [0; TAG_BYTES];
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != TAG_BYTES {
        return None;
    }
    for (byte, [high, low]) in tag.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(tag)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn write_unavailable(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n");
}

fn write_json(out: &mut Vec<u8>, status: &str, id: &str, more: &str) {
    let length = "{\"id\":\"\"}".len() + id.len() + more.len();
    let length = length.to_string();
    for part in [
        "HTTP/1.1 ",
        status,
        "\r\ncontent-type: application/json\r\ncontent-length: ",
        &length,
        "\r\n\r\n{\"id\":\"",
        id,
        "\"",
        more,
        "}",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str, signature: &str, body: &str) -> Vec<u8> {
        format!(
            "POST /hooks/a HTTP/1.1\r\nx-event-id: {id}\r\nx-signature: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    fn text(out: &[u8]) -> &str {
        std::str::from_utf8(out).unwrap()
    }

    #[test]
    fn signatures_decide() {
        // GitHub's documented example: secret and body of "Validating webhook deliveries".
        let hop = Hop::new(b"It's a Secret to Everybody", "x-signature".to_owned());
        let group = Group::new();
        let good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let cases = [
            (good.replace("e17", "e16"), "Hello, World!"),
            (good.to_owned(), "Hello, World?"),
            (good[..good.len() - 2].to_owned(), "Hello, World!"),
            (format!("{good}00"), "Hello, World!"),
            (good.replace("757", "75g"), "Hello, World!"),
            (good.replace("sha256=", ""), "Hello, World!"),
            (String::new(), "Hello, World!"),
        ];
        for (signature, body) in cases {
            let mut out = Vec::new();
            let request = request("e1", &signature, body);
            assert!(
                matches!(hop.step(&request, &group, &mut out), Step::Answered { bytes } if bytes == request.len())
            );
            assert!(text(&out).starts_with("HTTP/1.1 403 "), "{signature}: {}", text(&out));
        }
        let mut out = Vec::new();
        let request = request("e1", good, "Hello, World!");
        let Step::Written { bytes, event } = hop.step(&request, &group, &mut out) else {
            panic!("{}", text(&out));
        };
        assert_eq!((bytes, out.len()), (request.len(), 0));
        assert!(matches!(hop.step(&request, &group, &mut out), Step::Answered { .. }));
        assert!(text(&out).starts_with("HTTP/1.1 503 "), "{}", text(&out));
        out.clear();
        let (buffer, _, outcome) = group.seal().into_parts();
        group.done(buffer, &outcome, true);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(hop.settle(event, &mut out));
        assert!(text(&out).starts_with("HTTP/1.1 202 ") && text(&out).ends_with("\r\n\r\n{\"id\":\"e1\"}"));
        out.clear();
        hop.step(&request, &group, &mut out);
        assert!(
            text(&out).ends_with("content-length: 28\r\n\r\n{\"id\":\"e1\",\"duplicate\":true}"),
            "{}",
            text(&out)
        );
    }
}
