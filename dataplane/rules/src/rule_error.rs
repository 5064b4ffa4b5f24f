//! Why a rule is refused: the place in the configuration, the fault, and the remedy in its text.

use crate::{PathError, PatternError};

/// One fault of a configuration. Compilation stops at the first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct RuleError {
    /// The way to it, such as `flow "orders".when.all[2].jsonpath`.
    pub place: Box<str>,
    /// What is wrong there.
    #[source]
    pub fault: RuleFault,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleFault {
    /// A group, leaf, field or function without or with several of the keys that say what it is.
    #[error("has {found} of {keys}; give exactly one of them")]
    NotOne {
        /// The keys to choose from.
        keys: &'static str,
        /// How many were given.
        found: usize,
    },
    /// A key that does not go with the others.
    #[error("`{key}` does not go with {with}; remove one of them")]
    Misplaced {
        /// The key too many.
        key: &'static str,
        /// What is there already.
        with: &'static str,
    },
    /// A key that is missing beside another.
    #[error("`{key}` is missing; add it")]
    Absent {
        /// The key to add.
        key: &'static str,
    },
    /// Nothing where something must be.
    #[error("is empty; write something or remove the key")]
    Empty,
    /// More than a bound, or less than its least.
    #[error("is {found}; it must be {min} to {max}")]
    Bound {
        /// What was given.
        found: u64,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// Groups within groups beyond the bound.
    #[error("conditions nest deeper than {max}; flatten them")]
    TooDeep {
        /// The bound.
        max: usize,
    },
    /// More groups and leaves than a flow may have.
    #[error("more than {max} conditions in one flow; split the flow")]
    TooManyConditions {
        /// The bound.
        max: usize,
    },
    /// Twice the same name.
    #[error("is there twice; names must differ")]
    Twice,
    /// Output fields of which one would hold the other.
    #[error("lies on the way to or at another field's place; give it another `to`")]
    Overlaps,
    /// A header's name that HTTP does not know.
    #[error(
        "is not a header name (RFC 9110 section 5.1); write letters, digits and hyphens, without a colon"
    )]
    HeaderName,
    /// A header's or content type's value with control characters, or with spaces around it.
    #[error("cannot occur in a header; remove control characters and spaces around it")]
    HeaderValue,
    /// A media type with parameters, or no media type.
    #[error("is not a media type; write `type/subtype` without parameters")]
    MediaType,
    /// A value that JSON does not have: TOML's dates and not-a-numbers.
    #[error("is not a JSON value; put dates in quotes, and use finite numbers")]
    NotJson,
    /// Dots that lead nowhere.
    #[error("is not names joined by dots; write it like `customer.email`")]
    Dots,
    /// A template's path that may select many values.
    #[error("may select several values; use names and indices only")]
    NotSingular,
    /// `{{` without `}}`.
    #[error("`{{{{` at byte {at} has no `}}}}`; close the placeholder")]
    Unclosed {
        /// Offset of the braces.
        at: usize,
    },
    /// `strftime` does not know the format.
    #[error("is no strftime format; write it like `%Y-%m-%dT%H:%M:%SZ`")]
    DateFormat,
    /// Not a JSONPath.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Not a regular expression.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl RuleFault {
    /// This fault at a place.
    pub(crate) fn at(self, place: impl Into<Box<str>>) -> RuleError {
        RuleError { place: place.into(), fault: self }
    }

    /// Refuses what lies outside of its bounds.
    pub(crate) fn check_bound(found: usize, min: usize, max: usize) -> Result<(), Self> {
        if (min..=max).contains(&found) {
            return Ok(());
        }
        Err(Self::Bound { found: found as u64, min: min as u64, max: max as u64 })
    }
}
