//! From the source to the target over both nodes: what arrives, how it is signed, and what follows
//! from each answer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use mesh::{Mesh, SHORT_RETRIES, delivered, distinct, numbered, send, target, verifier};
use nix::sys::signal::Signal;
use support::client::{github, github_head};
use support::node::{PATIENCE, wait_until};
use support::pki::TRUST_DOMAIN;
use support::{GITHUB, Lab, WHSEC, change, endpoint};
use target::{Answer, Target, TargetTls};

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const ALL_HEADERS: &str = "X-Forwarded-For: 203.0.113.7\r\nX-Secret-Thing: s\r\nTE: trailers\r\n\
    Accept-Encoding: gzip\r\nForwarded: for=203.0.113.7\r\nUser-Agent: GitHub-Hookshot/1\r\n";

#[test]
fn a_delivery_arrives_intact_and_signed() {
    let (mesh, target) = Mesh::with_target("", |_, _| Answer::status(200));
    let body: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let mut source = mesh.source();
    let answer = source.ask(&github(GITHUB, &body, ALL_HEADERS));
    assert_eq!(answer.status, 202);
    let id = answer.json()["id"].as_str().unwrap().to_owned();

    let delivery = &target.wait(1)[0];
    assert_eq!(delivery.line, "POST /hooks/demo HTTP/1.1");
    assert!(delivery.body == body, "the body is the source's, byte for byte");
    assert_eq!(delivery.header("content-type"), "application/json");
    assert_eq!(delivery.header("x-github-event"), "push");
    assert_eq!((delivery.event_id(), delivery.header("webhook-id")), (id.as_str(), id.as_str()));
    assert_eq!((delivery.header("zen-endpoint"), delivery.header("zen-attempt")), (GITHUB, "1"));
    assert_eq!(delivery.peer.as_deref(), Some(format!("spiffe://{TRUST_DOMAIN}/egress/inside").as_str()));

    let mut names: Vec<&str> = delivery.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let expected = [
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
        "x-github-event",
        "zen-attempt",
        "zen-endpoint",
        "zen-event-id",
        "zen-hops",
        "zen-signature",
    ];
    assert_eq!(names, expected, "only what is on the allow list, and what a delivery has of its own");
    assert!(delivery.header("user-agent").starts_with("zen-mesh/"));
    assert_eq!(delivery.verify(&mut verifier("demo")), Ok(id));
    delivery.check_standard_webhooks(WHSEC);
    assert_eq!(
        delivery.verify(&mut verifier("other")).unwrap_err().to_string(),
        "delivery: the key id is unknown"
    );
}

#[test]
fn a_chunked_body_arrives_whole() {
    let (mesh, target) = Mesh::with_target("", |_, _| Answer::status(204));
    let mut source = mesh.source();
    source.send(github_head(GITHUB, b"hello world", "Transfer-Encoding: chunked\r\n").as_bytes());
    source.send(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    assert_eq!(source.answer().status, 202);
    let delivery = &target.wait(1)[0];
    assert_eq!((delivery.body.as_slice(), delivery.header("content-length")), (&b"hello world"[..], "11"));
    delivery.verify(&mut verifier("demo")).unwrap();
}

#[test]
fn a_retry_has_the_same_id_and_a_fresh_signature() {
    let (mesh, target) =
        Mesh::with_target(SHORT_RETRIES, |number, _| Answer::status(if number == 0 { 500 } else { 200 }));
    let id = mesh.send(b"{}");
    let deliveries = target.wait(2);
    let mut verifier = verifier("demo");
    for (delivery, attempt) in deliveries.iter().zip(["1", "2"]) {
        assert_eq!((delivery.header("webhook-id"), delivery.header("zen-attempt")), (id.as_str(), attempt));
        delivery.verify(&mut verifier).unwrap();
        delivery.check_standard_webhooks(WHSEC);
    }
    let [first, second] = [0, 1].map(|index| deliveries[index].header("zen-signature").to_owned());
    let field = |text: &str, at: usize| text.split(',').nth(at).unwrap().to_owned();
    assert_ne!(field(&first, 1), field(&second, 1), "time");
    assert_ne!(field(&first, 2), field(&second, 2), "nonce");
    assert!(deliveries[1].at - deliveries[0].at >= Duration::from_millis(45), "the schedule says 50 ms");
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 1.0);
    assert_eq!(mesh.inside.metric("zen_deliveries_total{outcome=\"server_error\"}") as u64, 1);
    assert_eq!(mesh.inside.metric("zen_retries_total") as u64, 1);
    assert_eq!(target.connections(), 1, "the connection survives an answer of any status");
}

#[test]
fn retry_after_is_honoured() {
    let (mesh, target) = Mesh::with_target(SHORT_RETRIES, |number, _| match number {
        0 => Answer::status(503).with("retry-after", "1"),
        _ => Answer::status(200),
    });
    mesh.send(b"{}");
    let deliveries = target.wait(2);
    let pause = deliveries[1].at - deliveries[0].at;
    assert!((950..3_000).contains(&pause.as_millis()), "{pause:?} instead of a second");
}

#[test]
fn a_redirect_is_a_failure_and_is_not_followed() {
    let lab = Lab::new();
    let elsewhere = target(&lab, "demo", |_, _| Answer::status(200));
    let location = format!("https://{}/stolen", elsewhere.address);
    let redirecting = target(&lab, "demo", move |number, _| match number {
        0..3 => Answer::status([301, 302, 307][number]).with("location", location.clone()),
        _ => Answer::status(200),
    });
    let section = lab.target_text("demo", redirecting.address, "retry_schedule_ms = [50, 50, 50]");
    let mesh = Mesh::start(lab, &section);
    mesh.send(b"{}");
    redirecting.wait(4);
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"redirected\"}", 3.0);
    assert_eq!(elsewhere.connections(), 0, "nobody dials a Location");
}

#[test]
fn after_the_schedule_a_delivery_is_a_dead_letter() {
    let (mesh, target) = Mesh::with_target(SHORT_RETRIES, |_, _| Answer::status(500));
    mesh.send(b"{}");
    mesh.inside.wait_metric("zen_dead_letters_total", 1.0);
    assert_eq!(target.deliveries().len(), 3);
    mesh.inside.wait_metric("zen_dead_letters_kept", 1.0);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(target.deliveries().len(), 3, "a dead letter is not tried again");
}

#[test]
fn gone_disables_the_target_and_keeps_its_events() {
    let lab = Lab::new();
    let gone = target(&lab, "demo", |_, _| Answer::status(410));
    let well = target(&lab, "demo", |_, _| Answer::status(200));
    let sections =
        lab.target_text("demo", gone.address, SHORT_RETRIES) + &lab.target_text("well", well.address, "");
    let mut mesh = Mesh::start_with(lab, &sections, both_targets, str::to_owned);
    mesh.send(b"1");
    mesh.inside.wait_metric("zen_targets_disabled", 1.0);
    let ids = [mesh.send(b"2"), mesh.send(b"3")];
    assert_eq!(delivered(&well.wait(3)).len(), 3, "the other target gets everything");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(gone.deliveries().len(), 1, "a disabled target is left alone");
    assert_eq!(mesh.inside.metric("zen_dead_letters_total") as u64, 0);
    wait_until("three are live", || mesh.inside.metric("zen_events_live") as u64 == 3);

    gone.script(|_, _| Answer::status(200));
    mesh.inside.terminate();
    mesh.restart_inside();
    let kept = delivered(&gone.wait(4)[1..]);
    assert_eq!(kept.len(), 3, "all that was kept is delivered");
    assert!(ids.iter().all(|id| kept.contains(id)));
}

#[test]
fn a_slow_target_delays_nobody_else() {
    let lab = Lab::new();
    let slow = target(&lab, "demo", |_, _| Answer::status(200).after(PATIENCE));
    let well = target(&lab, "demo", |_, _| Answer::status(200));
    let sections = lab.target_text("demo", slow.address, "in_flight_max = 2")
        + &lab.target_text("well", well.address, "");
    let mesh = Mesh::start_with(lab, &sections, both_targets, str::to_owned);
    mesh.send_many(20, 100);
    well.wait(20);
    slow.wait(2);
    assert_eq!(slow.deliveries().len(), 2, "it has not answered yet");
    assert!(slow.busy_max() <= 2, "in_flight_max is 2, {} were busy", slow.busy_max());
}

#[test]
fn in_flight_max_bounds_attempts_and_connections_are_reused() {
    let (mesh, target) =
        Mesh::with_target("in_flight_max = 3", |_, _| Answer::status(200).after(Duration::from_millis(20)));
    let ids = mesh.send_many(40, 100);
    let deliveries = target.wait(40);
    assert_eq!(delivered(&deliveries), distinct(ids));
    let line = "POST /hooks/demo HTTP/1.1";
    assert!(
        deliveries.iter().all(|delivery| delivery.line == line),
        "one request ends where the next begins"
    );
    assert!(target.busy_max() <= 3, "{} at once", target.busy_max());
    assert!(target.connections() <= 3, "{} connections for 40 deliveries", target.connections());
    assert_eq!(target.deliveries().len(), 40, "each once");
}

#[test]
fn an_attempt_that_takes_too_long_is_given_up() {
    let extra = format!("attempt_timeout_ms = 200\n{SHORT_RETRIES}");
    let (mesh, target) = Mesh::with_target(&extra, |number, _| match number {
        0 => Answer::status(200).after(PATIENCE),
        _ => Answer::status(200),
    });
    mesh.send(b"{}");
    target.wait(2);
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"timed_out\"}", 1.0);
    assert_eq!(target.connections(), 2, "a connection with an attempt given up is not used again");
}

#[test]
fn a_kept_alive_connection_that_the_target_closed_costs_no_attempt() {
    let (mesh, target) = Mesh::with_target("retry_schedule_ms = []", |_, _| Answer::status(200).closing());
    for round in 0..5 {
        mesh.send(&numbered(round, 10));
        target.wait(round + 1);
    }
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 5.0);
    assert_eq!(mesh.inside.metric("zen_deliveries_total") as u64, 5, "no attempt failed");
    assert!(target.deliveries().iter().all(|delivery| delivery.header("zen-attempt") == "1"));
}

#[test]
fn a_request_lost_on_a_used_connection_is_sent_again_without_counting() {
    // The second request is read and then dropped with its connection, as by a target that shuts down.
    let (mesh, target) = Mesh::with_target("retry_schedule_ms = []", |number, _| {
        Answer::status(if number == 1 { 0 } else { 200 })
    });
    mesh.send(b"1");
    target.wait(1);
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 1.0);
    let id = mesh.send(b"2");
    let deliveries = target.wait(3);
    assert_eq!((deliveries[1].event_id(), deliveries[2].event_id()), (id.as_str(), id.as_str()));
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 2.0);
    assert_eq!(mesh.inside.metric("zen_deliveries_total") as u64, 2);
}

#[test]
fn a_target_with_the_wrong_spiffe_id_gets_nothing() {
    let lab = Lab::new();
    lab.svid("impostor", "target/impostor");
    let impostor = target(&lab, "impostor", |_, _| Answer::status(200));
    let section = lab.target_text("demo", impostor.address, SHORT_RETRIES);
    let mesh = Mesh::start(lab, &section);
    mesh.send(b"{}");
    mesh.inside.wait_metric("zen_dead_letters_total", 1.0);
    assert_eq!(mesh.inside.metric("zen_deliveries_total{outcome=\"tls_failed\"}") as u64, 3);
    wait_until("the target has seen all three fail", || impostor.handshakes_failed() == 3);
    assert_eq!(impostor.deliveries().len(), 0);
}

#[test]
fn a_target_known_by_name_may_opt_out_of_our_certificate_and_is_counted() {
    let lab = Lab::new();
    let [certificate, key] = ["pki/public.pem", "pki/public.key"].map(|name| lab.path(name));
    let tls = TargetTls { certificate: &certificate, key: &key, client_ca: None };
    let plain = Target::start(tls, |_, _| Answer::status(200));
    let section = format!(
        "[[egress.targets]]\nname = \"demo\"\nurl = \"https://localhost:{}/in\"\nkey_id = \"demo-1\"\n\
         secret_file = \"secrets/target\"\nca_file = \"pki/public_ca.pem\"\nclient_certificate = \"none\"\n",
        plain.address.port()
    );
    let mesh = Mesh::start(lab, &section);
    mesh.send(b"{}");
    let delivery = &plain.wait(1)[0];
    assert_eq!((delivery.peer.as_deref(), delivery.line.as_str()), (None, "POST /in HTTP/1.1"));
    assert_eq!(delivery.header("host"), format!("localhost:{}", plain.address.port()));
    delivery.verify(&mut verifier("demo")).unwrap();
    mesh.inside.wait_metric("zen_deliveries_without_client_certificate_total", 1.0);
}

#[test]
fn the_queue_survives_a_kill_of_the_egress() {
    let (mut mesh, target) =
        Mesh::with_target("in_flight_max = 1", |_, _| Answer::status(200).after(Duration::from_mins(1)));
    let ids = mesh.send_many(30, 2_000);
    mesh.inside.wait_metric("zen_link_events_received_total", 30.0);
    target.wait(1);
    mesh.inside.kill();
    target.script(|_, _| Answer::status(200));
    mesh.restart_inside();
    wait_until("everything is delivered", || delivered(&target.deliveries()) == distinct(ids.clone()));
    assert_eq!(target.deliveries().len(), 31, "only the attempt under way was made twice");
}

#[test]
fn retries_go_on_where_they_were_after_a_kill() {
    let extra = "retry_schedule_ms = [50, 1500, 50]\nretry_jitter_percent = 0";
    let (mut mesh, target) = Mesh::with_target(extra, |_, _| Answer::status(500));
    mesh.send(b"{}");
    target.wait(2);
    mesh.inside.wait_metric("zen_retries_total", 2.0);
    mesh.inside.wait_metric("zen_journal_records_total", 3.0);
    mesh.inside.kill();
    mesh.restart_inside();
    let deliveries = target.wait(4);
    let attempts: Vec<&str> = deliveries.iter().map(|delivery| delivery.header("zen-attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3", "4"]);
    mesh.inside.wait_metric("zen_dead_letters_total", 1.0);
}

#[test]
fn events_of_a_removed_target_are_dead_letters() {
    let lab = Lab::new();
    let dead = target(&lab, "demo", |_, _| Answer::status(500));
    let hung = target(&lab, "demo", |_, _| Answer::status(200).after(Duration::from_mins(1)));
    let sections = lab.target_text("demo", dead.address, "") + &lab.target_text("well", hung.address, "");
    let mesh = Mesh::start_with(lab, &sections, both_targets, str::to_owned);
    mesh.send(b"{}");
    dead.wait(1);
    hung.wait(1);

    let (kept, _) = mesh.inside_text.split_once("[[egress.targets]]").unwrap();
    mesh.lab.write("inside.toml", kept);
    mesh.inside.signal(Signal::SIGHUP);
    mesh.inside.wait_log("generation=2");
    mesh.inside.wait_metric("zen_dead_letters_total", 2.0);
    mesh.send(b"after the removal");
    mesh.inside.wait_metric("zen_dead_letters_total", 4.0);
    mesh.inside.wait_metric("zen_dead_letters_kept", 4.0);
}

#[test]
fn a_target_that_comes_back_is_delivered_to() {
    let (mesh, target) = Mesh::with_target("", |number, _| {
        Answer::status(200).after(Duration::from_secs(u64::from(number == 0)))
    });
    mesh.send(b"first");
    target.wait(1);
    let (without, _) = mesh.inside_text.split_once("[[egress.targets]]").unwrap();
    mesh.lab.write("inside.toml", without);
    mesh.inside.signal(Signal::SIGHUP);
    mesh.inside.wait_log("generation=2");
    mesh.lab.write("inside.toml", &mesh.inside_text);
    mesh.inside.signal(Signal::SIGHUP);
    mesh.inside.wait_log("generation=3");
    // The answer to the attempt of before the removal comes now.
    std::thread::sleep(Duration::from_millis(1_300));
    let id = mesh.send(b"second");
    assert_eq!(target.wait(2)[1].event_id(), id);
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 1.0);
}

#[test]
fn both_roles_in_one_process() {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let ports = support::Ports::pick();
    let egress = lab.egress_text(ports, ports.link, &lab.target_text("demo", target.address, ""));
    let egress = egress.split_once("[egress]").unwrap().1;
    let text =
        lab.ingester_text(ports).replace("\"inside\"", "\"edge\"").replace("egress/inside", "ingester/edge");
    let node = lab.start("edge", ports, &format!("{text}[egress]{egress}"));
    let mut source = support::client::Client::connect(&lab, ports.listen);
    let ids: Vec<String> = (0..10).map(|index| send(&mut source, GITHUB, &numbered(index, 500))).collect();
    assert_eq!(delivered(&target.wait(10)), distinct(ids));
    assert_eq!(node.metric("zen_link_connects_total") as u64, 2, "one link, counted by both ends");
}

/// The flow of the GitHub endpoint, fanned out to `demo` and `well`.
fn both_targets(text: &str) -> String {
    let one = endpoint(GITHUB, "github", "source", "");
    let flow = one.split_once("[[ingester.endpoints]]").unwrap().0;
    change(text, flow, &flow.replace("[\"demo\"]", "[\"demo\", \"well\"]"))
}
