//! Dead letters over the admin socket and the command line: listed, sent again, moved, thrown away.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh::{Mesh, SHORT_RETRIES, delivered, distinct, numbered, send, target, verifier};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::node::{run, wait_until};
use support::{GITHUB, Lab, change};
use target::{Answer, Delivery, Target};

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

/// One attempt and no other.
const NO_RETRIES: &str = "retry_schedule_ms = []\nretry_jitter_percent = 0\nbreaker = { enabled = false }";

fn ok(_: usize, _: &Delivery) -> Answer {
    Answer::status(200)
}

/// Exit code, standard output and standard error of `zen-dataplane GROUP VERB --socket ... ARGUMENTS`.
fn command(mesh: &Mesh, verb: &str, arguments: &[&str]) -> (i32, String, String) {
    let socket = mesh.lab.path("inside.sock");
    let mut all = vec!["dead-letters", verb, "--socket", socket.to_str().unwrap()];
    all.extend(arguments);
    let output = run(&all);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Standard output of a command that ends well.
fn ordered(mesh: &Mesh, verb: &str, arguments: &[&str]) -> String {
    let (code, said, error) = command(mesh, verb, arguments);
    assert_eq!((code, error.as_str()), (0, ""), "{verb} {arguments:?}: {said}");
    said
}

fn letters(mesh: &Mesh, arguments: &[&str]) -> Vec<Value> {
    let said = ordered(mesh, "list", &[&["--json"], arguments].concat());
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn events(letters: &[Value]) -> Vec<String> {
    distinct(letters.iter().map(|letter| letter["event"].as_str().unwrap().to_owned()))
}

fn wait_letters(mesh: &Mesh, count: usize) {
    wait_until(&format!("{count} dead letters"), || {
        mesh.inside.metric("zen_dead_letters_kept") as usize == count
    });
}

/// Number of a body made by [`numbered`].
fn number(delivery: &Delivery) -> u64 {
    serde_json::from_slice::<Value>(&delivery.body).unwrap()["number"].as_u64().unwrap()
}

#[test]
fn a_dead_letter_is_shown_and_sent_again_when_its_target_is_mended() {
    let (mesh, target) = Mesh::with_target(SHORT_RETRIES, |_, _| Answer::status(500));
    let id = mesh.send(b"{\"n\":1}");
    wait_letters(&mesh, 1);
    let found = letters(&mesh, &[]);
    let letter = &found[0];
    assert_eq!(
        (&letter["event"], &letter["target"], &letter["reason"], &letter["kind"]),
        (&id.as_str().into(), &"demo".into(), &"server_error".into(), &"destination".into())
    );
    assert_eq!((&letter["status"], &letter["attempts"]), (&500.into(), &3.into()));
    assert_eq!((&letter["replays"], found.len()), (&0.into(), 1));
    let name = letter["id"].as_str().unwrap();
    let table = ordered(&mesh, "list", &[]);
    assert!(table.starts_with("LETTER") && table.contains(&id) && table.contains("server_error"), "{table}");
    let shown = ordered(&mesh, "show", &[name]);
    assert!(shown.contains(&id) && shown.contains("destination"), "{shown}");

    target.script(ok);
    assert_eq!(ordered(&mesh, "replay", &[name]), "done: 1 done, 0 skipped\n");
    let again = target.wait(4).pop().unwrap();
    assert_eq!((again.event_id(), again.header("zen-replay"), again.header("zen-attempt")), (&*id, "1", "1"));
    assert_eq!(again.verify(&mut verifier("demo")).unwrap(), id);
    assert_eq!(target.deliveries()[0].values("zen-replay"), Vec::<&str>::new());
    wait_letters(&mesh, 0);
    assert_eq!(ordered(&mesh, "replay", &[name]), "done: 0 done, 1 skipped\n");
    assert_eq!(mesh.inside.metric("zen_replays_total") as u64, 1);
    mesh.inside.wait_log("audit: an order about dead letters uid=");
}

#[test]
fn a_letter_that_dies_again_counts_its_replays_over_a_restart() {
    let (mut mesh, target) = Mesh::with_target(NO_RETRIES, |_, _| Answer::status(500));
    mesh.send(b"{\"n\":1}");
    wait_letters(&mesh, 1);
    for replays in 1..=2 {
        ordered(&mesh, "replay", &["--all"]);
        wait_until("it died again", || {
            letters(&mesh, &[]).first().is_some_and(|letter| letter["replays"] == replays)
        });
    }
    let before = letters(&mesh, &[]);
    mesh.inside.kill();
    mesh.restart_inside();
    wait_letters(&mesh, 1);
    assert_eq!(letters(&mesh, &[]), before, "when and why it died is in the journal");
    target.script(ok);
    ordered(&mesh, "replay", &["--target", "demo"]);
    assert_eq!(target.wait(4).pop().unwrap().header("zen-replay"), "3");
}

#[test]
fn many_are_sent_again_by_filter_while_live_events_flow() {
    let status = |delivery: &Delivery| if number(delivery).is_multiple_of(2) { 400 } else { 500 };
    let (mesh, target) = Mesh::with_target(NO_RETRIES, move |_, delivery| Answer::status(status(delivery)));
    mesh.send_many(60, 100);
    wait_letters(&mesh, 60);
    target.script(ok);
    let before = target.deliveries().len();
    let (mut source, mut live) = (mesh.source(), Vec::new());
    for index in 0..20 {
        live.push(send(&mut source, GITHUB, &numbered(1001 + 2 * index, 100)));
        if index == 3 {
            let said = ordered(&mesh, "replay", &["--reason", "client_error", "--since", "1h"]);
            assert_eq!(said, "done: 30 done, 0 skipped\n");
        }
    }
    let came = target.wait(before + 50).split_off(before);
    let (again, fresh): (Vec<_>, Vec<_>) =
        came.into_iter().partition(|delivery| !delivery.values("zen-replay").is_empty());
    assert!(again.iter().all(|delivery| number(delivery).is_multiple_of(2)));
    assert_eq!((delivered(&again).len(), delivered(&fresh)), (30, distinct(live)));
    assert_eq!(letters(&mesh, &["--limit", "7"]).len(), 7);
    let left = letters(&mesh, &[]);
    assert!(left.len() == 30 && left.iter().all(|letter| letter["status"] == 500));
    assert_eq!(letters(&mesh, &["--until", "1h"]), Vec::<Value>::new());
    assert_eq!(ordered(&mesh, "discard", &["--kind", "destination"]), "done: 30 done, 0 skipped\n");
    wait_letters(&mesh, 0);
}

#[test]
fn replays_leave_room_for_live_events() {
    let (mesh, target) =
        Mesh::with_target(&format!("in_flight_max = 8\n{NO_RETRIES}"), |_, _| Answer::status(404));
    mesh.send_many(12, 100);
    wait_letters(&mesh, 12);
    let is_held = Arc::new(AtomicBool::new(true));
    let held = Arc::clone(&is_held);
    target.script(move |_, delivery| {
        while !delivery.values("zen-replay").is_empty() && held.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Answer::status(200)
    });
    let before = target.deliveries().len();
    let replays =
        || target.deliveries()[before..].iter().filter(|one| !one.values("zen-replay").is_empty()).count();
    std::thread::scope(|scope| {
        // It says that it is under way as long as the target holds what it got.
        scope.spawn(|| ordered(&mesh, "replay", &["--all"]));
        wait_until("two replays", || replays() == 2);
        mesh.send_many(20, 100);
        target.wait(before + 2 + 20);
        assert_eq!(replays(), 2, "a quarter of the target's attempts");
        is_held.store(false, Ordering::Relaxed);
    });
    wait_letters(&mesh, 0);
    assert_eq!(replays(), 12);
}

#[test]
fn letters_of_a_target_that_is_gone_stay_letters() {
    let (mesh, _target) = Mesh::with_target(NO_RETRIES, |_, _| Answer::status(404));
    mesh.send(b"{}");
    wait_letters(&mesh, 1);
    mesh.lab.write("inside.toml", &change(&mesh.inside_text, "name = \"demo\"", "name = \"renamed\""));
    mesh.inside.signal(Signal::SIGHUP);
    wait_until("the reload", || mesh.inside.get("/status").1.contains("generation 2 "));
    assert_eq!(ordered(&mesh, "replay", &["--all"]), "done: 0 done, 0 skipped\n");
    let id = letters(&mesh, &[])[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(ordered(&mesh, "replay", &[&id]), "done: 0 done, 1 skipped\n");
    assert_eq!((letters(&mesh, &[]).len(), mesh.inside.metric("zen_replays_total") as u64), (1, 0));
}

#[test]
fn a_letter_goes_to_another_target_instead() {
    let lab = Lab::new();
    let (broken, other) = (target(&lab, "demo", |_, _| Answer::status(404)), target(&lab, "demo", ok));
    let sections = lab.target_text("demo", broken.address, NO_RETRIES)
        + &lab.target_text("other", other.address, NO_RETRIES);
    let mut mesh = Mesh::start(lab, &sections);
    let mut ids = mesh.send_many(10, 100_000);
    ids.sort_unstable();
    wait_letters(&mesh, 10);
    let (code, _, error) = command(&mesh, "replay", &["--all", "--to", "nowhere"]);
    assert!(code == 1 && error.contains("the name of a target"), "{error}");
    assert_eq!(ordered(&mesh, "replay", &["--all", "--to", "other"]), "done: 10 done, 0 skipped\n");
    let came = other.wait(10);
    assert_eq!(delivered(&came), ids);
    for delivery in &came {
        assert_eq!(delivery.header("zen-replay"), "1");
        delivery.verify(&mut verifier("other")).unwrap();
    }
    wait_letters(&mesh, 0);
    wait_until("all is done", || mesh.inside.metric("zen_events_live") as u64 == 0);
    mesh.inside.kill();
    mesh.restart_inside();
    assert_eq!(letters(&mesh, &[]), Vec::<Value>::new());
    assert_eq!((broken.deliveries().len(), other.deliveries().len()), (10, 10));
}

#[test]
fn a_kill_in_the_middle_of_a_replay_loses_nothing_and_brings_back_nothing_discarded() {
    const LETTERS: usize = 200;
    let (mut mesh, target) = Mesh::with_target(NO_RETRIES, |_, _| Answer::status(500));
    let all = distinct(mesh.send_many(LETTERS, 100));
    wait_letters(&mesh, LETTERS);
    let doomed = letters(&mesh, &["--limit", "20"]);
    let names: Vec<&str> = doomed.iter().map(|letter| letter["id"].as_str().unwrap()).collect();
    assert_eq!(ordered(&mesh, "discard", &names), "done: 20 done, 0 skipped\n");
    let discarded = events(&doomed);

    let is_mended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_mended);
    let before = target.deliveries().len();
    target.script(move |_, _| {
        let slow = Answer::status(200).after(Duration::from_millis(100));
        if seen.load(Ordering::Acquire) { Answer::status(200) } else { slow }
    });
    let socket = mesh.lab.path("inside.sock").display().to_string();
    let ordering = std::thread::spawn(move || run(&["dead-letters", "replay", "--all", "--socket", &socket]));
    target.wait(before + 25);
    mesh.inside.kill();
    assert_eq!(ordering.join().unwrap().status.code(), Some(1), "who ordered it is told");
    is_mended.store(true, Ordering::Release);
    mesh.restart_inside();
    let left = events(&letters(&mesh, &["--limit", "1000"]));
    assert!(!left.is_empty() && left.len() < LETTERS - 20, "it was in the middle: {} left", left.len());
    ordered(&mesh, "replay", &["--all"]);
    let again = |target: &Target| delivered(&target.deliveries()[before..]);
    wait_until("all that was not discarded came", || again(&target).len() == LETTERS - discarded.len());
    let expected: Vec<String> = all.into_iter().filter(|id| !discarded.contains(id)).collect();
    assert_eq!(again(&target), expected);
    wait_letters(&mesh, 0);
}

#[test]
fn what_is_asked_wrongly_is_refused_with_the_reason() {
    let (mesh, _target) = Mesh::with_target(NO_RETRIES, ok);
    for (verb, arguments, expected, said) in [
        ("show", &["0-99-0"][..], 1, "refused (404): 0-99-0 is not here"),
        ("show", &["9-99-0"], 1, "refused (404)"),
        ("show", &["no/slash"], 1, "not a name, an id or a number"),
        ("show", &["1-2"], 1, "refused (400): id: expected"),
        ("list", &["--reason", "bad-luck"], 1, "refused (400): reason: expected"),
        ("list", &["--kind", "other"], 1, "destination or pipeline"),
        ("list", &["--since", "yesterday"], 1, "give a time"),
        ("replay", &[], 1, "one of them"),
        ("replay", &["0-1-0", "--all"], 1, "one of them"),
        ("discard", &["0-1-0", "--to", "demo"], 2, "--to"),
    ] {
        let (code, _, error) = command(&mesh, verb, arguments);
        assert!(code == expected && error.contains(said), "{verb} {arguments:?}: {code} {error}");
    }
    let config = mesh.lab.path("inside.toml").display().to_string();
    assert_eq!(run(&["dead-letters", "list", "--config", &config]).status.code(), Some(0));
    let edge = mesh.lab.path("edge.sock").display().to_string();
    let output = run(&["dead-letters", "list", "--socket", &edge]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("an egress is not here"));
    let output = run(&["dead-letters", "list", "--socket", "/nowhere"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is the node running"));
    for path in ["/dead-letters", "/dead-letters/0-1-0"] {
        assert_eq!(mesh.inside.get(path).0, 404, "loopback has no {path}");
    }
}
