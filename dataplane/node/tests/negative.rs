//! What must not come in: each case is refused with its status, counted by its reason, and leaves no record.
//!
//! A row that ends with its head is answered before any byte of its body: nothing of it can have been kept.
//! What is tested elsewhere: broken framing in `http.rs`, rates and proxies in `access.rs`, time-outs in `bounds.rs`.
//! `docs/security-model.md` has the whole list.
//! Nothing here chooses a target: events go where the flows of their endpoint lead, so another tenant's target is
//! reached only through that tenant's endpoint.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::Signal;
use support::client::{
    Answer, Client, client_certificate_config, github, github_head, hello_of_tls_12, signature,
    signature_with, source_config,
};
use support::node::{Node, PATIENCE, wait_until};
use support::{GITHUB, HMAC, Lab, Ports, SECRET, STANDARD, WHSEC, change, endpoint};

mod support;

/// Takes requests from elsewhere only.
const NETWORK: &str = "00000000000000000000000000000021";
/// Takes a bearer token.
const BEARER: &str = "00000000000000000000000000000022";
/// Its secret is replaced.
const ROTATED: &str = "00000000000000000000000000000023";
/// Another tenant's, with another secret.
const OTHER: &str = "00000000000000000000000000000024";
/// Wants a client certificate beside the signature.
const CERTIFICATE: &str = "00000000000000000000000000000025";
/// Its events are known by a member of their body.
const JSON: &str = "00000000000000000000000000000026";
/// Nobody's.
const UNKNOWN: &str = "0000000000000000000000000000002f";

/// A body that no answer, log line or record of a refused request may hold.
const BODY: &str = "{\"id\":\"never-in-an-answer\"}";
const TOKEN: &str = "a-token-of-a-source";
const OTHER_SECRET: &str = "a secret of another tenant";
const NEW_SECRET: &str = "the secret after a rotation";
/// Of the scheme, seconds.
const WINDOW_S: i64 = 300;

/// The new secret alone, or the one before it too.
#[derive(Clone, Copy)]
enum Rotation {
    UnderWay,
    Done,
}

fn configuration(lab: &Lab, ports: Ports, rotation: Rotation) -> String {
    let text = change(
        &lab.ingester_text(ports),
        "[ingester]\n",
        "[ingester]\nclient_ca_file = \"pki/bundle.pem\"\n",
    );
    let headers = "forward_headers = [\"x-github-event\"]";
    let rule = "headers = [{ name = \"x-github-event\", one_of = [\"push\", \"ping\"] }]";
    let text = change(&text, headers, &format!("{headers}\n{rule}"));
    let token = "authorization = { kind = \"bearer\", secret_files = [\"secrets/token\"] }";
    let secrets = "\"secrets/new\", \"secrets/source\"";
    let rotated = match rotation {
        Rotation::UnderWay => change(&endpoint(ROTATED, "github", "new", ""), "\"secrets/new\"", secrets),
        Rotation::Done => endpoint(ROTATED, "github", "new", ""),
    };
    let bearer = endpoint(BEARER, "none", "source", token);
    [
        text,
        endpoint(NETWORK, "github", "source", "networks = { allow = [\"192.0.2.0/24\"] }"),
        change(&bearer, "secret_files = [\"secrets/source\"]\n", ""),
        rotated,
        change(&endpoint(OTHER, "github", "other", ""), "tenant = \"acme\"", "tenant = \"other\""),
        endpoint(CERTIFICATE, "github", "source", "client_certificate = { }"),
        endpoint(JSON, "github", "source", "idempotency = { key = \"json\", json_path = \"id\" }"),
    ]
    .concat()
}

fn start() -> (Lab, Ports, Node) {
    let (lab, ports) = (Lab::new(), Ports::pick());
    lab.svid("billing", "source/billing");
    for (name, secret) in [("token", TOKEN), ("other", OTHER_SECRET), ("new", NEW_SECRET)] {
        lab.write_private(&format!("secrets/{name}"), secret);
    }
    let node = lab.start("edge", ports, &configuration(&lab, ports, Rotation::UnderWay));
    (lab, ports, node)
}

/// What the node has counted.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    refused: u64,
    for_the_reason: u64,
    accepted: u64,
    records: u64,
}

impl Counted {
    fn by(node: &Node, reason: &str) -> Self {
        let metric = |name: &str| node.metric(name) as u64;
        Self {
            refused: metric("zen_requests_refused_total"),
            for_the_reason: metric(&format!("zen_requests_refused_total{{reason=\"{reason}\"}}")),
            accepted: metric("zen_events_accepted_total"),
            records: metric("zen_journal_records_total"),
        }
    }

    fn and_one_refused(self) -> Self {
        Self { refused: self.refused + 1, for_the_reason: self.for_the_reason + 1, ..self }
    }
}

/// A request with one fault, its status and reason.
type Row = (&'static str, Vec<u8>, u16, &'static str);

fn text(request: Vec<u8>) -> String {
    String::from_utf8(request).unwrap()
}

/// A good request with one part replaced.
fn altered(from: &str, to: &str) -> Vec<u8> {
    change(&text(github(GITHUB, BODY.as_bytes(), "")), from, to).into_bytes()
}

fn signed_with(secret: &str, endpoint: &str) -> Vec<u8> {
    let request = text(github(endpoint, BODY.as_bytes(), ""));
    let tag = signature_with(secret, BODY.as_bytes());
    request.replace(&signature(BODY.as_bytes()), &tag).into_bytes()
}

fn generic(media: &str, length: &str) -> String {
    let tag = signature(BODY.as_bytes());
    format!("POST /hooks/{HMAC} HTTP/1.1\r\nHost: localhost\r\n{media}X-Signature: {tag}\r\n{length}\r\n\r\n")
}

fn authorized(line: &str) -> String {
    let length = BODY.len();
    format!("POST /hooks/{BEARER} HTTP/1.1\r\nHost: localhost\r\n{line}Content-Length: {length}\r\n\r\n")
}

/// Signed properly, with a timestamp that is `ahead_s` ahead of the clock.
fn standard(ahead_s: i64) -> String {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed() + ahead_s;
    let key = BASE64.decode(WHSEC.strip_prefix("whsec_").unwrap()).unwrap();
    let signed = format!("msg_1.{now_s}.{BODY}");
    let tag = BASE64.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes()));
    format!(
        "POST /hooks/{STANDARD} HTTP/1.1\r\nHost: localhost\r\nwebhook-id: msg_1\r\nwebhook-timestamp: {now_s}\r\n\
         webhook-signature: v1,{tag}\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

/// `request` without `line`, up to the end of its head.
fn head_without(request: &str, line: &str) -> Vec<u8> {
    let start = request.find(line).unwrap();
    let end = start + request[start..].find("\r\n").unwrap() + 2;
    head(&[&request[..start], &request[end..]].concat())
}

fn head(request: &str) -> Vec<u8> {
    request.as_bytes()[..request.find("\r\n\r\n").unwrap() + 4].to_vec()
}

/// Refused by their head.
fn heads() -> Vec<Row> {
    let good = text(github(GITHUB, BODY.as_bytes(), ""));
    let to = |endpoint: &str| head(&text(github(endpoint, BODY.as_bytes(), "")));
    let announced = |bytes: u32| format!("Content-Length: {bytes}\r\n");
    let json = "Content-Type: application/json\r\n";
    vec![
        ("no signature", head_without(&good, "X-Hub-Signature-256"), 401, "missing_signature"),
        ("no timestamp", head_without(&standard(0), "webhook-timestamp"), 401, "missing_timestamp"),
        ("no id under a signature", head_without(&standard(0), "webhook-id"), 401, "missing_source_id"),
        ("expired timestamp", head(&standard(-2 * WINDOW_S)), 401, "stale_timestamp"),
        ("timestamp of tomorrow", head(&standard(86_400)), 401, "future_timestamp"),
        ("unknown endpoint", to(UNKNOWN), 404, "unknown_endpoint"),
        ("address outside of the list", to(NETWORK), 403, "network"),
        ("no token", authorized("").into_bytes(), 401, "missing_authorization"),
        ("another token", authorized("Authorization: Bearer a-tokem\r\n").into(), 401, "wrong_authorization"),
        (
            "basic, not bearer",
            authorized("Authorization: Basic YTpi\r\n").into(),
            401,
            "malformed_authorization",
        ),
        ("no certificate", to(CERTIFICATE), 401, "missing_certificate"),
        ("another method", head(&change(&good, "POST", "PUT")), 405, "method"),
        ("form", generic("Content-Type: text/plain\r\n", "Content-Length: 9").into(), 415, "content_type"),
        ("no content type", generic("", "Content-Length: 9").into(), 415, "content_type"),
        ("too long, announced", generic(json, "Content-Length: 65537").into(), 413, "too_large"),
        (
            "too long for any endpoint",
            github_head(GITHUB, b"", &announced((1 << 20) + 1)).into(),
            413,
            "too_large",
        ),
        (
            "no signature, and a large body announced",
            head_without(&github_head(GITHUB, b"", &announced(1 << 20)), "X-Hub-Signature-256"),
            401,
            "missing_signature",
        ),
    ]
}

/// Refused by their body, or after it.
fn bodies() -> Vec<Row> {
    let good = signature(BODY.as_bytes());
    let chunked = generic("Content-Type: application/json\r\n", "Transfer-Encoding: chunked");
    let endless = format!("{chunked}{}", format!("4000\r\n{}\r\n", "a".repeat(0x4000)).repeat(5));
    vec![
        ("invalid HMAC", altered(&good, &format!("sha256={}", "0".repeat(64))), 401, "mismatch"),
        ("tampered body", altered("never", "Never"), 401, "mismatch"),
        ("tampered timestamp", restamped(), 401, "mismatch"),
        ("secret that was rotated out", signed_with(SECRET, ROTATED), 401, "mismatch"),
        ("another tenant's endpoint", signed_with(SECRET, OTHER), 401, "mismatch"),
        ("chunks without an end", endless.into_bytes(), 413, "too_large"),
        ("malformed JSON", github(JSON, b"{\"id\":", ""), 400, "idempotency_key"),
        ("id that is no text", github(JSON, b"{\"id\":[]}", ""), 400, "idempotency_key"),
        ("unknown type of event", altered("X-GitHub-Event: push", "X-GitHub-Event: fork"), 403, "header"),
        ("no type of event", altered("X-GitHub-Event: push\r\n", ""), 403, "header"),
        ("two types of event", altered("Host:", "X-GitHub-Event: ping\r\nHost:"), 403, "header"),
    ]
}

/// A good webhook of a minute ago that claims to be of now.
fn restamped() -> Vec<u8> {
    let (old, new) = (standard(-60), standard(0));
    let stamp = |request: &str| {
        let line = request.lines().find(|line| line.starts_with("webhook-timestamp")).unwrap();
        line.to_owned()
    };
    change(&old, &stamp(&old), &stamp(&new)).into_bytes()
}

/// The same requests without a fault, so that nothing but the fault is what the rows are refused for.
fn good() -> Vec<Vec<u8>> {
    vec![
        github(GITHUB, BODY.as_bytes(), ""),
        standard(0).into_bytes(),
        format!(
            "{}{BODY}",
            generic("Content-Type: application/json\r\n", &format!("Content-Length: {}", BODY.len()))
        )
        .into_bytes(),
        format!("{}{BODY}", authorized(&format!("Authorization: Bearer {TOKEN}\r\n"))).into_bytes(),
        signed_with(NEW_SECRET, ROTATED),
        signed_with(OTHER_SECRET, OTHER),
        github(CERTIFICATE, BODY.as_bytes(), ""),
        github(JSON, BODY.as_bytes(), ""),
    ]
}

fn assert_problem(name: &str, answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{name}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{name}");
    let shown = format!("{:?}{}", answer.headers, String::from_utf8_lossy(&answer.body));
    for secret in ["never-in-an-answer", "a-token", &signature(BODY.as_bytes())["sha256=".len()..]] {
        assert!(!shown.to_ascii_lowercase().contains(secret), "{name}: {shown}");
    }
}

#[test]
fn what_must_not_come_in_is_refused_counted_and_not_kept() {
    let (lab, ports, node) = start();
    assert_eq!(Client::connect(&lab, ports.listen).ask(&signed_with(SECRET, ROTATED)).status, 202);
    lab.write("edge.toml", &configuration(&lab, ports, Rotation::Done));
    node.signal(Signal::SIGHUP);
    wait_until("the reload", || node.get("/status").1.contains("generation 2 "));

    for (name, request, status, reason) in [heads(), bodies()].concat() {
        let before = Counted::by(&node, reason);
        let mut client = Client::connect(&lab, ports.listen);
        // The node may close before it has read everything.
        let _ = client.try_send(&request);
        let answer = client.try_answer().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_problem(name, &answer, status);
        assert_eq!(Counted::by(&node, reason), before.and_one_refused(), "{name}");
    }

    let before = Counted::by(&node, "mismatch");
    let identity = client_certificate_config(&lab, "billing");
    let good = good();
    for request in &good {
        let answer = Client::connect_with(&identity, ports.listen).unwrap().ask(request);
        assert_eq!(answer.status, 202, "{answer:?}\n{}", String::from_utf8_lossy(request));
    }
    let after = Counted::by(&node, "mismatch");
    assert_eq!((after.refused, after.accepted - before.accepted), (before.refused, good.len() as u64));
    for secret in ["never-in-an-answer", "a-token", SECRET, OTHER_SECRET, NEW_SECRET] {
        assert!(!node.log().contains(secret), "{secret}");
    }
}

#[test]
fn a_request_that_comes_again_is_one_event() {
    let (lab, ports, node) = start();
    for request in
        [github(GITHUB, BODY.as_bytes(), ""), standard(0).into(), github(JSON, BODY.as_bytes(), "")]
    {
        let first = Client::connect(&lab, ports.listen).ask(&request);
        assert_eq!(first.status, 202, "{first:?}");
        let again = Client::connect(&lab, ports.listen).ask(&request);
        assert_eq!((again.status, &again.json()["id"]), (200, &first.json()["id"]));
    }
    assert_eq!(node.metric("zen_idempotency_duplicates_total") as u64, 3);
    assert_eq!(node.metric("zen_journal_records_total") as u64, 3);

    // Without the member that the endpoint knows events by, each is an event of its own, and that is counted.
    for _ in 0..2 {
        assert_eq!(Client::connect(&lab, ports.listen).ask(&github(JSON, b"{}", "")).status, 202);
    }
    assert_eq!(node.metric("zen_idempotency_keys_missing_total") as u64, 2);
}

#[test]
fn nothing_but_tls_1_3_is_spoken() {
    let (lab, ports, node) = start();
    let reason = "tls";
    for bytes in [hello_of_tls_12(), github(GITHUB, BODY.as_bytes(), "")] {
        let before = Counted::by(&node, reason);
        let mut socket = TcpStream::connect(ports.listen).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        // A record of type alert at most.
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
        let after = before.and_one_refused();
        wait_until("counted", || Counted::by(&node, reason) == after);
    }
    let mut client = Client::connect_with(&source_config(&lab), ports.listen).unwrap();
    assert_eq!(client.ask(&github(GITHUB, BODY.as_bytes(), "")).status, 202);
}
