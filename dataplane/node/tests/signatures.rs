//! Signatures that are computed side by side: whoever else is in the batch, each request has its own verdict.
//!
//! The node is stopped while many connections send, so that it finds all of their requests in one tick.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::Shutdown;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::Signal;
use support::client::{Client, github, github_head, signature, signature_with};
use support::node::{Node, run};
use support::{GITHUB, HMAC, Lab, Ports, STANDARD, WHSEC, change, endpoint};

mod support;

/// The endpoint with two secrets.
const ROTATED: &str = "00000000000000000000000000000021";
/// The endpoint with a tag that is not computed in batches.
const SHA512: &str = "00000000000000000000000000000022";
/// The secret before the present one.
const OLD_SECRET: &str = "the secret before";
/// A body up to this is held until it is whole.
const HELD_BODY_BYTES_MAX: usize = 64 * 1024;

fn start() -> (Lab, Ports, Node) {
    start_with(|text| text)
}

fn start_with(edit: impl Fn(String) -> String) -> (Lab, Ports, Node) {
    let (lab, ports) = (Lab::new(), Ports::pick());
    lab.write_private("secrets/old", OLD_SECRET);
    let rotated = endpoint(ROTATED, "github", "old", "");
    let rotated = change(&rotated, "[\"secrets/old\"]", "[\"secrets/source\", \"secrets/old\"]");
    let sha512 = "[ingester.endpoints.hmac]\nheader = \"x-signature\"\nalgorithm = \"sha512\"";
    let text = lab.ingester_text(ports) + &rotated + &endpoint(SHA512, "hmac", "source", sha512);
    let node = lab.start("edge", ports, &edit(text));
    (lab, ports, node)
}

/// Sends each request over a connection of its own while the node stands still; statuses in the same order.
fn at_once(lab: &Lab, ports: Ports, node: &Node, requests: &[Vec<u8>]) -> Vec<u16> {
    let mut clients: Vec<Client> = requests.iter().map(|_| Client::connect(lab, ports.listen)).collect();
    node.signal(Signal::SIGSTOP);
    for (client, request) in clients.iter_mut().zip(requests) {
        client.send(request);
    }
    node.signal(Signal::SIGCONT);
    clients.iter_mut().map(|client| client.answer().status).collect()
}

/// Batches of sources' signatures with more than `messages`, which is a bound of the histogram.
fn batches_over(node: &Node, messages: u32) -> f64 {
    let below = format!("zen_hmac_batch_messages_bucket{{le=\"{messages}.0\",use=\"source\"}}");
    node.metric("zen_hmac_batch_messages_count{use=\"source\"}") - node.metric(&below)
}

/// A request whose signature is that of another body.
fn forged(endpoint: &str, body: &[u8]) -> Vec<u8> {
    let request = String::from_utf8(github(endpoint, body, "")).unwrap();
    request.replace(&signature(body), &signature(b"another body")).into_bytes()
}

fn rotated(secret: &str, body: &[u8]) -> Vec<u8> {
    let request = String::from_utf8(github(ROTATED, body, "")).unwrap();
    request.replace(&signature(body), &signature_with(secret, body)).into_bytes()
}

fn generic(endpoint: &str, tag: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /hooks/{endpoint} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         X-Signature: {tag}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn sha512(body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA512, support::SECRET.as_bytes());
    let tag = hmac::sign(&key, body.as_bytes());
    tag.as_ref().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A Standard Webhook signed as `signed_id`, and sent as `id`.
fn standard(signed_id: &str, id: &str, body: &str) -> Vec<u8> {
    let secret = BASE64.decode(WHSEC.strip_prefix("whsec_").unwrap()).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let tag = BASE64.encode(hmac::sign(&key, format!("{signed_id}.{now}.{body}").as_bytes()));
    format!(
        "POST /hooks/{STANDARD} HTTP/1.1\r\nHost: localhost\r\nwebhook-id: {id}\r\nwebhook-timestamp: {now}\r\n\
         webhook-signature: v1,{tag}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn one_bad_signature_in_any_place_is_refused_and_no_other() {
    const REQUESTS: usize = 20;
    let (lab, ports, node) = start();
    let bodies: Vec<Vec<u8>> =
        (0..REQUESTS).map(|at| format!("{{\"at\":{at}}}").repeat(1 + at * 7).into()).collect();
    for bad in [0, 1, 9, 15, 16, REQUESTS - 1] {
        let request = |(at, body): (usize, &Vec<u8>)| {
            if at == bad { forged(GITHUB, body) } else { github(GITHUB, body, "") }
        };
        let requests: Vec<_> = bodies.iter().enumerate().map(request).collect();
        let expected: Vec<u16> = (0..REQUESTS).map(|at| if at == bad { 401 } else { 202 }).collect();
        assert_eq!(at_once(&lab, ports, &node, &requests), expected, "place {bad} is bad");
    }
    assert_eq!(node.metric("zen_requests_refused_total{reason=\"mismatch\"}") as usize, 6);
    assert_eq!(node.metric("zen_events_accepted_total") as usize, 6 * (REQUESTS - 1));
    assert!(batches_over(&node, 8) >= 1.0, "they were verified side by side");
    let messages = node.metric("zen_hmac_batch_messages_sum{use=\"source\"}") as usize;
    assert_eq!(messages, 6 * REQUESTS, "each exactly once");
}

#[test]
fn only_the_good_ones_of_every_scheme_and_length_are_taken() {
    let (lab, ports, node) = start();
    let large = vec![b'x'; HELD_BODY_BYTES_MAX + 1];
    let whole = &large[1..];
    let chunked = |body: &[u8], signed: &[u8]| {
        let mut request = github_head(GITHUB, signed, "Transfer-Encoding: chunked\r\n").into_bytes();
        for piece in body.chunks(30_000) {
            request.extend(
                format!("{:x}\r\n", piece.len()).bytes().chain(piece.iter().copied()).chain(*b"\r\n"),
            );
        }
        request.extend(b"0\r\n\r\n");
        request
    };
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("GitHub", github(GITHUB, b"{}", ""), 202),
        ("GitHub, empty", github(GITHUB, b"", ""), 202),
        ("GitHub, forged", forged(GITHUB, b"{}"), 401),
        ("the present secret", rotated(support::SECRET, b"{\"a\":1}"), 202),
        ("the old secret", rotated(OLD_SECRET, b"{\"a\":2}"), 202),
        ("a secret of nobody", rotated("guessed", b"{\"a\":3}"), 401),
        ("the old secret elsewhere", forged(GITHUB, b"{\"a\":2}"), 401),
        ("generic", generic(HMAC, &signature(b"{}"), "{}"), 202),
        ("generic, of another body", generic(HMAC, &signature(b"{}"), "[]"), 401),
        ("SHA-512", generic(SHA512, &sha512("{}"), "{}"), 202),
        ("SHA-512, of another body", generic(SHA512, &sha512("{}"), "[]"), 401),
        ("Standard Webhooks", standard("msg_1", "msg_1", "{}"), 202),
        ("Standard Webhooks, another id", standard("msg_1", "msg_2", "{}"), 401),
        ("the longest that is held", github(GITHUB, whole, ""), 202),
        ("the longest that is held, forged", forged(GITHUB, whole), 401),
        ("longer", github(GITHUB, &large, ""), 202),
        ("longer, forged", forged(GITHUB, &large), 401),
        ("the longest that is held, in chunks", chunked(whole, whole), 202),
        ("longer, in chunks", chunked(&large, &large), 202),
        ("longer, in chunks, signed without its end", chunked(&large, whole), 401),
        ("held, in chunks, signed with more", chunked(whole, &large), 401),
    ];
    for reversed in [false, true] {
        let mut order: Vec<_> = cases.iter().collect();
        if reversed {
            order.reverse();
        }
        let requests: Vec<_> = order.iter().map(|case| case.1.clone()).collect();
        let statuses = at_once(&lab, ports, &node, &requests);
        for ((name, _, expected), status) in order.into_iter().zip(statuses) {
            let known = reversed && status == 200 && *expected == 202;
            assert!(status == *expected || known, "{name}: {status} in place of {expected}");
        }
    }
    let good = cases.iter().filter(|case| case.2 == 202).count();
    let accepted = node.metric("zen_events_accepted_total") as usize;
    // The generic endpoints have no key, so theirs are accepted twice.
    assert_eq!(accepted, good + 2, "only what is signed is in the journal");
    assert!(batches_over(&node, 4) >= 1.0);
}

#[test]
fn pipelined_requests_are_answered_in_order_up_to_the_bad_one() {
    let (lab, ports, node) = start();
    let mut client = Client::connect(&lab, ports.listen);
    let pipeline = [
        github(GITHUB, b"[1]", ""),
        github(GITHUB, b"[2]", ""),
        forged(GITHUB, b"[3]"),
        github(GITHUB, b"[4]", ""),
    ];
    node.signal(Signal::SIGSTOP);
    client.send(&pipeline.concat());
    node.signal(Signal::SIGCONT);
    let answers: Vec<_> = (0..3).map(|_| client.answer()).collect();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [202, 202, 401]);
    let ids = [&answers[0], &answers[1]].map(|answer| answer.json()["id"].as_str().unwrap().to_owned());
    assert!(ids[0] < ids[1], "ids ascend in the order of acceptance: {ids:?}");
    assert!(client.is_closed(), "nothing behind the bad one is looked at");
    assert_eq!(node.metric("zen_events_accepted_total") as usize, 2);
}

#[test]
fn the_same_event_twice_in_a_batch_is_one() {
    let (lab, ports, node) = start();
    let twice = github(GITHUB, b"{\"twice\":true}", "");
    let mut clients: Vec<Client> = (0..12).map(|_| Client::connect(&lab, ports.listen)).collect();
    node.signal(Signal::SIGSTOP);
    for client in &mut clients {
        client.send(&twice);
    }
    node.signal(Signal::SIGCONT);
    let answers: Vec<_> = clients.iter_mut().map(Client::answer).collect();
    let accepted = answers.iter().filter(|answer| answer.status == 202).count();
    assert_eq!((accepted, answers.iter().filter(|answer| answer.status == 200).count()), (1, 11));
    let first = answers[0].json()["id"].clone();
    assert!(answers.iter().all(|answer| answer.json()["id"] == first));
    assert_eq!(node.metric("zen_events_accepted_total") as usize, 1);
}

#[test]
fn a_whole_request_counts_though_its_connection_ends_in_the_same_tick() {
    const REQUESTS: usize = 16;
    let (lab, ports, mut node) = start();
    let mut clients: Vec<Client> = (0..REQUESTS).map(|_| Client::connect(&lab, ports.listen)).collect();
    let mut other = Client::connect(&lab, ports.listen);
    node.signal(Signal::SIGSTOP);
    for (at, client) in clients.iter_mut().enumerate() {
        let body = format!("[{at}]");
        let request =
            if at % 4 == 3 { forged(GITHUB, body.as_bytes()) } else { github(GITHUB, body.as_bytes(), "") };
        client.send(&request);
        client.tls.sock.shutdown(Shutdown::Both).unwrap();
    }
    other.send(&github(GITHUB, b"[\"other\"]", ""));
    node.signal(Signal::SIGCONT);
    assert_eq!(other.answer().status, 202, "others are not disturbed");
    node.wait_metric("zen_requests_refused_total{reason=\"mismatch\"}", (REQUESTS / 4) as f64);
    node.wait_metric("zen_events_accepted_total", (REQUESTS - REQUESTS / 4 + 1) as f64);
    support::node::wait_until("all connections are gone", || {
        node.metric("zen_source_connections") as usize == 1
    });
    assert_eq!(node.metric("zen_events_accepted_total") as usize, REQUESTS - REQUESTS / 4 + 1);
    drop(other);
    assert!(node.terminate().success());
}

#[test]
fn more_than_may_wait_are_all_answered_in_parts() {
    const REQUESTS: usize = 150;
    // 64 requests may wait, or 512 KiB of bodies and the one that goes beyond: 27 of the longer ones.
    for (body_bytes, batch_max) in [(20, 64), (20_000, 32)] {
        let (lab, ports, node) = start();
        let body = vec![b'7'; body_bytes];
        let requests: Vec<_> = (0..REQUESTS).map(|_| github(GITHUB, &body, "")).collect();
        assert!(at_once(&lab, ports, &node, &requests).iter().all(|status| *status == 202));
        assert!(batches_over(&node, 16) >= 2.0, "{body_bytes}: they were verified side by side, and again");
        assert!(batches_over(&node, batch_max) < 1.0, "{body_bytes}: and never more than may wait");
    }
}

#[test]
fn requests_that_wait_count_against_the_memory_of_bodies() {
    const REQUESTS: usize = 100;
    let (lab, ports, node) = start_with(|text| {
        let least = "[ingester]\nbody_memory_bytes_max = 4194304\n";
        change(&text, "[ingester]\n", least)
    });
    let body = vec![b'm'; 60_000];
    let requests: Vec<_> = (0..REQUESTS).map(|_| github(GITHUB, &body, "")).collect();
    let statuses = at_once(&lab, ports, &node, &requests);
    let taken = statuses.iter().filter(|status| **status == 202).count();
    assert!(statuses.iter().all(|status| [202, 429, 503].contains(status)), "{statuses:?}");
    assert_eq!(node.metric("zen_events_accepted_total") as usize, taken, "only what was answered 202");
    let mut later = Client::connect(&lab, ports.listen);
    assert_eq!(later.ask(&github(GITHUB, &body, "")).status, 202, "the memory is free again");
}

#[test]
fn a_kernel_can_be_forced_and_is_said() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let config = lab.write("edge.toml", &lab.ingester_text(ports));
    let config = config.to_str().unwrap();
    let output = run(&["--config", config, "--hmac", "md5"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in ["--hmac", "no HMAC kernel is named `md5`", "this processor has auto, portable, one"] {
        assert!(said.contains(part), "{part} in: {said}");
    }
    let foreign = if cfg!(target_arch = "x86_64") { "neon-x4" } else { "avx2-x8" };
    let output = run(&["--config", config, "--hmac", foreign]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains(&format!("no instructions for the HMAC kernel `{foreign}`; it has portable")),
        "{said}"
    );
    let output = run(&["--config", config, "--hmac", "portable", "--check-config"]);
    assert!(output.status.success(), "{output:?}");

    let node = lab.start("edge", ports, &lab.ingester_text(ports));
    let (_, status) = node.get("/status");
    let line = status.lines().find(|line| line.starts_with("hmac: ")).expect("the line of the kernels");
    assert!(line.ends_with(" from 1, measured"), "{line}");
    assert!(node.log().contains(line.strip_prefix("hmac: ").unwrap()), "{line} in: {}", node.log());
    let kernels = line.matches(" from ").count();
    assert_eq!(node.metric("zen_hmac_kernel_info") as usize, kernels, "{line}");
}

#[test]
fn every_kernel_that_runs_here_gives_the_same_verdicts() {
    let output = run(&["--config", "none", "--hmac", "none"]);
    let said = String::from_utf8(output.stderr).unwrap();
    let here = said.split("this processor has auto, ").nth(1).unwrap();
    let here: Vec<_> = here.lines().next().unwrap().split(", ").map(str::to_owned).collect();
    assert!(here.contains(&"portable".to_owned()), "{said}");
    for kernel in here {
        let (lab, ports) = (Lab::new(), Ports::pick());
        let config = lab.write("edge.toml", &lab.ingester_text(ports));
        let mut node = Node::spawn_behind(&format!("exec \"$@\" --hmac {kernel}"), &config, ports.admin);
        node.wait_ready();
        let (_, status) = node.get("/status");
        assert!(status.contains(&format!("hmac: {kernel} from 1, forced\n")), "{status}");
        let requests: Vec<_> = (0..18_usize)
            .map(|at| {
                let body = vec![b'0' + at as u8; at * 61];
                if at % 5 == 2 { forged(GITHUB, &body) } else { github(GITHUB, &body, "") }
            })
            .collect();
        let expected: Vec<u16> = (0..18).map(|at| if at % 5 == 2 { 401 } else { 202 }).collect();
        assert_eq!(at_once(&lab, ports, &node, &requests), expected, "{kernel}");
    }
}
