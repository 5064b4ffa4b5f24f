//! The `OpenAPI` 3.1 document, made from the routes and the types of their bodies.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::head::{KEY_BYTES_MAX, QUERY_BYTES_MAX};
use super::page::PAGE_ITEMS_MAX;
use super::problem::{FieldError, Kind, Problem};
use super::resources::routes;
use super::route::{Conditional, Route, Shape, Verb};

/// The document, JSON.
pub fn openapi() -> String {
    serde_json::to_string_pretty(&document(&routes())).expect("texts and numbers are JSON")
}

fn document(routes: &[Route]) -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut schemas = Map::new();
    for shape in [Shape::of::<Problem>(), Shape::of::<FieldError>(), Shape::of::<Kind>()] {
        add_schema(&mut schemas, &shape);
    }
    for route in routes {
        for shape in [&route.body, &route.answer].into_iter().flatten() {
            add_schema(&mut schemas, shape);
        }
        paths.entry(&route.path).or_default().insert(route.verb.name().to_owned(), operation(route));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "zen-control",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The control plane, for people. TLS 1.3 with a certificate of a person on the client's side.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "certificate": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "certificate": { "type": "mutualTLS" } },
        },
    })
}

fn add_schema(schemas: &mut Map<String, Value>, shape: &Shape) {
    let mut found = vec![((shape.name)().into_owned(), (shape.schema)())];
    (shape.schemas)(&mut found);
    for (name, schema) in found {
        schemas.insert(name, serde_json::to_value(schema).expect("a schema is JSON"));
    }
}

fn operation(route: &Route) -> Value {
    let mut answers = Map::new();
    let mut success = json!({ "description": "Done" });
    if let Some(shape) = &route.answer {
        success["content"] = json!({ route.media: { "schema": reference(shape) } });
    }
    if route.verb == Verb::Put {
        answers.insert("201".to_owned(), success.clone());
    }
    answers.insert(route.status.to_string(), success);
    if route.conditional == Conditional::Yes && route.is_safe() {
        answers.insert("304".to_owned(), json!({ "description": "It is the one that the client has" }));
    }
    let problem = json!({ "application/problem+json": { "schema": reference(&Shape::of::<Problem>()) } });
    answers
        .insert("default".to_owned(), json!({ "description": "A problem (RFC 9457)", "content": problem }));
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "x-permission": route.operation.row().0,
        "parameters": parameters(route),
        "responses": answers,
    });
    if let Some(shape) = &route.body {
        let content = json!({ "application/json": { "schema": reference(shape) } });
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let words = route.path.split(['/', '{', '}', '.', '-']).filter(|word| !word.is_empty() && *word != "v1");
    [route.verb.name()].into_iter().chain(words).collect::<Vec<_>>().join("_")
}

fn parameters(route: &Route) -> Vec<Value> {
    let parameter = |place: &str, name: &str, schema: Value| json!({ "in": place, "name": name, "required": place == "path", "schema": schema });
    let text = |max: usize| json!({ "type": "string", "minLength": 1, "maxLength": max });
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut found: Vec<Value> = names
        .map(|name| {
            let schema = json!({ "type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$" });
            parameter("path", name, schema)
        })
        .collect();
    found.extend(route.query.iter().map(|name| {
        let schema = match *name {
            "limit" => json!({ "type": "integer", "minimum": 1, "maximum": PAGE_ITEMS_MAX }),
            "dry_run" => json!({ "type": "boolean", "default": false }),
            _ => text(QUERY_BYTES_MAX),
        };
        parameter("query", name, schema)
    }));
    if route.conditional == Conditional::Yes {
        found.extend(
            ["If-Match", "If-None-Match"].map(|name| parameter("header", name, json!({ "type": "string" }))),
        );
    }
    if route.verb == Verb::Post {
        found.push(parameter("header", "Idempotency-Key", text(KEY_BYTES_MAX)));
    }
    found
}

fn reference(shape: &Shape) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", (shape.name)()) })
}
