//! A whole run: everybody in it, the loop over virtual time, and what goes wrong when.
//!
//! ```text
//!              Step                      ┌ Trouble: kill, power cut, partition, cut, clock, disk, rot, mood
//!   queue ───────────────> World ────────┤
//!     ^                      │           └ Checker: what disks hold, what targets took
//!     │   ┌──────────────────┼──────────────────────────┐
//!     │ Source ─Request─> Ingester ─Bytes─> Egress ─Deliver─> Target
//!     │   <─Answer──────  Journal  <─Bytes─ Journal <─Outcome─  │
//!     │                    Disk              Disk               └ Replay
//!     └── schedule(delay, Step) <── all of them
//! ```
//! After the storm comes the calm: no fault any more, and everything accepted must be delivered in time.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use zen_core::deliver::Outcome;
use zen_core::id::EventId;

use crate::checker::Violation;
use crate::context::{Context, Crash, Doom, Life, NodeId, Step, Weather};
use crate::disk::{Disk, End};
use crate::egress::Egress;
use crate::index::Index;
use crate::ingester::Ingester;
use crate::journal::Journal;
use crate::keys::Restoring;
use crate::network::{Arrival, ConnectionId, Side};
use crate::plan::{Plan, Planted, Trouble};
use crate::prng::Prng;
use crate::source::Source;
use crate::target::{Attempt, Mood, Target, draw_mood};

/// How often a node looks at its deadlines, ms.
const CLOCK_MS: u64 = 1_000;
/// After the last fault everything is delivered within this, ms: the longest retry many times; clocks do not matter.
const PROGRESS_MS_MAX: u64 = 10 * 60_000;
/// Furthest that a clock jumps, ms.
const CLOCK_STEP_MS_MAX: u64 = 3_600_000;
/// Steps after which a run that does not end is one without progress, and how many more for each event.
const STEPS_MAX: u64 = 1_000_000;
const STEPS_OF_EVENT_MAX: u64 = 20_000;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Steps taken.
    pub steps: u64,
    /// Events answered with 2xx.
    pub accepted: u64,
    /// Requests answered with the id of an event that came before.
    pub duplicates: u64,
    /// Deliveries that targets took.
    pub delivered: u64,
    /// Deliveries given up.
    pub dead_letters: u64,
    /// Dead letters that operators sent again.
    pub sent_again: u64,
    /// Events given up because bits of their record rotted.
    pub lost: u64,
    /// Times that a process died.
    pub crashes: u64,
}

impl Summary {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.delivered += other.delivered;
        self.dead_letters += other.dead_letters;
        self.sent_again += other.sent_again;
        self.lost += other.lost;
        self.crashes += other.crashes;
    }
}

/// A run that broke a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The step at which it was seen.
    pub step: u64,
    /// What was broken.
    pub violation: Violation,
    /// The last steps before it.
    pub trace: Vec<String>,
}

#[derive(Debug)]
enum Running {
    Ingester(Box<Ingester>),
    Egress(Box<Egress>),
    Index(Box<Index>),
}

impl Running {
    fn journal_mut(&mut self) -> &mut Journal {
        match self {
            Self::Ingester(ingester) => ingester.journal_mut(),
            Self::Egress(egress) => egress.journal_mut(),
            Self::Index(index) => index.journal_mut(),
        }
    }

    fn stop(self, context: &mut Context) -> Disk {
        match self {
            Self::Ingester(ingester) => ingester.stop(context),
            Self::Egress(egress) => egress.stop(context),
            Self::Index(index) => index.stop(context),
        }
    }
}

#[derive(Debug)]
enum State {
    Down(Disk),
    Up(Running),
}

#[derive(Debug)]
struct Node {
    life: Life,
    state: State,
}

/// Runs one seed. A failing run is repeated with its trace.
pub fn run(seed: u64, events: usize, planted: Option<Planted>) -> Result<Summary, Box<Failure>> {
    let quiet = World::new(seed, events, planted, None).run();
    if quiet.violation().is_none() {
        return Ok(quiet.summary());
    }
    let traced = World::new(seed, events, planted, Some(VecDeque::new())).run();
    let violation = quiet.violation().cloned().expect("looked at just now");
    assert_eq!(Some(&violation), traced.violation(), "a seed fixes everything");
    let trace = traced.context.trace.map(Vec::from).unwrap_or_default();
    Err(Box::new(Failure { seed, step: quiet.context.steps, violation, trace }))
}

/// The last steps of a run, whatever it came to.
pub fn trace(seed: u64, events: usize, planted: Option<Planted>) -> Vec<String> {
    let world = World::new(seed, events, planted, Some(VecDeque::new())).run();
    world.context.trace.map(Vec::from).unwrap_or_default()
}

#[derive(Debug)]
struct World {
    context: Context,
    sources: Vec<Source>,
    nodes: Vec<Node>,
    targets: Vec<Target>,
    storm_ends_ms: u64,
    steps_max: u64,
    crashes: u64,
}

impl World {
    fn new(seed: u64, events: usize, planted: Option<Planted>, trace: Option<VecDeque<String>>) -> Self {
        let mut prng = Prng::new(seed);
        let plan = Plan::draw(&mut prng, events, planted);
        let mut context = Context::new(prng, plan, trace);
        let count = context.plan.sources;
        let share = |source: usize| events / count + usize::from(source < events % count);
        let sources = (0..count).map(|source| Source::new(source, share(source))).collect();
        let targets = (0..context.plan.targets).map(|target| Target::new(target, &mut context)).collect();
        let node = |_| Node { life: Life(0), state: State::Down(Disk::default()) };
        let nodes: Vec<Node> = (0..context.plan.nodes()).map(node).collect();
        for source in 0..count {
            context.schedule(0, Step::Make { source });
        }
        for process in 0..context.plan.ingesters + context.plan.egresses {
            context.schedule(0, Step::Start { process });
        }
        context.schedule(context.plan.trouble_every_ms, Step::Trouble);
        context.schedule(context.plan.storm_ms, Step::Calm);
        let storm_ends_ms = context.now_ms + context.plan.storm_ms;
        let steps_max = STEPS_MAX + STEPS_OF_EVENT_MAX * events as u64;
        Self { context, sources, nodes, targets, storm_ends_ms, steps_max, crashes: 0 }
    }

    fn run(mut self) -> Self {
        while self.context.checker.violation().is_none() {
            let Some(step) = self.context.poll_step() else { break };
            if matches!(step, Step::Check) && self.is_done() {
                break;
            }
            if let Err((node, Crash(end))) = self.take(step) {
                self.crash(node, end);
            }
        }
        self
    }

    fn violation(&self) -> Option<&Violation> {
        self.context.checker.violation()
    }

    fn summary(&self) -> Summary {
        let Context { steps, checker, .. } = &self.context;
        Summary {
            steps: *steps,
            accepted: checker.answered,
            duplicates: checker.duplicates,
            delivered: checker.deliveries,
            dead_letters: checker.dead_letters,
            sent_again: checker.sent_again,
            lost: checker.lost,
            crashes: self.crashes,
        }
    }

    fn take(&mut self, step: Step) -> Result<(), (NodeId, Crash)> {
        let context = &mut self.context;
        match step {
            Step::Make { source } => self.sources[source].make(context),
            Step::Repeat { source, item } => self.sources[source].request(context, item),
            Step::Send { source, item } => self.sources[source].send(context, item),
            Step::GiveUp { source, item, attempt } => self.sources[source].give_up(context, item, attempt),
            Step::Answer { source, item, status, id } => {
                self.sources[source].handle_answer(context, item, status, id);
            }
            Step::Request { ingester, request } => {
                if let State::Up(Running::Ingester(ingester)) = &mut self.nodes[ingester].state {
                    ingester.handle_request(context, request);
                }
            }
            Step::Deliver { egress, life, target, handle, attempt, request } => {
                let attempt = Attempt { egress, life, handle, number: attempt };
                self.targets[target].handle_delivery(context, &attempt, &request);
            }
            Step::Replay { target, request } => self.targets[target].handle_replay(context, &request),
            Step::Mood { target } => self.targets[target].set_mood(Mood::Well),
            Step::Bytes { connection, to } => self.handle_bytes(connection, to),
            Step::Lost { connection, to } => {
                if let Some(node) = context.handle_lost(connection, to) {
                    self.handle_lost(node, connection);
                }
            }
            Step::Outcome { egress, life, target, handle, attempt, outcome } => {
                self.handle_outcome((egress, life), (target, handle), attempt, &outcome);
            }
            Step::Wake { node, life } => return self.work(node, life).map_err(|crash| (node, crash)),
            Step::Clock { node, life } => self.handle_clock(node, life),
            Step::Disk { node, life, step } => match self.running(node, life) {
                Some((Running::Ingester(ingester), context)) => ingester.handle_disk(context, step),
                Some((Running::Egress(egress), context)) => egress.handle_disk(context, step),
                Some((Running::Index(index), context)) => index.handle_disk(context, step),
                None => {}
            },
            Step::Trouble => self.make_trouble(),
            Step::Start { process } => self.start(process),
            Step::Calm => self.calm_down(),
            Step::Check => {
                context.schedule(CLOCK_MS, Step::Check);
                // A 410 that was under way at the end of the storm may have disabled a target since.
                self.resume_targets();
            }
        }
        Ok(())
    }

    /// A node in the life that a step was meant for.
    fn running(&mut self, node: NodeId, life: Life) -> Option<(&mut Running, &mut Context)> {
        let node = self.nodes.get_mut(node.0).filter(|node| node.life == life)?;
        match &mut node.state {
            State::Up(running) => Some((running, &mut self.context)),
            State::Down(_) => None,
        }
    }

    fn work(&mut self, node: NodeId, life: Life) -> Result<(), Crash> {
        match self.running(node, life) {
            Some((Running::Ingester(ingester), context)) => ingester.work(context),
            Some((Running::Egress(egress), context)) => egress.work(context),
            Some((Running::Index(index), context)) => index.work(context),
            None => Ok(()),
        }
    }

    fn handle_clock(&mut self, node: NodeId, life: Life) {
        let Some((running, context)) = self.running(node, life) else { return };
        context.schedule(CLOCK_MS, Step::Clock { node, life });
        match running {
            Running::Ingester(ingester) => ingester.handle_clock(context),
            Running::Egress(egress) => egress.handle_clock(context),
            Running::Index(index) => index.wake(context),
        }
    }

    fn handle_bytes(&mut self, connection: ConnectionId, to: Side) {
        let (node, bytes) = match self.context.handle_arrival(connection, to) {
            Arrival::Nothing => return,
            Arrival::Closed(node) => return self.handle_lost(node, connection),
            Arrival::Bytes(node, bytes) => (node, bytes),
        };
        let context = &mut self.context;
        match &mut self.nodes[node.0].state {
            // What comes later on this connection must not look like the first bytes of another.
            State::Down(_) | State::Up(Running::Index(_)) => {
                context.handle_lost(connection, to);
                context.reset(connection);
            }
            State::Up(Running::Ingester(ingester)) => ingester.handle_bytes(context, connection, to, &bytes),
            State::Up(Running::Egress(egress)) => egress.handle_bytes(context, connection, to, &bytes),
        }
    }

    fn handle_lost(&mut self, node: NodeId, connection: ConnectionId) {
        let context = &mut self.context;
        match &mut self.nodes[node.0].state {
            State::Down(_) | State::Up(Running::Index(_)) => {}
            State::Up(Running::Ingester(ingester)) => ingester.handle_lost(context, connection),
            State::Up(Running::Egress(egress)) => egress.handle_lost(context, connection),
        }
    }

    fn handle_outcome(
        &mut self,
        (node, life): (NodeId, Life),
        delivery: (usize, u64),
        attempt: u64,
        outcome: &Outcome,
    ) {
        if let Some((Running::Egress(egress), context)) = self.running(node, life) {
            egress.deliveries_mut().handle_outcome(context, delivery, attempt, outcome);
            egress.wake(context);
        }
    }

    /// Starts all nodes of a process, unless it is running.
    fn start(&mut self, process: usize) {
        let nodes = self.context.plan.nodes_of(process);
        let mut disks = Vec::new();
        for node in &nodes {
            let State::Down(disk) = &mut self.nodes[node.0].state else { return };
            disks.push(core::mem::take(disk));
        }
        let life = Life(self.nodes[nodes[0].0].life.0 + 1);
        self.context.note(format_args!("process {process} starts"));
        let running = match process.checked_sub(self.context.plan.ingesters) {
            None => start_ingester(&mut self.context, process, life, disks),
            Some(egress) => {
                let disk = disks.pop().expect("an egress has one journal");
                vec![Running::Egress(Box::new(Egress::start(&mut self.context, egress, life, disk)))]
            }
        };
        for (node, running) in nodes.into_iter().zip(running) {
            self.nodes[node.0] = Node { life, state: State::Up(running) };
            self.context.schedule(0, Step::Clock { node, life });
        }
    }

    /// The process of a node dies, and comes back some time later.
    fn crash(&mut self, node: NodeId, end: End) {
        let context = &mut self.context;
        let State::Up(_) = self.nodes[node.0].state else { return };
        let process = context.plan.process(node);
        self.crashes += 1;
        context.note(format_args!("process {process} dies: {end:?}"));
        for node in context.plan.nodes_of(process) {
            context.doom = context.doom.filter(|doom| doom.node != node);
            let state = &mut self.nodes[node.0].state;
            let State::Up(running) = core::mem::replace(state, State::Down(Disk::default())) else {
                continue;
            };
            let mut disk = running.stop(context);
            disk.crash(end, &mut context.prng);
            *state = State::Down(disk);
            context.drop_connections_of(node);
        }
        let delay_ms = context.prng.between(10, 5_000);
        context.schedule(delay_ms, Step::Start { process });
    }

    fn make_trouble(&mut self) {
        if self.context.weather == Weather::Calm {
            return;
        }
        let context = &mut self.context;
        let pause_ms = context.prng.between(1, 2 * context.plan.trouble_every_ms);
        context.schedule(pause_ms, Step::Trouble);
        let trouble = context.prng.below(context.plan.troubles.len());
        let trouble = context.plan.troubles[trouble];
        let node = NodeId(context.prng.below(self.nodes.len()));
        let of_process = context.plan.nodes_of(context.plan.process(node));
        let until_ms = context.now_ms + context.prng.between(100, 20_000);
        context.note(format_args!("trouble: {trouble:?}, node {}", node.0));
        match trouble {
            Trouble::Kill => self.doom(node, End::Killed),
            Trouble::PowerCut => self.doom(node, End::PowerCut),
            Trouble::Partition => {
                let other = NodeId(context.prng.below(self.nodes.len()));
                let [one, other] = [node, other].map(|node| context.plan.process(node));
                context.network.part(one, other, until_ms);
            }
            Trouble::Cut => {
                let open = context.network.connections();
                if !open.is_empty() {
                    let cut = context.prng.choose(&open);
                    context.reset(cut);
                }
            }
            Trouble::ClockStep => {
                let most_ms = context.prng.choose(&[1_000, 100_000, CLOCK_STEP_MS_MAX]);
                let step_ms = context.prng.between(0, 2 * most_ms).cast_signed() - most_ms.cast_signed();
                for node in of_process {
                    context.clock_offset_ms[node.0] = step_ms;
                }
            }
            Trouble::DiskFull => {
                for node in of_process {
                    context.disk_full_until_ms[node.0] = until_ms;
                }
            }
            Trouble::WriteErrors => context.write_errors_until_ms[node.0] = until_ms,
            Trouble::BitRot => self.rot(node),
            Trouble::Operator => self.operate(),
            Trouble::Target => {
                let target = context.prng.below(self.targets.len());
                let (mood, for_ms) = draw_mood(context);
                self.targets[target].set_mood(mood);
                context.schedule(for_ms, Step::Mood { target });
                self.resume_targets();
            }
        }
        // Where there is an operator, he looks whatever went wrong.
        if self.context.plan.troubles.contains(&Trouble::Operator) {
            self.operate();
        }
    }

    /// At once, or after some of the node's next steps.
    fn doom(&mut self, node: NodeId, end: End) {
        let steps = self.context.prng.below(12) as u32;
        if steps == 0 {
            return self.crash(node, end);
        }
        self.context.doom = Some(Doom { node, steps, end });
    }

    fn rot(&mut self, node: NodeId) {
        let context = &mut self.context;
        let draws = [context.prng.draw(), context.prng.draw(), context.prng.draw()];
        let choose = |count: usize| (draws[0] % count as u64) as usize;
        let Some((segment, place)) = context.checker.choose_rot(node, choose) else { return };
        let at = (place.start + draws[1] % (place.end - place.start)) as usize;
        let bit = (draws[2] % 8) as u8;
        match &mut self.nodes[node.0].state {
            State::Down(disk) => disk.rot(segment, at, bit),
            State::Up(running) => running.journal_mut().disk_mut().rot(segment, at, bit),
        }
    }

    fn operate(&mut self) {
        for egress in 0..self.context.plan.egresses {
            let node = self.context.plan.egress(egress);
            if let State::Up(Running::Egress(egress)) = &mut self.nodes[node.0].state {
                egress.handle_operator(&mut self.context);
            }
        }
    }

    fn resume_targets(&mut self) {
        for node in &mut self.nodes {
            if let State::Up(Running::Egress(egress)) = &mut node.state {
                egress.deliveries_mut().resume(&self.context);
            }
        }
    }

    fn calm_down(&mut self) {
        let context = &mut self.context;
        context.note(format_args!("the storm is over"));
        context.weather = Weather::Calm;
        context.doom = None;
        context.network.heal();
        context.clock_offset_ms.fill(0);
        self.targets.iter_mut().for_each(|target| target.set_mood(Mood::Well));
        self.resume_targets();
        if self.context.plan.troubles.contains(&Trouble::Operator) {
            self.operate();
        }
        self.context.schedule(CLOCK_MS, Step::Check);
    }

    fn is_done(&mut self) -> bool {
        let egresses = self.nodes.iter().filter_map(|node| match &node.state {
            State::Up(Running::Egress(egress)) => Some(egress),
            _ => None,
        });
        let dead_letters: BTreeSet<(usize, EventId)> =
            egresses.flat_map(|egress| egress.dead_letters()).collect();
        let (sources, deliveries) = self.context.checker.owed(&dead_letters);
        let idle = |node: &Node| match &node.state {
            State::Up(Running::Egress(egress)) => egress.is_idle(),
            State::Up(Running::Ingester(_) | Running::Index(_)) => true,
            State::Down(_) => false,
        };
        let is_idle = sources == 0 && deliveries == 0 && self.nodes.iter().all(idle);
        if is_idle && self.context.replays_pending == 0 {
            return true;
        }
        // The eavesdropper takes the time that the window gives him.
        let is_late = !is_idle && self.context.now_ms > self.storm_ends_ms + PROGRESS_MS_MAX;
        if is_late || self.context.steps > self.steps_max {
            self.context.checker.blame(Violation::NoProgress { sources, deliveries });
        }
        false
    }
}

/// All workers of an ingester and its index, over keys that are restored from all of their disks.
fn start_ingester(context: &mut Context, ingester: usize, life: Life, disks: Vec<Disk>) -> Vec<Running> {
    let nodes = context.plan.nodes_of(ingester);
    let workers = context.plan.workers;
    let mut disks = disks.into_iter();
    let mut restoring = Restoring::new(&context.plan, ingester, context.clock(nodes[0]).wall_ms);
    let opened: Vec<_> = nodes[..workers]
        .iter()
        .zip(&mut disks)
        .map(|(node, disk)| Ingester::open(context, (*node, life), disk, &mut restoring))
        .collect();
    let disk = disks.next().expect("the index has a disk");
    let index = Index::open(context, nodes[workers], life, disk, &mut restoring);
    let restored = opened.iter().map(|(journal, _)| journal.durable()).collect();
    let keys = Rc::new(RefCell::new(restoring.finish(restored)));
    let mut running = Vec::new();
    for (node, opened) in nodes.iter().zip(opened) {
        let ingester = Ingester::new(context, (*node, life), opened, Rc::clone(&keys));
        running.push(Running::Ingester(Box::new(ingester)));
    }
    running.push(Running::Index(Box::new(Index::new(nodes[workers], life, index, keys))));
    running
}
