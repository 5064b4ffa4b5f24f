//! A trust domain whose root changes under two running nodes: both roots, certificates of the new one, the new root alone.
//! No link is lost, and no event.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use agent::{Agent, managed_text};
use mesh::{delivered, distinct, numbered, send};
use support::client::Client;
use support::node::{Node, post_unix, wait_until};
use support::pki::{Authority, Issued};
use support::{GITHUB, Lab, Ports};
use target::{Answer, Target, TargetTls};

#[path = "support/agent.rs"]
mod agent;
#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

/// A file in one step, as whoever publishes it has to.
fn replace(lab: &Lab, name: &str, text: &str) {
    let next = lab.write_private("next", text);
    fs::rename(next, lab.path(name)).unwrap();
}

/// The key first: a look in between finds a pair that does not fit, and looks again.
fn keep(lab: &Lab, name: &str, issued: &Issued) {
    replace(lab, &format!("pki/{name}.key"), &issued.key);
    replace(lab, &format!("pki/{name}.pem"), &issued.certificate);
}

/// The target is known by a name, so that it has no part in this.
fn target(lab: &Lab) -> (Target, String) {
    let tls = TargetTls {
        certificate: &lab.path("pki/public.pem"),
        key: &lab.path("pki/public.key"),
        client_ca: None,
    };
    let target = Target::start(tls, |_, _| Answer::status(200));
    let section = format!(
        "[[egress.targets]]\nname = \"demo\"\nurl = \"https://{}/hooks/demo\"\nkey_id = \"demo-1\"\n\
         secret_file = \"secrets/target\"\nca_file = \"pki/public_ca.pem\"\nclient_certificate = \"none\"\n\n",
        target.address
    );
    (target, section)
}

#[test]
fn a_root_changes_under_a_link_that_stays() {
    let lab = Lab::new();
    let (target, section) = target(&lab);
    let next = Authority::new("The next SVID CA");
    let (edge_ports, inside_ports) = (Ports::pick(), Ports::pick());
    let text = managed_text(&lab, &lab.ingester_text(edge_ports));
    let agent = Agent::new(&lab);
    agent.publish_and_lead(&lab, 1, "edge", &text);
    let edge = Node::start_managed(&agent.directory, edge_ports.admin);
    let inside = lab.start("inside", inside_ports, &lab.egress_text(inside_ports, edge_ports.link, &section));
    let is_over = AtomicBool::new(false);
    let reload = || {
        let (status, body) = post_unix(&lab.path("inside.sock"), "/reload", "").unwrap();
        assert_eq!(status, 200, "the egress has it: {body}");
    };
    let ids = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut source = Client::connect(&lab, edge_ports.listen);
            let mut ids = Vec::new();
            while !is_over.load(Ordering::Acquire) {
                ids.push(send(&mut source, GITHUB, &numbered(ids.len(), 200)));
            }
            ids
        });
        target.wait(5);
        let publish = |number: u64, svid: &str| {
            agent.publish_and_lead(&lab, number, svid, &text);
            wait_until("the ingester has it", || edge.metric("zen_managed_generation") as u64 == number);
        };
        let both = [lab.svid_ca.pem(), next.pem()].concat();
        replace(&lab, "pki/bundle.pem", &both);
        publish(2, "edge");
        reload();
        keep(&lab, "edge-next", &next.svid("ingester/edge"));
        publish(3, "edge-next");
        keep(&lab, "inside", &next.svid("egress/inside"));
        reload();
        assert_eq!(inside.metric("zen_link_connects_total") as u64, 1, "one link, all the time");
        replace(&lab, "pki/bundle.pem", &next.pem());
        publish(4, "edge-next");
        reload();
        let so_far = target.deliveries().len();
        target.wait(so_far + 50);
        assert_eq!(inside.metric("zen_link_connects_total") as u64, 1, "one link, all the time");
        is_over.store(true, Ordering::Release);
        sender.join().unwrap()
    });
    let ids = distinct(ids);
    wait_until("everything is delivered", || {
        let delivered = delivered(&target.deliveries());
        ids.iter().all(|id| delivered.binary_search(id).is_ok())
    });
    // A link that is made now is made under the new root alone.
    drop(inside);
    let text = lab.egress_text(inside_ports, edge_ports.link, &section);
    let inside = lab.start("inside", inside_ports, &text);
    inside.wait_metric("zen_link_connects_total", 1.0);
    let id = send(&mut Client::connect(&lab, edge_ports.listen), GITHUB, b"{}");
    wait_until("over a new link", || delivered(&target.deliveries()).contains(&id));
}
