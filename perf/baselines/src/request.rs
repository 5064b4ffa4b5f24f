//! One request at the beginning of a buffer (RFC 9112), as far as webhooks need it.
//!
//! Refused: a head that does not parse or is too long, a body that is too long or has a transfer coding, a request
//! without an event id of visible characters.

const HEADERS_MAX: usize = 32;
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 64 * 1024;
const ID_BYTES_MAX: usize = 128;

/// What a buffer begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// Not a whole request before the buffer has so many bytes.
    Incomplete { bytes_min: usize },
    /// To be answered so, and the connection closed.
    Refused(Refusal),
    /// A whole request of `bytes`.
    Request { bytes: usize, id: &'a str, signature: &'a [u8], body: &'a [u8] },
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 400.
    Malformed,
    /// 413.
    TooLong,
}

/// Looks at `buffer`; `signature_header` names what carries the signature.
pub(crate) fn parse<'a>(buffer: &'a [u8], signature_header: &str) -> Parsed<'a> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(buffer) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if buffer.len() < HEAD_BYTES_MAX => {
            return Parsed::Incomplete { bytes_min: buffer.len() + 1 };
        }
        Ok(httparse::Status::Partial) | Err(_) => return Parsed::Refused(Refusal::Malformed),
    };
    let (mut length, mut id, mut signature): (_, _, &[u8]) = (None, None, &[]);
    for header in request.headers.iter() {
        let name = header.name;
        if name.eq_ignore_ascii_case("content-length") {
            let digits = std::str::from_utf8(header.value)
                .ok()
                .filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            let parsed = digits.and_then(|text| text.parse::<usize>().ok());
            if parsed.is_none() || length.is_some() {
                return Parsed::Refused(Refusal::Malformed);
            }
            length = parsed;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Parsed::Refused(Refusal::Malformed);
        } else if name.eq_ignore_ascii_case("x-event-id") {
            id = std::str::from_utf8(header.value).ok().filter(|id| is_id(id));
        } else if name.eq_ignore_ascii_case(signature_header) {
            signature = header.value;
        }
    }
    let (Some(length), Some(id), Some("POST")) = (length, id, request.method) else {
        return Parsed::Refused(Refusal::Malformed);
    };
    if length > BODY_BYTES_MAX {
        return Parsed::Refused(Refusal::TooLong);
    }
    let bytes = head_bytes + length;
    match buffer.get(head_bytes..bytes) {
        Some(body) => Parsed::Request { bytes, id, signature, body },
        None => Parsed::Incomplete { bytes_min: bytes },
    }
}

/// Fit for a JSON text as it is.
fn is_id(id: &str) -> bool {
    let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(visible)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] =
        b"POST /hooks/a HTTP/1.1\r\nX-Event-Id: e1\r\nx-signature: s\r\ncontent-length: 2\r\n\r\n{}";

    #[test]
    fn a_request_split_at_every_byte_is_the_same_request() {
        for split in 0..WHOLE.len() {
            let Parsed::Incomplete { bytes_min } = parse(&WHOLE[..split], "x-signature") else {
                panic!("{split}");
            };
            assert!(bytes_min > split && bytes_min <= WHOLE.len(), "{split}: {bytes_min}");
        }
        let wanted = Parsed::Request { bytes: WHOLE.len(), id: "e1", signature: b"s", body: b"{}" };
        assert_eq!(parse(&[WHOLE, b"POST"].concat(), "x-signature"), wanted);
    }

    #[test]
    fn what_is_not_a_webhook_is_refused() {
        let head = |lines: &str| format!("POST /hooks/a HTTP/1.1\r\n{lines}\r\n\r\n");
        let cases = [
            (head("x-event-id: a\r\ncontent-length: 1\r\ncontent-length: 1"), Refusal::Malformed),
            (head("x-event-id: a\r\ntransfer-encoding: chunked"), Refusal::Malformed),
            (head("x-event-id: a\r\ncontent-length: +1"), Refusal::Malformed),
            (head("x-event-id: a\"\r\ncontent-length: 1"), Refusal::Malformed),
            (head("content-length: 1"), Refusal::Malformed),
            (head("x-event-id: a"), Refusal::Malformed),
            (head("x-event-id: a\r\ncontent-length: 65537"), Refusal::TooLong),
            (head("x-event-id: a\r\ncontent-length: 1").replace("POST", "GET"), Refusal::Malformed),
            ("\0".to_owned(), Refusal::Malformed),
            (format!("POST / HTTP/1.1\r\nx: {}", "x".repeat(HEAD_BYTES_MAX)), Refusal::Malformed),
        ];
        for (text, refusal) in cases {
            assert_eq!(parse(text.as_bytes(), "x-signature"), Parsed::Refused(refusal), "{text}");
        }
    }
}
