//! A deny list that nobody has confirmed for a while: an alarm, and, where that is wanted, no handshake until it is confirmed.
//! Time does not pass here: the file's time is set back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use agent::{Agent, managed_text, with_deny_list};
use mesh::{Mesh, delivered, target};
use support::client::{Client, link_config};
use support::node::{Node, run, wait_until};
use support::{Lab, Ports, change};
use target::{Answer, Target};

#[path = "support/agent.rs"]
mod agent;
#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const EMPTY: &str = "{\"version\":1,\"entries\":[]}";
const MINUTE: Duration = Duration::from_mins(1);
const FAIL_CLOSED: &str = "deny_list_fail_closed = true";

/// A path whose ingester is managed, with `keys` below `[identity]`, and its deny list.
fn path(keys: &str) -> (Mesh, Target, PathBuf) {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let (edge_ports, inside_ports) = (Ports::pick(), Ports::pick());
    let file = lab.write("deny.json", EMPTY);
    let text = with_deny_list(&managed_text(&lab, &lab.ingester_text(edge_ports)), &file);
    let edge_text = change(&text, "[identity]\n", &format!("[identity]\n{keys}\n"));
    let section = lab.target_text("demo", target.address, "");
    let pauses = "log = \"info\"\nlink_pause_ms_max = 200";
    let inside_text = lab.egress_text(inside_ports, edge_ports.link, &section);
    let inside_text = change(&inside_text, "log = \"info\"", pauses);
    let agent = Agent::new(&lab);
    agent.publish_and_lead(&lab, 1, "edge", &edge_text);
    let edge = Node::start_managed(&agent.directory, edge_ports.admin);
    let inside = lab.start("inside", inside_ports, &inside_text);
    (Mesh { edge, inside, edge_ports, inside_ports, edge_text, inside_text, lab }, target, file)
}

/// The list was confirmed so long ago.
fn confirmed(file: &PathBuf, ago: Duration) {
    File::options().write(true).open(file).unwrap().set_modified(SystemTime::now() - ago).unwrap();
}

fn status(node: &Node) -> String {
    node.get("/status").1.lines().last().unwrap().to_owned()
}

fn is_stale(node: &Node) -> bool {
    node.metric("zen_deny_list_stale") as usize == 1
}

#[test]
fn a_list_that_is_not_confirmed_raises_an_alarm_and_refuses_nobody() {
    let (mut mesh, target, file) = path("");
    mesh.send(b"{\"before\":1}");
    target.wait(1);
    assert!(status(&mesh.edge).starts_with("deny list confirmed "), "{}", status(&mesh.edge));
    confirmed(&file, 14 * MINUTE);
    wait_until("it is seen", || mesh.edge.metric("zen_deny_list_age_seconds") as u64 >= 14 * 60);
    assert!(!is_stale(&mesh.edge), "15 minutes are allowed");
    confirmed(&file, 16 * MINUTE);
    wait_until("it is old", || is_stale(&mesh.edge));
    mesh.edge.wait_log("ALARM: the deny list has not been confirmed");
    let said = status(&mesh.edge);
    assert!(
        said.starts_with("deny list not confirmed for 9") && said.contains("900 s are allowed"),
        "{said}"
    );
    mesh.inside.kill();
    mesh.restart_inside();
    let id = mesh.send(b"{\"while\":1}");
    wait_until("it is delivered all the same", || delivered(&target.deliveries()).contains(&id));
    assert_eq!(mesh.edge.log().matches("ALARM: the deny list").count(), 1, "once");
    confirmed(&file, Duration::ZERO);
    wait_until("it is new", || !is_stale(&mesh.edge));
    mesh.edge.wait_log("the deny list is confirmed again");
    confirmed(&file, 16 * MINUTE);
    wait_until("a second alarm", || mesh.edge.log().matches("ALARM: the deny list").count() == 2);
}

#[test]
fn handshakes_are_refused_until_it_is_confirmed_where_that_is_wanted() {
    let (mut mesh, target, file) = path(FAIL_CLOSED);
    mesh.send(b"{\"before\":1}");
    target.wait(1);
    confirmed(&file, 16 * MINUTE);
    wait_until("it is old", || is_stale(&mesh.edge));
    let live = mesh.send(b"{\"live\":1}");
    wait_until("a live link stays", || delivered(&target.deliveries()).contains(&live));
    mesh.inside.kill();
    mesh.restart_inside();
    mesh.edge.wait_metric("zen_link_errors_total{reason=\"deny_list_stale\"}", 2.0);
    mesh.edge.wait_log("our deny list has not been confirmed for too long");
    assert!(status(&mesh.edge).ends_with("handshakes are refused"), "{}", status(&mesh.edge));
    let waits = mesh.send(b"{\"waits\":1}");
    assert!(!delivered(&target.deliveries()).contains(&waits));
    confirmed(&file, Duration::ZERO);
    wait_until("what waited is delivered", || delivered(&target.deliveries()).contains(&waits));
}

/// A node that was away for a while knows at once.
#[test]
fn a_start_with_an_old_list_refuses_the_first_handshake() {
    let lab = Lab::new();
    let ports = Ports::pick();
    let file = lab.write("deny.json", EMPTY);
    confirmed(&file, 16 * MINUTE);
    let text = with_deny_list(&managed_text(&lab, &lab.ingester_text(ports)), &file);
    let text = change(&text, "reload_poll_ms = 100", "reload_poll_ms = 3600000");
    let agent = Agent::new(&lab);
    agent.publish_and_lead(
        &lab,
        1,
        "edge",
        &change(&text, "[identity]\n", &format!("[identity]\n{FAIL_CLOSED}\n")),
    );
    let node = Node::start_managed(&agent.directory, ports.admin);
    let config = link_config(&lab.path("pki/inside.pem"), &lab.path("pki/inside.key"));
    // A client's handshake is over before the node has looked at its certificate.
    let _client = Client::connect_with(&config, ports.link);
    node.wait_metric("zen_link_errors_total{reason=\"deny_list_stale\"}", 1.0);
    assert!(is_stale(&node));
}

#[test]
fn a_file_that_nobody_confirms_has_no_age_unless_that_is_said() {
    let lab = Lab::new();
    let ports = Ports::pick();
    let file = lab.write("deny.json", EMPTY);
    confirmed(&file, 1000 * MINUTE);
    let text = with_deny_list(&lab.ingester_text(ports), &file);
    let node = lab.start("edge", ports, &text);
    assert_eq!((node.metric("zen_deny_list_age_seconds") as u64, is_stale(&node)), (0, false));
    drop(node);
    let with = |keys: &str| change(&text, "[identity]\n", &format!("[identity]\n{keys}\n"));
    let node = lab.start("edge", ports, &with("deny_list_age_ms_max = 3600000"));
    wait_until("an hour is not enough", || is_stale(&node));
    drop(node);
    for (keys, said) in [
        (FAIL_CLOSED, "identity.deny_list_fail_closed: has no list whose age counts"),
        ("deny_list_age_ms_max = 59999", "identity.deny_list_age_ms_max: 59999 is out of bounds"),
    ] {
        let config = lab.write("checked.toml", &with(keys));
        let output = run(&["--config", config.to_str().unwrap(), "--check-config"]);
        let error = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!output.status.success() && error.contains(said), "{said}: {error}");
    }
    fs::remove_file(&file).unwrap();
}
