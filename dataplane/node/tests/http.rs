//! Sources over real TLS: what is accepted, and each refusal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use support::client::{Client, github};
use support::{GITHUB, Lab, Ports};

mod support;

#[test]
fn a_signed_event_is_accepted() {
    let lab = Lab::new();
    let ports = Ports::pick();
    let mut node = lab.start("edge", ports, &lab.ingester_text(ports));
    let mut client = Client::connect(&lab, ports.listen);
    let answer = client.ask(&github(GITHUB, b"{\"zen\":1}", ""));
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(node.metric("zen_events_accepted_total") as u64, 1);
    drop(client);
    assert!(node.terminate().success(), "{}", node.log());
}
