//! What each flow and leaf saw and decided, for people; the same evaluation as the route itself.
//!
//! Explanations hold what the configuration says, and of the event only types, lengths and counts.

use std::fmt;
use std::ops::ControlFlow;

use serde::Serialize;

use crate::condition::{Condition, Context, Leaf, Test};
use crate::document::Steps;
use crate::{Fault, Flow, Flows, Kind, Matching, OnError, Subject};

/// What became of one event, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// How many flows may take an event.
    pub matching: Matching,
    /// By priority.
    pub flows: Vec<FlowExplanation>,
    /// Where the event goes, each target once.
    pub targets: Vec<String>,
}

/// What one flow decided.
#[derive(Clone, Debug, Serialize)]
pub struct FlowExplanation {
    /// Its name.
    pub flow: String,
    /// Lower comes first.
    pub priority: u16,
    /// Whether it takes the event; none if an earlier flow had taken it.
    pub matched: Option<bool>,
    /// What `on_error` said, if the condition could not be decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// Groups and leaves in the order written, each deeper than its group.
    pub conditions: Vec<LeafExplanation>,
}

/// What one group or leaf decided.
#[derive(Clone, Debug, Serialize)]
pub struct LeafExplanation {
    /// How many groups it is in.
    pub depth: usize,
    /// What it asks.
    pub condition: String,
    /// What it decided.
    pub decision: Decision,
    /// What it saw; groups see nothing themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saw: Option<Seen>,
}

/// What a condition decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It holds.
    Holds,
    /// It does not.
    Fails,
    /// It could not be decided.
    Undecided(Fault),
    /// It was not asked: what came before it decided.
    NotAsked,
}

/// What a leaf saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Values that were looked at.
    pub values: usize,
    /// The last of them, on which the decision rests if it holds.
    pub last: Option<Kind>,
}

impl Flows {
    /// Decides for one event as [`Flows::route`] does, and says why.
    pub fn explain(&self, subject: &Subject<'_>) -> Explanation {
        let steps = Steps::new();
        let mut explanation =
            Explanation { matching: self.matching(), flows: Vec::new(), targets: Vec::new() };
        let mut taken = false;
        for flow in self.iter() {
            let over = taken && self.matching() == Matching::First;
            let explained = flow.explain(subject, &steps, over);
            if explained.matched == Some(true) {
                taken = true;
                for target in flow.targets() {
                    if !explanation.targets.iter().any(|known| known == target) {
                        explanation.targets.push(target.to_owned());
                    }
                }
            }
            explanation.flows.push(explained);
        }
        explanation
    }
}

impl Flow {
    fn explain(&self, subject: &Subject<'_>, steps: &Steps, over: bool) -> FlowExplanation {
        let mut conditions = Vec::new();
        let context = self.context(subject, steps);
        let decision = match &self.when {
            Some(when) => when.explain((!over).then_some(&context), 0, &mut conditions),
            None => Decision::Holds,
        };
        let (matched, on_error) = match decision {
            _ if over => (None, None),
            Decision::Undecided(_) => (Some(self.on_error == OnError::Open), Some(self.on_error)),
            decision => (Some(decision == Decision::Holds), None),
        };
        FlowExplanation {
            flow: self.name().to_owned(),
            priority: self.priority(),
            matched,
            on_error,
            conditions,
        }
    }
}

impl Condition {
    /// Without a context nothing is asked, only described.
    fn explain(
        &self,
        context: Option<&Context<'_>>,
        depth: usize,
        out: &mut Vec<LeafExplanation>,
    ) -> Decision {
        let at = out.len();
        let condition = match self {
            Self::All(_) => "all".to_owned(),
            Self::Any(_) => "any".to_owned(),
            Self::Not(_) => "not".to_owned(),
            Self::Leaf(leaf) => leaf.to_string(),
        };
        out.push(LeafExplanation { depth, condition, decision: Decision::NotAsked, saw: None });
        let decision = match self {
            Self::All(parts) => explain_until(parts, Decision::Fails, Decision::Holds, context, depth, out),
            Self::Any(parts) => explain_until(parts, Decision::Holds, Decision::Fails, context, depth, out),
            Self::Not(part) => match part.explain(context, depth + 1, out) {
                Decision::Holds => Decision::Fails,
                Decision::Fails => Decision::Holds,
                other => other,
            },
            Self::Leaf(leaf) => match context {
                Some(context) => {
                    let decision = match leaf.holds(context) {
                        Ok(true) => Decision::Holds,
                        Ok(false) => Decision::Fails,
                        Err(fault) => Decision::Undecided(fault),
                    };
                    out[at].saw = leaf.saw(context);
                    decision
                }
                None => Decision::NotAsked,
            },
        };
        out[at].decision = decision;
        decision
    }
}

/// Asks the parts of a group until one gives `last`; if none does, the group is `otherwise`.
fn explain_until(
    parts: &[Condition],
    last: Decision,
    otherwise: Decision,
    context: Option<&Context<'_>>,
    depth: usize,
    out: &mut Vec<LeafExplanation>,
) -> Decision {
    let mut decision = if context.is_some() { otherwise } else { Decision::NotAsked };
    for part in parts {
        let open = context.filter(|_| decision == otherwise);
        let one = part.explain(open, depth + 1, out);
        if one == last || matches!(one, Decision::Undecided(_)) {
            decision = one;
        }
    }
    decision
}

impl Leaf {
    /// Looks again, with steps of its own: what decisions are made of is not what is shown.
    fn saw(&self, context: &Context<'_>) -> Option<Seen> {
        let subject = &context.subject;
        let text = |text: &str| Seen { values: 1, last: Some(Kind::String { bytes: text.len() }) };
        match self {
            Self::Endpoint(_) => Some(text(subject.endpoint)),
            Self::ContentType(_) => Some(text(subject.media_type())),
            Self::Header(name, _) => {
                let mut seen = Seen { values: 0, last: None };
                for value in subject.header_values(name) {
                    seen = Seen { values: seen.values + 1, ..text(value) };
                }
                Some(seen)
            }
            Self::Json(path, test) => {
                let root =
                    subject.document.value_within(context.body_bytes_max, context.json_depth_max).ok()?;
                let steps = Steps::new();
                let mut seen = Seen { values: 0, last: None };
                let looked = path.visit(root, &steps, &mut |value| {
                    seen = Seen { values: seen.values + 1, last: Some(Kind::of(value)) };
                    let one = Context { steps: &steps, ..*context };
                    match test.holds_for_value(value, &one) {
                        Ok(false) => ControlFlow::Continue(()),
                        _ => ControlFlow::Break(()),
                    }
                });
                looked.ok().map(|()| seen)
            }
        }
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(path, test) => {
                write!(formatter, "jsonpath {path} ")?;
                match test {
                    Test::Exact(value) => write!(formatter, "exact {value}"),
                    Test::Exists(exists) => write!(formatter, "exists {exists}"),
                    Test::Regex(pattern) => write!(formatter, "regex {}", pattern.as_str()),
                }
            }
            Self::Header(name, test) => {
                write!(formatter, "header {name} ")?;
                match test {
                    Test::Exact(value) => write!(formatter, "exact {value:?}"),
                    Test::Exists(exists) => write!(formatter, "exists {exists}"),
                    Test::Regex(pattern) => write!(formatter, "regex {}", pattern.as_str()),
                }
            }
            Self::Endpoint(name) => write!(formatter, "endpoint {name}"),
            Self::ContentType(name) => write!(formatter, "content_type {name}"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for flow in &self.flows {
            write!(formatter, "{flow}")?;
        }
        match self.targets.as_slice() {
            [] => writeln!(formatter, "targets: none"),
            targets => writeln!(formatter, "targets: {}", targets.join(", ")),
        }
    }
}

impl fmt::Display for FlowExplanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "flow {} (priority {}): ", self.flow, self.priority)?;
        match (self.matched, self.on_error) {
            (None, _) => writeln!(formatter, "not asked, an earlier flow took the event")?,
            (Some(true), Some(_)) => writeln!(formatter, "matches: undecided, and on_error is open")?,
            (Some(false), Some(_)) => {
                writeln!(formatter, "does not match: undecided, and on_error is closed")?;
            }
            (Some(true), None) if self.conditions.is_empty() => {
                writeln!(formatter, "matches, it has no condition")?;
            }
            (Some(true), None) => writeln!(formatter, "matches")?,
            (Some(false), None) => writeln!(formatter, "does not match")?,
        }
        for condition in &self.conditions {
            let indent = 2 * (condition.depth + 1);
            write!(formatter, "{:indent$}{}: {}", "", condition.condition, condition.decision)?;
            match &condition.saw {
                Some(Seen { values, last: Some(last) }) if *values == 1 => {
                    writeln!(formatter, "; saw a {last}")?;
                }
                Some(Seen { values, last: Some(last) }) => {
                    writeln!(formatter, "; saw {values} values, last a {last}")?;
                }
                Some(_) => writeln!(formatter, "; saw nothing")?,
                None => writeln!(formatter)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds => formatter.write_str("holds"),
            Self::Fails => formatter.write_str("does not hold"),
            Self::Undecided(fault) => write!(formatter, "undecided, {fault}"),
            Self::NotAsked => formatter.write_str("not asked"),
        }
    }
}
