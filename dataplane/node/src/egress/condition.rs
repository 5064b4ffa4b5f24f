//! What the owner of a target tells of it: whether attempts may start, what waits, what failed last.

use std::sync::Arc;

use tokio::sync::oneshot;
use zen_core::deliver::{Hold as Gate, Outcome, TargetState};

use super::owner::Owner;
use super::paused::Hold;

/// Longest excerpt of an answer's body, bytes.
pub const EXCERPT_BYTES_MAX: usize = 1024;

/// What an operator asks the owner of targets.
#[derive(Debug)]
pub enum TargetOrder {
    /// How all of its targets are.
    List {
        /// Gets it.
        answer: oneshot::Sender<Vec<Condition>>,
    },
    /// How one is, and what failed last.
    Show {
        /// Its name.
        target: Arc<str>,
        /// Gets it; nothing for a target that it does not own.
        answer: oneshot::Sender<Option<(Condition, Option<Failure>)>>,
    },
    /// Pause or resume one; its file is written.
    Hold {
        /// Its name.
        target: Arc<str>,
        /// Which.
        hold: Hold,
        /// Gets how it is then.
        answer: oneshot::Sender<Option<Condition>>,
    },
}

/// How a target is.
#[derive(Clone, Debug)]
pub struct Condition {
    /// Its name.
    pub name: Arc<str>,
    /// `active`, or what holds it back.
    pub state: &'static str,
    /// For how long, ms, where that is known.
    pub held_ms: Option<u64>,
    /// Deliveries that wait.
    pub waiting: usize,
    /// Attempts under way.
    pub in_flight: usize,
    /// Attempts that may be.
    pub in_flight_cap: u32,
    /// How long the oldest delivery has been here, ms; since the last start.
    pub oldest_ms: Option<u64>,
}

/// The last attempt that did not deliver.
#[derive(Clone, Debug)]
pub struct Failure {
    /// As in `zen_deliveries_total`.
    pub outcome: &'static str,
    /// Status of the answer; 0 if none came.
    pub status: u16,
    /// When, steady ms.
    pub at_ms: u64,
    /// The beginning of the answer's body, where that is configured.
    pub excerpt: Vec<u8>,
}

impl Failure {
    /// Of an outcome that is no delivery.
    pub fn of(outcome: &Outcome, steady_ms: u64, excerpt: Vec<u8>) -> Self {
        Self { outcome: outcome.label(), status: outcome.status(), at_ms: steady_ms, excerpt }
    }
}

impl Owner {
    /// How it is now.
    pub fn condition(&self, steady_ms: u64) -> Condition {
        let queue = &self.queue;
        let (state, until_ms) = match (queue.state(), queue.hold(steady_ms)) {
            (TargetState::Disabled { .. }, _) => ("disabled", None),
            (TargetState::Paused, _) => ("paused", None),
            (TargetState::Active, None) => ("active", None),
            (TargetState::Active, Some(Gate::Throttled { until_ms })) => ("throttled", Some(until_ms)),
            (TargetState::Active, Some(Gate::BreakerOpen { probe_ms })) => ("breaker-open", Some(probe_ms)),
            (TargetState::Active, Some(Gate::BreakerHalfOpen)) => ("breaker-half-open", None),
            (TargetState::Active, Some(Gate::RateLimited { until_ms })) => ("rate-limited", Some(until_ms)),
        };
        Condition {
            name: Arc::clone(&self.name),
            state,
            held_ms: until_ms.map(|until_ms| until_ms - steady_ms),
            waiting: queue.waiting(),
            in_flight: queue.in_flight(),
            in_flight_cap: queue.in_flight_cap(),
            oldest_ms: queue.oldest_ms().map(|since_ms| steady_ms.saturating_sub(since_ms)),
        }
    }
}
