//! Memory: what a configuration can use is computed, refused when it is too much, and held to when
//! every bound is filled. Resident memory is read from the node itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mesh::{Mesh, delivered, numbered, send};
use support::client::{Client, github, github_head, source_config};
use support::node::{Node, PATIENCE, run, wait_until};
use support::{GITHUB, Lab, Ports, change};
use target::Answer;

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const MIB: usize = 1 << 20;

/// What a check of `text` prints, and what it complains about.
fn check(lab: &Lab, text: &str) -> (String, String) {
    let file = lab.write("checked.toml", text);
    let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// `at most N MiB` of a check.
fn bound_mib(said: &str) -> u64 {
    let line = said.lines().find(|line| line.starts_with("memory: at most ")).expect("the last line");
    line.split(' ').nth(3).unwrap().parse().unwrap()
}

/// The size of one of an item, bytes.
fn item_bytes(said: &str, name: &str) -> u64 {
    let row = said.lines().find(|line| line.starts_with(name)).expect("the item's row");
    row[name.len()..].split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// An ingester and an egress in one node, with defaults for whatever the lab does not need.
fn both(lab: &Lab, workers: u16) -> String {
    let ports = Ports::pick();
    let text = lab.ingester_text(ports);
    let text = change(&text, "workers = 1\n", &format!("workers = {workers}\n"));
    let journal = text.split("[journal]\n").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    let text = change(&text, &journal, "");
    let egress = lab.egress_text(Ports::pick(), ports.link, &lab.target_text("demo", ports.admin, ""));
    text + &egress[egress.find("[egress]").unwrap()..]
}

/// Resident memory is below the bound, and both are told.
fn assert_within_bound(node: &Node) -> f64 {
    let (resident, bound) = (node.metric("zen_memory_resident_bytes"), node.metric("zen_memory_bound_bytes"));
    assert!(resident > 1e6 && resident < bound, "{resident} of {bound} bytes are resident");
    resident
}

#[test]
fn the_defaults_fit_and_what_does_not_is_refused_with_the_keys_to_lower() {
    let lab = Lab::new();
    let unlimited =
        |workers| change(&both(&lab, workers), "[node]\n", "[node]\nmemory_bytes_max = 8589934592\n");
    println!("{}{}", check(&lab, &unlimited(2)).0, check(&lab, &unlimited(64)).0);
    let (said, complaint) = check(&lab, &both(&lab, 2));
    assert!(complaint.is_empty(), "{complaint}");
    assert!(said.ends_with("(limit 512 MiB)\n") && bound_mib(&said) <= 512, "{said}");
    let two = bound_mib(&said);

    let small = change(&both(&lab, 2), "[node]\n", "[node]\nmemory_bytes_max = 134217728\n");
    let (_, complaint) = check(&lab, &small);
    for part in
        ["node.memory_bytes_max", &format!("{two} MiB may be used, 128 MiB are allowed"), "egress.events_max"]
    {
        assert!(complaint.contains(part), "{part} in: {complaint}");
    }

    let (said, _) = check(&lab, &unlimited(64));
    let links_mib = 2 * 64 * item_bytes(&said, "links") / MIB as u64;
    let many = bound_mib(&said) - links_mib;
    assert!(many < 10 * two, "what the node shares is not multiplied: {two} MiB, then {many} MiB");
    let (_, complaint) = check(&lab, &both(&lab, 64));
    assert!(complaint.contains("node.workers"), "{complaint}");
}

#[test]
fn links_are_enough_for_the_peers_or_the_configuration_is_refused() {
    let lab = Lab::new();
    let with = |workers, links: &str| {
        let text = change(&both(&lab, workers), "[node]\n", "[node]\nmemory_bytes_max = 8589934592\n");
        change(&text, "[node]\n", &format!("[node]\n{links}"))
    };
    let (said, complaint) = check(&lab, &with(9, ""));
    assert!(complaint.is_empty() && item_bytes(&said, "links") > 0, "{said}{complaint}");
    let (_, complaint) = check(&lab, &with(9, "links_max = 9\n"));
    assert!(complaint.contains("node.links_max") && complaint.contains("give 10 at least"), "{complaint}");
    let (_, complaint) = check(&lab, &with(9, "links_max = 10\n"));
    assert!(complaint.is_empty(), "{complaint}");
}

#[test]
fn idle_connections_cost_what_is_computed_and_one_more_is_closed() {
    const CONNECTIONS: usize = 1500;
    const WARM: usize = 250;
    let (lab, ports) = (Lab::new(), Ports::pick());
    let text = change(&lab.ingester_text(ports), "[ingester]\n", "[ingester]\nconnections_max = 1500\n");
    let text = change(&text, "idle_timeout_ms = 5000", "idle_timeout_ms = 60000");
    let one = item_bytes(&check(&lab, &text).0, "source connections");
    let node = lab.start("edge", ports, &text);
    let mut first = Client::connect(&lab, ports.listen);
    assert_eq!(first.ask(&github(GITHUB, b"{}", "")).status, 202);
    // What the allocator keeps in reserve for a thread is not a connection's.
    let _warm: Vec<Client> = (1..WARM).map(|_| Client::connect(&lab, ports.listen)).collect();
    let before = assert_within_bound(&node);
    let idle: Vec<Client> = (WARM..CONNECTIONS).map(|_| Client::connect(&lab, ports.listen)).collect();
    assert!(Client::connect_with(&source_config(&lab), ports.listen).is_err(), "one more is closed");
    assert_eq!(node.metric("zen_requests_refused_total{reason=\"connections\"}") as usize, 1);
    let each = (assert_within_bound(&node) - before) / idle.len() as f64;
    println!("an idle connection takes {each:.0} bytes, {one} are counted");
    assert!(each < one as f64, "{each} bytes, {one} are counted");
    assert_eq!(first.ask(&github(GITHUB, b"{}", "")).status, 202);
}

#[test]
fn heads_and_bodies_count_against_one_bound_and_the_rest_goes_on() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let text = change(&lab.ingester_text(ports), "request_timeout_ms = 1000", "request_timeout_ms = 60000");
    let text = change(&text, "[ingester]\n", "[ingester]\nbody_memory_bytes_max = 4194304\n");
    let node = lab.start("edge", ports, &text);
    let mut steady = Client::connect(&lab, ports.listen);
    let head = github_head(GITHUB, b"", &format!("x-padding: {}\r\ncontent-length: 1", "x".repeat(30_000)));
    let mut kept = Vec::new();
    while node.metric("zen_requests_refused_total{reason=\"body_memory\"}") < 1.0 {
        assert!(kept.len() < 300, "30 KB each are never 4 MiB");
        let mut client = Client::connect(&lab, ports.listen);
        client.send(&head.as_bytes()[..head.len() - 4]);
        kept.push(client);
        assert_eq!(steady.ask(&github(GITHUB, b"", "")).status, 202, "small requests go on");
    }
    let answer = kept.pop().unwrap().answer();
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
    assert_within_bound(&node);
    drop(kept);
    wait_until("room again", || {
        let body = vec![b'a'; MIB];
        let mut client = Client::connect(&lab, ports.listen);
        client.try_send(&github(GITHUB, &body, "")).is_ok()
            && client.try_answer().is_ok_and(|answer| answer.status == 202)
    });
}

#[test]
fn a_target_that_hangs_fills_its_share_then_the_journals_then_sources_get_503() {
    let lab = Lab::new();
    let slow = mesh::target(&lab, "demo", |_, _| Answer::status(200).after(Duration::from_mins(1)));
    let quick = mesh::target(&lab, "demo", |_, _| Answer::status(200));
    let sections = lab.target_text("demo", slow.address, "attempt_timeout_ms = 600000")
        + &lab.target_text("quick", quick.address, "");
    let edge = |text: &str| {
        let flow =
            "endpoint = \"00000000000000000000000000000002\"\negress = \"inside\"\ntargets = [\"demo\"]";
        change(text, flow, &flow.replace("demo", "quick"))
    };
    let inside = |text: &str| {
        let keys = "[egress]\ncached_bytes_max = 2097152\nattempt_memory_bytes_max = 4194304\n";
        change(text, "[egress]\n", keys)
    };
    let mesh = Mesh::start_with(lab, &sections, edge, inside);
    let mut source = mesh.source();
    let mut accepted = Vec::new();
    let refused = loop {
        let answer = source.ask(&github(GITHUB, &numbered(accepted.len(), MIB), ""));
        if answer.status != 202 {
            break answer;
        }
        accepted.push(answer.json()["id"].as_str().unwrap().to_owned());
        assert!(accepted.len() < 200, "two journals of 32 MiB are never full");
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(accepted.len() > 20, "only {} were accepted", accepted.len());
    assert!(slow.busy_max() <= 2, "{} attempts of 1 MiB are over the target's share", slow.busy_max());
    assert_within_bound(&mesh.edge);
    assert_within_bound(&mesh.inside);
    slow.script(|_, _| Answer::status(200));
    drop(quick);
}

#[test]
fn deliveries_over_the_bound_wait_at_the_ingester() {
    let section = "attempt_timeout_ms = 600000\nin_flight_max = 1";
    let lab = Lab::new();
    let target = mesh::target(&lab, "demo", |_, _| Answer::status(404));
    let sections =
        lab.target_text("demo", target.address, &format!("{section}\nretry_schedule_ms = [600000]"));
    let inside = |text: &str| change(text, "[egress]\n", "[egress]\nevents_max = 1000\n");
    let mesh = Mesh::start_with(lab, &sections, str::to_owned, inside);
    let ids = mesh.send_many(1500, 64);
    mesh.inside.wait_metric("zen_events_live", 1000.0);
    wait_until("attempts at all of them", || mesh.inside.metric("zen_retries_total") as usize >= 1000);
    assert_eq!(mesh.inside.metric("zen_events_live") as usize, 1000, "of {}", ids.len());
    mesh.edge.wait_metric("zen_link_lag_events", 499.0);
    assert_within_bound(&mesh.inside);
}

#[test]
fn dead_letters_are_kept_up_to_the_bound() {
    let lab = Lab::new();
    let target = mesh::target(&lab, "demo", |_, _| Answer::status(500));
    let sections =
        lab.target_text("demo", target.address, "retry_schedule_ms = []\nbreaker = { enabled = false }");
    let inside = |text: &str| change(text, "[egress]\n", "[egress]\ndead_letters_max = 10\n");
    let mesh = Mesh::start_with(lab, &sections, str::to_owned, inside);
    mesh.send_many(50, 64);
    mesh.inside.wait_metric("zen_dead_letters_dropped_total", 40.0);
    wait_until("ten are kept", || mesh.inside.metric("zen_dead_letters_kept") as usize == 10);
    target.script(|_, _| Answer::status(200));
    let id = mesh.send(b"{}");
    wait_until("the rest goes on", || delivered(&target.deliveries()).contains(&id));
    assert_within_bound(&mesh.inside);
}

#[test]
fn a_handshake_that_never_ends_is_closed() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let node = lab.start("edge", ports, &lab.ingester_text(ports));
    let mut socket = TcpStream::connect(ports.listen).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // A ClientHello that says 60,000 bytes, in records of 8,000.
    let mut first = vec![22, 3, 1, 0x1f, 0x40, 1, 0, 0xea, 0x60];
    first.resize(5 + 8000, 0);
    let mut more = vec![22, 3, 1, 0x1f, 0x40];
    more.resize(5 + 8000, 0);
    socket.write_all(&first).unwrap();
    for _ in 0..5 {
        let _ = socket.write_all(&more);
    }
    let closed = matches!(socket.read_to_end(&mut Vec::new()), Ok(_) | Err(_));
    assert!(closed);
    node.wait_metric("zen_requests_refused_total{reason=\"tls\"}", 1.0);
    let mut source = Client::connect(&lab, ports.listen);
    send(&mut source, GITHUB, b"{}");
    assert_within_bound(&node);
}

#[test]
fn peers_that_do_not_say_who_they_are_and_admin_connections_are_bounded() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let node = lab.start("edge", ports, &lab.ingester_text(ports));
    let strangers: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(ports.link).unwrap()).collect();
    node.wait_metric("zen_link_errors_total{reason=\"handshakes\"}", 8.0);
    drop(strangers);
    let waiting: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(ports.admin).unwrap()).collect();
    let mut last = waiting.last().unwrap();
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(last.read(&mut [0; 1]).unwrap_or(0), 0, "one too many is closed");
    drop(waiting);
    wait_until("admin answers again", || {
        support::node::get_unix(&lab.path("edge.sock"), "/healthz").is_some()
    });
    assert!(node.metric("zen_admin_refused_total") >= 4.0);
    assert_within_bound(&node);
}
