//! JSONPath (RFC 9535), compiled once and evaluated in bounded steps.
//!
//! The `jsonpath-rust` crate parses; its tree becomes ours, checked and with its patterns compiled. The walk is
//! our own, because nothing else bounds what `$..*..*` looks at. Refused beside what the RFC refuses: patterns
//! of `match` and `search` that are not string literals, since a source could choose them; functions that the
//! RFC does not have; what is over a bound.

mod compile;
mod evaluate;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::ControlFlow;

use serde_json::Value;

use crate::document::Steps;
use crate::{Fault, Pattern, PatternError};

pub(crate) use evaluate::equal;

/// Longest expression, bytes.
pub const PATH_BYTES_MAX: usize = 512;
/// Most segments of one query.
pub const PATH_SEGMENTS_MAX: usize = 32;
/// Deepest brackets and parentheses.
pub const PATH_NESTING_MAX: usize = 8;

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Path {
    text: Box<str>,
    segments: Box<[Segment]>,
}

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The text is too long.
    #[error("JSONPath of {bytes} bytes, at most {PATH_BYTES_MAX}; shorten it")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Too many segments in one query.
    #[error("JSONPath of {segments} segments, at most {PATH_SEGMENTS_MAX}; shorten it")]
    TooManySegments {
        /// How many.
        segments: usize,
    },
    /// Too many brackets within brackets.
    #[error("JSONPath nests deeper than {PATH_NESTING_MAX}; flatten it")]
    TooDeep,
    /// Not JSONPath.
    #[error("not a JSONPath (RFC 9535) from byte {at}: write it like $.customer.email or $['first name'][0]")]
    Syntax {
        /// Offset of what cannot be read.
        at: usize,
    },
    /// Well formed, but not valid: a function where it cannot be, a number that is too large.
    #[error("JSONPath is not valid (RFC 9535 section 2.4): {what}")]
    Invalid {
        /// Which rule is broken.
        what: &'static str,
    },
    /// A pattern that is computed.
    #[error("the pattern of {function} must be a string in quotes, not taken from the body")]
    PatternFromBody {
        /// `match` or `search`.
        function: &'static str,
    },
    /// A pattern that does not compile.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

#[derive(Clone, Debug)]
enum Segment {
    Child(Box<[Selector]>),
    Descendant(Box<[Selector]>),
}

#[derive(Clone, Debug)]
enum Selector {
    Name(Box<str>),
    Wildcard,
    Index(i64),
    Slice { start: Option<i64>, end: Option<i64>, step: i64 },
    Filter(Logic),
}

#[derive(Clone, Debug)]
enum Logic {
    Any(Box<[Logic]>),
    All(Box<[Logic]>),
    Not(Box<Logic>),
    Exists(Query),
    Compare(Operand, Comparison, Operand),
    Matches(Operand, Pattern),
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug)]
struct Query {
    from: From,
    segments: Box<[Segment]>,
}

#[derive(Clone, Copy, Debug)]
enum From {
    Root,
    Current,
}

#[derive(Clone, Debug)]
enum Operand {
    Literal(Value),
    /// A query of names and indices: one value or none.
    Singular(Query),
    Length(Box<Operand>),
    Count(Query),
    /// The value of any query, if it selects exactly one.
    Only(Query),
}

impl Path {
    /// Compiles an expression.
    pub fn compile(text: &str) -> Result<Self, PathError> {
        Ok(Self { text: text.into(), segments: compile::compile(text)? })
    }

    /// What was compiled.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has only names and indices, so that it selects one value at most.
    pub fn is_singular(&self) -> bool {
        is_singular(&self.segments)
    }

    /// How many regular expressions it holds, at most.
    pub fn patterns(&self) -> usize {
        ["match(", "search("].iter().map(|function| self.text.matches(function).count()).sum()
    }

    /// Shows each value that is selected, in order, until told to stop.
    pub(crate) fn visit<'d>(
        &self,
        root: &'d Value,
        steps: &Steps,
        visit: &mut dyn FnMut(&'d Value) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        evaluate::Walk { root, steps }.run(&self.segments, root, visit)
    }

    /// The values selected, in order; for the tests and fuzz targets of the walk.
    #[cfg(test)]
    pub(crate) fn select<'d>(&self, root: &'d Value) -> Result<Vec<&'d Value>, Fault> {
        let mut selected = Vec::new();
        self.visit(root, &Steps::new(), &mut |value| {
            selected.push(value);
            ControlFlow::Continue(())
        })?;
        Ok(selected)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn is_singular(segments: &[Segment]) -> bool {
    segments.iter().all(|segment| {
        matches!(segment, Segment::Child(selectors)
            if matches!(**selectors, [Selector::Name(_) | Selector::Index(_)]))
    })
}
