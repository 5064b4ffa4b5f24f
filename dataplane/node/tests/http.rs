//! Sources over real TLS: what is accepted, and each refusal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use support::client::{Answer, Client, github, github_head, signature, source_config};
use support::node::{Node, PATIENCE, wait_until};
use support::{GITHUB, HMAC, Lab, Ports, STANDARD, WHSEC, change};

mod support;

const BODY_BYTES_MAX: usize = 1 << 20;
/// A body that no answer may hold.
const BODY: &[u8] = b"{\"marker\":\"never-in-an-answer\"}";

fn start(change_text: impl Fn(String) -> String) -> (Lab, Ports, Node) {
    let (lab, ports) = (Lab::new(), Ports::pick());
    // Here a request may be sent again and be a new event: these tests are about HTTP.
    let text = lab.ingester_text(ports);
    let headers = "forward_headers = [\"x-github-event\"]";
    let text = change(&text, headers, &format!("{headers}\nidempotency = {{ key = \"none\" }}"));
    let node = lab.start("edge", ports, &change_text(text));
    (lab, ports, node)
}

fn assert_accepted(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let json = answer.json();
    let id = json["id"].as_str().unwrap().to_owned();
    assert_eq!(json.as_object().unwrap().len(), 1);
    assert_eq!(id.len(), 36);
    assert_eq!(&id[14..15], "7", "{id} is a UUIDv7");
    assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
    id
}

fn assert_problem(name: &str, answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{name}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{name}");
    assert_eq!(answer.header("connection"), Some("close"), "{name}");
    let json = answer.json();
    assert_eq!(json["status"], status, "{name}");
    assert!(json["type"].as_str().unwrap().starts_with("https://zen-mesh.io/errors/"), "{name}");
    assert!(!json["title"].as_str().unwrap().is_empty() && !json["detail"].as_str().unwrap().is_empty());
    let text = format!("{:?}{}", answer.headers, String::from_utf8_lossy(&answer.body));
    assert!(!text.contains("never-in-an-answer"), "{name}: {text}");
    assert!(!text.contains(&signature(BODY)["sha256=".len()..]), "{name}: {text}");
}

/// The disk does not take it now: docs/operations.md, `journal`.
fn is_journal_busy(answer: &Answer) -> bool {
    answer.status == 503 && answer.header("retry-after") == Some("1")
}

/// A signed request with `line` instead of its Content-Length line.
fn framed(line: &str) -> Vec<u8> {
    let mut request = github_head(GITHUB, BODY, line).into_bytes();
    request.extend_from_slice(BODY);
    request
}

/// A good request with one part replaced.
fn altered(from: &str, to: &str) -> Vec<u8> {
    change(&String::from_utf8(github(GITHUB, BODY, "")).unwrap(), from, to).into_bytes()
}

fn malformed() -> Vec<(&'static str, Vec<u8>, u16)> {
    let length = BODY.len();
    vec![
        (
            "both framings",
            framed(&format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n")),
            400,
        ),
        ("both framings, reversed", framed("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400),
        (
            "two equal lengths",
            framed(&format!("Content-Length: {length}\r\nContent-Length: {length}\r\n")),
            400,
        ),
        ("two lengths", framed(&format!("Content-Length: {length}\r\nContent-Length: 5\r\n")), 400),
        ("a list of lengths", framed(&format!("Content-Length: {length}, {length}\r\n")), 400),
        ("signed length", framed(&format!("Content-Length: +{length}\r\n")), 400),
        ("obs-fold", framed(&format!("X-A: b\r\n c\r\nContent-Length: {length}\r\n")), 400),
        ("bare LF", framed(&format!("X-A: b\nContent-Length: {length}\r\n")), 400),
        ("bare CR", framed(&format!("X-A: b\rc\r\nContent-Length: {length}\r\n")), 400),
        ("NUL in a value", framed(&format!("X-A: b\0\r\nContent-Length: {length}\r\n")), 400),
        ("space before the colon", framed(&format!("Content-Length : {length}\r\n")), 400),
        ("chunked twice", framed("Transfer-Encoding: chunked, chunked\r\n"), 400),
        ("chunked and not last", framed("Transfer-Encoding: chunked, gzip\r\n"), 400),
        ("hidden chunked", framed("Transfer-Encoding: \x0bchunked\r\n"), 400),
        ("another coding", framed("Transfer-Encoding: gzip\r\n"), 501),
        ("chunk size", [framed("Transfer-Encoding: chunked\r\n"), b"\r\n".to_vec()].concat(), 400),
        ("no host", altered("Host: localhost\r\n", ""), 400),
        ("two hosts", altered("Host: localhost\r\n", "Host: localhost\r\nHost: evil\r\n"), 400),
        ("two spaces", altered("POST /", "POST  /"), 400),
        ("no version", altered(" HTTP/1.1\r\n", "\r\n"), 400),
        ("HTTP/2", altered("HTTP/1.1", "HTTP/2.0"), 505),
        ("no length", framed(""), 411),
        ("another expectation", framed(&format!("Expect: tea\r\nContent-Length: {length}\r\n")), 417),
        ("long line", altered(GITHUB, &"a".repeat(9000)), 414),
        ("long head", framed(&format!("X-A: {}\r\nContent-Length: {length}\r\n", "b".repeat(40_000))), 431),
        ("many fields", framed(&format!("{}Content-Length: {length}\r\n", "X-A: b\r\n".repeat(64))), 431),
    ]
}

fn unwanted() -> Vec<(&'static str, Vec<u8>, u16)> {
    let good = signature(BODY);
    let bad = format!("sha256={}", "0".repeat(64));
    let signed = format!("X-Hub-Signature-256: {good}\r\n");
    let hmac = |media: &str| altered_hmac(BODY, &format!("Content-Type: {media}\r\n"));
    vec![
        ("no signature", altered(&signed, ""), 401),
        ("another signature", altered(&good, &bad), 401),
        ("short signature", altered(&good, &good[..70]), 401),
        ("no prefix", altered(&good, &good[7..]), 401),
        ("two signatures", altered(&signed, &signed.repeat(2)), 401),
        ("another body", altered("marker", "Marker"), 401),
        ("unknown endpoint", altered(GITHUB, "0000000000000000000000000000000f"), 404),
        ("no endpoint", altered(&format!("/hooks/{GITHUB}"), "/"), 404),
        ("endpoint in capitals", altered(&format!("/hooks/{GITHUB}"), &format!("/HOOKS/{GITHUB}")), 404),
        ("path after the endpoint", altered(GITHUB, &format!("{GITHUB}/x")), 404),
        ("GET", altered("POST", "GET"), 405),
        ("PUT", altered("POST", "PUT"), 405),
        ("DELETE", altered("POST", "DELETE"), 405),
        ("form", hmac("application/x-www-form-urlencoded"), 415),
        ("no content type", altered_hmac(BODY, ""), 415),
        (
            "over the endpoint's bound",
            altered_hmac(&[b'a'; 65_537], "Content-Type: application/json\r\n"),
            413,
        ),
        ("no timestamp", standard("webhook-id: msg_1\r\n"), 401),
        ("stale", standard("webhook-id: msg_1\r\nwebhook-timestamp: 1614265330\r\n"), 401),
    ]
}

/// A signed request to the endpoint with the generic scheme.
fn altered_hmac(body: &[u8], media: &str) -> Vec<u8> {
    let mut request = format!(
        "POST /hooks/{HMAC} HTTP/1.1\r\nHost: localhost\r\n{media}X-Signature: {}\r\nContent-Length: {}\r\n\r\n",
        signature(body),
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

fn standard(lines: &str) -> Vec<u8> {
    let signature = "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=\r\n";
    let length = BODY.len();
    let mut request = format!(
        "POST /hooks/{STANDARD} HTTP/1.1\r\nHost: localhost\r\n{lines}{signature}Content-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(BODY);
    request
}

#[test]
fn every_refusal_is_a_problem_and_keeps_nothing() {
    let (lab, ports, node) = start(|text| text);
    let table = [malformed(), unwanted()].concat();
    for (name, request, status) in &table {
        let mut client = Client::connect(&lab, ports.listen);
        // The node may close before it has read everything.
        let _ = client.try_send(request);
        let answer = client.try_answer().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_problem(name, &answer, *status);
        assert_eq!(answer.header("allow"), (*status == 405).then_some("POST"), "{name}");
        assert!(client.is_closed(), "{name}: nothing follows a refusal");
    }
    assert_eq!(node.metric("zen_requests_refused_total") as usize, table.len());
    assert_eq!(node.metric("zen_events_accepted_total") as usize, 0);
    assert_eq!(node.metric("zen_journal_records_total") as usize, 0);
    wait_until("connections closed", || node.metric("zen_source_connections") as usize == 0);
    assert!(!node.log().contains("never-in-an-answer"));
}

#[test]
fn every_scheme_and_every_framing_is_accepted() {
    let (lab, ports, node) = start(|text| text);
    let mut client = Client::connect(&lab, ports.listen);
    let media = "Content-Type: Application/JSON; charset=utf-8\r\n";
    let mut ids = HashSet::new();
    for request in [
        github(GITHUB, BODY, ""),
        github(GITHUB, b"", ""),
        github(GITHUB, &vec![0xff; BODY_BYTES_MAX], ""),
        altered_hmac(BODY, media),
        signed_standard(BODY),
        chunked(&["{\"marker\":", "\"never-in-an-", "answer\"}"]),
        altered(GITHUB, &format!("{GITHUB}?source=1")),
        [b"\r\n".to_vec(), github(GITHUB, BODY, "")].concat(),
    ] {
        ids.insert(assert_accepted(&client.ask(&request)));
    }
    assert_eq!(ids.len(), 8);
    assert_eq!(node.metric("zen_events_accepted_total") as usize, 8);
    assert_eq!(node.metric("zen_journal_records_total") as usize, 8);
    assert_eq!(node.metric("zen_requests_refused_total") as usize, 0);
}

fn signed_standard(body: &[u8]) -> Vec<u8> {
    use aws_lc_rs::hmac;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64.decode(&WHSEC["whsec_".len()..]).unwrap());
    let signed = [format!("msg_1.{now}.").as_bytes(), body].concat();
    let tag = BASE64.encode(hmac::sign(&key, &signed));
    let mut request = format!(
        "POST /hooks/{STANDARD} HTTP/1.1\r\nHost: localhost\r\nwebhook-id: msg_1\r\nwebhook-timestamp: {now}\r\n\
         webhook-signature: v1,{tag}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A signed request whose body comes in these chunks, with an extension and a trailer.
fn chunked(pieces: &[&str]) -> Vec<u8> {
    let mut request = github_head(GITHUB, pieces.concat().as_bytes(), "Transfer-Encoding: chunked\r\n");
    for piece in pieces {
        write!(request, "{:X};name=value\r\n{piece}\r\n", piece.len()).unwrap();
    }
    request.push_str("0\r\nX-Trailer: x\r\n\r\n");
    request.into_bytes()
}

#[test]
fn a_request_may_be_cut_anywhere() {
    let (lab, ports, _node) = start(|text| text);
    let mut client = Client::connect(&lab, ports.listen);
    for request in [github(GITHUB, BODY, ""), chunked(&["a", "bcd", "efghijklmnopq"])] {
        for at in (1..request.len()).step_by(5) {
            client.send(&request[..at]);
            client.send(&request[at..]);
            assert_accepted(&client.answer());
        }
        for byte in &request {
            client.send(&[*byte]);
        }
        assert_accepted(&client.answer());
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (lab, ports, node) = start(|text| text);
    let mut client = Client::connect(&lab, ports.listen);
    // More than the node reads ahead: it has to stop reading and go on.
    let requests = 150;
    let one = github(GITHUB, &[b'a'; 8192], "");
    let mut all = one.repeat(requests);
    all.extend(altered(GITHUB, "0000000000000000000000000000000f"));
    all.extend(&one);
    client.send(&all);
    let ids: HashSet<String> = (0..requests).map(|_| assert_accepted(&client.answer())).collect();
    assert_eq!(ids.len(), requests);
    assert_problem("the last one", &client.answer(), 404);
    assert!(client.is_closed(), "what follows a refusal is not looked at");
    assert_eq!(node.metric("zen_events_accepted_total") as usize, requests);
}

#[test]
fn close_is_honoured() {
    let (lab, ports, _node) = start(|text| text);
    for request in [
        github(GITHUB, BODY, "Connection: close\r\n"),
        github(GITHUB, BODY, "Connection: x, Close\r\n"),
        altered("HTTP/1.1", "HTTP/1.0"),
    ] {
        let mut client = Client::connect(&lab, ports.listen);
        client.send(&[request, github(GITHUB, BODY, "")].concat());
        let answer = client.answer();
        assert_accepted(&answer);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.is_closed());
    }
    let mut client = Client::connect(&lab, ports.listen);
    for _ in 0..100 {
        let answer = client.ask(&github(GITHUB, BODY, ""));
        assert_accepted(&answer);
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
}

#[test]
fn a_body_is_asked_for_only_when_it_is_wanted() {
    let (lab, ports, _node) = start(|text| text);
    let expect = |length: usize| format!("Expect: 100-continue\r\nContent-Length: {length}\r\n");
    let mut client = Client::connect(&lab, ports.listen);
    for _ in 0..3 {
        client.send(github_head(GITHUB, BODY, &expect(BODY.len())).as_bytes());
        assert_eq!(client.answer().status, 100);
        client.send(BODY);
        assert_accepted(&client.answer());
    }
    let unknown = "0000000000000000000000000000000f";
    let unsigned = change(&github_head(GITHUB, BODY, &expect(9)), &signature(BODY), "sha1=00");
    for (name, head, status) in [
        ("too long", github_head(GITHUB, BODY, &expect(BODY_BYTES_MAX + 1)), 413),
        ("unknown endpoint", github_head(unknown, BODY, &expect(9)), 404),
        ("no signature", unsigned, 401),
        ("method", change(&github_head(GITHUB, BODY, &expect(9)), "POST", "PATCH"), 405),
    ] {
        let mut client = Client::connect(&lab, ports.listen);
        client.send(head.as_bytes());
        assert_problem(name, &client.answer(), status);
    }
}

#[test]
fn too_long_a_body_is_refused_before_it_is_read() {
    let (lab, ports, node) = start(|text| text);
    let mut client = Client::connect(&lab, ports.listen);
    client.send(github_head(GITHUB, BODY, "Content-Length: 9999999999999999999\r\n").as_bytes());
    assert_problem("announced", &client.answer(), 413);
    let mut client = Client::connect(&lab, ports.listen);
    client.send(github_head(GITHUB, BODY, "Transfer-Encoding: chunked\r\n\r\n").trim_end().as_bytes());
    client.send(b"\r\n\r\n100001\r\n");
    assert_problem("chunk size", &client.answer(), 413);
    // The whole body on its way already: the answer must still reach the source.
    let mut client = Client::connect(&lab, ports.listen);
    let _ = client.try_send(&github(GITHUB, &vec![b'a'; 4 * BODY_BYTES_MAX], ""));
    assert_problem("sent", &client.answer(), 413);
    assert_eq!(node.metric("zen_requests_refused_total{reason=\"too_large\"}") as usize, 3);
}

#[test]
fn bodies_in_memory_are_bounded() {
    let (lab, ports, node) = start(|text| {
        let text = change(&text, "request_timeout_ms = 1000", "request_timeout_ms = 20000");
        change(&text, "[ingester]\n", "[ingester]\nbody_memory_bytes_max = 4194304\n")
    });
    let request = github(GITHUB, &vec![b'a'; BODY_BYTES_MAX], "");
    let (most, rest) = request.split_at(request.len() - 10);
    // Four are over the bound; whichever is read last is refused.
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&lab, ports.listen)).collect();
    for client in &mut clients {
        let _ = client.try_send(most);
    }
    node.wait_metric("zen_requests_refused_total{reason=\"body_memory\"}", 1.0);
    let mut refused = 0;
    for client in &mut clients {
        let _ = client.try_send(rest);
        let answer = client.answer();
        // A busy disk may not take a body of this size now; that is not the bound.
        if answer.status == 202 || is_journal_busy(&answer) {
            continue;
        }
        assert_problem("memory", &answer, 429);
        assert_eq!(answer.header("retry-after"), Some("1"));
        refused += 1;
    }
    assert_eq!(refused, 1);
    drop(clients);
    wait_until("connections closed", || node.metric("zen_source_connections") as usize == 0);
    let mut client = Client::connect(&lab, ports.listen);
    for _ in 0..8 {
        wait_until("the body is taken", || {
            let answer = client.ask(&request);
            assert!(answer.status == 202 || is_journal_busy(&answer), "{answer:?}");
            answer.status == 202
        });
    }
}

#[test]
fn who_dawdles_is_told_and_who_idles_is_closed() {
    let (lab, ports, node) = start(|text| change(&text, "idle_timeout_ms = 5000", "idle_timeout_ms = 3000"));
    let request = github(GITHUB, BODY, "");
    for at in [5, request.len() - BODY.len(), request.len() - 1] {
        let mut client = Client::connect(&lab, ports.listen);
        let start = Instant::now();
        client.send(&request[..at]);
        assert_problem("dawdling", &client.answer(), 408);
        assert!(start.elapsed() >= Duration::from_millis(900), "{:?} at {at}", start.elapsed());
        assert!(client.is_closed());
    }
    assert_eq!(node.metric("zen_requests_refused_total{reason=\"timeout\"}") as usize, 3);
    let mut client = Client::connect(&lab, ports.listen);
    let start = Instant::now();
    assert!(client.is_closed(), "no answer to nothing");
    assert!(start.elapsed() >= Duration::from_millis(2900), "{:?}", start.elapsed());
}

#[test]
fn a_handshake_has_the_time_of_a_request() {
    // As long as may be, so that the idle timeout cannot be what closes them.
    let (_lab, ports, node) =
        start(|text| change(&text, "idle_timeout_ms = 5000", "idle_timeout_ms = 3600000"));
    for begun in [&b""[..], &[22, 3, 1, 2, 0, 1]] {
        let mut stream = TcpStream::connect(ports.listen).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(begun).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the node ends it");
    }
    assert_eq!(node.metric("zen_requests_refused_total{reason=\"handshake\"}") as usize, 2);
}

#[test]
fn connections_are_bounded() {
    let (lab, ports, node) = start(|text| change(&text, "[ingester]\n", "[ingester]\nconnections_max = 2\n"));
    let mut kept: Vec<Client> = (0..2).map(|_| Client::connect(&lab, ports.listen)).collect();
    assert!(Client::connect_with(&source_config(&lab), ports.listen).is_err(), "the third is closed");
    assert_eq!(node.metric("zen_requests_refused_total{reason=\"connections\"}") as usize, 1);
    for client in &mut kept {
        assert_accepted(&client.ask(&github(GITHUB, BODY, "")));
    }
    kept.pop();
    wait_until("one connection", || node.metric("zen_source_connections") as usize == 1);
    assert_accepted(&Client::connect(&lab, ports.listen).ask(&github(GITHUB, BODY, "")));
}

#[test]
fn answers_that_nobody_reads_are_not_piled_up() {
    // All but the first are duplicates: their answers wait for no disk.
    let (lab, ports) = (Lab::new(), Ports::pick());
    let node = lab.start("edge", ports, &lab.ingester_text(ports));
    let mut client = Client::connect(&lab, ports.listen);
    client.tls.sock.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
    // Small requests, so that the answers are not much smaller than they are.
    let many = github(GITHUB, b"", "").repeat(100);
    let sent = (0..2000).find(|_| client.try_send(&many).is_err());
    assert!(sent.is_some(), "the node stops reading");
    wait_until("the connection is given up", || node.metric("zen_source_connections") as usize == 0);
}

#[test]
fn idling_does_not_count_as_dawdling() {
    let (lab, ports, _node) =
        start(|text| change(&text, "request_timeout_ms = 1000", "request_timeout_ms = 3000"));
    let request = github(GITHUB, BODY, "");
    let mut client = Client::connect(&lab, ports.listen);
    assert_accepted(&client.ask(&request));
    for at in [3, 100] {
        thread::sleep(Duration::from_millis(3200));
        client.send(&request[..at]);
        thread::sleep(Duration::from_millis(400));
        client.send(&request[at..]);
        assert_accepted(&client.answer());
    }
}
