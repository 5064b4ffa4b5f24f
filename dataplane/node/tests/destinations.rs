//! Where the egress connects to: what names resolve to is checked before it is dialled.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use mesh::{Mesh, SHORT_RETRIES, ingester_dials, send, target};
use nix::sys::signal::Signal;
use support::client::Client;
use support::node::{Node, run, wait_until};
use support::{GITHUB, Lab, Ports, change, free_address};
use target::Answer;

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const FORBIDDEN: &str = "zen_deliveries_total{outcome=\"connect_forbidden\"}";

/// The egress's configuration with its target under a name, and only in these networks.
fn named(text: &str, address: SocketAddr, host: &str, networks: &str) -> String {
    let text = change(text, &format!("https://{address}/"), &format!("https://{host}:{}/", address.port()));
    change(&text, "[egress]\n", &format!("[egress]\ntarget_networks = [{networks}]\n"))
}

fn mesh(networks: &'static str) -> (Mesh, target::Target) {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let (address, section) =
        (target.address, lab.target_text("demo", target.address, "retry_schedule_ms = [100, 60000]"));
    let mesh =
        Mesh::start_with(lab, &section, str::to_owned, |text| named(text, address, "localhost", networks));
    (mesh, target)
}

#[test]
fn a_name_outside_the_listed_networks_is_not_dialled_until_they_change() {
    let (mesh, target) = mesh("\"10.0.0.0/8\"");
    let id = mesh.send(b"{}");
    mesh.inside.wait_metric(FORBIDDEN, 2.0);
    assert!(refused(&mesh.inside, "loopback") >= 2.0);
    mesh.inside.wait_log("not dialled: it is a loopback address; see egress.target_networks");
    assert!(target.deliveries().is_empty());

    let open = change(&mesh.inside_text, "\"10.0.0.0/8\"", "\"127.0.0.0/8\", \"::1\"");
    mesh.lab.write("inside.toml", &open);
    mesh.inside.signal(Signal::SIGHUP);
    wait_until("the reload", || mesh.inside.get("/status").1.contains("generation 2 "));
    // The first waits for its next attempt; another is delivered at once.
    let second = mesh.send(b"{\"second\":1}");
    assert_eq!(target.wait(1)[0].event_id(), second);
    assert_ne!(id, second);
}

#[test]
fn an_address_outside_the_policy_is_refused_with_the_configuration() {
    let lab = Lab::new();
    let address = free_address();
    let ports = Ports::pick();
    let section = lab.target_text("demo", address, SHORT_RETRIES);
    let text = lab.egress_text(ports, free_address(), &section);
    let check = |text: &str| {
        let file = lab.write("node.toml", text);
        let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check(&text).0, 0);
    for (host, says) in [
        ("169.254.169.254", "it is a link-local address"),
        ("[fe80::1]", "it is a link-local address"),
        ("[::ffff:10.0.0.1]", "it is an IPv6 form of another address"),
        ("[64:ff9b::a9fe:a9fe]", "it is an IPv6 form of another address"),
        ("[2002:a9fe:a9fe::1]", "it is an IPv6 form of another address"),
        ("0.0.0.0", "no host has this address"),
        ("255.255.255.255", "no host has this address"),
    ] {
        let wrong = change(&text, &address.to_string(), &format!("{host}:443"));
        let (code, said) = check(&wrong);
        assert!(code == 1 && said.contains("egress.targets[0].url") && said.contains(says), "{host}: {said}");
    }
    let listed = |networks| change(&text, "[egress]\n", &format!("[egress]\ntarget_networks = {networks}\n"));
    assert_eq!(check(&listed("[\"127.0.0.0/8\"]")).0, 0);
    for (networks, says) in [
        ("[\"10.0.0.0/8\"]", "it is a loopback address"),
        ("[\"0.0.0.0/0\"]", "it is a loopback address"),
        ("[\"127.0.0.1/8\"]", "the network is 127.0.0.0/8"),
        ("[\"internal\"]", "not an IP address"),
    ] {
        let (code, said) = check(&listed(networks));
        assert!(code == 1 && said.contains(says), "{networks}: {said}");
    }
}

/// A name server that answers every question for IPv4 with addresses that can be changed.
struct NameServer {
    address: Ipv4Addr,
    answer: Arc<Mutex<Vec<Ipv4Addr>>>,
}

impl NameServer {
    /// At an address that neither other tests nor those of other processes take; port 53 needs root.
    fn start(answer: &[Ipv4Addr]) -> Self {
        static STARTED: AtomicU8 = AtomicU8::new(53);
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let address = Ipv4Addr::new(127, STARTED.fetch_add(1, Ordering::Relaxed), high, low);
        let socket = UdpSocket::bind((address, 53)).unwrap_or_else(|error| {
            panic!("{address}:53: {error}; a name server's port needs root, and a process of its own")
        });
        let shared = Arc::new(Mutex::new(answer.to_vec()));
        let answer = Arc::clone(&shared);
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut query) {
                let reply = reply(&query[..len], &shared.lock().unwrap());
                socket.send_to(&reply, from).unwrap();
            }
        });
        Self { address, answer }
    }

    fn rebind(&self, answer: Ipv4Addr) {
        *self.answer.lock().unwrap() = vec![answer];
    }

    /// A node that asks it for names.
    fn start_node(&self, lab: &Lab, config: &str, admin: SocketAddr) -> Node {
        let resolv = lab.write("resolv.conf", &format!("nameserver {}\n", self.address));
        let script = format!("mount --bind {} /etc/resolv.conf", resolv.display());
        Node::start_behind(&script, &lab.path(config), admin)
    }
}

/// RFC 1035 section 4.1: the question again, and records that no cache may keep, or none for other types than A.
fn reply(query: &[u8], answer: &[Ipv4Addr]) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|&byte| byte == 0).unwrap() + 1;
    let asks_for_a = query[name_end..name_end + 2] == [0, 1];
    let answer = if asks_for_a { answer } else { &[] };
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, answer.len() as u8, 0, 0, 0, 0]);
    reply.extend(&query[12..name_end + 4]);
    for address in answer {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        reply.extend(address.octets());
    }
    reply
}

/// What must not be dialled: nobody knocked.
fn assert_alone(victim: &TcpListener) {
    let knocked = victim.accept();
    assert!(knocked.is_err(), "an address that is refused was dialled: {knocked:?}");
}

fn victim(address: impl Into<IpAddr>, port: u16) -> TcpListener {
    let victim = TcpListener::bind((address.into(), port)).unwrap();
    victim.set_nonblocking(true).unwrap();
    victim
}

fn refused(node: &Node, reason: &str) -> f64 {
    node.metric(&format!("zen_destinations_refused_total{{reason=\"{reason}\"}}"))
}

#[test]
fn a_name_that_is_rebound_is_not_followed() {
    let (own, other) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let victim = victim(other, target.address.port());
    let names = NameServer::start(&[own]);
    let section = lab.target_text("demo", target.address, "retry_schedule_ms = [100, 60000]");
    let address = target.address;
    let mut mesh = Mesh::start_with(lab, &section, str::to_owned, |text| {
        named(text, address, "billing.example", "\"127.0.0.1/32\"")
    });
    mesh.inside.terminate();
    mesh.inside = names.start_node(&mesh.lab, "inside.toml", mesh.inside_ports.admin);
    mesh.send(b"{\"number\":1}");
    target.wait(1);

    names.rebind(other);
    // A reload resolves names anew and gives up the connections that were made before.
    mesh.inside.signal(Signal::SIGHUP);
    wait_until("the reload", || mesh.inside.get("/status").1.contains("generation 2 "));
    mesh.send(b"{\"number\":2}");
    mesh.inside.wait_metric(FORBIDDEN, 2.0);
    assert!(refused(&mesh.inside, "loopback") >= 2.0);
    assert_eq!(target.deliveries().len(), 1);
    assert_alone(&victim);
    assert_eq!(IpAddr::from(own), target.address.ip());
}

const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

#[test]
fn of_a_name_s_addresses_only_those_are_tried_that_may_be() {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let (own, other) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    let victim = victim(other, target.address.port());
    let names = NameServer::start(&[METADATA, other, own]);
    let (address, section) = (target.address, lab.target_text("demo", target.address, SHORT_RETRIES));
    let mut mesh = Mesh::start_with(lab, &section, str::to_owned, |text| {
        named(text, address, "billing.example", "\"127.0.0.1/32\"")
    });
    mesh.inside.terminate();
    mesh.inside = names.start_node(&mesh.lab, "inside.toml", mesh.inside_ports.admin);
    mesh.send(b"{}");
    target.wait(1);
    assert!(refused(&mesh.inside, "link_local") >= 1.0 && refused(&mesh.inside, "loopback") >= 1.0);
    assert_eq!(mesh.inside.metric(FORBIDDEN) as u64, 0);
    assert_alone(&victim);
}

#[test]
fn a_peer_is_dialled_where_its_name_may_lead_at_each_attempt() {
    let lab = Lab::new();
    let (ports, peer) = (Ports::pick(), free_address());
    let victim = victim(peer.ip(), peer.port());
    let names = NameServer::start(&[Ipv4Addr::LOCALHOST]);
    let text = lab.egress_text(ports, peer, &lab.target_text("demo", free_address(), SHORT_RETRIES));
    lab.write("inside.toml", &change(&text, &peer.to_string(), &format!("edge.example:{}", peer.port())));
    let inside = names.start_node(&lab, "inside.toml", ports.admin);
    wait_until("attempts", || refused(&inside, "loopback") >= 2.0);
    inside.wait_log("not dialled: it is a loopback address; name another host, or its address");
    assert_eq!(refused(&inside, "link_local") as u64, 0);
    names.rebind(METADATA);
    wait_until("an attempt at the other address", || refused(&inside, "link_local") >= 1.0);
    assert_alone(&victim);
}

#[test]
fn a_peer_of_this_machine_is_dialled_as_localhost_and_by_its_address() {
    for host in ["localhost", "127.0.0.1"] {
        let lab = Lab::new();
        let target = target(&lab, "demo", |_, _| Answer::status(200));
        let section = lab.target_text("demo", target.address, SHORT_RETRIES);
        let (edge_ports, inside_ports) = (Ports::pick(), Ports::pick());
        let inside = lab.egress_text(inside_ports, edge_ports.link, &section);
        let (edge, inside) =
            ingester_dials(&lab.ingester_text(edge_ports), &inside, inside_ports.link, edge_ports.link);
        let edge = change(
            &edge,
            &format!("address = \"{}\"", inside_ports.link),
            &format!("address = \"{host}:{}\"", inside_ports.link.port()),
        );
        let _inside = lab.start("inside", inside_ports, &inside);
        let _edge = lab.start("edge", edge_ports, &edge);
        send(&mut Client::connect(&lab, edge_ports.listen), GITHUB, b"{}");
        target.wait(1);
    }
}

#[test]
fn a_collector_is_sent_nothing_where_its_name_may_not_lead() {
    let lab = Lab::new();
    let (ports, collector) = (Ports::pick(), free_address());
    let victim = victim(collector.ip(), collector.port());
    let names = NameServer::start(&[METADATA]);
    let tracing = format!(
        "[tracing]\nsample_percent = 100\notlp_endpoint = \"https://collector.example:{}\"\n\
         otlp_ca_file = \"pki/public_ca.pem\"\n\n[identity]\n",
        collector.port()
    );
    lab.write("edge.toml", &change(&lab.ingester_text(ports), "[identity]\n", &tracing));
    let edge = names.start_node(&lab, "edge.toml", ports.admin);
    let dropped = || edge.metric("zen_spans_dropped_total{reason=\"forbidden\"}") as u64;
    let mut source = Client::connect(&lab, ports.listen);
    for (number, reason) in [(1, "link_local"), (2, "link_local"), (3, "loopback")] {
        if number == 3 {
            names.rebind(Ipv4Addr::LOCALHOST);
        }
        send(&mut source, GITHUB, format!("{{\"number\":{number}}}").as_bytes());
        wait_until("the loss is counted", || dropped() == number);
        assert!(refused(&edge, reason) >= 1.0);
    }
    let said = edge.log().matches("the collector is not dialled: it is a link-local address").count();
    assert_eq!(said, 1, "it is said once");
    assert_alone(&victim);
}

#[test]
fn a_token_server_is_asked_where_its_name_may_lead_only() {
    let lab = Lab::new();
    lab.write_private("secrets/client", "s3cret");
    let (ports, server) = (Ports::pick(), free_address());
    let victim = victim(server.ip(), server.port());
    let names = NameServer::start(&[METADATA, Ipv4Addr::LOCALHOST]);
    let extra = format!(
        "{SHORT_RETRIES}\nauthorization = {{ kind = \"oauth2\", token_url = \"https://tokens.example:{}/token\", \
         client_id = \"egress\", client_secret_file = \"secrets/client\", ca_file = \"pki/public_ca.pem\" }}",
        server.port()
    );
    let section = lab.target_text("demo", free_address(), &extra);
    lab.write("inside.toml", &lab.egress_text(ports, free_address(), &section));
    let inside = names.start_node(&lab, "inside.toml", ports.admin);
    inside.wait_log("the token server is not dialled: it is a l");
    inside.wait_metric("zen_tokens_refused_total", 1.0);
    assert!(refused(&inside, "link_local") + refused(&inside, "loopback") >= 1.0);
    assert_alone(&victim);
}

#[test]
fn addresses_of_peers_collectors_and_token_servers_are_checked_with_the_configuration() {
    let lab = Lab::new();
    lab.write_private("secrets/client", "s3cret");
    let peer = free_address();
    let extra = "authorization = { kind = \"oauth2\", token_url = \"https://192.0.2.1/token\", client_id = \"egress\", \
         client_secret_file = \"secrets/client\", ca_file = \"pki/public_ca.pem\" }";
    let text = lab.egress_text(Ports::pick(), peer, &lab.target_text("demo", free_address(), extra));
    let tracing =
        "[tracing]\notlp_endpoint = \"https://192.0.2.2:4318\"\notlp_ca_file = \"pki/public_ca.pem\"\n";
    let text = change(&text, "[identity]\n", &format!("{tracing}\n[identity]\n"));
    let peer = peer.to_string();
    for (from, to, says) in [
        (&*peer, "127.0.0.1:7000", ""),
        (&*peer, "169.254.7.7:7000", ""),
        (&*peer, "[64:ff9b::a01:1]:7000", ""),
        (&*peer, "0.0.0.0:7000", "egress.ingesters[0].address: 0.0.0.0: no host has this address"),
        (
            &*peer,
            "[::ffff:10.0.0.1]:7000",
            "it is an IPv6 form of another address; give the address in its own form",
        ),
        ("192.0.2.1", "127.0.0.1", ""),
        (
            "192.0.2.1",
            "169.254.169.254",
            "authorization.token_url: 169.254.169.254: it is a link-local address",
        ),
        ("192.0.2.2", "127.0.0.1", ""),
        (
            "192.0.2.2",
            "169.254.169.254",
            "tracing.otlp_endpoint: 169.254.169.254: it is a link-local address",
        ),
        ("192.0.2.2", "[fd00:ec2::254]", "it is the address of a metadata service; name another host"),
    ] {
        let file = lab.write("node.toml", &change(&text, from, to));
        let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() == says.is_empty() && said.contains(says), "{to}: {said}");
    }
}

#[test]
fn networks_at_more_ports_than_a_kernel_is_given_are_refused_with_the_configuration() {
    let lab = Lab::new();
    let section = |number: u16| {
        let text = lab.target_text("demo", SocketAddr::from(([10, 0, 0, 1], 8000 + number)), "");
        change(&text, "name = \"demo\"", &format!("name = \"demo-{number}\""))
    };
    let sections: Vec<String> = (0..16).map(section).collect();
    let text = lab.egress_text(Ports::pick(), free_address(), &sections.join("\n"));
    let networks: Vec<String> =
        (0..4096).map(|number| format!("\"10.{}.{}.0/25\"", number / 256, number % 256)).collect();
    let text =
        change(&text, "[egress]\n", &format!("[egress]\ntarget_networks = [{}]\n", networks.join(",")));
    let file = lab.write("node.toml", &text);
    let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("egress.target_networks: over 65536 entries; TCP port 80"), "{said}");
}
