//! Targets as an operator sees them: how they are, pause, resume, what failed last.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::Output;

use mesh::{Mesh, SHORT_RETRIES, delivered, distinct, target};
use support::node::{Node, run, wait_until};
use support::{Lab, change};
use target::Answer;

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

fn ask(mesh: &Mesh, arguments: &[&str]) -> Output {
    let socket = mesh.lab.path("inside.sock");
    run(&[&["targets"], arguments, &["--socket", socket.to_str().unwrap()]].concat())
}

/// What a command said that must succeed.
fn said(mesh: &Mesh, arguments: &[&str]) -> String {
    let output = ask(mesh, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn shown(mesh: &Mesh, name: &str) -> serde_json::Value {
    serde_json::from_str(&said(mesh, &["show", name, "--json"])).unwrap()
}

#[test]
fn a_paused_target_keeps_what_comes_over_a_restart_and_delivers_it_when_resumed() {
    let lab = Lab::new();
    let held = target(&lab, "demo", |_, _| Answer::status(200));
    let other = target(&lab, "demo", |_, _| Answer::status(200));
    let sections = lab.target_text("demo", held.address, "") + &lab.target_text("other", other.address, "");
    let both = |text: &str| change(text, "targets = [\"demo\"]", "targets = [\"demo\", \"other\"]");
    let mut mesh = Mesh::start_with(lab, &sections, |text| both_flows(text, both), str::to_owned);
    let first = mesh.send(b"{}");
    held.wait(1);
    assert_eq!(said(&mesh, &["pause", "demo"]), "demo: paused, 0 waiting\n");
    let ids = distinct((0..3).map(|_| mesh.send(b"{}")));
    other.wait(4);
    wait_until("they wait", || shown(&mesh, "demo")["waiting"] == 3);
    mesh.inside.wait_metric("zen_targets_paused", 1.0);
    mesh.inside.kill();
    mesh.restart_inside();
    wait_until("they wait again", || shown(&mesh, "demo")["waiting"] == 3);
    let table = said(&mesh, &["list"]);
    assert!(table.starts_with("TARGET  STATE"), "{table}");
    assert!(table.contains("\ndemo    paused") && table.contains("\nother   active"), "{table}");
    let more = mesh.send(b"{}");
    other.wait(5);
    assert_eq!(held.deliveries().len(), 1, "nothing since the pause");
    assert!(said(&mesh, &["resume", "demo"]).starts_with("demo: active"));
    let all = distinct(ids.into_iter().chain([first, more]));
    wait_until("everything", || delivered(&held.deliveries()) == all);
    mesh.inside.kill();
    mesh.restart_inside();
    assert_eq!(shown(&mesh, "demo")["state"], "active", "a resumed target stays resumed");
}

/// The first flow goes to two targets.
fn both_flows(text: &str, both: impl Fn(&str) -> String) -> String {
    let at = text.find("targets = [\"demo\"]").unwrap() + "targets = [\"demo\"]".len();
    both(&text[..at]) + &text[at..]
}

#[test]
fn a_target_that_was_disabled_by_a_410_is_resumed() {
    let (mesh, target) =
        Mesh::with_target("", |number, _| Answer::status(if number == 0 { 410 } else { 200 }));
    let id = mesh.send(b"{}");
    wait_until("disabled", || shown(&mesh, "demo")["state"] == "disabled");
    let failure = &shown(&mesh, "demo")["last_failure"];
    assert_eq!((failure["outcome"].as_str(), failure["status"].as_u64()), (Some("gone"), Some(410)));
    assert!(failure["excerpt"].is_null() && failure["age_ms"].is_u64());
    assert!(said(&mesh, &["resume", "demo"]).starts_with("demo: active"));
    wait_until("delivered", || target.deliveries().len() == 2);
    assert_eq!(delivered(&target.deliveries()), [id]);
}

#[test]
fn what_a_failed_answer_began_with_is_shown_escaped_and_bounded() {
    let extra = format!("{SHORT_RETRIES}\nanswer_excerpt_bytes_max = 11");
    let (mesh, target) =
        Mesh::with_target(&extra, |_, _| Answer::body(422, b"no \x1b[31m\"id\" and much more"));
    assert!(shown(&mesh, "demo")["last_failure"].is_null());
    mesh.send(b"{}");
    target.wait(1);
    wait_until("a failure", || shown(&mesh, "demo")["last_failure"]["excerpt"] == "no \\x1b[31m\\\"id");
    let page = said(&mesh, &["show", "demo"]);
    for text in ["target", "demo", "last failure", "client_error", "422", "no \\x1b[31m"] {
        assert!(page.contains(text), "{text} in {page}");
    }
    assert!(!page.contains('\x1b') && !page.contains("much more"), "{page}");
}

#[test]
fn why_a_target_is_held_back_is_told() {
    let lab = Lab::new();
    let throttled = target(&lab, "demo", |_, _| Answer::status(429).with("retry-after", "3600"));
    let broken = target(&lab, "demo", |_, _| Answer::status(500));
    let sections = lab.target_text("demo", throttled.address, "")
        + &lab.target_text("broken", broken.address, "breaker = { failures_max = 1 }");
    let flows = |text: &str| both_flows(text, |text| change(text, "[\"demo\"]", "[\"demo\", \"broken\"]"));
    let mesh = Mesh::start_with(lab, &sections, flows, str::to_owned);
    mesh.send(b"{}");
    wait_until("throttled", || shown(&mesh, "demo")["state"] == "throttled");
    let held_ms = shown(&mesh, "demo")["held_ms"].as_u64().unwrap();
    assert!((3_500_000..=3_600_000).contains(&held_ms), "{held_ms}");
    wait_until("broken", || shown(&mesh, "broken")["state"] == "breaker-open");
    assert!(said(&mesh, &["list"]).contains("59m"));
}

#[test]
fn orders_about_targets_are_refused_by_name_and_over_loopback() {
    let (mesh, _target) = Mesh::with_target("", |_, _| Answer::status(200));
    for (arguments, status) in
        [(["pause", "nobody"], "404"), (["resume", "nobody"], "404"), (["show", "nobody"], "404")]
    {
        let output = ask(&mesh, &arguments);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && complaint.contains(status), "{complaint}");
        assert!(complaint.contains("nobody"), "{complaint}");
    }
    assert_eq!(mesh.inside.get("/targets").0, 404, "loopback has no such page");
    assert_eq!(ask(&mesh, &["pause", "a b"]).status.code(), Some(1));
    said(&mesh, &["pause", "demo"]);
    mesh.inside.wait_log("audit: an order about a target");
}

#[test]
fn a_damaged_list_of_paused_targets_stops_the_start_by_name() {
    let (mut mesh, _target) = Mesh::with_target("", |_, _| Answer::status(200));
    said(&mesh, &["pause", "demo"]);
    assert!(mesh.inside.terminate().success());
    let mut files = walk(&mesh.lab.path("")).into_iter();
    let file = files.find(|path| path.ends_with("paused-targets")).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.trim_end()).unwrap();
    let config = mesh.lab.path("inside.toml");
    let mut node = Node::spawn(&config, mesh.inside_ports.admin);
    assert_eq!(node.wait().code(), Some(1));
    node.wait_log("paused-targets is no list of paused targets; restore it");
    fs::remove_file(&file).unwrap();
    mesh.restart_inside();
    assert_eq!(shown(&mesh, "demo")["state"], "active");
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
