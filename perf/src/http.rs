//! HTTP/1.1 messages over a byte stream, as far as the lab's client and sink need them (RFC 9112).
//!
//! In: a stream. Out: one message at a time with its whole body. Refused as `InvalidData`: a head that
//! does not parse, one over [`HEAD_BYTES_MAX`], a body over [`BODY_BYTES_MAX`], any transfer coding.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::signature::{Headers, header};

const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
const READ_BYTES: usize = 16 * 1024;

/// A request or a response.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// The first line, without CR LF.
    pub(crate) start: String,
    /// Header lines in order, names lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The status code, if this is a response.
    pub(crate) fn status(&self) -> Option<u16> {
        self.start.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }

    /// The first value of `name`, lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Whether the peer closes the connection after this message.
    pub(crate) fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// A connection that carries messages.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Wraps a connected stream.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::with_capacity(READ_BYTES) }
    }

    /// Writes bytes and flushes them.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next message; `None` if the peer closed between two.
    pub(crate) async fn read(&mut self) -> io::Result<Option<Message>> {
        let head_bytes = loop {
            if let Some(end) = find_head_end(&self.buffer) {
                break end;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(invalid("head is too long"));
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        };
        let (mut message, body_bytes) = parse_head(&self.buffer[..head_bytes])?;
        while self.buffer.len() < head_bytes + body_bytes {
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        message.body = self.buffer[head_bytes..head_bytes + body_bytes].to_vec();
        self.buffer.drain(..head_bytes + body_bytes);
        Ok(Some(message))
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.buffer).await
    }
}

fn find_head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The message without its body, and the length of the body.
pub(crate) fn parse_head(head: &[u8]) -> io::Result<(Message, usize)> {
    let text = std::str::from_utf8(head).map_err(|_| invalid("head is not UTF-8"))?;
    let mut lines = text.split_terminator("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let mut headers = Vec::with_capacity(16);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("a header line has no colon"))?;
        headers.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    if header(&headers, "transfer-encoding").is_some() {
        return Err(invalid("transfer codings are not expected in the lab"));
    }
    let body_bytes = content_length(&headers)?;
    Ok((Message { start, headers, body: Vec::new() }, body_bytes))
}

fn content_length(headers: &Headers) -> io::Result<usize> {
    let Some(text) = header(headers, "content-length") else {
        return Ok(0);
    };
    let length = text.parse().map_err(|_| invalid("content-length is not a number"))?;
    if length > BODY_BYTES_MAX { Err(invalid("body is too long")) } else { Ok(length) }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    const TWO: &[u8] =
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 202 Accepted\r\nconnection: close\r\n\r\n";

    #[test]
    fn two_messages_split_at_every_byte() {
        for split in 1..TWO.len() {
            block_on(async {
                let (mut near, far) = tokio::io::duplex(4096);
                let mut wire = Wire::new(far);
                near.write_all(&TWO[..split]).await.unwrap();
                let reader = async {
                    let first = wire.read().await.unwrap().unwrap();
                    let second = wire.read().await.unwrap().unwrap();
                    (first, second, wire.read().await.unwrap().is_none())
                };
                let writer = async {
                    tokio::task::yield_now().await;
                    near.write_all(&TWO[split..]).await.unwrap();
                    drop(near);
                };
                let ((first, second, ended), ()) = tokio::join!(reader, writer);
                assert_eq!((first.start.as_str(), first.header("host")), ("POST /a HTTP/1.1", Some("x")));
                assert_eq!(first.body, b"abc");
                assert_eq!((second.status(), second.closes(), ended), (Some(202), true, true));
            });
        }
    }

    #[test]
    fn what_does_not_parse_is_refused() {
        for head in [
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: cut",
        ] {
            block_on(async {
                let (mut near, far) = tokio::io::duplex(4096);
                near.write_all(head.as_bytes()).await.unwrap();
                drop(near);
                assert!(Wire::new(far).read().await.is_err(), "{head:?}");
            });
        }
    }
}
