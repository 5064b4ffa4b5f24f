use std::vec::Vec;
use std::{format, vec};

use super::at_every_cut;
use crate::http1::FieldError::{BareCr, ControlCharacter, SpaceInName};
use crate::http1::FramingError::{
    CodingInHttp10, CodingUnsupported, LengthAndCoding, LengthInvalid, LengthRepeated,
};
use crate::http1::ResponseError as Error;
use crate::http1::fuzz::Seen;
use crate::http1::{ChunkError, Limits, Progress, ResponseParser};

fn seen(bytes: &[u8]) -> Vec<Seen<Error>> {
    let limits = Limits { body_bytes_max: 16, ..Limits::default() };
    at_every_cut(bytes, || ResponseParser::new(limits))
}

/// The transcript of whole messages ends with an end of file before the next one.
fn closed(mut seen: Vec<Seen<Error>>) -> Vec<Seen<Error>> {
    seen.push(Seen::Failed(Error::ClosedBeforeResponse));
    seen
}

#[test]
fn valid_responses() {
    let head = |text: &str| Seen::Head(text.into());
    let body = |text: &str| Seen::Body(text.into());
    assert_eq!(
        seen(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 5\r\n\r\nokHTTP/1.1 204\r\nContent-Length: 9\r\n\r\n"),
        closed(vec![
            head("200 keep=true\ncontent-length=2\nretry-after=5\n"),
            body("ok"),
            Seen::End,
            head("204 keep=true\ncontent-length=9\n"),
            Seen::End,
        ])
    );
    assert_eq!(
        seen(b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 \r\n\r\nHTTP/1.1 503 \xe4\tx\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        closed(vec![head("503 keep=false\ntransfer-encoding=chunked\nconnection=close\n"), body("x"), Seen::End])
    );
    assert_eq!(
        seen(b"HTTP/1.1 200 OK\r\nServer: caf\xe9\r\n\r\nuntil close"),
        vec![head("200 keep=false\nserver=caf\u{fffd}\n"), body("until close"), Seen::End]
    );
    assert_eq!(seen(b"HTTP/1.0 404 Not Found\r\n\r\n"), vec![head("404 keep=false\n"), Seen::End]);
    assert_eq!(
        seen(b"HTTP/1.0 304 x\r\nConnection: keep-alive\r\n\r\n"),
        closed(vec![head("304 keep=true\nconnection=keep-alive\n"), Seen::End])
    );
}

#[test]
fn refused_responses() {
    let interim = "HTTP/1.1 102 x\r\n\r\n".repeat(9);
    let table: &[(&[u8], Error)] = &[
        (b"", Error::ClosedBeforeResponse),
        (b"HTTP", Error::Truncated),
        (b"HTTP/1.1 100 x\r\n\r\n", Error::Truncated),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Error::Truncated),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", Error::Truncated),
        (b"\r\nHTTP/1.1 200 OK\r\n", Error::StatusLine),
        (b"HTTP/1.1  200 OK\r\n", Error::StatusLine),
        (b"HTTP/1.1 20 OK\r\n", Error::StatusLine),
        (b"HTTP/1.1 2000 OK\r\n", Error::StatusLine),
        (b"HTTP/1.1 200OK\r\n", Error::StatusLine),
        (b"HTTP/1.1 099 x\r\n", Error::StatusLine),
        (b"HTTP/1.1 600 x\r\n", Error::StatusLine),
        (b"HTTP/1.1 +20 x\r\n", Error::StatusLine),
        (b"ICY 200 OK\r\n", Error::StatusLine),
        (b"HTTP/2.0 200 OK\r\n", Error::VersionUnsupported),
        (b"HTTP/1.1 200 O\0K\r\n", Error::Field(ControlCharacter)),
        (b"HTTP/1.1 200 O\rK\r\n", Error::Field(BareCr)),
        (b"HTTP/1.1 101 x\r\nUpgrade: y\r\n\r\n", Error::SwitchingProtocols),
        (interim.as_bytes(), Error::TooManyInterim),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n", Error::Field(SpaceInName)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\xff\r\n", Error::Framing(LengthInvalid)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n", Error::Framing(LengthRepeated)),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            Error::Framing(LengthAndCoding),
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n", Error::Framing(CodingUnsupported)),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Error::Framing(CodingInHttp10)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n", Error::BodyTooLarge),
        (b"HTTP/1.1 200 OK\r\n\r\n12345678901234567", Error::BodyTooLarge),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n", Error::BodyTooLarge),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", Error::Chunk(ChunkError::Size)),
    ];
    for (bytes, expected) in table {
        assert_eq!(
            seen(bytes).pop(),
            Some(Seen::Failed(*expected)),
            "{:?}",
            std::string::String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn a_body_over_the_bound_still_shows_its_status() {
    let mut parser = ResponseParser::new(Limits { body_bytes_max: 1, ..Limits::default() });
    parser.start();
    let mut input = &b"HTTP/1.1 202 x\r\nContent-Length: 2\r\n\r\nab"[..];
    assert_eq!(parser.handle_bytes(&mut input), Ok(Progress::Head));
    assert_eq!((parser.status(), parser.header("content-length")), (202, Some("2")));
    assert!(parser.keep_alive());
    assert_eq!(parser.handle_bytes(&mut input), Err(Error::BodyTooLarge));
    assert!(!parser.keep_alive());
    assert_eq!(parser.handle_eof(), Err(Error::BodyTooLarge));
}

#[test]
fn bytes_without_a_request_are_refused() {
    let mut parser = ResponseParser::new(Limits::default());
    assert_eq!(parser.handle_bytes(&mut &b""[..]), Ok(Progress::NeedMore));
    assert_eq!(parser.handle_eof(), Ok(Progress::NeedMore));
    parser.start();
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{}", "HTTP/1.1 200 OK\r\n");
    let mut input = text.as_bytes();
    assert_eq!(parser.handle_bytes(&mut input), Ok(Progress::Head));
    assert_eq!(parser.handle_bytes(&mut input), Ok(Progress::End));
    assert_eq!(parser.handle_bytes(&mut input), Err(Error::Unsolicited));
    parser.start();
    assert_eq!(parser.handle_bytes(&mut input), Err(Error::Unsolicited));
}

#[test]
#[should_panic(expected = "a request before the last response was complete")]
fn requests_are_not_pipelined() {
    let mut parser = ResponseParser::new(Limits::default());
    parser.start();
    parser.start();
}
