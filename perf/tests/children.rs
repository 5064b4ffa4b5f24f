//! A child of the lab dies with the lab, however the lab dies.

use std::fs::read_to_string;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PERF: &str = env!("CARGO_BIN_EXE_zen-perf");
const DEADLINE: Duration = Duration::from_secs(5);

/// Whether `id` runs; a process that waits to be reaped does not.
fn is_running(id: &str) -> bool {
    let stat = read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, fields)| !fields.trim_start().starts_with('Z'))
}

#[test]
fn a_child_dies_with_its_parent() {
    let script = "\"$0\" child $$ sleep 1000 & echo $!; wait";
    let mut parent =
        Command::new("sh").args(["-c", script, PERF]).stdout(Stdio::piped()).spawn().expect("sh runs");
    let output = parent.stdout.take().expect("standard output is piped");
    let child = BufReader::new(output).lines().next().expect("the child's id").expect("a line");
    let name = || read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
    let begun = Instant::now();
    while name().trim() != "sleep" {
        assert!(begun.elapsed() < DEADLINE, "the child did not become its program, but {:?}", name());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(is_running(&child));
    parent.kill().expect("the parent runs");
    parent.wait().expect("the parent ends");
    let begun = Instant::now();
    while is_running(&child) {
        assert!(begun.elapsed() < DEADLINE, "the child outlives its parent");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_child_of_somebody_else_does_not_start() {
    let status = Command::new(PERF).args(["child", "1", "true"]).stderr(Stdio::null()).status();
    assert!(!status.expect("zen-perf runs").success());
}
