//! The judge: knows what every disk really holds and what every target really took, and compares.
//!
//! Enters: what sources made, commits at the moment they are on a disk, answers to sources, files given up,
//! what recovery found, what targets took. Leaves: the first violation of an invariant, and whether anything is
//! still owed. It trusts no node: durable is what a disk was seen to hold. Excused is only what lay where bits rotted.

mod deliveries;
mod events;
mod journals;
mod ledger;
mod violation;

pub use violation::Violation;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use zen_core::id::{EndpointId, EventId};
use zen_core::link::LinkError;

use self::ledger::Ledger;
use crate::context::NodeId;
use crate::plan::Plan;

/// What a source made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Where it belongs.
    pub endpoint: EndpointId,
    /// Its body.
    pub body: Rc<[u8]>,
    /// Whether its signature is right.
    pub genuine: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Checker {
    plan: Plan,
    ledgers: Vec<Ledger>,
    made: BTreeMap<u64, Made>,
    journaled: BTreeMap<EventId, u64>,
    /// Which journals of egresses had which event durably.
    held: BTreeSet<(usize, EventId)>,
    delivered: BTreeSet<(usize, EventId)>,
    owed: BTreeSet<(usize, EventId)>,
    excused: BTreeSet<EventId>,
    /// Dead letters that left because there were too many.
    dropped: BTreeSet<(usize, EventId)>,
    /// Deliveries that became dead letters once, by egress, target and handle.
    given_up: BTreeSet<(usize, usize, u64)>,
    accepted: BTreeSet<u64>,
    /// What ingesters have or had on disk, by ingester and the source's number.
    accepted_as: BTreeMap<(usize, u64), EventId>,
    /// What ingesters have or had on disk.
    once_durable: BTreeSet<EventId>,
    /// First records of events at egresses.
    first_held: BTreeMap<(usize, EventId), u64>,
    /// Attempts made, by egress, target and handle.
    attempts: BTreeMap<(usize, usize, u64), usize>,
    /// Attempts before an operator sent a letter again: a crash may bring the old schedule back.
    earlier_attempts: BTreeMap<(usize, usize, u64), usize>,
    violation: Option<Violation>,
    /// Duplicates that were answered with the first event's id.
    pub duplicates: u64,
    /// Deliveries that became dead letters.
    pub dead_letters: u64,
    /// Dead letters that operators sent again.
    pub sent_again: u64,
    /// Events that egresses gave up because their record was damaged.
    pub lost: u64,
    /// Events that got a 2xx, with every try of a source counted.
    pub answered: u64,
    /// Deliveries that targets took.
    pub deliveries: u64,
}

impl Checker {
    /// Nothing has happened yet.
    pub fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            ledgers: (0..plan.nodes()).map(|_| Ledger::default()).collect(),
            made: BTreeMap::new(),
            journaled: BTreeMap::new(),
            held: BTreeSet::new(),
            delivered: BTreeSet::new(),
            owed: BTreeSet::new(),
            excused: BTreeSet::new(),
            dropped: BTreeSet::new(),
            given_up: BTreeSet::new(),
            accepted: BTreeSet::new(),
            accepted_as: BTreeMap::new(),
            once_durable: BTreeSet::new(),
            first_held: BTreeMap::new(),
            attempts: BTreeMap::new(),
            earlier_attempts: BTreeMap::new(),
            violation: None,
            duplicates: 0,
            dead_letters: 0,
            sent_again: 0,
            lost: 0,
            answered: 0,
            deliveries: 0,
        }
    }

    /// The first broken promise.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Notes a broken promise, unless there was one before.
    pub fn blame(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Blames what is over its bound.
    pub fn check_bound(&mut self, name: &'static str, value: usize, bound: usize) {
        if value > bound {
            self.blame(Violation::Bound { name, value, bound });
        }
    }

    /// A node closes a link: time and silence are reasons, what an honest peer says is none.
    pub fn handle_link_closed(&mut self, node: NodeId, error: &LinkError) {
        let is_expected = matches!(
            error,
            LinkError::Stale | LinkError::HandshakeTimeout | LinkError::PeerSilent | LinkError::Refused(_)
        );
        if !is_expected {
            self.blame(Violation::LinkRefused { node: node.0, why: error.to_string() });
        }
    }

    /// A source made an event; its body begins with `key` in hex.
    pub fn handle_made(&mut self, key: u64, made: Made) {
        self.made.insert(key, made);
    }

    /// A source has its 2xx.
    pub fn handle_accepted(&mut self, key: u64) {
        self.accepted.insert(key);
    }

    /// Genuine events without a 2xx, and deliveries that are missing and no dead letters.
    pub fn owed(&self, dead_letters: &BTreeSet<(usize, EventId)>) -> (usize, usize) {
        let genuine = self.made.iter().filter(|(_, made)| made.genuine);
        let sources = genuine.filter(|(key, _)| !self.accepted.contains(key)).count();
        (sources, self.owed.difference(dead_letters).count())
    }
}

/// The number at the end of a name such as `target-3`.
pub fn number(name: &str) -> usize {
    name.rsplit('-')
        .next()
        .and_then(|digits| digits.parse().ok())
        .expect("names of the simulation have a number")
}
