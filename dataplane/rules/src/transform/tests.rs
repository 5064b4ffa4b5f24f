//! Transforms, from TOML to bytes.

use serde_json::{Value, json};

use super::*;
use crate::fuzz;
use crate::strategies;
use proptest::prelude::*;

fn transform(fields: &str) -> Result<Transform, String> {
    // Room for one value as long as any may be.
    let text = format!("output_bytes_max = {VALUE_BYTES_MAX}\nfields = [{fields}]");
    let raw: RawTransform = toml::from_str(&text).map_err(|error| error.to_string())?;
    Transform::compile(&raw, "transform").map_err(|error| error.to_string())
}

fn apply(fields: &str, body: &str) -> Result<String, String> {
    let transform = transform(fields).unwrap();
    let document = Document::new(body.as_bytes());
    match transform.apply(&document) {
        Ok(made) => Ok(String::from_utf8(made.body).unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

const ORDER: &str = r#"{
    "id": 17, "total": "19.90", "created": "2024-05-01T23:30:00+02:00", "at": 1714599000, "at_ms": -1,
    "customer": { "email": "  Ada@Example.COM ", "name": "Ada", "note": null },
    "items": [ { "sku": "A-1", "count": 2 }, { "sku": "B-2", "count": 1 } ], "tags": "red,green", "paid": true
}"#;

#[test]
fn sources_and_places() {
    let cases = [
        ("{ direct = 'id' }", r#"{"id":17}"#),
        ("{ direct = 'customer.name' }", r#"{"customer":{"name":"Ada"}}"#),
        ("{ direct = 'customer.name', to = 'who' }", r#"{"who":"Ada"}"#),
        (
            "{ direct = 'items.1.sku', to = 'a.b' }, { direct = 'id', to = 'a.c' }",
            r#"{"a":{"b":"B-2","c":17}}"#,
        ),
        ("{ direct = 'customer.note', to = 'note' }", r#"{"note":null}"#),
        ("{ jsonpath = '$.items[0].sku', to = 'first' }", r#"{"first":"A-1"}"#),
        ("{ jsonpath = '$.items[*].sku', to = 'all' }", r#"{"all":["A-1","B-2"]}"#),
        ("{ jsonpath = '$.items[?@.count == 1].sku', to = 'one' }", r#"{"one":["B-2"]}"#),
        ("{ static = 'shop', to = 'from' }", r#"{"from":"shop"}"#),
        ("{ static = { a = [1, true] }, to = 'x' }", r#"{"x":{"a":[1,true]}}"#),
        ("{ template = 'no {{ $.id }} of {{$.customer.name}}!', to = 't' }", r#"{"t":"no 17 of Ada!"}"#),
        ("{ template = '{{ $.paid }}{{ $.customer.note }}', to = 't' }", r#"{"t":"truenull"}"#),
        ("{ template = 'plain } {', to = 't' }", r#"{"t":"plain } {"}"#),
    ];
    for (fields, expected) in cases {
        assert_eq!(apply(fields, ORDER), Ok(expected.to_owned()), "{fields}");
    }
}

#[test]
fn functions_make_what_they_say() {
    let cases = [
        ("direct = 'customer.email', functions = ['trim', 'lowercase']", json!("ada@example.com")),
        ("static = 'straße', functions = ['uppercase']", json!("STRASSE")),
        ("direct = 'tags', functions = [{ split = ',' }]", json!(["red", "green"])),
        ("direct = 'tags', functions = [{ split = ',' }, { join = ' and ' }]", json!("red and green")),
        ("jsonpath = '$.items[*].count', functions = [{ join = '' }]", json!("21")),
        ("direct = 'id', functions = ['toString']", json!("17")),
        ("direct = 'paid', functions = ['toString']", json!("true")),
        ("direct = 'total', functions = ['toNumber']", json!(19.9)),
        ("direct = 'id', functions = ['toNumber']", json!(17)),
        ("static = '18446744073709551615', functions = ['toNumber']", json!(u64::MAX)),
        (
            "direct = 'created', functions = [{ formatDate = { to = '%Y-%m-%d %H:%M' } }]",
            json!("2024-05-01 21:30"),
        ),
        (
            "direct = 'at', functions = [{ formatDate = { from = 'seconds', to = '%d.%m.%Y' } }]",
            json!("01.05.2024"),
        ),
        (
            "direct = 'at_ms', functions = [{ formatDate = { from = 'milliseconds', to = '%Y-%m-%dT%H:%M:%SZ' } }]",
            json!("1969-12-31T23:59:59Z"),
        ),
        ("direct = 'tags', functions = [{ replace = { from = 're', to = '' } }]", json!("d,gen")),
        ("direct = 'tags', functions = [{ replace = { from = '.', to = '!' } }]", json!("red,green")),
        ("direct = 'tags', functions = [{ extract = 'g[a-z]+' }]", json!("green")),
        ("direct = 'tags', functions = [{ extract = '^(.)e' }]", json!("r")),
    ];
    for (field, expected) in cases {
        let made = apply(&format!("{{ to = 'x', {field} }}"), ORDER).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&made).unwrap(), json!({ "x": expected }), "{field}");
    }
}

#[test]
fn what_is_missing_is_decided_for_each_field() {
    let missing = "field x: the body does not have it; on_missing can make it null or omit it";
    for source in [
        "direct = 'z'",
        "direct = 'id.z'",
        "direct = 'items.7'",
        "direct = 'items.sku'",
        "jsonpath = '$.z'",
        "jsonpath = '$.z[*]'",
        "template = 'a {{ $.id }} {{ $.z }}'",
        "direct = 'tags', functions = [{ extract = 'blue' }, 'trim']",
    ] {
        let with = |on_missing: &str| apply(&format!("{{ to = 'x', {source}{on_missing} }}"), ORDER);
        assert_eq!(with(""), Err(missing.to_owned()), "{source}");
        assert_eq!(with(", on_missing = 'error'"), Err(missing.to_owned()), "{source}");
        assert_eq!(with(", on_missing = 'null'"), Ok(r#"{"x":null}"#.to_owned()), "{source}");
        assert_eq!(with(", on_missing = 'omit'"), Ok("{}".to_owned()), "{source}");
    }
    let fields = "{ direct = 'z', to = 'a.b.c', on_missing = 'omit' }, { direct = 'id', to = 'd' }";
    assert_eq!(apply(fields, ORDER), Ok(r#"{"d":17}"#.to_owned()), "no empty objects");
}

#[test]
fn faults_name_field_function_and_type_but_no_value() {
    let cases = [
        ("direct = 'id', functions = ['trim']", "field x: trim: needs a string, got number"),
        ("direct = 'items', functions = ['lowercase']", "field x: lowercase: needs a string, got array of 2"),
        (
            "jsonpath = '$.items[*]', functions = ['toString']",
            "field x: toString: needs a scalar, got array of 2",
        ),
        (
            "direct = 'items', functions = [{ join = ',' }]",
            "field x: join: needs an array of scalars, got object of 2",
        ),
        (
            "direct = 'tags', functions = ['toNumber']",
            "field x: toNumber: a string of 9 bytes is no JSON number",
        ),
        (
            "static = ' 1', functions = ['toNumber']",
            "field x: toNumber: a string of 2 bytes is no JSON number",
        ),
        (
            "direct = 'paid', functions = ['toNumber']",
            "field x: toNumber: needs a string or number, got boolean",
        ),
        (
            "direct = 'tags', functions = [{ formatDate = { to = '%Y' } }]",
            "field x: formatDate: a string of 9 bytes is no time that can be read",
        ),
        (
            "direct = 'total', functions = [{ formatDate = { from = 'seconds', to = '%Y' } }]",
            "field x: formatDate: needs an integer, got string of 5 bytes",
        ),
        (
            "static = 9000000000000000000, functions = [{ formatDate = { from = 'seconds', to = '%Y' } }]",
            "field x: formatDate: a number is no time that can be read",
        ),
        ("template = '{{ $.customer }}'", "field x: a placeholder needs a scalar, got object of 3"),
    ];
    for (field, expected) in cases {
        assert_eq!(apply(&format!("{{ to = 'x', {field} }}"), ORDER), Err(expected.to_owned()), "{field}");
    }
    assert_eq!(
        apply("{ direct = 'a' }", "secret").unwrap_err(),
        "the body is not JSON from line 1, column 1"
    );
}

#[test]
fn rules_that_do_not_compile_name_their_place() {
    let cases = [
        ("", "transform.fields: is 0; it must be 1 to 64"),
        ("{ to = 'x' }", "transform.fields[0]: has 0 of `direct`, `jsonpath`, `static` and `template`"),
        ("{ to = 'x', direct = 'a', static = 1 }", "fields[0]: has 2 of"),
        ("{ static = 1 }", "fields[0]: `to` is missing; add it"),
        ("{ direct = 'a..b' }", "fields[0].direct: is not names joined by dots"),
        ("{ direct = 'a', to = '.' }", "fields[0].to: is not names joined by dots"),
        ("{ direct = 'a', to = '' }", "fields[0].to: is 0; it must be 1 to 512"),
        ("{ direct = 'a', to = 'a.a.a.a.a.a.a.a.a' }", "fields[0].to: is 9; it must be 1 to 8"),
        ("{ direct = 'a' }, { direct = 'b', to = 'a' }", "fields[1].to: lies on the way to or at another"),
        ("{ direct = 'a' }, { direct = 'a.b' }", "fields[1].to: lies on the way"),
        ("{ direct = 'a.b' }, { direct = 'a' }", "fields[1].to: lies on the way"),
        ("{ jsonpath = 'a', to = 'x' }", "fields[0].jsonpath: not a JSONPath"),
        ("{ template = 'a {{ $.b', to = 'x' }", "fields[0].template: `{{` at byte 2 has no `}}`; close"),
        ("{ template = '{{ $.* }}', to = 'x' }", "fields[0].template: may select several values"),
        ("{ template = '{{ b }}', to = 'x' }", "fields[0].template: not a JSONPath"),
        ("{ static = 2024-01-01, to = 'x' }", "fields[0].static: is not a JSON value"),
        (
            "{ direct = 'a', functions = ['trim', { extract = '(' }] }",
            "fields[0].functions[1]: regex does not compile",
        ),
        (
            "{ direct = 'a', functions = [{ split = '' }] }",
            "fields[0].functions[0]: is 0; it must be 1 to 256",
        ),
        (
            "{ direct = 'a', functions = [{ formatDate = { to = '%!' } }] }",
            "functions[0]: is no strftime format",
        ),
        (
            "{ direct = 'a', functions = ['trim','trim','trim','trim','trim','trim','trim','trim','trim'] }",
            "fields[0].functions: is 9; it must be 0 to 8",
        ),
        ("{ direct = 'a', functions = ['reverse'] }", "unknown variant `reverse`"),
        ("{ direct = 'a', function = 'trim' }", "unknown field `function`"),
        ("{ direct = 'a', on_missing = 'skip' }", "unknown variant `skip`"),
    ];
    for (fields, expected) in cases {
        let error = transform(fields).map(|_| ()).unwrap_err();
        assert!(error.contains(expected), "{fields}: {error}");
    }
    let raw: RawTransform = toml::from_str("content_type = 'json'\nfields = [{ direct = 'a' }]").unwrap();
    let error = Transform::compile(&raw, "t").unwrap_err().to_string();
    assert!(error.starts_with("t.content_type: is not a media type"), "{error}");
}

#[test]
fn what_grows_is_refused_at_its_bound() {
    let body = |bytes: usize| json!({ "a": "a".repeat(bytes) }).to_string();
    let field =
        |functions: &str| apply(&format!("{{ direct = 'a', functions = [{functions}] }}"), &body(200_000));
    assert!(field("{ replace = { from = 'a', to = 'b' } }").is_ok());
    let too_long = |function: &str| Err(format!("field a: {function}: makes more than 262144 bytes"));
    assert_eq!(field("{ replace = { from = 'a', to = 'bb' } }"), too_long("replace"));
    assert_eq!(apply("{ direct = 'a', functions = ['trim'] }", &body(300_000)), too_long("trim"));
    assert_eq!(
        apply("{ direct = 'a', functions = [{ split = 'a' }] }", &body(10_000)),
        Err("field a: split: makes more than 10000 elements".to_owned())
    );
    assert!(apply("{ direct = 'a', functions = [{ split = 'a' }] }", &body(9_999)).is_ok());
    let items = format!("{{\"a\":[{}0]}}", "0,".repeat(10_000));
    assert_eq!(
        apply("{ direct = 'a', functions = [{ join = '' }] }", &items),
        Err("field a: join: makes more than 10000 elements".to_owned())
    );
    let twice = "{ template = '{{ $.a }}{{ $.a }}', to = 'a' }";
    assert_eq!(apply(twice, &body(200_000)), Err("field a: its value has more than 262144 bytes".to_owned()));
    // Borrowed values are not held again: the bound is met while writing. Made ones are counted before.
    for functions in ["", ", functions = ['trim']"] {
        let fields =
            format!("{{ direct = 'a', to = 'x'{functions} }}, {{ direct = 'a', to = 'y'{functions} }}");
        assert_eq!(apply(&fields, &body(200_000)), Err("the output has more than 262144 bytes".to_owned()));
    }
}

#[test]
fn the_bound_of_the_output_is_exact() {
    let raw = |bytes_max: u32| {
        let text = format!(
            "content_type = 'application/vnd.a+json'\noutput_bytes_max = {bytes_max}\nfields = [{{ direct = 'a' }}]"
        );
        Transform::compile(&toml::from_str(&text).unwrap(), "t").unwrap()
    };
    let document = Document::new(br#"{"a":12}"#);
    let (fits, short) = (raw(8), raw(7));
    let made = fits.apply(&document).unwrap();
    assert_eq!((made.body.as_slice(), made.content_type), (&br#"{"a":12}"#[..], "application/vnd.a+json"));
    assert_eq!(short.apply(&document), Err(TransformError::OutputTooLong { bytes_max: 7 }));
}

#[test]
fn several_values_are_not_copied() {
    // Copied, the descendants of this body would be some million values.
    let body = format!("{}{}{}", "[".repeat(99), "[],".repeat(20_000) + "[]", "]".repeat(99));
    let error = apply("{ jsonpath = '$..*', to = 'x', functions = [{ join = '' }] }", &body).unwrap_err();
    assert_eq!(error, "field x: join: makes more than 10000 elements");
    let error = apply("{ jsonpath = '$..*', to = 'x' }", &body).unwrap_err();
    assert_eq!(error, "the output has more than 262144 bytes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Any function on any value gives JSON or a reason, the same each time.
    #[test]
    fn any_body_is_transformed_or_refused(
        document in strategies::document(),
        path in strategies::path(),
        functions in prop::collection::vec(prop::sample::select(&[
            "\"lowercase\"", "\"uppercase\"", "\"trim\"", "\"toString\"", "\"toNumber\"", "{\"split\":\"a\"}",
            "{\"join\":\",\"}", "{\"extract\":\"a(b?)\"}", "{\"replace\":{\"from\":\"a\",\"to\":\"bb\"}}",
            "{\"formatDate\":{\"from\":\"seconds\",\"to\":\"%s\"}}",
        ][..]), 0..4),
    ) {
        let path = Value::from(path);
        let raw = format!("{{\"fields\":[{{\"to\":\"x\",\"jsonpath\":{path},\"functions\":[{}]}}]}}\n{document}", functions.join(","));
        fuzz::fuzz_rules_transform(raw.as_bytes());
    }
}
