//! The whole path as processes: the ingester `edge`, the egress `inside`, and a target in the test.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zen_core::envelope::DeliveryVerifier;
use zen_hmac::PreparedKey;

use crate::support::client::{Client, github};
use crate::support::node::Node;
use crate::support::{GITHUB, Lab, Ports, WHSEC, change};
use crate::target::{Answer, Delivery, Target, TargetTls};

/// Short enough for a test: dead after the third attempt.
pub const SHORT_RETRIES: &str = "retry_schedule_ms = [50, 100]\nretry_jitter_percent = 0";

/// A running path. Nodes end before the lab's directory goes.
pub struct Mesh {
    /// The ingester.
    pub edge: Node,
    /// The egress.
    pub inside: Node,
    /// Where the ingester is reached.
    pub edge_ports: Ports,
    /// Where the egress is reached.
    pub inside_ports: Ports,
    /// Configuration of the ingester.
    pub edge_text: String,
    /// Configuration of the egress.
    pub inside_text: String,
    /// Certificates, secrets, directories.
    pub lab: Lab,
}

impl Mesh {
    /// The egress dials; `targets` are the sections of the egress's targets.
    pub fn start(lab: Lab, targets: &str) -> Self {
        Self::start_with(lab, targets, str::to_owned, str::to_owned)
    }

    /// As [`Mesh::start`], with both configurations edited before the nodes start.
    pub fn start_with(
        lab: Lab,
        targets: &str,
        edit_edge: impl Fn(&str) -> String,
        edit_inside: impl Fn(&str) -> String,
    ) -> Self {
        let (edge_ports, inside_ports) = (Ports::pick(), Ports::pick());
        let edge_text = edit_edge(&lab.ingester_text(edge_ports));
        let inside_text = edit_inside(&lab.egress_text(inside_ports, edge_ports.link, targets));
        let edge = lab.start("edge", edge_ports, &edge_text);
        let inside = lab.start("inside", inside_ports, &inside_text);
        Self { edge, inside, edge_ports, inside_ports, edge_text, inside_text, lab }
    }

    /// The one target `demo`, which answers by `script`; `extra` are keys of its section.
    pub fn with_target(
        extra: &str,
        script: impl Fn(usize, &Delivery) -> Answer + Send + Sync + 'static,
    ) -> (Self, Target) {
        let lab = Lab::new();
        let target = target(&lab, "demo", script);
        let section = lab.target_text("demo", target.address, extra);
        (Self::start(lab, &section), target)
    }

    /// A source's connection.
    pub fn source(&self) -> Client {
        Client::connect(&self.lab, self.edge_ports.listen)
    }

    /// Sends one event and returns its id.
    pub fn send(&self, body: &[u8]) -> String {
        send(&mut self.source(), GITHUB, body)
    }

    /// Sends `count` events on one connection; bodies are distinct and `bytes` long at least.
    pub fn send_many(&self, count: usize, bytes: usize) -> Vec<String> {
        let mut source = self.source();
        (0..count).map(|index| send(&mut source, GITHUB, &numbered(index, bytes))).collect()
    }

    /// Starts the egress again with its configuration.
    pub fn restart_inside(&mut self) {
        self.inside = self.lab.start("inside", self.inside_ports, &self.inside_text);
    }

    /// Starts the ingester again with its configuration.
    pub fn restart_edge(&mut self) {
        self.edge = self.lab.start("edge", self.edge_ports, &self.edge_text);
    }
}

/// A target that shows the SVID `pki/NAME.pem` and wants a client certificate of the lab's CA.
pub fn target(
    lab: &Lab,
    name: &str,
    script: impl Fn(usize, &Delivery) -> Answer + Send + Sync + 'static,
) -> Target {
    target_at(lab, name, "127.0.0.1:0".parse().unwrap(), script)
}

/// As [`target`], at an address that was picked before.
pub fn target_at(
    lab: &Lab,
    name: &str,
    address: SocketAddr,
    script: impl Fn(usize, &Delivery) -> Answer + Send + Sync + 'static,
) -> Target {
    let tls = TargetTls {
        certificate: &lab.path(&format!("pki/{name}.pem")),
        key: &lab.path(&format!("pki/{name}.key")),
        client_ca: Some(&lab.path("pki/bundle.pem")),
    };
    Target::start_at(address, tls, script)
}

/// Sends one event over `source` and returns its id.
pub fn send(source: &mut Client, endpoint: &str, body: &[u8]) -> String {
    let answer = source.ask(&github(endpoint, body, ""));
    assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// A body with a number in front, `bytes` long at least.
pub fn numbered(index: usize, bytes: usize) -> Vec<u8> {
    let mut body = format!("{{\"number\":{index},\"padding\":\"").into_bytes();
    body.resize(body.len().max(bytes.saturating_sub(2)), b'x');
    body.extend_from_slice(b"\"}");
    body
}

/// Checks the deliveries of a target whose secret is [`WHSEC`].
pub fn verifier(target: &str) -> DeliveryVerifier<PreparedKey> {
    let secret = BASE64.decode(WHSEC.strip_prefix("whsec_").unwrap()).unwrap();
    DeliveryVerifier::new(target, vec![(format!("{target}-1"), PreparedKey::new(&secret))], 10_000)
}

/// Sorted, each once.
pub fn distinct(ids: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut ids: Vec<String> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The event ids of deliveries, sorted, each once.
pub fn delivered(deliveries: &[Delivery]) -> Vec<String> {
    distinct(deliveries.iter().map(|delivery| delivery.event_id().to_owned()))
}

/// `text` with the egress's dialling turned around: the ingester dials the egress.
pub fn ingester_dials(
    edge: &str,
    inside: &str,
    egress_link: std::net::SocketAddr,
    edge_link: std::net::SocketAddr,
) -> (String, String) {
    let edge = change(
        edge,
        "direction = \"egress-dials\"",
        &format!("direction = \"ingester-dials\"\naddress = \"{egress_link}\""),
    );
    let edge = change(&edge, &format!("link_listen = \"{edge_link}\"\n"), "");
    let inside = change(
        inside,
        &format!("direction = \"egress-dials\"\naddress = \"{edge_link}\""),
        "direction = \"ingester-dials\"",
    );
    let inside = change(&inside, "[egress]\n", &format!("[egress]\nlink_listen = \"{egress_link}\"\n"));
    (edge, inside)
}

/// The egress `inside` alone, waiting for an ingester to dial it, with its configuration edited.
pub fn egress_alone(lab: &Lab, targets: &str, edit: impl Fn(&str) -> String) -> (Node, Ports) {
    let (ports, nowhere) = (Ports::pick(), crate::support::free_address());
    let text = lab.egress_text(ports, nowhere, targets);
    let text = change(
        &text,
        &format!("direction = \"egress-dials\"\naddress = \"{nowhere}\""),
        "direction = \"ingester-dials\"",
    );
    let text = change(&text, "[egress]\n", &format!("[egress]\nlink_listen = \"{}\"\n", ports.link));
    (lab.start("inside", ports, &edit(&text)), ports)
}
