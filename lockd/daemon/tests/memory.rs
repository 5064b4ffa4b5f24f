//! What a daemon's memory gives away: core dumps are refused, pages are locked, and what was used is wiped. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine};
use nix::sys::signal::Signal;
use support::{Daemon, LOCKD, Vault, grant, said, wait_until};
use zen_lock::{ReplyHead, VALUE_BYTES_MAX};

const SECRET: &str = "edge/webhooks/github";
const MARK: &[u8] = b"canary-7f3a1c-of-the-memory-test";

/// How often each of the texts is in the memory of a process that can be written.
fn found(daemon: &Daemon, texts: &[Vec<u8>]) -> Vec<usize> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.id())).unwrap();
    let memory = File::open(format!("/proc/{}/mem", daemon.id())).unwrap();
    let mut counts = vec![0; texts.len()];
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
    {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap());
        let mut bytes = vec![0; (to - from) as usize];
        if memory.read_exact_at(&mut bytes, from).is_err() {
            continue;
        }
        for (text, count) in texts.iter().zip(&mut counts) {
            *count += bytes.windows(text.len()).filter(|window| *window == text.as_slice()).count();
        }
    }
    counts
}

/// The mark, the base64 that it has inside the envelope, and the text of the own key.
fn traces(vault: &Vault) -> Vec<Vec<u8>> {
    let key = vault.keys.text();
    let key = key.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).unwrap().as_bytes().to_vec();
    let inner = BASE64_STANDARD.encode(MARK).into_bytes();
    vec![MARK.to_vec(), inner[..inner.len() - 4].to_vec(), key]
}

#[test]
fn nothing_of_a_value_is_left_when_it_has_been_handed_out() {
    let vault = Vault::new();
    vault.seal(SECRET, MARK);
    let daemon = vault.start(&grant("user = \"0\""));
    for _ in 0..50 {
        assert_eq!(*vault.get(SECRET).unwrap(), MARK);
    }
    // The caller may have its answer a moment before the daemon has dropped it.
    let traces = traces(&vault);
    wait_until("nothing is left", || found(&daemon, &traces) == [0, 0, 0]);
    // The name is no secret, and shows that the search sees this memory at all.
    assert!(found(&daemon, &[b"lockd.sock".to_vec()])[0] > 0);
}

#[test]
fn a_value_is_in_memory_while_its_caller_takes_it_and_not_after() {
    let vault = Vault::new();
    let mut value = MARK.repeat(VALUE_BYTES_MAX / MARK.len());
    value.truncate(VALUE_BYTES_MAX);
    vault.seal(SECRET, &value);
    let daemon = vault.start(&grant("user = \"0\""));
    // Callers that do not read: their answers fill the socket, and then wait in the daemon.
    let mut wire = vault.wire();
    let request = wire.request(SECRET);
    for _ in 0..16 {
        wire.send(&request);
    }
    let mark = [MARK.to_vec()];
    wait_until("an answer waits in memory", || found(&daemon, &mark)[0] > 0);
    assert_eq!(wire.reply(), Some(ReplyHead::Value(VALUE_BYTES_MAX)));
    drop(wire);
    wait_until("it is wiped", || found(&daemon, &mark)[0] == 0);
}

#[test]
fn all_pages_are_locked() {
    let vault = Vault::new();
    vault.seal(SECRET, MARK);
    let daemon = vault.start(&grant("user = \"0\""));
    vault.get(SECRET).unwrap();
    let (locked, resident, swapped) =
        (daemon.status("VmLck"), daemon.status("VmRSS"), daemon.status("VmSwap"));
    assert!(
        locked >= resident && swapped == 0,
        "{locked} KiB locked, {resident} resident, {swapped} swapped"
    );
    assert!(locked < 64 * 1024, "{locked} KiB: arenas of threads would be locked whole");
}

#[test]
fn a_daemon_that_may_not_lock_says_so_and_does_not_start_unless_it_may() {
    let vault = Vault::new();
    vault.configure("", &grant("user = \"0\""));
    let limited =
        ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "--", "prlimit", "--memlock=65536"];
    let start = || {
        let mut command = Command::new(limited[0]);
        command.args(&limited[1..]).arg(LOCKD);
        vault.spawn(&mut command)
    };
    let mut refused = start();
    assert!(!refused.wait().success());
    wait_until("it says why", || refused.log().contains("memory cannot be locked"));
    vault.configure("memory = { lock = \"try\" }", &grant("user = \"0\""));
    let tried = start();
    wait_until("it starts and says so", || tried.log().contains("memory is not locked"));
    wait_until("it is ready", || tried.log().contains("ready"));
}

#[test]
fn a_crash_leaves_no_core() {
    let vault = Vault::new();
    let mut daemon = vault.start(&grant("user = \"0\""));
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    daemon.signal(Signal::SIGABRT);
    let status = daemon.wait();
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32));
    assert!(!status.core_dumped());
}

#[test]
fn the_user_of_the_daemon_cannot_look_into_it() {
    let vault = Vault::new();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let program = vault.copy(LOCKD.as_ref(), "program");
    for path in ["", "sealed", "own.key"] {
        std::os::unix::fs::chown(vault.path(path), Some(65534), Some(65534)).unwrap();
    }
    vault.configure("memory = { lock = \"try\" }", &grant("user = \"65534\""));
    let mut command = Command::new("setpriv");
    command.args(nobody).arg(&program);
    let daemon = vault.spawn(&mut command);
    wait_until("the daemon is ready", || daemon.log().contains("ready"));
    let read = |what: &str| {
        let file = format!("/proc/{}/{what}", daemon.id());
        said(&Command::new("setpriv").args(nobody).args(["head", "-c1", &file]).output().unwrap())
    };
    for what in ["mem", "environ", "maps"] {
        assert!(read(what).contains("Permission denied"), "{what}: {}", read(what));
    }
    assert!(!read("cmdline").contains("Permission denied"), "what others may see is seen");
}
