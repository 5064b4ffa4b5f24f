//! Flows: which of an endpoint's flows take an event.
//!
//! An event enters with its flows, sorted by priority; two sets leave, of flows that matched and of flows whose
//! condition could not be decided. Nothing is allocated for flows without conditions, and no JSON is parsed.

use serde::{Deserialize, Serialize};
use zen_core::event::BODY_BYTES_MAX;

use crate::condition::{Condition, Context, RawCondition, not_empty};
use crate::document::{DEPTH_MAX, Steps};
use crate::rule_error::{RuleError, RuleFault};
use crate::{Fault, Subject};

/// Most flows of one endpoint.
pub const FLOWS_MAX: usize = 64;
/// Most targets of one flow.
pub const TARGETS_MAX: usize = 10;

/// One flow as configured.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawFlow {
    /// Unique among the endpoint's flows.
    pub name: String,
    /// Lower comes first; flows of the same priority come as written.
    #[serde(default = "RawFlow::default_priority")]
    pub priority: u16,
    /// None takes every event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<RawCondition>,
    /// What becomes of an event whose condition cannot be decided.
    #[serde(default)]
    pub on_error: OnError,
    /// Longest body that `jsonpath` conditions look at, bytes.
    #[serde(default = "RawFlow::default_body_bytes_max")]
    pub body_bytes_max: u32,
    /// Deepest JSON that they look at.
    #[serde(default = "RawFlow::default_json_depth_max")]
    pub json_depth_max: u32,
    /// Where its events go.
    pub targets: Vec<String>,
}

impl RawFlow {
    /// Default of `priority`.
    pub const fn default_priority() -> u16 {
        100
    }

    /// Default of `body_bytes_max`.
    pub const fn default_body_bytes_max() -> u32 {
        256 * 1024
    }

    /// Default of `json_depth_max`.
    pub const fn default_json_depth_max() -> u32 {
        64
    }
}

/// What a flow does with an event whose condition could not be decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Takes it.
    Open,
    /// Leaves it.
    #[default]
    Closed,
}

/// How many of an endpoint's flows may take one event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Matching {
    /// The first that matches, by priority.
    First,
    /// All that match.
    #[default]
    All,
}

/// One compiled flow.
#[derive(Clone, Debug)]
pub struct Flow {
    index: usize,
    name: Box<str>,
    priority: u16,
    pub(crate) when: Option<Condition>,
    pub(crate) on_error: OnError,
    body_bytes_max: usize,
    json_depth_max: u32,
    targets: Box<[Box<str>]>,
}

/// The compiled flows of one endpoint.
#[derive(Clone, Debug)]
pub struct Flows {
    /// By priority.
    flows: Box<[Flow]>,
    matching: Matching,
}

/// The flows that take one event, a set of places in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matched(u64);

/// What became of one event: sets of flows by their place in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    matched: Matched,
    undecided: u64,
    fault: Option<Fault>,
}

const _: () = assert!(FLOWS_MAX <= u64::BITS as usize);

impl Routed {
    /// Whether the flow at this place takes the event.
    pub const fn is_matched(self, index: usize) -> bool {
        self.matched.0 & (1 << index) != 0
    }

    /// The flows that take the event.
    pub const fn matched(self) -> Matched {
        self.matched
    }

    /// Whether its condition could not be decided; `on_error` then decided whether it matched.
    pub const fn is_undecided(self, index: usize) -> bool {
        self.undecided & (1 << index) != 0
    }

    /// Whether no flow takes the event.
    pub const fn is_empty(self) -> bool {
        self.matched.0 == 0
    }

    /// Why the first undecided condition was not decided.
    pub const fn fault(self) -> Option<Fault> {
        self.fault
    }
}

impl Flows {
    /// Compiles the flows of one endpoint.
    pub fn compile(raw: &[RawFlow], matching: Matching) -> Result<Self, RuleError> {
        RuleFault::check_bound(raw.len(), 0, FLOWS_MAX).map_err(|fault| fault.at("flows"))?;
        let mut flows = raw
            .iter()
            .enumerate()
            .map(|(index, raw)| Flow::compile(raw, index))
            .collect::<Result<Vec<_>, _>>()?;
        for (at, flow) in flows.iter().enumerate() {
            if flows[..at].iter().any(|earlier| earlier.name == flow.name) {
                return Err(RuleFault::Twice.at(format!("flow \"{}\".name", flow.name)));
            }
        }
        flows.sort_by_key(|flow| flow.priority);
        Ok(Self { flows: flows.into(), matching })
    }

    /// Decides for one event.
    pub fn route(&self, subject: &Subject<'_>) -> Routed {
        let steps = Steps::new();
        let mut routed = Routed::default();
        for flow in &self.flows {
            let matched = flow.decide(subject, &steps).unwrap_or_else(|fault| {
                routed.undecided |= 1 << flow.index;
                routed.fault = routed.fault.or(Some(fault));
                flow.on_error == OnError::Open
            });
            if matched {
                routed.matched.0 |= 1 << flow.index;
                if self.matching == Matching::First {
                    break;
                }
            }
        }
        routed
    }

    /// The flows that take the event, by priority.
    pub fn matched(&self, matched: Matched) -> impl Iterator<Item = &Flow> {
        self.flows.iter().filter(move |flow| matched.0 & (1 << flow.index) != 0)
    }

    /// Whether any condition may look at the body.
    pub fn needs_json(&self) -> bool {
        self.flows.iter().filter_map(|flow| flow.when.as_ref()).any(Condition::needs_json)
    }

    /// Whether every event takes the same way: no flow has a condition, and all take it.
    pub fn is_unconditional(&self) -> bool {
        self.matching == Matching::All && self.flows.iter().all(|flow| flow.when.is_none())
    }

    /// How many regular expressions the conditions hold, at most.
    pub fn patterns(&self) -> usize {
        self.flows.iter().filter_map(|flow| flow.when.as_ref()).map(Condition::patterns).sum()
    }

    /// All flows, by priority.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter()
    }

    /// How many may take one event.
    pub const fn matching(&self) -> Matching {
        self.matching
    }
}

impl Flow {
    fn compile(raw: &RawFlow, index: usize) -> Result<Self, RuleError> {
        let name = not_empty(&raw.name, &format!("flows[{index}].name"))?;
        let place = format!("flow \"{name}\"");
        let at = |key: &str| format!("{place}.{key}");
        RuleFault::check_bound(raw.targets.len(), 1, TARGETS_MAX).map_err(|fault| fault.at(at("targets")))?;
        for (index, target) in raw.targets.iter().enumerate() {
            let place = at(&format!("targets[{index}]"));
            if raw.targets[..index].contains(target) {
                return Err(RuleFault::Twice.at(place));
            }
            not_empty(target, &place)?;
        }
        RuleFault::check_bound(raw.body_bytes_max as usize, 1, BODY_BYTES_MAX)
            .map_err(|fault| fault.at(at("body_bytes_max")))?;
        RuleFault::check_bound(raw.json_depth_max as usize, 1, DEPTH_MAX as usize)
            .map_err(|fault| fault.at(at("json_depth_max")))?;
        let when = raw.when.as_ref().map(|when| Condition::compile(when, &at("when"))).transpose()?;
        Ok(Self {
            index,
            name,
            priority: raw.priority,
            when,
            on_error: raw.on_error,
            body_bytes_max: raw.body_bytes_max as usize,
            json_depth_max: raw.json_depth_max,
            targets: raw.targets.iter().map(|target| target.as_str().into()).collect(),
        })
    }

    fn decide(&self, subject: &Subject<'_>, steps: &Steps) -> Result<bool, Fault> {
        self.when.as_ref().map_or(Ok(true), |when| when.holds(&self.context(subject, steps)))
    }

    pub(crate) fn context<'a>(&self, subject: &Subject<'a>, steps: &'a Steps) -> Context<'a> {
        Context {
            subject: *subject,
            body_bytes_max: self.body_bytes_max,
            json_depth_max: self.json_depth_max,
            steps,
        }
    }

    /// Its place in the configuration, from 0: what [`Routed`] goes by.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its priority; lower comes first.
    pub const fn priority(&self) -> u16 {
        self.priority
    }

    /// Where its events go.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().map(|target| &**target)
    }
}
