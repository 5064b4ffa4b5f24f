//! Kinds of targets: how a node proves itself to them, and what they are sent.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use mesh::{Mesh, SHORT_RETRIES, target, verifier};
use nix::sys::signal::Signal;
use support::node::run;
use support::{Lab, Ports, WHSEC, change};
use target::Answer;

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
