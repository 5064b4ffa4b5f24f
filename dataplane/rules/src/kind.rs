//! What a JSON value is, without what it says.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// Type and length of a value: all that errors and explanations tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// Any number.
    Number,
    /// A string.
    String {
        /// Length in UTF-8.
        bytes: usize,
    },
    /// An array.
    Array {
        /// Elements.
        items: usize,
    },
    /// An object.
    Object {
        /// Members.
        members: usize,
    },
}

impl Kind {
    /// The kind of a value.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::Number(_) => Self::Number,
            Value::String(text) => Self::String { bytes: text.len() },
            Value::Array(items) => Self::Array { items: items.len() },
            Value::Object(members) => Self::Object { members: members.len() },
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("null"),
            Self::Boolean => formatter.write_str("boolean"),
            Self::Number => formatter.write_str("number"),
            Self::String { bytes } => write!(formatter, "string of {bytes} bytes"),
            Self::Array { items } => write!(formatter, "array of {items}"),
            Self::Object { members } => write!(formatter, "object of {members}"),
        }
    }
}
