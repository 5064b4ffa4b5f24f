//! What every component shares: virtual time, the event queue, randomness, the network, the checker, the trace.
//!
//! Steps are scheduled for a virtual millisecond and happen in the order of time, then of scheduling, so that the
//! seed alone decides. `step` is where a process can die in the middle of its work.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::rc::Rc;

use zen_core::deliver::{Outcome, steady_due_ms, unix_due_ms};
use zen_core::id::EventId;
use zen_core::journal::SegmentId;

use crate::checker::Checker;
use crate::disk::End;
use crate::network::{ConnectionId, Network, Side};
use crate::plan::Plan;
use crate::prng::Prng;
use crate::source::Request;

/// Unix time at which every run begins, ms.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// Lines of the trace that are kept.
const TRACE_LINES_MAX: usize = 40;

/// What has a journal, which has the same number: an ingester's worker, an egress, an ingester's index of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// One start of a node; what an earlier one scheduled means nothing to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life(pub u32);

/// What a node reads once for a step: timers go by steady time, stamps by the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Since the run began, ms; no trouble moves it.
    pub steady_ms: u64,
    /// Unix ms, set off by clock steps.
    pub wall_ms: u64,
}

impl Clock {
    /// When a noted retry is due in steady time.
    pub fn steady_of(&self, due_unix_ms: u64, noted_unix_ms: u64) -> u64 {
        steady_due_ms(self.steady_ms, self.wall_ms, due_unix_ms, noted_unix_ms)
    }

    /// A steady time as the wall clock shows it now.
    pub fn unix_of(&self, due_steady_ms: u64) -> u64 {
        unix_due_ms(self.steady_ms, self.wall_ms, due_steady_ms)
    }
}

/// How a disk operation ended.
#[derive(Clone, Copy, Debug)]
pub enum DiskStep {
    /// A write's time is over.
    Write(u64),
    /// A file was prepared.
    Prepared { id: SegmentId, recycle: Option<SegmentId> },
}

/// What can happen next.
#[derive(Clone, Debug)]
pub enum Step {
    /// A source makes its next event.
    Make { source: usize },
    /// A source sends, or sends again.
    Send { source: usize, item: usize },
    /// A source sends again what was answered.
    Repeat { source: usize, item: usize },
    /// A source waited long enough for the answer to that try.
    GiveUp { source: usize, item: usize, attempt: u32 },
    /// A request reaches an ingester.
    Request { ingester: usize, request: Rc<Request> },
    /// An answer reaches a source.
    Answer { source: usize, item: usize, status: u16, id: Option<EventId> },
    /// A node has something to do.
    Wake { node: NodeId, life: Life },
    /// A node looks at its deadlines.
    Clock { node: NodeId, life: Life },
    /// A disk has done something.
    Disk { node: NodeId, life: Life, step: DiskStep },
    /// Bytes reach an end of a connection.
    Bytes { connection: ConnectionId, to: Side },
    /// An end of a connection learns that it is broken.
    Lost { connection: ConnectionId, to: Side },
    /// A delivery reaches a target.
    Deliver { egress: NodeId, life: Life, target: usize, handle: u64, attempt: u64, request: Rc<[u8]> },
    /// An attempt ends at the egress.
    Outcome { egress: NodeId, life: Life, target: usize, handle: u64, attempt: u64, outcome: Outcome },
    /// An eavesdropper sends a delivery again.
    Replay { target: usize, request: Rc<[u8]> },
    /// Something goes wrong.
    Trouble,
    /// A process comes back.
    Start { process: usize },
    /// A target is well again.
    Mood { target: usize },
    /// Faults are over.
    Calm,
    /// Is everything done?
    Check,
}

/// Whether things go wrong at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// They do.
    Storm,
    /// They do not any more.
    Calm,
}

/// A process died in the middle of a step.
#[derive(Clone, Copy, Debug)]
pub struct Crash(pub End);

/// A death that waits for a node's next steps.
#[derive(Clone, Copy, Debug)]
pub struct Doom {
    /// Whose.
    pub node: NodeId,
    /// Steps until then.
    pub steps: u32,
    /// How.
    pub end: End,
}

#[derive(Debug)]
struct Scheduled {
    at_ms: u64,
    order: u64,
    step: Step,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.order).cmp(&(other.at_ms, other.order))
    }
}

/// Shared by all components; see the module.
#[derive(Debug)]
pub struct Context {
    /// Virtual time, Unix ms; clocks of nodes differ from it.
    pub now_ms: u64,
    /// Every decision.
    pub prng: Prng,
    /// The run's shape.
    pub plan: Plan,
    /// Whether things go wrong.
    pub weather: Weather,
    /// Who is reachable, and what is under way.
    pub network: Network,
    /// Judges what happens.
    pub checker: Checker,
    /// A death that waits.
    pub doom: Option<Doom>,
    /// Per node: no new file fits until then, ms.
    pub disk_full_until_ms: Vec<u64>,
    /// Per node: writes fail until then, ms.
    pub write_errors_until_ms: Vec<u64>,
    /// Per node: how far its clock is off, ms.
    pub clock_offset_ms: Vec<i64>,
    /// Replays on their way.
    pub replays_pending: usize,
    /// The last lines, when they are wanted.
    pub trace: Option<VecDeque<String>>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    /// Steps taken.
    pub steps: u64,
}

impl Context {
    /// The beginning of a run.
    pub fn new(prng: Prng, plan: Plan, trace: Option<VecDeque<String>>) -> Self {
        let nodes = plan.nodes();
        Self {
            now_ms: EPOCH_MS,
            prng,
            weather: Weather::Storm,
            network: Network::default(),
            checker: Checker::new(&plan),
            doom: None,
            disk_full_until_ms: vec![0; nodes],
            write_errors_until_ms: vec![0; nodes],
            clock_offset_ms: vec![0; nodes],
            replays_pending: 0,
            plan,
            trace,
            queue: BinaryHeap::new(),
            scheduled: 0,
            steps: 0,
        }
    }

    /// Lets `step` happen in `delay_ms`.
    pub fn schedule(&mut self, delay_ms: u64, step: Step) {
        self.scheduled += 1;
        let scheduled = Scheduled { at_ms: self.now_ms + delay_ms, order: self.scheduled, step };
        self.queue.push(Reverse(scheduled));
    }

    /// The next step; time moves there.
    pub fn poll_step(&mut self) -> Option<Step> {
        let Reverse(next) = self.queue.pop()?;
        self.now_ms = next.at_ms;
        self.steps += 1;
        Some(next.step)
    }

    /// A node's clocks.
    pub fn clock(&self, node: NodeId) -> Clock {
        let wall_ms = self.now_ms.saturating_add_signed(self.clock_offset_ms[node.0]);
        Clock { steady_ms: self.now_ms - EPOCH_MS, wall_ms }
    }

    /// A time on the way, ms.
    pub fn delay_ms(&mut self) -> u64 {
        self.prng.between(0, self.plan.delay_ms_max)
    }

    /// Whether a message gets lost.
    pub fn is_lost(&mut self) -> bool {
        self.weather == Weather::Storm && self.prng.chance(self.plan.loss_permille)
    }

    /// One step of a node, after which it may be dead.
    pub fn step(&mut self, node: NodeId) -> Result<(), Crash> {
        let Some(doom) = self.doom.as_mut().filter(|doom| doom.node == node) else { return Ok(()) };
        if doom.steps > 0 {
            doom.steps -= 1;
            return Ok(());
        }
        let end = doom.end;
        self.doom = None;
        Err(Crash(end))
    }

    /// Adds a line to the trace, when there is one.
    pub fn note(&mut self, line: fmt::Arguments<'_>) {
        let Some(trace) = &mut self.trace else { return };
        if trace.len() == TRACE_LINES_MAX {
            trace.pop_front();
        }
        trace.push_back(format!("{:>8} ms  {line}", self.now_ms - EPOCH_MS));
    }
}
