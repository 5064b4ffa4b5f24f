//! A source's connection: TLS, HTTP/1.1, verification, up to the point where an event is accepted.
//!
//! One request is under way at a time; pipelined ones wait in the backlog, and the connection is not
//! read while the backlog is long. Nothing is kept of a request that was not verified.

use std::time::Instant;

use zen_core::crypto::Tag;
use zen_core::dedupe::KeyError;
use zen_core::http1::{
    CONTINUE, Connection, Limits, Method, Progress, RequestHead, RequestParser, Status, write_problem,
    write_response,
};
use zen_core::id::EventId;
use zen_core::verify::{RequestView, Verified};
use zen_hmac::Job;
use zen_uring::Reactor;

use super::acceptance::accepted;
use super::access::{Charge, Client, ConnectionError, admit, check_verified};
use super::refused::Refused;
use super::request::{Request, Whole};
use super::{Arrival, Ingester, Outcome};
use crate::config::Endpoint;
use crate::crypto::NodeCrypto;
use crate::quota::Permit;
use crate::stream::Stream;

/// Plaintext that may wait behind an unanswered request before the connection is not read any more.
const BACKLOG_BYTES_MAX: usize = 64 * 1024;
/// Body bytes reserved at once; longer bodies grow as they arrive.
const BODY_RESERVE_BYTES: usize = 64 * 1024;
/// What a connection holds beside its body without being counted: a head, part of a TLS record. Bytes.
const UNCOUNTED_BYTES: usize = 6 * 1024;
/// A source's connection beside what is counted and TLS: its place, the answer and its encryption.
pub const SOURCE_BYTES: usize = 2 * size_of::<Source>() + UNCOUNTED_BYTES + 2048;
/// Memory for a head that is kept for the next one, bytes.
const SPARE_HEAD_BYTES_MAX: usize = 2 * 1024;
/// Room for an answer with its body, bytes.
const ANSWER_BYTES: usize = 384;
/// How long the last answer may take to leave, and after a refusal the source to close its side.
const CLOSE_TIMEOUT_MS: u64 = 2_000;

/// A source's connection.
pub struct Source {
    /// The connection.
    pub stream: Stream,
    client: Client,
    /// Due unless the request under way turns out to be verified.
    charge: Option<Charge>,
    parser: RequestParser,
    backlog: Vec<u8>,
    request: Option<Request>,
    keep_alive: bool,
    state: State,
    since_ms: u64,
    /// What still comes after a refusal is dropped: a reset would overtake the answer (RFC 9112 section 9.6).
    lingers: bool,
    closing_since_ms: Option<u64>,
    given_up: bool,
    /// Bytes counted against the worker's bound.
    counted: usize,
    _place: Permit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between requests, or inside one.
    Reading,
    /// A whole request waits for the tags that its signature is compared with.
    Unverified,
    /// A whole request waits for its record to be durable.
    Waiting,
    /// The last answer is on its way out.
    Closing,
}

impl Source {
    /// A connection just accepted.
    pub fn new(stream: Stream, client: Client, place: Permit, steady_ms: u64) -> Self {
        Self {
            stream,
            client,
            charge: None,
            parser: RequestParser::new(Limits::default()),
            backlog: Vec::new(),
            request: None,
            keep_alive: true,
            state: State::Reading,
            since_ms: steady_ms,
            lingers: false,
            closing_since_ms: None,
            given_up: false,
            counted: 0,
            _place: place,
        }
    }

    /// Room for plaintext, lent while the connection has none of its own: idle ones hold none.
    pub fn lend(&mut self, scratch: Vec<u8>) -> Option<Vec<u8>> {
        if self.backlog.capacity() > 0 {
            return Some(scratch);
        }
        self.backlog = scratch;
        None
    }

    /// Decrypts what came into the backlog; after the last answer nothing is looked at.
    pub fn decrypt(&mut self, bytes: &mut [u8]) -> Result<(), ConnectionError> {
        if self.state == State::Closing {
            return Ok(());
        }
        let mut left = &*bytes;
        self.client.handle_bytes(&mut left)?;
        let begin = bytes.len() - left.len();
        let bytes = &mut bytes[begin..];
        Ok(self.stream.handle_ciphertext(bytes, &mut self.backlog)?)
    }

    /// Works on what [`Source::decrypt`] came to; answers and accepted events come out of it.
    pub fn handle_received(
        &mut self,
        decrypted: Result<(), ConnectionError>,
        ingester: &mut Ingester,
        reactor: &mut Reactor,
        steady_ms: u64,
    ) {
        if let Err(error) = decrypted {
            ingester.metrics().requests_refused.add(error.label());
            self.close(ingester);
        }
        self.advance(ingester, steady_ms);
        if self.stream.tls.peer_closed() && self.state == State::Reading {
            self.close(ingester);
        }
        self.count(ingester);
        if !self.takes_requests() && self.backlog.len() > BACKLOG_BYTES_MAX {
            reactor.pause(self.stream.socket);
        }
        self.stream.flush(reactor);
    }

    /// What is to be computed before a whole request can be answered; nothing if none waits for it.
    pub fn jobs(&self) -> impl Iterator<Item = Job<'_>> {
        let waiting = self.request.as_ref().filter(|_| self.is_unverified());
        waiting.into_iter().flat_map(Request::jobs)
    }

    /// Whether a whole request waits for [`Source::handle_tags`].
    pub fn is_unverified(&self) -> bool {
        self.state == State::Unverified
    }

    /// The tags of [`Source::jobs`] are known: go on with the request, and with what came behind it.
    pub fn handle_tags(
        &mut self,
        expected: &[Tag],
        ingester: &mut Ingester,
        reactor: &mut Reactor,
        steady_ms: u64,
    ) {
        if !self.is_unverified() {
            return;
        }
        self.state = State::Reading;
        if let Err(refused) = self.finish_request(expected, ingester, steady_ms) {
            self.handle_refused(&refused, ingester, steady_ms);
        }
        self.resume(ingester, reactor, steady_ms);
    }

    /// An answer has left: go on with what came meanwhile, or end our side after the last one.
    pub fn handle_sent(
        &mut self,
        buffer: Vec<u8>,
        ingester: &mut Ingester,
        reactor: &mut Reactor,
        steady_ms: u64,
    ) {
        self.stream.handle_sent(buffer, reactor);
        if self.state == State::Closing {
            if self.lingers && self.stream.is_done() {
                reactor.shutdown_write(self.stream.socket);
            }
            return;
        }
        self.resume(ingester, reactor, steady_ms);
    }

    /// The request's outcome is known: answer, and go on with the next one.
    pub fn handle_outcome(
        &mut self,
        outcome: Outcome,
        ingester: &mut Ingester,
        reactor: &mut Reactor,
        steady_ms: u64,
    ) {
        debug_assert_eq!(self.state, State::Waiting);
        if self.stream.is_finishing() {
            return;
        }
        self.answer(outcome, ingester, steady_ms);
        self.resume(ingester, reactor, steady_ms);
    }

    /// Whether the connection has nothing left to say, or nobody listens to it.
    pub fn is_done(&self) -> bool {
        self.given_up || self.stream.is_done() && !self.lingers
    }

    /// Closes what idles or dawdles; deadlines are in steady ms.
    pub fn handle_time(&mut self, ingester: &mut Ingester, reactor: &mut Reactor, steady_ms: u64) {
        if self.state == State::Closing {
            let since_ms = *self.closing_since_ms.get_or_insert(steady_ms);
            self.given_up = steady_ms.saturating_sub(since_ms) >= CLOSE_TIMEOUT_MS;
            return;
        }
        let is_handshaking = self.stream.tls.is_handshaking();
        let may_idle = self.is_idle() && !is_handshaking;
        let limit = if may_idle { ingester.idle_timeout_ms() } else { ingester.request_timeout_ms() };
        if self.state == State::Waiting || steady_ms.saturating_sub(self.since_ms) < limit {
            return;
        }
        if is_handshaking {
            ingester.metrics().requests_refused.add("handshake");
        } else if !self.is_idle() {
            let detail = "the request was not complete in time";
            self.refuse(&Refused::new(Status::RequestTimeout408, "timeout", detail), ingester);
        }
        self.close(ingester);
        self.stream.flush(reactor);
    }

    /// While draining, a connection without a request under way is closed.
    pub fn handle_drain(&mut self, ingester: &mut Ingester, reactor: &mut Reactor) {
        self.keep_alive = false;
        self.lingers = false;
        if self.is_idle() && self.state == State::Reading {
            self.close(ingester);
            self.stream.flush(reactor);
        }
    }

    /// Gives back what the connection holds; called before it is dropped.
    pub fn release(&mut self, ingester: &mut Ingester) {
        if let Some(request) = self.request.take() {
            ingester.give_buffer(request.body);
        }
        if let Some(charge) = self.charge.take() {
            ingester.access().handle_unverified(&charge, ingester.steady_us(), ingester.metrics());
        }
        self.backlog = Vec::new();
        ingester.give_memory(std::mem::take(&mut self.counted));
    }

    /// Counts what the connection holds now; over the worker's bound its request is refused.
    fn count(&mut self, ingester: &mut Ingester) {
        if self.backlog.is_empty() {
            ingester.give_scratch(std::mem::take(&mut self.backlog));
        }
        if self.is_idle() && self.parser.buffer_bytes() > SPARE_HEAD_BYTES_MAX {
            self.parser.shrink();
        }
        let beside = self.backlog.capacity() + self.parser.buffer_bytes() + self.stream.tls.received_bytes();
        let body = self.request.as_ref().map_or(0, |request| request.body.capacity());
        let holds = body + beside.saturating_sub(UNCOUNTED_BYTES);
        if ingester.count_memory(&mut self.counted, holds) || self.state == State::Closing {
            return;
        }
        // That the memory is used up is not this source's fault.
        self.charge = None;
        let detail = "too many requests are in memory; send it again";
        let refused = Refused::new(Status::TooManyRequests429, "body_memory", detail);
        if self.state == State::Reading && !self.stream.tls.is_handshaking() {
            self.refuse(&refused, ingester);
        } else {
            ingester.metrics().requests_refused.add(refused.reason);
        }
        self.close(ingester);
    }

    fn is_idle(&self) -> bool {
        self.request.is_none() && self.parser.is_idle() && self.backlog.is_empty()
    }

    fn connection(&self) -> Connection {
        if self.keep_alive { Connection::KeepAlive } else { Connection::Close }
    }

    /// Writes the answer; the next request may come.
    fn answer(&mut self, outcome: Outcome, ingester: &mut Ingester, steady_ms: u64) {
        let mut answer = ingester.take_buffer(ANSWER_BYTES);
        let connection = self.connection();
        let mut answer_id = |status, id: EventId, end: &[u8]| {
            let body: [&[u8]; 3] = [b"{\"id\":\"", &id.text(), end];
            write_response(&mut answer, status, "application/json", &[], &body, connection);
        };
        match outcome {
            Outcome::Accepted(id) => answer_id(Status::Accepted202, id, b"\"}"),
            Outcome::Duplicate(id) => {
                ingester.metrics().idempotency_duplicates.add(1);
                answer_id(Status::Ok200, id, b"\",\"duplicate\":true}");
            }
            Outcome::Unavailable => {
                ingester.metrics().requests_refused.add("journal");
                let detail = "the event cannot be written to disk now; send it again";
                let retry = [("Retry-After", "1")];
                write_problem(&mut answer, Status::Unavailable503, detail, &retry, connection);
            }
        }
        self.stream.write(&answer);
        ingester.give_buffer(answer);
        self.state = State::Reading;
        self.since_ms = steady_ms;
        if !self.keep_alive {
            self.close(ingester);
        }
    }

    /// Whether the next request may be worked on: answers that nobody reads are not piled up.
    fn takes_requests(&self) -> bool {
        self.state == State::Reading && !self.stream.is_sending()
    }

    fn resume(&mut self, ingester: &mut Ingester, reactor: &mut Reactor, steady_ms: u64) {
        self.advance(ingester, steady_ms);
        if self.stream.tls.peer_closed() && self.takes_requests() {
            self.close(ingester);
        }
        self.count(ingester);
        if self.takes_requests() || self.lingers {
            reactor.receive(self.stream.socket);
        }
        self.stream.flush(reactor);
    }

    /// Parses the backlog until it is empty, a request waits, or the connection ends.
    fn advance(&mut self, ingester: &mut Ingester, steady_ms: u64) {
        let backlog = std::mem::take(&mut self.backlog);
        let mut input = &backlog[..];
        while self.takes_requests() {
            match self.step(&mut input, ingester, steady_ms) {
                Ok(true) => {}
                Ok(false) => break,
                Err(refused) => self.handle_refused(&refused, ingester, steady_ms),
            }
        }
        let left = if self.state == State::Closing { 0 } else { input.len() };
        let taken = backlog.len() - left;
        self.backlog = backlog;
        self.backlog.drain(..taken);
    }

    /// One step of the parser; `false` when it needs more bytes.
    fn step(&mut self, input: &mut &[u8], ingester: &mut Ingester, steady_ms: u64) -> Result<bool, Refused> {
        let was_idle = self.parser.is_idle();
        let progress = self.parser.handle_bytes(input).map_err(|error| Refused::from(&error))?;
        if was_idle && !self.parser.is_idle() {
            self.since_ms = steady_ms;
        }
        match progress {
            Progress::NeedMore => return Ok(false),
            Progress::Head => self.start_request(ingester)?,
            Progress::Body(bytes) => {
                self.request.as_mut().expect("a body follows its head").handle_body(bytes);
            }
            Progress::End => self.end_request(ingester, steady_ms)?,
        }
        Ok(true)
    }

    fn start_request(&mut self, ingester: &mut Ingester) -> Result<(), Refused> {
        let head = self.parser.head();
        self.keep_alive = head.keep_alive() && !ingester.is_draining();
        let endpoint = ingester.endpoint(head.path()).ok_or(Refused::new(
            Status::NotFound404,
            "unknown_endpoint",
            "no such endpoint",
        ))?;
        let admitted = admit(&self.client, head, &endpoint, ingester)?;
        self.charge = admitted.charge;
        if head.method() != Method::Post {
            return Err(Refused::new(Status::MethodNotAllowed405, "method", "endpoints take POST"));
        }
        check_content_type(head, &endpoint)?;
        if head.content_length().is_some_and(|length| length > endpoint.body_bytes_max as u64) {
            let detail = "the body is longer than the endpoint takes";
            return Err(Refused::new(Status::PayloadTooLarge413, "too_large", detail));
        }
        let wall_ms = ingester.wall_ms();
        let shown = self.client.shown(&self.stream.tls, endpoint.certificates.as_ref(), wall_ms);
        let proof = endpoint.authentication.start(&View(head), shown, wall_ms, &NodeCrypto)?;
        let expected_bytes = head.content_length();
        let reserve = expected_bytes.unwrap_or(0).min(BODY_RESERVE_BYTES as u64) as usize;
        let expects_continue = head.expects_continue();
        self.parser.set_body_bytes_max(endpoint.body_bytes_max);
        if expects_continue {
            self.stream.write(CONTINUE);
        }
        let body = ingester.take_buffer(reserve);
        self.request = Some(Request::new((endpoint, admitted.address), proof, body, expected_bytes));
        Ok(())
    }

    /// A request is whole: its verdict comes now, or with those of the tick.
    fn end_request(&mut self, ingester: &mut Ingester, steady_ms: u64) -> Result<(), Refused> {
        let request = self.request.as_mut().expect("an end follows its head");
        request.since = Some(Instant::now());
        if request.is_held() {
            ingester.handle_whole(self.stream.socket, request.body.len());
            self.state = State::Unverified;
            return Ok(());
        }
        self.finish_request(&[], ingester, steady_ms)
    }

    /// `expected` are the tags of a request that was held.
    fn finish_request(
        &mut self,
        expected: &[Tag],
        ingester: &mut Ingester,
        steady_ms: u64,
    ) -> Result<(), Refused> {
        let request = self.request.take().expect("it is whole");
        let view = View(self.parser.head());
        let (verdict, Whole { endpoint, address, body, since }) = request.verdict(expected, &view);
        let verified = match verdict {
            Ok(verified) => verified,
            Err(refusal) => {
                ingester.give_buffer(body);
                return Err(refusal.into());
            }
        };
        self.charge = None;
        let marks = match check_verified(address, view.0, &endpoint, ingester) {
            Ok(marks) => marks,
            Err(refused) => {
                ingester.give_buffer(body);
                return Err(refused);
            }
        };
        let claim = match self.arrive(&endpoint, &verified, &body, ingester) {
            Ok(Arrival::New(claim)) => claim,
            other => {
                ingester.give_buffer(body);
                return self.handle_known(other, ingester, steady_ms);
            }
        };
        self.state = State::Waiting;
        let (head, event) = (self.parser.head(), (body, since));
        let accepted = accepted(&self.stream, head, claim, &endpoint, (&verified, marks), event, ingester);
        ingester.accept(accepted);
        Ok(())
    }

    /// An event that was here before, or whose key says nothing.
    fn handle_known(
        &mut self,
        arrival: Result<Arrival, KeyError>,
        ingester: &mut Ingester,
        steady_ms: u64,
    ) -> Result<(), Refused> {
        match arrival {
            Ok(Arrival::New(_)) => unreachable!("it goes on into the journal"),
            Ok(Arrival::Duplicate(first)) => self.answer(Outcome::Duplicate(first), ingester, steady_ms),
            Ok(Arrival::Waits) => {
                ingester.metrics().idempotency_waits.add(1);
                self.state = State::Waiting;
            }
            Ok(Arrival::Refused) => {
                let detail = "too many requests wait for events that are being written; send it again";
                return Err(Refused::new(Status::Unavailable503, "idempotency", detail));
            }
            Err(error) => {
                return Err(Refused::new(Status::BadRequest400, "idempotency_key", error.to_string()));
            }
        }
        Ok(())
    }

    /// Whether the event was here before; one without an id never was.
    fn arrive(
        &self,
        endpoint: &Endpoint,
        verified: &Verified<'_>,
        body: &[u8],
        ingester: &mut Ingester,
    ) -> Result<Arrival, KeyError> {
        let Some(source) = &endpoint.key_source else { return Ok(Arrival::New(None)) };
        let hasher = ingester.keys().hasher();
        let Some(key) = source.key(hasher, endpoint.id, &View(self.parser.head()), verified, body)? else {
            ingester.metrics().idempotency_keys_missing.add(1);
            return Ok(Arrival::New(None));
        };
        Ok(ingester.claim(key, self.stream.socket))
    }

    fn refuse(&mut self, refused: &Refused, ingester: &mut Ingester) {
        ingester.metrics().requests_refused.add(refused.reason);
        let mut answer = ingester.take_buffer(ANSWER_BYTES);
        let connection = if refused.closes() { Connection::Close } else { self.connection() };
        refused.write(&mut answer, connection);
        if !self.stream.is_finishing() {
            self.stream.write(&answer);
            self.lingers = connection == Connection::Close;
        }
        ingester.give_buffer(answer);
    }

    fn handle_refused(&mut self, refused: &Refused, ingester: &mut Ingester, steady_ms: u64) {
        self.refuse(refused, ingester);
        self.since_ms = steady_ms;
        if refused.closes() || !self.keep_alive {
            self.close(ingester);
        }
    }

    fn close(&mut self, ingester: &mut Ingester) {
        self.release(ingester);
        self.state = State::Closing;
        self.backlog.clear();
        self.stream.finish();
    }
}

/// What the endpoint's scheme sees of a request.
pub struct View<'a>(pub &'a RequestHead);

impl RequestView for View<'_> {
    fn method(&self) -> &str {
        self.0.method().as_str()
    }

    fn target(&self) -> &str {
        self.0.target()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.0.header(name)
    }

    fn header_count(&self, name: &str) -> usize {
        self.0.headers().filter(|header| header.0.eq_ignore_ascii_case(name)).count()
    }
}

fn check_content_type(head: &RequestHead, endpoint: &Endpoint) -> Result<(), Refused> {
    if endpoint.content_types.is_empty() {
        return Ok(());
    }
    let media = head.header("content-type").unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if endpoint.content_types.iter().any(|allowed| allowed.eq_ignore_ascii_case(media)) {
        return Ok(());
    }
    Err(Refused::new(
        Status::UnsupportedMediaType415,
        "content_type",
        "the endpoint does not take this content type",
    ))
}
