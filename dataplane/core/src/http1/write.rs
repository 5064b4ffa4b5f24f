//! Responses to sources and request heads to targets. A value that would break the framing is a bug
//! of the caller, and aborts.

use alloc::vec::Vec;

use super::characters::{has_control, is_token};
use super::problem::Status;
use super::target::is_host;

/// The interim answer to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Fields that only the writer may set: they decide where a message ends and whom it is for.
const OWN_FIELDS: [&str; 3] = ["content-length", "transfer-encoding", "host"];

/// What becomes of the connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The next request may follow.
    KeepAlive,
    /// We close after this response.
    Close,
}

/// Appends a response with its body, given in parts. `content_type` may be empty; `extra` are fields of the caller.
pub fn write_response(
    out: &mut Vec<u8>,
    status: Status,
    content_type: &str,
    extra: &[(&str, &str)],
    body: &[&[u8]],
    connection: Connection,
) {
    let length = body.iter().map(|part| part.len()).sum();
    push_head(out, status, content_type, extra, length, connection);
    for part in body {
        out.extend_from_slice(part);
    }
}

/// Appends a request head: Host, `headers`, Content-Length and the empty line. `target` is in
/// origin-form; the body of `content_length` bytes is the caller's to send.
pub fn write_request_head<'h>(
    out: &mut Vec<u8>,
    method: &str,
    target: &str,
    host: &str,
    headers: impl IntoIterator<Item = (&'h str, &'h str)>,
    content_length: usize,
) {
    assert!(is_token(method.as_bytes()), "a method is a token");
    assert!(
        target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic()),
        "a target begins with a slash and holds visible ASCII only"
    );
    assert!(is_host(host.as_bytes()), "a host is a name or address with an optional port");
    push_parts(out, &[method, " ", target, " HTTP/1.1\r\nhost: ", host, "\r\n"]);
    for (name, value) in headers {
        push_field(out, name, value);
    }
    push_length_and_end(out, content_length);
}

/// Appends a response head for a body of `length` bytes.
pub(super) fn push_head(
    out: &mut Vec<u8>,
    status: Status,
    content_type: &str,
    extra: &[(&str, &str)],
    length: usize,
    connection: Connection,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(status.code().into(), |digits| out.extend_from_slice(digits));
    push_parts(out, &[" ", status.reason(), "\r\n"]);
    if !content_type.is_empty() {
        push_field(out, "content-type", content_type);
    }
    for (name, value) in extra {
        push_field(out, name, value);
    }
    // Said in both cases: HTTP/1.0 clients do not assume a persistent connection.
    out.extend_from_slice(match connection {
        Connection::KeepAlive => b"connection: keep-alive\r\n",
        Connection::Close => b"connection: close\r\n",
    });
    push_length_and_end(out, length);
}

/// Hands `number` to `part` in decimal digits.
pub(super) fn push_decimal(mut number: u64, part: impl FnOnce(&[u8])) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    part(&digits[start..]);
}

fn push_length_and_end(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(b"content-length: ");
    push_decimal(length as u64, |digits| out.extend_from_slice(digits));
    out.extend_from_slice(b"\r\n\r\n");
}

fn push_field(out: &mut Vec<u8>, name: &str, value: &str) {
    assert!(is_token(name.as_bytes()), "a field name is a token");
    assert!(
        !OWN_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own)),
        "the writer sets this field itself"
    );
    assert!(!has_control(value.as_bytes()), "a field value holds no control character");
    push_parts(out, &[name, ": ", value, "\r\n"]);
}

fn push_parts(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}
