//! What routing allocates: nothing, unless a condition asks for JSON.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use allocation_counter::measure;
use zen_rules::{
    DOCUMENT_BYTES_MAX, Document, Flows, Headers, Matching, NODES_MAX, RawFlow, RawTransform, Subject,
    Transform,
};

fn allocations(when: &str) -> u64 {
    let text = format!("name = 'f'\ntargets = ['t']\n{when}");
    let raw: RawFlow = toml::from_str(&text).unwrap();
    let other = RawFlow { name: "g".to_owned(), ..raw.clone() };
    let flows = Flows::compile(&[raw, other], Matching::All).unwrap();
    let route = || {
        let document = Document::new(b"{\"a\":[1,2]}");
        let headers = Headers::Lines("x-event:push\n");
        let subject =
            Subject { endpoint: "e", content_type: "application/json", headers, document: &document };
        let routed = flows.route(&subject);
        assert_eq!(flows.matched(routed).count(), 2, "{when}");
    };
    // A regex makes its search cache when it is first used by a thread.
    route();
    measure(route).count_total
}

#[test]
fn flows_without_json_conditions_allocate_nothing() {
    let conditions = [
        "",
        "when = { header = 'x-event', exact = 'push' }",
        "when = { header = 'x-event', regex = '^p[aeu]sh$' }",
        "when = { all = [{ endpoint = 'e' }, { content_type = 'application/json' }] }",
        "when = { any = [{ not = { header = 'x-event', exists = false } }, { jsonpath = '$.a', exists = true }] }",
    ];
    for when in conditions {
        assert_eq!(allocations(when), 0, "{when}");
    }
}

/// The counter sees allocations, and one document serves all flows: two values cost what one costs.
#[test]
fn flows_with_json_conditions_parse_once() {
    let asked = allocations("when = { jsonpath = '$.a[1]', exact = 2 }");
    let document = measure(|| {
        let document = Document::new(b"{\"a\":[1,2]}");
        assert!(document.value().is_ok());
    });
    assert!(document.count_total > 0);
    assert_eq!(asked, document.count_total);
}

/// Values that functions make are held until the output is written, but no more than it may have.
#[test]
fn a_transform_holds_no_more_than_its_output_may_have() {
    let field = |at: usize| format!("{{ direct = 'a', to = 'f{at}', functions = ['trim'] }}");
    let fields: Vec<String> = (0..64).map(field).collect();
    let raw: RawTransform =
        toml::from_str(&format!("output_bytes_max = 262144\nfields = [{}]", fields.join(","))).unwrap();
    let transform = Transform::compile(&raw, "t").unwrap();
    let body = format!("{{\"a\":\"{}\"}}", "a".repeat(100_000));
    let document = Document::new(body.as_bytes());
    assert!(document.value().is_ok());
    let peak = measure(|| {
        let error = transform.apply(&document).unwrap_err();
        assert_eq!(error.to_string(), "the output has more than 262144 bytes");
    });
    assert!(peak.bytes_max < 400_000, "{} bytes", peak.bytes_max);
}

/// The memory that docs/routing.md states: objects of one member are the dearest values.
#[test]
fn the_dearest_body_takes_no_more_than_stated() {
    let objects = vec!["{\"\":0}"; NODES_MAX as usize / 2 - 1].join(",");
    let body = format!("[{objects}]");
    let peak = measure(|| {
        let document = Document::new(body.as_bytes());
        assert!(document.value().is_ok());
    });
    // The array grows by doubling, and is there twice while it does.
    assert!((20_000_000..DOCUMENT_BYTES_MAX as u64).contains(&peak.bytes_max), "{} bytes", peak.bytes_max);
}
