//! A connection to a target: one delivery at a time, kept alive between deliveries.

use std::sync::Arc;

use zen_core::deliver::{ConnectFailure, Outcome, parse_retry_after};
use zen_core::http1::{Limits, Progress, ResponseParser};
use zen_identity::{Denial, DenyList};
use zen_uring::{Reactor, SocketId};

use super::channel::{Channel, Unwilling};
use crate::clock::Clock;
use crate::config::Target;
use crate::mesh::EventBytes;
use crate::oauth::Token;
use crate::spans::OpenSpan;
use crate::tls::TlsError;

/// Longest answer body that is read; it is not kept.
const ANSWER_BODY_BYTES_MAX: usize = 64 * 1024;
/// An idle connection is closed after this.
const IDLE_MS: u64 = 60_000;

/// One attempt at a delivery, signed and ready to be sent.
pub struct Job {
    /// The target queue's key.
    pub key: u64,
    /// The request's head, and a short body.
    pub head: Vec<u8>,
    /// The event's encoding; the body is its end.
    pub event: EventBytes,
    /// Where the rest of the body starts in `event`.
    pub rest_at: usize,
    /// When the ingester accepted it, Unix µs.
    pub accepted_us: u64,
    /// Those of a batch beside the first; empty otherwise.
    pub others: Vec<Member>,
    /// The attempt is given up at this steady ms.
    pub deadline_ms: u64,
    /// For whom it is signed.
    pub target: Arc<Target>,
    /// The access token that it holds, if it has one.
    pub token: Option<Arc<Token>>,
    /// If the event is sampled and spans are exported.
    pub span: Option<Box<OpenSpan>>,
}

/// A delivery of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The target queue's key.
    pub key: u64,
    /// When the ingester accepted it, Unix µs.
    pub accepted_us: u64,
}

/// What a connection came to.
pub enum Step {
    /// Nothing yet.
    Busy,
    /// The attempt ended; the connection may be used again.
    Answered(Job, Outcome),
    /// The attempt ended and so did the connection.
    Failed(Job, Outcome),
    /// The target had closed a kept-alive connection: the attempt has not begun, send it again.
    Unsent(Job),
    /// The connection ended without an attempt.
    Closed,
}

/// A connection to a target.
pub struct Connection {
    /// The target's name.
    pub target: Arc<str>,
    /// The reactor's name for it.
    pub socket: SocketId,
    settings: Arc<Target>,
    channel: Option<Channel>,
    plaintext: Vec<u8>,
    parser: ResponseParser,
    /// The beginning of the answer's body, where the target's settings want it.
    excerpt: Vec<u8>,
    job: Option<Job>,
    answer_begun: bool,
    used_before: bool,
    idle_since_ms: u64,
    /// The end of the target's certificate, Unix ms, once it was shown.
    not_after_ms: Option<u64>,
}

impl Connection {
    /// A connection being dialled for its first job.
    pub fn dialling(target: Arc<str>, settings: Arc<Target>, socket: SocketId, job: Job) -> Self {
        let limits = Limits { body_bytes_max: ANSWER_BODY_BYTES_MAX, ..Limits::default() };
        Self {
            target,
            socket,
            settings,
            channel: None,
            plaintext: Vec::new(),
            parser: ResponseParser::new(limits),
            excerpt: Vec::new(),
            job: Some(job),
            answer_begun: false,
            used_before: false,
            idle_since_ms: 0,
            not_after_ms: None,
        }
    }

    /// The socket is connected, or not: start TLS, if that is spoken, and put the request behind the handshake.
    pub fn handle_connected(&mut self, result: Result<(), std::io::Error>, reactor: &mut Reactor) -> Step {
        if let Err(error) = result {
            return self.fail(Outcome::ConnectFailed(connect_failure(&error)));
        }
        match Channel::start(&self.settings, self.socket, reactor) {
            Ok(channel) => self.channel = Some(channel),
            Err(Unwilling::Tls) => return self.fail(Outcome::TlsFailed),
            Err(Unwilling::WrongPeer) => return self.fail(Outcome::ConnectFailed(ConnectFailure::WrongPeer)),
        }
        self.send_job(reactor);
        Step::Busy
    }

    /// Starts the next job on an idle connection.
    pub fn start(&mut self, job: Job, reactor: &mut Reactor) {
        debug_assert!(self.job.is_none(), "one delivery at a time");
        self.job = Some(job);
        self.used_before = true;
        self.answer_begun = false;
        self.send_job(reactor);
    }

    /// Decrypts what came from the target.
    pub fn decrypt(&mut self, bytes: &mut [u8]) -> Result<(), TlsError> {
        let Some(channel) = &mut self.channel else {
            return Ok(());
        };
        channel.handle_bytes(bytes, &mut self.plaintext)
    }

    /// Works on what [`Connection::decrypt`] came to.
    pub fn handle_received(
        &mut self,
        decrypted: Result<(), TlsError>,
        reactor: &mut Reactor,
        clock: Clock,
    ) -> Step {
        let Some(channel) = &mut self.channel else {
            return Step::Busy;
        };
        channel.flush(reactor);
        if let Err(error) = decrypted {
            tracing::warn!(target = &*self.target, %error, "TLS with a target failed");
            return self.fail(Outcome::TlsFailed);
        }
        let said_goodbye = channel.peer_closed();
        let mut plaintext = std::mem::take(&mut self.plaintext);
        let step = self.parse(&plaintext, clock);
        plaintext.clear();
        self.plaintext = plaintext;
        if said_goodbye && matches!(step, Step::Busy | Step::Answered(..)) {
            return match step {
                Step::Answered(job, outcome) => Step::Failed(job, outcome),
                _ => self.handle_closed(clock),
            };
        }
        step
    }

    /// The target closed its side.
    pub fn handle_closed(&mut self, clock: Clock) -> Step {
        if self.job.is_none() {
            return Step::Closed;
        }
        if self.answer_begun && matches!(self.parser.handle_eof(), Ok(Progress::End)) {
            let outcome = self.outcome(clock);
            return self.fail(outcome);
        }
        if self.used_before && !self.answer_begun {
            return self.job.take().map_or(Step::Closed, Step::Unsent);
        }
        let reset = Outcome::ConnectFailed(ConnectFailure::Reset);
        self.fail(if self.answer_begun { Outcome::BrokenAnswer } else { reset })
    }

    /// Takes a send's completion.
    pub fn handle_sent(
        &mut self,
        buffer: Vec<u8>,
        result: Result<(), std::io::Error>,
        reactor: &mut Reactor,
        clock: Clock,
    ) -> Step {
        if result.is_err() {
            return self.handle_closed(clock);
        }
        if let Some(channel) = &mut self.channel {
            channel.handle_sent(buffer, reactor);
        }
        Step::Busy
    }

    /// Gives up what takes too long, closes what idles or outlived the target's certificate.
    pub fn handle_time(&mut self, clock: Clock) -> Step {
        match &self.job {
            Some(job) if clock.steady_ms >= job.deadline_ms => self.fail(Outcome::TimedOut),
            None if clock.steady_ms.saturating_sub(self.idle_since_ms) > IDLE_MS => Step::Closed,
            None if self.is_expired(clock) => Step::Closed,
            _ => Step::Busy,
        }
    }

    /// Whether the target is denied by a list that is new to this connection.
    pub fn handle_deny_list(&mut self, list: &Arc<DenyList>, clock: Clock) -> Option<Denial> {
        self.channel.as_mut()?.handle_deny_list(list, clock.wall_ms)
    }

    /// Ends, and with it what is under way: the target is not one to talk to any more.
    pub fn give_up(&mut self) -> Step {
        self.fail(Outcome::TlsFailed)
    }

    /// The beginning of the answer that ended an attempt.
    pub fn take_excerpt(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.excerpt)
    }

    /// The target that it was made for.
    pub fn settings(&self) -> &Arc<Target> {
        &self.settings
    }

    /// Whether it was made with these settings, and may be used for another delivery under them.
    pub fn fits(&self, settings: &Arc<Target>) -> bool {
        Arc::ptr_eq(&self.settings, settings)
    }

    /// Whether an attempt is under way.
    pub fn is_busy(&self) -> bool {
        self.job.is_some()
    }

    fn parse(&mut self, plaintext: &[u8], clock: Clock) -> Step {
        let mut input = plaintext;
        if input.is_empty() {
            return Step::Busy;
        }
        if self.job.is_none() {
            // An answer nobody asked for: the connection cannot be trusted any more.
            return Step::Closed;
        }
        self.answer_begun = true;
        loop {
            match self.parser.handle_bytes(&mut input) {
                Ok(Progress::NeedMore) => return Step::Busy,
                Ok(Progress::Head) => {}
                Ok(Progress::Body(piece)) => self.keep_excerpt(piece),
                Ok(Progress::End) => break,
                Err(_) => return self.fail(Outcome::BrokenAnswer),
            }
        }
        let outcome = self.outcome(clock);
        if self.not_after_ms.is_none() {
            self.not_after_ms = self.channel.as_ref().and_then(Channel::peer_not_after_ms);
        }
        if !self.parser.keep_alive() || !input.is_empty() || self.is_expired(clock) {
            return self.fail(outcome);
        }
        self.idle_since_ms = clock.steady_ms;
        let job = self.job.take().expect("an answer belongs to a job");
        Step::Answered(job, outcome)
    }

    fn keep_excerpt(&mut self, piece: &[u8]) {
        if !matches!(self.parser.status(), 200..=299) {
            let left = self.settings.answer_excerpt_bytes_max.saturating_sub(self.excerpt.len());
            self.excerpt.extend_from_slice(&piece[..piece.len().min(left)]);
        }
    }

    fn is_expired(&self, clock: Clock) -> bool {
        self.not_after_ms.is_some_and(|not_after_ms| clock.wall_ms > not_after_ms)
    }

    fn outcome(&self, clock: Clock) -> Outcome {
        let retry_after = self.parser.header("retry-after");
        Outcome::Answered {
            status: self.parser.status(),
            retry_after_ms: retry_after.and_then(|value| parse_retry_after(value, clock.wall_ms)),
        }
    }

    fn send_job(&mut self, reactor: &mut Reactor) {
        let job = self.job.as_ref().expect("a job was set");
        let channel = self.channel.as_mut().expect("the connection is up");
        self.parser.start();
        channel.write_parts([&job.head, &job.event[job.rest_at..]]);
        channel.flush(reactor);
    }

    fn fail(&mut self, outcome: Outcome) -> Step {
        self.job.take().map_or(Step::Closed, |job| Step::Failed(job, outcome))
    }
}

/// What `connect(2)` said, as a delivery outcome.
pub fn connect_failure(error: &std::io::Error) -> ConnectFailure {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => ConnectFailure::Refused,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => ConnectFailure::Unreachable,
        ErrorKind::TimedOut => ConnectFailure::TimedOut,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ConnectFailure::Reset,
        ErrorKind::NotFound => ConnectFailure::NoSocket,
        ErrorKind::PermissionDenied => ConnectFailure::NotPermitted,
        ErrorKind::OutOfMemory => ConnectFailure::NoResources,
        _ => ConnectFailure::Other,
    }
}
