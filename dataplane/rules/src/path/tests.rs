//! The examples of RFC 9535, what it and we refuse, the parser's own evaluation as oracle, and the bound on steps.

use jsonpath_rust::query::js_path_vals;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{PATH_SEGMENTS_MAX, Path, PathError};
use crate::strategies;
use crate::{Document, Fault, NODES_MAX, PROGRAM_BYTES_MAX, PatternError};

#[derive(Deserialize)]
struct Group {
    section: String,
    document: Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    path: String,
    selects: Vec<Value>,
}

/// Members of objects come in the order of their names here; the RFC leaves it open.
#[test]
fn examples_of_the_rfc_select_what_it_says() {
    let groups: Vec<Group> = serde_json::from_str(include_str!("../../fixtures/rfc9535.json")).unwrap();
    let mut count = 0;
    for Group { section, document, cases } in groups {
        for Case { path, selects } in cases {
            let compiled = Path::compile(&path).unwrap_or_else(|error| panic!("{section} {path}: {error}"));
            let selected: Vec<Value> = compiled.select(&document).unwrap().into_iter().cloned().collect();
            assert_eq!(selected, selects, "{section} {path}");
            count += 1;
        }
    }
    assert_eq!(count, 96, "cases of the fixture");
}

#[test]
fn what_the_rfc_refuses_is_refused() {
    let syntax = [
        "",
        "a",
        "$.",
        "$..",
        "$[]",
        "$[",
        " $",
        "$ ",
        "$.1",
        "$.&",
        "$[0 2]",
        "$[01]",
        "$[-0]",
        "$[a]",
        "$['a]",
        "$[?]",
        "$[?@.a=1]",
        "$[?1]",
        "$[?'a']",
        "$[?true]",
        "$[?@.a == ]",
        "$[1.0]",
        "$['\\x']",
        "$[\"\\ud800\"]",
        "$...a",
        "$[?@.* == 1]",
        "$[?@..a == 1]",
        "$[?@[0:1] == 1]",
        "$[?length()==1]",
        "$.a[9007199254740992]",
        "$[?@.a == +1]",
        "$[?@.a == .1]",
        "$[?(@.a]",
        "$[?@.a in [1]]",
        "$.a b",
        "$.a\nb.c",
        "$..a b",
        "$[?@.a b == 1]",
        "$[?@.a == $.b c]",
        "$. a",
        "$.. a",
        "$[?length (@.a) == 1]",
        "$[?@.a == 1 2]",
        "$[- 1]",
    ];
    for text in syntax {
        assert!(Path::compile(text).is_err(), "{text}");
    }
    // Section 2.4.9.
    let typed = [
        "$[?length(@.*) < 3]",
        "$[?count(1) == 1]",
        "$[?count(foo(@.*)) == 1]",
        "$[?match(@.timezone, 'Europe/.*') == true]",
        "$[?value(@..color)]",
        "$[?bar(@.a)]",
        "$[?bar(@.a) == 1]",
        "$[?length(@.a)]",
        "$[?count(@.a)]",
        "$[?length(@.a == 1) == 1]",
        "$[?in(@.a, $.b)]",
        "$[?any_of(@.a, $.b)]",
        "$[?count(length(@.a)) == 1]",
    ];
    for text in typed {
        assert!(Path::compile(text).is_err(), "{text}");
    }
}

#[test]
fn patterns_that_a_source_could_choose_are_refused() {
    for text in ["$[?match(@.a, $.b)]", "$[?match(@.a, 1)]", "$[?match(@.a, value($..b))]"] {
        let error = Path::compile(text).unwrap_err();
        assert_eq!(error, PathError::PatternFromBody { function: "match" }, "{text}");
    }
    let error = Path::compile("$[?search(@, '(a{1000}){1000}')]").unwrap_err();
    assert_eq!(error, PathError::Pattern(PatternError::TooBig { bytes_max: PROGRAM_BYTES_MAX }));
    assert!(Path::compile("$[?match(@, 'a)|(b')]").is_err(), "brackets that do not belong together");
}

#[test]
fn patterns_are_those_of_rfc_9485() {
    let document = json!(["ab", "a\nb", "a\rb", "a\u{2028}b", "xaby", 1, ["ab"]]);
    let select =
        |path: &str| Path::compile(path).unwrap().select(&document).unwrap().into_iter().cloned().collect();
    let matched: Vec<Value> = select("$[?match(@, 'a.?b')]");
    assert_eq!(matched, [json!("ab"), json!("a\u{2028}b")]);
    let found: Vec<Value> = select("$[?search(@, 'a.?b')]");
    assert_eq!(found, [json!("ab"), json!("a\u{2028}b"), json!("xaby")]);
    let alternatives: Vec<Value> = select("$[?match(@, 'ab|aby')]");
    assert_eq!(alternatives, [json!("ab")], "all of the text");
}

#[test]
fn bounds_are_refused_one_beyond() {
    let name = "a".repeat(crate::PATH_BYTES_MAX - 2);
    assert!(Path::compile(&format!("$.{name}")).is_ok());
    assert_eq!(Path::compile(&format!("$.{name}a")).unwrap_err(), PathError::TooLong { bytes: 513 });
    let segments = |count: usize| Path::compile(&format!("${}", ".a".repeat(count)));
    assert!(segments(PATH_SEGMENTS_MAX).is_ok());
    assert_eq!(segments(33).unwrap_err(), PathError::TooManySegments { segments: 33 });
    let nested = |count: usize| Path::compile(&format!("$[?{}@.a{}]", "(".repeat(count), ")".repeat(count)));
    assert!(nested(7).is_ok());
    assert_eq!(nested(8).unwrap_err(), PathError::TooDeep);
    let filters = |count: usize| Path::compile(&format!("${}{}", "[?@".repeat(count), "]".repeat(count)));
    assert!(filters(8).is_ok());
    assert_eq!(filters(9).unwrap_err(), PathError::TooDeep);
    assert!(Path::compile("$['[[[[[[[[[[((((((((((']").is_ok(), "brackets in strings do not nest");
    assert_eq!(Path::compile("$.a.b.").unwrap_err(), PathError::Syntax { at: 6 });
}

/// Each would look at far more than the bound, and the last at each value's descendants again.
#[test]
fn paths_that_multiply_are_given_up() {
    let body = format!("[{}]", vec!["[[[0,1,2]]]"; 6000].join(","));
    let document = Document::new(body.as_bytes());
    let root = document.value().unwrap();
    for text in ["$..*..*..*", "$[*,*,*,*]..*", "$[?count($..*) > 1]", "$..[?@ == $[-1]]..[?count(@..*) > 0]"]
    {
        let path = Path::compile(text).unwrap();
        assert_eq!(path.select(root).unwrap_err(), Fault::TooManySteps, "{text}");
    }
    assert_eq!(Path::compile("$..*").unwrap().select(root).unwrap().len(), 36_000);
}

#[test]
fn the_widest_and_the_deepest_body_are_walked() {
    let wide = format!("[{}0]", "0,".repeat(NODES_MAX as usize - 2));
    let deep = format!("{}0{}", "[".repeat(100), "]".repeat(100));
    for (body, count) in [(wide, NODES_MAX as usize - 1), (deep, 100)] {
        let document = Document::new(body.as_bytes());
        assert_eq!(Path::compile("$..*").unwrap().select(document.value().unwrap()).unwrap().len(), count);
    }
}

#[test]
fn numbers_compare_by_value() {
    let document = json!([1, 1.0, 9_007_199_254_740_993_u64, 9_007_199_254_740_992.0, u64::MAX, -1]);
    let count = |path: &str| Path::compile(path).unwrap().select(&document).unwrap().len();
    assert_eq!(count("$[?@ == 1]"), 2);
    assert_eq!(count("$[?@ == 1.0]"), 2);
    assert_eq!(count("$[?@ == 1e0]"), 2);
    assert_eq!(count("$[?@ < 0]"), 1);
    assert_eq!(count("$[?@ > 1]"), 3);
}

#[test]
fn singular_paths_are_known() {
    for text in ["$", "$.a", "$['a'][0]", "$[-1]"] {
        assert!(Path::compile(text).unwrap().is_singular(), "{text}");
    }
    for text in ["$.*", "$..a", "$[0,1]", "$[0:1]", "$[?@.a]"] {
        assert!(!Path::compile(text).unwrap().is_singular(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The parser's crate evaluates, too, without a bound: small documents must give the same.
    #[test]
    fn the_walk_selects_what_the_oracle_selects(document in strategies::document(), text in strategies::path()) {
        let path = Path::compile(&text).unwrap();
        // It has the values of several selectors behind `..` in another order than section 2.5.2.2 says.
        let sorted = |values: Vec<&Value>| {
            let mut texts: Vec<String> = values.into_iter().map(Value::to_string).collect();
            texts.sort();
            texts
        };
        let oracle = sorted(js_path_vals(&text, &document).unwrap());
        prop_assert_eq!(sorted(path.select(&document).unwrap()), oracle, "{}", text);
    }

    #[test]
    fn any_text_is_a_path_or_refused(text in "\\PC{0,60}") {
        let _ = Path::compile(&text);
    }
}
