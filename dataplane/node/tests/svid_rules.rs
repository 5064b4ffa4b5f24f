//! Every rule for X.509-SVIDs at every mutual TLS hop of a node: a peer that breaks one of them is refused, for that reason,
//! whoever of the two dials; the peer that is one change away from it is taken.
//!
//! What a target thinks of the node's certificate is the target's. What a node shows itself has passed the same table.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, TcpListener};

use mesh::{egress_alone, ingester_dials, send};
use support::client::Client;
use support::node::{Node, run, wait_until};
use support::pki::TRUST_DOMAIN;
use support::{GITHUB, Lab, Ports, change, free_address};
use zen_svid_faults::{BUNDLE_FAULTS, Domain, FAULTS, Heard, Shown, dial, meet};

#[path = "support/agent.rs"]
mod agent;
#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const LINK: &[u8] = b"zen-link/1";
/// Not a frame: whoever let the peer in says so inside TLS.
const WORDS: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// A lab whose nodes take SVIDs of a domain with faults in its gift, and deny whom it denies.
struct Site {
    lab: Lab,
    domain: Domain,
}

impl Site {
    /// `peer` is the path of the peer that is not a node.
    fn new(peer: &str) -> Self {
        let site = Self { lab: Lab::new(), domain: Domain::new(TRUST_DOMAIN) };
        site.lab.write("pki/bundle.pem", &site.domain.bundle());
        for (node, path) in [("edge", "ingester/edge"), ("inside", "egress/inside")] {
            site.show(node, &site.domain.good(path));
        }
        site.lab.write("denied.json", &site.domain.denied(peer).document());
        site
    }

    /// Replaces a node's own files.
    fn show(&self, node: &str, shown: &Shown) {
        self.lab.write(&format!("pki/{node}.pem"), &shown.chain);
        self.lab.write_private(&format!("pki/{node}.key"), &shown.key);
    }

    /// `text` with the deny list, short pauses, and the id that is denied by name among those that are allowed.
    fn edit(&self, text: &str, peer: &str) -> String {
        let id = self.domain.id(peer);
        let text = agent::with_deny_list(text, &self.lab.path("denied.json"));
        let text = change(&text, "log = \"info\"", "log = \"info\"\nlink_pause_ms_max = 100");
        change(&text, &format!("[\"{id}\"]"), &format!("[\"{id}\", \"{id}-denied\"]"))
    }
}

/// Shows the good chain, then each with a fault, then the good one again; `hop` shows one to the node.
fn each_is_refused(site: &Site, peer: &str, node: &Node, hop: impl Fn(&Shown) -> Heard) {
    let good = site.domain.good(peer);
    let heard = hop(&good);
    assert!(heard.is_taken(), "the good one: {heard:?}\n{}", node.log());
    for fault in FAULTS {
        let before = node.log().matches(fault.reason).count();
        let heard = hop(&fault.make(&site.domain, peer));
        assert!(!heard.is_taken(), "rule {}, {}: {heard:?}", fault.rule, fault.name);
        wait_until(&format!("rule {}, {}: \"{}\" in the log", fault.rule, fault.name, fault.reason), || {
            node.log().matches(fault.reason).count() > before
        });
    }
    let heard = hop(&good);
    assert!(heard.is_taken(), "the good one, again: {heard:?}\n{}", node.log());
}

fn count(denials: bool) -> usize {
    FAULTS.iter().filter(|fault| fault.is_denial() == denials).count()
}

fn check_link_counters(node: &Node) {
    assert!(node.metric("zen_link_errors_total{reason=\"tls\"}") as usize >= count(false));
    assert!(node.metric("zen_link_errors_total{reason=\"denied\"}") as usize >= count(true));
    assert_eq!(node.metric("zen_link_connects_total") as usize, 0, "nobody got as far as events");
}

/// The link listener of the ingester; the egress is the test.
#[test]
fn an_ingester_that_is_dialled_refuses_each() {
    let (peer, ports) = ("egress/inside", Ports::pick());
    let site = Site::new(peer);
    let node = site.lab.start("edge", ports, &site.edit(&site.lab.ingester_text(ports), peer));
    each_is_refused(&site, peer, &node, |shown| dial(ports.link, shown, LINK, WORDS));
    check_link_counters(&node);
}

/// The link listener of the egress; the ingester is the test.
#[test]
fn an_egress_that_is_dialled_refuses_each() {
    let peer = "ingester/edge";
    let site = Site::new(peer);
    let (node, ports) = egress_alone(&site.lab, "", |text| site.edit(text, peer));
    each_is_refused(&site, peer, &node, |shown| dial(ports.link, shown, LINK, WORDS));
    check_link_counters(&node);
}

fn listener() -> (TcpListener, SocketAddr) {
    let address = free_address();
    (TcpListener::bind(address).unwrap(), address)
}

/// The egress dials the test.
#[test]
fn an_egress_that_dials_refuses_each() {
    let (peer, ports) = ("ingester/edge", Ports::pick());
    let site = Site::new(peer);
    let (listener, address) = listener();
    let text = site.edit(&site.lab.egress_text(ports, address, ""), peer);
    let node = site.lab.start("inside", ports, &text);
    each_is_refused(&site, peer, &node, |shown| meet(&listener, shown, LINK));
    check_link_counters(&node);
}

/// The ingester dials the test.
#[test]
fn an_ingester_that_dials_refuses_each() {
    let (peer, ports) = ("egress/inside", Ports::pick());
    let site = Site::new(peer);
    let (listener, address) = listener();
    let inside = site.lab.egress_text(Ports::pick(), ports.link, "");
    let (text, _) = ingester_dials(&site.lab.ingester_text(ports), &inside, address, ports.link);
    let node = site.lab.start("edge", ports, &site.edit(&text, peer));
    each_is_refused(&site, peer, &node, |shown| meet(&listener, shown, LINK));
    check_link_counters(&node);
}

/// Retries of one delivery, as many as there are chains; attempts fail, and the target is not left alone for it.
const RETRIES: &str = "retry = { first_ms = 100, factor = 1.0, max_ms = 100, attempts_max = 100 }
retry_jitter_percent = 0
breaker = { enabled = false }";

/// The egress dials a target, which is the test.
#[test]
fn an_egress_refuses_each_of_a_target() {
    let peer = "target/demo";
    let site = Site::new(peer);
    let (listener, address) = listener();
    let (edge_ports, inside_ports) = (Ports::pick(), Ports::pick());
    let section = site.lab.target_text("demo", address, RETRIES);
    let text = site.lab.egress_text(inside_ports, edge_ports.link, &section);
    let _edge = site.lab.start("edge", edge_ports, &site.lab.ingester_text(edge_ports));
    let node = site.lab.start("inside", inside_ports, &site.edit(&text, peer));
    send(&mut Client::connect(&site.lab, edge_ports.listen), GITHUB, b"{}");
    each_is_refused(&site, peer, &node, |shown| meet(&listener, shown, b"http/1.1"));
    let refused = node.metric("zen_deliveries_total{outcome=\"tls_failed\"}") as usize;
    assert!(refused >= FAULTS.len(), "{refused}");
    assert!(node.metric("zen_peers_denied_total") as usize >= count(true));
}

/// Rule 21: a node does not begin with such a chain of its own, nor with such a bundle, and does not change to one.
#[test]
fn a_node_takes_no_such_chain_and_no_such_bundle_for_its_own() {
    let ports = Ports::pick();
    let site = Site::new("egress/inside");
    let mut node = site.lab.start("edge", ports, &site.lab.ingester_text(ports));
    let config = site.lab.path("edge.toml");
    let checked = || run(&["--config", config.to_str().unwrap(), "--check-config"]);
    let refused = |rule: u8, name: &str, reason: &str, node: &Node| {
        let output = checked();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!output.status.success() && said.contains(reason), "rule {rule}, {name}: {said}");
        node.wait_log(reason);
    };
    for fault in FAULTS.iter().filter(|fault| !fault.is_denial()) {
        site.show("edge", &fault.make(&site.domain, "ingester/edge"));
        refused(fault.rule, fault.name, fault.reason, &node);
    }
    site.show("edge", &site.domain.good("ingester/edge"));
    for fault in BUNDLE_FAULTS {
        site.lab.write("pki/bundle.pem", &fault.make(&site.domain));
        refused(fault.rule, fault.name, fault.reason, &node);
    }
    site.lab.write("pki/bundle.pem", &site.domain.bundle());
    assert!(checked().status.success(), "{:?}", checked());
    let heard = dial(ports.link, &site.domain.good("egress/inside"), LINK, WORDS);
    assert!(heard.is_taken(), "what it had from the start is in force: {heard:?}");
    assert!(node.terminate().success());
}
