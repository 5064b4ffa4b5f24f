//! From a bundle to a node that runs by what was published: with the real control plane and the real vault.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/lab.rs"]
mod lab;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lab::{Lab, wait_until};
use nix::sys::signal::Signal;
use rcgen::{KeyPair, PublicKeyData};
use serde_json::Value;
use zen_agent::core::check_certificate;

const NODE: &str =
    "[identity]\ncertificate_file = \"identity.pem\"\nprivate_key_file = \"{{private_key}}\"\n";
const MEMBER_ID: &str = "spiffe://acme.example/ingester/edge-1";

/// An agent that runs, its node, and a configuration that both run by.
fn running() -> (Lab, lab::Node, lab::Process) {
    let lab = Lab::new();
    let bundle = lab.bundle("edge");
    let output = lab.enroll(&bundle);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("spiffe://acme.example/agent/edge") && said.contains("not needed any more"),
        "{said}"
    );
    lab.configure("edge", MEMBER_ID, NODE);
    let node = lab.start_node();
    let agent = lab.start_agent();
    wait_applied(&lab, 1);
    (lab, node, agent)
}

fn wait_applied(lab: &Lab, version: u64) {
    let applied = format!("applied version {version}\n");
    wait_until(&format!("version {version} is applied"), || lab.status().0.contains(&applied));
}

fn record(lab: &Lab, name: &str) -> Value {
    serde_json::from_str(&lab.identity(name, "record.json")).unwrap()
}

/// The public key of a private key in lockd, DER.
fn public_key(lab: &Lab, secret: &str) -> Vec<u8> {
    let pem = lab.open(secret).unwrap();
    KeyPair::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap().subject_public_key_info()
}

/// Certificate, key in lockd and configuration of the member belong together; the number of its key.
fn check_member(lab: &Lab) -> u64 {
    let (chain, roots) = (lab.published("identity.pem").unwrap(), lab.published("bundle.pem").unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let certificate = check_certificate(&chain, &roots, lab::TRUST_DOMAIN, now.as_millis() as u64).unwrap();
    assert_eq!(certificate.spiffe_id, MEMBER_ID);
    let key = record(lab, "edge-1")["key"].as_u64().unwrap();
    let node = lab.published("node.toml").unwrap();
    assert_eq!(node, NODE.replace("{{private_key}}", &format!("lockd:zen/edge-1/key-{key}")));
    assert_eq!(public_key(lab, &format!("zen/edge-1/key-{key}")), certificate.public_key);
    assert_eq!(lab.open("edge/webhooks/github").unwrap().as_slice(), b"a secret");
    key
}

#[test]
fn a_bundle_becomes_an_identity_and_a_configuration_reaches_its_node() {
    let (lab, _node, agent) = running();
    assert_eq!(check_member(&lab), 1);
    let deny: Value = serde_json::from_str(&lab.published("deny.json").unwrap()).unwrap();
    assert!(deny["entries"].is_array());
    wait_until("all is well", || lab.status().1);
    let metrics = fs::read_to_string(lab.path("agent.prom")).unwrap();
    for line in [
        "zen_agent_configuration_version 1\n",
        "zen_agent_control_plane_reachable 1\n",
        "zen_agent_health{identity=\"agent\",health=\"good\"} 1\n",
        "zen_agent_member_outcome{member=\"edge-1\",outcome=\"applied\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let overview = lab::run("zen-control", &["status", "--dir", &lab.text("control")]);
    assert!(overview.contains("edge-1"), "{overview}");
    for path in lab.files("state") {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains("PRIVATE KEY"), "{}", path.display());
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let is_shared = path.starts_with(lab.path("state/members")) || path.ends_with("status.json");
        assert_eq!(mode, if is_shared { 0o644 } else { 0o600 }, "{}", path.display());
    }
    // The bundle has done its work, and nobody else can use it; the agent says so without asking.
    assert!(agent.stop());
    let again = lab.enroll(&lab.path("bundle-edge.json"));
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(record(&lab, "agent")["generation"], 1);
}

#[test]
fn an_order_renews_everything_and_the_keys_before_stay() {
    let (lab, _node, agent) = running();
    for round in 2..=4_u64 {
        agent.signal(Signal::SIGHUP);
        wait_until("new certificates", || {
            ["agent", "edge-1"].iter().all(|name| record(&lab, name)["generation"] == round)
        });
        wait_applied(&lab, 1);
        wait_until("the node has it", || {
            lab.published("node.toml").unwrap().contains(&format!("zen/edge-1/key-{round}\""))
        });
        assert_eq!(check_member(&lab), round);
        lab.open(&format!("zen/edge-1/key-{}", round - 1))
            .expect("a node that starts between two publications");
    }
    assert!(lab.open("zen/edge-1/key-1").is_err() && lab.open("zen/agent/key-1").is_err(), "old keys go");
    // As whom it comes now: the control plane takes only what is newest.
    lab.configure("edge", MEMBER_ID, &format!("{NODE}# 2\n"));
    wait_applied(&lab, 2);
    assert!(agent.stop());
    let agent = lab.start_agent();
    wait_applied(&lab, 2);
    assert!(agent.stop());
}

#[test]
fn a_control_plane_that_is_away_changes_nothing_but_a_status_line() {
    let (mut lab, node, agent) = running();
    let before = lab.published("node.toml").unwrap();
    lab.control.take();
    wait_until("it is noticed", || lab.status().0.contains("control plane: not reachable"));
    assert!(lab.status().1, "nothing is wrong yet: {}", lab.status().0);
    assert_eq!(lab.published("node.toml").unwrap(), before);
    // A new start without it: what was taken last is in force.
    assert!(agent.stop());
    let agent = lab.start_agent();
    wait_applied(&lab, 1);
    *node.refusal.lock().unwrap() = Some("no such target".to_owned());
    lab.start_control();
    lab.configure("edge", MEMBER_ID, &format!("{NODE}# 2\n"));
    wait_until("the node's refusal is known", || {
        lab.status().0.contains("rejected version 2: no such target")
    });
    *node.refusal.lock().unwrap() = None;
    lab.configure("edge", MEMBER_ID, &format!("{NODE}# 3\n"));
    wait_applied(&lab, 3);
    assert!(agent.log().contains("the control plane answers"));
}

#[test]
fn a_configuration_that_cannot_be_published_is_reported_and_a_new_name_is_a_new_certificate() {
    let (lab, _node, agent) = running();
    lab.configure("edge", MEMBER_ID, "private_key_file = \"key.pem\"\n");
    wait_until("it is said", || {
        lab.status().0.contains("rejected version 2: its configuration has no {{private_key}}")
    });
    assert_eq!(check_member(&lab), 1, "and the one before stays");
    lab.configure("edge", "spiffe://acme.example/ingester/other", NODE);
    wait_applied(&lab, 3);
    let chain = lab.published("identity.pem").unwrap();
    let certificate = zen_agent::core::Certificate::installed(&chain).unwrap();
    assert_eq!(certificate.spiffe_id, "spiffe://acme.example/ingester/other");
    assert!(agent.stop());
}

#[test]
fn what_the_agent_kept_is_checked_again_when_it_starts() {
    let (lab, _node, agent) = running();
    assert!(agent.stop());
    let path = lab.path("state/configuration.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("identity.pem", "idemtity.pem")).unwrap();
    let agent = lab.start_agent();
    wait_until("an alarm", || agent.log().contains("signature does not hold"));
    // The control plane has the right one, which is not newer than nothing.
    wait_applied(&lab, 1);
    assert_eq!(check_member(&lab), 1);
    assert!(agent.stop());
}

#[test]
fn two_agents_do_not_share_a_directory_and_a_vault_that_is_away_is_said() {
    let lab = Lab::new();
    let (bundle, lockd_socket) = (lab.bundle("edge"), lab.path("lockd.sock"));
    let away = lab.path("away.sock");
    fs::rename(&lockd_socket, &away).unwrap();
    let output = lab.enroll(&bundle);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("is zen-lockd running"), "{said}");
    assert!(lab.status().0.contains("not enrolled"));
    let not_yet = lab.agent(&["run"]);
    assert!(String::from_utf8(not_yet.stderr).unwrap().contains("not enrolled; first: zen-agent enroll"));
    fs::rename(&away, &lockd_socket).unwrap();
    assert!(lab.enroll(&bundle).status.success(), "the bundle was not spent");
    let agent = lab.start_agent();
    wait_until("it runs", || agent.log().contains("ready"));
    let second = lab.agent(&["run"]);
    assert!(String::from_utf8(second.stderr).unwrap().contains("another zen-agent runs"));
    assert!(agent.stop());
}
