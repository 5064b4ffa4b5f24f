//! A body that is parsed on first use, at most once, within bounds; and the steps an evaluation may take.
//!
//! Refused: what is not JSON (RFC 8259), longer than an event's body may be, deeper than [`DEPTH_MAX`], of more
//! than [`NODES_MAX`] values, or with a member twice: whoever reads it next might take the other one.

use std::cell::{Cell, OnceCell};
use std::fmt;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use zen_core::event::BODY_BYTES_MAX;

/// Deepest nesting of arrays and objects.
pub const DEPTH_MAX: u32 = 100;
/// Most values in a body. A value takes 664 bytes at worst (an object of one member), 22 MB together.
pub const NODES_MAX: u32 = 65_536;
/// What the dearest body takes while rules look at it, bytes: an array of them, which grows by doubling.
pub const DOCUMENT_BYTES_MAX: usize = 24_000_000;
/// Most steps for one event: about one for each look at a value, and for each 8 bytes that a regex searches.
pub const STEPS_MAX: u32 = 262_144;

// One `$..*` fits, whatever the body: three steps a value.
const _: () = assert!(STEPS_MAX > 3 * NODES_MAX);

// The parser's own bound, beyond which it would refuse without saying why.
const _: () = assert!(DEPTH_MAX < 127);

/// Why a condition or field of a body could not be evaluated. All are the source's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// More bytes than the flow, or any event, may have.
    #[error("the body has {bytes} bytes, at most {bytes_max} are looked at")]
    BodyTooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// Not JSON.
    #[error("the body is not JSON from line {line}, column {column}")]
    NotJson {
        /// Line, from 1.
        line: usize,
        /// Byte in the line, from 1; 0 before the first.
        column: usize,
    },
    /// A member's name twice in an object.
    #[error("the body has a member twice, the second up to line {line}, column {column}")]
    DuplicateMember {
        /// Line, from 1.
        line: usize,
        /// Byte in the line.
        column: usize,
    },
    /// Too deep.
    #[error("the body nests deeper than {depth_max}")]
    TooDeep {
        /// The bound.
        depth_max: u32,
    },
    /// Too many values.
    #[error("the body has more than {NODES_MAX} values")]
    TooManyNodes,
    /// Evaluation was given up.
    #[error("evaluation took more than {STEPS_MAX} steps")]
    TooManySteps,
}

impl Fault {
    /// A metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BodyTooLong { .. } => "body_too_long",
            Self::NotJson { .. } => "not_json",
            Self::DuplicateMember { .. } => "duplicate_member",
            Self::TooDeep { .. } => "too_deep",
            Self::TooManyNodes => "too_many_nodes",
            Self::TooManySteps => "too_many_steps",
        }
    }
}

/// The body of one event.
#[derive(Debug)]
pub struct Document<'a> {
    body: &'a [u8],
    parsed: OnceCell<Result<Parsed, Fault>>,
}

#[derive(Debug)]
struct Parsed {
    value: Value,
    depth: u32,
}

impl<'a> Document<'a> {
    /// Looks at nothing yet.
    pub const fn new(body: &'a [u8]) -> Self {
        Self { body, parsed: OnceCell::new() }
    }

    /// The bytes.
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Whether anybody asked for its JSON.
    pub fn is_parsed(&self) -> bool {
        self.parsed.get().is_some()
    }

    /// The JSON.
    pub fn value(&self) -> Result<&Value, Fault> {
        self.parsed().map(|parsed| &parsed.value)
    }

    /// The JSON, if the body is within narrower bounds.
    pub(crate) fn value_within(&self, bytes_max: usize, depth_max: u32) -> Result<&Value, Fault> {
        if self.body.len() > bytes_max {
            return Err(Fault::BodyTooLong { bytes: self.body.len(), bytes_max });
        }
        let parsed = self.parsed()?;
        if parsed.depth > depth_max {
            return Err(Fault::TooDeep { depth_max });
        }
        Ok(&parsed.value)
    }

    fn parsed(&self) -> Result<&Parsed, Fault> {
        self.parsed.get_or_init(|| Parsed::from_body(self.body)).as_ref().map_err(|fault| *fault)
    }
}

impl Parsed {
    fn from_body(body: &[u8]) -> Result<Self, Fault> {
        if body.len() > BODY_BYTES_MAX {
            return Err(Fault::BodyTooLong { bytes: body.len(), bytes_max: BODY_BYTES_MAX });
        }
        let progress = Progress::default();
        let mut parser = serde_json::Deserializer::from_slice(body);
        let seed = Builder { progress: &progress, depth: 0 };
        let value = seed.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
        match value {
            Ok(value) => Ok(Self { value, depth: progress.depth.get() }),
            Err(error) => Err(match progress.refusal.get() {
                Some(Refusal::Depth) => Fault::TooDeep { depth_max: DEPTH_MAX },
                Some(Refusal::Nodes) => Fault::TooManyNodes,
                Some(Refusal::Duplicate) => {
                    Fault::DuplicateMember { line: error.line(), column: error.column() }
                }
                None => Fault::NotJson { line: error.line(), column: error.column() },
            }),
        }
    }
}

#[derive(Clone, Copy)]
enum Refusal {
    Depth,
    Nodes,
    Duplicate,
}

/// Counts while the value is built.
#[derive(Default)]
struct Progress {
    nodes: Cell<u32>,
    depth: Cell<u32>,
    refusal: Cell<Option<Refusal>>,
}

#[derive(Clone, Copy)]
struct Builder<'p> {
    progress: &'p Progress,
    depth: u32,
}

impl Builder<'_> {
    /// One array or object further in.
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > DEPTH_MAX {
            return Err(self.refuse(Refusal::Depth));
        }
        self.progress.depth.set(self.progress.depth.get().max(depth));
        Ok(Self { depth, ..self })
    }

    fn refuse<E: serde::de::Error>(self, refusal: Refusal) -> E {
        self.progress.refusal.set(Some(refusal));
        E::custom("refused")
    }
}

impl<'de> DeserializeSeed<'de> for Builder<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let nodes = self.progress.nodes.get() + 1;
        if nodes > NODES_MAX {
            return Err(self.refuse(Refusal::Nodes));
        }
        self.progress.nodes.set(nodes);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Builder<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(inner)?;
            if object.insert(name, value).is_some() {
                return Err(self.refuse(Refusal::Duplicate));
            }
        }
        Ok(Value::Object(object))
    }
}

/// What is left to look at.
#[derive(Debug)]
pub(crate) struct Steps(Cell<u32>);

impl Steps {
    pub(crate) const fn new() -> Self {
        Self(Cell::new(STEPS_MAX))
    }

    pub(crate) fn take(&self, count: usize) -> Result<(), Fault> {
        let left = u32::try_from(count).ok().and_then(|count| self.0.get().checked_sub(count));
        // What is used up stays used up: later and cheaper questions fail, too.
        self.0.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or(Fault::TooManySteps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &str) -> Fault {
        Document::new(body.as_bytes()).value().unwrap_err()
    }

    #[test]
    fn what_is_json_is_as_serde_json_reads_it() {
        for text in ["null", "[]", " {\"a\":[1,-2,3.5,1e3,\"\\u00e9\",true,{}]} ", "18446744073709551615"] {
            let document = Document::new(text.as_bytes());
            assert!(!document.is_parsed());
            assert_eq!(*document.value().unwrap(), serde_json::from_str::<Value>(text).unwrap());
            assert!(document.is_parsed());
        }
    }

    #[test]
    fn depth_is_refused_at_its_bound_and_at_ten_thousand() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let deepest = nested(DEPTH_MAX as usize);
        let document = Document::new(deepest.as_bytes());
        assert!(document.value().is_ok());
        assert_eq!(document.value_within(1000, DEPTH_MAX - 1), Err(Fault::TooDeep { depth_max: 99 }));
        for depth in [DEPTH_MAX as usize + 1, 128, 10_000] {
            assert_eq!(fault(&nested(depth)), Fault::TooDeep { depth_max: DEPTH_MAX }, "{depth}");
        }
        let objects = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
        assert_eq!(fault(&objects), Fault::TooDeep { depth_max: DEPTH_MAX });
    }

    #[test]
    fn length_and_values_are_bounded() {
        let values = |count: usize| format!("[{}0]", "0,".repeat(count - 2));
        assert!(Document::new(values(NODES_MAX as usize).as_bytes()).value().is_ok());
        assert_eq!(fault(&values(NODES_MAX as usize + 1)), Fault::TooManyNodes);
        let long = format!("\"{}\"", "a".repeat(BODY_BYTES_MAX));
        assert!(matches!(fault(&long), Fault::BodyTooLong { .. }));
    }

    #[test]
    fn what_is_not_json_says_where() {
        assert_eq!(fault(""), Fault::NotJson { line: 1, column: 0 });
        assert_eq!(fault("{\"a\":\n nul}"), Fault::NotJson { line: 2, column: 5 });
        for text in ["[1] 2", "{a:1}", "[1,]", "NaN", "1e999", "\"\\ud800\"", "\u{feff}1", "'a'"] {
            assert!(matches!(fault(text), Fault::NotJson { .. }), "{text}");
        }
        assert!(matches!(fault("{\"a\":1,\"\\u0061\":2}"), Fault::DuplicateMember { line: 1, .. }));
        assert!(matches!(Document::new(b"\"\xff\"").value(), Err(Fault::NotJson { .. })));
    }

    #[test]
    fn steps_run_out_for_good() {
        let steps = Steps::new();
        assert_eq!(steps.take(STEPS_MAX as usize), Ok(()));
        assert_eq!(steps.take(0), Ok(()));
        let steps = Steps::new();
        assert_eq!(steps.take(STEPS_MAX as usize + 1), Err(Fault::TooManySteps));
        assert_eq!(steps.take(1), Err(Fault::TooManySteps));
    }
}
