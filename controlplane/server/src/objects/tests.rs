use serde_json::{Value, json};

use super::*;

const ENDPOINT: &str = "00112233445566778899aabbccddeeff";

/// One good object of each kind, with everything that it may have.
fn good() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        (Cluster::KIND, "edge", json!({"description": "Vienna"})),
        (
            Member::KIND,
            "edge-1",
            json!({"cluster": "edge", "roles": ["ingester"], "settings": {"node": {"data_dir": "/var/lib/zen"}},
                "link": {"listen": "0.0.0.0:7443", "address": "edge.example:7443"}}),
        ),
        (
            Endpoint::KIND,
            ENDPOINT,
            json!({"cluster": "edge", "members": ["edge-1"], "scheme": "hmac", "secrets": ["edge/webhooks/builds"],
                "settings": {"hmac": {"header": "x-signature"}}}),
        ),
        (
            Destination::KIND,
            "billing",
            json!({"cluster": "inside", "member": "inside-1", "url": "https://billing.example:8443/hooks?a=b",
                "key_id": "billing-1", "secret": "inside/targets/billing", "previous_secret": "inside/targets/old",
                "spiffe_ids": ["spiffe://acme.example/inside/*"], "settings": {"in_flight_max": 8}}),
        ),
        (
            DeliveryFlow::KIND,
            "pushes",
            json!({"endpoint": ENDPOINT, "destinations": ["billing"], "when": {"header": "x", "exact": "push"},
                "outputs": [{"name": "ci", "primary": "a", "standby": ["b"], "settings": {"failover": {}}}],
                "settings": {"priority": 7}}),
        ),
        (
            Policy::KIND,
            "no-tests",
            json!({"clusters": ["edge"], "scope": "links", "deny": ["spiffe://acme.example/test/*"], "dry_run": true}),
        ),
        (
            Credential::KIND,
            "github",
            json!({"clusters": ["edge"], "place": "edge/webhooks/github",
                "ciphertext": "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSA="}),
        ),
    ]
}

fn read<T: Object>(name: &str, value: &Value) -> Result<Value, String> {
    let object: T = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    object.check(name).map_err(|fault| fault.pointer)?;
    Ok(serde_json::to_value(&object).unwrap())
}

/// The object as it is written again; the pointer, or what serde says, if it is refused.
fn read_kind(kind: &str, name: &str, value: &Value) -> Result<Value, String> {
    match kind {
        Cluster::KIND => read::<Cluster>(name, value),
        Member::KIND => read::<Member>(name, value),
        Endpoint::KIND => read::<Endpoint>(name, value),
        Destination::KIND => read::<Destination>(name, value),
        DeliveryFlow::KIND => read::<DeliveryFlow>(name, value),
        Policy::KIND => read::<Policy>(name, value),
        Credential::KIND => read::<Credential>(name, value),
        _ => panic!("{kind}"),
    }
}

#[test]
fn good_objects_come_back_as_they_are() {
    for (kind, name, value) in good() {
        let again = read_kind(kind, name, &value).unwrap_or_else(|fault| panic!("{kind}: {fault}"));
        for (key, own) in value.as_object().unwrap() {
            assert_eq!(again.get(key), Some(own), "{kind} {key}");
        }
        assert_eq!(read_kind(kind, name, &again), Ok(again.clone()), "{kind}");
    }
}

#[test]
fn unknown_fields_are_refused() {
    for (kind, name, mut value) in good() {
        value["surprise"] = json!(1);
        assert!(read_kind(kind, name, &value).unwrap_err().contains("surprise"), "{kind}");
    }
}

#[test]
fn names_are_names() {
    for (kind, _, value) in good() {
        for name in ["", ".", "a/b", "a b", "\u{0}", "<b>", "' OR 1=1"] {
            assert_eq!(read_kind(kind, name, &value), Err(String::new()), "{kind} {name:?}");
        }
    }
    for name in ["agent", "control", "people"] {
        assert_eq!(read::<Cluster>(name, &json!({})), Err(String::new()), "{name}");
    }
}

/// Each field with a value that it must not have, and the pointer that the fault has.
const BAD: [(&str, &str, &str, &str); 39] = [
    ("destinations", "url", "\"https://billing.example/{{private_key}}\"", "/url"),
    ("members", "roles", "[]", "/roles"),
    ("members", "cluster", "\"a/b\"", "/cluster"),
    ("members", "roles", "[\"egress\", \"egress\"]", "/roles/1"),
    ("members", "link", "{\"listen\": \"0.0.0.0\", \"address\": \"a:1\"}", "/link/listen"),
    ("members", "link", "{\"listen\": \"[::]:7443\", \"address\": \"a b:1\"}", "/link/address"),
    ("members", "link", "{\"listen\": \"0.0.0.0:7443\", \"address\": \"a:0\"}", "/link/address"),
    ("members", "settings", "{\"egress\": {}}", "/settings/egress"),
    ("endpoints", "cluster", "\"\"", "/cluster"),
    ("endpoints", "members", "[\"a\", \"a\"]", "/members/1"),
    ("endpoints", "secrets", "[]", "/secrets"),
    ("endpoints", "secrets", "[\"a/b\"]", "/secrets/0"),
    ("endpoints", "secrets", "[\"a/b/c\", \"a/../c\"]", "/secrets/1"),
    ("endpoints", "secrets", "[\"zen/edge-1/key-1\"]", "/secrets/0"),
    ("endpoints", "scheme", "\"github\"", "/settings/hmac"),
    ("endpoints", "scheme", "\"none\"", "/secrets"),
    ("endpoints", "settings", "{}", "/settings/hmac"),
    ("destinations", "member", "\"\"", "/member"),
    ("destinations", "url", "\"http://billing.example/\"", "/url"),
    ("destinations", "url", "\"https://billing.example\"", "/url"),
    ("destinations", "url", "\"https://me@billing.example/\"", "/url"),
    ("destinations", "url", "\"https://billing.example/#a\"", "/url"),
    ("destinations", "url", "\"https://billing.example:70000/\"", "/url"),
    ("destinations", "url", "\"https://billing.example/\\n\"", "/url"),
    ("destinations", "key_id", "\"a b\"", "/key_id"),
    ("destinations", "secret", "\"a/b/.c\"", "/secret"),
    ("destinations", "previous_secret", "\"a\"", "/previous_secret"),
    ("destinations", "spiffe_ids", "[\"spiffe://acme.example/a*\"]", "/spiffe_ids/0"),
    ("destinations", "settings", "{\"url\": \"x\"}", "/settings/url"),
    ("delivery-flows", "destinations", "[\"a\", \"a\"]", "/destinations/1"),
    ("delivery-flows", "outputs", "[{\"name\": \"a\", \"primary\": \"\"}]", "/outputs/0/primary"),
    (
        "delivery-flows",
        "outputs",
        "[{\"name\": \"a\", \"primary\": \"b\", \"settings\": {\"name\": 1}}]",
        "/outputs/0/settings/name",
    ),
    ("delivery-flows", "when", "{\"exact\": null}", "/when/exact"),
    ("delivery-flows", "endpoint", "\"\"", "/endpoint"),
    ("policies", "deny", "[]", "/allow"),
    ("policies", "allow", "[\"spiffe://Acme.example/a\"]", "/allow/0"),
    ("credentials", "clusters", "[]", "/clusters"),
    ("credentials", "ciphertext", "\"aHVudGVyMg==\"", "/ciphertext"),
    ("credentials", "ciphertext", "\"YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSA\"", "/ciphertext"),
];

#[test]
fn each_field_is_asked() {
    for (kind, field, bad, pointer) in BAD {
        let (_, name, mut value) = good().into_iter().find(|(own, ..)| *own == kind).unwrap();
        value[field] = serde_json::from_str(bad).unwrap();
        assert_eq!(read_kind(kind, name, &value), Err(pointer.to_owned()), "{kind} {field} {bad}");
    }
    for (kind, name, mut value) in good() {
        value["description"] = json!("x".repeat(fields::DESCRIPTION_BYTES_MAX + 1));
        assert_eq!(read_kind(kind, name, &value), Err("/description".to_owned()), "{kind}");
    }
}

#[test]
fn a_refused_ciphertext_is_not_repeated() {
    let value = json!({"clusters": ["edge"], "place": "a/b/c", "ciphertext": "aHVudGVyMg=="});
    let credential: Credential = serde_json::from_value(value).unwrap();
    assert!(!credential.check("github").unwrap_err().to_string().contains("aHVudGVyMg"));
}
