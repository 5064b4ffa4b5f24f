//! Requests that come twice.

use serde_json::{Value, json};
use zen_control::Role;

use crate::lab::Lab;

const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";
const KEY: (&str, &str) = ("Idempotency-Key", "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"");

fn endpoint(cluster: &str) -> Value {
    json!({"cluster": cluster, "scheme": "github", "secrets": ["edge/webhooks/github"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_one_key_is_done_once() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    let first = owner.request("POST", ENDPOINTS, &[KEY], Some(&endpoint("edge"))).await;
    let again = owner.request("POST", ENDPOINTS, &[KEY], Some(&endpoint("edge"))).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json(), again.json());
    for name in ["location", "etag"] {
        assert_eq!(first.header(name), again.header(name), "{name}");
        assert!(first.header(name).is_some(), "{name}");
    }
    let name = first.json()["name"].as_str().unwrap().to_owned();
    assert!(name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{name}");
    let mut other = lab.owner().await;
    let again = other.request("POST", ENDPOINTS, &[KEY], Some(&endpoint("edge"))).await;
    assert_eq!(again.json(), first.json(), "on another connection too");
    let without = owner.post(ENDPOINTS, &endpoint("edge")).await;
    assert_ne!(without.json()["name"], first.json()["name"]);
    assert_eq!(owner.get(ENDPOINTS).await.json()["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_of_one_request_and_one_person() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    let refused = owner.request("POST", ENDPOINTS, &[KEY], Some(&json!({}))).await;
    assert_eq!(refused.problem(), "invalid");
    let first = owner.request("POST", ENDPOINTS, &[KEY], Some(&endpoint("edge"))).await;
    assert_eq!(first.status, 201, "what was refused did not use the key up");
    let other = owner.request("POST", ENDPOINTS, &[KEY], Some(&endpoint("hub"))).await;
    assert_eq!((other.status, other.problem().as_str()), (422, "idempotency_key_reused"));
    let elsewhere = owner.request("POST", "/v1/tenants", &[KEY], Some(&json!({"name": "b"}))).await;
    assert_eq!(elsewhere.problem(), "idempotency_key_reused");
    lab.add("eve", Role::Admin);
    let theirs = lab.client("eve").await.request("POST", ENDPOINTS, &[KEY], Some(&endpoint("hub"))).await;
    assert_eq!(theirs.status, 201);
    for key in ["", "a b", "ü", &"a".repeat(129)] {
        let headers = [("Idempotency-Key", key)];
        let answer = owner.request("POST", ENDPOINTS, &headers, Some(&endpoint("edge"))).await;
        assert_eq!(answer.problem(), "malformed", "{key}");
    }
    let day = "UPDATE idempotency SET created_ms = created_ms - 24 * 3600 * 1000";
    lab.database().execute(day, ()).unwrap();
    let later = owner.request("POST", ENDPOINTS, &[KEY], Some(&endpoint("hub"))).await;
    assert_eq!(later.status, 201, "a day later the key is new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_does_not_wait_for_the_first() {
    let lab = Lab::start().await;
    let (mut one, mut two) = (lab.owner().await, lab.owner().await);
    let held = lab.database();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    let body = endpoint("edge");
    let (refused, done) = {
        let mut asked_one = std::pin::pin!(one.request("POST", ENDPOINTS, &[KEY], Some(&body)));
        let mut asked_two = std::pin::pin!(two.request("POST", ENDPOINTS, &[KEY], Some(&body)));
        // Whichever comes second is answered while the other waits for the database.
        tokio::select! {
            refused = &mut asked_one => {
                held.execute_batch("COMMIT").unwrap();
                (refused, asked_two.await)
            }
            refused = &mut asked_two => {
                held.execute_batch("COMMIT").unwrap();
                (refused, asked_one.await)
            }
        }
    };
    assert_eq!(refused.problem(), "conflict");
    assert_eq!(done.status, 201, "{}", done.text());
    let again = two.request("POST", ENDPOINTS, &[KEY], Some(&endpoint("edge"))).await;
    assert_eq!(again.status, 201);
    assert_eq!(two.get(ENDPOINTS).await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_of_a_bundle_is_given_once() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    owner.put("/v1/tenants/acme/clusters/edge", &json!({})).await;
    let bundles = "/v1/tenants/acme/clusters/edge/bundles";
    let body = json!({"urls": ["https://control.example:8444"]});
    let made = owner.request("POST", bundles, &[KEY], Some(&body)).await.json();
    let seed: Value = serde_json::from_str(made["text"].as_str().unwrap()).unwrap();
    let seed = seed["seed"].as_str().unwrap().to_owned();
    let again = owner.request("POST", bundles, &[KEY], Some(&body)).await;
    assert_eq!(again.problem(), "conflict");
    let list = owner.get(bundles).await;
    assert_eq!(list.json()["items"][0]["bundle_id"], made["bundle_id"]);
    assert_eq!(list.json()["items"].as_array().unwrap().len(), 1, "it was made once");
    assert!(!list.text().contains(&seed));
    for entry in std::fs::read_dir(lab.state().join("state")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(seed.len()).any(|window| window == seed.as_bytes()), "{}", path.display());
    }
}
