//! Receipts: what became of each delivery, in a file of the egress, without a body.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;

use aws_lc_rs::hmac;
use mesh::{Mesh, distinct, target};
use serde_json::Value;
use support::node::{get_unix, run, wait_until};
use support::{GITHUB, Lab, change};
use target::{Answer, Delivery, Target};
use zen_audit::{Digest, LogKey, Note, SegmentFinding, SignatureKind, SigningKey, verify_segments};
use zeroize::Zeroizing;

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const NO_RETRIES: &str = "retry_schedule_ms = []\nretry_jitter_percent = 0";
const SECTION: &str = "[egress.receipts]\nbytes_max = 1048576\n\n[[egress.ingesters]]";
const GOOD: &[u8] = b"{\"is\":\"good\"}";
const BAD: &[u8] = b"{\"is\":\"bad\"}";

fn status(_: usize, delivery: &Delivery) -> Answer {
    Answer::status(if delivery.body == BAD { 500 } else { 200 })
}

fn start(section: &str) -> (Mesh, Target) {
    let lab = Lab::new();
    let target = target(&lab, "demo", status);
    let targets = lab.target_text("demo", target.address, NO_RETRIES);
    let edit = |text: &str| change(text, "[[egress.ingesters]]", section);
    (Mesh::start_with(lab, &targets, str::to_owned, edit), target)
}

/// All lines, as they are on disk.
fn text(mesh: &Mesh) -> String {
    let bytes = segments(mesh).into_iter().flat_map(|(_, bytes)| bytes).collect();
    String::from_utf8(bytes).unwrap()
}

/// Those of outcomes.
fn receipts(mesh: &Mesh) -> Vec<Value> {
    lines(mesh).into_iter().filter(|line| line["outcome"].is_string()).collect()
}

fn lines(mesh: &Mesh) -> Vec<Value> {
    let lines: Vec<Value> = text(mesh).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (sequence, line) in lines.iter().enumerate() {
        assert_eq!(line["sequence"], sequence, "{line}");
    }
    lines
}

fn segments(mesh: &Mesh) -> Vec<(u64, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(mesh.lab.path("inside/receipts")) else { return Vec::new() };
    let mut segments = BTreeMap::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Some((number, _)) = name.strip_prefix("segment-").and_then(|name| name.split_once('-')) {
            segments.insert(number.parse().unwrap(), fs::read(&path).unwrap());
        }
    }
    segments.into_iter().collect()
}

/// What an auditor finds, by the key that the node itself tells.
fn verified(mesh: &Mesh) -> SegmentFinding {
    let directory = mesh.lab.path("inside/receipts");
    let digests = fs::read_to_string(directory.join("digests.jsonl")).unwrap();
    let digests = digests.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        Note::parse(line["note"].as_str().unwrap()).unwrap()
    });
    let seed = fs::read(directory.join("receipts.key")).unwrap();
    let seed = Zeroizing::new(seed[..32].try_into().unwrap());
    let key = SigningKey::new("node/inside", SignatureKind::Note, &seed).unwrap();
    verify_segments(&digests.collect::<Vec<_>>(), segments(mesh), key.public())
}

fn wait_written(mesh: &Mesh, count: u64) {
    wait_until("receipts", || mesh.inside.metric("zen_receipts_written_total") as u64 == count);
}

fn ordered(mesh: &Mesh, words: &[&str]) -> String {
    let socket = mesh.lab.path("inside.sock");
    let output = run(&[words, &["--socket", socket.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_outcome_is_a_line_that_a_body_can_be_held_against() {
    let (mut mesh, _target) = start(SECTION);
    let (good, bad) = (mesh.send(GOOD), mesh.send(BAD));
    wait_written(&mesh, 2);
    ordered(&mesh, &["dead-letters", "discard", "--event", &bad]);
    wait_written(&mesh, 4);
    let found = receipts(&mesh);
    let of = |id: &str| found.iter().filter(|found| found["event"] == id).collect::<Vec<_>>();
    let (delivered, ended) = (of(&good)[0], of(&bad));
    assert_eq!((&delivered["outcome"], &delivered["status"]), (&"delivered".into(), &200.into()));
    assert_eq!((&delivered["target"], &delivered["endpoint"]), (&"demo".into(), &GITHUB.into()));
    assert_eq!((&delivered["attempts"], &delivered["reason"]), (&1.into(), &Value::Null));
    assert_eq!((&ended[0]["outcome"], &ended[0]["reason"]), (&"dead".into(), &"server_error".into()));
    assert_eq!((&ended[0]["status"], &ended[1]["outcome"]), (&500.into(), &"discarded".into()));

    let key = fs::read(mesh.lab.path("inside/receipts/hmac.key")).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), GOOD);
    let mut hex = vec![0; 64];
    zen_core::id::encode_hex(tag.as_ref(), &mut hex);
    let hex = String::from_utf8(hex).unwrap();
    assert_eq!(delivered["body_hmac_sha256"], hex);
    assert_ne!(ended[0]["body_hmac_sha256"], hex);
    let text = text(&mesh);
    assert!(!text.contains("good") && !text.contains("bad\\"), "never a body: {text}");

    let acts: Vec<Value> = lines(&mesh).into_iter().filter(|line| line["act"].is_string()).collect();
    assert_eq!((acts.len(), &acts[0]["act"]), (2, &"receipts.begin".into()));
    assert_eq!(acts[1]["act"], "dead-letters.discard");
    assert_eq!(acts[1]["actor"], format!("uid:{}", nix::unistd::getuid()));

    mesh.inside.kill();
    mesh.restart_inside();
    assert_eq!(receipts(&mesh), found);
    let shown = ordered(&mesh, &["events", "show", &good]);
    assert!(shown.contains("receipt") && shown.contains(&hex), "{shown}");
    assert!(!shown.contains("discarded"), "only its own: {shown}");
}

#[test]
fn a_drain_leaves_none_unwritten() {
    let (mut mesh, target) = start(SECTION);
    let ids = mesh.send_many(50, 100);
    target.wait(50);
    wait_until("all are done", || mesh.inside.metric("zen_events_live") as u64 == 0);
    assert!(mesh.inside.terminate().success());
    let events = receipts(&mesh).into_iter().map(|found| found["event"].as_str().unwrap().to_owned());
    assert_eq!(distinct(events), distinct(ids));
}

/// A kill takes what the thread has not written; the journal gives it back, once.
#[test]
fn each_outcome_has_one_line_through_kills() {
    let (mut mesh, target) = start(&SECTION.replace("1048576", "1048576\ndigest_receipts_max = 7"));
    let mut ids = Vec::new();
    for round in 1..=8 {
        ids.extend(mesh.send_many(20, 4));
        ids.push(mesh.send(BAD));
        wait_until("deliveries", || target.deliveries().len() >= round * 21 - 10);
        mesh.inside.kill();
        mesh.restart_inside();
    }
    wait_until("all have ended", || mesh.inside.metric("zen_events_live") as u64 == 8);
    assert!(mesh.inside.terminate().success());
    let mut outcomes = BTreeMap::<String, Vec<String>>::new();
    for line in receipts(&mesh) {
        let event = line["event"].as_str().unwrap().to_owned();
        assert!(line["body_hmac_sha256"].is_string() && line["endpoint"] == GITHUB, "{line}");
        outcomes.entry(event).or_default().push(line["outcome"].as_str().unwrap().to_owned());
    }
    assert_eq!(distinct(outcomes.keys().cloned()), distinct(ids));
    assert!(outcomes.values().all(|outcomes| outcomes.len() == 1), "{outcomes:?}");
    assert_eq!(outcomes.values().filter(|outcomes| outcomes[0] == "dead").count(), 8);
    let (finding, all) = (verified(&mesh), lines(&mesh).len() as u64);
    assert_eq!(finding, SegmentFinding { first: 0, verified: all, unsigned: 0, fault: None });
}

#[test]
fn an_agent_reads_lines_digests_and_key() {
    let (mut mesh, _target) = start(&SECTION.replace("1048576", "1048576\ndigest_receipts_max = 2"));
    mesh.send(GOOD);
    wait_written(&mesh, 1);
    let socket = mesh.lab.path("inside.sock");
    let get = |path: &str| -> (u16, Value) {
        let (status, body) = get_unix(&socket, path).unwrap();
        (status, serde_json::from_str(&body).unwrap())
    };
    wait_until("a digest", || get("/receipts/digests").1["digests"].as_array().unwrap().len() == 1);
    let (_, page) = get("/receipts?limit=1");
    assert_eq!((&page["first"], &page["next"]), (&0.into(), &2.into()));
    assert_eq!(page["receipts"][0]["act"], "receipts.begin");
    let (_, page) = get("/receipts?after=0");
    assert_eq!(
        (page["receipts"].as_array().unwrap().len(), &page["receipts"][0]["outcome"]),
        (1, &"delivered".into())
    );
    assert_eq!(get("/receipts?after=1").1["receipts"], serde_json::json!([]));
    let (_, digests) = get("/receipts/digests");
    assert_eq!((&digests["digests"][0]["segment"], &digests["digests"][0]["count"]), (&0.into(), &2.into()));
    assert_eq!(get("/receipts/digests?after=0").1["digests"], serde_json::json!([]));
    let (_, key) = get("/receipts/key");
    assert_eq!(key["origin"], "node/inside");
    let key = LogKey::parse(key["key"].as_str().unwrap()).unwrap();
    let note = Note::parse(digests["digests"][0]["note"].as_str().unwrap()).unwrap();
    let digest = Digest::verify(&note, &key).unwrap();
    assert_eq!(digests["digests"][0]["hash"], digest.hash().to_string());
    for query in ["after=x", "limit=0", "limit=1001", "before=1", "after=-1", "after"] {
        assert_eq!(get(&format!("/receipts?{query}")).0, 400, "{query}");
    }
    assert!(mesh.inside.terminate().success());
}

#[test]
fn without_the_section_nothing_is_written() {
    let (mesh, target) = start("[[egress.ingesters]]");
    mesh.send(GOOD);
    target.wait(1);
    wait_until("it is done", || mesh.inside.metric("zen_events_live") as u64 == 0);
    assert!(!mesh.lab.path("inside/receipts").exists());
}

#[test]
fn a_key_that_others_may_read_stops_the_start() {
    use std::os::unix::fs::PermissionsExt as _;
    let (mut mesh, _target) = start(SECTION);
    assert!(mesh.inside.terminate().success());
    let key = mesh.lab.path("inside/receipts/hmac.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let file = mesh.lab.path("inside.toml");
    let output = run(&["--config", file.to_str().unwrap(), "--io", &support::node::io()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("lets others read it"), "{said}");
}
