//! The output: fields at their places, written without copying them, and no further than the bound.

use std::io;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::source::Found;
use crate::rule_error::RuleFault;

/// The output's objects; members in the order of the configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    members: Vec<(Box<str>, Place)>,
}

#[derive(Clone, Debug)]
enum Place {
    Inner(Shape),
    Field(usize),
}

/// What becomes of a field.
#[derive(Clone, Debug)]
pub(super) enum Written<'v> {
    Value(Found<'v>),
    Omitted,
}

impl Written<'_> {
    /// Bytes that were made for it, and are held until the output is written.
    pub(super) fn made_bytes(&self) -> usize {
        match self {
            Self::Value(found) => found.made_bytes(),
            Self::Omitted => 0,
        }
    }
}

impl Shape {
    /// Puts a field at its place; refused if another is there or on the way.
    pub(super) fn place(&mut self, to: &[&str], field: usize) -> Result<(), RuleFault> {
        let Some((name, rest)) = to.split_first() else { return Err(RuleFault::Overlaps) };
        let known = self.members.iter_mut().find(|(known, _)| **known == **name);
        match (known, rest) {
            (None, []) => self.members.push(((*name).into(), Place::Field(field))),
            (None, rest) => {
                let mut inner = Self::default();
                inner.place(rest, field)?;
                self.members.push(((*name).into(), Place::Inner(inner)));
            }
            (Some((_, Place::Inner(inner))), rest @ [_, ..]) => inner.place(rest, field)?,
            (Some(_), _) => return Err(RuleFault::Overlaps),
        }
        Ok(())
    }
}

/// The JSON, or none if it would be longer.
pub(super) fn write(shape: &Shape, values: &[Written<'_>], bytes_max: usize) -> Option<Vec<u8>> {
    let mut bounded = Bounded { bytes: Vec::new(), bytes_max };
    serde_json::to_writer(&mut bounded, &View { shape, values }).ok()?;
    Some(bounded.bytes)
}

struct View<'a, 'v> {
    shape: &'a Shape,
    values: &'a [Written<'v>],
}

impl View<'_, '_> {
    /// Whether every field in it is left out.
    fn is_omitted(&self) -> bool {
        self.shape.members.iter().all(|(_, place)| match place {
            Place::Inner(shape) => View { shape, values: self.values }.is_omitted(),
            Place::Field(field) => matches!(self.values[*field], Written::Omitted),
        })
    }
}

impl Serialize for View<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, place) in &self.shape.members {
            match place {
                Place::Inner(shape) => {
                    let inner = View { shape, values: self.values };
                    if !inner.is_omitted() {
                        map.serialize_entry(name, &inner)?;
                    }
                }
                Place::Field(field) => {
                    if let Written::Value(value) = &self.values[*field] {
                        map.serialize_entry(name, value)?;
                    }
                }
            }
        }
        map.end()
    }
}

/// Takes bytes up to a bound.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
