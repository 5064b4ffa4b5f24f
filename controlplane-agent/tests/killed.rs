//! An enrollment that is killed at each of its steps, and run again with the same bundle.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_arch = "x86_64")]

#[path = "support/lab.rs"]
mod lab;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

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
    // The shell waits until it is traced, and becomes the agent then.
    let mut command = Command::new("sh");
    command.args(["-c", "read -r line; exec \"$0\" \"$@\"", AGENT, "enroll", "--bundle"]).arg(bundle);
    command.args([OsStr::new("--config"), lab.path("agent.toml").as_os_str()]);
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
    for round in 0..24 {
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
