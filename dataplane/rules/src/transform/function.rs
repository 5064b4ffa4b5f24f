//! The ten functions that a field's value may pass through. Each takes one type and says so if it gets another.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use time::format_description::well_known::Rfc3339;
use time::format_description::{OwnedFormatItem, parse_strftime_owned};
use time::{OffsetDateTime, UtcOffset};

use super::FunctionFault;
use super::source::Found;
use crate::document::Steps;
use crate::pattern::string_form;
use crate::rule_error::RuleFault;
use crate::{Fault, Pattern};

/// Longest string that a function or template makes, bytes.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;
/// Most elements that `split` makes and `join` takes.
pub const ITEMS_MAX: usize = 10_000;
/// Longest argument of a function, bytes.
const ARGUMENT_BYTES_MAX: usize = 256;
/// Bytes worked on for one step.
const BYTES_PER_STEP: usize = 32;

/// One function as configured: its name, or its name with its arguments.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RawFunction {
    /// A string in lower case (Unicode).
    Lowercase,
    /// A string in upper case (Unicode).
    Uppercase,
    /// A string without white space at its ends.
    Trim,
    /// A string to an array, at each separator.
    Split(String),
    /// An array of scalars to a string, the separator between them.
    Join(String),
    /// A scalar as text.
    ToString,
    /// A string that is a JSON number.
    ToNumber,
    /// A time, written in UTC.
    FormatDate(RawFormatDate),
    /// Every occurrence of a text.
    Replace(RawReplace),
    /// The first group of the first match, or all of it; missing if there is none.
    Extract(String),
}

/// Arguments of `formatDate`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawFormatDate {
    /// What the value is.
    #[serde(default)]
    pub from: TimeForm,
    /// strftime, such as `%Y-%m-%d`.
    pub to: String,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeForm {
    /// A string by RFC 3339.
    #[default]
    Rfc3339,
    /// An integer of seconds since 1970.
    Seconds,
    /// An integer of milliseconds since 1970.
    Milliseconds,
}

/// Arguments of `replace`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawReplace {
    /// The text, not a pattern.
    pub from: String,
    /// What stands for it.
    pub to: String,
}

#[derive(Clone, Debug)]
pub(super) enum Function {
    Lowercase,
    Uppercase,
    Trim,
    Split(Box<str>),
    Join(Box<str>),
    ToString,
    ToNumber,
    FormatDate(TimeForm, OwnedFormatItem),
    Replace { from: Box<str>, to: Box<str> },
    Extract(Pattern),
}

/// Why a value could not be made.
pub(super) enum Refusal {
    Function(FunctionFault),
    Evaluation(Fault),
}

impl From<FunctionFault> for Refusal {
    fn from(fault: FunctionFault) -> Self {
        Self::Function(fault)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Evaluation(fault)
    }
}

impl Function {
    pub(super) fn is_extract(&self) -> bool {
        matches!(self, Self::Extract(_))
    }

    pub(super) fn compile(raw: &RawFunction) -> Result<Self, RuleFault> {
        let argument = |text: &str, least: usize| -> Result<Box<str>, RuleFault> {
            RuleFault::check_bound(text.len(), least, ARGUMENT_BYTES_MAX)?;
            Ok(text.into())
        };
        Ok(match raw {
            RawFunction::Lowercase => Self::Lowercase,
            RawFunction::Uppercase => Self::Uppercase,
            RawFunction::Trim => Self::Trim,
            RawFunction::Split(separator) => Self::Split(argument(separator, 1)?),
            RawFunction::Join(separator) => Self::Join(argument(separator, 0)?),
            RawFunction::ToString => Self::ToString,
            RawFunction::ToNumber => Self::ToNumber,
            RawFunction::FormatDate(RawFormatDate { from, to }) => {
                argument(to, 1)?;
                let format = parse_strftime_owned(to).map_err(|_| RuleFault::DateFormat)?;
                let Ok(_) = OffsetDateTime::UNIX_EPOCH.format(&format) else {
                    return Err(RuleFault::DateFormat);
                };
                Self::FormatDate(*from, format)
            }
            RawFunction::Replace(RawReplace { from, to }) => {
                Self::Replace { from: argument(from, 1)?, to: argument(to, 0)? }
            }
            RawFunction::Extract(pattern) => Self::Extract(Pattern::compile(pattern)?),
        })
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
            Self::Trim => "trim",
            Self::Split(_) => "split",
            Self::Join(_) => "join",
            Self::ToString => "toString",
            Self::ToNumber => "toNumber",
            Self::FormatDate(..) => "formatDate",
            Self::Replace { .. } => "replace",
            Self::Extract(_) => "extract",
        }
    }

    /// The value it makes; none only if `extract` finds nothing.
    pub(super) fn apply(&self, found: &Found<'_>, steps: &Steps) -> Result<Option<Value>, Refusal> {
        if let Some(Value::String(text)) = found.value() {
            steps.take(1 + text.len() / BYTES_PER_STEP)?;
        }
        Ok(Some(match self {
            Self::Lowercase => bounded(string(found)?.to_lowercase())?,
            Self::Uppercase => bounded(string(found)?.to_uppercase())?,
            Self::Trim => bounded(string(found)?.trim().to_owned())?,
            Self::Split(separator) => split(string(found)?, separator)?,
            Self::Join(separator) => join(found, separator, steps)?,
            Self::ToString => bounded(scalar(found)?.into_owned())?,
            Self::ToNumber => to_number(found)?,
            Self::FormatDate(form, format) => format_date(found, *form, format)?,
            Self::Replace { from, to } => replace(string(found)?, from, to)?,
            Self::Extract(pattern) => match pattern.extract(string(found)?, steps)? {
                Some(text) => bounded(text.to_owned())?,
                None => return Ok(None),
            },
        }))
    }
}

fn string<'f>(found: &'f Found<'_>) -> Result<&'f str, FunctionFault> {
    let text = found.value().and_then(Value::as_str);
    text.ok_or(FunctionFault::Type { needs: "a string", got: found.kind() })
}

fn scalar<'f>(found: &'f Found<'_>) -> Result<Cow<'f, str>, FunctionFault> {
    let text = found.value().and_then(|value| string_form(value).ok());
    text.ok_or(FunctionFault::Type { needs: "a scalar", got: found.kind() })
}

fn bounded(text: String) -> Result<Value, FunctionFault> {
    if text.len() > VALUE_BYTES_MAX {
        return Err(FunctionFault::TooLong);
    }
    Ok(Value::String(text))
}

fn split(text: &str, separator: &str) -> Result<Value, FunctionFault> {
    if text.split(separator).take(ITEMS_MAX + 1).count() > ITEMS_MAX {
        return Err(FunctionFault::TooManyItems);
    }
    Ok(Value::Array(text.split(separator).map(|part| Value::String(part.to_owned())).collect()))
}

fn join(found: &Found<'_>, separator: &str, steps: &Steps) -> Result<Value, Refusal> {
    let needs = "an array of scalars";
    let items = found.items().ok_or(FunctionFault::Type { needs, got: found.kind() })?;
    if items.len() > ITEMS_MAX {
        return Err(FunctionFault::TooManyItems.into());
    }
    steps.take(items.len())?;
    let mut text = String::new();
    for (at, item) in items.iter().enumerate() {
        let item = string_form(item).map_err(|got| FunctionFault::Type { needs, got })?;
        if text.len() + separator.len() + item.len() > VALUE_BYTES_MAX {
            return Err(FunctionFault::TooLong.into());
        }
        if at > 0 {
            text.push_str(separator);
        }
        text.push_str(&item);
    }
    Ok(Value::String(text))
}

fn to_number(found: &Found<'_>) -> Result<Value, FunctionFault> {
    let got = found.kind();
    match found.value() {
        Some(number @ Value::Number(_)) => Ok(number.clone()),
        Some(Value::String(text)) => {
            text.parse::<Number>().map(Value::Number).map_err(|_| FunctionFault::NotNumber { got })
        }
        _ => Err(FunctionFault::Type { needs: "a string or number", got }),
    }
}

fn format_date(found: &Found<'_>, form: TimeForm, format: &OwnedFormatItem) -> Result<Value, FunctionFault> {
    let got = found.kind();
    let integer = || {
        let number = found.value().and_then(Value::as_i64);
        number.ok_or(FunctionFault::Type { needs: "an integer", got })
    };
    let time = match form {
        TimeForm::Rfc3339 => {
            let time = OffsetDateTime::parse(string(found)?, &Rfc3339).ok();
            time.and_then(|time| time.checked_to_offset(UtcOffset::UTC))
        }
        TimeForm::Seconds => OffsetDateTime::from_unix_timestamp(integer()?).ok(),
        TimeForm::Milliseconds => {
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(integer()?) * 1_000_000).ok()
        }
    };
    let text = time.and_then(|time| time.format(format).ok());
    text.map(Value::String).ok_or(FunctionFault::NotTime { got })
}

fn replace(text: &str, from: &str, to: &str) -> Result<Value, FunctionFault> {
    let count = text.matches(from).count();
    if text.len() - count * from.len() + count * to.len() > VALUE_BYTES_MAX {
        return Err(FunctionFault::TooLong);
    }
    Ok(Value::String(text.replace(from, to)))
}
