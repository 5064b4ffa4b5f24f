//! What there is: tenants, denials, bundles, configurations, status, and that texts come back as they went in.

use std::path::Path;

use serde_json::{Value, json};
use zen_control_api::{EnrollmentBundle, SignedConfiguration};

use crate::lab::{Lab, now_ms};

#[tokio::test(flavor = "multi_thread")]
async fn texts_come_back_byte_for_byte() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    for (index, text) in [
        "'; DROP TABLE objects; --",
        "\" OR 1=1; VACUUM",
        "<script>alert(1)</script>&amp;",
        "a\u{0}b",
        "\u{7f}\r\n\t\u{1b}[31m",
        "%00%2e%2e/../../etc/passwd",
        "\u{202e}\u{200d}\u{fffd}\u{10ffff}",
        "e\u{301} é",
        "${jndi:ldap://x}{{7*7}}",
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/v1/tenants/acme/clusters/c{index}");
        let made = owner.put(&path, &json!({ "description": text })).await;
        assert_eq!(made.status, 201, "{text:?}: {}", made.text());
        assert_eq!(owner.get(&path).await.json()["object"]["description"], text);
        let reason =
            owner.post("/v1/denials", &json!({"serial": format!("{index:02x}"), "reason": text})).await;
        let kept = owner.get(reason.header("location").unwrap()).await;
        assert_eq!(kept.json()["reason"], text);
    }
    let list = owner.get("/v1/tenants/acme/clusters").await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_have_objects_of_their_own() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    let made = owner.post("/v1/tenants", &json!({"name": "beta"})).await;
    assert_eq!((made.status, made.header("location")), (201, Some("/v1/tenants/beta")));
    assert_eq!(owner.post("/v1/tenants", &json!({"name": "beta"})).await.problem(), "conflict");
    let refused = owner.post("/v1/tenants", &json!({"name": "../x"})).await;
    assert_eq!((refused.problem().as_str(), refused.pointers()), ("invalid", vec!["/name".to_owned()]));
    assert_eq!(owner.get("/v1/tenants").await.json(), json!({"items": [{"name": "acme"}, {"name": "beta"}]}));

    assert_eq!(owner.put("/v1/tenants/beta/clusters/edge", &json!({})).await.status, 201);
    assert_eq!(owner.get("/v1/tenants/acme/clusters/edge").await.problem(), "not_found");
    assert_eq!(owner.get("/v1/tenants/acme/clusters").await.json(), json!({"items": []}));
    let taken = owner.put("/v1/tenants/acme/clusters/edge", &json!({})).await;
    assert_eq!(taken.problem(), "conflict", "agents' ids have no tenant in them");
    let bundle = json!({"urls": ["https://c.example:1"]});
    assert_eq!(owner.post("/v1/tenants/acme/clusters/edge/bundles", &bundle).await.problem(), "not_found");
    let made = owner.post("/v1/tenants/beta/clusters/edge/bundles", &bundle).await.json();
    let text = made["text"].as_str().unwrap();
    assert_eq!(EnrollmentBundle::decode(text.as_bytes()).unwrap().tenant, "beta");
    let other = format!("/v1/tenants/acme/clusters/edge/bundles/{}", made["bundle_id"].as_str().unwrap());
    assert_eq!(owner.delete(&other).await.problem(), "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_made_listed_and_revoked() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    owner.put("/v1/tenants/acme/clusters/edge", &json!({})).await;
    let bundles = "/v1/tenants/acme/clusters/edge/bundles";
    let before = now_ms();
    let made =
        owner.post(bundles, &json!({"urls": ["https://c.example:1"], "life_seconds": 90})).await.json();
    let bundle = EnrollmentBundle::decode(made["text"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!((bundle.cluster.as_str(), bundle.tenant.as_str()), ("edge", "acme"));
    assert_eq!(made["expires_at_ms"], bundle.expires_at_ms);
    assert!(bundle.expires_at_ms >= before + 90_000);
    let id = made["bundle_id"].as_str().unwrap();
    assert_eq!(owner.get(bundles).await.json()["items"][0]["state"], "open");
    assert_eq!(owner.delete(&format!("{bundles}/{id}")).await.status, 204);
    assert_eq!(owner.delete(&format!("{bundles}/{id}")).await.status, 204, "it is so already");
    assert_eq!(owner.get(bundles).await.json()["items"][0]["state"], "revoked");
    for id in ["x", &"0".repeat(32)] {
        assert_eq!(owner.delete(&format!("{bundles}/{id}")).await.problem(), "not_found");
    }
    for (body, pointer) in [
        (json!({"urls": []}), "/urls"),
        (json!({"urls": ["http://c.example:1"]}), "/urls"),
        (json!({"urls": vec!["https://c.example:1"; 5]}), "/urls"),
        (json!({"urls": ["https://c.example:1"], "life_seconds": 59}), "/life_seconds"),
        (json!({"urls": ["https://c.example:1"], "life_seconds": 86401}), "/life_seconds"),
        (json!({"urls": ["https://c.example:1"], "life_seconds": u64::MAX}), "/life_seconds"),
    ] {
        let refused = owner.post(bundles, &body).await;
        assert_eq!(
            (refused.problem().as_str(), refused.pointers()),
            ("invalid", vec![pointer.to_owned()]),
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_in_every_configuration_at_once() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    owner.put("/v1/tenants/acme/clusters/edge", &json!({})).await;
    let configurations = "/v1/tenants/acme/clusters/edge/configurations";
    assert_eq!(owner.get(configurations).await.problem(), "not_found");
    assert_eq!(owner.request("POST", configurations, &[], None).await.json(), json!({"version": 1}));
    let id = "spiffe://acme.example/edge/node-1";
    let made = owner.post("/v1/denials", &json!({"spiffe_id": id, "until_ms": now_ms() + 60_000})).await;
    let newest = owner.get(configurations).await.json();
    assert_eq!(newest["version"], 2);
    assert!(newest["text"].as_str().unwrap().contains(id));
    assert_eq!(owner.delete(made.header("location").unwrap()).await.status, 204);
    assert_eq!(owner.delete(made.header("location").unwrap()).await.problem(), "not_found");
    let newest = owner.get(configurations).await.json();
    assert_eq!(newest["version"], 3);
    assert!(!newest["text"].as_str().unwrap().contains(id));
    let long = "x".repeat(257);
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"spiffe_id": id, "serial": "ab"}), ""),
        (json!({"spiffe_id": "https://x"}), "/spiffe_id"),
        (json!({"serial": "abc"}), "/serial"),
        (json!({"spki_sha256": "ab"}), "/spki_sha256"),
        (json!({"serial": "ab", "reason": long}), "/reason"),
        (json!({"serial": "ab", "until_ms": 1}), "/until_ms"),
        (json!({"serial": "ab", "until_ms": u64::MAX}), "/until_ms"),
    ] {
        let refused = owner.post("/v1/denials", &body).await;
        assert_eq!(
            (refused.problem().as_str(), refused.pointers()),
            ("invalid", vec![pointer.to_owned()]),
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_shown_then_published_and_signed() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    owner.put("/v1/tenants/acme/clusters/edge", &json!({})).await;
    let configurations = "/v1/tenants/acme/clusters/edge/configurations";
    let shown = owner.request("POST", &format!("{configurations}?dry_run=true"), &[], None).await;
    assert_eq!((shown.status, shown.json()["configuration"]["members"].clone()), (200, json!({})));
    assert_eq!(owner.get(configurations).await.problem(), "not_found", "it was only shown");
    let wrong = owner.request("POST", &format!("{configurations}?dry_run=1"), &[], None).await;
    assert_eq!(wrong.problem(), "malformed");
    let published = owner.request("POST", configurations, &[], None).await;
    assert_eq!((published.status, published.header("etag")), (201, Some("\"1\"")));
    let newest = owner.get(configurations).await.json();
    let bundle =
        owner.post("/v1/tenants/acme/clusters/edge/bundles", &json!({"urls": ["https://c.example:1"]})).await;
    let bundle = EnrollmentBundle::decode(bundle.json()["text"].as_str().unwrap().as_bytes()).unwrap();
    let signed = json!({"text": newest["text"], "signature": newest["signature"]});
    let signed: SignedConfiguration = serde_json::from_value(signed).unwrap();
    assert_eq!(signed.verify(&bundle.configuration_key, ("acme", "edge"), 0).unwrap().version, 1);

    // Objects that do not fit each other are named, and nothing is published.
    let flow = json!({"endpoint": "00000000000000000000000000000000", "destinations": ["nowhere"]});
    let made = owner.put("/v1/tenants/acme/delivery-flows/f", &flow).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let credential = json!({"clusters": ["edge", "gone"], "place": "a/b/c", "ciphertext": AGE});
    let made = owner.put("/v1/tenants/acme/credentials/c", &credential).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let member = json!({"cluster": "edge", "roles": ["egress"], "settings": {"egress": {"workers": "many"}}});
    owner.put("/v1/tenants/acme/members/node-1", &member).await;
    let refused = owner.request("POST", configurations, &[], None).await;
    assert!(refused.status == 201 || !refused.pointers().is_empty(), "{}", refused.text());
}

/// How an age file begins, base64.
const AGE: &str = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBhCg==";

#[tokio::test(flavor = "multi_thread")]
async fn status_is_what_the_command_prints() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    owner.put("/v1/tenants/acme/clusters/edge", &json!({})).await;
    assert_eq!(owner.get("/v1/tenants/acme/status").await.json(), json!({"items": [{"cluster": "edge"}]}));
    owner.request("POST", "/v1/tenants/acme/clusters/edge/configurations", &[], None).await;
    let report = r#"{"agent_version": "1", "configuration": 1, "members": {
        "a": {"outcome": {"outcome": "applied", "version": 1}, "certificate_not_after_ms": 5},
        "b": {"outcome": {"outcome": "rejected", "version": 1, "reason": "<b>"}, "certificate_not_after_ms": 6}}}"#;
    let sql = "INSERT INTO statuses (cluster, received_at_ms, report) VALUES ('edge', 7, ?1)";
    lab.database().execute(sql, (report,)).unwrap();
    let status = owner.get("/v1/tenants/acme/clusters/edge/status").await.json();
    assert_eq!(
        status,
        json!({"cluster": "edge", "version": 1, "report": {
            "received_at_ms": 7, "agent_version": "1", "configuration": 1, "members": {
                "a": {"outcome": "applied", "version": 1, "certificate_not_after_ms": 5},
                "b": {"outcome": "rejected", "version": 1, "reason": "<b>", "certificate_not_after_ms": 6}}}})
    );
    assert_eq!(owner.get("/v1/tenants/acme/clusters/other/status").await.problem(), "not_found");
    let health = owner.get("/healthz").await.json();
    assert_eq!(health, json!({"status": "ok", "person": "owner", "roles": {"acme": "owner"}}));
}

/// Answers and database hold what they must, and the directory no more files than before.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_beside_the_database() {
    let lab = Lab::start().await;
    let names = |path: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let mut owner = lab.owner().await;
    owner.get("/healthz").await;
    let before = names(&lab.state().join("state"));
    owner.put("/v1/tenants/acme/clusters/edge", &json!({})).await;
    let bundle: Value =
        owner.post("/v1/tenants/acme/clusters/edge/bundles", &json!({"urls": ["https://c:1"]})).await.json();
    assert!(bundle["text"].is_string());
    assert_eq!(names(&lab.state().join("state")), before);
}
