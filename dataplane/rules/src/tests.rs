//! Conditions and flows, from TOML to targets.

use proptest::prelude::*;
use serde::Deserialize;

use crate::document::STEPS_MAX;
use crate::{
    Document, Explanation, FLOWS_MAX, Fault, Flows, Headers, Matching, OnError, RawCondition, RawFlow,
    Subject, fuzz, strategies,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    flows: Vec<RawFlow>,
}

fn compile(text: &str, matching: Matching) -> Result<Flows, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    Flows::compile(&file.flows, matching).map_err(|error| error.to_string())
}

fn flows(text: &str) -> Flows {
    compile(text, Matching::All).unwrap()
}

/// One flow to one target with this condition in TOML.
fn when(condition: &str) -> Result<Flows, String> {
    compile(&format!("[[flows]]\nname = 'f'\ntargets = ['t']\nwhen = {condition}"), Matching::All)
}

const HEADERS: &str = "x-event:push\nx-event:ping\nx-empty:\n";

fn subject<'a>(document: &'a Document<'a>) -> Subject<'a> {
    Subject {
        endpoint: "shop",
        content_type: "Application/JSON; charset=utf-8",
        headers: Headers::Lines(HEADERS),
        document,
    }
}

fn explain(flows: &Flows, body: &str) -> Explanation {
    let document = Document::new(body.as_bytes());
    flows.explain(&subject(&document))
}

fn names(flows: &Flows, body: &str) -> Vec<String> {
    let document = Document::new(body.as_bytes());
    let routed = flows.route(&subject(&document));
    flows.matched(routed.matched()).map(|flow| flow.name().to_owned()).collect()
}

#[test]
fn leaves_hold_or_do_not() {
    let body = r#"{"a":1,"s":"push","n":null,"list":[1,"two",{"x":true}],"date":"2024-01-01"}"#;
    let cases = [
        ("{ jsonpath = '$.a', exists = true }", true),
        ("{ jsonpath = '$.n', exists = true }", true),
        ("{ jsonpath = '$.z', exists = true }", false),
        ("{ jsonpath = '$.z', exists = false }", true),
        ("{ jsonpath = '$.a', exists = false }", false),
        ("{ jsonpath = '$.a', exact = 1 }", true),
        ("{ jsonpath = '$.a', exact = 1.0 }", true),
        ("{ jsonpath = '$.a', exact = '1' }", false),
        ("{ jsonpath = '$.list[*]', exact = 'two' }", true),
        ("{ jsonpath = '$.list[2]', exact = { x = true } }", true),
        ("{ jsonpath = '$.list[2]', exact = { x = false } }", false),
        ("{ jsonpath = '$.list', exact = [1, 'two', { x = true }] }", true),
        ("{ jsonpath = '$.s', regex = 'us' }", true),
        ("{ jsonpath = '$.s', regex = '^us' }", false),
        ("{ jsonpath = '$.a', regex = '^1$' }", true),
        ("{ jsonpath = '$.n', regex = '^null$' }", true),
        ("{ jsonpath = '$.list', regex = '' }", false),
        ("{ jsonpath = '$.list[*]', regex = '^two$' }", true),
        ("{ header = 'X-Event', exists = true }", true),
        ("{ header = 'x-absent', exists = true }", false),
        ("{ header = 'x-absent', exists = false }", true),
        ("{ header = 'x-even', exists = true }", false),
        ("{ header = 'x-empty', exact = '' }", true),
        ("{ header = 'x-event', exact = 'ping' }", true),
        ("{ header = 'x-event', exact = 'pin' }", false),
        ("{ header = 'x-event', regex = '^p.sh$' }", true),
        ("{ header = 'x-event', regex = '^q' }", false),
        ("{ endpoint = 'shop' }", true),
        ("{ endpoint = 'sho' }", false),
        ("{ content_type = 'application/json' }", true),
        ("{ content_type = 'application/js' }", false),
        ("{ all = [{ endpoint = 'shop' }, { jsonpath = '$.a', exact = 1 }] }", true),
        ("{ all = [{ endpoint = 'shop' }, { jsonpath = '$.a', exact = 2 }] }", false),
        ("{ any = [{ endpoint = 'x' }, { jsonpath = '$.a', exact = 1 }] }", true),
        ("{ any = [{ endpoint = 'x' }, { jsonpath = '$.a', exact = 2 }] }", false),
        ("{ not = { endpoint = 'shop' } }", false),
        ("{ not = { any = [{ endpoint = 'x' }, { endpoint = 'y' }] } }", true),
    ];
    for (condition, expected) in cases {
        let flows = when(condition).unwrap();
        assert_eq!(!names(&flows, body).is_empty(), expected, "{condition}");
    }
}

#[test]
fn faults_of_a_condition_name_place_fault_and_remedy() {
    let cases = [
        ("{}", "flow \"f\".when: has 0 of `all`, `any`, `not`"),
        ("{ endpoint = 'a', header = 'b', exists = true }", "when: has 2 of"),
        ("{ jsonpath = '$.a' }", "when: has 0 of `exists`, `exact` and `regex`; give exactly one"),
        ("{ jsonpath = '$.a', exists = true, exact = 1 }", "when: has 2 of `exists`"),
        ("{ all = [] }", "when.all: is empty"),
        (
            "{ all = [{ endpoint = 'a' }, { not = { jsonpath = '$.' , exists = true } }] }",
            "when.all[1].not.jsonpath: not a JSONPath (RFC 9535) from byte 2",
        ),
        ("{ any = [{ jsonpath = '$.a', regex = '(' }] }", "when.any[0].regex: regex does not compile: "),
        (
            "{ jsonpath = '$.a', regex = '(a{1000}){1000}' }",
            "when.regex: regex needs more than 65536 bytes; use smaller",
        ),
        (
            "{ jsonpath = '$[?match(@, $.b)]', exists = true }",
            "when.jsonpath: the pattern of match must be a string",
        ),
        ("{ header = 'x y', exists = true }", "when.header: is not a header name"),
        ("{ header = ':tenant', exists = true }", "when.header: is not a header name"),
        ("{ header = 'x', exact = 1 }", "when.exact: cannot occur in a header"),
        ("{ header = 'x', exact = ' a' }", "when.exact: cannot occur in a header"),
        ("{ header = 'x', exact = \"a\\nb\" }", "when.exact: cannot occur in a header"),
        ("{ content_type = 'json' }", "when.content_type: is not a media type"),
        ("{ content_type = 'a/b; c=d' }", "when.content_type: is not a media type"),
        ("{ endpoint = '' }", "when.endpoint: is empty"),
        ("{ endpoint = 'a', exact = 'b' }", "when: `exact` does not go with a group"),
        ("{ endpoint = 'a', exists = true }", "when: `exists` does not go with"),
        ("{ jsonpath = '$.a', exact = 2024-01-01 }", "when.exact: is not a JSON value"),
        ("{ jsonpath = '$.a', exact = [{ b = 2024-01-01 }] }", "when.exact: is not a JSON value"),
        ("{ jsonpath = '$.a', exact = nan }", "when.exact: is not a JSON value"),
        ("{ jsonpath = '$.a', equals = 1 }", "unknown field `equals`"),
    ];
    for (condition, expected) in cases {
        let error = when(condition).map(|_| ()).unwrap_err();
        assert!(error.contains(expected), "{condition}: {error}");
    }
}

#[test]
fn conditions_are_bounded_in_depth_and_number() {
    let nested = |depth: usize| {
        when(&format!("{}{{ endpoint = 'a' }}{}", "{ not = ".repeat(depth - 1), " }".repeat(depth - 1)))
    };
    assert!(nested(8).is_ok());
    assert!(nested(9).unwrap_err().contains(".not: conditions nest deeper than 8; flatten them"));
    let wide = |count: usize| when(&format!("{{ all = [{}] }}", "{ endpoint = 'a' },".repeat(count - 1)));
    assert!(wide(32).is_ok());
    assert!(wide(33).unwrap_err().contains("when.all[31]: more than 32 conditions in one flow; split"));
    let long = "a".repeat(5000);
    assert!(when(&format!("{{ jsonpath = '$.a', exact = '{long}' }}")).unwrap_err().contains("is 5002"));
    assert!(
        when(&format!("{{ jsonpath = '$.a', regex = '{long}' }}"))
            .unwrap_err()
            .contains("regex of 5000 bytes")
    );
    assert!(
        when(&format!("{{ jsonpath = '$.{long}', exists = true }}"))
            .unwrap_err()
            .contains("JSONPath of 5002")
    );
}

#[test]
fn faults_of_a_flow_name_their_place() {
    let cases = [
        ("name = ''\ntargets = ['t']", "flows[0].name: is empty"),
        ("name = 'f'\ntargets = []", "flow \"f\".targets: is 0; it must be 1 to 10"),
        ("name = 'f'\ntargets = ['a', 'b', 'a']", "flow \"f\".targets[2]: is there twice"),
        ("name = 'f'\ntargets = ['a', '']", "flow \"f\".targets[1]: is empty"),
        (
            "name = 'f'\ntargets = ['t']\nbody_bytes_max = 0",
            "flow \"f\".body_bytes_max: is 0; it must be 1 to 1048576",
        ),
        (
            "name = 'f'\ntargets = ['t']\njson_depth_max = 101",
            "flow \"f\".json_depth_max: is 101; it must be 1 to 100",
        ),
        ("name = 'f'\ntargets = ['t']\non_error = 'ignore'", "unknown variant `ignore`"),
        ("name = 'f'\ntargets = ['t']\npriority = -1", "priority"),
        (
            "name = 'f'\ntargets = ['t']\n[[flows]]\nname = 'f'\ntargets = ['u']",
            "flow \"f\".name: is there twice",
        ),
    ];
    for (text, expected) in cases {
        let error = compile(&format!("[[flows]]\n{text}"), Matching::All).map(|_| ()).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let raw: RawFlow = toml::from_str("name = 'f'\ntargets = ['t']").unwrap();
    assert_eq!(
        (raw.priority, raw.on_error, raw.body_bytes_max, raw.json_depth_max),
        (100, OnError::Closed, 262_144, 64)
    );
    let many = |count: usize| {
        let raw = (0..count).map(|at| RawFlow { name: at.to_string(), ..raw.clone() }).collect::<Vec<_>>();
        Flows::compile(&raw, Matching::All)
    };
    let full = many(FLOWS_MAX).unwrap();
    let document = Document::new(b"");
    assert_eq!(full.matched(full.route(&subject(&document)).matched()).count(), FLOWS_MAX);
    assert_eq!(many(FLOWS_MAX + 1).unwrap_err().to_string(), "flows: is 65; it must be 0 to 64");
}

const THREE: &str = "
    [[flows]]
    name = 'late'
    priority = 200
    targets = ['a']
    [[flows]]
    name = 'pushes'
    targets = ['b', 'a']
    when = { jsonpath = '$.ref', exists = true }
    [[flows]]
    name = 'early'
    priority = 1
    targets = ['c']
    when = { jsonpath = '$.urgent', exact = true }
";

#[test]
fn all_or_the_first_by_priority() {
    let all = flows(THREE);
    let first = compile(THREE, Matching::First).unwrap();
    let body = r#"{"ref":1,"urgent":true}"#;
    assert_eq!(names(&all, body), ["early", "pushes", "late"]);
    assert_eq!(names(&first, body), ["early"]);
    assert_eq!(explain(&all, body).targets, ["c", "b", "a"]);
    assert_eq!(names(&all, r#"{"ref":1}"#), ["pushes", "late"]);
    assert_eq!(names(&first, r#"{"ref":1}"#), ["pushes"]);
    assert_eq!(names(&first, "{}"), ["late"]);
    // Places are those of the configuration, whatever the priority.
    let document = Document::new(b"{}");
    let routed = all.route(&subject(&document));
    assert!(routed.is_matched(0) && !routed.is_matched(1) && !routed.is_matched(2));
}

#[test]
fn what_cannot_be_decided_is_open_or_closed() {
    let text = |on_error: &str| {
        format!(
            "[[flows]]\nname = 'f'\ntargets = ['t']\non_error = '{on_error}'\nbody_bytes_max = 40\njson_depth_max = 3\nwhen = {{ not = {{ jsonpath = '$.a', exact = 1 }} }}"
        )
    };
    let deep = "[".repeat(10_000);
    let long = format!("\"{}\"", "a".repeat(40));
    let bodies = [
        ("", "not_json"),
        ("{\"a\":1", "not_json"),
        ("{\"a\":1,\"a\":2}", "duplicate_member"),
        ("[[[[]]]]", "too_deep"),
        (long.as_str(), "body_too_long"),
        (deep.as_str(), "body_too_long"),
    ];
    for (body, label) in bodies {
        for (on_error, matched) in [("open", true), ("closed", false)] {
            let flows = flows(&text(on_error));
            let document = Document::new(body.as_bytes());
            let routed = flows.route(&subject(&document));
            assert_eq!((routed.is_matched(0), routed.is_undecided(0)), (matched, true), "{label}");
            assert_eq!(routed.fault().map(Fault::label), Some(label));
        }
    }
    assert_eq!(names(&flows(&text("closed")), "[[[]]]"), ["f"]);
    let deep_flow =
        flows("[[flows]]\nname = 'f'\ntargets = ['t']\nwhen = { jsonpath = '$.a', exists = true }");
    let document = Document::new(deep.as_bytes());
    let fault = deep_flow.route(&subject(&document)).fault();
    assert_eq!(fault, Some(Fault::TooDeep { depth_max: 100 }));
}

#[test]
fn no_json_is_parsed_that_no_condition_asks_for() {
    let cases = [
        ("", false),
        ("when = { header = 'x-event', exact = 'push' }", false),
        (
            "when = { all = [{ header = 'x-absent', exists = true }, { jsonpath = '$.a', exists = true }] }",
            false,
        ),
        ("when = { any = [{ endpoint = 'shop' }, { jsonpath = '$.a', exists = true }] }", false),
        ("when = { any = [{ endpoint = 'x' }, { jsonpath = '$.a', exists = true }] }", true),
        ("body_bytes_max = 1\nwhen = { jsonpath = '$.a', exists = true }", false),
    ];
    for (condition, parsed) in cases {
        let flows = flows(&format!("[[flows]]\nname = 'f'\ntargets = ['t']\n{condition}"));
        let document = Document::new(b"{\"a\":1}");
        let _ = flows.route(&subject(&document));
        assert_eq!(document.is_parsed(), parsed, "{condition}");
    }
    assert!(!flows("[[flows]]\nname = 'f'\ntargets = ['t']").needs_json());
    assert!(flows(THREE).needs_json());
}

#[test]
fn the_steps_of_one_event_are_shared() {
    // Eight searches of 256 KiB take 32,769 steps each: all but the last fit.
    let body = format!("\"{}\"", "a".repeat(262_142));
    let leaf = "{ jsonpath = '$', regex = 'b' },";
    let flows = when(&format!("{{ any = [{}] }}", leaf.repeat(7))).unwrap();
    assert_eq!(names(&flows, &body), Vec::<String>::new());
    let document = Document::new(body.as_bytes());
    assert_eq!(flows.route(&subject(&document)).fault(), None);
    let flows = when(&format!("{{ any = [{}] }}", leaf.repeat(8))).unwrap();
    assert_eq!(flows.route(&subject(&document)).fault(), Some(Fault::TooManySteps));
    assert_eq!(STEPS_MAX, 262_144);
}

#[test]
fn explanations_say_what_was_seen_and_never_the_value() {
    let text = "
        [[flows]]
        name = 'main'
        priority = 10
        targets = ['ci', 'audit']
        when = { all = [
            { header = 'x-event', exact = 'push' },
            { jsonpath = '$.ref', regex = '^refs/heads/' },
            { not = { any = [{ jsonpath = '$.commits[*].draft', exact = true }, { endpoint = 'other' }] } },
        ] }
        [[flows]]
        name = 'tags'
        on_error = 'open'
        targets = ['audit']
        when = { all = [{ jsonpath = '$.ref', regex = '^refs/tags/' }, { jsonpath = '$.tag', exists = true }] }
        [[flows]]
        name = 'rest'
        priority = 900
        targets = ['log']
    ";
    let body = r#"{"ref":"refs/heads/secret","commits":[{"draft":false},{"draft":false}]}"#;
    let explanation = explain(&flows(text), body);
    let expected = "\
flow main (priority 10): matches
  all: holds
    header x-event exact \"push\": holds; saw 2 values, last a string of 4 bytes
    jsonpath $.ref regex ^refs/heads/: holds; saw a string of 17 bytes
    not: holds
      any: does not hold
        jsonpath $.commits[*].draft exact true: does not hold; saw 2 values, last a boolean
        endpoint other: does not hold; saw a string of 4 bytes
flow tags (priority 100): does not match
  all: does not hold
    jsonpath $.ref regex ^refs/tags/: does not hold; saw a string of 17 bytes
    jsonpath $.tag exists true: not asked
flow rest (priority 900): matches, it has no condition
targets: ci, audit, log
";
    assert_eq!(explanation.to_string(), expected);
    assert!(!serde_json::to_string(&explanation).unwrap().contains("secret"));

    let first = compile(text, Matching::First).unwrap();
    let shown = explain(&first, body).to_string();
    assert!(shown.contains(
        "flow rest (priority 900): not asked, an earlier flow took the event\ntargets: ci, audit\n"
    ));
    let shown = explain(&flows(text), "secret").to_string();
    assert!(
        shown.contains("flow main (priority 10): does not match: undecided, and on_error is closed\n"),
        "{shown}"
    );
    assert!(shown.contains("flow tags (priority 100): matches: undecided, and on_error is open\n"));
    assert!(shown.contains("regex ^refs/heads/: undecided, the body is not JSON from line 1, column 1\n"));
    assert!(!shown.contains("secret"));
}

#[test]
fn the_raw_form_is_read_as_it_is_written() {
    let file: File = toml::from_str(THREE).unwrap();
    let again: RawFlow = toml::from_str(&toml::to_string(&file.flows[1]).unwrap()).unwrap();
    assert_eq!(toml::to_string(&again).unwrap(), toml::to_string(&file.flows[1]).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Routing is what the explanation says, whatever the rules and the body.
    #[test]
    fn routes_are_explained(
        conditions in prop::collection::vec((strategies::condition(), any::<bool>(), 0_u16..3), 1..5),
        body in prop_oneof![
            4 => strategies::document().prop_map(|document| document.to_string()),
            1 => "\\PC{0,12}".prop_map(String::from),
        ],
        first in any::<bool>(),
    ) {
        let raw: Vec<RawFlow> = conditions
            .into_iter()
            .enumerate()
            .map(|(at, (when, open, priority))| RawFlow {
                name: at.to_string(),
                priority,
                when: Some(when),
                on_error: if open { OnError::Open } else { OnError::Closed },
                body_bytes_max: 4096,
                json_depth_max: 4,
                targets: vec!["t".to_owned()],
            })
            .collect();
        let flows = Flows::compile(&raw, if first { Matching::First } else { Matching::All }).unwrap();
        let document = Document::new(body.as_bytes());
        let routed = flows.route(&subject(&document));
        prop_assert_eq!(routed, flows.route(&subject(&document)));
        prop_assert!(!first || flows.matched(routed.matched()).count() <= 1);
        let explanation = flows.explain(&subject(&document));
        for (flow, explained) in flows.iter().zip(&explanation.flows) {
            prop_assert_eq!(explained.matched.unwrap_or(false), routed.is_matched(flow.index()));
            prop_assert_eq!(explained.on_error.is_some(), routed.is_undecided(flow.index()));
        }
    }

    /// A condition and its negation disagree, unless neither can be decided.
    #[test]
    fn negation_is_the_other_way_round(when in strategies::condition(), document in strategies::document()) {
        let flow = |when: RawCondition| {
            let raw = RawFlow { when: Some(when), ..toml::from_str("name = 'f'\ntargets = ['t']").unwrap() };
            Flows::compile(&[raw], Matching::All).unwrap()
        };
        let body = document.to_string();
        let document = Document::new(body.as_bytes());
        let plain = flow(when.clone()).route(&subject(&document));
        let negated = flow(RawCondition { not: Some(Box::new(when)), ..RawCondition::default() });
        let negated = negated.route(&subject(&document));
        prop_assert_eq!(plain.is_undecided(0), negated.is_undecided(0));
        prop_assert!(plain.is_undecided(0) || plain.is_matched(0) != negated.is_matched(0));
    }

    #[test]
    fn any_bytes_are_rules_or_refused(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::fuzz_rules_compile(&data);
        fuzz::fuzz_rules_evaluate(&data);
        fuzz::fuzz_rules_transform(&data);
    }

    #[test]
    fn failover_keeps_its_policy(data in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz::fuzz_failover(&data);
    }
}
