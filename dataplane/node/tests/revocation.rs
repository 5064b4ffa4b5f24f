//! A deny list of a running node: handshakes are refused, connections end, and nothing that waits is lost.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent::with_deny_list;
use aws_lc_rs::digest::{SHA256, digest};
use mesh::{Mesh, delivered, ingester_dials, target};
use nix::sys::signal::Signal;
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use support::node::{Node, run, wait_until};
use support::pki::TRUST_DOMAIN;
use support::{Lab, Ports};
use target::{Answer, Target};

#[path = "support/agent.rs"]
mod agent;
#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

/// An attempt that failed is made again soon.
const RETRIES: &str = "retry = { first_ms = 200, factor = 1.0, max_ms = 200, attempts_max = 100 }\nbreaker = { enabled = false }";

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dials {
    Egress,
    Ingester,
}

/// Who has the deny list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denier {
    Edge,
    Inside,
}

/// A path in which both nodes have a deny list, which is empty.
fn path(
    dials: Dials,
    keys: &str,
    script: impl Fn(usize) -> Answer + Send + Sync + 'static,
) -> (Mesh, Target) {
    let lab = Lab::new();
    let target = target(&lab, "demo", move |number, _| script(number));
    let (edge_ports, inside_ports) = (Ports::pick(), Ports::pick());
    let section = lab.target_text("demo", target.address, keys);
    let edge = soon_again(&lab.ingester_text(edge_ports));
    let inside = soon_again(&lab.egress_text(inside_ports, edge_ports.link, &section));
    let (edge, inside) = match dials {
        Dials::Egress => (edge, inside),
        Dials::Ingester => ingester_dials(&edge, &inside, inside_ports.link, edge_ports.link),
    };
    for name in ["edge", "inside"] {
        deny(&lab, name, "");
    }
    let edge_text = with_deny_list(&edge, &lab.path("edge.json"));
    let inside_text = with_deny_list(&inside, &lab.path("inside.json"));
    let edge = lab.start("edge", edge_ports, &edge_text);
    let inside = lab.start("inside", inside_ports, &inside_text);
    (Mesh { edge, inside, edge_ports, inside_ports, edge_text, inside_text, lab }, target)
}

/// A link that ended is dialled again without the long pauses of one that ends again and again.
fn soon_again(text: &str) -> String {
    support::change(text, "log = \"info\"", "log = \"info\"\nlink_pause_ms_max = 200")
}

/// Replaces the deny list of a node, in one step.
fn deny(lab: &Lab, node: &str, entries: &str) {
    let next = lab.write("next.json", &format!("{{\"version\":1,\"entries\":[{entries}]}}"));
    fs::rename(next, lab.path(&format!("{node}.json"))).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The serial number of `pki/NAME.pem`: behind two sequences and the version (RFC 5280 section 4.1).
fn serial_of(lab: &Lab, name: &str) -> String {
    let der = CertificateDer::from_pem_file(lab.path(&format!("pki/{name}.pem"))).unwrap();
    let start = der.windows(6).position(|six| six == [0xa0, 3, 2, 1, 2, 2]).unwrap() + 6;
    let length = usize::from(der[start]);
    hex(&der[start + 1..=start + length])
}

/// SHA-256 of the public key of `pki/NAME.key`.
fn key_hash_of(lab: &Lab, name: &str) -> String {
    let key = KeyPair::from_pem(&fs::read_to_string(lab.path(&format!("pki/{name}.key"))).unwrap()).unwrap();
    hex(digest(&SHA256, &key.subject_public_key_info()).as_ref())
}

/// An entry of each kind for `pki/NAME.pem`, with its label.
fn entries_of(lab: &Lab, name: &str, path: &str) -> [(&'static str, String); 3] {
    [
        ("spiffe_id", format!("{{\"spiffe_id\":\"spiffe://{TRUST_DOMAIN}/{path}\"}}")),
        ("serial", format!("{{\"serial\":\"{}\",\"reason\":\"lost\"}}", serial_of(lab, name))),
        ("spki_sha256", format!("{{\"spki_sha256\":\"{}\"}}", key_hash_of(lab, name))),
    ]
}

fn denials(node: &Node, kind: &str) -> u64 {
    node.metric(&format!("zen_peers_denied_total{{reason=\"{kind}\"}}")) as u64
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// The live link ends, the handshakes after it are refused, and when the entry is gone everything arrives.
fn a_denied_peer_comes_back(dials: Dials, denier: Denier) {
    let (mesh, target) = path(dials, "", |_| Answer::status(200));
    let (node, name, peer, id) = match denier {
        Denier::Edge => (&mesh.edge, "edge", "inside", "egress/inside"),
        Denier::Inside => (&mesh.inside, "inside", "edge", "ingester/edge"),
    };
    mesh.send(b"{\"before\":1}");
    target.wait(1);
    for (round, (kind, entry)) in entries_of(&mesh.lab, peer, id).into_iter().enumerate() {
        let connects = node.metric("zen_link_connects_total") as u64;
        deny(&mesh.lab, name, &entry);
        wait_until("the link ended", || denials(node, kind) >= 1);
        let waiting = mesh.send(format!("{{\"while\":\"{kind}\"}}").as_bytes());
        wait_until("a handshake is refused", || denials(node, kind) >= 2);
        let ended = node.log().matches("a link ends: its peer is on the deny list").count();
        assert_eq!(ended, round + 1, "once for the connection");
        assert!(node.log().contains(&format!("denied=\"{kind}\"")), "{kind}");
        assert!(node.metric("zen_link_errors_total{reason=\"denied\"}") as u64 >= 2, "{kind}");
        assert_eq!(node.metric("zen_link_connects_total") as u64, connects, "{kind}: no link is made");
        assert!(!delivered(&target.deliveries()).contains(&waiting), "{kind}");
        deny(&mesh.lab, name, "");
        wait_until("what waited is delivered", || delivered(&target.deliveries()).contains(&waiting));
    }
    let last = mesh.send(b"{\"after\":1}");
    wait_until("the last is delivered", || delivered(&target.deliveries()).contains(&last));
    assert_eq!(target.deliveries().len(), 5, "each once");
}

#[test]
fn an_ingester_denies_an_egress_that_dials() {
    a_denied_peer_comes_back(Dials::Egress, Denier::Edge);
}

#[test]
fn an_egress_denies_an_ingester_that_it_dials() {
    a_denied_peer_comes_back(Dials::Egress, Denier::Inside);
}

#[test]
fn an_egress_denies_an_ingester_that_dials() {
    a_denied_peer_comes_back(Dials::Ingester, Denier::Inside);
}

#[test]
fn an_ingester_denies_an_egress_that_it_dials() {
    a_denied_peer_comes_back(Dials::Ingester, Denier::Edge);
}

#[test]
fn links_end_on_every_worker_wherever_they_were_accepted() {
    const WORKERS: usize = 3;
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let section = lab.target_text("demo", target.address, "");
    deny(&lab, "edge", "");
    let file = lab.path("edge.json");
    let listed = |text: &str| {
        with_deny_list(&support::change(text, "workers = 1", &format!("workers = {WORKERS}")), &file)
    };
    let mesh = Mesh::start_with(lab, &section, listed, soon_again);
    let up = |count: usize| {
        wait_until("all links are up", || mesh.edge.metric("zen_link_connects_total") as usize == count);
    };
    up(WORKERS);
    deny(&mesh.lab, "edge", &format!("{{\"spki_sha256\":\"{}\"}}", key_hash_of(&mesh.lab, "inside")));
    let ended = || mesh.edge.log().matches("a link ends: its peer is on the deny list").count();
    wait_until("each link ended", || ended() == WORKERS);
    deny(&mesh.lab, "edge", "");
    up(2 * WORKERS);
    assert_eq!(ended(), WORKERS, "and only once");
}

#[test]
fn a_denied_target_gets_nothing_and_everything_when_its_entry_is_gone() {
    let (mesh, target) = path(Dials::Egress, RETRIES, |_| Answer::status(200));
    mesh.send(b"{\"before\":1}");
    for (round, (kind, entry)) in entries_of(&mesh.lab, "demo", "target/demo").into_iter().enumerate() {
        target.wait(round + 1);
        mesh.inside.wait_metric("zen_target_connections", 1.0);
        deny(&mesh.lab, "inside", &entry);
        wait_until("its connection ended", || denials(&mesh.inside, kind) == 1);
        wait_until("it is closed", || mesh.inside.metric("zen_target_connections") as u64 == 0);
        let waiting = mesh.send(format!("{{\"while\":\"{kind}\"}}").as_bytes());
        wait_until("a handshake is refused", || denials(&mesh.inside, kind) >= 2);
        assert_eq!(target.deliveries().len(), round + 1, "{kind}");
        deny(&mesh.lab, "inside", "");
        wait_until("what waited is delivered", || delivered(&target.deliveries()).contains(&waiting));
    }
    assert_eq!(mesh.inside.log().matches("a connection ends: its target is on the deny list").count(), 3);
}

/// Its certificate has no SPIFFE id, and its CA is a private one.
#[test]
fn a_target_known_by_its_name_is_denied_by_its_key() {
    let lab = Lab::new();
    let target = target(&lab, "public", |_, _| Answer::status(200));
    let id = format!("spiffe_ids = [\"spiffe://{TRUST_DOMAIN}/target/demo\"]");
    let section =
        support::change(&lab.target_text("demo", target.address, ""), &id, "ca_file = \"pki/public_ca.pem\"");
    let entry = format!("{{\"spki_sha256\":\"{}\"}}", key_hash_of(&lab, "public"));
    deny(&lab, "inside", &entry);
    let file = lab.path("inside.json");
    let mesh = Mesh::start_with(lab, &section, str::to_owned, |text| with_deny_list(text, &file));
    mesh.send(b"{}");
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"tls_failed\"}", 1.0);
    assert_eq!((denials(&mesh.inside, "spki_sha256"), target.deliveries().len()), (1, 0));
    deny(&mesh.lab, "inside", "");
    target.wait(1);
    deny(&mesh.lab, "inside", &entry);
    wait_until("its connection ended", || mesh.inside.metric("zen_target_connections") as u64 == 0);
    mesh.inside.wait_log("a connection ends: its target is on the deny list");
}

#[test]
fn an_attempt_under_way_at_a_denied_target_is_made_again() {
    const LONG: Duration = Duration::from_secs(15);
    let script = |number| if number == 0 { Answer::status(200).after(LONG) } else { Answer::status(200) };
    let (mesh, target) = path(Dials::Egress, RETRIES, script);
    let id = mesh.send(b"{}");
    mesh.inside.wait_metric("zen_attempts_in_flight", 1.0);
    target.wait(1);
    deny(&mesh.lab, "inside", &format!("{{\"serial\":\"{}\"}}", serial_of(&mesh.lab, "demo")));
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"tls_failed\"}", 1.0);
    mesh.inside.wait_log("a connection ends: its target is on the deny list");
    deny(&mesh.lab, "inside", "");
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 1.0);
    let deliveries = target.deliveries();
    assert!(deliveries.iter().all(|delivery| delivery.event_id() == id), "the same event");
    assert_eq!(mesh.inside.metric("zen_dead_letters_total") as u64, 0);
}

#[test]
fn an_entry_counts_until_it_is_over() {
    let (mesh, target) = path(Dials::Egress, "", |_| Answer::status(200));
    let id = format!("spiffe://{TRUST_DOMAIN}/egress/inside");
    let until = |until_ms: u64| format!("{{\"spiffe_id\":\"{id}\",\"until_ms\":{until_ms}}}");
    mesh.send(b"{}");
    target.wait(1);
    deny(&mesh.lab, "edge", &until(unix_ms() - 2_000));
    mesh.edge.wait_metric("zen_deny_list_entries", 1.0);
    mesh.send(b"{}");
    target.wait(2);
    assert_eq!(denials(&mesh.edge, "spiffe_id"), 0, "it was over before");
    deny(&mesh.lab, "edge", &until(unix_ms() + 3_000));
    wait_until("the link ended", || denials(&mesh.edge, "spiffe_id") > 0);
    mesh.send(b"{}");
    // Nobody touches the list.
    target.wait(3);
}

#[test]
fn a_bad_deny_list_changes_nothing() {
    let (mesh, target) = path(Dials::Egress, "", |_| Answer::status(200));
    let id = format!("{{\"spiffe_id\":\"spiffe://{TRUST_DOMAIN}/egress/inside\"}}");
    deny(&mesh.lab, "edge", &id);
    wait_until("the link ended", || denials(&mesh.edge, "spiffe_id") > 0);
    for (bad, reason) in [
        ("", "EOF while parsing"),
        ("{\"version\":1,\"entries\":[{}]}", "an entry names one of serial, spki_sha256 and spiffe_id"),
        ("{\"version\":1,\"entries\":[],\"more\":0}", "unknown field"),
    ] {
        let refused = mesh.edge.metric("zen_deny_list_refused_total");
        mesh.lab.write("edge.json", bad);
        mesh.edge.wait_log(reason);
        mesh.edge.wait_metric("zen_deny_list_refused_total", refused + 2.0);
        assert!(mesh.edge.log().contains("deny list not reloaded, the old one stays"));
        let so_far = denials(&mesh.edge, "spiffe_id");
        wait_until("the old one counts", || denials(&mesh.edge, "spiffe_id") > so_far);
        assert_eq!(mesh.edge.metric("zen_deny_list_entries") as u64, 1);
    }
    mesh.edge.signal(Signal::SIGHUP);
    wait_until("a reload refuses it, too", || {
        mesh.edge.get("/status").1.contains("the last reload was refused: 1 fault(s):")
    });
    assert!(mesh.edge.get("/status").1.contains("identity.deny_list_file"));
    let checked = run(&["--config", mesh.lab.path("edge.toml").to_str().unwrap(), "--check-config"]);
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(!checked.status.success() && said.contains("identity.deny_list_file"), "{said}");
    let waiting = mesh.send(b"{}");
    deny(&mesh.lab, "edge", "");
    wait_until("what waited is delivered", || delivered(&target.deliveries()).contains(&waiting));
}
