//! What a reload changes takes effect at once, and what it may not change is refused.

use mesh::{Mesh, target};
use nix::sys::signal::Signal;
use support::change;
use support::node::wait_until;
use target::Answer;

#[path = "support/mesh.rs"]
mod mesh;
mod support;

use std::time::Duration;
#[path = "support/target.rs"]
mod target;

#[test]
fn a_target_that_moved_gets_nothing_at_its_old_address() {
    let (mesh, old) = Mesh::with_target("", |_, _| Answer::status(200));
    let new = target(&mesh.lab, "demo", |_, _| Answer::status(200));
    mesh.send(b"{}");
    old.wait(1);
    let (from, to) = (old.address.to_string(), new.address.to_string());
    mesh.lab.write("inside.toml", &change(&mesh.inside_text, &from, &to));
    mesh.inside.signal(Signal::SIGHUP);
    mesh.inside.wait_log("configuration in force");
    // The workers take a snapshot with their next tick; a kept-alive connection would last for a minute.
    wait_until("the old connection to be closed", || mesh.inside.metric("zen_target_connections") == 0.0);
    mesh.send(b"{}");
    new.wait(1);
    assert_eq!(old.deliveries().len(), 1);
}

#[test]
fn an_ingester_cannot_be_added_by_a_reload() {
    let (mut mesh, _target) = Mesh::with_target("", |_, _| Answer::status(200));
    let section = mesh.edge_text.split("[ingester]").nth(1).expect("the edge is an ingester");
    let text = format!("{}\n[ingester]{section}", mesh.inside_text);
    mesh.lab.write("inside.toml", &text);
    mesh.inside.signal(Signal::SIGHUP);
    mesh.inside.wait_log("ingester: was not there when the node started; restart the node");
    assert_eq!(mesh.inside.get("/status").1.split(';').next(), Some("generation 1 in force"));
    mesh.send(b"{}");
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 1.0);
    assert!(mesh.inside.terminate().success());
}

#[test]
fn a_link_ends_when_its_peer_is_not_configured_any_more() {
    let (mesh, target) = Mesh::with_target("", |_, _| Answer::status(200));
    mesh.send(b"{}");
    target.wait(1);
    let other = change(&mesh.edge_text, "/egress/inside\"", "/egress/outside\"");
    mesh.lab.write("edge.toml", &other);
    mesh.edge.signal(Signal::SIGHUP);
    mesh.edge.wait_metric("zen_link_errors_total{reason=\"not_admitted\"}", 1.0);
    mesh.send(b"{}");
    mesh.lab.write("edge.toml", &mesh.edge_text);
    mesh.edge.signal(Signal::SIGHUP);
    target.wait(2);
}

/// Nodes with two workers each, and a target to which eight events have come.
fn two_workers(answer: impl Fn() -> Answer + Send + Sync + 'static) -> (Mesh, target::Target) {
    let lab = support::Lab::new();
    let target = target(&lab, "demo", move |_, _| answer());
    let section = lab.target_text("demo", target.address, "");
    let two = |text: &str| change(text, "workers = 1", "workers = 2");
    let mesh = Mesh::start_with(lab, &section, two, two);
    for _ in 0..8 {
        mesh.send(b"{}");
    }
    target.wait(8);
    (mesh, target)
}

#[test]
fn fewer_workers_start_only_when_the_others_left_nothing() {
    let (mut mesh, target) = two_workers(|| Answer::status(200));
    assert!(mesh.inside.terminate().success());
    // Both journals of the ingester get events that no egress takes.
    for _ in 0..16 {
        mesh.send(b"{}");
    }
    assert!(mesh.edge.terminate().success());
    let fewer = mesh.lab.write("edge.toml", &change(&mesh.edge_text, "workers = 2", "workers = 1"));
    let refused = support::node::run(&["--config", fewer.to_str().expect("a plain path")]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("worker-1") && said.contains("drain"), "{said}");

    mesh.restart_edge();
    mesh.restart_inside();
    target.wait(24);
    wait_until("everything is acknowledged", || mesh.edge.metric("zen_link_lag_events") == 0.0);
    wait_until("nothing is left to do", || mesh.inside.metric("zen_events_live") == 0.0);
    assert!(mesh.edge.terminate().success());
    assert!(mesh.inside.terminate().success());
    mesh.edge_text = change(&mesh.edge_text, "workers = 2", "workers = 1");
    mesh.inside_text = change(&mesh.inside_text, "workers = 2", "workers = 1");
    mesh.restart_edge();
    mesh.restart_inside();
    mesh.edge.wait_log("removed the empty journal");
    mesh.inside.wait_log("removed the empty journal");
    mesh.send(b"{}");
    assert_eq!(target.wait(25).len(), 25, "nothing was delivered twice");
}

/// The worker that has a target is not the one whose journal has the event; it tells what became of it at the very end.
#[test]
fn what_a_drain_delivered_is_not_delivered_again() {
    // All are on their way, and none is answered.
    let (mut mesh, target) = two_workers(|| Answer::status(200).after(Duration::from_millis(700)));
    assert!(mesh.inside.terminate().success());
    mesh.restart_inside();
    mesh.send(b"{}");
    target.wait(9);
    wait_until("nothing is left to do", || mesh.inside.metric("zen_events_live") == 0.0);
    assert_eq!(target.wait(9).len(), 9, "nothing was delivered twice");
}
