//! What one run looks like: who is there, how the weather is, which bug is planted. All of it follows from the seed.

use std::fmt;
use std::str::FromStr;

use crate::context::NodeId;
use crate::prng::Prng;
use crate::treatment::Treatment;

/// A window that no run outlasts, ms.
const DAY_MS: u64 = 24 * 3_600_000;
/// So many attempts no run makes.
const ATTEMPTS_MAX: usize = 500;
/// Where it comes to dead letters soon.
const ATTEMPTS_FEW: usize = 3;

/// A bug planted into the simulated glue, to show that the checker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// An ingester answers 2xx when the record is appended, not when it is on disk.
    AnswerBeforeDurable,
    /// An ingester trims what it sent, not what was acknowledged.
    TrimBeforeAck,
    /// A target forgets a delivery one millisecond before its window is over.
    ReplayWindowOffByOne,
    /// An ingester that restarts does not take the keys of the events in its journals.
    KeyNotRestored,
    /// An ingester frees a key when a write fails, although the write is repeated and succeeds later.
    KeyFreedOnFailedWrite,
    /// An egress that restarts takes letters that were thrown away for dead letters.
    DiscardForgotten,
    /// An egress that restarts hands its deliveries out newest first.
    OrderNotRestored,
    /// An egress does not hand out a letter that is to be sent again.
    LetterNotSent,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::AnswerBeforeDurable,
        Self::TrimBeforeAck,
        Self::ReplayWindowOffByOne,
        Self::KeyNotRestored,
        Self::KeyFreedOnFailedWrite,
        Self::DiscardForgotten,
        Self::OrderNotRestored,
        Self::LetterNotSent,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::AnswerBeforeDurable => "answer-before-durable",
            Self::TrimBeforeAck => "trim-before-ack",
            Self::ReplayWindowOffByOne => "replay-window-off-by-one",
            Self::KeyNotRestored => "key-not-restored",
            Self::KeyFreedOnFailedWrite => "key-freed-on-failed-write",
            Self::DiscardForgotten => "discard-forgotten",
            Self::OrderNotRestored => "order-not-restored",
            Self::LetterNotSent => "letter-not-sent",
        }
    }
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No planted bug has that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of: {}", Planted::ALL.map(Planted::name).join(", "))]
pub struct UnknownFault;

impl FromStr for Planted {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        Self::ALL.into_iter().find(|planted| planted.name() == text).ok_or(UnknownFault)
    }
}

/// What can go wrong; each run uses some of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A process is killed, at once or after some of its next steps.
    Kill,
    /// A machine loses power.
    PowerCut,
    /// Two nodes cannot reach each other for a while.
    Partition,
    /// A connection is reset.
    Cut,
    /// A node's clock jumps.
    ClockStep,
    /// No new file fits on a disk for a while.
    DiskFull,
    /// Writes fail for a while.
    WriteErrors,
    /// A bit flips on a disk.
    BitRot,
    /// A target changes its mood.
    Target,
    /// An operator sends dead letters again, and throws others away.
    Operator,
}

impl Trouble {
    const ALL: [Self; 10] = [
        Self::Kill,
        Self::PowerCut,
        Self::Partition,
        Self::Cut,
        Self::ClockStep,
        Self::DiskFull,
        Self::WriteErrors,
        Self::BitRot,
        Self::Target,
        Self::Operator,
    ];
}

/// How an egress passes over what a link brings again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// By its place in its stream, then by its event id: as the node.
    StreamAndEvent,
    /// By its event id alone, so that this layer has something to do.
    Event,
}

/// The shape of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sources, each with an endpoint of its own.
    pub sources: usize,
    /// Ingesters; any source may use any of them.
    pub ingesters: usize,
    /// Workers of each ingester; they have a journal each and share the keys.
    pub workers: usize,
    /// Egresses.
    pub egresses: usize,
    /// Targets; each belongs to one egress.
    pub targets: usize,
    /// Targets of each source's events.
    pub routes: Vec<Vec<usize>>,
    /// Events that sources make, forged ones included.
    pub events: usize,
    /// How long things go wrong, ms.
    pub storm_ms: u64,
    /// Mean time between two troubles, ms.
    pub trouble_every_ms: u64,
    /// What goes wrong in this run.
    pub troubles: Vec<Trouble>,
    /// Requests and answers that get lost during the storm, of a thousand.
    pub loss_permille: u64,
    /// Longest time on the way, ms.
    pub delay_ms_max: u64,
    /// Longest time for a write, ms.
    pub write_ms_max: u64,
    /// Deliveries that an eavesdropper sends again, of a thousand.
    pub replay_permille: u64,
    /// Segments of an ingester's journal.
    pub ingester_segments_max: u32,
    /// Events that a source sends twice, and again after their 2xx, of a thousand each.
    pub duplicate_permille: u64,
    /// How long an ingester remembers a key, ms.
    pub window_ms: u64,
    /// How an egress passes over what a link brings again.
    pub known_by: KnownBy,
    /// Attempts after which a delivery is dead.
    pub attempts_max: usize,
    /// Dead letters that an egress keeps.
    pub dead_letters_max: usize,
    /// Bytes of events that an egress keeps in memory.
    pub cached_bytes_max: usize,
    /// How each target is treated.
    pub treatments: Vec<Treatment>,
    /// The planted bug.
    pub planted: Option<Planted>,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(prng: &mut Prng, events: usize, planted: Option<Planted>) -> Self {
        let (sources, ingesters) = (1 + prng.below(3), 1 + prng.below(2));
        let (egresses, targets) = (1 + prng.below(2), 1 + prng.below(4));
        let routes = (0..sources).map(|_| draw_route(prng, targets)).collect();
        let mut troubles: Vec<Trouble> = Trouble::ALL.into_iter().filter(|_| prng.chance(500)).collect();
        if troubles.is_empty() {
            troubles.push(Trouble::PowerCut);
        }
        let treatments: Vec<Treatment> = (0..targets).map(|_| Treatment::draw(prng)).collect();
        let is_ordered = treatments.iter().any(|treatment| treatment.order_by.is_some());
        // What is behind an event that cannot be read waits until that one is given up.
        let holds_up = is_ordered && troubles.contains(&Trouble::BitRot);
        Self {
            sources,
            ingesters,
            workers: 1 + prng.below(2),
            egresses,
            targets,
            routes,
            events,
            storm_ms: prng.between(5_000, 60_000),
            trouble_every_ms: prng.choose(&[300, 1_000, 3_000]),
            troubles,
            loss_permille: prng.choose(&[0, 0, 20, 200]),
            delay_ms_max: prng.choose(&[2, 20, 300]),
            write_ms_max: prng.choose(&[2, 20, 200]),
            replay_permille: prng.choose(&[0, 0, 100, 500]),
            ingester_segments_max: prng.choose(&[3, 4, 8]),
            duplicate_permille: 100,
            window_ms: prng.choose(&[DAY_MS, DAY_MS, 20_000]),
            known_by: prng.choose(&[KnownBy::StreamAndEvent, KnownBy::Event]),
            attempts_max: prng.choose(if holds_up {
                &[ATTEMPTS_FEW]
            } else {
                &[ATTEMPTS_MAX, ATTEMPTS_MAX, ATTEMPTS_FEW]
            }),
            dead_letters_max: prng.choose(&[1_000, 2]),
            cached_bytes_max: prng.choose(&[0, 4_000, 1_000_000]),
            treatments,
            planted,
        }
    }
}

impl Plan {
    /// Workers of all ingesters: the first nodes.
    pub fn ingester_workers(&self) -> usize {
        self.ingesters * self.workers
    }

    /// Journals: of the ingesters' workers, of egresses, then one for the keys of each ingester.
    pub fn nodes(&self) -> usize {
        self.ingester_workers() + self.egresses + self.ingesters
    }

    /// The process that a node belongs to: ingesters first, then egresses.
    pub fn process(&self, node: NodeId) -> usize {
        match node.0.checked_sub(self.ingester_workers()) {
            None => node.0 / self.workers,
            Some(egress) if egress < self.egresses => self.ingesters + egress,
            Some(index) => index - self.egresses,
        }
    }

    /// The nodes of a process; those that it serves the outside with come first.
    pub fn nodes_of(&self, process: usize) -> Vec<NodeId> {
        (0..self.nodes()).map(NodeId).filter(|node| self.process(*node) == process).collect()
    }

    /// An egress.
    pub fn egress(&self, egress: usize) -> NodeId {
        NodeId(self.ingester_workers() + egress)
    }
}

fn draw_route(prng: &mut Prng, targets: usize) -> Vec<usize> {
    let sure = prng.below(targets);
    (0..targets).filter(|target| *target == sure || prng.chance(400)).collect()
}
