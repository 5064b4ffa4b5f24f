//! Outputs at the egress: bodies of their own, standbys, and what a fault of one target leaves alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use mesh::{Mesh, SHORT_RETRIES, distinct, send, target, target_at, verifier};
use nix::sys::signal::Signal;
use support::node::wait_until;
use support::{GITHUB, Lab, WHSEC, free_address};
use target::Answer;

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const TO_BOTH: &str = "targets = [\"demo\", \"chat\"]";
const CHAT: &str = r#"
[[egress.outputs]]
name = "chat"
primary = "bot"
[egress.outputs.transform]
content_type = "application/vnd.chat+json"
fields = [
  { direct = "repository.name", to = "repository" },
  { template = "{{ $.pusher }} pushed", to = "message.text" },
]
"#;

/// An event of both targets, `demo` as it came and `chat` as the output `bot` makes it.
fn chat() -> (Mesh, target::Target, target::Target) {
    let lab = Lab::new();
    let demo = target(&lab, "demo", |_, _| Answer::status(200));
    let bot = target(&lab, "demo", |_, _| Answer::status(200));
    let sections = [lab.target_text("demo", demo.address, ""), lab.target_text("bot", bot.address, "")];
    let sections = format!("{}{}{CHAT}", sections[0], sections[1]);
    let to_both = |text: &str| text.replace("targets = [\"demo\"]", TO_BOTH);
    (Mesh::start_with(lab, &sections, to_both, str::to_owned), demo, bot)
}

#[test]
fn a_transform_makes_the_body_of_one_target_and_leaves_the_others() {
    let (mesh, demo, bot) = chat();
    let body = br#"{"repository":{"name":"mesh","secret":1},"pusher":"ada"}"#;
    let id = mesh.send(body);

    let plain = &demo.wait(1)[0];
    assert_eq!((&plain.body[..], plain.header("content-type")), (&body[..], "application/json"));
    let made = &bot.wait(1)[0];
    assert_eq!(made.body, br#"{"repository":"mesh","message":{"text":"ada pushed"}}"#);
    assert_eq!(made.header("content-type"), "application/vnd.chat+json");
    assert_eq!(made.header("content-length"), made.body.len().to_string());
    // The signature is over what is sent, for the target that gets it.
    assert_eq!(made.verify(&mut verifier("bot")), Ok(id.clone()));
    made.check_standard_webhooks(WHSEC);
    assert_eq!(made.event_id(), id);
}

#[test]
fn a_body_that_cannot_be_made_is_a_dead_letter_of_that_target_alone() {
    let (mesh, demo, bot) = chat();
    mesh.send(br#"{"repository":{"name":"mesh"}}"#);
    mesh.send(b"not JSON");
    demo.wait(2);
    mesh.inside.wait_metric("zen_dead_letters_total", 2.0);
    for reason in ["field_missing", "not_json"] {
        let metric = format!("zen_transform_failures_total{{reason=\"{reason}\"}}");
        assert_eq!(mesh.inside.metric(&metric) as u64, 1, "{reason}");
    }
    assert_eq!(mesh.inside.metric("zen_deliveries_total{outcome=\"transform_failed\"}") as u64, 2);
    assert_eq!((mesh.inside.metric("zen_retries_total") as u64, bot.deliveries().len()), (0, 0));
}

#[test]
fn a_dead_letter_of_an_output_is_made_anew_when_it_is_replayed() {
    let (mesh, _demo, bot) = chat();
    let mended = CHAT.replace("pusher", "sender");
    let id = mesh.send(br#"{"repository":{"name":"mesh"},"sender":"ada"}"#);
    mesh.inside.wait_metric("zen_dead_letters_total", 1.0);
    mesh.lab.write("inside.toml", &mesh.inside_text.replace(CHAT, &mended));
    mesh.inside.signal(Signal::SIGHUP);
    wait_until("the reload", || mesh.inside.get("/status").1.contains("generation 2 "));
    let mut command = Command::new(env!("CARGO_BIN_EXE_zen-dataplane"));
    command.args(["dead-letters", "replay", "--target", "chat", "--config"]);
    assert!(command.arg(mesh.lab.path("inside.toml")).status().unwrap().success());
    let made = &bot.wait(1)[0];
    assert_eq!(made.body, br#"{"repository":"mesh","message":{"text":"ada pushed"}}"#);
    assert_eq!((made.event_id(), made.header("zen-replay")), (id.as_str(), "1"));
}

const PAIR: &str = r#"
[[egress.outputs]]
name = "demo"
primary = "first"
standby = ["second"]
failover = { switch_after_ms = 300, cooldown_ms = 0, require_healthy_for_ms = 300 }
"#;
/// Of no use before the standby is: what waits must not wait for its time.
const LONG_RETRIES: &str = "retry_schedule_ms = [600000, 600000]";

#[test]
fn a_standby_takes_over_and_the_primary_comes_back() {
    let lab = Lab::new();
    let first_address = free_address();
    let second = target(&lab, "demo", |_, _| Answer::status(200));
    let sections = format!(
        "{}{}{PAIR}",
        lab.target_text("first", first_address, LONG_RETRIES),
        lab.target_text("second", second.address, LONG_RETRIES)
    );
    let mesh = Mesh::start(lab, &sections);
    let ids = mesh.send_many(5, 100);

    let deliveries = second.wait(5);
    assert_eq!(distinct(deliveries.iter().map(|delivery| delivery.event_id().to_owned())), distinct(ids));
    for delivery in &deliveries {
        delivery.verify(&mut verifier("second")).unwrap();
        assert_eq!(delivery.header("zen-attempt"), "2", "the first was the primary's");
    }
    mesh.inside.wait_metric("zen_outputs_on_standby", 1.0);
    assert_eq!(mesh.inside.metric("zen_failovers_total{reason=\"unhealthy\"}") as u64, 1);

    let first = target_at(&mesh.lab, "demo", first_address, |_, _| Answer::status(200));
    mesh.inside.wait_metric("zen_failovers_total{reason=\"recovered\"}", 1.0);
    wait_until("the primary is in use", || mesh.inside.metric("zen_outputs_on_standby") < 0.5);
    let id = send(&mut mesh.source(), GITHUB, b"{}");
    let delivery = &first.wait(1)[0];
    assert_eq!(delivery.verify(&mut verifier("first")), Ok(id));
    assert_eq!(second.deliveries().len(), 5, "the standby has rest again");
}

#[test]
fn a_standby_that_does_not_take_our_connection_is_not_used() {
    let lab = Lab::new();
    lab.svid("impostor", "target/impostor");
    let second = target(&lab, "impostor", |_, _| Answer::status(200));
    let first_address = free_address();
    let sections = format!(
        "{}{}{PAIR}",
        lab.target_text("first", first_address, SHORT_RETRIES),
        lab.target_text("second", second.address, SHORT_RETRIES)
    );
    let mesh = Mesh::start(lab, &sections);
    mesh.inside.wait_metric("zen_probes_total{outcome=\"fails\"}", 1.0);
    mesh.send(b"{}");
    mesh.inside.wait_metric("zen_dead_letters_total", 1.0);
    assert_eq!(mesh.inside.metric("zen_outputs_on_standby") as u64, 0);
    assert_eq!(mesh.inside.metric("zen_failovers_total") as u64, 0);
    wait_until("the probe was seen to fail", || second.handshakes_failed() > 0);
    assert_eq!(second.deliveries().len(), 0);
}
