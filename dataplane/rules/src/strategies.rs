//! Documents, paths and conditions at random, for the property tests.

use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::RawCondition;

/// Few names, so that paths meet documents.
const NAMES: [&str; 4] = ["a", "b", "c", "d e"];

/// A document of some dozens of values.
pub(crate) fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..4).prop_map(Value::from),
        prop_oneof![Just(1.0), Just(0.5)].prop_map(Value::from),
        "[ab]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let member = (prop::sample::select(&NAMES[..]), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::from),
            prop::collection::vec(member, 0..4).prop_map(|members| {
                let members = members.into_iter().map(|(name, value)| (name.to_owned(), value));
                Value::Object(members.collect::<Map<_, _>>())
            }),
        ]
    })
}

/// A valid path.
pub(crate) fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(segment(true), 0..4).prop_map(|segments| format!("${}", segments.concat()))
}

fn segment(filters: bool) -> BoxedStrategy<String> {
    let plain = prop_oneof![
        prop::sample::select(&NAMES[..]).prop_map(|name| format!("'{name}'")),
        Just("*".to_owned()),
        (-3_i64..4).prop_map(|index| index.to_string()),
        (-3_i64..4, -3_i64..4, -2_i64..3).prop_map(|(start, end, step)| format!("{start}:{end}:{step}")),
        (-2_i64..3).prop_map(|step| format!("::{step}")),
    ];
    let selector = if filters { prop_oneof![4 => plain, 1 => filter()].boxed() } else { plain.boxed() };
    let dots = prop_oneof![4 => Just(""), 1 => Just("..")];
    (dots, prop::collection::vec(selector, 1..3))
        .prop_map(|(dots, selectors)| format!("{dots}[{}]", selectors.join(",")))
        .boxed()
}

fn filter() -> impl Strategy<Value = String> {
    let query = segment(false).prop_map(|segment| format!("@{segment}"));
    let operand = prop_oneof![
        (-2_i64..3).prop_map(|number| number.to_string()),
        "[ab]{0,2}".prop_map(|text| format!("'{text}'")),
        prop::sample::select(&["null", "true", "1.0", "@", "@.a", "$.b", "@[0]"][..]).prop_map(str::to_owned),
    ];
    let comparison = prop::sample::select(&["==", "!=", "<", "<=", ">", ">="][..]);
    let compared =
        (operand.clone(), comparison, operand).prop_map(|(left, how, right)| format!("{left} {how} {right}"));
    let test = prop_oneof![compared, query].boxed();
    prop_oneof![
        test.clone().prop_map(|test| format!("?{test}")),
        (test.clone(), test.clone()).prop_map(|(left, right)| format!("?{left} && {right}")),
        (test.clone(), test.clone()).prop_map(|(left, right)| format!("?{left} || {right}")),
        test.prop_map(|test| format!("?!({test})")),
    ]
}

/// A valid condition of few leaves.
pub(crate) fn condition() -> impl Strategy<Value = RawCondition> {
    let json = |path: String| RawCondition { jsonpath: Some(path), ..RawCondition::default() };
    let header = |name: &str| RawCondition { header: Some(name.to_owned()), ..RawCondition::default() };
    let leaf = prop_oneof![
        (path(), any::<bool>())
            .prop_map(move |(path, exists)| RawCondition { exists: Some(exists), ..json(path) }),
        (path(), -2_i64..3)
            .prop_map(move |(path, number)| RawCondition { exact: Some(number.into()), ..json(path) }),
        path().prop_map(move |path| RawCondition { regex: Some("^[a1]".to_owned()), ..json(path) }),
        any::<bool>().prop_map(move |exists| RawCondition { exists: Some(exists), ..header("x-a") }),
        Just(RawCondition { exact: Some("1".into()), ..header("X-B") }),
        Just(RawCondition { content_type: Some("application/json".to_owned()), ..RawCondition::default() }),
        Just(RawCondition { endpoint: Some("shop".to_owned()), ..RawCondition::default() }),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let parts = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            parts.clone().prop_map(|parts| RawCondition { all: Some(parts), ..RawCondition::default() }),
            parts.prop_map(|parts| RawCondition { any: Some(parts), ..RawCondition::default() }),
            inner.prop_map(|part| RawCondition { not: Some(Box::new(part)), ..RawCondition::default() }),
        ]
    })
}
