//! Events that a header rule holds back: accepted and kept, sent nowhere until an operator says so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use mesh::{Mesh, distinct, numbered, target, verifier};
use serde_json::Value;
use support::client::github;
use support::node::{run, wait_until};
use support::{GITHUB, Lab, change};
use target::{Answer, Delivery, Target};

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const NO_RETRIES: &str = "retry_schedule_ms = []\nretry_jitter_percent = 0";
const RULES: &str = "headers = [{ name = \"X-Build\", regex = \"^[0-9]+$\", action = \"quarantine\" }, \
                     { name = \"x-forged\", one_of = [\"no\"], action = \"log\" }]";
/// Keeps all rules.
const GOOD: &str = "x-build: 7\r\nx-forged: no\r\n";
/// Breaks the one that holds back.
const ODD: &str = "x-build: seven\r\nx-forged: no\r\n";

fn with_rules(text: &str) -> String {
    let headers = "forward_headers = [\"x-github-event\"]";
    change(text, headers, &format!("{headers}\n{RULES}"))
}

fn start(script: impl Fn(usize, &Delivery) -> Answer + Send + Sync + 'static) -> (Mesh, Target) {
    let lab = Lab::new();
    let target = target(&lab, "demo", script);
    let section = lab.target_text("demo", target.address, NO_RETRIES);
    (Mesh::start_with(lab, &section, with_rules, str::to_owned), target)
}

fn ok(_: usize, _: &Delivery) -> Answer {
    Answer::status(200)
}

fn send(mesh: &Mesh, lines: &str, body: &[u8]) -> String {
    let answer = mesh.source().ask(&github(GITHUB, body, lines));
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// Standard output of a command to the egress that ends well.
fn ordered(mesh: &Mesh, words: &[&str]) -> String {
    let socket = mesh.lab.path("inside.sock");
    let output = run(&[words, &["--socket", socket.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn letters(mesh: &Mesh) -> Vec<Value> {
    let said = ordered(mesh, &["dead-letters", "list", "--json"]);
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn wait_letters(mesh: &Mesh, count: usize) {
    wait_until(&format!("{count} dead letters"), || {
        mesh.inside.metric("zen_dead_letters_kept") as usize == count
    });
}

#[test]
fn what_breaks_the_rule_is_kept_over_a_restart_and_sent_when_an_operator_says_so() {
    let (mut mesh, target) = start(ok);
    let odd = send(&mesh, ODD, b"{\"n\":1}");
    let good = send(&mesh, GOOD, b"{\"n\":2}");
    assert_eq!(target.wait(1)[0].event_id(), good);
    wait_letters(&mesh, 1);
    let found = letters(&mesh);
    let shown = |name: &str| found[0][name].clone();
    assert_eq!(shown("event"), odd.as_str());
    assert_eq!((shown("reason"), shown("kind")), ("quarantined".into(), "pipeline".into()));
    assert_eq!((shown("attempts"), shown("replays"), shown("target")), (0.into(), 0.into(), "demo".into()));
    assert_eq!(mesh.edge.metric("zen_events_quarantined_total") as u64, 1);
    let edge = mesh.lab.path("edge.sock");
    let output = run(&["events", "show", &odd, "--socket", edge.to_str().unwrap()]);
    let life = String::from_utf8(output.stdout).unwrap();
    assert!(life.contains("quarantine=x-build"), "{life}");

    mesh.inside.kill();
    mesh.restart_inside();
    wait_letters(&mesh, 1);
    assert_eq!(letters(&mesh), found, "when it was held back is in the journal");
    let name = shown("id");
    let said = ordered(&mesh, &["dead-letters", "replay", name.as_str().unwrap()]);
    assert_eq!(said, "done: 1 done, 0 skipped\n");
    let delivery = target.wait(2).pop().unwrap();
    assert_eq!((delivery.event_id(), delivery.header("zen-replay")), (&*odd, "1"));
    assert_eq!(delivery.verify(&mut verifier("demo")).unwrap(), odd);
    assert_eq!(delivery.body, b"{\"n\":1}");
    wait_letters(&mesh, 0);
    assert_eq!(target.deliveries().len(), 2);
}

#[test]
fn nothing_held_back_gets_out_through_a_crash() {
    let (mut mesh, target) = start(ok);
    let mut source = mesh.source();
    let mut ids = Vec::new();
    for round in 0..3 {
        for index in 0..30 {
            let answer = source.ask(&github(GITHUB, &numbered(index, 100), ODD));
            assert_eq!(answer.status, 202);
            ids.push(answer.json()["id"].as_str().unwrap().to_owned());
        }
        mesh.inside.kill();
        mesh.restart_inside();
        wait_letters(&mesh, 30 * (round + 1));
    }
    let found = letters(&mesh);
    let events = found.iter().map(|letter| letter["event"].as_str().unwrap().to_owned());
    assert_eq!(distinct(events), distinct(ids));
    assert!(found.iter().all(|letter| letter["reason"] == "quarantined"));
    assert!(target.deliveries().is_empty());
}

#[test]
fn what_was_lifted_and_failed_is_not_held_back_again() {
    let (mut mesh, target) = start(|_, _| Answer::status(500));
    send(&mesh, ODD, b"{}");
    wait_letters(&mesh, 1);
    ordered(&mesh, &["dead-letters", "replay", "--reason", "quarantined"]);
    target.wait(1);
    wait_until("it died of its target", || {
        letters(&mesh).first().is_some_and(|letter| letter["reason"] == "server_error")
    });
    mesh.inside.kill();
    mesh.restart_inside();
    wait_letters(&mesh, 1);
    let letter = letters(&mesh).remove(0);
    assert_eq!((&letter["reason"], &letter["replays"]), (&"server_error".into(), &1.into()));
    target.script(ok);
    ordered(&mesh, &["dead-letters", "replay", "--all"]);
    assert_eq!(target.wait(2).pop().unwrap().header("zen-replay"), "2");
}

#[test]
fn a_replay_of_a_span_of_time_lifts_nothing_and_one_by_name_does() {
    let (mesh, target) = start(ok);
    let odd = send(&mesh, ODD, b"{\"n\":1}");
    let good = send(&mesh, GOOD, b"{\"n\":2}");
    target.wait(1);
    wait_letters(&mesh, 1);
    ordered(&mesh, &["dead-letters", "discard", "--kind", "pipeline"]);
    wait_letters(&mesh, 0);
    ordered(&mesh, &["events", "replay", "--since", "1h"]);
    let again = target.wait(2).pop().unwrap();
    assert_eq!((again.event_id(), again.header("zen-replay")), (&*good, "1"));
    ordered(&mesh, &["events", "replay", "--id", &odd]);
    let lifted = target.wait(3).pop().unwrap();
    assert_eq!((lifted.event_id(), lifted.header("zen-replay")), (&*odd, "1"));
    assert_eq!(target.deliveries().len(), 3);
}

#[test]
fn each_target_of_an_event_has_a_letter_of_its_own() {
    let lab = Lab::new();
    let (demo, other) = (target(&lab, "demo", ok), target(&lab, "demo", ok));
    let sections = [("demo", &demo), ("other", &other)]
        .map(|(name, target)| lab.target_text(name, target.address, NO_RETRIES));
    let fan_out = |text: &str| {
        let flow = format!("endpoint = \"{GITHUB}\"\negress = \"inside\"\ntargets = [\"demo\"");
        change(&with_rules(text), &flow, &format!("{flow}, \"other\""))
    };
    let mesh = Mesh::start_with(lab, &sections.concat(), fan_out, str::to_owned);
    let odd = send(&mesh, ODD, b"{}");
    wait_letters(&mesh, 2);
    ordered(&mesh, &["dead-letters", "replay", "--target", "other"]);
    assert_eq!(other.wait(1)[0].event_id(), odd);
    wait_letters(&mesh, 1);
    assert_eq!(letters(&mesh)[0]["target"], "demo");
    assert!(demo.deliveries().is_empty());
}
