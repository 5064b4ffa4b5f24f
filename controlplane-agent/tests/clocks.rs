//! Clocks that are wrong, and time that passes: an enrollment, a running agent, and an identity whose certificate has ended.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/clock.rs"]
mod clock;
#[path = "support/lab.rs"]
mod lab;

use std::fs;
use std::thread;
use std::time::Duration;

use clock::WallClock;
use lab::{Lab, Process, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

const NODE: &str = "private_key_file = \"{{private_key}}\"\n";
const MEMBER_ID: &str = "spiffe://acme.example/ingester/edge-1";
/// Longer than a certificate lives.
const OVER_S: i64 = 37 * 3600;

fn agent(lab: &Lab, clock: &WallClock) -> Process {
    let agent = lab.start_agent_by(&["run"], |command| clock.give(command));
    clock.note(agent.pid().as_raw());
    agent
}

fn control(lab: &mut Lab, clock: &WallClock) {
    lab.control.take();
    lab.start_control_by(|command| clock.give(command));
    clock.note(lab.control.as_ref().unwrap().pid().as_raw());
}

fn enroll(lab: &Lab, bundle: &std::path::Path, clock: &WallClock) -> Process {
    let bundle = bundle.to_str().unwrap();
    lab.start_agent_by(&["enroll", "--bundle", bundle], |command| clock.give(command))
}

fn enrolled(lab: &Lab) {
    let output = lab.enroll(&lab.bundle("edge"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn record(lab: &Lab, name: &str) -> Value {
    serde_json::from_str(&lab.identity(name, "record.json")).unwrap()
}

/// What `status` says by this clock.
fn status(lab: &Lab, clock: &WallClock) -> String {
    let mut command = std::process::Command::new(lab::AGENT);
    command.args(["status", "--config"]).arg(lab.path("agent.toml"));
    clock.give(&mut command);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

fn wait_said(lab: &Lab, clock: &WallClock, words: &str) {
    wait_until(words, || status(lab, clock).contains(words));
}

/// An agent and a control plane by one clock, and a node that has version 1.
fn running() -> (Lab, WallClock, lab::Node, Process) {
    let mut lab = Lab::new();
    let clock = WallClock::new(lab.path("clock"));
    control(&mut lab, &clock);
    enrolled(&lab);
    lab.configure("edge", MEMBER_ID, NODE);
    let (node, agent) = (lab.start_node(), agent(&lab, &clock));
    wait_said(&lab, &clock, "applied version 1\n");
    (lab, clock, node, agent)
}

#[test]
fn a_clock_that_is_ten_minutes_off_does_not_enroll_and_one_that_is_minutes_behind_waits() {
    let lab = Lab::new();
    let (bundle, clock) = (lab.bundle("edge"), WallClock::new(lab.path("clock")));
    for offset_s in [-600, 600] {
        clock.set(offset_s);
        let process = enroll(&lab, &bundle, &clock);
        wait_until("it ends", || process.has_ended());
        let said = process.log();
        let line = said.lines().last().unwrap();
        assert!(line.contains("clock_skew") && line.contains("300 are allowed"), "{offset_s}: {said}");
        let numbers: Vec<u64> = line
            .split(|letter: char| !letter.is_ascii_digit())
            .filter_map(|word| word.parse().ok())
            .collect();
        let apart = numbers[0].abs_diff(numbers[1]);
        assert!((595_000..605_000).contains(&apart), "both clocks: {line}");
    }
    assert!(!lab.path("state/identities/agent/current").exists());
    // Within bounds, the certificate begins three minutes later by this clock, unless it is set.
    clock.set(-240);
    let process = enroll(&lab, &bundle, &clock);
    wait_until("it waits", || process.log().contains("waiting for it"));
    assert!(!lab.path("state/identities/agent/current").exists(), "it is not put in force");
    clock.set(0);
    wait_until("it is in", || process.has_ended());
    assert_eq!(record(&lab, "agent")["generation"], 1);
}

#[test]
fn a_running_agent_whose_clock_jumps_ten_minutes_keeps_what_is_good_and_goes_on() {
    let mut lab = Lab::new();
    let (clock, theirs) = (WallClock::new(lab.path("clock")), WallClock::new(lab.path("their-clock")));
    control(&mut lab, &theirs);
    enrolled(&lab);
    lab.configure("edge", MEMBER_ID, NODE);
    let (_node, agent) = (lab.start_node(), agent(&lab, &clock));
    wait_said(&lab, &clock, "applied version 1\n");
    let generation = |name: &str| record(&lab, name)["generation"].as_u64().unwrap();

    // An hour later, and ahead: what is issued is good at once.
    theirs.set(3600);
    clock.set(3600 + 600);
    agent.signal(Signal::SIGHUP);
    wait_until("both are renewed", || generation("agent") == 2 && generation("edge-1") == 2);
    lab.configure("edge", MEMBER_ID, &format!("{NODE}# 2\n"));
    wait_said(&lab, &clock, "applied version 2\n");

    // Another hour later, and behind: what is issued begins later; until then nothing changes, and nothing is lost.
    theirs.set(7200);
    clock.set(7200 - 600);
    let published = lab.published("identity.pem");
    agent.signal(Signal::SIGHUP);
    wait_said(&lab, &clock, "edge-1: renewal fails: the new certificate begins at");
    wait_said(&lab, &clock, "agent: renewal fails: the new certificate begins at");
    lab.configure("edge", MEMBER_ID, &format!("{NODE}# 3\n"));
    wait_said(&lab, &clock, "applied version 3\n");
    assert_eq!((generation("agent"), generation("edge-1")), (2, 2));
    assert_eq!(lab.published("identity.pem"), published, "the node keeps the one that has begun");
    let asked = agent.log().matches("has not begun by this host's clock").count();
    assert_eq!(asked, 2, "each was issued once, and waits");
    // A new start forgets what waited; the agent's own key finds the same certificate again.
    assert!(agent.stop());
    let agent = self::agent(&lab, &clock);
    agent.signal_when_ready(Signal::SIGHUP);
    wait_said(&lab, &clock, "agent: renewal fails: the new certificate begins at");
    clock.set(7200);
    wait_until("what was issued is in force", || generation("agent") == 3 && generation("edge-1") >= 3);
    wait_until("nothing fails", || !status(&lab, &clock).contains("renewal fails"));
    lab.configure("edge", MEMBER_ID, &format!("{NODE}# 4\n"));
    wait_said(&lab, &clock, "applied version 4\n");
    assert!(agent.stop());
}

#[test]
fn an_identity_that_is_over_recovers_by_itself_as_often_as_its_cluster_allows() {
    let (mut lab, clock, _node, agent) = running();
    lab.control.take();
    clock.set(OVER_S);
    wait_said(&lab, &clock, "acme.example/agent/edge failing");
    control(&mut lab, &clock);
    wait_said(&lab, &clock, "recovered: 1 times");
    assert!(agent.log().contains("alarm: the certificate had ended"), "{}", agent.log());
    wait_until("the control plane says so", || {
        lab.control.as_ref().unwrap().log().contains("ALARM: an agent")
    });
    wait_until("the node has a good one", || record(&lab, "edge-1")["generation"] == 2);
    lab.configure("edge", MEMBER_ID, &format!("{NODE}# 2\n"));
    wait_said(&lab, &clock, "applied version 2\n");
    let metrics = || fs::read_to_string(lab.path("agent.prom")).unwrap();
    wait_until("a metric", || metrics().contains("zen_agent_recoveries 1\n"));
    assert_eq!(record(&lab, "agent")["generation"], 2);

    // Once is what the policy allows, until somebody resets the count.
    clock.set(2 * OVER_S);
    control(&mut lab, &clock);
    wait_said(&lab, &clock, "recovery was used before");
    let directory = lab.text("control");
    let said = lab::run("zen-control", &["recovery", "--dir", &directory, "--cluster", "edge", "--reset"]);
    assert_eq!(said, "edge: recovery once, used 0 times\n");
    agent.signal(Signal::SIGHUP);
    wait_said(&lab, &clock, "recovered: 2 times");
    wait_said(&lab, &clock, "applied version 2\n");
    assert!(agent.stop());
}

/// Killed while it recovers, either side, again and again: it takes one of them for no clone, and locks nobody out.
#[test]
fn recoveries_that_are_killed_lock_nobody_out() {
    let (mut lab, clock, _node, agent) = running();
    let directory = lab.text("control");
    lab::run("zen-control", &["recovery", "--dir", &directory, "--cluster", "edge", "--policy", "auto"]);
    assert!(agent.stop());
    let mut generation = 1;
    for round in 1..=16_u32 {
        lab.control.take();
        clock.set(OVER_S * i64::from(round));
        control(&mut lab, &clock);
        let agent = self::agent(&lab, &clock);
        agent.wait_ready(round as usize + 1);
        thread::sleep(Duration::from_millis(u64::from(round / 2) * 12));
        if round % 2 == 0 {
            agent.signal(Signal::SIGKILL);
            drop(agent);
            let agent = self::agent(&lab, &clock);
            wait_good(&lab, &clock, &mut generation);
            assert!(agent.stop());
        } else {
            lab.control.as_ref().unwrap().signal(Signal::SIGKILL);
            control(&mut lab, &clock);
            wait_good(&lab, &clock, &mut generation);
            assert!(agent.stop());
        }
    }
    let said = lab::run("zen-control", &["status", "--dir", &directory]);
    assert!(!said.contains("LOCKED"), "{said}");
}

fn wait_good(lab: &Lab, clock: &WallClock, generation: &mut u64) {
    wait_said(lab, clock, "acme.example/agent/edge good");
    let next = record(lab, "agent")["generation"].as_u64().unwrap();
    assert!(next > *generation && next <= *generation + 2, "one identity, few certificates: {next}");
    *generation = next;
}
