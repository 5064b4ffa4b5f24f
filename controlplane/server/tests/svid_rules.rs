//! Every rule for X.509-SVIDs at the listeners for agents and for people, of the real program: who breaks one is refused, for
//! that reason; who is one change away is let in. The CA is the control plane's own root, whose key the test has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use zen_ports::free_address;
use zen_svid_faults::{Domain, FAULTS, Fault, Heard, Shown, dial};

const TRUST_DOMAIN: &str = "acme.example";
const AGENT: &str = "agent/edge";
const PERSON: &str = "people/alice";
const HTTP: &[u8] = b"http/1.1";
const QUESTION: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
const PATIENCE: Duration = Duration::from_mins(1);
/// What the log says of a chain that leads to no root.
const STRANGER: &str = "no root of the leaf's trust domain issued this chain";

/// A control plane that runs until the test ends.
struct Running {
    files: TempDir,
    agents: SocketAddr,
    people: SocketAddr,
    child: Child,
}

impl Running {
    /// One that denies whom the table says it denies, if it is about whose id has this path.
    fn start(peer: &str) -> (Self, Domain) {
        let files = tempfile::tempdir().unwrap();
        let at = files.path();
        command(at, &["init", "--dir", "state", "--trust-domain", TRUST_DOMAIN, "--tenant", "acme"]);
        let read = |name: &str| fs::read_to_string(at.join("state").join(name)).unwrap();
        let domain = Domain::of_root(TRUST_DOMAIN, &read("root.pem"), &read("root.key"));
        let denied = domain.denied(peer);
        for (option, value) in [
            ("--serial", &denied.serial),
            ("--spki-sha256", &denied.spki_sha256),
            ("--spiffe-id", &denied.spiffe_id),
        ] {
            command(at, &["deny", "--dir", "state", option, value]);
        }
        let (agents, people) = (free_address(), free_address());
        let (listen, people_listen) = (agents.to_string(), people.to_string());
        let run = [
            "run",
            "--dir",
            "state",
            "--listen",
            &listen,
            "--people-listen",
            &people_listen,
            "--log",
            "info",
        ];
        let child = program(at, &run).stderr(File::create(at.join("log")).unwrap()).spawn().unwrap();
        let running = Self { files, agents, people, child };
        wait_until("it listens", || TcpStream::connect(agents).is_ok() && TcpStream::connect(people).is_ok());
        (running, domain)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.files.path().join("log")).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- its log ---\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(at: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zen-control"));
    command.args(arguments).current_dir(at).stdin(Stdio::null());
    command
}

fn command(at: &Path, arguments: &[&str]) {
    let output = program(at, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A control plane makes its roots itself, and removes them when they end: no root outside its validity is in its bundle.
fn applies(fault: &Fault) -> bool {
    !fault.needs_bundle()
}

/// Shows the good chain, then each with a fault, then the good one again. `said` is what the log has for a fault.
fn each_is_refused(
    (control, domain, peer): (&Running, &Domain, &str),
    show: impl Fn(&Shown) -> Heard,
    is_good: impl Fn(&Heard) -> bool,
    said: impl Fn(&Fault) -> &'static str,
) {
    let good = domain.good(peer);
    let heard = show(&good);
    assert!(is_good(&heard), "the good one: {heard:?}");
    for fault in FAULTS.iter().filter(|fault| applies(fault)) {
        let before = control.log().matches(said(fault)).count();
        let heard = show(&fault.make(domain, peer));
        assert!(!heard.is_taken(), "rule {}, {}: {heard:?}", fault.rule, fault.name);
        wait_until(&format!("rule {}, {}: \"{}\" in the log", fault.rule, fault.name, said(fault)), || {
            control.log().matches(said(fault)).count() > before
        });
    }
    let heard = show(&good);
    assert!(is_good(&heard), "the good one, again: {heard:?}");
}

#[test]
fn the_listener_for_agents_refuses_each() {
    let (control, domain) = Running::start(AGENT);
    let is_good = |heard: &Heard| matches!(heard, Heard::Said(said) if said.starts_with(b"HTTP/1.1 200 "));
    let show = |shown: &Shown| dial(control.agents, shown, HTTP, QUESTION);
    each_is_refused((&control, &domain, AGENT), show, is_good, |fault| fault.reason);
}

/// Whoever nobody has told the control plane of is let in by TLS, and may nothing.
#[test]
fn the_listener_for_people_refuses_each() {
    let (control, domain) = Running::start(PERSON);
    let is_good = |heard: &Heard| matches!(heard, Heard::Said(said) if said.starts_with(b"HTTP/1.1 "));
    let show = |shown: &Shown| dial(control.people, shown, HTTP, QUESTION);
    each_is_refused((&control, &domain, PERSON), show, is_good, |fault| fault.reason);
    for other in [AGENT, "peoples/alice", "people"] {
        let heard = show(&domain.good(other));
        assert!(!heard.is_taken(), "{other} is no person: {heard:?}");
    }
}

/// The root is not one of theirs, so neither is the chain.
#[test]
fn roots_outside_their_validity_are_strangers() {
    let (control, domain) = Running::start(AGENT);
    for fault in FAULTS.iter().filter(|fault| fault.needs_bundle()) {
        let before = control.log().matches(STRANGER).count();
        let heard = dial(control.agents, &fault.make(&domain, AGENT), HTTP, QUESTION);
        assert!(!heard.is_taken(), "{}: {heard:?}", fault.name);
        wait_until(fault.name, || control.log().matches(STRANGER).count() > before);
    }
}
