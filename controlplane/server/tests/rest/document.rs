//! The document and the router have the same routes, and independent eyes take the document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use zen_control::openapi;

use crate::lab::Lab;

pub const METHODS: [&str; 4] = ["get", "put", "post", "delete"];

/// The document's paths, each with its operations by method.
pub fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()), "{method}");
            found.push((path.clone(), method.to_uppercase(), operation.clone()));
        }
    }
    found
}

/// Names of things that are not there.
pub fn filled(path: &str) -> String {
    let part = |part: &str| match part.strip_prefix('{') {
        Some("tenant}") => "acme".to_owned(),
        Some(_) => "0123456789abcdef0123456789abcdef".to_owned(),
        None => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[tokio::test(flavor = "multi_thread")]
async fn router_and_document_have_the_same_routes() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    let document: Value = serde_json::from_str(&openapi()).unwrap();
    assert_eq!(owner.get("/v1/openapi.json").await.json(), document, "what is served is what is printed");
    let mut by_path: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, method, _) in operations(&document) {
        by_path.entry(path).or_default().insert(method);
    }
    assert!(by_path.len() > 15, "the check sees paths: {}", by_path.len());
    for (path, methods) in by_path {
        let answer = owner.request("PATCH", &filled(&path), &[], None).await;
        assert_eq!(answer.problem(), "method_not_allowed", "{path}");
        let allowed: BTreeSet<String> =
            answer.header("allow").unwrap().split(',').map(str::to_owned).collect();
        let mut expected = methods;
        if expected.contains("GET") {
            expected.insert("HEAD".to_owned());
        }
        assert_eq!(allowed, expected, "{path}");
    }
}

#[test]
fn each_operation_says_what_it_takes_and_gives() {
    let document: Value = serde_json::from_str(&openapi()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap().to_owned();
        assert!(ids.insert(id.clone()), "{id} is there twice");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{id}");
        let problem =
            &operation["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"];
        assert_eq!(problem, "#/components/schemas/Problem", "{id}");
        let parameters = operation["parameters"].as_array().unwrap();
        let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
        assert_eq!(in_path, path.matches('{').count(), "{id}");
        let takes = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].is_string();
        assert!(takes || method != "PUT", "{id}");
    }
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 100);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}

#[test]
fn the_program_prints_it() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_zen-control"));
    let output = command.arg("openapi").output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), openapi());
}
