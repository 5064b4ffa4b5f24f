//! Receipts: what became of each delivery, in a file of the egress, without a body.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use aws_lc_rs::hmac;
use mesh::{Mesh, distinct, target};
use serde_json::Value;
use support::node::{run, wait_until};
use support::{GITHUB, Lab, change};
use target::{Answer, Delivery, Target};

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

fn receipts(mesh: &Mesh) -> Vec<Value> {
    let text = fs::read_to_string(mesh.lab.path("inside/receipts/receipts.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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
    wait_written(&mesh, 3);
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
    let text = fs::read_to_string(mesh.lab.path("inside/receipts/receipts.jsonl")).unwrap();
    assert!(!text.contains("good") && !text.contains("bad\\"), "never a body: {text}");

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
