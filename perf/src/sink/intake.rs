//! Deliveries out of a byte stream, borrowed from the buffer: a target under load does not copy them.
//!
//! Refused as `InvalidData`: a head over [`HEAD_BYTES_MAX`], a body over [`BODY_BYTES_MAX`], a head that is no UTF-8 or has
//! no sound length. [`crate::http`] reads the same with every header, where they are looked at.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::http::parse_head;

const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
const READ_BYTES: usize = 32 * 1024;
const HEAD_END: &[u8] = b"\r\n\r\n";
const NO_ID: &str = "(no zen-event-id)";

/// One whole request.
#[derive(Debug)]
pub(super) struct Delivery<'a> {
    head: &'a str,
    /// The body.
    pub(super) body: &'a [u8],
}

impl Delivery<'_> {
    /// The request target.
    pub(super) fn path(&self) -> Option<&str> {
        self.head.split("\r\n").next()?.split(' ').nth(1)
    }

    /// The event's id, or words that say that there is none.
    pub(super) fn event_id(&self) -> &str {
        value_of(self.head, "zen-event-id").unwrap_or(NO_ID)
    }

    /// Every header, names in lower case.
    pub(super) fn headers(&self) -> io::Result<Vec<(String, String)>> {
        parse_head(self.head.as_bytes()).map(|(message, _)| message.headers)
    }
}

/// What was read and not yet taken.
#[derive(Debug, Default)]
pub(super) struct Intake {
    buffer: Vec<u8>,
    taken: usize,
}

impl Intake {
    /// The next delivery; `None` if the peer closed between two.
    pub(super) async fn next<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> io::Result<Option<Delivery<'_>>> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let mut searched = 0;
        let head_bytes = loop {
            if let Some(end) = find(&self.buffer[searched..]) {
                break searched + end + HEAD_END.len();
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(invalid("head is too long"));
            }
            searched = self.buffer.len().saturating_sub(HEAD_END.len() - 1);
            if self.fill(stream).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        };
        let body_bytes = body_bytes(&self.buffer[..head_bytes])?;
        while self.buffer.len() < head_bytes + body_bytes {
            if self.fill(stream).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.taken = head_bytes + body_bytes;
        let (head, body) = self.buffer[..self.taken].split_at(head_bytes);
        Ok(Some(Delivery { head: text(head)?, body }))
    }

    async fn fill<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        stream.read_buf(&mut self.buffer).await
    }
}

fn find(bytes: &[u8]) -> Option<usize> {
    // CR is rare in a head: one fast search for it, then a look at four bytes.
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == b'\r') {
        if bytes[from + at..].starts_with(HEAD_END) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn text(head: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(head).map_err(|_| invalid("head is not UTF-8"))
}

fn body_bytes(head: &[u8]) -> io::Result<usize> {
    let head = text(head)?;
    if value_of(head, "transfer-encoding").is_some() {
        return Err(invalid("transfer codings are not expected in the lab"));
    }
    let Some(value) = value_of(head, "content-length") else {
        return Ok(0);
    };
    let length = value.parse().map_err(|_| invalid("content-length is not a number"))?;
    if length > BODY_BYTES_MAX { Err(invalid("body is too long")) } else { Ok(length) }
}

/// The first value of a header; the case of its name does not matter.
fn value_of<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim_matches([' ', '\t']))
    })
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    const TWO: &[u8] =
        b"POST /hooks/a HTTP/1.1\r\nZen-Event-Id: e1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n";

    #[test]
    fn two_deliveries_split_at_every_byte() {
        for split in 1..TWO.len() {
            block_on(async {
                // Each part is a read of its own, whoever is polled first.
                let mut stream = (&TWO[..split]).chain(&TWO[split..]);
                let mut intake = Intake::default();
                let first = intake.next(&mut stream).await.unwrap().unwrap();
                assert_eq!(
                    (first.path(), first.event_id(), first.body),
                    (Some("/hooks/a"), "e1", &b"abc"[..])
                );
                assert_eq!(first.headers().unwrap()[0], ("zen-event-id".to_owned(), "e1".to_owned()));
                let second = intake.next(&mut stream).await.unwrap().unwrap();
                assert_eq!((second.path(), second.event_id(), second.body), (Some("/b"), NO_ID, &b""[..]));
                assert!(intake.next(&mut stream).await.unwrap().is_none());
            });
        }
    }

    #[test]
    fn what_does_not_parse_is_refused() {
        let long = "GET / HTTP/1.1\r\nx: ".to_owned() + &"y".repeat(HEAD_BYTES_MAX);
        for head in [
            "GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: cut",
            "GET / HTTP/1.1\r\ncontent-length: 2\r\n\r\n1",
            &long,
        ] {
            block_on(async {
                let (mut near, mut far) = tokio::io::duplex(2 * HEAD_BYTES_MAX);
                near.write_all(head.as_bytes()).await.unwrap();
                drop(near);
                assert!(Intake::default().next(&mut far).await.is_err(), "{:?}", &head[..30]);
            });
        }
    }
}
