//! Agents as witnesses of a real control plane's audit log: what they cosign, and what they cry out at.
//!
//! The thief of these tests has the control plane's directory, all keys in it, and stops and starts the server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/lab.rs"]
mod lab;

use std::fs;
use std::path::Path;
use std::process::Command;

use lab::{Lab, Process, TRUST_DOMAIN, run, wait_until};

/// A control plane and an agent that is its witness.
fn witnessed() -> (Lab, Process) {
    let lab = Lab::new();
    let output = lab.enroll(&lab.bundle("edge"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let agent = lab.start_agent();
    wait_until("the agent has seen the log, and is known as a witness", || cosigned(&lab) > 0);
    (lab, agent)
}

/// How many entries the log has; all of them are signed for.
fn signed(lab: &Lab) -> u64 {
    let note = run("zen-control", &["audit", "checkpoint", "--dir", &lab.text("control")]);
    note.lines().nth(1).unwrap().parse().unwrap()
}

/// How many entries the agent has seen.
fn seen(lab: &Lab) -> u64 {
    let (said, _) = lab.status();
    let line = said.lines().find_map(|line| line.strip_prefix("audit log: ")?.strip_suffix(" entries seen"));
    line.map_or(0, |size| size.parse().unwrap())
}

/// How many entries the control plane has a cosignature for, of its one witness.
fn cosigned(lab: &Lab) -> u64 {
    let said = run("zen-control", &["audit", "witnesses", "--dir", &lab.text("control")]);
    said.split_whitespace().filter_map(|word| word.parse().ok()).next_back().unwrap_or(0)
}

/// Something that is an entry.
fn act(lab: &Lab, number: u32) {
    let (directory, id) = (lab.text("control"), format!("spiffe://acme.example/somebody/{number}"));
    run("zen-control", &["deny", "--dir", &directory, "--spiffe-id", &id]);
}

fn alarm(lab: &Lab) -> Option<String> {
    let (said, is_good) = lab.status();
    let alarm = said.lines().find_map(|line| line.strip_prefix("ALARM, the audit log: ")).map(str::to_owned);
    assert!(alarm.is_none() || !is_good, "{said}");
    alarm
}

fn wait_alarm(lab: &Lab, words: &str) {
    wait_until(words, || alarm(lab).is_some_and(|alarm| alarm.contains(words)));
    let evidence = fs::read_to_string(lab.path("state/audit-alarm.json")).unwrap();
    let evidence: serde_json::Value = serde_json::from_str(&evidence).unwrap();
    for note in [&evidence["seen"], &evidence["shown"]["checkpoint"]] {
        assert!(note.as_str().unwrap().starts_with("acme.example/audit\n"), "{evidence}");
    }
    let log = fs::read_to_string(lab.path("agent.log")).unwrap();
    assert!(log.contains("alarm: the control plane's audit log is not what it was"), "{log}");
    let metrics = || fs::read_to_string(lab.path("agent.prom")).unwrap();
    wait_until("the metric says so", || metrics().contains("zen_agent_audit_alarm 1\n"));
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn stop_control(lab: &mut Lab) {
    assert!(lab.control.take().unwrap().stop());
}

#[test]
fn what_continues_is_cosigned_over_restarts_of_both() {
    let (mut lab, agent) = witnessed();
    for round in 0..3 {
        act(&lab, round);
        let before = seen(&lab);
        stop_control(&mut lab);
        lab.start_control();
        wait_until("it is seen", || seen(&lab) > before);
        wait_until("and cosigned", || cosigned(&lab) > before);
    }
    drop(agent);
    let before = seen(&lab);
    let agent = lab.start_agent();
    act(&lab, 99);
    wait_until("a new process goes on from there", || seen(&lab) > before);
    wait_until("and signs by the same key", || cosigned(&lab) > before);
    let said = run("zen-control", &["audit", "witnesses", "--dir", &lab.text("control")]);
    assert_eq!(said.lines().count(), 1, "one key of one witness: {said}");
    assert_eq!(alarm(&lab), None);
    let export = lab.text("export");
    run("zen-control", &["audit", "export", "--dir", &lab.text("control"), "--out", &export]);
    assert!(agent.stop());
}

#[test]
fn an_old_copy_of_the_database_is_noticed_and_so_is_another_history() {
    let (mut lab, agent) = witnessed();
    stop_control(&mut lab);
    copy(&lab.path("control"), &lab.path("copy"));
    lab.start_control();
    act(&lab, 1);
    act(&lab, 2);
    // Not so many as were seen before and two: the copy may have more than was seen of it.
    let size = signed(&lab);
    wait_until("both are seen", || seen(&lab) == size);
    stop_control(&mut lab);
    // The copy knows nothing of the two, and neither does the file beside it.
    copy(&lab.path("copy"), &lab.path("control"));
    lab.start_control();
    wait_alarm(&lab, "it was cut or is an old copy");
    // Another history, longer than the true one, signed by the true key.
    for number in 10..18 {
        act(&lab, number);
    }
    assert!(signed(&lab) > size);
    fs::remove_file(lab.path("state/audit-alarm.json")).unwrap();
    wait_alarm(&lab, "does not continue the one with");
    assert_eq!(seen(&lab), size, "what was seen stays");
    let log = fs::read_to_string(lab.path("control.log")).unwrap();
    assert!(log.contains("ALARM: a witness says that the audit log is not what it was"), "{log}");
    assert!(agent.stop());
    // Whoever decides to begin anew says so on the agent's host.
    fs::remove_file(lab.path("state/audit-alarm.json")).unwrap();
    fs::remove_file(lab.path("state/witness.json")).unwrap();
    let agent = lab.start_agent();
    wait_until("it is seen anew", || seen(&lab) > size && alarm(&lab).is_none());
    assert!(agent.stop());
}

#[test]
fn another_key_of_the_log_is_noticed_at_the_first_sight() {
    let lab = Lab::new();
    let other = lab.text("other");
    run("zen-control", &["init", "--dir", &other, "--trust-domain", TRUST_DOMAIN, "--tenant", "acme"]);
    let key = |directory: &str| run("zen-control", &["audit", "key", "--dir", directory]).trim().to_owned();
    let (own, other) = (key(&lab.text("control")), key(&other));
    // As if the control plane's key had been replaced after the bundle was made.
    let bundle = lab.bundle("edge");
    let text = fs::read_to_string(&bundle).unwrap();
    assert!(text.contains(&own), "bundles bring the key: {text}");
    fs::write(&bundle, text.replace(&own, &other)).unwrap();
    assert!(lab.enroll(&bundle).status.success());
    let agent = lab.start_agent();
    wait_until("the alarm", || alarm(&lab).is_some_and(|alarm| alarm.contains("the log's key is")));
    assert_eq!(seen(&lab), 0, "nothing of it is believed");
    assert!(agent.stop());
}
