//! An enrollment that is killed at each of its steps, and run again with the same bundle.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_arch = "x86_64")]

#[path = "support/clock.rs"]
mod clock;
#[path = "support/lab.rs"]
mod lab;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use clock::WallClock;
use lab::{AGENT, Lab};
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

/// What changes the disk or goes over the network.
const STEPS: [libc::c_long; 12] = [
    libc::SYS_fsync,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_connect,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
];

/// Runs `zen-agent enroll` and kills it when it begins its step number `at`; whether it got that far.
fn enroll_killed(lab: &Lab, bundle: &Path, at: usize) -> bool {
    let arguments = [OsStr::new("enroll"), OsStr::new("--bundle"), bundle.as_os_str()];
    killed(lab, &arguments, at, |_| {})
}

/// Runs the agent with these arguments and kills it when it begins its step number `at`; whether it got that far.
fn killed(lab: &Lab, arguments: &[&OsStr], at: usize, change: impl FnOnce(&mut Command)) -> bool {
    // The shell waits until it is traced, and becomes the agent then.
    let mut command = Command::new("sh");
    command.args(["-c", "read -r line; exec \"$0\" \"$@\"", AGENT]).args(arguments);
    command.args([OsStr::new("--config"), lab.path("agent.toml").as_os_str()]);
    change(&mut command);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    ptrace::attach(pid).unwrap();
    while !matches!(waitpid(pid, None).unwrap(), WaitStatus::Stopped(_, Signal::SIGSTOP)) {
        // It was becoming the shell.
        ptrace::cont(pid, None).unwrap();
    }
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(pid, options).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let was_killed = kill_at(pid, at);
    // Whoever traces has reaped it.
    let _ = child.wait();
    was_killed
}

/// Lets the traced shell go on, and kills what it becomes when that begins its step number `at`.
fn kill_at(pid: Pid, at: usize) -> bool {
    let (mut is_agent, mut is_entry, mut steps) = (false, true, 0);
    ptrace::syscall(pid, None).unwrap();
    loop {
        let deliver = match waitpid(pid, None).unwrap() {
            WaitStatus::PtraceSyscall(_) => {
                let call = ptrace::getregs(pid).unwrap().orig_rax.cast_signed();
                if is_agent && is_entry && STEPS.contains(&call) {
                    steps += 1;
                    if steps == at {
                        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
                        while !matches!(waitpid(pid, None), Ok(WaitStatus::Signaled(..)) | Err(_)) {}
                        return true;
                    }
                }
                is_entry = !is_entry;
                None
            }
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => {
                // What follows is the end of execve itself.
                (is_agent, is_entry) = (true, false);
                None
            }
            WaitStatus::Exited(_, status) => {
                assert_eq!(status, 0, "step {at}");
                return false;
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            other => panic!("{other:?}"),
        };
        ptrace::syscall(pid, deliver).unwrap();
    }
}

#[test]
fn an_enrollment_can_be_killed_at_every_step_and_repeated() {
    let lab = Lab::new();
    let mut at = 1;
    loop {
        lab.clear_state();
        let cluster = format!("edge-{at}");
        let bundle = lab.bundle(&cluster);
        let was_killed = enroll_killed(&lab, &bundle, at);
        let again = lab.enroll(&bundle);
        assert!(again.status.success(), "killed at step {at}: {}", String::from_utf8_lossy(&again.stderr));
        let record: Value = serde_json::from_str(&lab.identity("agent", "record.json")).unwrap();
        assert_eq!(record["generation"], 1, "one certificate, however often it was asked for: step {at}");
        assert_eq!(record["enrolled"]["cluster"], cluster.as_str());
        let key = record["key"].as_u64().unwrap();
        lab.open(&format!("zen/agent/key-{key}")).unwrap();
        assert!(!lab.path("state/enrollment.json").exists());
        let left = fs::read_dir(lab.path("state/identities/agent")).unwrap().count();
        assert!(left <= 3, "{left} at step {at}");
        if !was_killed {
            break;
        }
        at += 1;
    }
    assert!(at > 30, "the sweep saw {at} steps");
}

/// Killed while it renews, again and again: a control plane that counts certificates takes it for no clone.
#[test]
fn renewals_that_are_killed_lock_nobody_out() {
    let lab = Lab::new();
    let bundle = lab.bundle("edge");
    assert!(lab.enroll(&bundle).status.success());
    let node = "private_key_file = \"{{private_key}}\"\n";
    lab.configure("edge", "spiffe://acme.example/ingester/edge-1", node);
    let _node = lab.start_node();
    let renewed = |name: &str| {
        fs::read_to_string(lab.path(name)).unwrap().matches("a new certificate is in force").count()
    };
    let agent = lab.start_agent();
    lab::wait_until("both have certificates", || lab.status().1);
    let (before, started) = (renewed("agent.log"), Instant::now());
    agent.signal(Signal::SIGHUP);
    lab::wait_until("a renewal", || renewed("agent.log") == before + 2);
    let takes = started.elapsed();
    assert!(agent.stop());
    // More rounds, and longer ones, if the machine has become slower than it was.
    for round in 0..60 {
        if round >= 24 && renewed("agent.log") > before + 4 {
            break;
        }
        let agent = lab.start_agent();
        let starts = || agent.log().matches(" ready ").count();
        lab::wait_until("it runs", || starts() == round as usize + 2);
        agent.signal(Signal::SIGHUP);
        thread::sleep(takes * round / 6);
        agent.signal(Signal::SIGKILL);
    }
    assert!(renewed("agent.log") > before + 4, "some got through in {takes:?}: {}", renewed("agent.log"));
    let agent = lab.start_agent();
    let applied = "applied version 1\n";
    lab::wait_until("all is well", || {
        let (said, is_good) = lab.status();
        is_good && said.contains(applied)
    });
    let before = lab.identity("agent", "record.json");
    agent.signal(Signal::SIGHUP);
    lab::wait_until("it is renewed", || lab.identity("agent", "record.json") != before);
    assert!(agent.stop());
}

/// Its certificate has ended, and it is killed at each step of its recovery: the next one is recovered, by few certificates.
#[test]
fn a_recovery_can_be_killed_at_every_step() {
    let mut lab = Lab::new();
    let clock = WallClock::new(lab.path("clock"));
    assert!(lab.enroll(&lab.bundle("edge")).status.success());
    let directory = lab.text("control");
    lab::run("zen-control", &["recovery", "--dir", &directory, "--cluster", "edge", "--policy", "auto"]);
    let record = || -> Value { serde_json::from_str(&lab_identity(&directory)).unwrap() };
    let number = |name: &str| record()[name].as_u64().unwrap_or(0);
    let (mut at, mut hours) = (1, 0);
    loop {
        hours += 37;
        lab.control.take();
        clock.set(hours * 3600);
        lab.start_control_by(|command| clock.give(command));
        let (generation, recoveries) = (number("generation"), number("recoveries"));
        assert!(killed(&lab, &[OsStr::new("run")], at, |command| clock.give(command)));
        if number("recoveries") > recoveries {
            break;
        }
        let agent = lab.start_agent_by(&["run"], |command| clock.give(command));
        lab::wait_until("it is recovered", || number("recoveries") == recoveries + 1);
        assert!(agent.stop());
        let next = number("generation");
        assert_eq!(next, generation + 1, "one certificate, however often it was asked for: step {at}");
        at += 1;
    }
    assert!(at > 25, "the sweep saw {at} steps");
}

/// The agent's record, beside the control plane's directory.
fn lab_identity(control: &str) -> String {
    let state = Path::new(control).with_file_name("state");
    fs::read_to_string(state.join("identities/agent/current/record.json")).unwrap()
}

/// Two hosts, one bundle, the same moment: one of them is in, and the other is told what to do.
#[test]
fn of_two_agents_with_one_bundle_one_gets_in() {
    let (one, other) = (Lab::new(), Lab::without_control());
    let bundle = one.bundle("edge");
    let outputs = thread::scope(|scope| {
        let attempts = [&one, &other].map(|lab| scope.spawn(|| lab.enroll(&bundle)));
        attempts.map(|attempt| attempt.join().unwrap())
    });
    let said = outputs.each_ref().map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    let is_in = outputs.each_ref().map(|output| output.status.success());
    assert!(is_in[0] != is_in[1], "{said:?}");
    let (winner, loser) = if is_in[0] { (&one, &other) } else { (&other, &one) };
    let again = loser.enroll(&bundle);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("used with another key"), "replayed: {said}");
    assert!(winner.enroll(&bundle).status.success(), "who is in is told so");
    let record: Value = serde_json::from_str(&winner.identity("agent", "record.json")).unwrap();
    assert_eq!(record["generation"], 1);
    lab::wait_until("an alarm", || {
        one.control.as_ref().unwrap().log().contains("ALARM: an enrollment bundle")
    });
}
