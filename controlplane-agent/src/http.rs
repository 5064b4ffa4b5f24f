//! HTTP/1.1 as a client needs it (RFC 9112): a request out, an answer with a length in. Refused: answers without one.

use std::fmt::Write;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    pub(crate) target: &'a str,
    pub(crate) host: &'a str,
    /// JSON; none sends no body.
    pub(crate) body: Option<&'a [u8]>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// RFC 9110 section 10.2.3; a date is taken as nothing.
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Not HTTP/1.1, or without a length.
    #[error("the answer is no HTTP/1.1 with a length")]
    Malformed,
    /// A head or a body that is too long.
    #[error("the answer has over {0} bytes")]
    Length(usize),
}

struct Head {
    status: u16,
    retry_after_ms: Option<u64>,
    length: usize,
    body_bytes: usize,
}

/// Sends a request and reads its answer.
pub(crate) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: Request<'_>,
    body_bytes_max: usize,
) -> Result<Answer, HttpError> {
    let Request { method, target, host, body } = request;
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    if let Some(body) = body {
        let length = body.len();
        let _ = write!(text, "Content-Type: application/json\r\nContent-Length: {length}\r\n");
    } else if method == "POST" {
        text.push_str("Content-Length: 0\r\n");
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend(body.unwrap_or_default());
    // Who refuses a request early may close before it has read all of it, and its answer counts.
    let written = match stream.write_all(&bytes).await {
        Ok(()) => stream.flush().await,
        failed => failed,
    };
    let mut read = Vec::with_capacity(1024);
    let head = loop {
        if let Some(head) = parse_head(&read)? {
            break head;
        }
        if read.len() >= HEAD_BYTES_MAX {
            return Err(HttpError::Length(HEAD_BYTES_MAX));
        }
        if stream.read_buf(&mut read).await? == 0 {
            written?;
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    };
    if head.body_bytes > body_bytes_max {
        return Err(HttpError::Length(body_bytes_max));
    }
    let mut body = read.split_off(head.length);
    let more = head.body_bytes.checked_sub(body.len()).ok_or(HttpError::Malformed)?;
    let had = body.len();
    body.resize(had + more, 0);
    stream.read_exact(&mut body[had..]).await?;
    Ok(Answer { status: head.status, retry_after_ms: head.retry_after_ms, body })
}

/// The head at the beginning of `bytes`, once all of it is there.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|_| HttpError::Malformed)?;
    let httparse::Status::Complete(head_bytes) = parsed else { return Ok(None) };
    let status = response.code.ok_or(HttpError::Malformed)?;
    let (mut length, mut retry_after_ms) = (None, None);
    for header in response.headers.iter() {
        let number = || std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok();
        if header.name.eq_ignore_ascii_case("content-length") {
            let found = number().ok_or(HttpError::Malformed)?;
            if length.replace(found).is_some_and(|before| before != found) {
                return Err(HttpError::Malformed);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(HttpError::Malformed);
        } else if header.name.eq_ignore_ascii_case("retry-after") {
            retry_after_ms = number().map(|seconds| (seconds as u64).saturating_mul(1000));
        }
    }
    let has_body = !matches!(status, 100..=199 | 204 | 304);
    let body_bytes = if has_body { length.ok_or(HttpError::Malformed)? } else { 0 };
    // 100 would need another head, and nobody asked for it.
    if status < 200 {
        return Err(HttpError::Malformed);
    }
    Ok(Some(Head { status, retry_after_ms, length: head_bytes, body_bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request<'_> = Request { method: "POST", target: "/x?y=1", host: "h:1", body: Some(b"{}") };

    /// What comes back when the other end says `answer`, in pieces cut at `cut`.
    fn answered(answer: &'static [u8], cut: usize) -> Result<Answer, HttpError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut ours, mut theirs) = tokio::io::duplex(1 << 16);
            let peer = tokio::spawn(async move {
                let mut asked = vec![0; 1024];
                let length = theirs.read(&mut asked).await.unwrap();
                theirs.write_all(&answer[..cut]).await.unwrap();
                tokio::task::yield_now().await;
                theirs.write_all(&answer[cut..]).await.unwrap();
                asked.truncate(length);
                asked
            });
            let found = exchange(&mut ours, REQUEST, 64).await;
            let asked = peer.await.unwrap();
            let expected: &[u8] = b"POST /x?y=1 HTTP/1.1\r\nHost: h:1\r\nContent-Type: application/json\r\n\
                                    Content-Length: 2\r\n\r\n{}";
            assert_eq!(asked, expected);
            found
        })
    }

    #[test]
    fn an_answer_is_read_however_it_is_cut() {
        let answer = b"HTTP/1.1 429 Too Many\r\nretry-after: 7\r\nContent-Length: 5\r\n\r\nhello";
        for cut in 0..answer.len() {
            let found = answered(answer, cut).unwrap();
            let expected = Answer { status: 429, retry_after_ms: Some(7000), body: b"hello".to_vec() };
            assert_eq!(found, expected, "{cut}");
        }
        assert_eq!(answered(b"HTTP/1.1 204 No Content\r\n\r\n", 3).unwrap().body, b"");
    }

    #[test]
    fn answers_without_a_length_or_with_too_much_are_refused() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
        ] {
            let text = String::from_utf8_lossy(answer);
            assert!(matches!(answered(answer, 0), Err(HttpError::Malformed)), "{text}");
        }
        let long = b"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n";
        assert!(matches!(answered(long, 0), Err(HttpError::Length(64))));
        assert!(matches!(answered(b"HTTP/1.1 200 OK\r\nContent-", 0), Err(HttpError::Io(_))), "cut off");
    }
}
