use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use super::at_every_cut;
use crate::http1::FieldError::{
    BareCr, BareLf, ControlCharacter, Folded, LeadingSpace, Name, NoColon, NotUtf8, SpaceInName,
};
use crate::http1::FramingError::{
    CodingInHttp10, CodingInvalid, CodingRepeated, CodingUnsupported, LengthAndCoding, LengthInvalid,
    LengthRepeated,
};
use crate::http1::RequestError as Error;
use crate::http1::fuzz::Seen;
use crate::http1::{ChunkError, Limits, Method, Progress, RequestParser, Status, TargetError};

fn seen(bytes: &[u8]) -> Vec<Seen<Error>> {
    at_every_cut(bytes, || RequestParser::new(Limits::default()))
}

fn error(bytes: &[u8]) -> Option<Error> {
    match seen(bytes).pop() {
        Some(Seen::Failed(error)) => Some(error),
        _ => None,
    }
}

/// Whether a body followed, and what it was; panics unless exactly one whole request was read.
fn one_request(bytes: &[u8]) -> (String, Vec<u8>) {
    let mut seen = seen(bytes).into_iter();
    let Some(Seen::Head(head)) = seen.next() else { panic!("no head: {bytes:?}") };
    let mut next = seen.next();
    let body = match next.take() {
        Some(Seen::Body(body)) => {
            next = seen.next();
            body
        }
        other => {
            next = other;
            Vec::new()
        }
    };
    assert_eq!(next, Some(Seen::End));
    assert_eq!(seen.next(), Some(Seen::Waiting { idle: true }));
    (head, body)
}

#[test]
fn valid_requests() {
    let table: &[(&str, &str, &str)] = &[
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "Get / / None host=a body=false continue=false keep=true\nhost=a\n",
            "",
        ),
        (
            "POST /hooks/x?y=%20&a[]=1?z HTTP/1.1\r\nHOST:\t a.example:8443 \t\r\nContent-Length: 5\r\nX-Empty:\r\n\r\nhello",
            "Post /hooks/x?y=%20&a[]=1?z /hooks/x Some(\"y=%20&a[]=1?z\") host=a.example:8443 body=true continue=false \
             keep=true\nhost=a.example:8443\ncontent-length=5\nx-empty=\n",
            "hello",
        ),
        (
            "\r\nPUT /? HTTP/1.1\r\nHost: [2001:db8::1]:443\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n\
             5;a=\"b\tc\"\r\nhello\r\n00a\r\n, world!!\n\r\n0;x\r\nX-Trailer: 1\r\n\r\n",
            "Put /? / Some(\"\") host=[2001:db8::1]:443 body=true continue=true keep=true\nhost=[2001:db8::1]:443\n\
             transfer-encoding=Chunked\nexpect=100-Continue\n",
            "hello, world!!\n",
        ),
        ("GET / HTTP/1.0\r\n\r\n", "Get / / None host= body=false continue=false keep=false\n", ""),
        (
            "GET / HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n",
            "Get / / None host= body=false continue=false keep=true\nconnection=x, Keep-Alive\n",
            "",
        ),
        (
            "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
            "Post / / None host= body=true continue=false keep=false\nexpect=100-continue\ncontent-length=1\n",
            "x",
        ),
        (
            "DELETE HtTp://A:1?q HTTP/1.1\r\nhost: a:1\r\nConnection: a\r\nConnection: close\r\n\r\n",
            "Delete HtTp://A:1?q / Some(\"q\") host=A:1 body=false continue=false keep=false\nhost=a:1\nconnection=a\n\
             connection=close\n",
            "",
        ),
        (
            "PATCH https://a/b/../c HTTP/1.1\r\nhost: a\r\nContent-Length: 0\r\nexpect: 100-continue\r\n\r\n",
            "Patch https://a/b/../c /b/../c None host=a body=false continue=false keep=true\nhost=a\ncontent-length=0\n\
             expect=100-continue\n",
            "",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "Options * * None host=a body=false continue=false keep=true\nhost=a\n",
            "",
        ),
        (
            "M-SEARCH / HTTP/1.1\r\nhost: a\r\nCF-IPCity: S\u{e3}o  Paulo\r\n\r\n",
            "Other / / None host=a body=false continue=false keep=true\nhost=a\ncf-ipcity=S\u{e3}o  Paulo\n",
            "",
        ),
        (
            "HEAD / HTTP/1.1\r\nhost: a\r\nContent-Length: 007\r\n\r\n\0\r\n\r\n12",
            "Head / / None host=a body=true continue=false keep=true\nhost=a\ncontent-length=007\n",
            "\0\r\n\r\n12",
        ),
    ];
    for (bytes, head, body) in table {
        let (seen_head, seen_body) = one_request(bytes.as_bytes());
        assert_eq!(&seen_head, head, "{bytes:?}");
        assert_eq!(seen_body, body.as_bytes(), "{bytes:?}");
    }
}

#[test]
fn refused_request_lines() {
    let table: &[(&[u8], Error)] = &[
        (b"\r\n\r\nGET / HTTP/1.1\r\n", Error::RequestLine),
        (b"\nGET / HTTP/1.1\r\n", Error::Field(BareLf)),
        (b"GET / HTTP/1.1\nHost: a\n\n", Error::Field(BareLf)),
        (b"GET / HTTP/1.1\rHost: a\r\n", Error::Field(BareCr)),
        (b"GET / HTTP/1.1\r\r\n", Error::Field(BareCr)),
        (b"GET /\0 HTTP/1.1\r\n", Error::Field(ControlCharacter)),
        (b"GET /\x7f HTTP/1.1\r\n", Error::Field(ControlCharacter)),
        (b"GET /\xe4 HTTP/1.1\r\n", Error::Field(NotUtf8)),
        (b"GET\r\n", Error::RequestLine),
        (b"GET /\r\n", Error::RequestLine),
        (b" GET / HTTP/1.1\r\n", Error::Method),
        (b"GET  / HTTP/1.1\r\n", Error::RequestLine),
        (b"GET /  HTTP/1.1\r\n", Error::RequestLine),
        (b"GET / HTTP/1.1 \r\n", Error::RequestLine),
        (b"GET / x HTTP/1.1\r\n", Error::RequestLine),
        (b"GET\t/\tHTTP/1.1\r\n", Error::RequestLine),
        (b"G(T / HTTP/1.1\r\n", Error::Method),
        (b"GET / http/1.1\r\n", Error::RequestLine),
        (b"GET / HTTP/1.10\r\n", Error::RequestLine),
        (b"GET / HTTP/1.2\r\n", Error::VersionUnsupported),
        (b"GET / HTTP/0.9\r\n", Error::VersionUnsupported),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Error::VersionUnsupported),
        (b"GET * HTTP/1.1\r\n", Error::Target(TargetError::Form)),
        (b"GET x HTTP/1.1\r\n", Error::Target(TargetError::Form)),
        (b"GET ftp://a/ HTTP/1.1\r\n", Error::Target(TargetError::Form)),
        (b"CONNECT a:443 HTTP/1.1\r\n", Error::Target(TargetError::Form)),
        (b"GET http:///x HTTP/1.1\r\n", Error::Target(TargetError::Authority)),
        (b"GET http://u@a/ HTTP/1.1\r\n", Error::Target(TargetError::Authority)),
        (b"GET http://a#/ HTTP/1.1\r\n", Error::Target(TargetError::Character)),
        (b"GET /#x HTTP/1.1\r\n", Error::Target(TargetError::Character)),
        (b"GET /\tx HTTP/1.1\r\n", Error::Target(TargetError::Character)),
        (b"GET /\\x HTTP/1.1\r\n", Error::Target(TargetError::Character)),
        (b"GET /<x> HTTP/1.1\r\n", Error::Target(TargetError::Character)),
        ("GET /ä HTTP/1.1\r\n".as_bytes(), Error::Target(TargetError::Character)),
        (b"GET /%2 HTTP/1.1\r\n", Error::Target(TargetError::PercentEncoding)),
        (b"GET /?%zz HTTP/1.1\r\n", Error::Target(TargetError::PercentEncoding)),
        (b"GET /%%20 HTTP/1.1\r\n", Error::Target(TargetError::PercentEncoding)),
    ];
    for (bytes, expected) in table {
        assert_eq!(error(bytes), Some(*expected), "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn refused_fields() {
    let table: &[(&[u8], Error)] = &[
        (b" Host: a\r\n", Error::Field(LeadingSpace)),
        (b"\tHost: a\r\n", Error::Field(LeadingSpace)),
        (b"Host: a\r\n b\r\n", Error::Field(Folded)),
        (b"Host: a\r\n\tb\r\n", Error::Field(Folded)),
        (b"Host: a\r\n \r\n", Error::Field(Folded)),
        (b"Host : a\r\n", Error::Field(SpaceInName)),
        (b"Host\t: a\r\n", Error::Field(SpaceInName)),
        (b"Ho st: a\r\n", Error::Field(SpaceInName)),
        (b"Host\r\n", Error::Field(NoColon)),
        (b": a\r\n", Error::Field(Name)),
        (b"H\0st: a\r\n", Error::Field(Name)),
        (b"H\"st: a\r\n", Error::Field(Name)),
        ("H\u{f6}st: a\r\n".as_bytes(), Error::Field(Name)),
        (b"X: \xe4\r\n", Error::Field(NotUtf8)),
        (b"X: a\0b\r\n", Error::Field(ControlCharacter)),
        (b"X: a\x7f\r\n", Error::Field(ControlCharacter)),
        (b"X: a\x1b[m\r\n", Error::Field(ControlCharacter)),
        (b"X: a\rb\r\n", Error::Field(BareCr)),
        (b"X\r: a\r\n", Error::Field(BareCr)),
        (b"X: a\r\r\n", Error::Field(BareCr)),
        (b"X: a\n", Error::Field(BareLf)),
        (b"X: a\nY: b\r\n", Error::Field(BareLf)),
        (b"Host: a\r\n\n", Error::Field(BareLf)),
        (b"\r\n", Error::HostMissing),
        (b"X: a\r\n\r\n", Error::HostMissing),
        (b"Host: a\r\nX: b\r\nhost: a\r\n", Error::HostRepeated),
        (b"Host:\r\n", Error::HostInvalid),
        (b"Host: a b\r\n", Error::HostInvalid),
        (b"Host: a,b\r\nHost: c\r\n", Error::HostRepeated),
        (b"Host: a/b\r\n", Error::HostInvalid),
        (b"Host: u@a\r\n", Error::HostInvalid),
        (b"Host: a:\r\n", Error::HostInvalid),
        (b"Host: a:x\r\n", Error::HostInvalid),
        (b"Host: a:65536\r\n", Error::HostInvalid),
        (b"Host: a:000080\r\n", Error::HostInvalid),
        (b"Host: :80\r\n", Error::HostInvalid),
        (b"Host: [::1\r\n", Error::HostInvalid),
        (b"Host: [::1]80\r\n", Error::HostInvalid),
        (b"Host: [a.b]\r\n", Error::HostInvalid),
        (b"Host: [::g]\r\n", Error::HostInvalid),
        (b"Host: a%4\r\n", Error::HostInvalid),
        ("Host: \u{e4}\r\n".as_bytes(), Error::HostInvalid),
        (b"Host: a\r\nExpect: 200-maybe\r\n", Error::Expectation),
        (b"Host: a\r\nExpect:\r\n", Error::Expectation),
    ];
    for (fields, expected) in table {
        let bytes = [b"GET / HTTP/1.1\r\n", *fields].concat();
        assert_eq!(error(&bytes), Some(*expected), "{:?}", String::from_utf8_lossy(fields));
    }
    let differs = b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n";
    assert_eq!(error(differs), Some(Error::HostDiffers));
}

#[test]
fn refused_framing() {
    let table: &[(&str, Error)] = &[
        // CL.TE and TE.CL.
        (
            "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
            Error::Framing(LengthAndCoding),
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n8\r\nSMUGGLED",
            Error::Framing(LengthAndCoding),
        ),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", Error::Framing(LengthAndCoding)),
        // TE.TE obfuscations.
        ("Transfer-Encoding : chunked\r\n", Error::Field(SpaceInName)),
        ("Transfer-Encoding\t: chunked\r\n", Error::Field(SpaceInName)),
        (" Transfer-Encoding: chunked\r\n", Error::Field(Folded)),
        ("X: y\nTransfer-Encoding: chunked\r\n", Error::Field(BareLf)),
        ("X: y\rTransfer-Encoding: chunked\r\n", Error::Field(BareCr)),
        ("Transfer-Encoding:\r\n chunked\r\n", Error::Framing(CodingInvalid)),
        ("Transfer-Encoding: xchunked\r\n", Error::Framing(CodingUnsupported)),
        ("Transfer-Encoding: identity\r\n", Error::Framing(CodingUnsupported)),
        ("Transfer-Encoding: gzip, chunked\r\n", Error::Framing(CodingUnsupported)),
        ("Transfer-Encoding: chunked, identity\r\n", Error::Framing(CodingInvalid)),
        ("Transfer-Encoding: chunked, chunked\r\n", Error::Framing(CodingInvalid)),
        ("Transfer-Encoding: chunked,\r\n", Error::Framing(CodingInvalid)),
        ("Transfer-Encoding: ,chunked\r\n", Error::Framing(CodingInvalid)),
        ("Transfer-Encoding: \"chunked\"\r\n", Error::Framing(CodingInvalid)),
        ("Transfer-Encoding: chunked;q=1\r\n", Error::Framing(CodingInvalid)),
        ("Transfer-Encoding: chun\tked\r\n", Error::Framing(CodingInvalid)),
        ("Transfer-Encoding: \u{b}chunked\r\n", Error::Field(ControlCharacter)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", Error::Framing(CodingRepeated)),
        ("Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n", Error::Framing(CodingRepeated)),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", Error::Framing(CodingUnsupported)),
        // Lengths.
        ("Content-Length: 5\r\nContent-Length: 6\r\n", Error::Framing(LengthRepeated)),
        ("Content-Length: 5\r\ncontent-length: 5\r\n", Error::Framing(LengthRepeated)),
        ("Content-Length: 5, 5\r\n", Error::Framing(LengthInvalid)),
        ("Content-Length: 5,\r\n", Error::Framing(LengthInvalid)),
        ("Content-Length: +5\r\n", Error::Framing(LengthInvalid)),
        ("Content-Length: -5\r\n", Error::Framing(LengthInvalid)),
        ("Content-Length: 5 5\r\n", Error::Framing(LengthInvalid)),
        ("Content-Length: 0x5\r\n", Error::Framing(LengthInvalid)),
        ("Content-Length: 5.0\r\n", Error::Framing(LengthInvalid)),
        ("Content-Length:\r\n", Error::Framing(LengthInvalid)),
        ("Content-Length: \u{665}\r\n", Error::Framing(LengthInvalid)),
        ("Content-Length: 18446744073709551621\r\n", Error::Framing(LengthInvalid)),
        ("Content-Length: 1048577\r\n\r\n", Error::BodyTooLarge),
        ("\r\n", Error::LengthRequired),
    ];
    for (rest, expected) in table {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}");
        assert_eq!(error(bytes.as_bytes()), Some(*expected), "{rest:?}");
    }
    let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(error(old), Some(Error::Framing(CodingInHttp10)));
}

#[test]
fn refused_chunks() {
    let table: &[(&str, Error)] = &[
        ("\r\n", Error::Chunk(ChunkError::Size)),
        (";x\r\n", Error::Chunk(ChunkError::Size)),
        ("x\r\n", Error::Chunk(ChunkError::Size)),
        ("0x1\r\n", Error::Chunk(ChunkError::Size)),
        ("+1\r\n", Error::Chunk(ChunkError::Size)),
        (" 1\r\n", Error::Chunk(ChunkError::Size)),
        ("1 \r\n", Error::Chunk(ChunkError::Size)),
        ("1 ;x\r\n", Error::Chunk(ChunkError::Size)),
        ("1\r;x\r\n", Error::Chunk(ChunkError::Size)),
        ("00000000000000001\r\n", Error::Chunk(ChunkError::Size)),
        ("10000000000000000\r\n", Error::Chunk(ChunkError::Size)),
        ("ffffffffffffffff\r\n", Error::BodyTooLarge),
        ("1\r\nx\r\nffffffffffffffff\r\n", Error::BodyTooLarge),
        ("100001\r\n", Error::BodyTooLarge),
        ("1\nx\r\n", Error::Chunk(ChunkError::Line(BareLf))),
        ("1;\rx\r\n", Error::Chunk(ChunkError::Line(BareCr))),
        ("1;\0\r\n", Error::Chunk(ChunkError::Line(ControlCharacter))),
        ("1\r\nxy", Error::Chunk(ChunkError::DataEnd)),
        ("1\r\nx\n0\r\n", Error::Chunk(ChunkError::DataEnd)),
        ("1\r\nx\r0\r\n", Error::Chunk(ChunkError::DataEnd)),
        ("0\r\n\n", Error::Chunk(ChunkError::Trailer(BareLf))),
        ("0\r\nA: b\r\n c\r\n", Error::Chunk(ChunkError::Trailer(Folded))),
        ("0\r\nA : b\r\n", Error::Chunk(ChunkError::Trailer(SpaceInName))),
        ("0\r\nA\r\n", Error::Chunk(ChunkError::Trailer(NoColon))),
        ("0\r\nA: \0\r\n", Error::Chunk(ChunkError::Trailer(ControlCharacter))),
        ("0\r\nContent-length: 1\r\n", Error::Chunk(ChunkError::TrailerForbidden)),
        ("0\r\nHOST: b\r\n", Error::Chunk(ChunkError::TrailerForbidden)),
    ];
    for (rest, expected) in table {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{rest}");
        assert_eq!(error(bytes.as_bytes()), Some(*expected), "{rest:?}");
    }
}

#[test]
fn pipelined_requests() {
    let bytes = b"POST /1 HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nContent-Length: 2\r\n\r\nhi\
        GET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
        \r\nPOST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n!\r\n0\r\n\r\n\
        GET /4 HTTP/1.1\r\nHo";
    let end = "body=false continue=false keep=true\nhost=a\n";
    assert_eq!(
        seen(bytes),
        vec![
            Seen::Head(
                "Post /1 /1 None host=a body=true continue=false keep=true\nhost=a\nx-one=1\ncontent-length=2\n".into()
            ),
            Seen::Body(b"hi".to_vec()),
            Seen::End,
            Seen::Head(format!("Get /2 /2 None host=a {end}")),
            Seen::End,
            Seen::Head(
                "Post /3 /3 None host=a body=true continue=false keep=true\nhost=a\ntransfer-encoding=chunked\n".into()
            ),
            Seen::Body(b"!".to_vec()),
            Seen::End,
            Seen::Waiting { idle: false },
        ]
    );
}

#[test]
fn bounds_hold_at_the_byte() {
    let head = b"GET /1234 HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n";
    let exact = Limits {
        request_line_bytes_max: 20,
        header_count_max: 2,
        header_bytes_max: head.len(),
        body_bytes_max: 4,
    };
    let last = |limits: Limits, bytes: &[u8]| at_every_cut(bytes, || RequestParser::new(limits)).pop();
    assert_eq!(last(exact, head), Some(Seen::Waiting { idle: true }));
    let line = Limits { request_line_bytes_max: 19, ..exact };
    assert_eq!(last(line, head), Some(Seen::Failed(Error::RequestLineTooLong)));
    let count = Limits { header_count_max: 1, ..exact };
    assert_eq!(last(count, head), Some(Seen::Failed(Error::TooManyFields)));
    let whole = Limits { header_bytes_max: head.len() - 1, ..exact };
    assert_eq!(last(whole, head), Some(Seen::Failed(Error::HeadTooLong)));

    let body = |length, data: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n{data}");
    let roomy = Limits { body_bytes_max: 4, ..Limits::default() };
    for (length, data) in
        [("Content-Length: 4", "1234"), ("Transfer-Encoding: chunked", "3\r\n123\r\n1\r\n4\r\n0\r\n\r\n")]
    {
        assert_eq!(last(roomy, body(length, data).as_bytes()), Some(Seen::Waiting { idle: true }));
    }
    for (length, data) in [("Content-Length: 5", ""), ("Transfer-Encoding: chunked", "3\r\n123\r\n2\r\n")] {
        assert_eq!(last(roomy, body(length, data).as_bytes()), Some(Seen::Failed(Error::BodyTooLarge)));
    }
}

#[test]
fn extensions_and_trailers_are_bounded_over_the_whole_body() {
    let run = |data: &str| {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{data}");
        let mut input = bytes.as_bytes();
        let mut parser = RequestParser::new(Limits::default());
        loop {
            match parser.handle_bytes(&mut input) {
                Ok(Progress::NeedMore) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    };
    let chunk = format!("1;{}\r\nx\r\n", "e".repeat(1023));
    assert_eq!(run(&format!("{}0\r\n\r\n", chunk.repeat(4))), Ok(()));
    let too_long = Err(Error::Chunk(ChunkError::ExtensionTooLong));
    assert_eq!(run(&format!("{}0;\r\n\r\n", chunk.repeat(4))), too_long);
    assert_eq!(run(&format!("1;{}", "e".repeat(4200))), too_long);
    assert_eq!(run(&"0".repeat(4200)), too_long);
    assert_eq!(run(&format!("0\r\n{}", "a: b\r\n".repeat(1365))), Ok(()));
    assert_eq!(
        run(&format!("0\r\n{}", "a: b\r\n".repeat(1366))),
        Err(Error::Chunk(ChunkError::TrailerTooLong))
    );
}

#[test]
fn an_endpoint_tightens_the_body_bound_for_one_request() {
    let mut parser = RequestParser::new(Limits::default());
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";
    let next = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    let mut input = &[&head[..], b"1234", next].concat()[..];
    assert_eq!(parser.handle_bytes(&mut input), Ok(Progress::Head));
    parser.set_body_bytes_max(4);
    assert_eq!(parser.handle_bytes(&mut input), Ok(Progress::Body(b"1234")));
    assert_eq!(parser.handle_bytes(&mut input), Ok(Progress::End));
    assert!(parser.is_idle());
    assert_eq!(parser.handle_bytes(&mut input), Ok(Progress::Head));
    assert!(!parser.is_idle());
    parser.set_body_bytes_max(4);
    parser.set_body_bytes_max(10);
    assert_eq!(parser.handle_bytes(&mut input), Err(Error::BodyTooLarge));

    let mut parser = RequestParser::new(Limits::default());
    let mut input =
        &b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n1\r\n"[..];
    assert_eq!(parser.handle_bytes(&mut input), Ok(Progress::Head));
    parser.set_body_bytes_max(4);
    assert_eq!(parser.handle_bytes(&mut input), Ok(Progress::Body(b"1234")));
    assert_eq!(parser.handle_bytes(&mut input), Err(Error::BodyTooLarge));
}

#[test]
fn head_getters() {
    let mut parser = RequestParser::new(Limits::default());
    let mut input = &b"PUT /a?b HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 9\r\n\r\n"[..];
    assert_eq!(parser.handle_bytes(&mut input), Ok(Progress::Head));
    let head = parser.head();
    assert_eq!(head.method(), Method::Put);
    assert_eq!((head.target(), head.path(), head.query()), ("/a?b", "/a", Some("b")));
    assert_eq!((head.header("x-a"), head.header("X-A"), head.header("y")), (Some("1"), None, None));
    assert_eq!(head.content_length(), Some(9));
    assert_eq!(head.headers().count(), 4);
}

#[test]
fn each_fault_has_its_status() {
    for (error, status) in [
        (Error::RequestLineTooLong, Status::UriTooLong414),
        (Error::VersionUnsupported, Status::VersionNotSupported505),
        (Error::HeadTooLong, Status::HeaderFieldsTooLarge431),
        (Error::TooManyFields, Status::HeaderFieldsTooLarge431),
        (Error::LengthRequired, Status::LengthRequired411),
        (Error::BodyTooLarge, Status::PayloadTooLarge413),
        (Error::Expectation, Status::ExpectationFailed417),
        (Error::Framing(CodingUnsupported), Status::NotImplemented501),
        (Error::Framing(LengthAndCoding), Status::BadRequest400),
        (Error::Chunk(ChunkError::Size), Status::BadRequest400),
        (Error::HostMissing, Status::BadRequest400),
    ] {
        assert_eq!(error.status(), status, "{error}");
    }
}
