//! What a running node has given up, read from the kernel's list of its threads, and that it works without.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::chown;

use mesh::{Mesh, delivered, distinct, send, target};
use nix::sys::signal::Signal;
use support::client::Client;
use support::node::{Node, get_unix, io, wait_until};
use support::{GITHUB, Lab, Ports, change};
use target::Answer;

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

/// `nobody`.
const NOBODY: u32 = 65534;
const NONE: &str = "0000000000000000";

/// One thread of a node.
#[derive(Debug)]
struct Thread {
    name: String,
    status: String,
}

impl Thread {
    /// A line of its status (proc(5)).
    fn field(&self, name: &str) -> &str {
        let line = self.status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("{name} in {self:?}"))
    }
}

fn threads(process: u32) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let thread = |folder: std::path::PathBuf| {
        let name = fs::read_to_string(folder.join("comm")).ok()?.trim().to_owned();
        Some(Thread { name, status: fs::read_to_string(folder.join("status")).ok()? })
    };
    tasks.filter_map(|task| thread(task.unwrap().path())).collect()
}

/// Checks each thread of a node, and that those are there which are named.
fn check_confined(node: &Node, names: &[&str]) {
    let threads = threads(node.id());
    for name in names {
        assert!(threads.iter().any(|thread| thread.name.starts_with(name)), "{name} in {threads:?}");
    }
    for thread in threads {
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"] {
            assert_eq!(thread.field(set), NONE, "{set} of {}", thread.name);
        }
        assert_eq!((thread.field("NoNewPrivs"), thread.field("Seccomp")), ("1", "2"), "{}", thread.name);
    }
}

/// A loopback address with a port that needs a capability, beyond `from`.
fn privileged_address(from: u32) -> SocketAddr {
    let mut addresses = (from + 1..1024).map(|port| SocketAddr::from(([127, 0, 0, 1], port as u16)));
    addresses.find(|address| TcpListener::bind(address).is_ok()).unwrap()
}

fn ingester(edit: impl Fn(&str) -> String) -> (Lab, Ports, String, Node) {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let text = edit(&lab.ingester_text(ports));
    let node = lab.start("edge", ports, &text);
    (lab, ports, text, node)
}

fn with_keys(text: &str, keys: &str) -> String {
    change(text, "[node]\n", &format!("[node]\n{keys}\n"))
}

#[test]
fn no_thread_has_a_capability_and_each_has_the_list() {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let section = lab.target_text("demo", target.address, "");
    let receipts = |text: &str| change(text, "[egress]\n", "[egress]\nreceipts = { bytes_max = 1048576 }\n");
    let mut mesh = Mesh::start_with(lab, &section, str::to_owned, receipts);
    let sent = mesh.send_many(20, 1000);
    target.wait(20);
    // What looks through the journals is a thread of the blocking pool.
    let socket = mesh.lab.path("inside.sock");
    assert_eq!(get_unix(&socket, &format!("/events/{}", sent[0])).unwrap().0, 200);
    let files = if io() == "epoll" { "files" } else { "worker-0" };
    check_confined(&mesh.inside, &["zen-dataplane", "worker-0", "segments", "receipts", "tokio", files]);
    check_confined(&mesh.edge, &["zen-dataplane", "worker-0", "segments", files]);

    for node in [&mesh.inside, &mesh.edge] {
        node.wait_log("privileges: no capabilities, no_new_privs, seccomp enforces ");
        let status = node.get("/status").1;
        assert!(
            status.contains("\nprivileges: no capabilities, no_new_privs, seccomp enforces "),
            "{status}"
        );
        node.signal(Signal::SIGHUP);
        wait_until("the reload", || node.get("/status").1.starts_with("generation 2 in force\n"));
    }
    let more = mesh.send_many(20, 1000);
    assert_eq!(delivered(&target.wait(40)), distinct(sent.into_iter().chain(more)));
    for node in [&mut mesh.edge, &mut mesh.inside] {
        assert!(node.terminate().success());
        assert!(!node.log().contains("WARN"), "{}", node.log());
    }
}

#[test]
fn capabilities_and_system_calls_are_kept_where_configured() {
    let (_lab, _, _, node) = ingester(|text| with_keys(text, "drop_capabilities = false\nseccomp = \"off\""));
    let own = threads(std::process::id());
    for thread in threads(node.id()) {
        assert_ne!(thread.field("CapEff"), NONE, "this test runs as root");
        for field in ["CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp"] {
            assert_eq!(thread.field(field), own[0].field(field), "{field} of {}", thread.name);
        }
    }
    let line = "\nprivileges: capabilities as started with, seccomp is off\n";
    assert!(node.get("/status").1.contains(line), "{}", node.get("/status").1);
}

#[test]
fn what_is_off_the_list_may_only_be_logged() {
    let (_lab, _, _, node) = ingester(|text| with_keys(text, "drop_capabilities = false\nseccomp = \"log\""));
    for thread in threads(node.id()) {
        assert_ne!(thread.field("CapEff"), NONE);
        assert_eq!((thread.field("NoNewPrivs"), thread.field("Seccomp")), ("1", "2"), "{}", thread.name);
    }
    node.wait_log("privileges: capabilities as started with, no_new_privs, seccomp logs all but ");
}

#[test]
fn ports_below_1024_are_listened_on_by_every_worker() {
    let (lab, mut ports) = (Lab::new(), Ports::pick());
    ports.listen = privileged_address(200 + std::process::id() % 600);
    let text = change(&lab.ingester_text(ports), "workers = 1", "workers = 3");
    let mut node = lab.start("edge", ports, &text);
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let listens = format!(" 0100007F:{:04X} 00000000:0000 0A ", ports.listen.port());
    assert_eq!(table.lines().filter(|line| line.contains(&listens)).count(), 3, "{table}");
    send(&mut Client::connect(&lab, ports.listen), GITHUB, b"{}");
    check_confined(&node, &["worker-2"]);
    assert!(node.terminate().success());

    ports.admin = privileged_address(ports.listen.port().into());
    let mut node = lab.start("edge", ports, &change_admin(&text, ports));
    assert!(node.terminate().success());
}

/// `text` with another admin address.
fn change_admin(text: &str, ports: Ports) -> String {
    let line = text.lines().find(|line| line.starts_with("listen = \"")).unwrap();
    change(text, line, &format!("listen = \"{}\"", ports.admin))
}

#[test]
fn files_that_a_reload_could_not_read_are_named_at_the_start() {
    let lab = Lab::new();
    let secret = lab.path("secrets/source");
    chown(&secret, Some(NOBODY), None).unwrap();
    let ports = Ports::pick();
    let node = lab.start("edge", ports, &lab.ingester_text(ports));
    node.wait_log("without capabilities a reload will be refused");
    assert!(node.log().contains("secrets/source"), "{}", node.log());
    assert!(node.log().contains("node.drop_capabilities = false"), "{}", node.log());
    node.signal(Signal::SIGHUP);
    wait_until("the reload", || node.get("/status").1.contains("the last reload was refused"));
    chown(&secret, Some(0), None).unwrap();
    node.signal(Signal::SIGHUP);
    wait_until("the reload", || node.get("/status").1.starts_with("generation 2 in force\n"));
}

#[test]
fn a_node_without_capabilities_starts_without_a_warning() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let config = lab.write("edge.toml", &lab.ingester_text(ports));
    let folder = lab.path("");
    let script = format!(
        "chown -R {NOBODY} '{}'; set -- setpriv --reuid {NOBODY} --clear-groups \"$@\"",
        folder.display()
    );
    let mut node = Node::start_behind(&script, &config, ports.admin);
    send(&mut Client::connect(&lab, ports.listen), GITHUB, b"{}");
    for thread in threads(node.id()) {
        assert_eq!((thread.field("CapPrm"), thread.field("CapEff")), (NONE, NONE), "{}", thread.name);
        assert_eq!((thread.field("NoNewPrivs"), thread.field("Seccomp")), ("1", "2"), "{}", thread.name);
    }
    assert!(node.terminate().success());
    assert!(!node.log().contains("WARN"), "{}", node.log());
}

/// Without `CAP_IPC_LOCK` rings count against a limit that root is not used to.
#[test]
fn rings_find_room_under_the_limit_of_locked_memory() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let config = lab.write("edge.toml", &lab.ingester_text(ports));
    let node = Node::start_behind("ulimit -S -l 0", &config, ports.admin);
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.id())).unwrap();
    let locked = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")).unwrap();
    let [soft, hard] = [0, 1].map(|column| locked.split_whitespace().nth(column).unwrap());
    assert_eq!(soft, hard, "raised as far as it may be");
    check_confined(&node, &[]);
}

#[test]
fn a_reload_does_not_give_anything_back() {
    let (lab, _, text, node) = ingester(str::to_owned);
    for (keys, name) in [
        ("drop_capabilities = false", "node.drop_capabilities needs a restart"),
        ("seccomp = \"off\"", "node.seccomp needs a restart"),
    ] {
        lab.write("edge.toml", &with_keys(&text, keys));
        node.signal(Signal::SIGHUP);
        wait_until(name, || node.get("/status").1.contains(name));
    }
    check_confined(&node, &[]);
}
