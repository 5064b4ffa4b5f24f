//! What a reload changes takes effect at once, and what it may not change is refused.

use mesh::{Mesh, target};
use nix::sys::signal::Signal;
use support::change;
use support::node::wait_until;
use target::Answer;

#[path = "support/mesh.rs"]
mod mesh;
mod support;
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
