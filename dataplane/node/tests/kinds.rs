//! Kinds of targets: how a node proves itself to them, and what they are sent.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mesh::{Mesh, SHORT_RETRIES, distinct, numbered, send, target, verifier};
use nix::sys::signal::Signal;
use support::client::github;
use support::node::{run, wait_until};
use support::{GITHUB, Lab, Ports, WHSEC, change};
use target::{Answer, Delivery, Target, TargetTls};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const BEARER: &str = "authorization = { kind = \"bearer\", token_file = \"secrets/token\" }";
const BASIC: &str =
    "authorization = { kind = \"basic\", username = \"ada\", password_file = \"secrets/password\" }";

/// A mesh whose one target has these keys, with secrets for them.
fn mesh_with(extra: &str) -> (Mesh, target::Target) {
    let lab = Lab::new();
    lab.write_private("secrets/token", "first.Token-1~+/==\n");
    lab.write_private("secrets/password", "pass: word\n");
    let demo = target(&lab, "demo", |number, _| Answer::status(if number == 0 { 500 } else { 200 }));
    let section = lab.target_text("demo", demo.address, &format!("{SHORT_RETRIES}\n{extra}"));
    (Mesh::start(lab, &section), demo)
}

#[test]
fn a_token_is_sent_with_each_attempt_and_changes_with_a_reload() {
    let (mesh, demo) = mesh_with(BEARER);
    let id = mesh.send(b"{}");
    for delivery in &demo.wait(2) {
        assert_eq!(delivery.header("authorization"), "Bearer first.Token-1~+/==");
        assert_eq!(delivery.verify(&mut verifier("demo")).as_deref(), Ok(&*id));
        delivery.check_standard_webhooks(WHSEC);
    }
    mesh.lab.write_private("secrets/token", "second");
    mesh.inside.signal(Signal::SIGHUP);
    mesh.inside.wait_log("configuration in force");
    mesh.send(b"{}");
    assert_eq!(demo.wait(3)[2].header("authorization"), "Bearer second");

    mesh.lab.write_private("secrets/token", "not one token");
    mesh.inside.signal(Signal::SIGHUP);
    mesh.inside.wait_log("configuration refused");
    mesh.send(b"{}");
    assert_eq!(demo.wait(4)[3].header("authorization"), "Bearer second");
    let (log, status) = (mesh.inside.log(), mesh.inside.get("/status").1);
    for secret in ["first.Token", "second", "not one token"] {
        assert!(!log.contains(secret) && !status.contains(secret), "{secret} in {log}{status}");
    }
}

#[test]
fn a_password_is_sent_as_basic() {
    let (mesh, demo) = mesh_with(BASIC);
    mesh.send(b"{}");
    assert_eq!(demo.wait(1)[0].header("authorization"), "Basic YWRhOnBhc3M6IHdvcmQ=");
}

#[test]
fn what_cannot_be_credentials_is_refused_and_not_shown() {
    let lab = Lab::new();
    lab.write_private("secrets/token", "token");
    lab.write_private("secrets/password", "password");
    lab.write_private("secrets/spaced", "a SECRET of many words");
    lab.write_private("secrets/lines", "SECRET\r\nx-evil: 1");
    lab.write_private("secrets/long", &"SECRET".repeat(500));
    lab.write("secrets/open", "SECRET");
    let address = "127.0.0.1:1".parse().unwrap();
    let cases = [
        (BEARER, "secrets/token", "secrets/spaced", "authorization.token_file"),
        (BEARER, "secrets/token", "secrets/lines", "authorization.token_file"),
        (BEARER, "secrets/token", "secrets/open", "readable by others"),
        (BEARER, "secrets/token", "secrets/none", "authorization.token_file"),
        (BEARER, ", token_file = \"secrets/token\"", "", "authorization.token_file: is missing"),
        (BEARER, "kind", "username = \"u\", kind", "username: does not belong to bearer"),
        (BEARER, "bearer", "digest", "docs/configuration.md"),
        (BASIC, "ada", "a:da", "without colon"),
        (BASIC, "ada", "a\\nda", "control character"),
        (BASIC, "secrets/password", "secrets/lines", "control character"),
        (BASIC, "secrets/password", "secrets/long", "at most 1024 bytes"),
        (BASIC, "username = \"ada\", ", "", "authorization.username: is missing"),
        (BASIC, "kind", "token_file = \"secrets/token\", kind", "token_file: does not belong to basic"),
    ];
    for (good, from, to, says) in cases {
        let text = lab.egress_text(
            Ports::pick(),
            address,
            &lab.target_text("demo", address, &change(good, from, to)),
        );
        let file = lab.write("inside.toml", &text);
        let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{to}: {said}");
        assert!(said.contains(says) && !said.contains("SECRET"), "{to}: \"{says}\" in {said}");
    }
}

#[test]
fn the_sources_authorization_is_not_forwarded() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let text = change(
        &lab.ingester_text(ports),
        "forward_headers = [\"x-github-event\"]",
        "forward_headers = [\"authorization\"]",
    );
    let file = lab.write("edge.toml", &text);
    let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("forward_headers"), "{said}");
}

/// A CloudEvent of the source's own, and what comes of it at a target with these keys.
fn forwarded_cloud_event(extra: &str, body: &[u8]) -> (String, Delivery) {
    let lab = Lab::new();
    let demo = target(&lab, "demo", |_, _| Answer::status(200));
    let section = lab.target_text("demo", demo.address, extra);
    let forward = |text: &str| {
        let to = "forward_headers = [\"x-github-event\", \"ce-id\", \"ce-custom\", \"ce\"]";
        change(text, "forward_headers = [\"x-github-event\"]", to)
    };
    let mesh = Mesh::start_with(lab, &section, forward, str::to_owned);
    let answer = mesh.source().ask(&github(GITHUB, body, "CE-Id: theirs\r\nce-custom: 1\r\nce: 2\r\n"));
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let delivery = demo.wait(1)[0].clone();
    assert_eq!(delivery.verify(&mut verifier("demo")).as_deref(), Ok(&*id));
    delivery.check_standard_webhooks(WHSEC);
    assert_eq!((delivery.header("x-github-event"), delivery.header("ce")), ("push", "2"));
    (id, delivery)
}

#[test]
fn a_binary_cloud_event_has_signed_attributes_of_its_own() {
    let (id, delivery) = forwarded_cloud_event("format = \"cloudevents-binary\"", b"not json");
    assert_eq!(delivery.header("ce-id"), id);
    assert_eq!(delivery.header("ce-source"), format!("/hooks/{GITHUB}"));
    assert_eq!(delivery.header("ce-type"), "io.zen-mesh.webhook");
    assert_eq!(delivery.header("ce-specversion"), "1.0");
    let time = OffsetDateTime::parse(delivery.header("ce-time"), &Rfc3339).unwrap();
    assert!((OffsetDateTime::now_utc() - time).abs() < time::Duration::MINUTE, "{time}");
    assert!(delivery.values("ce-custom").is_empty());
    assert_eq!((delivery.header("content-type"), &delivery.body[..]), ("application/json", &b"not json"[..]));

    let mut forged = delivery;
    let kind = forged.headers.iter_mut().find(|(name, _)| name == "ce-type").unwrap();
    kind.1.push('x');
    assert!(forged.verify(&mut verifier("demo")).is_err(), "the attributes are signed");
}

#[test]
fn a_structured_cloud_event_encloses_the_body() {
    const NAMED: &str = "format = \"cloudevents-structured\"\ncloudevents_type = \"com.github.push\"\n\
        cloudevents_source = \"https://github.com/zen\"";
    let body = b"{ \"a\":\n [1.0, \"\\u00e9\"] }";
    let (id, delivery) = forwarded_cloud_event(NAMED, body);
    assert_eq!(delivery.header("content-type"), "application/cloudevents+json");
    assert!(delivery.headers.iter().all(|(name, _)| !name.starts_with("ce-")), "{:?}", delivery.headers);
    let text = String::from_utf8(delivery.body).unwrap();
    assert!(text.contains(std::str::from_utf8(body).unwrap()), "{text}");
    let event: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&event["id"], &event["specversion"]), (&id.into(), &"1.0".into()));
    assert_eq!(event["source"], "https://github.com/zen");
    assert_eq!(
        (&event["type"], &event["datacontenttype"]),
        (&"com.github.push".into(), &"application/json".into())
    );
    assert_eq!(event["data"]["a"][0], 1.0);

    // It says JSON and is none: a consumer must not take it for data.
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let (_, delivery) = forwarded_cloud_event(NAMED, &bytes);
    let event: serde_json::Value = serde_json::from_slice(&delivery.body).unwrap();
    assert_eq!(event.get("data"), None);
    assert_eq!(BASE64.decode(event["data_base64"].as_str().unwrap()).unwrap(), bytes);
}

#[test]
fn attributes_belong_to_cloud_events() {
    let (lab, address) = (Lab::new(), "127.0.0.1:1".parse().unwrap());
    for (extra, says) in [
        ("cloudevents_type = \"a\"", "cloudevents_type: does not belong to the format original"),
        (
            "format = \"cloudevents-binary\"\ncloudevents_source = \"a b\"",
            "cloudevents_source: source: expected",
        ),
        (
            "format = \"cloudevents-structured\"\ncloudevents_type = \"a\\\"\"",
            "cloudevents_type: type: expected",
        ),
        ("format = \"cloudevents\"", "docs/configuration.md"),
    ] {
        let text = lab.egress_text(Ports::pick(), address, &lab.target_text("demo", address, extra));
        let file = lab.write("inside.toml", &text);
        let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(says), "\"{says}\" in {said}");
    }
}

/// A target's section behind a unix socket in the lab.
fn unix_section(name: &str, extra: &str) -> String {
    format!(
        "[[egress.targets]]\nname = \"{name}\"\nurl = \"http://localhost/in\"\nunix_socket = \"app.sock\"\n\
         key_id = \"{name}-1\"\nsecret_file = \"secrets/target\"\n{extra}\n\n"
    )
}

#[test]
fn a_unix_socket_gets_signed_deliveries_over_connections_that_stay() {
    let lab = Lab::new();
    let ours = lab.path("pki").metadata().unwrap().uid();
    let demo = Target::start_unix(&lab.path("app.sock"), |number, _| match number {
        0 => Answer::status(500),
        1 => Answer::status(200).closing(),
        _ => Answer::status(200),
    });
    let mesh = Mesh::start(lab, &unix_section("demo", &format!("{SHORT_RETRIES}\npeer_uid = {ours}")));
    let body = numbered(0, 300_000);
    let id = mesh.send(&body);
    let deliveries = demo.wait(2);
    for delivery in &deliveries {
        assert_eq!((delivery.line.as_str(), delivery.header("host")), ("POST /in HTTP/1.1", "localhost"));
        assert!(delivery.body == body);
        assert_eq!(delivery.verify(&mut verifier("demo")).as_deref(), Ok(&*id));
        delivery.check_standard_webhooks(WHSEC);
    }
    assert_eq!((deliveries[0].connection, deliveries[1].connection), (0, 0));
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 1.0);
    // It had closed the connection that was kept.
    mesh.send(b"{}");
    assert_eq!(demo.wait(3)[2].connection, 1);
    assert_eq!(mesh.inside.metric("zen_deliveries_without_client_certificate_total") as u64, 0);
}

#[test]
fn a_unix_socket_that_is_not_there_is_tried_again_and_named() {
    let mesh = Mesh::start(
        Lab::new(),
        &unix_section("demo", "retry_schedule_ms = [200, 200, 200, 200, 200, 200, 5000]"),
    );
    let id = mesh.send(b"{}");
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"connect_no_socket\"}", 1.0);
    let demo = Target::start_unix(&mesh.lab.path("app.sock"), |_, _| Answer::status(200));
    assert_eq!(demo.wait(1)[0].event_id(), id);
}

#[test]
fn a_unix_socket_that_another_user_listens_on_gets_nothing() {
    let lab = Lab::new();
    let other = lab.path("pki").metadata().unwrap().uid() + 1;
    let demo = Target::start_unix(&lab.path("app.sock"), |_, _| Answer::status(200));
    let mesh = Mesh::start(lab, &unix_section("demo", &format!("{SHORT_RETRIES}\npeer_uid = {other}")));
    mesh.send(b"{}");
    mesh.inside.wait_metric("zen_dead_letters_total", 1.0);
    assert_eq!(mesh.inside.metric("zen_deliveries_total{outcome=\"connect_wrong_peer\"}") as u64, 3);
    assert!(demo.connections() >= 1 && demo.deliveries().is_empty());
}

#[test]
fn a_unix_socket_that_does_not_answer_is_given_up_in_time() {
    let lab = Lab::new();
    let silent = Duration::from_secs(30);
    let demo = Target::start_unix(&lab.path("app.sock"), move |_, _| Answer::status(200).after(silent));
    let mesh = Mesh::start(lab, &unix_section("demo", &format!("{SHORT_RETRIES}\nattempt_timeout_ms = 200")));
    mesh.send(b"{}");
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"timed_out\"}", 3.0);
    assert_eq!(demo.wait(3).len(), 3);
}

#[test]
fn a_unix_socket_stands_by_for_a_target_that_is_down() {
    let lab = Lab::new();
    let demo = Target::start_unix(&lab.path("app.sock"), |_, _| Answer::status(200));
    let long = "retry_schedule_ms = [600000]";
    let nowhere = lab.target_text("first", support::free_address(), long);
    let output = "[[egress.outputs]]\nname = \"demo\"\nprimary = \"first\"\nstandby = [\"second\"]\n\
        failover = { switch_after_ms = 300, cooldown_ms = 0, require_healthy_for_ms = 300 }\n";
    let mesh = Mesh::start(lab, &format!("{nowhere}{}{output}", unix_section("second", long)));
    mesh.inside.wait_metric("zen_probes_total{outcome=\"works\"}", 1.0);
    let id = mesh.send(b"{}");
    let delivery = &demo.wait(1)[0];
    assert_eq!(delivery.verify(&mut verifier("second")).as_deref(), Ok(&*id));
    assert_eq!(mesh.inside.metric("zen_failovers_total{reason=\"unhealthy\"}") as u64, 1);
}

#[test]
fn plain_http_goes_over_unix_sockets_only() {
    let (lab, nowhere) = (Lab::new(), "127.0.0.1:1".parse().unwrap());
    let long = format!("unix_socket = \"{}\"", "s".repeat(120));
    for (from, to, says) in [
        ("unix_socket = \"app.sock\"\n", "", "is not https"),
        ("http://localhost", "https://localhost", "is not http;"),
        ("secret_file", "ca_file = \"pki/bundle.pem\"\nsecret_file", "keys of TLS"),
        ("secret_file", "client_certificate = \"none\"\nsecret_file", "keys of TLS"),
        ("unix_socket = \"app.sock\"", long.as_str(), "is over 107 bytes"),
        ("unix_socket = \"app.sock\"\n", "peer_uid = 0\n", "peer_uid: does not belong to https"),
        ("localhost/in", "localhost/in#f", "holds what a request target may not"),
    ] {
        let section = change(&unix_section("demo", ""), from, to);
        let file = lab.write("inside.toml", &lab.egress_text(Ports::pick(), nowhere, &section));
        let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(says), "\"{says}\" in {said}");
    }
}

/// A target that takes four events in a request, or 4 KiB of them.
const BATCHES: &str = "format = \"cloudevents-structured\"\nretry_schedule_ms = [100, 100, 100]\n\
    batch = { events_max = 4, bytes_max = 4096, linger_ms = 1000 }";

/// The ids of the events in a batch, whose signatures are checked.
fn batched(delivery: &Delivery) -> Vec<String> {
    assert_eq!(delivery.header("content-type"), "application/x-ndjson");
    let id = delivery.verify(&mut verifier("demo")).unwrap();
    delivery.check_standard_webhooks(WHSEC);
    assert_eq!((delivery.header("webhook-id"), delivery.header("zen-attempt")), (id.as_str(), "1"));
    assert_eq!(
        (delivery.header("zen-endpoint"), delivery.header("zen-hops")),
        ("0".repeat(32).as_str(), "1")
    );
    let text = std::str::from_utf8(&delivery.body).unwrap();
    assert!(text.ends_with('\n'), "{text}");
    let ids = text.lines().map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["source"], format!("/hooks/{GITHUB}"));
        event["id"].as_str().unwrap().to_owned()
    });
    let ids: Vec<String> = ids.collect();
    assert!(!ids.contains(&id), "a batch has an id of its own");
    ids
}

/// Events with these bodies come to the egress at once; their ids.
fn at_once(mesh: &mut Mesh, bodies: &[Vec<u8>]) -> Vec<String> {
    mesh.inside.kill();
    let mut source = mesh.source();
    let ids = bodies.iter().map(|body| send(&mut source, GITHUB, body)).collect();
    mesh.restart_inside();
    ids
}

#[test]
fn many_events_go_in_one_request() {
    let (mut mesh, demo) = Mesh::with_target(BATCHES, |_, _| Answer::status(200));
    let bodies: Vec<Vec<u8>> =
        (0..8).map(|index| format!("{{\r\n\"number\":\n{index}}}\n").into_bytes()).collect();
    let ids = at_once(&mut mesh, &bodies);
    let deliveries = demo.wait(2);
    let found: Vec<Vec<String>> = deliveries.iter().map(batched).collect();
    for batch in ids.chunks(4) {
        assert!(found.iter().any(|found| found == batch), "{batch:?} in {found:?}");
    }
    assert_ne!(deliveries[0].event_id(), deliveries[1].event_id());
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 8.0);
    assert_eq!(mesh.inside.metric("zen_batches_total") as u64, 2);
    // One that is alone goes when it has waited.
    let alone = mesh.send(b"{}");
    assert_eq!(batched(&demo.wait(3)[2]), [alone]);
}

#[test]
fn bytes_close_a_batch_and_a_long_event_goes_alone() {
    let (mut mesh, demo) = Mesh::with_target(BATCHES, |_, _| Answer::status(200));
    let bodies: Vec<Vec<u8>> = [1200, 1200, 1200, 20_000, 10].map(|bytes| numbered(0, bytes)).to_vec();
    let ids = at_once(&mut mesh, &bodies);
    let found: Vec<Vec<String>> = demo.wait(4).iter().map(batched).collect();
    // Each goes on a connection of its own, so they may come in any order.
    for batch in [&ids[..2], &ids[2..3], &ids[3..4], &ids[4..]] {
        assert!(found.iter().any(|found| found == batch), "{batch:?} in {found:?}");
    }
}

#[test]
fn what_a_batch_comes_to_is_the_outcome_of_each() {
    let (mut mesh, demo) = Mesh::with_target(BATCHES, |number, _| match number {
        0 => Answer::status(0),
        1 => Answer::status(500),
        _ => Answer::status(200),
    });
    let ids = at_once(&mut mesh, &[0, 1, 2, 3].map(|index| numbered(index, 20)));
    // The same four each time, since their schedules are alike but for the jitter: they wait for each other.
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 4.0);
    let deliveries = demo.deliveries();
    assert_eq!(distinct(batched(&deliveries[0])), distinct(ids.clone()));
    let failed: usize = deliveries[..2].iter().map(|delivery| batched(delivery).len()).sum();
    assert_eq!(mesh.inside.metric("zen_retries_total") as usize, failed);
    let answered: Vec<String> = deliveries[2..].iter().flat_map(batched).collect();
    assert_eq!((answered.len(), distinct(answered)), (4, distinct(ids)), "delivered is what was answered");
    mesh.inside.wait_metric("zen_retries_total", failed as f64);
    assert_eq!(mesh.inside.metric("zen_dead_letters_total") as u64, 0);
}

#[test]
fn events_that_wait_for_others_survive_a_reload_and_a_drain() {
    let (mut mesh, demo) = Mesh::with_target(BATCHES, |_, _| Answer::status(200));
    let first = mesh.send(b"{}");
    mesh.lab.write("inside.toml", &change(&mesh.inside_text, "/hooks/demo", "/hooks/other"));
    mesh.inside.signal(Signal::SIGHUP);
    mesh.inside.wait_log("configuration in force");
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 1.0);
    assert!(demo.deliveries().iter().any(|delivery| batched(delivery) == [first.clone()]));
    let second = mesh.send(b"{}");
    mesh.inside.wait_metric("zen_link_events_received_total", 2.0);
    assert!(mesh.inside.terminate().success());
    assert!(demo.deliveries().iter().any(|delivery| batched(delivery) == [second.clone()]));
}

#[test]
fn batches_are_of_structured_events_and_bounded() {
    let (lab, nowhere) = (Lab::new(), "127.0.0.1:1".parse().unwrap());
    for (from, to, says) in [
        ("cloudevents-structured", "cloudevents-binary", "batch: does not belong to this format"),
        ("events_max = 4", "events_max = 0", "batch.events_max"),
        ("events_max = 4", "events_max = 33", "above in_flight_max"),
        ("events_max = 4", "events_max = 1001", "give 1 to 1000"),
        ("bytes_max = 4096", "bytes_max = 100", "batch.bytes_max"),
        ("linger_ms = 1000", "linger_ms = 1001", "give 0 to 1000"),
        ("linger_ms = 1000", "linger = 1", "docs/configuration.md"),
    ] {
        let section = change(&lab.target_text("demo", nowhere, BATCHES), from, to);
        let file = lab.write("inside.toml", &lab.egress_text(Ports::pick(), nowhere, &section));
        let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(says), "\"{says}\" in {said}");
    }
}

/// A target that wants tokens of the server at `ADDRESS`.
const OAUTH2: &str = "retry_schedule_ms = [50, 50, 50, 50]\n\
    authorization = { kind = \"oauth2\", token_url = \"https://ADDRESS/token?a=b\", client_id = \"egress&1\", \
    client_secret_file = \"secrets/client\", scope = \"hooks.write all\", ca_file = \"pki/public_ca.pem\" }";

/// A token server; a target that takes these tokens only, and a mesh that delivers to it.
fn with_token_server(
    script: impl Fn(usize, &Delivery) -> Answer + Send + Sync + 'static,
    target_script: impl Fn(usize, &Delivery) -> Answer + Send + Sync + 'static,
) -> (Mesh, Target, Target) {
    let lab = Lab::new();
    lab.write_private("secrets/client", "s3cret of many/words");
    let tls = TargetTls {
        certificate: &lab.path("pki/public.pem"),
        key: &lab.path("pki/public.key"),
        client_ca: None,
    };
    let server = Target::start(tls, script);
    let demo = target(&lab, "demo", target_script);
    let extra = OAUTH2.replace("ADDRESS", &server.address.to_string());
    let section = lab.target_text("demo", demo.address, &extra);
    (Mesh::start(lab, &section), server, demo)
}

fn granted(token: &str, expires_in: &str) -> Answer {
    let text = format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\"{expires_in}}}");
    Answer::status(200).with("content-type", "application/json").with_body(text)
}

#[test]
fn a_token_is_asked_for_and_sent_and_renewed() {
    let (mesh, server, demo) = with_token_server(
        |number, _| granted(&format!("token-{number}"), ",\"expires_in\":2"),
        |_, _| Answer::status(200),
    );
    let id = mesh.send(b"{}");
    let delivery = &demo.wait(1)[0];
    assert!(delivery.header("authorization").starts_with("Bearer token-"), "{:?}", delivery.headers);
    assert_eq!(delivery.verify(&mut verifier("demo")).as_deref(), Ok(&*id));
    let asked = &server.wait(1)[0];
    assert_eq!(asked.line, "POST /token?a=b HTTP/1.1");
    assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(asked.body, b"grant_type=client_credentials&scope=hooks.write+all");
    let pair = BASE64.decode(asked.header("authorization").strip_prefix("Basic ").unwrap()).unwrap();
    assert_eq!(String::from_utf8(pair).unwrap(), "egress%261:s3cret+of+many%2Fwords");
    // At 80 % of its life there is another, before the first is over.
    server.wait(3);
    mesh.send(b"{}");
    assert_ne!(demo.wait(2)[1].header("authorization"), "Bearer token-0");
    let log = mesh.inside.log();
    assert!(!log.contains("token-") && !log.contains("s3cret"), "{log}");
}

#[test]
fn deliveries_wait_for_a_token_and_bad_answers_are_survived() {
    let (mesh, server, demo) = with_token_server(
        |number, _| match number {
            0 => Answer::status(401).with_body("{\"error\":\"invalid_client\"}"),
            1 => Answer::status(200).with_body("<html>no json</html>"),
            2 => granted("zero", ",\"expires_in\":0"),
            3 => granted("no expires_in", ""),
            _ => granted("good", ""),
        },
        |_, _| Answer::status(200),
    );
    let id = mesh.send(b"{}");
    mesh.inside.wait_log("error \"invalid_client\"");
    mesh.inside.wait_metric("zen_targets_without_token", 1.0);
    assert_eq!(mesh.inside.metric("zen_deliveries_total") as u64, 0, "what waits is no attempt");
    // Pauses of 1, 2, 4 and 8 s.
    let delivery = &demo.wait(1)[0];
    assert_eq!((delivery.event_id(), delivery.header("authorization")), (id.as_str(), "Bearer good"));
    assert_eq!(delivery.header("zen-attempt"), "1");
    assert_eq!((server.deliveries().len(), mesh.inside.metric("zen_tokens_refused_total") as u64), (5, 4));
    mesh.inside.wait_log("without a token in JSON");
    mesh.inside.wait_log("the token expires in 0 seconds");
    mesh.inside.wait_log("the token cannot be sent");
}

#[test]
fn long_answers_redirects_and_half_answers_bring_no_token() {
    let lab = Lab::new();
    let elsewhere = target(&lab, "demo", |_, _| granted("stolen", ""));
    let location = format!("https://{}/token", elsewhere.address);
    let (mesh, server, demo) = with_token_server(
        move |number, _| match number {
            0 => granted("long", "").framing("content-length: 2147483648\r\n"),
            1 => Answer::status(307).with("location", location.clone()),
            2 => Answer::status(200).framing("").with_body(vec![b' '; 1 << 20]).closing(),
            _ => granted("half", "").framing("content-length: 1000\r\n").closing(),
        },
        |_, _| Answer::status(200),
    );
    mesh.send(b"{}");
    server.wait(4);
    mesh.inside.wait_metric("zen_tokens_refused_total", 4.0);
    let log = mesh.inside.log();
    assert_eq!(log.matches("body is too large").count(), 2, "{log}");
    assert_eq!((demo.deliveries().len(), elsewhere.connections()), (0, 0));
}

#[test]
fn a_401_asks_for_another_token_once() {
    let (mesh, server, demo) = with_token_server(
        |number, _| granted(&format!("token-{number}"), ",\"expires_in\":3600"),
        |_, delivery| {
            let is_first = delivery.header("authorization") == "Bearer token-0";
            Answer::status(if is_first { 401 } else { 200 })
        },
    );
    let ids: Vec<String> = (0..3).map(|index| mesh.send(&numbered(index, 20))).collect();
    assert_eq!(server.wait(2).len(), 2, "three refusals of one token are one reason to ask");
    let fresh = mesh.send(b"{}");
    wait_until("the new token is sent", || {
        demo.deliveries().iter().any(|delivery| delivery.header("authorization") == "Bearer token-1")
    });
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 1.0);
    assert!(demo.deliveries().iter().any(|delivery| ids.contains(&delivery.event_id().to_owned())));
    wait_until("the last one is delivered", || {
        demo.deliveries().iter().any(|delivery| delivery.event_id() == fresh)
    });
    assert_eq!(server.deliveries().len(), 2);
}

#[test]
fn a_token_server_must_be_known_and_its_keys_complete() {
    let lab = Lab::new();
    lab.write_private("secrets/client", "secret");
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let good = OAUTH2.replace("ADDRESS", "127.0.0.1:1");
    for (from, to, says) in [
        ("https://", "http://", "token_url: is not https"),
        ("client_id = \"egress&1\", ", "", "client_id: is missing"),
        (", client_secret_file = \"secrets/client\"", "", "client_secret_file: is missing"),
        ("secrets/client", "secrets/none", "client_secret_file"),
        ("hooks.write all", "hooks\\nwrite", "scope: is over 1024 bytes, or not visible ASCII"),
        ("pki/public_ca.pem", "pki/none.pem", "ca_file"),
        ("scope", "username = \"u\", scope", "username: does not belong to oauth2"),
        ("\"oauth2\"", "\"bearer\"", "token_url: does not belong to bearer"),
    ] {
        let section = lab.target_text("demo", nowhere, &change(&good, from, to));
        let file = lab.write("inside.toml", &lab.egress_text(Ports::pick(), nowhere, &section));
        let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(says), "\"{says}\" in {said}");
    }
}
