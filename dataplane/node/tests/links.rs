//! Links between real nodes: who dials, several workers and nodes, outages, and who is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use mesh::{Mesh, delivered, distinct, egress_alone, ingester_dials, numbered, send, target};
use peer::{Peer, PeerIdentity, Said};
use support::client::Client;
use support::node::{Node, wait_until};
use support::{GITHUB, Lab, Ports, change, endpoint};
use target::{Answer, Delivery, Target};
use zen_core::link::{Hello, RefuseCode, Role};

#[path = "support/mesh.rs"]
mod mesh;
#[path = "support/peer.rs"]
mod peer;
mod support;
#[path = "support/target.rs"]
mod target;

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dials {
    Egress,
    Ingester,
}

#[test]
fn every_direction_and_number_of_workers_serves_every_stream() {
    for dials in [Dials::Egress, Dials::Ingester] {
        for (edge_workers, inside_workers) in [(1, 1), (2, 2), (2, 1), (1, 2)] {
            let (mesh, target) = path(dials, edge_workers, inside_workers);
            // A new connection each: the kernel spreads them over the workers' listeners.
            let ids: Vec<String> = (0..32).map(|index| mesh.send(&numbered(index, 300))).collect();
            let deliveries = target.wait(32);
            assert_eq!(delivered(&deliveries), distinct(ids), "{dials:?} {edge_workers} {inside_workers}");
            assert_eq!(deliveries.len(), 32, "each once");
            for stream in 0..edge_workers {
                mesh.edge.wait_log(&format!("stream={stream}"));
                mesh.inside.wait_log(&format!("stream={stream}"));
            }
            mesh.edge.wait_metric("zen_link_events_sent_total", 32.0);
            wait_until("everything is acknowledged", || mesh.edge.metric("zen_link_lag_events") as u64 == 0);
            assert_eq!(mesh.inside.metric("zen_link_events_received_total") as u64, 32);
        }
    }
}

#[test]
fn two_ingesters_and_one_egress() {
    let lab = Lab::new();
    lab.svid("west", "ingester/west");
    let target = target(&lab, "demo", ok);
    let (edge_ports, west_ports, inside_ports) = (Ports::pick(), Ports::pick(), Ports::pick());
    let section = lab.target_text("demo", target.address, "");
    let inside = lab.egress_text(inside_ports, edge_ports.link, &section);
    let (_, peer) = inside.split_once("[[egress.ingesters]]").unwrap();
    let (peer, _) = peer.split_once("[[egress.targets]]").unwrap();
    let west_peer = peer
        .replace("\"edge\"", "\"west\"")
        .replace("ingester/edge", "ingester/west")
        .replace(&edge_ports.link.to_string(), &west_ports.link.to_string());
    let inside = format!("{inside}[[egress.ingesters]]{west_peer}");
    let west = lab.ingester_text(west_ports).replace("\"edge\"", "\"west\"").replace("pki/edge", "pki/west");
    let west = west.replace("edge.sock", "west.sock");
    let nodes = [
        lab.start("edge", edge_ports, &lab.ingester_text(edge_ports)),
        lab.start("west", west_ports, &west),
        lab.start("inside", inside_ports, &inside),
    ];
    let mut ids = Vec::new();
    for ports in [edge_ports, west_ports, edge_ports, west_ports] {
        let mut source = Client::connect(&lab, ports.listen);
        ids.extend((0..5).map(|index| send(&mut source, GITHUB, &numbered(index, 100))));
    }
    assert_eq!(delivered(&target.wait(20)), distinct(ids));
    assert_eq!(nodes.map(|node| node.metric("zen_link_connects_total") as u64), [1, 1, 2]);
}

#[test]
fn one_event_goes_to_two_egresses() {
    let (mesh, first) = path_with(Dials::Egress, 1, 1, two_egresses);
    let second = target(&mesh.lab, "demo", ok);
    let ports = Ports::pick();
    let section = mesh.lab.target_text("away", second.address, "");
    let text = mesh.lab.egress_text(ports, mesh.edge_ports.link, &section);
    let text = text.replace("\"inside\"", "\"beyond\"").replace("pki/inside", "pki/beyond");
    let text = text.replace("inside.sock", "beyond.sock").replace("secrets/link\"", "secrets/link-beyond\"");
    // Before the second egress is there for the first time, its events wait; the first has its own.
    let mut ids = mesh.send_many(10, 100);
    first.wait(10);
    let beyond = mesh.lab.start("beyond", ports, &text);
    second.wait(10);
    ids.extend(mesh.send_many(10, 100));
    let ids = distinct(ids);
    assert_eq!((delivered(&first.wait(20)), delivered(&second.wait(20))), (ids.clone(), ids));
    for node in [&mesh.inside, &beyond] {
        assert_eq!(node.metric("zen_link_events_received_total") as u64, 20);
    }
    assert!(second.deliveries().iter().all(|delivery| delivery.line == "POST /hooks/away HTTP/1.1"));
}

#[test]
fn what_came_while_the_egress_was_down_arrives() {
    for dials in [Dials::Egress, Dials::Ingester] {
        let (mut mesh, target) = path(dials, 1, 1);
        let mut ids = vec![mesh.send(b"before")];
        target.wait(1);
        mesh.inside.kill();
        ids.extend(mesh.send_many(50, 1_000));
        mesh.restart_inside();
        ids.push(mesh.send(b"after"));
        let ids = distinct(ids);
        wait_until("everything is delivered", || delivered(&target.deliveries()) == ids);
        assert_eq!(mesh.inside.metric("zen_link_events_received_total") as u64, 51, "resumed, not repeated");
    }
}

#[test]
fn each_event_of_a_batch_goes_to_its_own_targets() {
    const OTHER: &str = "00000000000000000000000000000004";
    let lab = Lab::new();
    let targets = [target(&lab, "demo", ok), target(&lab, "demo", ok)];
    let sections =
        lab.target_text("demo", targets[0].address, "") + &lab.target_text("well", targets[1].address, "");
    let both = |text: &str| {
        let flow = format!("endpoint = \"{GITHUB}\"\negress = \"inside\"\ntargets = [\"demo\"");
        change(text, &flow, &format!("{flow}, \"well\""))
            + &endpoint(OTHER, "github", "source", "").replace("demo", "well")
    };
    let mut mesh = Mesh::start_with(lab, &sections, both, str::to_owned);
    mesh.inside.kill();
    let mut source = mesh.source();
    let ids: Vec<String> = (0..20)
        .map(|index| send(&mut source, if index % 3 == 0 { GITHUB } else { OTHER }, &numbered(index, 100)))
        .collect();
    // What is read back from disk is more than one commit.
    mesh.edge.kill();
    mesh.restart_edge();
    mesh.restart_inside();
    assert_eq!(delivered(&targets[0].wait(7)), distinct(ids.iter().step_by(3).cloned()));
    assert_eq!(delivered(&targets[1].wait(20)), distinct(ids));
    mesh.inside.wait_metric("zen_events_live", 0.0);
    assert_eq!((targets[0].deliveries().len(), targets[1].deliveries().len()), (7, 20), "each once");
}

#[test]
fn an_ingester_that_was_killed_goes_on_from_its_journal() {
    for dials in [Dials::Egress, Dials::Ingester] {
        let (mut mesh, target) = path(dials, 2, 2);
        let mut ids = mesh.send_many(10, 200);
        target.wait(10);
        mesh.inside.kill();
        ids.extend((0..20).map(|index| mesh.send(&numbered(100 + index, 200))));
        mesh.edge.kill();
        mesh.restart_edge();
        ids.extend(mesh.send_many(10, 300));
        mesh.restart_inside();
        let ids = distinct(ids);
        wait_until("everything is delivered", || delivered(&target.deliveries()) == ids);
        mesh.edge.kill();
        mesh.restart_edge();
        let last = mesh.send(b"last");
        wait_until("the last one is delivered", || delivered(&target.deliveries()).contains(&last));
    }
}

#[test]
fn a_drained_egress_loses_nothing_that_is_on_its_way() {
    let (mut mesh, target) = path(Dials::Egress, 1, 1);
    let mut ids = Vec::new();
    for round in 0..4 {
        ids.extend(mesh.send_many(25, 500));
        assert!(mesh.inside.terminate().success(), "round {round}: {}", mesh.inside.log());
        ids.push(mesh.send(b"while nobody is there"));
        mesh.restart_inside();
    }
    let ids = distinct(ids);
    wait_until("everything is delivered", || delivered(&target.deliveries()) == ids);
}

#[test]
fn connections_end_with_the_certificate_of_their_peer() {
    const LIFE_S: i64 = 12;
    let lab = Lab::new();
    lab.svid_for_seconds("edge", "ingester/edge", LIFE_S);
    lab.svid_for_seconds("demo", "target/demo", LIFE_S);
    let target = target(&lab, "demo", ok);
    let section = lab.target_text("demo", target.address, "");
    let mesh = Mesh::start(lab, &section);
    mesh.send(&numbered(0, 300));
    target.wait(1);
    mesh.inside.wait_metric("zen_target_connections", 1.0);
    mesh.inside.wait_metric("zen_link_errors_total{reason=\"expired\"}", 1.0);
    wait_until("the target's connection ended", || {
        mesh.inside.metric("zen_target_connections") as usize == 0
    });
    mesh.lab.svid("edge", "ingester/edge");
    mesh.inside.wait_metric("zen_link_connects_total", 2.0);
    mesh.send(&numbered(1, 300));
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"tls_failed\"}", 1.0);
    assert_eq!(target.wait(1).len(), 1, "nothing goes to a target whose certificate has run out");
}

#[test]
fn an_unknown_version_is_refused_with_a_clear_message() {
    let (_target, node, lab, ports) = egress_with_target();
    let mut peer = Peer::dial(ports.link, &PeerIdentity::of(&lab, "edge")).unwrap();
    let mut out = Vec::new();
    Hello { version_min: 2, version_max: 9, ..hello("edge", "inside") }.write(&mut out);
    peer.say(&out);
    let refuse = peer.hear_refusal().expect("a refusal before the connection is closed");
    assert_eq!(refuse.code, RefuseCode::Version);
    assert_eq!(refuse.text, "the peer speaks link versions 2 to 9, this node 1 to 1");
    assert_eq!(node.metric("zen_link_errors_total{reason=\"version\"}") as u64, 1);
}

#[test]
fn a_hello_that_does_not_fit_is_refused() {
    let (_target, node, lab, ports) = egress_with_target();
    lab.svid("west", "ingester/west");
    let receiver = Hello { role: Role::Receiver, streams: 0, journal_id: [0; 16], ..hello("edge", "inside") };
    let table = [
        (hello("west", "inside"), RefuseCode::Peer, "the peer is not the node that is expected here"),
        (hello("edge", "beyond"), RefuseCode::Peer, "the peer expects another node here"),
        (receiver, RefuseCode::Role, "the peer has the same role as this node"),
    ];
    for (hello, code, text) in table {
        let mut peer = Peer::dial(ports.link, &PeerIdentity::of(&lab, "edge")).unwrap();
        let mut out = Vec::new();
        hello.write(&mut out);
        peer.say(&out);
        let refuse = peer.hear_refusal().unwrap_or_else(|| panic!("no refusal of {hello:?}"));
        assert_eq!((refuse.code, refuse.text.as_str()), (code, text), "{hello:?}");
    }
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[5, 0, 0, 0, 1, b'Z', b'E', b'N', b'L']] {
        let mut peer = Peer::dial(ports.link, &PeerIdentity::of(&lab, "edge")).unwrap();
        peer.say(bytes);
        let refuse = peer.hear_refusal().unwrap_or_else(|| panic!("no refusal of {bytes:?}"));
        assert_eq!(refuse.code, RefuseCode::Protocol, "{bytes:?}");
    }
    assert_eq!(node.metric("zen_link_connects_total") as u64, 0);
}

#[test]
fn a_wrong_spiffe_id_does_not_get_past_tls() {
    let (_target, node, lab, ports) = egress_with_target();
    for (name, id) in [("west", "ingester/west"), ("longer", "ingester/edge/x"), ("other", "egress/edge")] {
        lab.svid(name, id);
        let said = Peer::dial(ports.link, &PeerIdentity::of(&lab, name)).map(|mut peer| {
            let mut out = Vec::new();
            hello("edge", "inside").write(&mut out);
            peer.say(&out);
            peer.hear()
        });
        assert!(matches!(said, Err(_) | Ok(Said::Closed)), "{id}: {said:?}");
    }
    wait_until("three refusals", || node.metric("zen_link_errors_total{reason=\"tls\"}") as u64 == 3);
    assert_eq!(node.metric("zen_link_connects_total") as u64, 0);
}

#[test]
fn an_ingester_refuses_an_egress_it_does_not_know_and_a_stream_it_does_not_have() {
    let lab = Lab::new();
    let ports = Ports::pick();
    let node = lab.start("edge", ports, &lab.ingester_text(ports));
    let wanted = Hello { role: Role::Receiver, streams: 0, journal_id: [0; 16], ..hello("inside", "edge") };
    let table = [
        (Hello { node: "beyond".to_owned(), ..wanted.clone() }, RefuseCode::Peer),
        (Hello { peer: "west".to_owned(), ..wanted.clone() }, RefuseCode::Peer),
        (Hello { stream: 1, ..wanted.clone() }, RefuseCode::Stream),
        (hello("inside", "edge"), RefuseCode::Role),
    ];
    for (hello, code) in table {
        let mut peer = Peer::dial(ports.link, &PeerIdentity::of(&lab, "inside")).unwrap();
        let mut out = Vec::new();
        hello.write(&mut out);
        peer.say(&out);
        let refuse = peer.hear_refusal().unwrap_or_else(|| panic!("no refusal of {hello:?}"));
        assert_eq!(refuse.code, code, "{hello:?}");
    }
    assert_eq!(node.metric("zen_link_connects_total") as u64, 0);
}

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    let (_target, node, lab, ports) = egress_with_target();
    let mut peer = Peer::dial(ports.link, &PeerIdentity::of(&lab, "edge")).unwrap();
    // Ten seconds for a hello; the peer's own patience is longer.
    peer.patience(Duration::from_secs(14));
    assert_eq!(peer.hear_refusal().map(|refuse| refuse.code), Some(RefuseCode::Timeout));
    assert_eq!(node.metric("zen_link_errors_total{reason=\"handshake_timeout\"}") as u64, 1);
}

fn ok(_: usize, _: &Delivery) -> Answer {
    Answer::status(200)
}

fn path(dials: Dials, edge_workers: u16, inside_workers: u16) -> (Mesh, Target) {
    path_with(dials, edge_workers, inside_workers, |_, text| text.to_owned())
}

fn path_with(
    dials: Dials,
    edge_workers: u16,
    inside_workers: u16,
    edit_edge: impl Fn(&Lab, &str) -> String,
) -> (Mesh, Target) {
    let lab = Lab::new();
    let target = target(&lab, "demo", ok);
    let (edge_ports, inside_ports) = (Ports::pick(), Ports::pick());
    let workers = |text: &str, count: u16| change(text, "workers = 1", &format!("workers = {count}"));
    let edge_text = edit_edge(&lab, &workers(&lab.ingester_text(edge_ports), edge_workers));
    let section = lab.target_text("demo", target.address, "");
    let inside_text = workers(&lab.egress_text(inside_ports, edge_ports.link, &section), inside_workers);
    let (edge_text, inside_text) = match dials {
        Dials::Egress => (edge_text, inside_text),
        Dials::Ingester => ingester_dials(&edge_text, &inside_text, inside_ports.link, edge_ports.link),
    };
    let edge = lab.start("edge", edge_ports, &edge_text);
    let inside = lab.start("inside", inside_ports, &inside_text);
    (Mesh { edge, inside, edge_ports, inside_ports, edge_text, inside_text, lab }, target)
}

/// The GitHub endpoint also goes to the target `away` of the egress `beyond`.
fn two_egresses(lab: &Lab, text: &str) -> String {
    lab.svid("beyond", "egress/beyond");
    lab.write_private("secrets/link-beyond", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let (_, peer) = text.split_once("[[ingester.egresses]]").unwrap();
    let (peer, _) = peer.split_once("[[").unwrap();
    let peer = peer
        .replace("\"inside\"", "\"beyond\"")
        .replace("egress/inside", "egress/beyond")
        .replace("secrets/link\"", "secrets/link-beyond\"");
    format!(
        "{text}[[ingester.egresses]]{peer}[[ingester.flows]]\nendpoint = \"{GITHUB}\"\negress = \"beyond\"\n\
         targets = [\"away\"]\n"
    )
}

fn egress_with_target() -> (Target, Node, Lab, Ports) {
    let lab = Lab::new();
    let target = target(&lab, "demo", ok);
    let (node, ports) = egress_alone(&lab, &lab.target_text("demo", target.address, ""), str::to_owned);
    (target, node, lab, ports)
}

/// A sender's hello.
fn hello(node: &str, peer: &str) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        role: Role::Sender,
        stream: 0,
        streams: 1,
        journal_id: [7; 16],
        node: node.to_owned(),
        peer: peer.to_owned(),
    }
}
