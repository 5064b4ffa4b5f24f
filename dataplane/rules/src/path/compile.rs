//! From the parser's tree to ours.
//!
//! The parser is recursive and tries alternatives again, so length and nesting are bounded before it runs.
//! Well-typedness (RFC 9535 section 2.4.3) is checked here: what each function takes and where it may stand.

use jsonpath_rust::parser::errors::JsonPathError;
use jsonpath_rust::parser::model as parsed;
use jsonpath_rust::parser::parse_json_path;
use pest::error::InputLocation;
use serde_json::{Number, Value};

use super::{
    Comparison, From, Logic, Operand, PATH_BYTES_MAX, PATH_NESTING_MAX, PATH_SEGMENTS_MAX, PathError, Query,
    Segment, Selector, is_singular,
};
use crate::Pattern;

/// Largest magnitude of an index: what doubles hold exactly (RFC 9535 section 2.1).
const INDEX_MAX: i64 = (1 << 53) - 1;

pub(super) fn compile(text: &str) -> Result<Box<[Segment]>, PathError> {
    if text.len() > PATH_BYTES_MAX {
        return Err(PathError::TooLong { bytes: text.len() });
    }
    check_text(text)?;
    let query = parse_json_path(text).map_err(|error| match error {
        JsonPathError::PestError(error) => {
            let (InputLocation::Pos(at) | InputLocation::Span((at, _))) = error.location;
            PathError::Syntax { at }
        }
        JsonPathError::InvalidJsonPath(_) | JsonPathError::InvalidNumber(_) => {
            PathError::Invalid { what: "a name, number or function is not written as it must be" }
        }
        _ => PathError::Syntax { at: 0 },
    })?;
    segments(&query.segments)
}

/// Looks outside of strings, for what nests too deep and for blanks in names, which the parser would let pass.
fn check_text(text: &str) -> Result<(), PathError> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    let (mut depth, mut quote, mut escaped) = (0_usize, None, false);
    let (mut after_name, mut after_blank) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), _) if open == byte => quote = None,
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'[' | b'(') => depth += 1,
            (None, b']' | b')') => depth = depth.saturating_sub(1),
            (Some(_) | None, _) => {}
        }
        if depth > PATH_NESTING_MAX {
            return Err(PathError::TooDeep);
        }
        let is_blank = byte.is_ascii_whitespace();
        let is_name = quote.is_none() && is_name(byte);
        if is_name && after_name && after_blank {
            return Err(PathError::Syntax { at });
        }
        after_name = is_name || (is_blank && quote.is_none() && after_name);
        after_blank = is_blank;
    }
    Ok(())
}

fn segments(from: &[parsed::Segment]) -> Result<Box<[Segment]>, PathError> {
    if from.len() > PATH_SEGMENTS_MAX {
        return Err(PathError::TooManySegments { segments: from.len() });
    }
    from.iter().map(segment).collect()
}

fn segment(from: &parsed::Segment) -> Result<Segment, PathError> {
    match from {
        parsed::Segment::Selector(one) => Ok(Segment::Child(Box::new([selector(one)?]))),
        parsed::Segment::Selectors(many) => {
            Ok(Segment::Child(many.iter().map(selector).collect::<Result<_, _>>()?))
        }
        parsed::Segment::Descendant(inner) => match segment(inner)? {
            Segment::Child(selectors) => Ok(Segment::Descendant(selectors)),
            Segment::Descendant(_) => Err(PathError::Invalid { what: "two descendant segments in one" }),
        },
    }
}

fn selector(from: &parsed::Selector) -> Result<Selector, PathError> {
    Ok(match from {
        parsed::Selector::Name(name) => Selector::Name(name.as_str().into()),
        parsed::Selector::Wildcard => Selector::Wildcard,
        parsed::Selector::Index(at) => Selector::Index(index(*at)?),
        parsed::Selector::Slice(start, end, step) => Selector::Slice {
            start: start.map(index).transpose()?,
            end: end.map(index).transpose()?,
            step: step.map_or(Ok(1), index)?,
        },
        parsed::Selector::Filter(filter) => Selector::Filter(logic(filter)?),
    })
}

fn index(value: i64) -> Result<i64, PathError> {
    if value.abs() > INDEX_MAX {
        return Err(PathError::Invalid { what: "an index is beyond 2^53 - 1" });
    }
    Ok(value)
}

fn logic(from: &parsed::Filter) -> Result<Logic, PathError> {
    match from {
        parsed::Filter::Or(parts) => Ok(Logic::Any(parts.iter().map(logic).collect::<Result<_, _>>()?)),
        parsed::Filter::And(parts) => Ok(Logic::All(parts.iter().map(logic).collect::<Result<_, _>>()?)),
        parsed::Filter::Atom(parsed::FilterAtom::Filter { expr, not }) => Ok(negate(logic(expr)?, *not)),
        parsed::Filter::Atom(parsed::FilterAtom::Test { expr, not }) => Ok(negate(test(expr)?, *not)),
        parsed::Filter::Atom(parsed::FilterAtom::Comparison(comparison)) => compare(comparison),
    }
}

fn negate(inner: Logic, not: bool) -> Logic {
    if not { Logic::Not(Box::new(inner)) } else { inner }
}

fn test(from: &parsed::Test) -> Result<Logic, PathError> {
    let parsed::Test::Function(function) = from else { return Ok(Logic::Exists(query(from)?)) };
    let (text, pattern, compiled) = match &**function {
        parsed::TestFunction::Match(text, pattern) => (text, pattern, Whole("match")),
        parsed::TestFunction::Search(text, pattern) => (text, pattern, Part("search")),
        parsed::TestFunction::Custom(..) => return Err(UNKNOWN_FUNCTION),
        _ => {
            return Err(PathError::Invalid {
                what: "length, count and value must be compared with something",
            });
        }
    };
    let text = argument(text)?;
    let parsed::FnArg::Literal(parsed::Literal::String(pattern)) = pattern else {
        let (Whole(function) | Part(function)) = compiled;
        return Err(PathError::PatternFromBody { function });
    };
    let pattern = match compiled {
        Whole(_) => Pattern::compile_whole(pattern)?,
        Part(_) => Pattern::compile(pattern)?,
    };
    Ok(Logic::Matches(text, pattern))
}

const UNKNOWN_FUNCTION: PathError =
    PathError::Invalid { what: "functions are length, count, match, search and value" };

/// How much of a text the pattern of a function must match.
enum Extent {
    Whole(&'static str),
    Part(&'static str),
}
use Extent::{Part, Whole};

fn compare(from: &parsed::Comparison) -> Result<Logic, PathError> {
    let kind = match from {
        parsed::Comparison::Eq(..) => Comparison::Equal,
        parsed::Comparison::Ne(..) => Comparison::NotEqual,
        parsed::Comparison::Lt(..) => Comparison::Less,
        parsed::Comparison::Lte(..) => Comparison::LessOrEqual,
        parsed::Comparison::Gt(..) => Comparison::Greater,
        parsed::Comparison::Gte(..) => Comparison::GreaterOrEqual,
    };
    let (left, right) = from.vals();
    Ok(Logic::Compare(comparable(left)?, kind, comparable(right)?))
}

fn comparable(from: &parsed::Comparable) -> Result<Operand, PathError> {
    match from {
        parsed::Comparable::Literal(value) => literal(value),
        parsed::Comparable::Function(function) => value_function(function),
        parsed::Comparable::SingularQuery(query) => {
            let (from, parts) = match query {
                parsed::SingularQuery::Current(parts) => (From::Current, parts),
                parsed::SingularQuery::Root(parts) => (From::Root, parts),
            };
            if parts.len() > PATH_SEGMENTS_MAX {
                return Err(PathError::TooManySegments { segments: parts.len() });
            }
            let segments = parts.iter().map(singular_segment).collect::<Result<_, _>>()?;
            Ok(Operand::Singular(Query { from, segments }))
        }
    }
}

fn singular_segment(from: &parsed::SingularQuerySegment) -> Result<Segment, PathError> {
    let selector = match from {
        parsed::SingularQuerySegment::Name(name) => Selector::Name(name.as_str().into()),
        parsed::SingularQuerySegment::Index(at) => Selector::Index(index(*at)?),
    };
    Ok(Segment::Child(Box::new([selector])))
}

/// A function that yields a value.
fn value_function(from: &parsed::TestFunction) -> Result<Operand, PathError> {
    match from {
        parsed::TestFunction::Length(value) => Ok(Operand::Length(Box::new(argument(value)?))),
        parsed::TestFunction::Count(nodes) => Ok(Operand::Count(argument_query(nodes)?)),
        parsed::TestFunction::Value(nodes) => Ok(Operand::Only(argument_query(nodes)?)),
        parsed::TestFunction::Match(..) | parsed::TestFunction::Search(..) => {
            Err(PathError::Invalid { what: "match and search are not compared with anything" })
        }
        parsed::TestFunction::Custom(..) => Err(UNKNOWN_FUNCTION),
    }
}

/// An argument that must be a value.
fn argument(from: &parsed::FnArg) -> Result<Operand, PathError> {
    match from {
        parsed::FnArg::Literal(value) => literal(value),
        parsed::FnArg::Test(test) => match &**test {
            parsed::Test::Function(function) => value_function(function),
            nodes => {
                let query = query(nodes)?;
                if !is_singular(&query.segments) {
                    return Err(PathError::Invalid {
                        what: "an argument that must be one value may select several; use value(..)",
                    });
                }
                Ok(Operand::Singular(query))
            }
        },
        parsed::FnArg::Filter(_) => {
            Err(PathError::Invalid { what: "an argument that must be a value is a logical expression" })
        }
    }
}

/// An argument that must be what a query selects.
fn argument_query(from: &parsed::FnArg) -> Result<Query, PathError> {
    match from {
        parsed::FnArg::Test(test) if !matches!(**test, parsed::Test::Function(_)) => query(test),
        _ => Err(PathError::Invalid { what: "count and value take a query" }),
    }
}

fn query(from: &parsed::Test) -> Result<Query, PathError> {
    match from {
        parsed::Test::RelQuery(parts) => Ok(Query { from: From::Current, segments: segments(parts)? }),
        parsed::Test::AbsQuery(query) => Ok(Query { from: From::Root, segments: segments(&query.segments)? }),
        parsed::Test::Function(_) => Err(PathError::Invalid { what: "a function where a query must be" }),
    }
}

fn literal(from: &parsed::Literal) -> Result<Operand, PathError> {
    let value = match from {
        parsed::Literal::Int(number) => Value::Number((*number).into()),
        parsed::Literal::Float(number) => Number::from_f64(*number)
            .map(Value::Number)
            .ok_or(PathError::Invalid { what: "a number is beyond what doubles hold" })?,
        parsed::Literal::String(text) => Value::String(text.clone()),
        parsed::Literal::Bool(value) => Value::Bool(*value),
        parsed::Literal::Null => Value::Null,
    };
    Ok(Operand::Literal(value))
}
