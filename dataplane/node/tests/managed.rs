//! Nodes whose configuration an agent publishes: generations are taken whole, by a link that is not followed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use agent::{Agent, managed_text, with_deny_list};
use mesh::{Mesh, delivered, distinct, numbered, send, target};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::client::{Client, github, link_config};
use support::node::{Node, post, post_unix, run, wait_until};
use support::pki::{Authority, TRUST_DOMAIN};
use support::{GITHUB, Lab, Ports, change, endpoint};
use target::{Answer, Target};

#[path = "support/agent.rs"]
mod agent;
#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const NEW: &str = "00000000000000000000000000000004";
const DENIED: &str = "{\"version\":1,\"entries\":[{\"serial\":\"00\"}]}";
/// So rarely that a test never sees it.
const NO_POLL: (&str, &str) = ("reload_poll_ms = 100", "reload_poll_ms = 3600000");

/// What is wrong, the configuration, what is done to the generation, and what is said.
type Bad<'a> = (&'a str, String, &'a dyn Fn(&Path), &'a str);

/// A path whose ingester takes its configuration from an agent: generation 1.
fn managed_mesh() -> (Mesh, Agent, Target) {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let (edge_ports, inside_ports) = (Ports::pick(), Ports::pick());
    let edge_text = managed_text(&lab, &lab.ingester_text(edge_ports));
    let section = lab.target_text("demo", target.address, "");
    let inside_text = lab.egress_text(inside_ports, edge_ports.link, &section);
    let agent = Agent::new(&lab);
    agent.publish_and_lead(&lab, 1, "edge", &edge_text);
    let edge = Node::start_managed(&agent.directory, edge_ports.admin);
    let inside = lab.start("inside", inside_ports, &inside_text);
    (Mesh { edge, inside, edge_ports, inside_ports, edge_text, inside_text, lab }, agent, target)
}

/// An ingester alone, with generation 1; only orders reload it.
fn managed_node() -> (Lab, Agent, Ports, String, Node) {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let text = change(&managed_text(&lab, &lab.ingester_text(ports)), NO_POLL.0, NO_POLL.1);
    let agent = Agent::new(&lab);
    agent.publish_and_lead(&lab, 1, "edge", &text);
    let node = Node::start_managed(&agent.directory, ports.admin);
    (lab, agent, ports, text, node)
}

fn reload(socket: &Path) -> (u16, Value) {
    let (status, body) = post_unix(socket, "/reload", "").unwrap();
    (status, serde_json::from_str(&body).unwrap())
}

/// The reason of a refusal.
fn refused(socket: &Path) -> String {
    let (status, problem) = reload(socket);
    assert_eq!((status, &problem["status"]), (409, &Value::from(409)), "{problem}");
    problem["detail"].as_str().unwrap().to_owned()
}

/// The certificate that the node shows on its links.
fn leaf(lab: &Lab, ports: Ports) -> Vec<u8> {
    let config = link_config(&lab.path("pki/inside.pem"), &lab.path("pki/inside.key"));
    let client = Client::connect_with(&config, ports.link).unwrap();
    client.tls.conn.peer_certificates().unwrap()[0].to_vec()
}

fn status_line(node: &Node) -> String {
    node.get("/status").1.lines().next().unwrap().to_owned()
}

fn answer(lab: &Lab, ports: Ports, endpoint: &str) -> u16 {
    Client::connect(lab, ports.listen).ask(&github(endpoint, b"{}", "")).status
}

#[test]
fn a_generation_is_loaded_and_shown() {
    let (lab, agent, ports, _, node) = managed_node();
    assert_eq!(status_line(&node), "generation 1 in force, of the managed generation 1");
    assert_eq!(node.metric("zen_managed_generation") as u64, 1);
    node.wait_log("a managed generation is in force managed=1");
    assert_eq!(answer(&lab, ports, GITHUB), 202);

    let directory = agent.directory.to_str().unwrap();
    let checked = run(&["--managed", directory, "--check-config"]);
    assert!(checked.status.success(), "{checked:?}");
    assert!(String::from_utf8(checked.stdout).unwrap().contains("gen-1/node.toml: good"), "what was checked");
    let printed = run(&["--managed", directory, "--print-config"]);
    let printed: toml::Table = String::from_utf8(printed.stdout).unwrap().parse().unwrap();
    assert_eq!(printed["identity"]["certificate_file"].as_str(), Some("svid.pem"));
    for both in [&["--managed", directory, "--config", "x"][..], &["--check-config"]] {
        assert_eq!(run(both).status.code(), Some(2), "{both:?}: one of both");
    }
}

#[test]
fn a_generation_brings_its_configuration_and_certificate_and_no_link_is_lost() {
    let (mesh, agent, target) = managed_mesh();
    let first = leaf(&mesh.lab, mesh.edge_ports);
    let mut ids = mesh.send_many(5, 200);
    target.wait(5);

    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, mut source) = (Arc::clone(&stop), mesh.source());
    let sender = thread::spawn(move || {
        let mut ids = Vec::new();
        while !stopped.load(Ordering::Acquire) {
            ids.push(send(&mut source, GITHUB, &numbered(100 + ids.len(), 200)));
        }
        ids
    });
    for number in 2..=4 {
        let svid = format!("edge-{number}");
        mesh.lab.svid(&svid, "ingester/edge");
        let more = endpoint(NEW, "github", "source", "")
            .replace("\"secrets/", &format!("\"{}/", mesh.lab.path("secrets").display()));
        let text = if number == 4 { mesh.edge_text.clone() } else { format!("{}{more}", mesh.edge_text) };
        agent.publish_and_lead(&mesh.lab, number, &svid, &text);
        wait_until("the poll takes it", || mesh.edge.metric("zen_managed_generation") as u64 == number);
        let expected = format!("generation {number} in force, of the managed generation {number}");
        assert_eq!(status_line(&mesh.edge), expected);
        wait_until("its endpoints", || {
            answer(&mesh.lab, mesh.edge_ports, NEW) == if number == 4 { 404 } else { 202 }
        });
        let pem = fs::read_to_string(mesh.lab.path(&format!("pki/{svid}.pem"))).unwrap();
        assert_eq!(leaf(&mesh.lab, mesh.edge_ports), der(&pem), "its certificate");
        fs::remove_dir_all(agent.directory.join(format!("gen-{}", number - 1))).unwrap();
    }
    stop.store(true, Ordering::Release);
    ids.extend(sender.join().unwrap());
    ids.extend(mesh.send_many(5, 300));
    let ids = distinct(ids);
    wait_until("everything is delivered", || {
        let delivered = delivered(&target.deliveries());
        ids.iter().all(|id| delivered.binary_search(id).is_ok())
    });
    assert_ne!(leaf(&mesh.lab, mesh.edge_ports), first);
    assert_eq!(mesh.inside.metric("zen_link_connects_total") as u64, 1, "one link, all the time");
    assert!(!mesh.edge.log().contains("not reloaded"), "what the agent removed is not looked for");
}

fn der(pem: &str) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject as _;
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[test]
fn a_bad_generation_changes_nothing_but_the_status() {
    let (lab, agent, ports, text, node) = managed_node();
    let socket = lab.path("edge.sock");
    let shown = leaf(&lab, ports);
    lab.svid("next", "ingester/edge");
    let stranger = Authority::new("Another CA").svid("ingester/edge");
    let listed = with_deny_list(&text, Path::new("deny.json"));
    let missing =
        |name: &'static str| move |generation: &Path| fs::remove_file(generation.join(name)).unwrap();
    let good_list = listed.clone();
    let table: [Bad<'_>; 10] = [
        ("no configuration", text.clone(), &missing("node.toml"), "node.toml: No such file"),
        ("no TOML", format!("{text}["), &|_| {}, "see docs/configuration.md for the keys"),
        ("no certificate", text.clone(), &missing("svid.pem"), "svid.pem: No such file"),
        ("no public certificate", text.clone(), &missing("public.pem"), "public.pem: No such file"),
        (
            "another CA",
            text.clone(),
            &|generation| {
                fs::write(generation.join("svid.pem"), &stranger.certificate).unwrap();
            },
            "no root of the leaf's trust domain issued this chain",
        ),
        ("no deny list", listed.clone(), &|_| {}, "identity.deny_list_file"),
        (
            "a bad deny list",
            listed,
            &|generation| fs::write(generation.join("deny.json"), "{\"version\":2,\"entries\":[]}").unwrap(),
            "version is not 1",
        ),
        (
            "a good deny list, and a fault",
            change(&good_list, "workers = 1", "workers = 65"),
            &|generation| fs::write(generation.join("deny.json"), DENIED).unwrap(),
            "node.workers",
        ),
        (
            "data in the generation",
            change(&text, &format!("data_dir = \"{}\"", lab.path("edge").display()), "data_dir = \"edge\""),
            &|_| {},
            "node.data_dir: edge would be in the directory of a generation",
        ),
        (
            "a key that stays",
            change(&text, "name = \"edge\"", "name = \"west\""),
            &|_| {},
            "node.name needs a restart",
        ),
    ];
    for (number, (name, text, edit, reason)) in (2..).zip(table) {
        let generation = agent.publish(&lab, number, "next", &text);
        edit(&generation);
        agent.lead(&format!("gen-{number}"));
        let said = refused(&socket);
        assert!(said.contains(reason), "{name}: {said}");
        let status = node.get("/status").1;
        let kept = "generation 1 in force, of the managed generation 1; the last reload was refused: ";
        assert!(status.starts_with(kept) && status.contains(reason), "{name}: {status}");
        assert_eq!(node.metric("zen_managed_generation") as u64, 1, "{name}");
        assert_eq!(node.metric("zen_reloads_refused_total") as u64, number - 1, "{name}");
        assert_eq!(node.metric("zen_deny_list_entries") as u64, 0, "{name}");
        assert_eq!(leaf(&lab, ports), shown, "{name}");
        assert_eq!(answer(&lab, ports, GITHUB), 202, "{name}");
    }
    assert_eq!(node.metric("zen_deny_list_refused_total") as u64, 2);
    agent.publish_and_lead(&lab, 90, "next", &text);
    assert_eq!(reload(&socket), (200, serde_json::json!({ "applied": 2, "managed": 90 })));
    assert_ne!(leaf(&lab, ports), shown);
    assert_eq!(status_line(&node), "generation 2 in force, of the managed generation 90");
}

#[test]
fn a_link_that_leads_elsewhere_is_not_followed() {
    let (lab, agent, _, text, node) = managed_node();
    let socket = lab.path("edge.sock");
    let absolute = agent.publish(&lab, 2, "edge", &text);
    fs::rename(&absolute, lab.path("outside")).unwrap();
    symlink(lab.path("outside"), agent.directory.join("gen-3")).unwrap();
    symlink(lab.path("outside"), agent.directory.join("gen-x")).unwrap();
    symlink(lab.path("outside"), agent.directory.join("gen-01")).unwrap();
    let outside = lab.path("outside");
    for (target, reason) in [
        ("../outside", "it must lead to gen-NUMBER beside it"),
        (outside.to_str().unwrap(), "it must lead to gen-NUMBER beside it"),
        ("gen-x", "it must lead to gen-NUMBER beside it"),
        ("gen-01", "it must lead to gen-NUMBER beside it"),
        ("gen-1/../gen-1", "it must lead to gen-NUMBER beside it"),
        ("gen-3", "publish a generation whole before the link leads to it"),
        ("gen-4", "publish a generation whole before the link leads to it"),
    ] {
        agent.lead(target);
        let said = refused(&socket);
        assert!(said.contains(reason), "{target}: {said}");
        assert_eq!(node.metric("zen_managed_generation") as u64, 1, "{target}");
        let started = run(&["--managed", agent.directory.to_str().unwrap(), "--check-config"]);
        let said = String::from_utf8(started.stderr).unwrap();
        assert!(!started.status.success() && said.contains(reason), "{target}: {said}");
    }
    fs::remove_file(agent.directory.join("current")).unwrap();
    assert!(refused(&socket).contains("let the agent publish a generation there"));
    fs::create_dir(agent.directory.join("current")).unwrap();
    assert!(refused(&socket).contains("let the agent publish a generation there"), "a directory is no link");
    fs::remove_dir(agent.directory.join("current")).unwrap();
    agent.lead("gen-1");
    assert_eq!(reload(&socket), (200, serde_json::json!({ "applied": 2, "managed": 1 })));
}

#[test]
fn the_poll_says_once_what_it_cannot_take_and_goes_on_looking() {
    let (mesh, agent, _target) = managed_mesh();
    agent.lead("../elsewhere");
    let refusals = || mesh.edge.log().matches("configuration refused, generation 1 stays").count();
    wait_until("several polls", || mesh.edge.metric("zen_reloads_refused_total") as u64 > 3);
    assert_eq!(refusals(), 1, "{}", mesh.edge.log());
    agent.publish_and_lead(&mesh.lab, 2, "edge", &format!("{}[", mesh.edge_text));
    wait_until("the next is refused", || refusals() == 2);
    agent.publish_and_lead(&mesh.lab, 3, "edge", &mesh.edge_text);
    wait_until("the one after is taken", || mesh.edge.metric("zen_managed_generation") as u64 == 3);
}

#[test]
fn a_signal_takes_the_next_generation() {
    let (lab, agent, _, text, node) = managed_node();
    agent.publish_and_lead(&lab, 2, "edge", &text);
    node.signal(Signal::SIGHUP);
    wait_until("it is taken", || status_line(&node) == "generation 2 in force, of the managed generation 2");
}

#[test]
fn a_generation_brings_its_deny_list() {
    let (mesh, agent, target) = managed_mesh();
    mesh.send(b"{}");
    target.wait(1);
    let listed = with_deny_list(&mesh.edge_text, Path::new("deny.json"));
    let generation = agent.publish(&mesh.lab, 2, "edge", &listed);
    let id = format!("spiffe://{TRUST_DOMAIN}/egress/inside");
    let list = format!("{{\"version\":1,\"entries\":[{{\"spiffe_id\":\"{id}\"}}]}}");
    fs::write(generation.join("deny.json"), list).unwrap();
    agent.lead("gen-2");
    mesh.edge.wait_metric("zen_link_errors_total{reason=\"denied\"}", 1.0);
    assert_eq!(mesh.edge.metric("zen_deny_list_entries") as u64, 1);
    let id = mesh.send(b"{\"while\":\"denied\"}");
    agent.publish_and_lead(&mesh.lab, 3, "edge", &mesh.edge_text);
    wait_until("the link is back", || delivered(&target.deliveries()).contains(&id));
    assert_eq!(mesh.edge.metric("zen_deny_list_entries") as u64, 0);
}

#[test]
fn an_order_to_reload_a_file_is_answered() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let text = change(&lab.ingester_text(ports), NO_POLL.0, NO_POLL.1);
    let node = lab.start("edge", ports, &text);
    let socket = lab.path("edge.sock");
    assert_eq!(reload(&socket), (200, serde_json::json!({ "applied": 2, "managed": null })));
    assert_eq!(post_unix(&socket, "/reload", "{}").unwrap().0, 200);
    assert_eq!(post_unix(&socket, "/reload", "{\"force\":true}").unwrap().0, 400);
    assert_eq!(post(ports.admin, "/reload").unwrap().0, 404, "loopback only reads");
    node.wait_log("audit: an order to reload uid=0");

    let command = ["reload", "--socket", socket.to_str().unwrap()];
    let said = run(&command);
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "generation 4 in force\n");
    let said = run(&[&command[..], &["--json"]].concat());
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "{\"applied\":5,\"managed\":null}\n");
    lab.write("edge.toml", &change(&text, "secrets/standard", "secrets/no"));
    assert!(refused(&socket).contains("ingester.endpoints[1].secret_files"));
    let said = run(&command);
    let reason = String::from_utf8(said.stderr).unwrap();
    assert!(
        !said.status.success() && reason.contains("refused (409)") && reason.contains("secrets/no"),
        "{reason}"
    );
    assert_eq!(status_line(&node).split(';').next(), Some("generation 5 in force"));
    lab.write("edge.toml", &change(&text, "pki/edge.pem", "pki/inside.pem"));
    assert!(
        refused(&socket).contains("certificate file paths needs a restart"),
        "a file of a node is not managed"
    );
}
