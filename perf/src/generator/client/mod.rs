//! The client: one thread, one reactor, and the phases of a load: opening, warm-up, span, drain.
//!
//! In: a [`Plan`]. Out: an [`Outcome`]. In an open loop events come due by the schedule alone; one that finds every
//! connection busy waits, at most [`WAIT_NS_MAX`], and its latency counts from when it was due. In a closed loop each
//! connection sends its next request when it has its answer. Nothing is sent twice on its own account.

mod answers;
mod opening;
mod sending;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use zen_uring::{Backend, Completion, Limits, Reactor};

use super::arrivals::Schedule;
use super::connection::{Connection, Step};
use super::output::{Announcer, Recorder, Second};
use super::plan::Plan;
use super::requests::Batch;
use super::tally::{Span, Tally, sparse};
use super::usage::Usage;
use crate::error::LabError;
use crate::random::Random;
use crate::results::Load;

/// Longest that an answer, or a handshake, is waited for.
const ANSWER_NS_MAX: u64 = 15_000_000_000;
/// Longest that an event waits for a connection.
const WAIT_NS_MAX: u64 = 10_000_000_000;
/// How long events that were due are still sent after the span.
const DRAIN_SEND_NS: u64 = 5_000_000_000;
/// How long answers are waited for after it.
const DRAIN_NS_MAX: u64 = 15_000_000_000;
/// How long a connection that failed is left alone.
const REST_NS: u64 = 20_000_000;
/// Between looks at signals, timeouts and resting connections.
const UPKEEP_NS: u64 = 50_000_000;
/// Accepted events that are remembered for sending again.
const REMEMBERED_MAX: usize = 4096;
/// Sockets that may be closing beside those in use.
const CLOSING_MAX: u32 = 1024;
/// Answers and handshakes are small; many are there at once.
const RECEIVE_BUFFERS: u16 = 1024;
const RECEIVE_BUFFER_BYTES: u32 = 4096;
const SECOND_NS: u64 = 1_000_000_000;
/// What timers may be late, ns (`PR_SET_TIMERSLACK`); the default of 50 µs is a schedule's gap at 20,000/s.
const TIMER_SLACK_NS: u64 = 1000;

/// Where a load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Connections are made.
    Opening,
    /// Load that does not count.
    WarmUp,
    /// Load that counts.
    Measure,
    /// What is on the way is waited for.
    Drain,
    /// Nothing is left.
    Done,
}

/// What a load came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The result.
    pub(super) load: Load,
    /// What is to be said of it.
    pub(super) words: Vec<String>,
    /// Latencies second by second.
    pub(super) seconds: Vec<Second>,
    /// Why the last request failed, if every one did.
    pub(super) all_failed: Option<String>,
}

/// A running load.
pub(super) struct Client<'p> {
    plan: &'p Plan,
    reactor: Reactor,
    signals: SignalFd,
    zero: Instant,
    phase: Phase,
    /// The measured span, ns since `zero`.
    begin_ns: u64,
    end_ns: u64,
    upkeep_ns: u64,
    second_ns: u64,
    connections: Vec<Connection>,
    /// Connection of each of the reactor's sockets, by its index.
    owners: Vec<usize>,
    idle: VecDeque<usize>,
    resting: VecDeque<(u64, usize)>,
    opening: usize,
    flights: usize,
    schedule: Option<Schedule>,
    batch: Batch,
    random: Random,
    sendings: u64,
    events: u64,
    /// Sendings of the span.
    counted: u64,
    /// Numbers of accepted events, the newest over the oldest.
    remembered: Vec<u64>,
    accepted: usize,
    tally: Tally,
    usage_before: Usage,
    usage: Usage,
    seconds: Vec<Second>,
    announcer: Announcer,
    recorder: Option<Recorder>,
}

impl<'p> Client<'p> {
    /// Takes what the load needs from the system.
    pub(super) fn new(plan: &'p Plan, recorder: Option<Recorder>) -> Result<Self, LabError> {
        let tool = |what: &str, reason: String| LabError::Tool { what: what.to_owned(), reason };
        let chosen = Backend::choose(plan.io).map_err(|error| tool("io_uring", error.to_string()))?;
        let limits = Limits {
            sockets_max: plan.connections * 2 + CLOSING_MAX,
            listeners_max: 1,
            files_max: 1,
            receive_buffers: RECEIVE_BUFFERS,
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
            ..Limits::default()
        };
        // As many as the process may have: whoever asks for more is told by the socket that fails.
        let _ = getrlimit(Resource::RLIMIT_NOFILE)
            .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
        let reactor = Reactor::new(&limits, chosen.backend)
            .map_err(|error| tool("the load's reactor", error.to_string()))?;
        // Better timers where the system grants them; without them the client says how late it was.
        let _ = nix::sys::prctl::set_timerslack(TIMER_SLACK_NS);
        let schedule = plan.pace.map(|pace| Schedule::new(pace.arrivals, pace.rate_per_s, plan.seed));
        Ok(Self {
            plan,
            reactor,
            signals: signals()?,
            zero: Instant::now(),
            phase: Phase::Opening,
            begin_ns: plan.warm_up.as_nanos() as u64,
            end_ns: (plan.warm_up + plan.length).as_nanos() as u64,
            upkeep_ns: 0,
            second_ns: SECOND_NS,
            connections: std::iter::repeat_with(Connection::new).take(plan.connections as usize).collect(),
            owners: vec![0; limits.sockets_max as usize],
            idle: VecDeque::with_capacity(plan.connections as usize),
            resting: VecDeque::new(),
            opening: 0,
            flights: 0,
            schedule,
            batch: Batch::default(),
            random: Random::new(plan.seed),
            sendings: 0,
            events: 0,
            counted: 0,
            remembered: Vec::with_capacity(REMEMBERED_MAX),
            accepted: 0,
            tally: Tally::new(),
            usage_before: Usage::default(),
            usage: Usage::default(),
            seconds: Vec::new(),
            announcer: Announcer::new(plan),
            recorder,
        })
    }

    /// Runs the load to its end.
    pub(super) fn run(mut self) -> Result<Outcome, LabError> {
        self.open()?;
        self.zero = Instant::now();
        self.upkeep_ns = 0;
        self.phase = Phase::WarmUp;
        self.announcer.phase("warm-up");
        let mut completions = Vec::new();
        loop {
            let now_ns = self.now_ns();
            self.step_phase(now_ns);
            if self.phase == Phase::Done {
                return self.finish();
            }
            self.send(now_ns);
            let wait = self.wait(self.now_ns());
            self.reactor.tick(Some(wait), &mut completions);
            self.handle_completions(&mut completions);
        }
    }

    fn now_ns(&self) -> u64 {
        self.zero.elapsed().as_nanos() as u64
    }

    fn step_phase(&mut self, now_ns: u64) {
        if now_ns >= self.upkeep_ns {
            self.upkeep_ns = now_ns + UPKEEP_NS;
            self.upkeep(now_ns);
        }
        if now_ns >= self.second_ns {
            self.end_second(now_ns);
        }
        if self.phase == Phase::WarmUp && now_ns >= self.begin_ns {
            self.phase = Phase::Measure;
            self.usage_before = Usage::now();
            self.announcer.phase("measure");
        }
        if self.phase == Phase::Measure && (now_ns >= self.end_ns || self.is_enough()) {
            self.end_span(now_ns);
        }
        if self.phase == Phase::Drain && self.is_drained(now_ns) {
            self.give_up_rest();
            self.phase = Phase::Done;
        }
    }

    /// Ends the span here, if it had not come to its end.
    fn end_span(&mut self, now_ns: u64) {
        self.phase = Phase::Drain;
        self.end_ns = self.end_ns.min(now_ns);
        self.begin_ns = self.begin_ns.min(self.end_ns);
        self.usage = Usage::now().since(self.usage_before);
        self.announcer.phase("drain");
    }

    /// Whether as many were sent as were wanted.
    fn is_enough(&self) -> bool {
        self.plan.events_max.is_some_and(|max| self.counted >= max)
    }

    fn is_drained(&self, now_ns: u64) -> bool {
        let is_sent = self.is_enough()
            || now_ns > self.end_ns + DRAIN_SEND_NS
            || self.schedule.as_ref().is_none_or(|schedule| schedule.due_ns() >= self.end_ns);
        is_sent && (self.flights == 0 || now_ns > self.end_ns + DRAIN_NS_MAX)
    }

    /// Until something has to be done without a completion.
    fn wait(&self, now_ns: u64) -> Duration {
        let phase_ns = match self.phase {
            Phase::WarmUp => self.begin_ns,
            Phase::Measure => self.end_ns,
            Phase::Opening | Phase::Drain | Phase::Done => u64::MAX,
        };
        let due_ns = match &self.schedule {
            Some(schedule) if !self.idle.is_empty() => schedule.due_ns(),
            _ => u64::MAX,
        };
        Duration::from_nanos(self.upkeep_ns.min(phase_ns).min(due_ns).saturating_sub(now_ns))
    }

    /// Signals, connections that rest, answers that do not come.
    fn upkeep(&mut self, now_ns: u64) {
        while let Ok(Some(_)) = self.signals.read_signal() {
            match self.phase {
                Phase::WarmUp | Phase::Measure => self.end_span(now_ns),
                // Asked a second time, it waits for nothing any more.
                Phase::Drain => self.give_up_rest(),
                Phase::Opening | Phase::Done => self.phase = Phase::Done,
            }
        }
        while self.resting.front().is_some_and(|(until_ns, _)| *until_ns <= now_ns) {
            let (_, index) = self.resting.pop_front().expect("the front was seen");
            self.rest_idle(index, now_ns);
        }
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            if connection.is_busy() && connection.begun_ns + ANSWER_NS_MAX < now_ns {
                let step = connection.fail("no answer within 15 s".to_owned(), &mut self.reactor);
                self.handle_step(index, step, now_ns);
            }
        }
    }

    /// Puts a connection among those that wait for a request.
    fn rest_idle(&mut self, index: usize, now_ns: u64) {
        let connection = &mut self.connections[index];
        debug_assert!(!connection.is_idle, "a connection is idle once");
        connection.is_idle = true;
        connection.idle_since_ns = now_ns;
        self.idle.push_back(index);
    }

    fn end_second(&mut self, now_ns: u64) {
        self.announcer.progress(now_ns, &self.tally, self.flights);
        if self.plan.keeps_seconds {
            let end_ms = now_ns / 1_000_000;
            self.seconds.push(Second { end_ms, values: sparse(&self.tally.second_us) });
        }
        self.tally.second_us.reset();
        self.second_ns = now_ns + SECOND_NS;
    }

    /// What is on the way at the end has failed; what was due and not sent never will be.
    fn give_up_rest(&mut self) {
        let now_ns = self.now_ns();
        for index in 0..self.connections.len() {
            if self.connections[index].has_flight() {
                let reason = "no answer before the end".to_owned();
                let step = self.connections[index].fail(reason, &mut self.reactor);
                self.handle_step(index, step, now_ns);
            }
        }
        self.skip_until(self.end_ns);
    }

    fn finish(mut self) -> Result<Outcome, LabError> {
        self.end_second(self.now_ns());
        if let Some(recorder) = self.recorder.take() {
            recorder.finish()?;
        }
        for connection in &mut self.connections {
            connection.close(&mut self.reactor);
        }
        // What was begun goes out; nobody needs to be waited for.
        self.reactor.tick(Some(Duration::ZERO), &mut Vec::new());
        let span = Span {
            seconds: (self.end_ns - self.begin_ns).max(1) as f64 / 1e9,
            rate_per_s: self.plan.pace.map(|pace| pace.rate_per_s),
            connections: self.plan.connections,
            usage: self.usage,
            command: self.plan.command.clone(),
        };
        let has_failed = self.tally.sent_ever > 0 && self.tally.failed_ever == self.tally.sent_ever;
        let all_failed = has_failed.then(|| self.tally.last_failure.take().unwrap_or_default());
        let (load, words) = self.tally.finish(&span);
        Ok(Outcome { load, words, seconds: self.seconds, all_failed })
    }
}

/// Ctrl-C and SIGTERM as something to look at.
fn signals() -> Result<SignalFd, LabError> {
    let both = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    let refused = |errno: nix::errno::Errno| LabError::Socket {
        what: "cannot listen for signals",
        source: errno.into(),
    };
    both.thread_block().map_err(refused)?;
    SignalFd::with_flags(&both, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(refused)
}
