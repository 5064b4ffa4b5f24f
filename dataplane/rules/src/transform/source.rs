//! Where a field's value comes from.

use std::ops::ControlFlow;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{FieldFault, RawField, VALUE_BYTES_MAX};
use crate::condition::check_json;
use crate::document::Steps;
use crate::pattern::string_form;
use crate::rule_error::{RuleError, RuleFault};
use crate::{Fault, Kind, PATH_BYTES_MAX, PATH_SEGMENTS_MAX, Path};

/// Longest template, bytes.
pub const TEMPLATE_BYTES_MAX: usize = 4096;

#[derive(Clone, Debug)]
pub(super) enum Source {
    Direct(Box<[Box<str>]>),
    Path(Path),
    Static(Value),
    Template(Box<[Part]>),
}

#[derive(Clone, Debug)]
pub(super) enum Part {
    Text(Box<str>),
    Path(Path),
}

/// A value, borrowed from the body or the configuration where that is possible.
#[derive(Clone, Debug)]
pub(super) enum Found<'v> {
    Borrowed(&'v Value),
    Several(Vec<&'v Value>),
    Owned(Value),
}

impl Found<'_> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Borrowed(value) => Kind::of(value),
            Self::Several(values) => Kind::Array { items: values.len() },
            Self::Owned(value) => Kind::of(value),
        }
    }

    /// The value, unless it is several: those are never copied into one.
    pub(super) fn value(&self) -> Option<&Value> {
        match self {
            Self::Borrowed(value) => Some(value),
            Self::Owned(value) => Some(value),
            Self::Several(_) => None,
        }
    }

    /// Elements of an array, or what a path selected.
    pub(super) fn items(&self) -> Option<Vec<&Value>> {
        match self {
            Self::Several(values) => Some(values.clone()),
            Self::Borrowed(Value::Array(items)) | Self::Owned(Value::Array(items)) => {
                Some(items.iter().collect())
            }
            _ => None,
        }
    }

    /// Bytes that were made for it, and are held until the output is written.
    pub(super) fn made_bytes(&self) -> usize {
        match self {
            Self::Owned(Value::String(text)) => text.len(),
            Self::Owned(Value::Array(items)) => {
                items.iter().map(|item| 3 + item.as_str().map_or(0, str::len)).sum()
            }
            _ => 0,
        }
    }
}

impl Serialize for Found<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Borrowed(value) => value.serialize(serializer),
            Self::Several(values) => values.serialize(serializer),
            Self::Owned(value) => value.serialize(serializer),
        }
    }
}

impl Source {
    pub(super) fn compile(raw: &RawField, place: &str) -> Result<Self, RuleError> {
        let at = |key: &str| format!("{place}.{key}");
        match (&raw.direct, &raw.jsonpath, &raw.constant, &raw.template) {
            (Some(dots), None, None, None) => {
                let names = split_dots(dots).map_err(|fault| fault.at(at("direct")))?;
                Ok(Self::Direct(names.into_iter().map(Into::into).collect()))
            }
            (None, Some(text), None, None) => {
                let path = Path::compile(text).map_err(|error| RuleFault::from(error).at(at("jsonpath")))?;
                Ok(Self::Path(path))
            }
            (None, None, Some(value), None) => {
                check_json(value).map_err(|fault| fault.at(at("static")))?;
                Ok(Self::Static(value.clone()))
            }
            (None, None, None, Some(text)) => {
                compile_template(text).map(Self::Template).map_err(|fault| fault.at(at("template")))
            }
            (direct, path, constant, template) => {
                let given = [direct.is_some(), path.is_some(), constant.is_some(), template.is_some()];
                let found = given.into_iter().filter(|given| *given).count();
                let keys = "`direct`, `jsonpath`, `static` and `template`";
                Err(RuleFault::NotOne { keys, found }.at(place))
            }
        }
    }

    pub(super) fn needs_json(&self) -> bool {
        match self {
            Self::Static(_) => false,
            Self::Template(parts) => parts.iter().any(|part| matches!(part, Part::Path(_))),
            Self::Direct(_) | Self::Path(_) => true,
        }
    }

    /// How many regular expressions it holds, at most; a template's paths have none.
    pub(super) fn patterns(&self) -> usize {
        match self {
            Self::Path(path) => path.patterns(),
            Self::Direct(_) | Self::Static(_) | Self::Template(_) => 0,
        }
    }

    /// The value, if the body has it.
    pub(super) fn find<'v>(
        &'v self,
        root: &'v Value,
        steps: &Steps,
    ) -> Result<Option<Found<'v>>, FieldFault> {
        match self {
            Self::Direct(names) => {
                steps.take(names.len())?;
                Ok(names.iter().try_fold(root, |value, name| member(value, name)).map(Found::Borrowed))
            }
            Self::Path(path) if path.is_singular() => Ok(first(path, root, steps)?.map(Found::Borrowed)),
            Self::Path(path) => {
                let mut values = Vec::new();
                path.visit(root, steps, &mut |value| {
                    values.push(value);
                    ControlFlow::Continue(())
                })?;
                Ok((!values.is_empty()).then_some(Found::Several(values)))
            }
            Self::Static(value) => Ok(Some(Found::Borrowed(value))),
            Self::Template(parts) => fill(parts, root, steps),
        }
    }
}

fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(members) => members.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

fn first<'v>(path: &Path, root: &'v Value, steps: &Steps) -> Result<Option<&'v Value>, Fault> {
    let mut found = None;
    path.visit(root, steps, &mut |value| {
        found = Some(value);
        ControlFlow::Break(())
    })?;
    Ok(found)
}

fn fill<'v>(parts: &[Part], root: &Value, steps: &Steps) -> Result<Option<Found<'v>>, FieldFault> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(part) => text.push_str(part),
            Part::Path(path) => {
                let Some(value) = first(path, root, steps)? else { return Ok(None) };
                let value = string_form(value).map_err(|got| FieldFault::Placeholder { got })?;
                if text.len() + value.len() > VALUE_BYTES_MAX {
                    return Err(FieldFault::TooLong);
                }
                text.push_str(&value);
            }
        }
    }
    Ok(Some(Found::Owned(Value::String(text))))
}

/// Splits a template into text and placeholders. There is no logic, and no way to write `{{` itself.
fn compile_template(text: &str) -> Result<Box<[Part]>, RuleFault> {
    RuleFault::check_bound(text.len(), 1, TEMPLATE_BYTES_MAX)?;
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let at = text.len() - rest.len() + before.len();
        let Some((inside, after)) = after.split_once("}}") else { return Err(RuleFault::Unclosed { at }) };
        let path = Path::compile(inside.trim())?;
        if !path.is_singular() {
            return Err(RuleFault::NotSingular);
        }
        if !before.is_empty() {
            parts.push(Part::Text(before.into()));
        }
        parts.push(Part::Path(path));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.into()));
    }
    Ok(parts.into())
}

/// Names joined by dots.
pub(super) fn split_dots(text: &str) -> Result<Vec<&str>, RuleFault> {
    RuleFault::check_bound(text.len(), 1, PATH_BYTES_MAX)?;
    let names: Vec<&str> = text.split('.').collect();
    if names.iter().any(|name| name.is_empty()) {
        return Err(RuleFault::Dots);
    }
    RuleFault::check_bound(names.len(), 1, PATH_SEGMENTS_MAX)?;
    Ok(names)
}
