//! One connection of the load: dialled when there is something to send, one request on the way at a time.
//!
//! In: requests, and what the reactor says of the socket. Out: [`Step`]s. Whatever fails ends the connection; it is
//! dialled anew for the next request.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use zen_core::http1::{Limits, Progress, ResponseParser};
use zen_uring::{Reactor, SocketId};

use super::draw::Sending;
use super::wire::{Resumed, Wire};

/// Longest body of an answer, bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// As much of it is kept as the id of an event takes, bytes.
const KEPT_BYTES_MAX: usize = 256;

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    /// What was sent.
    pub(super) sending: Sending,
    /// The event.
    pub(super) number: u64,
    /// From when its latency counts: due (open loop), or sent; ns since the start.
    pub(super) since_ns: u64,
    /// When it was handed to the connection.
    pub(super) sent_ns: u64,
    /// Whether it belongs to the measured span.
    pub(super) measured: bool,
}

/// What came of an event of the socket.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing yet.
    Busy,
    /// An answer; the connection is there for the next request unless it has no socket any more.
    Answered(Flight, Answer),
    /// The connection failed, with what was on the way if there was something.
    Failed(Option<Flight>, String),
    /// It opened and has nothing to do.
    Opened,
}

/// An answer's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// Three digits.
    pub(super) status: u16,
    /// What `retry-after` asks for, if it is seconds.
    pub(super) retry_after_s: Option<u64>,
}

/// A connection, up or not.
pub(super) struct Connection {
    /// As the reactor calls it; `None` while it is down.
    pub(super) socket: Option<SocketId>,
    /// Whether it is among those that wait for a request.
    pub(super) is_idle: bool,
    /// Since when, ns since the start.
    pub(super) idle_since_ns: u64,
    /// When it was dialled, or got its last request.
    pub(super) begun_ns: u64,
    wire: Option<Wire>,
    parser: ResponseParser,
    flight: Option<Flight>,
    /// The request while it is dialled.
    waiting: Vec<u8>,
    kept: Vec<u8>,
    spare: Vec<u8>,
    sending: bool,
    answer_begun: bool,
    opened: Option<Resumed>,
    /// How it opened, until it was asked for.
    news: Option<Resumed>,
}

/// Whether a connection lives on after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// While the server wants it.
    KeepAlive,
    /// Each request has one of its own.
    Once,
}

impl Connection {
    /// One that is down.
    pub(super) fn new() -> Self {
        let limits = Limits { body_bytes_max: ANSWER_BYTES_MAX, ..Limits::default() };
        Self {
            socket: None,
            is_idle: false,
            idle_since_ns: 0,
            begun_ns: 0,
            wire: None,
            parser: ResponseParser::new(limits),
            flight: None,
            waiting: Vec::new(),
            kept: Vec::new(),
            spare: Vec::new(),
            sending: false,
            answer_begun: false,
            opened: None,
            news: None,
        }
    }

    /// Begins to connect.
    pub(super) fn dial(
        &mut self,
        address: SocketAddr,
        now_ns: u64,
        reactor: &mut Reactor,
    ) -> Result<(), String> {
        let limits = Limits { body_bytes_max: ANSWER_BYTES_MAX, ..Limits::default() };
        let socket = reactor.connect(address).map_err(|error| error.to_string())?;
        self.socket = Some(socket);
        self.begun_ns = now_ns;
        self.parser = ResponseParser::new(limits);
        (self.sending, self.opened, self.wire) = (false, None, None);
        Ok(())
    }

    /// Takes a request; `bytes` are taken out, and memory for others left behind.
    pub(super) fn request(&mut self, flight: Flight, bytes: &mut Vec<u8>, reactor: &mut Reactor) {
        debug_assert!(self.flight.is_none(), "one request at a time");
        self.flight = Some(flight);
        self.begun_ns = flight.sent_ns;
        self.answer_begun = false;
        self.kept.clear();
        if let Some(wire) = &mut self.wire {
            self.parser.start();
            wire.write(bytes);
            self.flush(reactor);
        } else {
            std::mem::swap(&mut self.waiting, bytes);
        }
    }

    /// TCP is up, or not.
    pub(super) fn handle_connected(
        &mut self,
        result: std::io::Result<()>,
        tls: Option<&Arc<ClientConfig>>,
        reactor: &mut Reactor,
    ) -> Step {
        let wire = match result
            .map_err(|error| error.to_string())
            .and_then(|()| Wire::new(tls).map_err(|error| error.to_string()))
        {
            Ok(wire) => self.wire.insert(wire),
            Err(reason) => return self.fail(reason, reactor),
        };
        if self.flight.is_some() {
            self.parser.start();
            wire.write(&self.waiting);
        }
        reactor.receive(self.socket.expect("a connection that was dialled"));
        self.flush(reactor);
        self.notice_opened()
    }

    /// Bytes came; `received` is read from the reactor's buffer by the caller.
    pub(super) fn handle_received(&mut self, received: &[u8]) -> Result<Parsed, String> {
        let Some(wire) = &mut self.wire else { return Ok(Parsed::More) };
        let (parser, kept) = (&mut self.parser, &mut self.kept);
        let mut parsed = Ok(Parsed::More);
        let has_flight = self.flight.is_some();
        let mut begun = self.answer_begun;
        let read = wire.handle_bytes(received, |mut piece| {
            if parsed.is_ok() && has_flight {
                begun = true;
                parsed = parse(parser, kept, &mut piece, parsed.clone());
            } else if parsed.is_ok() {
                parsed = Err("an answer that nobody asked for".to_owned());
            }
        });
        self.answer_begun = begun;
        // What was said before an error is an answer all the same.
        match (parsed, read) {
            (Ok(Parsed::More), Err(error)) => Err(error.to_string()),
            (parsed, _) => parsed,
        }
    }

    /// Goes on from what [`Self::handle_received`] came to.
    pub(super) fn handle_parsed(
        &mut self,
        parsed: Result<Parsed, String>,
        reuse: Reuse,
        reactor: &mut Reactor,
    ) -> Step {
        self.flush(reactor);
        match parsed {
            Err(reason) => self.fail(reason, reactor),
            Ok(Parsed::More) => self.notice_opened(),
            Ok(Parsed::Whole) => {
                let _ = self.notice_opened();
                self.answered(reuse, reactor)
            }
        }
    }

    /// The peer ended its side.
    pub(super) fn handle_closed(&mut self, error: Option<&std::io::Error>, reactor: &mut Reactor) -> Step {
        if self.answer_begun && matches!(self.parser.handle_eof(), Ok(Progress::End)) {
            return self.answered(Reuse::Once, reactor);
        }
        if self.flight.is_none() && self.opened.is_some() {
            self.close(reactor);
            return Step::Busy;
        }
        let reason = error.map_or_else(|| "closed before the answer".to_owned(), ToString::to_string);
        self.fail(reason, reactor)
    }

    /// A send is done.
    pub(super) fn handle_sent(
        &mut self,
        buffer: Vec<u8>,
        result: std::io::Result<()>,
        reactor: &mut Reactor,
    ) -> Step {
        self.sending = false;
        self.spare = buffer;
        match result {
            // Whatever the peer still said comes before its end.
            Err(_) => {}
            Ok(()) => self.flush(reactor),
        }
        Step::Busy
    }

    /// Ends it, and gives back what was on the way.
    pub(super) fn fail(&mut self, reason: String, reactor: &mut Reactor) -> Step {
        self.close(reactor);
        Step::Failed(self.flight.take(), reason)
    }

    /// Says goodbye and closes the socket.
    pub(super) fn close(&mut self, reactor: &mut Reactor) {
        if let (Some(wire), true) = (&mut self.wire, self.opened.is_some()) {
            wire.finish();
            self.flush(reactor);
        }
        if let Some(socket) = self.socket.take() {
            reactor.close(socket);
        }
        (self.wire, self.opened) = (None, None);
    }

    /// Whether a request is on the way, or a handshake.
    pub(super) fn is_busy(&self) -> bool {
        self.flight.is_some() || (self.socket.is_some() && self.opened.is_none())
    }

    /// Whether a request is on the way.
    pub(super) fn has_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// Once after it opened: whether it resumed a session.
    pub(super) fn take_news(&mut self) -> Option<Resumed> {
        self.news.take()
    }

    /// The beginning of the last answer's body.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    fn answered(&mut self, reuse: Reuse, reactor: &mut Reactor) -> Step {
        let flight = self.flight.take().expect("an answer belongs to a request");
        let retry_after_s = self.parser.header("retry-after").and_then(|value| value.parse().ok());
        let answer = Answer { status: self.parser.status(), retry_after_s };
        if reuse == Reuse::Once || !self.parser.keep_alive() || flight.sending == Sending::Junk {
            self.close(reactor);
        }
        Step::Answered(flight, answer)
    }

    /// A connection that opened with nothing to do is idle.
    fn notice_opened(&mut self) -> Step {
        if self.opened.is_some() {
            return Step::Busy;
        }
        self.opened = self.wire.as_ref().and_then(Wire::opened);
        self.news = self.opened;
        if self.opened.is_some() && self.flight.is_none() { Step::Opened } else { Step::Busy }
    }

    fn flush(&mut self, reactor: &mut Reactor) {
        let (Some(socket), Some(wire)) = (self.socket, &mut self.wire) else { return };
        if self.sending || !wire.wants_write() {
            return;
        }
        let mut buffer = std::mem::take(&mut self.spare);
        buffer.clear();
        wire.take(&mut buffer);
        self.sending = true;
        reactor.send(socket, buffer);
    }
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Not whole.
    More,
    /// Whole, with nothing behind it.
    Whole,
}

fn parse(
    parser: &mut ResponseParser,
    kept: &mut Vec<u8>,
    input: &mut &[u8],
    before: Result<Parsed, String>,
) -> Result<Parsed, String> {
    if before == Ok(Parsed::Whole) && !input.is_empty() {
        return Err("bytes behind the answer".to_owned());
    }
    loop {
        match parser.handle_bytes(input) {
            Ok(Progress::NeedMore) => return Ok(Parsed::More),
            Ok(Progress::Head) => {}
            Ok(Progress::Body(piece)) => {
                let room = KEPT_BYTES_MAX.saturating_sub(kept.len());
                kept.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            Ok(Progress::End) if input.is_empty() => return Ok(Parsed::Whole),
            Ok(Progress::End) => return Err("bytes behind the answer".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parser() -> ResponseParser {
        let mut parser = ResponseParser::new(Limits::default());
        parser.start();
        parser
    }

    const ANSWERS: [(&str, u16, &str); 4] = [
        ("HTTP/1.1 202 Accepted\r\ncontent-length: 11\r\n\r\n{\"id\":\"ab\"}", 202, "{\"id\":\"ab\"}"),
        ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", 401, ""),
        ("HTTP/1.1 429 Too Many Requests\r\nretry-after: 3\r\ncontent-length: 0\r\n\r\n", 429, ""),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok"),
    ];

    #[test]
    fn answers_split_at_every_byte() {
        for (text, status, body) in ANSWERS {
            for split in 0..=text.len() {
                let (mut parser, mut kept) = (parser(), Vec::new());
                let mut parsed = Ok(Parsed::More);
                for mut piece in [&text.as_bytes()[..split], &text.as_bytes()[split..]] {
                    if !piece.is_empty() {
                        parsed = parse(&mut parser, &mut kept, &mut piece, parsed);
                    }
                }
                assert_eq!(parsed, Ok(Parsed::Whole), "{text:?} split at {split}");
                assert_eq!((parser.status(), kept.as_slice()), (status, body.as_bytes()));
            }
        }
    }

    #[test]
    fn what_is_no_single_answer_is_refused() {
        for (text, reason) in [
            ("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\nx", "bytes behind the answer"),
            ("SMTP hello\r\n", "malformed status line"),
            ("HTTP/1.1 202 Accepted\r\ncontent-length: x\r\n\r\n", "content-length"),
        ] {
            let (mut parser, mut kept, mut input) = (parser(), Vec::new(), text.as_bytes());
            let error = parse(&mut parser, &mut kept, &mut input, Ok(Parsed::More)).unwrap_err();
            assert!(error.to_lowercase().contains(reason), "{text:?}: {error}");
        }
        let (mut parser, mut kept, mut input) = (parser(), Vec::new(), b"x".as_slice());
        assert!(parse(&mut parser, &mut kept, &mut input, Ok(Parsed::Whole)).is_err());
    }
}
