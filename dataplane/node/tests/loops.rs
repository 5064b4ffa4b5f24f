//! Events that come back: counted hop by hop, and ended with 508 where an endpoint's bound is passed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use mesh::{Mesh, SHORT_RETRIES, target};
use support::client::{Answer, github};
use support::node::wait_until;
use support::{GITHUB, Lab, STANDARD, change};

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const BODY: &[u8] = b"{}";

fn refused(mesh: &Mesh, reason: &str) -> u64 {
    mesh.edge.metric(&format!("zen_requests_refused_total{{reason=\"{reason}\"}}")) as u64
}

fn with_hops(mesh: &Mesh, endpoint: &str, lines: &str) -> Answer {
    mesh.source().ask(&github(endpoint, BODY, lines))
}

#[test]
fn each_delivery_is_one_hop_more_than_its_request() {
    let (mesh, target) = Mesh::with_target("", |_, _| target::Answer::status(200));
    for (count, (lines, expected)) in
        (1..).zip([("", "1"), ("Zen-Hops: 0\r\n", "1"), ("zen-hops: 3\r\n", "4"), ("zen-hops: 8\r\n", "9")])
    {
        assert_eq!(with_hops(&mesh, GITHUB, lines).status, 202, "{lines}");
        let delivery = target.wait(count).pop().unwrap();
        assert_eq!(delivery.values("zen-hops"), [expected], "{lines}");
        delivery.verify(&mut mesh::verifier("demo")).unwrap();
    }
    for (lines, status, reason) in [
        ("zen-hops: 9\r\n", 508, "loop"),
        ("zen-hops: 255\r\n", 508, "loop"),
        ("zen-hops: 256\r\n", 400, "malformed_hops"),
        ("zen-hops: -1\r\n", 400, "malformed_hops"),
        ("zen-hops: 01\r\n", 400, "malformed_hops"),
        ("zen-hops: \r\n", 400, "malformed_hops"),
        ("zen-hops: 1\r\nzen-hops: 1\r\n", 400, "malformed_hops"),
    ] {
        let before = refused(&mesh, reason);
        let answer = with_hops(&mesh, GITHUB, lines);
        assert_eq!(answer.status, status, "{lines}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{lines}");
        assert_eq!(answer.header("connection"), Some("keep-alive"), "the whole request was read: {lines}");
        assert_eq!(refused(&mesh, reason), before + 1, "{lines}");
    }
    assert_eq!(mesh.edge.metric("zen_events_accepted_total") as u64, 4);
}

#[test]
fn an_endpoint_may_take_nothing_from_other_nodes() {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| target::Answer::status(200));
    let section = lab.target_text("demo", target.address, "");
    let edit = |text: &str| {
        let headers = "forward_headers = [\"x-github-event\"]";
        change(text, headers, &format!("{headers}\nhops_max = 0"))
    };
    let mesh = Mesh::start_with(lab, &section, edit, str::to_owned);
    assert_eq!(with_hops(&mesh, GITHUB, "zen-hops: 1\r\n").status, 508);
    assert_eq!(with_hops(&mesh, GITHUB, "").status, 202);
    let unsigned = String::from_utf8(github(GITHUB, BODY, "zen-hops: 1\r\n")).unwrap();
    let unsigned = change(&unsigned, &support::client::signature(BODY), "sha256=00");
    assert_eq!(mesh.source().ask(unsigned.as_bytes()).status, 401, "who is not verified learns no bound");
}

#[test]
fn a_target_that_hands_events_back_is_stopped() {
    let lab = Lab::new();
    let section = |port: &str| {
        format!(
            "[[egress.targets]]\nname = \"demo\"\nurl = \"https://localhost:{port}/hooks/{STANDARD}\"\n\
             key_id = \"demo-1\"\nsecret_file = \"secrets/standard\"\nca_file = \"pki/public_ca.pem\"\n\
             client_certificate = \"none\"\n{SHORT_RETRIES}\n\n"
        )
    };
    // Its own ingester is the target: each delivery is an event again, with an id of its own.
    let edge_text = std::cell::RefCell::new(String::new());
    let keep = |text: &str| {
        edge_text.replace(text.to_owned());
        text.to_owned()
    };
    let point_back = |text: &str| {
        let listen = edge_text.borrow();
        let listen = listen.split_once("[ingester]\nlisten = [\"127.0.0.1:").unwrap().1;
        format!("{text}{}", section(listen.split_once('"').unwrap().0))
    };
    let mesh = Mesh::start_with(lab, "", keep, point_back);
    mesh.send(BODY);
    wait_until("the loop is ended", || mesh.inside.metric("zen_dead_letters_total") as u64 == 1);
    assert_eq!(mesh.edge.metric("zen_events_accepted_total") as u64, 1 + 8, "the first, and hops 1 to 8");
    assert_eq!(refused(&mesh, "loop"), 1, "a 508 is the last attempt");
}
