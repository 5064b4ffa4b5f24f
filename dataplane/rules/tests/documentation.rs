//! The examples of docs/routing.md load, and do what the page says.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use toml::{Table, Value};
use zen_rules::failover::FailoverPolicy;
use zen_rules::{
    Document, Flows, Headers, Matching, Output, RawFlow, RawOutput, RawTransform, RuleError, Subject,
    Transform,
};

const PAGE: &str = include_str!("../../../docs/routing.md");
const PUSH: &[u8] = include_bytes!("../fixtures/github-push.json");

/// Blocks of the page in this language.
fn blocks(language: &str) -> Vec<String> {
    let blocks = PAGE.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).map(str::to_owned).collect()
}

/// All tables of an array such as `ingester.flows`, of all examples.
fn examples(section: &str, key: &str) -> Vec<Table> {
    let mut found = Vec::new();
    for block in blocks("toml") {
        let table: Table = block.parse().unwrap();
        let Some(Value::Array(items)) = table.get(section).and_then(|section| section.get(key)) else {
            continue;
        };
        found.extend(items.iter().map(|item| item.as_table().unwrap().clone()));
    }
    assert!(!found.is_empty());
    found
}

fn flows() -> Flows {
    let raw: Vec<RawFlow> = examples("ingester", "flows")
        .into_iter()
        .map(|mut table| {
            // The node's own keys.
            assert!(table.remove("endpoint").is_some() && table.remove("egress").is_some());
            table.try_into().unwrap()
        })
        .collect();
    Flows::compile(&raw, Matching::default()).unwrap()
}

fn outputs() -> Vec<Output> {
    let compile = |table: Table| Output::compile(&table.try_into::<RawOutput>().unwrap());
    examples("egress", "outputs").into_iter().map(compile).collect::<Result<_, RuleError>>().unwrap()
}

#[test]
fn the_explanation_is_what_is_explained() {
    let document = Document::new(PUSH);
    let headers = Headers::Lines("x-github-event:push\n");
    let subject =
        Subject { endpoint: "github", content_type: "application/json", headers, document: &document };
    let shown = flows().explain(&subject).to_string();
    assert!(blocks("").contains(&shown), "{shown}");
}

#[test]
fn the_outputs_do_what_they_say() {
    let outputs = outputs();
    assert_eq!(outputs[0].targets().collect::<Vec<_>>(), ["ci-a", "ci-b"]);
    let transform = outputs[1].transform().unwrap();
    let document = Document::new(PUSH);
    let made = transform.apply(&document).unwrap();
    let text = String::from_utf8(made.body).unwrap();
    assert!(text.starts_with(r#"{"repository":"acme/storefront","head_commit":{"author":{"#), "{text}");
    assert!(
        text.contains(
            r#""source":"github","message":{"text":"adabyron pushed to refs/heads/main"},"day":"20"#
        )
    );
}

/// Rows of tables: key and default.
fn defaults() -> BTreeMap<String, String> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        (cells.len() == 5).then(|| (cells[0].to_owned(), cells[1].to_owned()))
    })
    .collect()
}

#[test]
fn keys_and_defaults_are_those_in_force() {
    let defaults = defaults();
    let flow: RawFlow = toml::from_str("name = 'f'\ntargets = ['t']").unwrap();
    let output: RawOutput = toml::from_str("name = 'o'\nprimary = 't'").unwrap();
    let transform: RawTransform = toml::from_str("fields = []").unwrap();
    let tables = [
        toml::to_string(&flow).unwrap(),
        toml::to_string(&FailoverPolicy::default()).unwrap(),
        toml::to_string(&output).unwrap(),
        toml::to_string(&transform).unwrap(),
    ];
    let mut compared = 0;
    for table in tables {
        for (key, value) in table.parse::<Table>().unwrap() {
            let documented = defaults.get(&key).unwrap_or_else(|| panic!("{key} is not documented"));
            let value = value.to_string();
            let given = ["required", "none", "below"].contains(&documented.as_str());
            assert!(
                given || value.trim_matches('"') == documented.trim_matches('"'),
                "{key}: {value}, {documented}"
            );
            compared += usize::from(!given);
        }
    }
    assert_eq!(compared, 10, "defaults with a value");
    assert!(Transform::compile(&transform, "t").is_err());
}
