//! A node's life as its operator sees it: admin pages, reload, drain, a data directory of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use nix::sys::signal::Signal;
use support::client::{Client, github};
use support::node::{Node, get_unix, run, wait_until};
use support::{GITHUB, Lab, Ports, change, endpoint, free_address};

mod support;

const NEW: &str = "00000000000000000000000000000004";

fn start(change_text: impl Fn(String) -> String) -> (Lab, Ports, Node) {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let node = lab.start("edge", ports, &change_text(lab.ingester_text(ports)));
    (lab, ports, node)
}

fn status(lab: &Lab, ports: Ports, endpoint: &str) -> u16 {
    Client::connect(lab, ports.listen).ask(&github(endpoint, b"{}", "")).status
}

#[test]
fn pages_are_served_on_loopback_and_on_a_private_socket() {
    let (lab, ports, mut node) = start(|text| text);
    assert_eq!(status(&lab, ports, GITHUB), 202);
    assert_eq!(node.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(node.get("/readyz"), (200, "ready\n".to_owned()));
    let (status, text) = node.get("/status");
    assert_eq!((status, text.lines().next()), (200, Some("generation 1 in force")));
    assert_eq!(node.get("/").0, 404);
    node.wait_metric("zen_link_lag_events", 1.0);
    let (code, text) = node.get("/metrics");
    assert_eq!((code, text.ends_with("# EOF\n")), (200, true), "{text}");
    for name in [
        "zen_events_accepted_total 1",
        "# TYPE zen_requests_refused counter",
        "zen_bytes_accepted_total 2",
        "zen_accept_to_durable_seconds_count 1",
        "# TYPE zen_journal_commit_seconds histogram",
        "zen_journal_records_total 1",
        "zen_journal_live_bytes ",
        "zen_journal_full 0",
        "zen_link_lag_events 1",
        "# TYPE zen_deliveries counter",
        "zen_retries_total 0",
        "zen_dead_letters_total 0",
        "zen_queue_depth 0",
        "zen_source_connections ",
        "zen_link_connections 0",
        "zen_target_connections 0",
        "zen_duplicates_total 0",
        "zen_drain 0",
    ] {
        assert!(text.contains(name), "{name} in:\n{text}");
    }
    assert!(!text.contains(GITHUB), "no label comes from the wire");

    let socket = lab.path("edge.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    for page in ["/healthz", "/readyz", "/status"] {
        assert_eq!(get_unix(&socket, page).unwrap(), node.get(page));
    }
    assert!(node.terminate().success());
    assert!(!socket.exists(), "the socket goes with the node");
}

#[test]
fn a_killed_node_starts_again_over_its_stale_files() {
    let (lab, ports, mut node) = start(|text| text);
    assert_eq!(status(&lab, ports, GITHUB), 202);
    node.kill();
    assert!(lab.path("edge.sock").exists());
    let node = lab.start("edge", ports, &lab.ingester_text(ports));
    assert_eq!(get_unix(&lab.path("edge.sock"), "/readyz").unwrap().0, 200);
    assert_eq!(node.metric("zen_link_lag_events") as usize, 1, "what was answered is still there");
}

#[test]
fn a_reload_takes_effect_or_changes_nothing() {
    let (lab, ports, node) = start(|text| text);
    let mut kept = Client::connect(&lab, ports.listen);
    let good = lab.ingester_text(ports);
    let reload = |text: &str, expected: &[&str]| {
        lab.write("edge.toml", text);
        node.signal(Signal::SIGHUP);
        wait_until(&format!("{expected:?}"), || {
            let status = node.get("/status").1;
            expected.iter().all(|part| status.contains(part))
        });
    };
    assert_eq!(status(&lab, ports, NEW), 404);
    let more = format!("{good}{}", endpoint(NEW, "github", "source", ""));
    reload(&more, &["generation 2 in force"]);
    wait_until("the new endpoint", || status(&lab, ports, NEW) == 202);
    assert_eq!(kept.ask(&github(NEW, b"{}", "")).status, 202, "connections stay, and see it");

    reload("[node\n", &["generation 2 in force; the last reload was refused", "edge.toml"]);
    let broken = change(&good, "secrets/standard", "secrets/no");
    reload(&broken, &["generation 2", "refused", "ingester.endpoints[1].secret_files", "0600"]);
    let other = Ports { listen: free_address(), ..ports };
    reload(&lab.ingester_text(other), &["generation 2", "listen addresses needs a restart"]);
    reload(&change(&more, "workers = 1", "workers = 2"), &["generation 2", "node.workers needs a restart"]);
    reload(&change(&more, "data_dir = \"edge\"", "data_dir = \"x\""), &["node.data_dir needs a restart"]);
    reload(&change(&more, "bytes_max = 33554432", "bytes_max = 67108864"), &["journal needs a restart"]);
    let egress = lab.egress_text(ports, free_address(), "");
    let both = format!("{more}{}", &egress[egress.find("[egress]").unwrap()..]);
    reload(&both, &["generation 2", "needs a restart"]);
    assert_eq!(status(&lab, ports, NEW), 202, "nothing of the refused ones is in force");
    assert_eq!(node.get("/readyz").0, 200);

    reload(&good, &["generation 3 in force"]);
    wait_until("the endpoint is gone", || status(&lab, ports, NEW) == 404);
    assert_eq!(kept.ask(&github(GITHUB, b"{}", "")).status, 202);
}

#[test]
fn a_changed_secret_takes_effect_with_a_reload() {
    let (lab, ports, node) = start(|text| text);
    assert_eq!(status(&lab, ports, GITHUB), 202);
    lab.write_private("secrets/source", "another secret of the source");
    node.signal(Signal::SIGHUP);
    wait_until("the old secret is refused", || status(&lab, ports, GITHUB) == 401);
}

#[test]
fn a_drain_finishes_what_is_under_way() {
    let (lab, ports, mut node) = start(|text| {
        let text = change(&text, "drain_timeout_ms = 5000", "drain_timeout_ms = 60000");
        let text = change(&text, "idle_timeout_ms = 5000", "idle_timeout_ms = 60000");
        change(&text, "request_timeout_ms = 1000", "request_timeout_ms = 60000")
    });
    let request = github(GITHUB, b"{\"half\":1}", "");
    let mut idle = Client::connect(&lab, ports.listen);
    assert_eq!(idle.ask(&request).status, 202);
    let mut busy = Client::connect(&lab, ports.listen);
    let request = github(GITHUB, b"{\"half\":2}", "");
    busy.send(&request[..request.len() - 4]);
    wait_until("two connections", || node.metric("zen_source_connections") as usize == 2);
    node.signal(Signal::SIGTERM);
    assert!(idle.is_closed(), "who has no request under way is closed, before the one that has is answered");
    let (code, text) = node.get("/readyz");
    assert!(code == 503 && text.contains("draining: true"), "{text}");
    assert_eq!(node.get("/healthz").0, 200);
    wait_until("no new connections", || TcpStream::connect(ports.listen).is_err());
    let answer = busy.ask(&request[request.len() - 4..]);
    assert_eq!((answer.status, answer.header("connection")), (202, Some("close")));
    let status = node.wait();
    assert!(status.success(), "{status}\n{}", node.log());
}

#[test]
fn a_drain_has_a_deadline() {
    let (lab, ports, mut node) = start(|text| {
        let text = change(&text, "drain_timeout_ms = 5000", "drain_timeout_ms = 300");
        change(&text, "request_timeout_ms = 1000", "request_timeout_ms = 20000")
    });
    let mut busy = Client::connect(&lab, ports.listen);
    busy.send(&github(GITHUB, b"{}", "")[..50]);
    wait_until("one connection", || node.metric("zen_source_connections") as usize == 1);
    let start = Instant::now();
    assert_eq!(node.terminate().code(), Some(1));
    assert!((300..2000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    node.wait_log("drain deadline");
}

#[test]
fn a_data_directory_has_one_node() {
    let (lab, ports, node) = start(|text| text);
    let second =
        lab.write("second.toml", &change(&lab.ingester_text(Ports::pick()), "edge.sock", "second.sock"));
    let output = run(&["--config", second.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another node is using this data directory"), "{said}");
    assert_eq!(status(&lab, ports, GITHUB), 202, "the first one does not notice");
    assert_eq!(node.get("/readyz").0, 200);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let lab = Lab::new();
    let ports = Ports::pick();
    let text = lab.ingester_text(ports);
    for (key, address) in [("", ports.listen), ("", ports.link), ("admin.listen", ports.admin)] {
        let _taken = std::net::TcpListener::bind(address).unwrap();
        let file = lab.write("edge.toml", &text);
        let output = run(&["--config", file.to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&address.to_string()) && said.contains(key), "{said}");
    }
}
