//! One event for one id: every key source, over workers, kills, trimmed segments, full disks and full tables.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mesh::{Mesh, delivered, distinct, numbered};
use support::client::{Answer, Client, github, signature};
use support::node::{run, wait_until};
use support::{GITHUB, HMAC, Lab, Ports, STANDARD, WHSEC, change, endpoint};
use target::Answer as TargetAnswer;

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const HEADER: &str = "00000000000000000000000000000011";
const JSON: &str = "00000000000000000000000000000012";
const BODY: &str = "00000000000000000000000000000013";
const NONE: &str = "00000000000000000000000000000014";
const GENERIC: &str = "00000000000000000000000000000015";

/// A request to an endpoint with a generic HMAC; `lines` are header lines with their CRLF.
fn signed(endpoint: &str, lines: &str, body: &str) -> Vec<u8> {
    let (tag, length) = (signature(body.as_bytes()), body.len());
    format!(
        "POST /hooks/{endpoint} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{lines}\
         X-Signature: {tag}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A GitHub webhook with an id of its own choice.
fn with_id(id: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /hooks/{GITHUB} HTTP/1.1\r\nHost: localhost\r\nX-GitHub-Delivery: {id}\r\n\
         X-Hub-Signature-256: {}\r\nContent-Length: {}\r\n\r\n",
        signature(body),
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

fn standard_webhook(id: &str, body: &str) -> Vec<u8> {
    let secret = BASE64.decode(WHSEC.strip_prefix("whsec_").unwrap()).unwrap();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let tag = BASE64.encode(hmac::sign(&key, format!("{id}.{now_s}.{body}").as_bytes()));
    format!(
        "POST /hooks/{STANDARD} HTTP/1.1\r\nHost: localhost\r\nwebhook-id: {id}\r\nwebhook-timestamp: {now_s}\r\n\
         webhook-signature: v1,{tag}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn accepted(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
    assert!(answer.json().get("duplicate").is_none());
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn assert_duplicate(answer: &Answer, first: &str) {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!((answer.status, &*text), (200, &*format!("{{\"id\":\"{first}\",\"duplicate\":true}}")));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

/// Endpoints for each source of a key, behind the lab's own.
fn with_endpoints(text: &str) -> String {
    let hmac = "[ingester.endpoints.hmac]\nheader = \"x-signature\"\nprefix = \"sha256=\"";
    let keyed = |id, key: &str, more: &str| {
        endpoint(id, "hmac", "source", &format!("idempotency = {{ {key} }}\n{hmac}{more}"))
    };
    [
        text.to_owned(),
        keyed(HEADER, "key = \"header\"", ""),
        keyed(JSON, "key = \"json\", json_path = \"data.id\"", ""),
        keyed(BODY, "key = \"body\"", ""),
        keyed(NONE, "key = \"none\"", "\nsource_id_header = \"x-event-id\""),
        keyed(GENERIC, "key = \"scheme\"", "\nsource_id_header = \"x-event-id\""),
    ]
    .concat()
}

#[test]
fn each_source_of_a_key_is_read() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let edge = lab.start("edge", ports, &with_endpoints(&lab.ingester_text(ports)));
    let mut source = Client::connect(&lab, ports.listen);
    // The first two are one event, the third is another.
    let one = "{\"data\":{\"id\":7}}";
    let header = |value: &str, body: &str| signed(HEADER, &format!("Idempotency-Key: {value}\r\n"), body);
    let generic = |value: &str, body: &str| signed(GENERIC, &format!("X-Event-Id: {value}\r\n"), body);
    let mut firsts = Vec::new();
    for [first, same, other] in [
        [with_id("a", b"1"), with_id("a", b"2"), with_id("b", b"1")],
        [standard_webhook("a", "1"), standard_webhook("a", "2"), standard_webhook("b", "1")],
        [header("a", "1"), header("a", "2"), header("b", "1")],
        [generic("a", "1"), generic("a", "2"), generic("b", "1")],
        [
            signed(JSON, "", one),
            signed(JSON, "", "{\"data\":{\"id\":7},\"x\":1}"),
            signed(JSON, "", "{\"data\":{\"id\":\"7\"}}"),
        ],
        [signed(BODY, "", "1"), signed(BODY, "X-Other: 1\r\n", "1"), signed(BODY, "", "2")],
    ] {
        let id = accepted(&source.ask(&first));
        assert_duplicate(&source.ask(&same), &id);
        assert_duplicate(&source.ask(&first), &id);
        firsts.extend([id, accepted(&source.ask(&other))]);
    }
    assert_eq!(distinct(firsts.clone()).len(), firsts.len(), "endpoints do not share ids");
    assert_eq!(edge.metric("zen_idempotency_duplicates_total") as usize, firsts.len());

    // Without an id, or where none is asked for, each is an event of its own.
    for request in [signed(JSON, "", "{\"data\":{}}"), signed(HEADER, "", "1"), signed(GENERIC, "", "1")] {
        assert_ne!(accepted(&source.ask(&request)), accepted(&source.ask(&request)));
    }
    assert_eq!(edge.metric("zen_idempotency_keys_missing_total") as u64, 6);
    for request in [signed(NONE, "X-Event-Id: a\r\n", "1"), signed(HMAC, "", "1")] {
        assert_ne!(accepted(&source.ask(&request)), accepted(&source.ask(&request)));
    }
    assert_eq!(edge.metric("zen_idempotency_keys_missing_total") as u64, 6);

    for request in
        [signed(JSON, "", "{\"data\":"), signed(JSON, "", "{\"data\":{\"id\":[]}}"), header("", "1")]
    {
        assert_eq!(Client::connect(&lab, ports.listen).ask(&request).status, 400);
    }
    assert_eq!(edge.metric("zen_requests_refused_total{reason=\"idempotency_key\"}") as u64, 3);
    wait_until("all keys are counted", || edge.metric("zen_idempotency_keys") as usize == firsts.len());
}

#[test]
fn of_duplicates_at_the_same_time_on_two_workers_one_is_delivered() {
    const CLIENTS: usize = 8;
    let lab = Lab::new();
    let target = mesh::target(&lab, "demo", |_, _| TargetAnswer::status(200));
    let section = lab.target_text("demo", target.address, "");
    let two = |text: &str| change(text, "workers = 1", "workers = 2");
    let mesh = Mesh::start_with(lab, &section, two, two);
    let barrier = Arc::new(Barrier::new(CLIENTS));
    let rounds = 40;
    let clients = (0..CLIENTS).map(|_| {
        let (mut source, barrier) = (mesh.source(), Arc::clone(&barrier));
        thread::spawn(move || {
            let ask = |round: usize| {
                let request = with_id(&format!("round-{round}"), &numbered(round, 20_000));
                barrier.wait();
                let answer = source.ask(&request);
                (answer.status, answer.json()["id"].as_str().unwrap().to_owned())
            };
            (0..rounds).map(ask).collect::<Vec<_>>()
        })
    });
    let clients: Vec<_> = clients.collect();
    let answers: Vec<Vec<(u16, String)>> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let mut firsts = Vec::new();
    for round in 0..rounds {
        let round: Vec<&(u16, String)> = answers.iter().map(|client| &client[round]).collect();
        let new: Vec<_> = round.iter().filter(|answer| answer.0 == 202).collect();
        assert_eq!(new.len(), 1, "{round:?}");
        assert!(
            round.iter().all(|answer| answer.1 == new[0].1 && matches!(answer.0, 200 | 202)),
            "{round:?}"
        );
        firsts.push(new[0].1.clone());
    }
    assert!(mesh.edge.metric("zen_idempotency_waits_total") > 0.0, "none came while another was written");
    target.wait(rounds);
    assert_eq!(delivered(&target.deliveries()), distinct(firsts));
    assert_eq!(mesh.edge.metric("zen_idempotency_doubles_total") as u64, 0);
}

#[test]
fn a_killed_ingester_knows_what_it_has_answered() {
    let (mut mesh, target) = Mesh::with_target("", |_, _| TargetAnswer::status(200));
    let requests: Vec<Vec<u8>> = (0..20).map(|number| github(GITHUB, &numbered(number, 100), "")).collect();
    let mut source = mesh.source();
    let ids: Vec<String> = requests.iter().map(|request| accepted(&source.ask(request))).collect();
    for _ in 0..2 {
        mesh.edge.kill();
        mesh.restart_edge();
        let mut source = mesh.source();
        for (request, id) in requests.iter().zip(&ids) {
            assert_duplicate(&source.ask(request), id);
        }
    }
    wait_until("all are delivered", || delivered(&target.deliveries()) == distinct(ids.clone()));
    assert_eq!(target.deliveries().len(), ids.len(), "and none of them twice");
}

#[test]
fn keys_outlive_the_segments_of_their_events() {
    let (mut mesh, target) = Mesh::with_target("", |_, _| TargetAnswer::status(200));
    let first = with_id("first", b"1");
    let id = accepted(&mesh.source().ask(&first));
    let mut events = 1;
    // Three rounds: what was indexed once is not indexed again after a start, and still known.
    for _ in 0..3 {
        let segments = mesh.lab.path("edge/ingester/worker-0");
        let before = oldest_segment(&segments);
        // Trimmed files are kept for the next segments, so it takes some more to see one go.
        wait_until("its segment is gone", || {
            mesh.send_many(8, 500_000);
            events += 8;
            oldest_segment(&segments) > before
        });
        assert_duplicate(&mesh.source().ask(&first), &id);
        mesh.edge.kill();
        mesh.restart_edge();
        assert_duplicate(&mesh.source().ask(&first), &id);
        assert_eq!(mesh.edge.metric("zen_idempotency_duplicates_total") as u64, 1);
        wait_until("every key is back", || mesh.edge.metric("zen_idempotency_keys") as usize == events);
    }
    wait_until("all are delivered", || delivered(&target.deliveries()).len() == events);

    // Fewer workers than journals: the keys of the one that is gone still count.
    assert!(mesh.edge.terminate().success());
    mesh.edge_text = change(&mesh.edge_text, "workers = 1", "workers = 2");
    mesh.restart_edge();
    assert_duplicate(&mesh.source().ask(&first), &id);
    assert!(mesh.edge.terminate().success());
    mesh.edge_text = change(&mesh.edge_text, "workers = 2", "workers = 1");
    mesh.restart_edge();
    assert_duplicate(&mesh.source().ask(&first), &id);
}

#[test]
fn what_the_journal_did_not_take_may_come_again() {
    let (mut mesh, target) = Mesh::with_target("", |_, _| TargetAnswer::status(200));
    mesh.inside.kill();
    let (mut source, mut number) = (mesh.source(), 0);
    let refused = loop {
        let request = github(GITHUB, &numbered(number, 500_000), "");
        let answer = source.ask(&request);
        match answer.status {
            202 => number += 1,
            503 => break request,
            _ => panic!("{answer:?}"),
        }
    };
    assert_eq!(source.ask(&refused).status, 503, "it owns no key");
    mesh.restart_inside();
    let mut id = None;
    // A journal that takes small events again may still have no room for this one.
    wait_until("there is room again", || {
        let answer = source.ask(&refused);
        id = (answer.status != 503).then(|| accepted(&answer));
        id.is_some()
    });
    let id = id.expect("waited for");
    assert_duplicate(&source.ask(&refused), &id);
    target.wait(number + 1);
}

#[test]
fn a_key_is_forgotten_after_its_window() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let text = lab.ingester_text(ports) + "[ingester.idempotency]\nwindow_ms = 1000\n";
    let edge = lab.start("edge", ports, &text);
    let mut source = Client::connect(&lab, ports.listen);
    let request = with_id("a", b"1");
    let first = accepted(&source.ask(&request));
    wait_until("it is new again", || {
        let answer = source.ask(&request);
        answer.status == 202 && accepted(&answer) != first
    });
    wait_until("no key is held", || edge.metric("zen_idempotency_keys") as u64 == 0);
}

#[test]
fn when_the_table_is_full_the_oldest_keys_leave_and_are_counted() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let text = lab.ingester_text(ports) + "[ingester.idempotency]\nkeys_max = 1000\n";
    let edge = lab.start("edge", ports, &text);
    let send = |from: usize, to: usize| {
        let mut source = Client::connect(&lab, ports.listen);
        for number in from..to {
            accepted(&source.ask(&with_id(&number.to_string(), b"1")));
        }
    };
    thread::scope(|scope| {
        for start in (0..1000).step_by(100) {
            scope.spawn(move || send(start, start + 100));
        }
    });
    edge.wait_metric("zen_idempotency_keys", 1000.0);
    assert_eq!(edge.metric("zen_idempotency_evicted_early_total") as u64, 0);
    send(1000, 1010);
    edge.wait_metric("zen_idempotency_evicted_early_total", 10.0);
    edge.wait_log("the table of idempotency keys is full");
    assert_eq!(edge.metric("zen_idempotency_keys") as u64, 1000);
    let mut source = Client::connect(&lab, ports.listen);
    assert_eq!(source.ask(&with_id("1009", b"1")).status, 200);
}

#[test]
fn the_hash_key_is_a_secret_and_stays_with_its_index() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let mut edge = lab.start("edge", ports, &lab.ingester_text(ports));
    accepted(&Client::connect(&lab, ports.listen).ask(&with_id("a", b"1")));
    assert!(edge.terminate().success(), "a drain writes the index");
    let (config, key) = (lab.path("edge.toml"), lab.path("edge/idempotency.key"));
    let refused = |text: &str| {
        let output = run(&["--config", config.to_str().unwrap(), "--io", &support::node::io()]);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && complaint.contains(text), "{complaint}");
    };
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refused("lets others read");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let kept = fs::read(&key).unwrap();
    fs::write(&key, [0; 16]).unwrap();
    refused("made with another hash key");
    fs::write(&key, kept).unwrap();
    let _edge = lab.start("edge", ports, &lab.ingester_text(ports));
    assert_eq!(Client::connect(&lab, ports.listen).ask(&with_id("a", b"1")).status, 200);
}

/// The oldest segment file of a journal, by its number.
fn oldest_segment(directory: &Path) -> u64 {
    let stems = fs::read_dir(directory).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let stem = path.file_stem()?.to_str()?.to_owned();
        (path.extension()? == "seg").then(|| u64::from_str_radix(&stem, 16).unwrap())
    });
    stems.min().unwrap()
}
