//! The walk over a document, every look at a value counted.
//!
//! Depth first, which yields the same order as the node lists of RFC 9535 section 2.1.2, without holding them.
//! Recursion is bounded: by the document's depth and the segments, once for each filter within a filter.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::ControlFlow;

use serde_json::{Number, Value};

use super::{Comparison, From, Logic, Operand, Query, Segment, Selector};
use crate::Fault;
use crate::document::Steps;

/// Bytes of strings compared for one step.
const BYTES_PER_STEP: usize = 64;

type Visit<'v, 'd> = &'v mut dyn FnMut(&'d Value) -> ControlFlow<()>;

/// Whether the walk goes on, or why it cannot.
type Step = Result<ControlFlow<()>, Fault>;

#[derive(Clone, Copy)]
pub(super) struct Walk<'d, 's> {
    pub(super) root: &'d Value,
    pub(super) steps: &'s Steps,
}

impl<'d> Walk<'d, '_> {
    /// Shows what the segments select from a value.
    pub(super) fn run(
        &self,
        segments: &[Segment],
        node: &'d Value,
        visit: Visit<'_, 'd>,
    ) -> Result<(), Fault> {
        self.steps.take(1)?;
        self.walk(segments, node, visit).map(|_| ())
    }

    fn walk(&self, segments: &[Segment], node: &'d Value, visit: Visit<'_, 'd>) -> Step {
        match segments.split_first() {
            None => Ok(visit(node)),
            Some((Segment::Child(selectors), rest)) => self.select_each(selectors, rest, node, visit),
            Some((Segment::Descendant(selectors), rest)) => self.descend(selectors, rest, node, visit),
        }
    }

    fn descend(
        &self,
        selectors: &[Selector],
        rest: &[Segment],
        node: &'d Value,
        visit: Visit<'_, 'd>,
    ) -> Step {
        if self.select_each(selectors, rest, node, visit)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.each_child(node, &mut |child| self.descend(selectors, rest, child, visit))
    }

    fn select_each(
        &self,
        selectors: &[Selector],
        rest: &[Segment],
        node: &'d Value,
        visit: Visit<'_, 'd>,
    ) -> Step {
        for selector in selectors {
            self.steps.take(1)?;
            if self.select(selector, rest, node, visit)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn select(&self, selector: &Selector, rest: &[Segment], node: &'d Value, visit: Visit<'_, 'd>) -> Step {
        match selector {
            Selector::Name(name) => match node.get(&**name) {
                Some(child) => self.walk(rest, child, visit),
                None => Ok(ControlFlow::Continue(())),
            },
            Selector::Index(index) => match node.as_array().and_then(|items| at(items, *index)) {
                Some(child) => self.walk(rest, child, visit),
                None => Ok(ControlFlow::Continue(())),
            },
            Selector::Wildcard => self.each_child(node, &mut |child| self.walk(rest, child, visit)),
            Selector::Slice { start, end, step } => {
                let Value::Array(items) = node else { return Ok(ControlFlow::Continue(())) };
                for index in slice(items.len(), *start, *end, *step) {
                    self.steps.take(1)?;
                    if self.walk(rest, &items[index], visit)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
            Selector::Filter(logic) => self.each_child(node, &mut |child| {
                if self.holds(logic, child)? {
                    return self.walk(rest, child, visit);
                }
                Ok(ControlFlow::Continue(()))
            }),
        }
    }

    fn each_child(&self, node: &'d Value, step: &mut dyn FnMut(&'d Value) -> Step) -> Step {
        let mut visit = |child| {
            self.steps.take(1)?;
            step(child)
        };
        match node {
            Value::Array(items) => each(items.iter(), &mut visit),
            Value::Object(members) => each(members.values(), &mut visit),
            _ => Ok(ControlFlow::Continue(())),
        }
    }

    fn holds(&self, logic: &Logic, current: &'d Value) -> Result<bool, Fault> {
        self.steps.take(1)?;
        match logic {
            Logic::Any(parts) => {
                for part in parts {
                    if self.holds(part, current)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Logic::All(parts) => {
                for part in parts {
                    if !self.holds(part, current)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Logic::Not(part) => Ok(!self.holds(part, current)?),
            Logic::Exists(query) => Ok(self.first(query, current)?.is_some()),
            Logic::Matches(text, pattern) => match self.operand(text, current)?.as_deref() {
                Some(Value::String(text)) => pattern.is_match(text, self.steps),
                _ => Ok(false),
            },
            Logic::Compare(left, comparison, right) => {
                let (left, right) = (self.operand(left, current)?, self.operand(right, current)?);
                self.compare(left.as_deref(), *comparison, right.as_deref())
            }
        }
    }

    fn operand<'o>(&self, operand: &'o Operand, current: &'d Value) -> Result<Option<Cow<'o, Value>>, Fault>
    where
        'd: 'o,
    {
        Ok(match operand {
            Operand::Literal(value) => Some(Cow::Borrowed(value)),
            Operand::Singular(query) => self.first(query, current)?.map(Cow::Borrowed),
            Operand::Only(query) => {
                let (only, count) = self.count(query, current, 2)?;
                only.filter(|_| count == 1).map(Cow::Borrowed)
            }
            Operand::Count(query) => {
                let (_, count) = self.count(query, current, usize::MAX)?;
                Some(Cow::Owned(Value::Number(count.into())))
            }
            Operand::Length(inner) => {
                let length = match self.operand(inner, current)?.as_deref() {
                    Some(Value::String(text)) => {
                        self.steps.take(text.len() / BYTES_PER_STEP)?;
                        Some(text.chars().count())
                    }
                    Some(Value::Array(items)) => Some(items.len()),
                    Some(Value::Object(members)) => Some(members.len()),
                    _ => None,
                };
                length.map(|length| Cow::Owned(Value::Number(length.into())))
            }
        })
    }

    fn first(&self, query: &Query, current: &'d Value) -> Result<Option<&'d Value>, Fault> {
        self.count(query, current, 1).map(|(first, _)| first)
    }

    /// The first value selected, and how many there are, up to `most`.
    fn count(
        &self,
        query: &Query,
        current: &'d Value,
        most: usize,
    ) -> Result<(Option<&'d Value>, usize), Fault> {
        let start = match query.from {
            From::Root => self.root,
            From::Current => current,
        };
        let (mut first, mut count) = (None, 0);
        self.run(&query.segments, start, &mut |value| {
            first = first.or(Some(value));
            count += 1;
            if count < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok((first, count))
    }

    /// RFC 9535 section 2.3.5.2.2; `None` is a query that selected nothing.
    fn compare(
        &self,
        left: Option<&Value>,
        comparison: Comparison,
        right: Option<&Value>,
    ) -> Result<bool, Fault> {
        let equal = || match (left, right) {
            (None, None) => Ok(true),
            (Some(left), Some(right)) => equal(left, right, self.steps),
            _ => Ok(false),
        };
        let less = |left: Option<&Value>, right: Option<&Value>| match (left, right) {
            (Some(Value::Number(left)), Some(Value::Number(right))) => {
                Ok(order(left, right) == Some(Ordering::Less))
            }
            (Some(Value::String(left)), Some(Value::String(right))) => {
                self.steps.take(left.len().min(right.len()) / BYTES_PER_STEP)?;
                Ok(left < right)
            }
            _ => Ok(false),
        };
        Ok(match comparison {
            Comparison::Equal => equal()?,
            Comparison::NotEqual => !equal()?,
            Comparison::Less => less(left, right)?,
            Comparison::LessOrEqual => less(left, right)? || equal()?,
            Comparison::Greater => less(right, left)?,
            Comparison::GreaterOrEqual => less(right, left)? || equal()?,
        })
    }
}

/// Equality as RFC 9535 has it: numbers by value, objects without order.
pub(crate) fn equal(left: &Value, right: &Value, steps: &Steps) -> Result<bool, Fault> {
    steps.take(1)?;
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => Ok(order(left, right) == Some(Ordering::Equal)),
        (Value::String(left), Value::String(right)) => {
            steps.take(left.len().min(right.len()) / BYTES_PER_STEP)?;
            Ok(left == right)
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (left, right) in left.iter().zip(right) {
                if !equal(left, right, steps)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::Object(left), Value::Object(right)) if left.len() == right.len() => {
            for (name, left) in left {
                let Some(right) = right.get(name) else { return Ok(false) };
                if !equal(left, right, steps)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        (Value::Null, Value::Null) => Ok(true),
        _ => Ok(false),
    }
}

/// Integers exactly; anything with a fraction or exponent as doubles.
fn order(left: &Number, right: &Number) -> Option<Ordering> {
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn integer(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn each<'d>(children: impl Iterator<Item = &'d Value>, step: &mut dyn FnMut(&'d Value) -> Step) -> Step {
    for child in children {
        if step(child)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn at(items: &[Value], index: i64) -> Option<&Value> {
    let index = if index < 0 { signed(items.len()) + index } else { index };
    items.get(usize::try_from(index).ok()?)
}

/// The indices of a slice (RFC 9535 section 2.3.4.2.2).
fn slice(len: usize, start: Option<i64>, end: Option<i64>, step: i64) -> impl Iterator<Item = usize> {
    let len = signed(len);
    let normal = |index: i64| if index < 0 { len + index } else { index };
    let (mut at, last) = if step >= 0 {
        (normal(start.unwrap_or(0)).clamp(0, len), normal(end.unwrap_or(len)).clamp(0, len))
    } else {
        let (start, end) = (start.unwrap_or(len - 1), end.unwrap_or(-len - 1));
        (normal(start).clamp(-1, len - 1), normal(end).clamp(-1, len - 1))
    };
    std::iter::from_fn(move || {
        let inside = (step > 0 && at < last) || (step < 0 && at > last);
        let index = at;
        at = at.saturating_add(step);
        inside.then_some(index as usize)
    })
}

fn signed(len: usize) -> i64 {
    i64::try_from(len).expect("a body has at most 65,536 values")
}
