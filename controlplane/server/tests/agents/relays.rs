//! What agents tell beside their reports: each thing once, of their own cluster alone, and nothing that could be a payload;
//! and orders, which come at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zen_audit::{Digest, Segment, SignatureKind, SigningKey};
use zen_control_api::{
    CONFIGURATION, DEAD_LETTERS, DELIVERIES, ProblemType, RECEIPTS, RelayAnswer, SYNC, SyncAnswer,
};

use crate::client::{Agent, Connection};
use crate::lab::Lab;

/// Two clusters, each with an agent and `node-1`.
async fn two() -> (Lab, Connection, Connection) {
    let lab = Lab::start_with(Duration::from_secs(30)).await;
    let mut connections = Vec::new();
    for cluster in ["edge", "core"] {
        let agent = Agent::enroll(lab.address, &lab.bundle(cluster)).await;
        lab.configure(cluster);
        connections.push(agent.connect(lab.address).await.unwrap());
    }
    let core = connections.pop().unwrap();
    (lab, connections.pop().unwrap(), core)
}

fn key(seed: u8) -> SigningKey {
    SigningKey::new("node/node-1", SignatureKind::Note, &[seed; 32].into()).unwrap()
}

fn digest(before: Option<&Digest>, line: &str) -> Digest {
    let mut segment = Segment::behind(before);
    segment.handle_line(line.as_bytes(), 1);
    segment.digest("node/node-1", before)
}

fn digests(key: &SigningKey, digests: &[&Digest]) -> Value {
    let notes: Vec<String> = digests.iter().map(|digest| digest.sign(key).to_string()).collect();
    json!({ "member": "node-1", "key": key.public().to_string(), "digests": notes })
}

fn delivery(sequence: u64) -> Value {
    json!({ "sequence": sequence, "time_ms": 1, "event": "e", "endpoint": "p", "target": "sink", "verdict": "delivered",
        "reason": null, "status": 200, "attempts": 1, "body_hmac": "0f".repeat(32) })
}

fn deliveries(key: &SigningKey, deliveries: &[Value]) -> Value {
    json!({ "member": "node-1", "key": key.public().to_string(), "deliveries": deliveries })
}

async fn last(connection: &mut Connection, route: &str, report: &Value) -> Option<u64> {
    let answer = connection.post(route, report.to_string().as_bytes()).await.unwrap();
    answer.read::<RelayAnswer>().last
}

/// How often something was done, as the audit log has it.
fn acts(lab: &Lab, action: &str) -> i64 {
    let sql = "SELECT count(*) FROM audit_entries WHERE action = ?1";
    lab.database().query_row(sql, (action,), |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_its_bounds_or_somebody_else_s_is_refused() {
    let (lab, mut edge, _core) = two().await;
    let with = |field: &str, value: Value| {
        let mut changed = delivery(1);
        changed[field] = value;
        deliveries(&key(1), &[changed])
    };
    let member = |mut report: Value, name: &str| {
        report["member"] = json!(name);
        report
    };
    let letters = |id: &str| {
        json!({ "member": "node-1", "has_more": false, "letters": [{ "id": id, "event": null, "target": "sink",
            "reason": "gone", "status": null, "attempts": 1, "died_at_ms": 1 }] })
    };
    for (route, report, expected) in [
        (DELIVERIES, with("target", json!("a body with spaces")), ProblemType::Malformed),
        (DELIVERIES, with("body", json!("payload")), ProblemType::Malformed),
        (DELIVERIES, with("event", json!("e".repeat(65))), ProblemType::Malformed),
        (DELIVERIES, with("body_hmac", json!("payload")), ProblemType::Malformed),
        (DELIVERIES, deliveries(&key(1), &[delivery(2), delivery(1)]), ProblemType::Malformed),
        (DELIVERIES, member(deliveries(&key(1), &[]), "node-2"), ProblemType::Forbidden),
        (DELIVERIES, json!({ "member": "node-1", "key": "k", "deliveries": [] }), ProblemType::Malformed),
        (RECEIPTS, member(digests(&key(1), &[]), "node-2"), ProblemType::Forbidden),
        (DEAD_LETTERS, member(letters("0-1-0"), "node-2"), ProblemType::Forbidden),
        (DEAD_LETTERS, letters("<script>"), ProblemType::Malformed),
        (SYNC, json!({ "last_order": -1 }), ProblemType::Malformed),
        (SYNC, json!({ "witness": { "key": "k".repeat(600), "size": 0 } }), ProblemType::Malformed),
        (SYNC, json!({ "more": 1 }), ProblemType::Malformed),
    ] {
        let answer = edge.post(route, report.to_string().as_bytes()).await.unwrap();
        assert_eq!(answer.problem(), expected, "{route} {report}");
    }
    for table in ["deliveries", "dead_letters", "receipt_writers"] {
        assert_eq!(lab.count(table), 0, "{table}");
    }
    assert_eq!(edge.get("/healthz").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_one_entry_and_one_that_does_not_hold_an_alarm() {
    let (lab, mut edge, mut core) = two().await;
    let first = digest(None, "a");
    let second = digest(Some(&first), "b");
    let third = digest(Some(&second), "c");
    assert_eq!(last(&mut edge, RECEIPTS, &digests(&key(1), &[])).await, None);
    for _ in 0..3 {
        assert_eq!(last(&mut edge, RECEIPTS, &digests(&key(1), &[&first, &second])).await, Some(1));
    }
    assert_eq!((acts(&lab, "receipts.digest"), acts(&lab, "receipts.create-key")), (2, 1));
    // Another history of the same node, by its own key: told once however often it comes, and nothing of it is kept.
    let other = digest(Some(&digest(None, "x")), "y");
    for _ in 0..3 {
        let report = digests(&key(1), &[&digest(Some(&other), "z")]);
        assert_eq!(last(&mut edge, RECEIPTS, &report).await, Some(1));
    }
    assert_eq!((acts(&lab, "receipts.digest"), acts(&lab, "receipts.alarm")), (2, 1));
    assert_eq!(last(&mut edge, RECEIPTS, &digests(&key(1), &[&third])).await, Some(2), "the truth goes on");
    // Another key begins anew, which is told as well; the same name in another cluster is another node.
    assert_eq!(last(&mut edge, RECEIPTS, &digests(&key(2), &[])).await, None);
    assert_eq!(acts(&lab, "receipts.replace-key"), 1);
    assert_eq!(
        last(&mut edge, RECEIPTS, &digests(&key(1), &[])).await,
        Some(2),
        "the first key is known again"
    );
    assert_eq!(last(&mut core, RECEIPTS, &digests(&key(1), &[])).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_comes_twice_is_kept_once() {
    let (lab, mut edge, mut core) = two().await;
    let some: Vec<Value> = (3..10).map(delivery).collect();
    assert_eq!(last(&mut edge, DELIVERIES, &deliveries(&key(1), &some[..4])).await, Some(6));
    assert_eq!(last(&mut edge, DELIVERIES, &deliveries(&key(1), &some)).await, Some(9));
    assert_eq!(last(&mut edge, DELIVERIES, &deliveries(&key(1), &some)).await, Some(9));
    assert_eq!(lab.count("deliveries"), 7);
    assert_eq!(last(&mut core, DELIVERIES, &deliveries(&key(1), &some)).await, Some(9));
    assert_eq!(lab.count("deliveries"), 14, "another node's are its own");
    let letter = |id: &str| {
        json!({ "id": id, "event": null, "target": "sink", "reason": "gone", "status": null,
        "attempts": 1, "died_at_ms": 1 })
    };
    for letters in [vec![letter("0-1-0"), letter("0-2-0")], vec![letter("0-2-0")], Vec::new()] {
        let report = json!({ "member": "node-1", "letters": letters, "has_more": false });
        assert_eq!(last(&mut edge, DEAD_LETTERS, &report).await, None);
        assert_eq!(
            lab.count("dead_letters"),
            i64::try_from(letters.len()).unwrap(),
            "a list is in place of the one before"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_waits_is_told_of_an_order_at_once_and_hears_it_until_it_has_an_end() {
    let (lab, mut edge, mut core) = two().await;
    let started = Instant::now();
    edge.send("GET", &format!("{CONFIGURATION}?after=9"), b"").await.unwrap();
    let sql = "INSERT INTO orders (number, tenant, cluster, member, letters, ordered_by, created_ms, expires_ms, text, signature,
            state) VALUES (7, 'acme', 'edge', 'node-1', 1, 'somebody', 1, ?1, 'text', ?2, 'open')";
    let signature = serde_json::to_string(&zen_control_api::Base64([1; 64])).unwrap();
    lab.database().execute(sql, (i64::MAX, signature)).unwrap();
    assert_eq!(edge.answer().await.unwrap().status, 204);
    assert!(started.elapsed() < Duration::from_secs(20), "it does not wait to its end");
    let sync = |body: Value| body.to_string().into_bytes();
    let heard: SyncAnswer = core.post(SYNC, &sync(json!({}))).await.unwrap().read();
    assert!(heard.orders.is_empty(), "it is for another cluster");
    for _ in 0..2 {
        let heard: SyncAnswer = edge.post(SYNC, &sync(json!({ "last_order": 6 }))).await.unwrap().read();
        assert_eq!(heard.orders.len(), 1, "an answer may get lost");
    }
    let result = json!([{ "number": 7, "end": { "end": "done", "done": 1, "skipped": 0 } }]);
    core.post(SYNC, &sync(json!({ "results": result }))).await.unwrap().read::<SyncAnswer>();
    assert_eq!(acts(&lab, "orders.done"), 0, "it is not that agent's");
    for _ in 0..2 {
        let said = json!({ "last_order": 7, "results": result });
        let heard: SyncAnswer = edge.post(SYNC, &sync(said)).await.unwrap().read();
        assert!(heard.orders.is_empty());
    }
    assert_eq!(acts(&lab, "orders.done"), 1, "said twice, done once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_s_alarm_is_an_entry_once() {
    let (lab, mut edge, _core) = two().await;
    let witness =
        SigningKey::new("acme.example/agent/edge", SignatureKind::Cosignature, &[1; 32].into()).unwrap();
    let said = |alarm: Option<&str>| {
        let witness = json!({ "key": witness.public().to_string(), "size": 0, "alarm": alarm });
        json!({ "witness": witness }).to_string().into_bytes()
    };
    for (alarm, alarms, ends) in
        [(None, 0, 0), (Some("a"), 1, 0), (Some("a"), 1, 0), (Some("b"), 2, 0), (None, 2, 1), (None, 2, 1)]
    {
        edge.post(SYNC, &said(alarm)).await.unwrap().read::<SyncAnswer>();
        assert_eq!(
            (acts(&lab, "witnesses.alarm"), acts(&lab, "witnesses.end-alarm")),
            (alarms, ends),
            "{alarm:?}"
        );
    }
}
