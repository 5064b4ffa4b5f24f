//! Transforms: a new JSON body made of fields, each from a source and a chain of functions.
//!
//! The body enters; a new one leaves, with its content type. The original stays with the caller. Refused: a
//! field that is missing and may not be, a value that a function cannot take, an output that grows over its bound.
//! Errors name field, function and what it got by type and length, never by value.

mod compile;
mod function;
mod source;
#[cfg(test)]
mod tests;
mod write;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::Steps;
use crate::{Document, Fault, Kind};

pub use function::{ITEMS_MAX, RawFormatDate, RawFunction, RawReplace, TimeForm, VALUE_BYTES_MAX};
pub use source::TEMPLATE_BYTES_MAX;

use function::{Function, Refusal};
use source::{Found, Source};
use write::{Shape, Written};

/// Most fields of one transform.
pub const FIELDS_MAX: usize = 64;
/// Most functions of one field.
pub const FUNCTIONS_MAX: usize = 8;
/// Deepest place of a field in the output.
pub(crate) const TO_DEPTH_MAX: usize = 8;

/// One transform as configured.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawTransform {
    /// What the output is sent as.
    #[serde(default = "RawTransform::default_content_type")]
    pub content_type: String,
    /// Longest output, bytes.
    #[serde(default = "RawTransform::default_output_bytes_max")]
    pub output_bytes_max: u32,
    /// What the output is made of.
    pub fields: Vec<RawField>,
}

impl RawTransform {
    /// Default of `content_type`.
    pub fn default_content_type() -> String {
        "application/json".to_owned()
    }

    /// Default of `output_bytes_max`.
    pub const fn default_output_bytes_max() -> u32 {
        64 * 1024
    }
}

/// One field as configured: one of `direct`, `jsonpath`, `static` and `template`, and where it goes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawField {
    /// Its place in the output, names joined by dots; with `direct` the same as there if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// A value of the body by names and array indices joined by dots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<String>,
    /// A value of the body, or an array of all that are selected if the path may select several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jsonpath: Option<String>,
    /// A value of its own.
    #[serde(rename = "static", skip_serializing_if = "Option::is_none")]
    pub constant: Option<Value>,
    /// Text with `{{ $.path }}` in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Applied in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<RawFunction>,
    /// If the body has no such value.
    #[serde(default)]
    pub on_missing: OnMissing,
}

/// What becomes of a field that the body does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMissing {
    /// The transform fails.
    #[default]
    Error,
    /// The field is `null`.
    Null,
    /// The field is left out.
    Omit,
}

/// A compiled transform.
#[derive(Clone, Debug)]
pub struct Transform {
    content_type: Box<str>,
    output_bytes_max: usize,
    fields: Box<[Field]>,
    /// Where each field goes, by its place among the fields.
    shape: Shape,
}

#[derive(Clone, Debug)]
struct Field {
    to: Box<str>,
    source: Source,
    functions: Box<[Function]>,
    on_missing: OnMissing,
}

/// What a target gets instead of the body as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transformed<'t> {
    /// JSON.
    pub body: Vec<u8>,
    /// What it is sent as.
    pub content_type: &'t str,
}

/// Why there is no output. All are the event's doing, and sending it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransformError {
    /// The body cannot be looked at.
    #[error(transparent)]
    Body(#[from] Fault),
    /// One field cannot be made.
    #[error("field {field}: {fault}")]
    Field {
        /// Its place in the output, as configured.
        field: Box<str>,
        /// Why.
        #[source]
        fault: FieldFault,
    },
    /// The output is too long.
    #[error("the output has more than {bytes_max} bytes")]
    OutputTooLong {
        /// The bound.
        bytes_max: usize,
    },
}

/// Why a field cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldFault {
    /// The body does not have it.
    #[error("the body does not have it; on_missing can make it null or omit it")]
    Missing,
    /// A placeholder of a template found an array or object.
    #[error("a placeholder needs a scalar, got {got}")]
    Placeholder {
        /// What it got.
        got: Kind,
    },
    /// The value grew over the bound.
    #[error("its value has more than {VALUE_BYTES_MAX} bytes")]
    TooLong,
    /// A function could not take what it got.
    #[error("{function}: {fault}")]
    Function {
        /// Its name.
        function: &'static str,
        /// Why.
        #[source]
        fault: FunctionFault,
    },
    /// Evaluation was given up.
    #[error(transparent)]
    Evaluation(#[from] Fault),
}

/// Why a function could not take what it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FunctionFault {
    /// The wrong type.
    #[error("needs {needs}, got {got}")]
    Type {
        /// What it takes.
        needs: &'static str,
        /// What it got.
        got: Kind,
    },
    /// A string that says no number.
    #[error("a {got} is no JSON number")]
    NotNumber {
        /// What it got.
        got: Kind,
    },
    /// No time, or one outside of the years 0 to 9999.
    #[error("a {got} is no time that can be read")]
    NotTime {
        /// What it got.
        got: Kind,
    },
    /// What it makes would have too many bytes.
    #[error("makes more than {VALUE_BYTES_MAX} bytes")]
    TooLong,
    /// What it makes would have too many elements.
    #[error("makes more than {ITEMS_MAX} elements")]
    TooManyItems,
}

impl TransformError {
    /// A metric label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Body(fault) => fault.label(),
            Self::OutputTooLong { .. } => "output_too_long",
            Self::Field { fault, .. } => match fault {
                FieldFault::Missing => "field_missing",
                FieldFault::Placeholder { .. } => "placeholder",
                FieldFault::TooLong => "value_too_long",
                FieldFault::Function { .. } => "function",
                FieldFault::Evaluation(fault) => fault.label(),
            },
        }
    }
}

impl Transform {
    /// Compiles a transform; `place` begins the way that errors name.
    pub fn compile(raw: &RawTransform, place: &str) -> Result<Self, crate::RuleError> {
        compile::compile(raw, place)
    }

    /// Makes the new body. The document's body is not touched.
    pub fn apply(&self, document: &Document<'_>) -> Result<Transformed<'_>, TransformError> {
        let root = document.value()?;
        let steps = Steps::new();
        let too_long = TransformError::OutputTooLong { bytes_max: self.output_bytes_max };
        let (mut values, mut made_bytes) = (Vec::with_capacity(self.fields.len()), 0);
        for field in &self.fields {
            let value = field
                .make(root, &steps)
                .map_err(|fault| TransformError::Field { field: field.to.clone(), fault })?;
            made_bytes += value.made_bytes();
            if made_bytes > self.output_bytes_max {
                return Err(too_long);
            }
            values.push(value);
        }
        let body = write::write(&self.shape, &values, self.output_bytes_max).ok_or(too_long)?;
        Ok(Transformed { body, content_type: &self.content_type })
    }

    /// Longest output, bytes.
    pub const fn output_bytes_max(&self) -> usize {
        self.output_bytes_max
    }

    /// How many regular expressions it holds, at most.
    pub fn patterns(&self) -> usize {
        let of = |field: &Field| {
            let extracts = field.functions.iter().filter(|function| function.is_extract()).count();
            field.source.patterns() + extracts
        };
        self.fields.iter().map(of).sum()
    }

    /// Whether it looks at the body at all.
    pub fn needs_json(&self) -> bool {
        self.fields.iter().any(|field| field.source.needs_json())
    }
}

impl Field {
    fn make<'v>(&'v self, root: &'v Value, steps: &Steps) -> Result<Written<'v>, FieldFault> {
        let mut found = self.source.find(root, steps)?;
        for function in &self.functions {
            let Some(value) = found else { break };
            let made = function.apply(&value, steps).map_err(|refusal| match refusal {
                Refusal::Evaluation(fault) => FieldFault::Evaluation(fault),
                Refusal::Function(fault) => FieldFault::Function { function: function.name(), fault },
            })?;
            found = made.map(Found::Owned);
        }
        match (found, self.on_missing) {
            (Some(value), _) => Ok(Written::Value(value)),
            (None, OnMissing::Error) => Err(FieldFault::Missing),
            (None, OnMissing::Null) => Ok(Written::Value(Found::Owned(Value::Null))),
            (None, OnMissing::Omit) => Ok(Written::Omitted),
        }
    }
}
