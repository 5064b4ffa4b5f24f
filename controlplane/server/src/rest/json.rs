//! Bodies: bytes in, an object of its type out; or where it is wrong, as a JSON pointer (RFC 6901).
//!
//! Refused beyond what JSON (RFC 8259) refuses: keys that are there twice, lone surrogates, depth over [`DEPTH_MAX`], fields that
//! the type does not have, and an array or null in place of an object, which serde would take.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Number, Value};
use serde_path_to_error::{Path, Segment};

use super::problem::Fault;
use crate::objects::FieldFault;

/// Deepest body.
pub(crate) const DEPTH_MAX: usize = 32;
/// Longest text of what is wrong with a field, characters.
pub(crate) const DETAIL_CHARACTERS_MAX: usize = 200;

/// Bytes as JSON.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Fault> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Strict { depth: DEPTH_MAX }.deserialize(&mut reader).and_then(|value| {
        reader.end()?;
        Ok(value)
    });
    read.map_err(|error| Fault::Malformed(format!("the body is not JSON: {}", cut(&error))))
}

/// JSON as an object of a type.
pub(crate) fn decode<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(Node(value))
        .map_err(|error| FieldFault::new(pointer(error.path()), cut(error.inner())).into())
}

/// What the error says of the request is the client's own, and may be long.
fn cut(error: &impl fmt::Display) -> String {
    error.to_string().chars().take(DETAIL_CHARACTERS_MAX).collect()
}

fn pointer(path: &Path) -> String {
    let steps = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    steps.flat_map(|step| ["/".to_owned(), step]).collect()
}

/// Any JSON whose keys are there once, so deep at most.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1);
        let depth = depth.ok_or_else(|| E::custom(format_args!("it is over {DEPTH_MAX} deep")))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is too large"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let (inner, mut values) = (self.deeper()?, Vec::new());
        while let Some(value) = items.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let (inner, mut values) = (self.deeper()?, Map::new());
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(inner)?;
            if values.insert(key, value).is_some() {
                return Err(A::Error::custom("a key is there twice"));
            }
        }
        Ok(Value::Object(values))
    }
}

/// A value that becomes a struct only if it is an object, and a map only if it is there.
struct Node(Value);

impl<'de> Deserializer<'de> for Node {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(values) => visitor.visit_seq(SeqDeserializer::new(values.into_iter().map(Node))),
            Value::Object(fields) => visitor.visit_map(MapDeserializer::new(nodes(fields))),
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(_) => Err(Self::Error::invalid_type(Unexpected::Seq, &"an object")),
            other => Self(other).deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.0.is_null() {
            return Err(Self::Error::invalid_type(Unexpected::Unit, &"an object"));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Object(fields) if fields.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(MapDeserializer::new(nodes(fields))))
            }
            other => other.deserialize_enum(name, variants, visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct identifier ignored_any
    }
}

impl IntoDeserializer<'_, serde_json::Error> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

fn nodes(fields: Map<String, Value>) -> impl Iterator<Item = (String, Node)> {
    fields.into_iter().map(|(name, value)| (name, Node(value)))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn what_is_read_is_what_another_reader_reads() {
        for text in ["null", " {\"a\": [1, -2, 0.5, true, \"\\u0000ü\", {}]} ", "[]", "18446744073709551615"]
        {
            assert_eq!(
                parse(text.as_bytes()).unwrap(),
                serde_json::from_str::<Value>(text).unwrap(),
                "{text}"
            );
        }
        let deepest = "[".repeat(DEPTH_MAX) + &"]".repeat(DEPTH_MAX);
        assert!(parse(deepest.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_ambiguous_or_too_deep_is_refused() {
        let deep = "[".repeat(DEPTH_MAX + 1) + &"]".repeat(DEPTH_MAX + 1);
        let deeper = "[".repeat(100_000);
        let texts: [&[u8]; 12] = [
            b"",
            b"{",
            b"{} {}",
            br#"{"a": 1, "a": 1}"#,
            br#"[{"b": {"a": 1, "\u0061": 2}}]"#,
            br#""\ud800""#,
            b"\"\xff\"",
            b"1e400",
            b"NaN",
            b"\xef\xbb\xbf{}",
            deep.as_bytes(),
            deeper.as_bytes(),
        ];
        for text in texts {
            assert!(matches!(parse(text), Err(Fault::Malformed(_))), "{:?}", text.get(..40).unwrap_or(text));
        }
    }

    #[test]
    fn a_fault_says_where_it_is() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Inner {
            #[allow(dead_code, reason = "only read")]
            number: u8,
        }
        for (text, expected) in [
            (r#"{"a/b": [{"number": 1}, {"number": "x"}]}"#, "/a~1b/1/number"),
            (r#"{"a~": [{}]}"#, "/a~0/0"),
            (r#"{"a": [{"number": 1, "more": 2}]}"#, "/a/0/more"),
            ("[]", ""),
            (r#"{"a": [[1]]}"#, "/a/0"),
        ] {
            let value = parse(text.as_bytes()).unwrap();
            let read = decode::<std::collections::BTreeMap<String, Vec<Inner>>>(value);
            let Err(Fault::Fields(faults)) = read else { panic!("{read:?}") };
            assert_eq!(faults[0].pointer, expected, "{text}");
        }
    }
}
