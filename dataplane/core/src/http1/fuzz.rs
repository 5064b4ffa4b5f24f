//! Asserting drivers: what a parser reports must not depend on where its input was cut.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::characters::{has_control, is_token, trim_ows};
use super::{Limits, Progress, RequestError, RequestParser, ResponseError, ResponseParser};

/// Small, so that short inputs reach every bound.
const LIMITS: Limits =
    Limits { request_line_bytes_max: 96, header_count_max: 6, header_bytes_max: 256, body_bytes_max: 48 };

/// Requests: two bytes of seed for the cuts, then the bytes of a connection.
pub fn fuzz_request(data: &[u8]) {
    check(data, || RequestParser::new(LIMITS));
}

/// Responses to one request after the other, then the end of the connection; seed as above.
pub fn fuzz_response(data: &[u8]) {
    check(data, || ResponseParser::new(LIMITS));
}

fn check<P: Parser>(data: &[u8], new: impl Fn() -> P) {
    let Some((seed, stream)) = data.split_at_checked(2) else { return };
    let whole = transcript(new(), [stream]);
    assert_eq!(whole, transcript(new(), stream.chunks(1)), "byte by byte");
    let mut state = u32::from(seed[0]) << 8 | u32::from(seed[1]);
    let mut rest = stream;
    let pieces = core::iter::from_fn(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, after) = rest.split_at(rest.len().min((state >> 24) as usize % 40));
        (!rest.is_empty()).then(|| {
            rest = after;
            piece
        })
    });
    assert_eq!(whole, transcript(new(), pieces), "cut at random");
}

/// What a parser reported, with neighbouring body pieces joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen<E> {
    Head(String),
    Body(Vec<u8>),
    End,
    /// All input was taken and the message is not complete; true between two messages.
    Waiting {
        idle: bool,
    },
    Failed(E),
}

/// What the two parsers have in common.
pub(super) trait Parser {
    type Error: Copy + fmt::Debug + Eq;

    fn step<'i>(&mut self, input: &mut &'i [u8]) -> Result<Progress<'i>, Self::Error>;
    /// Asserts what a head guarantees; one line per fact.
    fn describe(&self) -> String;
    fn begin(&mut self) {}
    fn finish(&mut self) -> Result<Progress<'static>, Self::Error>;
    fn is_idle(&self) -> bool;
    fn limits(&self) -> Limits;
}

/// Feeds `pieces` and asserts after every step what must hold at any time.
pub(super) fn transcript<'p, P: Parser>(
    mut parser: P,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Vec<Seen<P::Error>> {
    let mut seen = Vec::new();
    parser.begin();
    for mut input in pieces {
        loop {
            let before = input.len();
            let progress = parser.step(&mut input);
            assert!(input.len() <= before);
            match progress {
                Ok(Progress::NeedMore) => {
                    assert!(input.is_empty(), "more is asked for while input is left");
                    break;
                }
                Ok(Progress::Head) => seen.push(Seen::Head(parser.describe())),
                Ok(Progress::Body(piece)) => join(&mut seen, piece, parser.limits().body_bytes_max),
                Ok(Progress::End) => {
                    seen.push(Seen::End);
                    parser.begin();
                }
                Err(error) => {
                    assert_eq!(parser.step(&mut &b"GET / HTTP/1.1\r\n"[..]), Err(error), "errors are sticky");
                    seen.push(Seen::Failed(error));
                    return seen;
                }
            }
        }
    }
    let idle = parser.is_idle();
    seen.push(match parser.finish() {
        Ok(Progress::End) => Seen::End,
        Ok(_) => Seen::Waiting { idle },
        Err(error) => Seen::Failed(error),
    });
    seen
}

fn join<E>(seen: &mut Vec<Seen<E>>, piece: &[u8], bytes_max: usize) {
    assert!(!piece.is_empty(), "a body piece is never empty");
    if let Some(Seen::Body(body)) = seen.last_mut() {
        body.extend_from_slice(piece);
        assert!(body.len() <= bytes_max, "the body is bounded");
        return;
    }
    assert!(piece.len() <= bytes_max, "the body is bounded");
    seen.push(Seen::Body(piece.to_vec()));
}

fn describe_fields<'h>(text: &mut String, fields: impl Iterator<Item = (&'h str, &'h str)>, limits: Limits) {
    let start = text.len();
    for (index, (name, value)) in fields.enumerate() {
        assert!(index < limits.header_count_max, "fields are counted");
        assert!(is_token(name.as_bytes()) && !name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name}");
        assert!(!has_control(value.as_bytes()) && trim_ows(value.as_bytes()) == value.as_bytes(), "{value}");
        text.extend([name, "=", value, "\n"]);
    }
    // A replacement character takes three bytes for one octet.
    assert!(text.len() - start <= 3 * limits.header_bytes_max, "the head is bounded");
}

impl Parser for RequestParser {
    type Error = RequestError;

    fn step<'i>(&mut self, input: &mut &'i [u8]) -> Result<Progress<'i>, RequestError> {
        self.handle_bytes(input)
    }

    fn describe(&self) -> String {
        let head = self.head();
        assert!(head.path() == "*" || head.path().starts_with('/') || head.target().contains("://"));
        assert!(!head.path().contains(['?', '#', ' ']));
        assert!(head.has_body() || !head.expects_continue());
        assert!(head.content_length().is_none_or(|length| length <= self.limits().body_bytes_max as u64));
        assert!(head.target().len() < self.limits().request_line_bytes_max);
        let mut text = alloc::format!(
            "{:?} {} {} {:?} host={} body={} continue={} keep={}\n",
            head.method(),
            head.target(),
            head.path(),
            head.query(),
            head.host(),
            head.has_body(),
            head.expects_continue(),
            head.keep_alive()
        );
        describe_fields(&mut text, head.headers(), self.limits());
        text
    }

    fn finish(&mut self) -> Result<Progress<'static>, RequestError> {
        Ok(Progress::NeedMore)
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn limits(&self) -> Limits {
        self.limits()
    }
}

impl Parser for ResponseParser {
    type Error = ResponseError;

    fn step<'i>(&mut self, input: &mut &'i [u8]) -> Result<Progress<'i>, ResponseError> {
        self.handle_bytes(input)
    }

    fn describe(&self) -> String {
        assert!((200..600).contains(&self.status()));
        let mut text = alloc::format!("{} keep={}\n", self.status(), self.keep_alive());
        describe_fields(&mut text, self.headers(), self.limits());
        text
    }

    fn begin(&mut self) {
        self.start();
    }

    fn finish(&mut self) -> Result<Progress<'static>, ResponseError> {
        self.handle_eof()
    }

    fn is_idle(&self) -> bool {
        false
    }

    fn limits(&self) -> Limits {
        self.limits()
    }
}
