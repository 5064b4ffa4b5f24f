//! The wall clock of a running node is set an hour forward or back: nothing stalls, nothing fires early,
//! what the other node refuses meanwhile waits, and everything is delivered when the clock is right again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh::{Mesh, delivered, distinct, numbered, send, target};
use support::client::{Client, github};
use support::node::{Node, wait_until};
use support::{GITHUB, Lab, Ports};
use target::{Answer, Target};

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const HOUR_MS: i64 = 3_600_000;
/// Of all the target's events, those whose first attempt fails.
const RETRIED: &[u8] = b"{\"retried\":true}";
const RETRY: &str = "retry_schedule_ms = [2000]\nretry_jitter_percent = 0";

/// Which node's clock is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stepped {
    Ingester,
    Egress,
}

/// A node's wall clock, which a file sets; its monotonic clock is the kernel's.
struct WallClock {
    file: PathBuf,
    /// Processes that had it.
    processes: Mutex<Vec<u32>>,
}

impl WallClock {
    fn of(lab: &Lab, node: &str) -> Self {
        let clock = Self { file: lab.path(&format!("{node}.clock")), processes: Mutex::default() };
        clock.set(0);
        clock
    }

    /// Sets it to the true time plus `offset_ms`.
    fn set(&self, offset_ms: i64) {
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{:+}", offset_ms / 1000)).unwrap();
        fs::rename(next, &self.file).unwrap();
    }

    /// Starts a node with this clock.
    fn start(&self, config: &Path, admin: SocketAddr) -> Node {
        let node = Node::start_with(config, admin, &Self::environment(&self.file));
        self.processes.lock().unwrap().push(node.id());
        node
    }

    fn environment(file: &Path) -> Vec<(&'static str, OsString)> {
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
        assert!(Path::new(&library).exists(), "{library} is missing: install the package libfaketime");
        let one = || OsString::from("1");
        vec![
            ("LD_PRELOAD", library.into()),
            ("FAKETIME_TIMESTAMP_FILE", file.into()),
            ("FAKETIME_NO_CACHE", one()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", one()),
            ("NO_FAKE_STAT", one()),
        ]
    }
}

impl Drop for WallClock {
    /// A process that was killed leaves the library's shared memory behind.
    fn drop(&mut self) {
        for process in self.processes.lock().unwrap().drain(..) {
            for name in ["faketime_shm", "sem.faketime_sem"] {
                let _ = fs::remove_file(format!("/dev/shm/{name}_{process}"));
            }
        }
    }
}

#[test]
fn an_ingester_an_hour_ahead_goes_on() {
    step(Stepped::Ingester, HOUR_MS);
}

#[test]
fn an_ingester_an_hour_behind_goes_on() {
    step(Stepped::Ingester, -HOUR_MS);
}

#[test]
fn an_egress_an_hour_ahead_goes_on() {
    step(Stepped::Egress, HOUR_MS);
}

#[test]
fn an_egress_an_hour_behind_goes_on() {
    step(Stepped::Egress, -HOUR_MS);
}

#[test]
fn a_retry_that_an_egress_finds_in_its_journal_an_hour_earlier_comes_when_it_is_due() {
    let (mut mesh, clock, target) = stepped_mesh(Stepped::Egress);
    let id = mesh.send(RETRIED);
    target.wait(1);
    mesh.inside.wait_metric("zen_retries_total", 1.0);
    // The note is durable when an event that came behind it is.
    let after = mesh.send(b"{}");
    wait_until("the event behind it", || delivered(&target.deliveries()).contains(&after));
    mesh.inside.kill();
    clock.set(-HOUR_MS);
    mesh.inside = clock.start(&mesh.lab.path("inside.toml"), mesh.inside_ports.admin);
    wait_until("the second attempt", || attempts(&target, &id) == 2);
}

fn step(stepped: Stepped, offset_ms: i64) {
    let (mesh, clock, target) = stepped_mesh(stepped);
    let over = AtomicBool::new(false);
    let ids = std::thread::scope(|scope| {
        let trickle = scope.spawn(|| trickle(&mesh, &over));
        let retried = mesh.send(RETRIED);
        wait_until("the first attempt", || attempts(&target, &retried) == 1);
        clock.set(offset_ms);
        wait_until("batches are refused", || stale(&mesh) >= 1.0);
        mesh.edge.wait_log("the events of a link are refused");
        mesh.inside.wait_log("the events of a link are refused");
        wait_until("the retry", || attempts(&target, &retried) == 2);
        check_deadlines(&mesh);
        let before = stale(&mesh);
        wait_until("the link is tried again", || stale(&mesh) >= before + 2.0);
        assert_eq!(mesh.inside.log().matches("the events of a link are refused").count(), 1, "once a minute");
        assert!(mesh.edge.metric("zen_link_lag_events") > 0.0, "what is refused waits");
        clock.set(0);
        wait_until("the link works again", || {
            over.store(true, Ordering::Release);
            mesh.edge.metric("zen_link_lag_events") as u64 == 0
        });
        let mut ids = trickle.join().unwrap();
        assert!(stepped == Stepped::Egress || ids.is_sorted(), "ids of a worker ascend");
        ids.push(retried);
        distinct(ids)
    });
    wait_until("everything accepted is delivered", || delivered(&target.deliveries()) == ids);
    assert_eq!(mesh.inside.metric("zen_dead_letters_total") as u64, 0);
}

/// The ingester and the egress, one of them with a clock of its own, and a target that fails [`RETRIED`] once.
fn stepped_mesh(stepped: Stepped) -> (Mesh, WallClock, Target) {
    let lab = Lab::new();
    let failed = AtomicBool::new(false);
    let target = target(&lab, "demo", move |_, delivery| {
        let fails = delivery.body == RETRIED && !failed.swap(true, Ordering::AcqRel);
        Answer::status(if fails { 503 } else { 200 })
    });
    let section = lab.target_text("demo", target.address, RETRY);
    let (edge_ports, inside_ports) = (Ports::pick(), Ports::pick());
    let edge_text = lab.ingester_text(edge_ports);
    let inside_text = lab.egress_text(inside_ports, edge_ports.link, &section);
    let clock = WallClock::of(&lab, if stepped == Stepped::Ingester { "edge" } else { "inside" });
    let start = |name: &str, ports: Ports, text: &str, own: bool| {
        let config = lab.write(&format!("{name}.toml"), text);
        if own { clock.start(&config, ports.admin) } else { Node::start(&config, ports.admin) }
    };
    let edge = start("edge", edge_ports, &edge_text, stepped == Stepped::Ingester);
    let inside = start("inside", inside_ports, &inside_text, stepped == Stepped::Egress);
    (Mesh { edge, inside, edge_ports, inside_ports, edge_text, inside_text, lab }, clock, target)
}

/// One event after the other on one connection, which no step of the clock may end.
fn trickle(mesh: &Mesh, over: &AtomicBool) -> Vec<String> {
    let mut source = mesh.source();
    let mut ids = Vec::new();
    while !over.load(Ordering::Acquire) {
        ids.push(send(&mut source, GITHUB, &numbered(ids.len(), 200)));
        std::thread::sleep(Duration::from_millis(20));
    }
    ids
}

/// A request that never ends is answered by the request deadline, on a clock that was just set.
fn check_deadlines(mesh: &Mesh) {
    let mut source = Client::connect(&mesh.lab, mesh.edge_ports.listen);
    let request = github(GITHUB, b"{\"never\":\"whole\"}", "");
    source.send(&request[..request.len() - 5]);
    assert_eq!(source.answer().status, 408);
}

fn stale(mesh: &Mesh) -> f64 {
    mesh.inside.metric("zen_link_errors_total{reason=\"stale\"}")
}

fn attempts(target: &Target, id: &str) -> usize {
    target.deliveries().iter().filter(|delivery| delivery.event_id() == id).count()
}
