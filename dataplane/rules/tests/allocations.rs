//! What routing allocates: nothing, unless a condition asks for JSON.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use allocation_counter::measure;
use zen_core::access::HeaderPattern;
use zen_rules::{
    DOCUMENT_BYTES_MAX, Document, Flows, Headers, Matching, NODES_MAX, Pattern, PatternError, RawFlow,
    RawTransform, SMALL_PATTERN_BYTES, SMALL_PROGRAM_BYTES_MAX, Subject, Transform,
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
        assert_eq!(flows.matched(routed.matched()).count(), 2, "{when}");
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

/// Of a's and b's in no order that repeats, so that a search makes many states.
fn texts() -> Vec<String> {
    let mut state = 7_u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if state >> 63 == 0 { 'a' } else { 'b' }
    };
    (0..200).map(|_| (0..1024).map(|_| letter()).collect()).collect()
}

#[test]
fn a_small_pattern_keeps_no_more_than_stated() {
    let texts = texts();
    let (bytes_max, mut dearest) = (SMALL_PATTERN_BYTES as u64, 0);
    for text in [
        "^push$",
        r"(?i)order\.(paid|sent|refunded)\b",
        r"\d{3}",
        r"(?-u:\w){320}",
        "(a|b)*a(a|b){230}c",
        "(?:a?){230}(?:a){230}",
    ] {
        let mut pattern = None;
        let compiled = measure(|| pattern = Some(Pattern::compile_small(text).unwrap()));
        let pattern = pattern.unwrap();
        let searched = measure(|| texts.iter().for_each(|text| _ = pattern.is_match(text)));
        let [compiled, searched] = [compiled.bytes_current.cast_unsigned(), searched.bytes_max];
        assert!(compiled.max(searched) < bytes_max, "{text}: {compiled}, {searched}");
        dearest = dearest.max(searched);
    }
    assert!(dearest > bytes_max / 2, "{dearest} bytes: none of these is dear");
    for too_big in [r"\w", r"\pL{2}", "(?-u:[ab]){2000}"] {
        let error = Pattern::compile_small(too_big).unwrap_err();
        assert_eq!(error, PatternError::TooBig { bytes_max: SMALL_PROGRAM_BYTES_MAX }, "{too_big}");
    }
}
