//! Bad input for each route, each parameter and each field, made from the document: a new one is in it by itself.
//!
//! None is our fault, each is a problem, and what is taken comes back as it was sent.

use serde_json::{Map, Value, json};
use zen_control::openapi;

use crate::client::{Answer, Client};
use crate::document::operations;
use crate::lab::Lab;

const JSON: (&str, &str) = ("Content-Type", "application/json");
/// Deepest sample: settings go no deeper by themselves.
const SAMPLE_DEPTH: usize = 8;

fn document() -> Value {
    serde_json::from_str(&openapi()).unwrap()
}

/// The path of an operation, with names of things that are there or can be.
fn path_with(path: &str, replaced: &str, by: &str) -> String {
    let part = |part: &str| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        Some(name) if name == replaced => by.to_owned(),
        Some("tenant") => "acme".to_owned(),
        Some("cluster") => "edge".to_owned(),
        Some(_) => "0123456789abcdef0123456789abcdef".to_owned(),
        None => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

async fn lab() -> (Lab, Client) {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    assert_eq!(owner.put("/v1/tenants/acme/clusters/edge", &json!({})).await.status, 201);
    (lab, owner)
}

/// Texts that some program somewhere takes for more than texts, as JSON.
fn hostile_texts() -> Vec<String> {
    let texts = [
        "",
        "'; DROP TABLE objects; --",
        "\" OR \"\"=\"",
        "<script>alert(1)</script>",
        "../../../etc/passwd",
        "a\u{0}b",
        "\r\nX-Injected: 1",
        "\u{202e}\u{feff}",
        "%s%n{{7*7}}${7*7}",
        "spiffe://acme.example/control",
    ];
    let long = ["a".repeat(300), "a".repeat(70_000), "é".repeat(2_000)];
    let texts = texts.into_iter().map(str::to_owned).chain(long);
    texts.map(|text| Value::from(text).to_string()).collect()
}

/// JSON, or nearly.
fn hostile_values() -> Vec<Vec<u8>> {
    let deep = |open: &str, close: &str| open.repeat(200) + "1" + &close.repeat(200);
    let values = [
        "null",
        "true",
        "0",
        "-1",
        "1.5",
        "1e999",
        "-1e-999",
        "18446744073709551616",
        "123456789012345678901234567890",
        "[]",
        "{}",
        "[null]",
        "[[], {}]",
        r#"{"x": 1}"#,
        r#"{"": {"": null}}"#,
        r#"{"x": 1, "x": 2}"#,
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#""\x41""#,
        "\"a",
        "",
        "NaN",
    ];
    let values = values.into_iter().map(str::to_owned).chain([deep("[", "]"), deep("{\"a\":", "}")]);
    let mut values: Vec<Vec<u8>> = values.chain(hostile_texts()).map(String::into_bytes).collect();
    values.extend([b"\"\xff\"".to_vec(), b"\"\xc0\xaf\"".to_vec(), b"\"\xed\xa0\x80\"".to_vec()]);
    values
}

/// Follows a reference.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => resolved(document, document.pointer(&reference[1..]).unwrap()),
        None => schema,
    }
}

/// Something that the schema describes, with each field that it has.
fn sample(document: &Value, schema: &Value, depth: usize) -> Value {
    let schema = resolved(document, schema);
    if let Some(example) = schema.get("example") {
        return example.clone();
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        let variants = schema[several].as_array().into_iter().flatten();
        if let Some(variant) = variants.clone().find(|variant| variant["type"] != "null") {
            return sample(document, variant, depth);
        }
    }
    match kinds(document, schema).first().map(String::as_str) {
        Some("string") => json!("a"),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(false),
        Some("array") if depth > 0 => json!([sample(document, &schema["items"], depth - 1)]),
        Some("array") => json!([]),
        _ => {
            let properties = schema["properties"].as_object().into_iter().flatten().filter(|_| depth > 0);
            let field =
                |(name, schema): (&String, &Value)| (name.clone(), sample(document, schema, depth - 1));
            Value::Object(properties.map(field).collect::<Map<_, _>>())
        }
    }
}

/// Types that a schema takes; all, if it does not say.
fn kinds(document: &Value, schema: &Value) -> Vec<String> {
    let schema = resolved(document, schema);
    let mut found = Vec::new();
    match &schema["type"] {
        Value::String(kind) => found.push(kind.clone()),
        Value::Array(kinds) => found.extend(kinds.iter().filter_map(Value::as_str).map(str::to_owned)),
        _ => {}
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        for variant in schema[several].as_array().into_iter().flatten() {
            found.extend(kinds(document, variant));
        }
    }
    found
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Pointers to all fields of a sample, each with the types that it may have; the whole first.
fn fields(document: &Value, schema: &Value, value: &Value, pointer: &str) -> Vec<(String, Vec<String>)> {
    let schema = resolved(document, schema);
    let mut found = vec![(pointer.to_owned(), kinds(document, schema))];
    let variants = ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|several| schema[several].as_array());
    for variant in variants.flatten().filter(|variant| variant["type"] != "null") {
        found.extend(fields(document, variant, value, pointer).split_off(1));
    }
    match value {
        Value::Object(values) => {
            for (name, value) in values {
                let schema = &schema["properties"][name];
                if !schema.is_null() {
                    found.extend(fields(document, schema, value, &format!("{pointer}/{name}")));
                }
            }
        }
        Value::Array(values) if !schema["items"].is_null() => {
            for (index, value) in values.iter().enumerate() {
                found.extend(fields(document, &schema["items"], value, &format!("{pointer}/{index}")));
            }
        }
        _ => {}
    }
    found
}

/// A sample's text with other bytes in place of one field.
fn with_bytes(sample: &Value, pointer: &str, bytes: &[u8]) -> Vec<u8> {
    const MARK: &str = "\"5f3a9c-mark\"";
    let mut changed = sample.clone();
    *changed.pointer_mut(pointer).unwrap() = serde_json::from_str(MARK).unwrap();
    let text = changed.to_string();
    let (before, after) = text.split_once(MARK).unwrap();
    [before.as_bytes(), bytes, after.as_bytes()].concat()
}

/// It is refused as a problem, or done.
fn check(answer: &Answer, what: &str) -> bool {
    if answer.status < 300 {
        return true;
    }
    assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
    answer.problem();
    false
}

/// Bodies that are taken, so that behind each wrong field the rest is right.
fn right(schema: &str) -> Option<Value> {
    let place = "edge/webhooks/github";
    let right = match schema {
        "Cluster" => json!({"description": "a"}),
        "Member" => json!({"cluster": "edge", "roles": ["ingester"], "description": "a",
            "link": {"listen": "0.0.0.0:7443", "address": "edge.example:7443"},
            "settings": {"node": {"data_dir": "/var/lib/zen"}}}),
        "Endpoint" => json!({"cluster": "edge", "members": ["a"], "scheme": "github", "secrets": [place],
            "description": "a", "settings": {}}),
        "Destination" => json!({"cluster": "edge", "member": "a", "url": "https://billing.example/hooks",
            "key_id": "billing-1", "secret": place, "previous_secret": place,
            "spiffe_ids": ["spiffe://acme.example/edge/*"], "description": "a", "settings": {}}),
        "DeliveryFlow" => json!({"endpoint": "0123456789abcdef0123456789abcdef", "destinations": ["billing"],
            "outputs": [{"name": "both", "primary": "billing", "standby": ["other"], "settings": {}}],
            "when": {"type": "order"}, "description": "a", "settings": {}}),
        "Policy" => json!({"scope": "links", "clusters": ["edge"], "allow": ["spiffe://acme.example/edge/*"],
            "deny": ["spiffe://acme.example/edge/a"], "dry_run": true, "description": "a"}),
        "Credential" => json!({"clusters": ["edge"], "place": place, "description": "a",
            "ciphertext": "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBhCg=="}),
        "BundleRequest" => json!({"urls": ["https://control.example:8444"], "life_seconds": 60}),
        "DenialRequest" => json!({"serial": "ab", "reason": "a", "until_ms": 9_999_999_999_999_u64}),
        "Billing" => json!({"plan": "large", "contact": "ann@acme.example"}),
        "RoleRequest" => json!({"role": "viewer"}),
        _ => return None,
    };
    Some(right)
}

/// Operations that take a body: path, method, schema, samples.
fn bodies(document: &Value) -> Vec<(String, String, Value, Vec<Value>)> {
    let found = operations(document).into_iter().filter_map(|(path, method, operation)| {
        let schema = operation["requestBody"]["content"]["application/json"].get("schema")?.clone();
        let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let made = sample(document, &schema, SAMPLE_DEPTH);
        let right = right(name);
        assert!(right.is_some() || method != "PUT", "{name} is new: say what a right one is");
        let samples = [Some(made), right].into_iter().flatten().collect();
        Some((path_with(&path, "", ""), method, schema, samples))
    });
    found.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn right_bodies_are_taken_and_have_all_fields() {
    let (lab, _) = lab().await;
    let document = document();
    for (path, method, schema, samples) in bodies(&document) {
        let Some(right) = samples.get(1) else { continue };
        let answer = lab.owner().await.request(&method, &path, &[], Some(right)).await;
        assert!(answer.status < 300, "{method} {path}: {}", answer.text());
        let properties = resolved(&document, &schema)["properties"].as_object().unwrap().clone();
        // One of three is all that a denial may have.
        let missing = properties.keys().filter(|name| right.get(name.as_str()).is_none()).count();
        assert!(missing == 0 || path == "/v1/denials" && missing == 2, "{method} {path} has new fields");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_refuses_what_it_is_not_and_keeps_what_it_takes() {
    let (lab, _) = lab().await;
    let document = document();
    let (mut sent, mut taken) = (0, 0);
    for (path, method, schema, samples) in bodies(&document) {
        let mut client = lab.owner().await;
        let pointers = |sample: Value| {
            let fields = fields(&document, &schema, &sample, "");
            fields.into_iter().map(move |(pointer, kinds)| (sample.clone(), pointer, kinds))
        };
        for (sample, pointer, kinds) in samples.into_iter().flat_map(pointers) {
            for bytes in hostile_values() {
                let body = with_bytes(&sample, &pointer, &bytes);
                let what = format!(
                    "{method} {path} {pointer}: {}",
                    String::from_utf8_lossy(&body[..body.len().min(400)])
                );
                let answer = client.send(&method, &path, &[JSON], &body).await;
                sent += 1;
                let is_done = check(&answer, &what);
                let value: Option<Value> = serde_json::from_slice(&bytes).ok();
                let Some(value) = value.filter(|_| is_done) else { continue };
                taken += 1;
                let kind = kind_of(&value);
                let is_right = kinds.is_empty()
                    || kinds.iter().any(|right| right == kind || right == "number" && kind == "integer");
                assert!(is_right, "{what} was taken");
                if method == "PUT" && !value.is_null() {
                    let kept = client.get(&path).await;
                    // A role is seen in the list of people only.
                    if kept.status == 405 {
                        continue;
                    }
                    let kept = kept.json();
                    let kept = kept.get("object").unwrap_or(&kept).pointer(&pointer);
                    assert!(kept.is_none_or(|kept| holds(kept, &value)), "{what}: {kept:?}");
                    assert!(kept.is_some() || is_nothing(&value), "{what} was lost");
                }
            }
        }
    }
    println!("{sent} requests, {taken} taken");
    assert!(sent > 1000 && taken > 10, "{sent} {taken}");
}

/// Whether all that was sent is there; fields that were left out have their defaults.
fn holds(kept: &Value, sent: &Value) -> bool {
    match (kept, sent) {
        (Value::Object(kept), Value::Object(sent)) => {
            sent.iter().all(|(name, sent)| kept.get(name).is_some_and(|kept| holds(kept, sent)))
        }
        _ => kept == sent,
    }
}

/// What a field that is left out is as well.
fn is_nothing(value: &Value) -> bool {
    matches!(value, Value::Array(values) if values.is_empty())
        || matches!(value, Value::Object(fields) if fields.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_body_has_its_fields_and_no_others() {
    let (lab, _) = lab().await;
    let document = document();
    for (path, method, schema, samples) in bodies(&document) {
        let mut client = lab.owner().await;
        let sample = samples.last().unwrap();
        let schema = resolved(&document, &schema);
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for name in required.iter().filter_map(Value::as_str) {
            let mut changed = sample.clone();
            changed.as_object_mut().unwrap().remove(name);
            let answer = client.request(&method, &path, &[], Some(&changed)).await;
            assert_eq!(answer.problem(), "invalid", "{method} {path} without {name}");
            assert!(answer.text().contains(name), "{}", answer.text());
        }
        let mut more = sample.clone();
        more.as_object_mut().unwrap().insert("unknown".to_owned(), json!(1));
        let answer = client.request(&method, &path, &[], Some(&more)).await;
        assert_eq!(
            (answer.problem().as_str(), answer.pointers()),
            ("invalid", vec!["/unknown".to_owned()]),
            "{path}"
        );
        let text = sample.to_string();
        let twice = format!("{},{}", &text[..text.len() - 1], &text[1..]);
        if sample.as_object().is_some_and(|fields| !fields.is_empty()) {
            let answer = client.send(&method, &path, &[JSON], twice.as_bytes()).await;
            assert_eq!(answer.problem(), "malformed", "{method} {path} with fields twice");
        }
        for end in (1..text.len()).step_by(1 + text.len() / 40) {
            let answer = client.send(&method, &path, &[JSON], &text.as_bytes()[..end]).await;
            assert_eq!(answer.problem(), "malformed", "{method} {path} cut at {end}");
        }
        for content_type in ["text/plain", "application/xml", "application/json; charset=utf-16", "*/*", ""] {
            let answer =
                client.send(&method, &path, &[("Content-Type", content_type)], text.as_bytes()).await;
            assert_eq!(answer.problem(), "unsupported_media_type", "{method} {path} {content_type}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_parameter_refuses_what_it_is_not() {
    let (lab, mut client) = lab().await;
    let document = document();
    let names = [
        "%00",
        "%ff",
        "%2e%2e",
        "a%2fb",
        "%27;--",
        "%3Cb%3E",
        "%E2%80%AE",
        ".a",
        "a%20",
        &"a".repeat(65),
        &"a".repeat(8000),
    ];
    let values = [
        "",
        "%00",
        "%ff",
        "%",
        "-1",
        "1e9",
        "99999999999999999999",
        "';--",
        "%3Cb%3E",
        "%F0%9F%92%A3",
        "AAAA",
        "null",
    ];
    let headers = ["", "\"", "x", "W/\"", "*, *", "\"1\",,\"2\"", "\t", "é", &"\"1\",".repeat(500)];
    let mut checked = 0;
    for (path, method, operation) in operations(&document) {
        let whole = path_with(&path, "", "");
        for parameter in operation["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            let place = parameter["in"].as_str().unwrap();
            let hostile: &[&str] = match place {
                "path" => &names,
                "query" => &values,
                _ => &headers,
            };
            for value in hostile {
                let what = format!("{method} {path} {place} {name}={value}");
                let (target, header) = match place {
                    "path" => (path_with(&path, name, value), None),
                    "query" => (format!("{whole}?{name}={value}"), None),
                    _ => (whole.clone(), Some((name, *value))),
                };
                let header: Vec<(&str, &str)> = header.into_iter().chain([JSON]).collect();
                let body = if operation["requestBody"].is_null() { &b""[..] } else { b"{}" };
                let answer = client.send(&method, &target, &header, body).await;
                let is_done = check(&answer, &what);
                assert!(place != "path" || !is_done, "{what} was taken");
                checked += 1;
                if answer.header("connection") == Some("close") {
                    client = lab.owner().await;
                }
            }
        }
        let unknown = client.request(&method, &format!("{whole}?unknown=1"), &[], None).await;
        assert_eq!(unknown.problem(), "malformed", "{method} {path}");
        let accept = client.request(&method, &whole, &[("Accept", "text/html")], None).await;
        assert_eq!(accept.problem(), "not_acceptable", "{method} {path}");
        if operation["requestBody"].is_null() {
            let answer = client.send(&method, &whole, &[JSON], b"{}").await;
            assert_eq!(answer.problem(), "malformed", "{method} {path} takes no body");
        }
    }
    assert!(checked > 300, "{checked}");
}
