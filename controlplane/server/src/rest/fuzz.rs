//! What people may send, as arbitrary bytes: read without a panic, as another reader reads it, and again as it is kept.

use axum::http::header::{ACCEPT, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue};
use serde_json::Value;

use super::head::{self, Conditions, IDEMPOTENCY_KEY, TAGS_MAX, Tags};
use super::json;
use super::page::{LIST_QUERY, PAGE_ITEMS_MAX, Page};
use crate::objects::{Cluster, Credential, DeliveryFlow, Destination, Endpoint, Member, Object, Policy};

/// Asserts all of it.
pub(crate) fn check(data: &[u8]) {
    check_body(data);
    check_query(data);
    check_headers(data);
}

fn check_body(data: &[u8]) {
    let Ok(value) = json::parse(data) else { return };
    let second: Value = serde_json::from_slice(data).expect("the second reader takes it as well");
    assert_eq!(value, second);
    check_object::<Cluster>(&value);
    check_object::<Member>(&value);
    check_object::<Endpoint>(&value);
    check_object::<Destination>(&value);
    check_object::<DeliveryFlow>(&value);
    check_object::<Policy>(&value);
    check_object::<Credential>(&value);
}

/// What is taken is kept, and read again as the same.
fn check_object<T: Object>(value: &Value) {
    let Ok(object) = json::decode::<T>(value.clone()) else { return };
    if object.check("0123456789abcdef0123456789abcdef").is_err() {
        return;
    }
    assert!(value.is_object(), "{value}");
    let text = serde_json::to_string(&object).expect("texts and numbers are JSON");
    let again: T = serde_json::from_str(&text).expect("our own text is read again");
    assert_eq!(serde_json::to_string(&again).expect("as before"), text);
    let parsed = json::parse(text.as_bytes()).expect("our own text is no deeper than what came");
    assert!(json::decode::<T>(parsed).is_ok(), "what was given can be sent again");
}

fn check_query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(fields) = head::query(Some(text), LIST_QUERY) else { return };
    assert!(fields.keys().all(|name| LIST_QUERY.contains(name)));
    let Ok(page) = Page::read(&fields, "clusters") else { return };
    assert!((1..=PAGE_ITEMS_MAX).contains(&page.count));
}

fn check_headers(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::new();
    for name in [ACCEPT, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, IDEMPOTENCY_KEY] {
        headers.insert(name, value.clone());
    }
    head::accepts_json(&headers);
    head::is_json(&headers);
    if let Ok(Some(key)) = head::idempotency_key(&headers) {
        assert_eq!(key.as_bytes(), data);
    }
    let Ok(conditions) = Conditions::read(&headers) else { return };
    for tags in [conditions.if_match, conditions.if_none_match].into_iter().flatten() {
        assert!(!tags.holds(None));
        if let Tags::Revisions(revisions) = tags {
            assert!(revisions.len() <= TAGS_MAX && revisions.iter().all(|revision| *revision >= 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_of_each_sample_may_be_another() {
        let corpus =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../dataplane/fuzz/corpus/control_person_request");
        let mut count = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            let sample = std::fs::read(entry.unwrap().path()).unwrap();
            check(&sample);
            for at in 0..sample.len() {
                check(&sample[..at]);
                for byte in [0, b'"', b'\\', b'{', b'[', b'%', b',', b'1', 0xff] {
                    let mut changed = sample.clone();
                    changed[at] = byte;
                    check(&changed);
                    count += 1;
                }
            }
        }
        assert!(count > 1000, "the check sees samples: {count}");
    }
}
