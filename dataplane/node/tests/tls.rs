//! TLS as peers meet it: versions, key exchange, tickets, hot reload, and who may link.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::{ClientConfig, HandshakeKind, NamedGroup};
use support::client::{
    Client, github, hello_of_tls_12, link_config, link_config_without_certificate, source_config,
    source_config_with_group,
};
use support::node::{Node, PATIENCE, wait_until};
use support::pki::Authority;
use support::{GITHUB, Lab, Ports};

mod support;

fn start() -> (Lab, Ports, Node) {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let node = lab.start("edge", ports, &lab.ingester_text(ports));
    (lab, ports, node)
}

fn leaf(config: &Arc<ClientConfig>, address: SocketAddr) -> Vec<u8> {
    let client = Client::connect_with(config, address).unwrap();
    client.tls.conn.peer_certificates().unwrap()[0].to_vec()
}

/// What the node sends, up to its close, to one that sends `bytes` first.
fn told(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    answer
}

#[test]
fn only_tls_1_3_is_spoken() {
    let (lab, ports, node) = start();
    for address in [ports.listen, ports.link] {
        let alert = told(address, &hello_of_tls_12());
        // Record of type alert, two bytes: fatal, protocol_version (RFC 8446 section 6).
        assert_eq!((alert[0], &alert[3..]), (21, &[0, 2, 2, 70][..]), "{alert:?}");
    }
    let answer = told(ports.listen, &github(GITHUB, b"{}", ""));
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    wait_until("counted", || node.metric("zen_requests_refused_total{reason=\"tls\"}") as usize == 2);
    let mut other = ClientConfig::clone(&source_config(&lab));
    other.alpn_protocols = vec![b"h2".to_vec()];
    let error = Client::connect_with(&Arc::new(other), ports.listen).err().unwrap().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
}

#[test]
fn key_exchange_is_post_quantum_where_it_is_offered() {
    let (lab, ports, _node) = start();
    for group in [NamedGroup::X25519MLKEM768, NamedGroup::X25519] {
        let config = source_config_with_group(&lab, group);
        let client = Client::connect_with(&config, ports.listen).unwrap();
        assert_eq!(client.tls.conn.negotiated_key_exchange_group().unwrap().name(), group);
    }
    let preferred = Client::connect(&lab, ports.listen);
    let group = preferred.tls.conn.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

#[test]
fn a_ticket_spares_a_handshake_and_never_carries_early_data() {
    let (lab, ports, _node) = start();
    let config = source_config(&lab);
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut client = Client::connect_with(&config, ports.listen).unwrap();
        assert_eq!(client.tls.conn.handshake_kind(), Some(expected));
        assert_eq!(client.ask(&github(GITHUB, b"{}", "")).status, 202);
        assert!(!client.tls.conn.is_early_data_accepted());
    }
}

#[test]
fn a_public_certificate_is_replaced_without_a_restart() {
    let (lab, ports, node) = start();
    let mut old_connection = Client::connect(&lab, ports.listen);
    let first = leaf(&source_config(&lab), ports.listen);
    lab.public_certificate("public");
    wait_until("the new leaf", || leaf(&source_config(&lab), ports.listen) != first);
    let second = leaf(&source_config(&lab), ports.listen);

    let good = fs::read_to_string(lab.path("pki/public.pem")).unwrap();
    for (name, broken) in [
        ("half a file", good[..good.len() / 2].to_owned()),
        ("empty", String::new()),
        ("another's", fs::read_to_string(lab.path("pki/demo.pem")).unwrap()),
    ] {
        let complaints = node.log().matches("not reloaded").count();
        lab.write("pki/public.pem", &broken);
        wait_until(name, || node.log().matches("not reloaded").count() > complaints + 1);
        assert_eq!(leaf(&source_config(&lab), ports.listen), second, "{name}");
        lab.write("pki/public.pem", &good);
    }
    assert_eq!(old_connection.ask(&github(GITHUB, b"{}", "")).status, 202, "connections stay");
    lab.public_certificate("public");
    wait_until("the third leaf", || leaf(&source_config(&lab), ports.listen) != second);
}

#[test]
fn an_svid_is_replaced_without_a_restart() {
    let (lab, ports, node) = start();
    let config = link_config(&lab.path("pki/inside.pem"), &lab.path("pki/inside.key"));
    let first = leaf(&config, ports.link);
    lab.svid("edge", "ingester/edge");
    wait_until("the new leaf", || leaf(&config, ports.link) != first);
    let second = leaf(&config, ports.link);
    let stranger = Authority::new("Another CA").svid("ingester/edge");
    lab.write_private("pki/edge.key", &stranger.key);
    lab.write("pki/edge.pem", &stranger.certificate);
    node.wait_log("X.509-SVID not reloaded");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(leaf(&config, ports.link), second, "an SVID that our bundle does not know changes nothing");
}

/// The alert with which a link's peer is refused, or none if the link stays open for a while.
fn refusal(config: &Arc<ClientConfig>, address: SocketAddr) -> Option<String> {
    let mut client = match Client::connect_with(config, address) {
        Ok(client) => client,
        Err(error) => return Some(error.to_string()),
    };
    client.tls.sock.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    loop {
        match client.tls.read(&mut [0; 1024]) {
            Ok(0) => return Some("closed".to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => return Some(error.to_string()),
        }
    }
}

#[test]
fn a_link_takes_only_who_is_allowed() {
    let (lab, ports, node) = start();
    let files = |name: &str| {
        link_config(&lab.path(&format!("pki/{name}.pem")), &lab.path(&format!("pki/{name}.key")))
    };
    assert_eq!(refusal(&files("inside"), ports.link), None);

    lab.svid("other", "egress/inside-2");
    lab.svid("deeper", "egress/inside/deeper");
    let stranger = Authority::new("Another CA").svid("egress/inside");
    lab.write("pki/stranger.pem", &stranger.certificate);
    lab.write_private("pki/stranger.key", &stranger.key);
    for (name, config, alert) in [
        ("no certificate", link_config_without_certificate(), "CertificateRequired"),
        ("another id", files("other"), "CertificateUnknown"),
        ("a longer id", files("deeper"), "CertificateUnknown"),
        ("our own id", files("edge"), "CertificateUnknown"),
        ("another CA", files("stranger"), "CertificateUnknown"),
        ("no SVID", files("public"), "CertificateUnknown"),
    ] {
        let refusal = refusal(&config, ports.link).unwrap_or_else(|| panic!("{name} is taken"));
        assert!(refusal.contains(alert), "{name}: {refusal}");
    }
    let mut wrong_protocol = ClientConfig::clone(&files("inside"));
    wrong_protocol.alpn_protocols = vec![b"http/1.1".to_vec()];
    let refusal = refusal(&Arc::new(wrong_protocol), ports.link).unwrap();
    assert!(refusal.contains("NoApplicationProtocol"), "{refusal}");
    wait_until("counted", || node.metric("zen_link_errors_total") as usize >= 7);
}
