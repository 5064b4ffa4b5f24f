//! Events over the admin socket and the command line: the life of one, its body, and a span of time sent again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Output;
use std::time::Duration;

use mesh::{Mesh, SHORT_RETRIES, delivered, distinct, target, verifier};
use serde_json::Value;
use support::node::{run, wait_until};
use support::{GITHUB, Lab, change};
use target::{Answer, Delivery, unix_ms};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

fn ok(_: usize, _: &Delivery) -> Answer {
    Answer::status(200)
}

fn socket(mesh: &Mesh, node: &str) -> String {
    mesh.lab.path(&format!("{node}.sock")).display().to_string()
}

/// `zen-dataplane events VERB ... --socket` of the egress.
fn command(mesh: &Mesh, verb: &str, arguments: &[&str]) -> Output {
    let socket = socket(mesh, "inside");
    run(&[&["events", verb, "--socket", &socket], arguments].concat())
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Steps of an event's life, of both nodes.
fn life(mesh: &Mesh, id: &str) -> Vec<Value> {
    let edge = socket(mesh, "edge");
    let said = said(&command(mesh, "show", &[id, "--json", "--socket", &edge]));
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names(life: &[Value]) -> Vec<&str> {
    life.iter().map(|step| step["step"].as_str().unwrap()).collect()
}

fn rfc3339(unix_ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).unwrap();
    at.format(&Rfc3339).unwrap()
}

/// Waits until the journal has that each of these was delivered so often; gauges come a few times a second only.
fn wait_done(mesh: &Mesh, ids: &[String], times: usize) {
    let delivered = |id| names(&life(mesh, id)).iter().filter(|step| **step == "delivered").count();
    for id in ids {
        wait_until("its delivery is in the journal", || delivered(id) == times);
    }
}

#[test]
fn the_life_of_an_event_is_told_over_both_nodes_and_restarts() {
    let (mut mesh, target) = Mesh::with_target(SHORT_RETRIES, |_, _| Answer::status(500));
    let id = mesh.send(b"{\"secret\":\"never shown\"}");
    let expected = ["accepted", "taken", "put off", "put off", "dead"];
    wait_until("a dead letter", || names(&life(&mesh, &id)) == expected);
    mesh.inside.kill();
    mesh.restart_inside();
    target.script(ok);
    run(&["dead-letters", "replay", "--all", "--socket", &socket(&mesh, "inside")]);
    wait_done(&mesh, std::slice::from_ref(&id), 1);
    let told = life(&mesh, &id);
    let expected = ["accepted", "taken", "put off", "put off", "dead", "replayed", "delivered"];
    assert_eq!(names(&told), expected);
    let [accepted, taken] = &told[..2] else { panic!("{told:?}") };
    assert_eq!((&accepted["node"], &accepted["endpoint"]), (&"edge".into(), &GITHUB.into()));
    assert_eq!((&taken["node"], &taken["targets"][0]), (&"inside".into(), &"demo".into()));
    assert_eq!(told.last().unwrap()["status"], 200);
    let table = said(&command(&mesh, "show", &[&id]));
    assert!(table.contains("delivered") && table.contains("target=demo"), "{table}");
    assert!(!table.contains("never shown"));
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    assert!(complaint(&command(&mesh, "show", &[unknown])).contains("no journal of these nodes has it"));
    assert!(complaint(&command(&mesh, "show", &["x"])).contains("refused (400)"));
}

#[test]
fn events_of_a_time_are_sent_again_though_they_are_done() {
    let (mut mesh, target) = Mesh::with_target(SHORT_RETRIES, ok);
    let first = mesh.send_many(5, 100);
    target.wait(5);
    std::thread::sleep(Duration::from_millis(20));
    let between = rfc3339(unix_ms());
    std::thread::sleep(Duration::from_millis(20));
    let second = distinct(mesh.send_many(3, 100));
    target.wait(8);
    wait_done(&mesh, &first, 1);
    wait_done(&mesh, &second, 1);

    assert_eq!(said(&command(&mesh, "replay", &["--since", &between])), "done: 3 done, 0 skipped\n");
    let came = target.wait(11).split_off(8);
    assert_eq!(delivered(&came), second);
    for delivery in &came {
        assert_eq!((delivery.header("zen-replay"), delivery.header("zen-attempt")), ("1", "1"));
        delivery.verify(&mut verifier("demo")).unwrap();
    }
    wait_done(&mesh, &second, 2);
    mesh.inside.kill();
    mesh.restart_inside();
    let before = ["--since", "1h", "--until", &between, "--endpoint", GITHUB];
    assert_eq!(said(&command(&mesh, "replay", &before)), "done: 5 done, 0 skipped\n");
    assert_eq!(delivered(&target.wait(16).split_off(11)), distinct(first.clone()));
    let other = ["--since", "1h", "--endpoint", "00000000000000000000000000000009"];
    assert_eq!(said(&command(&mesh, "replay", &other)), "done: 0 done, 0 skipped\n");
    wait_done(&mesh, &second, 2);
    assert_eq!(
        names(&life(&mesh, &second[0])),
        ["accepted", "taken", "delivered", "sent again", "delivered"]
    );
}

#[test]
fn an_event_of_a_segment_that_was_given_up_goes_to_another_target() {
    const EVENTS: usize = 60;
    let lab = Lab::new();
    let (demo, other) = (target(&lab, "demo", ok), target(&lab, "demo", ok));
    let sections = lab.target_text("demo", demo.address, "") + &lab.target_text("other", other.address, "");
    let mesh = Mesh::start(lab, &sections);
    let ids = mesh.send_many(EVENTS, 250_000);
    demo.wait(EVENTS);
    wait_done(&mesh, &ids, 1);
    mesh.inside.wait_metric("zen_retained_segments", 2.0);
    let replay = ["--id", &ids[0], "--to", "other"];
    assert_eq!(said(&command(&mesh, "replay", &replay)), "done: 1 done, 0 skipped\n");
    let came = other.wait(1);
    assert_eq!(came[0].verify(&mut verifier("other")).unwrap(), ids[0]);
    assert_eq!(
        said(&command(&mesh, "replay", &["--since", "1h", "--to", "other"])),
        "done: 60 done, 0 skipped\n"
    );
    assert_eq!(delivered(&other.wait(EVENTS + 1)), distinct(ids));
    assert_eq!(demo.deliveries().len(), EVENTS);
}

#[test]
fn an_event_on_its_way_or_dead_is_not_sent_a_second_time() {
    let (mesh, target) = Mesh::with_target("retry_schedule_ms = []", |_, _| Answer::status(500));
    let id = mesh.send(b"{\"n\":1}");
    wait_until("a dead letter", || mesh.inside.metric("zen_dead_letters_kept") as usize == 1);
    assert_eq!(said(&command(&mesh, "replay", &["--id", &id])), "done: 0 done, 1 skipped\n");
    assert!(
        complaint(&command(&mesh, "replay", &["--id", &id, "--to", "x"])).contains("a target of this egress")
    );
    assert_eq!(target.deliveries().len(), 1);
}

#[test]
fn a_body_is_shown_with_a_reason_where_that_is_allowed() {
    let lab = Lab::new();
    let target = target(&lab, "demo", ok);
    let section = lab.target_text("demo", target.address, "");
    let allow = |text: &str| change(text, "[admin]\n", "[admin]\nbodies = true\n");
    let mesh = Mesh::start_with(lab, &section, str::to_owned, allow);
    let body = b"{\"amount\":12}";
    let id = mesh.send(body);
    target.wait(1);
    let why = ["--reason", "ticket 4711: the amount is missing", &id];
    let output = command(&mesh, "body", &why);
    assert_eq!(said(&output).as_bytes(), body);
    mesh.inside.wait_log("audit: a body is shown uid=");
    mesh.inside.wait_log("ticket 4711: the amount is missing");
    assert!(complaint(&command(&mesh, "body", &["--reason", " ", &id])).contains("reason: expected"));
    let output = run(&[&["events", "body", "--socket", &socket(&mesh, "edge")], &why[..]].concat());
    assert!(complaint(&output).contains("admin.bodies is false"));
    for path in [format!("/events/{id}"), format!("/events/{id}/body")] {
        assert_eq!(mesh.inside.get(&path).0, 404, "loopback has no {path}");
    }
}
