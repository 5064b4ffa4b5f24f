//! Regular expressions that run in linear time, with bounds on what one may become.

use regex::{Regex, RegexBuilder};
use zen_core::access::HeaderPattern;

use crate::document::Steps;
use crate::{Fault, Kind};

/// Longest expression, bytes.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// Largest compiled program, bytes. Room for `\w` with all letters of Unicode.
pub const PROGRAM_BYTES_MAX: usize = 64 * 1024;
/// Memory that an expression keeps, bytes; the search cache of a thread is as large at most.
pub const PATTERN_BYTES: usize = 6 * PROGRAM_BYTES_MAX;
/// The same for an expression of which there may be many, [`Pattern::compile_small`].
pub const SMALL_PROGRAM_BYTES_MAX: usize = 32 * 1024;
/// Memory that a small expression keeps, bytes; the search cache of a thread is as large at most.
pub const SMALL_PATTERN_BYTES: usize = 192 * 1024;
/// Deepest nesting of groups.
const NESTING_MAX: u32 = 32;
/// Bytes that the smallest program searches for one step. The time per byte grows with the program.
const BYTES_PER_STEP: usize = 8;
/// Sizes of programs, each twice the one before: 1, 2, 4 and 8 steps.
const SMALLEST_PROGRAM_BYTES: usize = PROGRAM_BYTES_MAX >> 3;

/// A compiled expression. `.` matches neither LF nor CR, as RFC 9485 has it.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    /// Steps for [`BYTES_PER_STEP`].
    weight: usize,
}

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The text is too long.
    #[error("regex of {bytes} bytes, at most {PATTERN_BYTES_MAX}; shorten it")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It would compile to more than it may.
    #[error("regex needs more than {bytes_max} bytes; use smaller repetitions, or (?-u:\\w) for \\w")]
    TooBig {
        /// [`PROGRAM_BYTES_MAX`] or [`SMALL_PROGRAM_BYTES_MAX`].
        bytes_max: usize,
    },
    /// Not a regular expression as the `regex` crate knows them; its own words follow.
    #[error("regex does not compile: {0}")]
    Syntax(Box<str>),
}

impl Pattern {
    /// Compiles an expression that may match anywhere in a text.
    pub fn compile(text: &str) -> Result<Self, PatternError> {
        Self::compile_within(text, PROGRAM_BYTES_MAX)
    }

    /// The same within [`SMALL_PROGRAM_BYTES_MAX`].
    pub fn compile_small(text: &str) -> Result<Self, PatternError> {
        Self::compile_within(text, SMALL_PROGRAM_BYTES_MAX)
    }

    fn compile_within(text: &str, bytes_max: usize) -> Result<Self, PatternError> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong { bytes: text.len() });
        }
        let mut program_bytes = SMALLEST_PROGRAM_BYTES;
        loop {
            match build(text, program_bytes.min(bytes_max), bytes_max) {
                Ok(regex) => return Ok(Self { regex, weight: program_bytes / SMALLEST_PROGRAM_BYTES }),
                Err(regex::Error::CompiledTooBig(_)) if program_bytes < bytes_max => program_bytes *= 2,
                Err(regex::Error::CompiledTooBig(_)) => return Err(PatternError::TooBig { bytes_max }),
                Err(other) => return Err(PatternError::Syntax(other.to_string().into())),
            }
        }
    }

    /// Compiles an expression that must match all of a text.
    pub(crate) fn compile_whole(text: &str) -> Result<Self, PatternError> {
        // Alone first, so that a closing bracket too many cannot open what is put around it.
        Self::compile(text)?;
        Self::compile(&format!("\\A(?:{text})\\z"))
    }

    /// What was compiled.
    pub fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    fn steps(&self, text: &str) -> usize {
        1 + text.len() * self.weight / BYTES_PER_STEP
    }

    pub(crate) fn is_match(&self, text: &str, steps: &Steps) -> Result<bool, Fault> {
        steps.take(self.steps(text))?;
        Ok(self.regex.is_match(text))
    }

    /// The first group of the first match, or all of it if there is no group.
    pub(crate) fn extract<'t>(&self, text: &'t str, steps: &Steps) -> Result<Option<&'t str>, Fault> {
        steps.take(self.steps(text))?;
        let Some(found) = self.regex.captures(text) else { return Ok(None) };
        let wanted = if self.regex.captures_len() > 1 { found.get(1) } else { found.get(0) };
        Ok(wanted.map(|part| part.as_str()))
    }
}

fn build(text: &str, program_bytes_max: usize, cache_bytes_max: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .crlf(true)
        .size_limit(program_bytes_max)
        .dfa_size_limit(cache_bytes_max)
        .nest_limit(NESTING_MAX)
        .build()
}

impl HeaderPattern for Pattern {
    fn is_match(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }
}

/// A scalar as text: a string as it is, others as JSON writes them; arrays and objects have none.
pub(crate) fn string_form(value: &serde_json::Value) -> Result<std::borrow::Cow<'_, str>, Kind> {
    use serde_json::Value;
    match value {
        Value::String(text) => Ok(text.as_str().into()),
        Value::Number(number) => Ok(number.to_string().into()),
        Value::Bool(true) => Ok("true".into()),
        Value::Bool(false) => Ok("false".into()),
        Value::Null => Ok("null".into()),
        Value::Array(_) | Value::Object(_) => Err(Kind::of(value)),
    }
}
