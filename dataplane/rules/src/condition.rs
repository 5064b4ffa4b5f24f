//! Conditions: all, any and not over leaves that look at the JSON, a header, the endpoint or the content type.
//!
//! Compiled once from what TOML gives. Evaluated in the order written, and no further than needed: put
//! headers before JSONPath, and no body is parsed for an event that a header rules out.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::Steps;
use crate::path::equal;
use crate::pattern::string_form;
use crate::rule_error::{RuleError, RuleFault};
use crate::{Fault, Path, Pattern, Subject};

/// Deepest groups, the outermost included.
pub const CONDITION_DEPTH_MAX: usize = 8;
/// Most groups and leaves of one flow.
pub const CONDITIONS_MAX: usize = 32;
/// Longest value of `exact`, bytes of JSON.
pub const EXACT_BYTES_MAX: usize = 4096;
/// Longest name of a header, bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 256;

/// One condition as configured: a group (`all`, `any`, `not`) or a leaf (`jsonpath`, `header`, `endpoint`,
/// `content_type`); `jsonpath` and `header` have one of `exists`, `exact` and `regex` beside them.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawCondition {
    /// Holds if all of these do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<Vec<RawCondition>>,
    /// Holds if one of these does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any: Option<Vec<RawCondition>>,
    /// Holds if this does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<RawCondition>>,
    /// Values of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jsonpath: Option<String>,
    /// The name of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The endpoint's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The content type without its parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Whether there is one at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
    /// Equals this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<Value>,
    /// Matches this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
}

/// A compiled condition.
#[derive(Clone, Debug)]
pub enum Condition {
    /// All of them.
    All(Box<[Condition]>),
    /// One of them.
    Any(Box<[Condition]>),
    /// The other way round.
    Not(Box<Condition>),
    /// One look at the event.
    Leaf(Leaf),
}

/// What one leaf asks.
#[derive(Clone, Debug)]
pub enum Leaf {
    /// Of the values that a path selects.
    Json(Path, Test<Value>),
    /// Of the lines of a header.
    Header(Box<str>, Test<Box<str>>),
    /// The endpoint's name.
    Endpoint(Box<str>),
    /// The media type.
    ContentType(Box<str>),
}

/// What a leaf asks of a value.
#[derive(Clone, Debug)]
pub enum Test<T> {
    /// There is one, or there is none.
    Exists(bool),
    /// One equals this.
    Exact(T),
    /// One has a string form that matches.
    Regex(Pattern),
}

impl<T> Test<T> {
    fn patterns(&self) -> usize {
        usize::from(matches!(self, Self::Regex(_)))
    }
}

/// What a condition is evaluated with: the event, the flow's bounds, the event's steps.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) subject: Subject<'a>,
    pub(crate) body_bytes_max: usize,
    pub(crate) json_depth_max: u32,
    pub(crate) steps: &'a Steps,
}

impl Condition {
    /// Compiles a condition; `place` begins the way that errors name.
    pub fn compile(raw: &RawCondition, place: &str) -> Result<Self, RuleError> {
        Compiler { left: CONDITIONS_MAX }.compile(raw, place, 1)
    }

    /// Whether it may look at the body.
    pub fn needs_json(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::needs_json),
            Self::Not(part) => part.needs_json(),
            Self::Leaf(leaf) => matches!(leaf, Leaf::Json(..)),
        }
    }

    /// How many regular expressions it holds, at most.
    pub fn patterns(&self) -> usize {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::patterns).sum(),
            Self::Not(part) => part.patterns(),
            Self::Leaf(Leaf::Json(path, test)) => path.patterns() + test.patterns(),
            Self::Leaf(Leaf::Header(_, test)) => test.patterns(),
            Self::Leaf(Leaf::Endpoint(_) | Leaf::ContentType(_)) => 0,
        }
    }

    pub(crate) fn holds(&self, context: &Context<'_>) -> Result<bool, Fault> {
        match self {
            Self::All(parts) => {
                for part in parts {
                    if !part.holds(context)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Any(parts) => {
                for part in parts {
                    if part.holds(context)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Not(part) => Ok(!part.holds(context)?),
            Self::Leaf(leaf) => leaf.holds(context),
        }
    }
}

impl Leaf {
    pub(crate) fn holds(&self, context: &Context<'_>) -> Result<bool, Fault> {
        match self {
            Self::Json(path, test) => test.holds_for_json(path, context),
            Self::Header(name, test) => test.holds_for_header(name, context),
            Self::Endpoint(name) => Ok(*context.subject.endpoint == **name),
            Self::ContentType(name) => Ok(context.subject.media_type().eq_ignore_ascii_case(name)),
        }
    }
}

impl Test<Value> {
    fn holds_for_json(&self, path: &Path, context: &Context<'_>) -> Result<bool, Fault> {
        let document = context.subject.document;
        let root = document.value_within(context.body_bytes_max, context.json_depth_max)?;
        let mut answer = Ok(false);
        path.visit(root, context.steps, &mut |value| {
            answer = self.holds_for_value(value, context);
            if matches!(answer, Ok(false)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        answer.map(|found| found != matches!(self, Self::Exists(false)))
    }

    /// Whether one value is what is looked for; with `exists` any is.
    pub(crate) fn holds_for_value(&self, value: &Value, context: &Context<'_>) -> Result<bool, Fault> {
        match self {
            Self::Exists(_) => Ok(true),
            Self::Exact(wanted) => equal(value, wanted, context.steps),
            Self::Regex(pattern) => match string_form(value) {
                Ok(text) => pattern.is_match(&text, context.steps),
                Err(_) => Ok(false),
            },
        }
    }
}

impl Test<Box<str>> {
    fn holds_for_header(&self, name: &str, context: &Context<'_>) -> Result<bool, Fault> {
        for value in context.subject.header_values(name) {
            let found = match self {
                Self::Exists(_) => true,
                Self::Exact(wanted) => *value == **wanted,
                Self::Regex(pattern) => pattern.is_match(value, context.steps)?,
            };
            if found {
                return Ok(!matches!(self, Self::Exists(false)));
            }
        }
        Ok(matches!(self, Self::Exists(false)))
    }
}

/// Counts what one flow may still have.
struct Compiler {
    left: usize,
}

impl Compiler {
    fn compile(&mut self, raw: &RawCondition, place: &str, depth: usize) -> Result<Condition, RuleError> {
        if depth > CONDITION_DEPTH_MAX {
            return Err(RuleFault::TooDeep { max: CONDITION_DEPTH_MAX }.at(place));
        }
        let Some(left) = self.left.checked_sub(1) else {
            return Err(RuleFault::TooManyConditions { max: CONDITIONS_MAX }.at(place));
        };
        self.left = left;
        let given = [
            raw.all.is_some(),
            raw.any.is_some(),
            raw.not.is_some(),
            raw.jsonpath.is_some(),
            raw.header.is_some(),
            raw.endpoint.is_some(),
            raw.content_type.is_some(),
        ];
        let found = given.into_iter().filter(|given| *given).count();
        if found != 1 {
            let keys = "`all`, `any`, `not`, `jsonpath`, `header`, `endpoint` and `content_type`";
            return Err(RuleFault::NotOne { keys, found }.at(place));
        }
        if let Some(path) = &raw.jsonpath {
            return json_leaf(path, raw, place).map(Condition::Leaf);
        }
        if let Some(name) = &raw.header {
            return header_leaf(name, raw, place).map(Condition::Leaf);
        }
        refuse_tests(raw, place)?;
        if let Some(parts) = &raw.all {
            return Ok(Condition::All(self.group(parts, &format!("{place}.all"), depth)?));
        }
        if let Some(parts) = &raw.any {
            return Ok(Condition::Any(self.group(parts, &format!("{place}.any"), depth)?));
        }
        if let Some(part) = &raw.not {
            let part = self.compile(part, &format!("{place}.not"), depth + 1)?;
            return Ok(Condition::Not(Box::new(part)));
        }
        if let Some(name) = &raw.endpoint {
            return Ok(Condition::Leaf(Leaf::Endpoint(not_empty(name, &format!("{place}.endpoint"))?)));
        }
        let name = raw.content_type.as_deref().expect("the last of seven, one of which is given");
        media_type(name).map_err(|fault| fault.at(format!("{place}.content_type")))?;
        Ok(Condition::Leaf(Leaf::ContentType(name.into())))
    }

    fn group(
        &mut self,
        parts: &[RawCondition],
        place: &str,
        depth: usize,
    ) -> Result<Box<[Condition]>, RuleError> {
        if parts.is_empty() {
            return Err(RuleFault::Empty.at(place));
        }
        let parts = parts.iter().enumerate();
        parts.map(|(at, part)| self.compile(part, &format!("{place}[{at}]"), depth + 1)).collect()
    }
}

fn json_leaf(path: &str, raw: &RawCondition, place: &str) -> Result<Leaf, RuleError> {
    let path = Path::compile(path).map_err(|error| RuleFault::from(error).at(format!("{place}.jsonpath")))?;
    let test = one_test(raw, place, |value| {
        check_json(value)?;
        Ok(value.clone())
    })?;
    Ok(Leaf::Json(path, test))
}

fn header_leaf(name: &str, raw: &RawCondition, place: &str) -> Result<Leaf, RuleError> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > HEADER_NAME_BYTES_MAX || !name.bytes().all(is_token) {
        return Err(RuleFault::HeaderName.at(format!("{place}.header")));
    }
    let test = one_test(raw, place, |value| match value {
        Value::String(text) => {
            if text.bytes().any(|byte| byte.is_ascii_control()) || text.trim() != text {
                return Err(RuleFault::HeaderValue);
            }
            RuleFault::check_bound(text.len(), 0, EXACT_BYTES_MAX)?;
            Ok(text.as_str().into())
        }
        _ => Err(RuleFault::HeaderValue),
    })?;
    Ok(Leaf::Header(name.to_ascii_lowercase().into(), test))
}

fn one_test<T>(
    raw: &RawCondition,
    place: &str,
    exact: impl FnOnce(&Value) -> Result<T, RuleFault>,
) -> Result<Test<T>, RuleError> {
    match (raw.exists, &raw.exact, &raw.regex) {
        (Some(exists), None, None) => Ok(Test::Exists(exists)),
        (None, Some(value), None) => {
            exact(value).map(Test::Exact).map_err(|fault| fault.at(format!("{place}.exact")))
        }
        (None, None, Some(text)) => Pattern::compile(text)
            .map(Test::Regex)
            .map_err(|error| RuleFault::from(error).at(format!("{place}.regex"))),
        (exists, value, text) => {
            let found = [exists.is_some(), value.is_some(), text.is_some()];
            let found = found.into_iter().filter(|given| *given).count();
            Err(RuleFault::NotOne { keys: "`exists`, `exact` and `regex`", found }.at(place))
        }
    }
}

fn refuse_tests(raw: &RawCondition, place: &str) -> Result<(), RuleError> {
    let tests =
        [("exists", raw.exists.is_some()), ("exact", raw.exact.is_some()), ("regex", raw.regex.is_some())];
    match tests.into_iter().find(|(_, given)| *given) {
        Some((key, _)) => {
            let with = "a group, `endpoint` or `content_type`";
            Err(RuleFault::Misplaced { key, with }.at(place))
        }
        None => Ok(()),
    }
}

/// Refuses what TOML can say and JSON cannot, and what is too long.
pub(crate) fn check_json(value: &Value) -> Result<(), RuleFault> {
    // A not-a-number arrives as null, which TOML cannot write; a date as a table with the parser's own key.
    if value.is_null() || has_date(value) {
        return Err(RuleFault::NotJson);
    }
    RuleFault::check_bound(value.to_string().len(), 0, EXACT_BYTES_MAX)
}

fn has_date(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_date),
        Value::Object(members) => {
            members.keys().any(|name| name.starts_with("$__toml_private")) || members.values().any(has_date)
        }
        _ => false,
    }
}

pub(crate) fn not_empty(text: &str, place: &str) -> Result<Box<str>, RuleError> {
    if text.is_empty() {
        return Err(RuleFault::Empty.at(place));
    }
    Ok(text.into())
}

/// Refuses anything but `type/subtype`.
pub(crate) fn media_type(text: &str) -> Result<(), RuleFault> {
    let is_token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    match text.split_once('/') {
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) => {
            RuleFault::check_bound(text.len(), 3, zen_core::event::CONTENT_TYPE_BYTES_MAX)
        }
        _ => Err(RuleFault::MediaType),
    }
}
