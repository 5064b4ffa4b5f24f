//! Flow conditions, routing, failover and transforms: pure, with std.
//!
//! An event's metadata and body enter; which flows match, a new body, or which target an output uses leave.
//! Rules are compiled once, and an error names the place in the configuration, the fault and the remedy.
//! What a body can cost is bounded: bytes, depth, values, steps. JSON is parsed at most once for an event,
//! and not at all unless a condition asks. No socket, file, thread, clock or randomness; `now` is an argument.
//! No error and no explanation holds a value of a body or header: only its place, type and length.
#![forbid(unsafe_code)]

mod condition;
mod document;
mod explain;
pub mod failover;
mod flow;
#[doc(hidden)]
pub mod fuzz;
mod json;
mod kind;
mod output;
mod path;
mod pattern;
mod rule_error;
#[cfg(test)]
mod strategies;
mod subject;
#[cfg(test)]
mod tests;
mod transform;

pub use condition::{
    CONDITION_DEPTH_MAX, CONDITIONS_MAX, Condition, EXACT_BYTES_MAX, HEADER_NAME_BYTES_MAX, Leaf,
    RawCondition, Test,
};
pub use document::{DEPTH_MAX, DOCUMENT_BYTES_MAX, Document, Fault, NODES_MAX, STEPS_MAX};
pub use explain::{Decision, Explanation, FlowExplanation, LeafExplanation, Seen};
pub use flow::{FLOWS_MAX, Flow, Flows, Matched, Matching, OnError, RawFlow, Routed, TARGETS_MAX};
pub use json::is_json;
pub use kind::Kind;
pub use output::{Output, RawOutput, STANDBY_MAX};
pub use path::{PATH_BYTES_MAX, PATH_NESTING_MAX, PATH_SEGMENTS_MAX, Path, PathError};
pub use pattern::{
    PATTERN_BYTES, PATTERN_BYTES_MAX, PROGRAM_BYTES_MAX, Pattern, PatternError, SMALL_PATTERN_BYTES,
    SMALL_PROGRAM_BYTES_MAX,
};
pub use rule_error::{RuleError, RuleFault};
pub use subject::{Headers, Subject};
pub use transform::{
    FIELDS_MAX, FUNCTIONS_MAX, FieldFault, FunctionFault, ITEMS_MAX, OnMissing, RawField, RawFormatDate,
    RawFunction, RawReplace, RawTransform, TEMPLATE_BYTES_MAX, TimeForm, Transform, TransformError,
    Transformed, VALUE_BYTES_MAX,
};
