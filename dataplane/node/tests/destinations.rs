//! Where the egress connects to: what names resolve to is checked before it is dialled.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use mesh::{Mesh, SHORT_RETRIES, target};
use nix::sys::signal::Signal;
use support::node::{Node, run, wait_until};
use support::{Lab, Ports, change, free_address};
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
    assert!(mesh.inside.metric("zen_destinations_refused_total{reason=\"loopback\"}") >= 2.0);
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

/// A name server that answers every question for IPv4 with an address that can be changed.
struct NameServer {
    address: Ipv4Addr,
    answer: Arc<Mutex<Ipv4Addr>>,
}

impl NameServer {
    /// At an address that tests of other processes do not take; port 53 needs root.
    fn start(answer: Ipv4Addr) -> Self {
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let address = Ipv4Addr::new(127, 53, high, low);
        let socket = UdpSocket::bind((address, 53)).unwrap_or_else(|error| {
            panic!("{address}:53: {error}; a name server's port needs root, and a process of its own")
        });
        let shared = Arc::new(Mutex::new(answer));
        let answer = Arc::clone(&shared);
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut query) {
                let reply = reply(&query[..len], *shared.lock().unwrap());
                socket.send_to(&reply, from).unwrap();
            }
        });
        Self { address, answer }
    }

    fn rebind(&self, answer: Ipv4Addr) {
        *self.answer.lock().unwrap() = answer;
    }
}

/// RFC 1035 section 4.1: the question again, and one record that no cache may keep, or none for other types than A.
fn reply(query: &[u8], answer: Ipv4Addr) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|&byte| byte == 0).unwrap() + 1;
    let asks_for_a = query[name_end..name_end + 2] == [0, 1];
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(asks_for_a), 0, 0, 0, 0]);
    reply.extend(&query[12..name_end + 4]);
    if asks_for_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        reply.extend(answer.octets());
    }
    reply
}

#[test]
fn a_name_that_is_rebound_is_not_followed() {
    let (own, other) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let victim = TcpListener::bind((other, target.address.port())).unwrap();
    victim.set_nonblocking(true).unwrap();
    let names = NameServer::start(own);
    let section = lab.target_text("demo", target.address, "retry_schedule_ms = [100, 60000]");
    let address = target.address;
    let mut mesh = Mesh::start_with(lab, &section, str::to_owned, |text| {
        named(text, address, "billing.example", "\"127.0.0.1/32\"")
    });
    mesh.inside.terminate();
    let resolv = mesh.lab.write("resolv.conf", &format!("nameserver {}\n", names.address));
    let script = format!("mount --bind {} /etc/resolv.conf", resolv.display());
    mesh.inside = Node::start_behind(&script, &mesh.lab.path("inside.toml"), mesh.inside_ports.admin);
    mesh.send(b"{\"number\":1}");
    target.wait(1);

    names.rebind(other);
    // A reload resolves names anew and gives up the connections that were made before.
    mesh.inside.signal(Signal::SIGHUP);
    wait_until("the reload", || mesh.inside.get("/status").1.contains("generation 2 "));
    mesh.send(b"{\"number\":2}");
    mesh.inside.wait_metric(FORBIDDEN, 2.0);
    assert!(mesh.inside.metric("zen_destinations_refused_total{reason=\"loopback\"}") >= 2.0);
    assert_eq!(target.deliveries().len(), 1);
    let knocked = victim.accept();
    assert!(knocked.is_err(), "the address that the name was rebound to was dialled: {knocked:?}");
    assert_eq!(IpAddr::from(own), target.address.ip());
}
