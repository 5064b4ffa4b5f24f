//! Spans of sampled events at an OpenTelemetry collector: over TLS and in clear, in one trace; and collectors that fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use mesh::{Mesh, SHORT_RETRIES, target};
use serde_json::Value;
use support::client::github;
use support::node::{run, wait_until};
use support::{GITHUB, Lab, Ports, change};
use target::{Answer, Delivery, Target, TargetTls};

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
const BODY: &[u8] = b"{\"never\":\"in-a-span\"}";

/// A span: its fields and attributes by name.
type Span = BTreeMap<String, String>;

fn tracing(keys: &str) -> impl Fn(&str) -> String + use<> {
    let section = format!("[tracing]\n{keys}\n\n[identity]\n");
    move |text| change(text, "[identity]\n", &section)
}

fn spans(message: &[u8]) -> Vec<Span> {
    assert!(!String::from_utf8_lossy(message).contains("in-a-span"), "a body is never in a span");
    let message: Value = serde_json::from_slice(message).unwrap();
    let found = message["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    found.iter().map(fields).collect()
}

fn fields(span: &Value) -> Span {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let members = span.as_object().unwrap().iter().filter(|(name, _)| *name != "attributes");
    let members = members.map(|(name, value)| (name.clone(), text(value)));
    let attributes = span["attributes"].as_array().unwrap().iter().map(|attribute| {
        let value = attribute["value"].as_object().unwrap().values().next().unwrap();
        (attribute["key"].as_str().unwrap().to_owned(), text(value))
    });
    members.chain(attributes).collect()
}

/// A collector under the lab's public CA.
fn tls_collector(lab: &Lab) -> Target {
    let tls = TargetTls {
        certificate: &lab.path("pki/public.pem"),
        key: &lab.path("pki/public.key"),
        client_ca: None,
    };
    Target::start(tls, |_, _| Answer::status(200))
}

fn wait_spans(collector: &Target, count: usize) -> Vec<Span> {
    let found =
        || collector.deliveries().iter().flat_map(|delivery| spans(&delivery.body)).collect::<Vec<_>>();
    wait_until("spans", || found().len() >= count);
    assert_eq!(found().len(), count);
    found()
}

#[test]
fn one_trace_from_the_source_s_request_to_each_attempt() {
    let lab = Lab::new();
    let (edge, inside) = (tls_collector(&lab), tls_collector(&lab));
    let target = target(&lab, "demo", |number, _| Answer::status(if number == 0 { 500 } else { 200 }));
    let section = lab.target_text("demo", target.address, SHORT_RETRIES);
    let to = |collector: &Target, path: &str| {
        let port = collector.address.port();
        format!("otlp_endpoint = \"https://localhost:{port}{path}\"\notlp_ca_file = \"pki/public_ca.pem\"")
    };
    let edge_keys = format!("sample_percent = 100\n{}", to(&edge, ""));
    let mesh = Mesh::start_with(lab, &section, tracing(&edge_keys), tracing(&to(&inside, "/prefix/")));
    let id = mesh.send(BODY);
    let deliveries = target.wait(2);
    let receive = wait_spans(&edge, 1).remove(0);
    let delivers = wait_spans(&inside, 2);
    let posted: Vec<Delivery> = [edge.deliveries(), inside.deliveries()].concat();
    assert_eq!(posted[0].line, "POST /v1/traces HTTP/1.1");
    assert_eq!(posted[1].line, "POST /prefix/v1/traces HTTP/1.1");
    assert!(posted.iter().all(|posted| posted.header("content-type") == "application/json"));
    assert_eq!((&*receive["name"], &*receive["zen.event.id"]), ("receive", &*id));
    assert_eq!((&*receive["zen.endpoint.id"], &*receive["zen.outcome"]), (GITHUB, "accepted"));
    assert_eq!((&*receive["kind"], receive.get("parentSpanId")), ("2", None));
    for (at, (deliver, delivery)) in delivers.iter().zip(&deliveries).enumerate() {
        assert_eq!((&*deliver["name"], &*deliver["kind"], &*deliver["zen.target"]), ("deliver", "3", "demo"));
        assert_eq!(deliver["traceId"], receive["traceId"]);
        assert_eq!(deliver["parentSpanId"], receive["spanId"]);
        let sent = format!("00-{}-{}-03", deliver["traceId"], deliver["spanId"]);
        assert_eq!(delivery.header("traceparent"), sent, "the target's spans are children of the attempt");
        let (outcome, status) = [("server_error", "500"), ("delivered", "200")][at];
        assert_eq!((&*deliver["zen.outcome"], &*deliver["http.response.status_code"]), (outcome, status));
        assert_eq!(deliver["zen.attempt"], (at + 1).to_string());
        assert!(deliver["startTimeUnixNano"] <= deliver["endTimeUnixNano"]);
    }
    wait_until("counted", || mesh.inside.metric("zen_spans_exported_total") as u64 == 2);
    assert_eq!(mesh.inside.metric("zen_spans_dropped_total") as u64, 0);
}

/// A collector in clear: keeps what comes and answers with a status, or with nothing.
fn clear_collector(status: Option<u16>) -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, messages) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&messages);
    thread::spawn(move || {
        let mut hanging = Vec::new();
        for mut socket in listener.incoming().map_while(Result::ok) {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && socket.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            socket.read_exact(&mut body).unwrap();
            kept.lock().unwrap().push(body);
            match status {
                None => hanging.push(socket),
                Some(status) => {
                    let answer = format!("HTTP/1.1 {status} Answer\r\ncontent-length: 2\r\n\r\n{{}}");
                    socket.write_all(answer.as_bytes()).unwrap();
                }
            }
        }
    });
    (address, messages)
}

/// A path whose ingester exports to `collector`.
fn start(collector: SocketAddr) -> (Mesh, Target) {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let section = lab.target_text("demo", target.address, "");
    let edge = tracing(&format!("sample_percent = 100\notlp_endpoint = \"http://{collector}\""));
    (Mesh::start_with(lab, &section, edge, str::to_owned), target)
}

fn dropped(mesh: &Mesh, reason: &str) -> u64 {
    mesh.edge.metric(&format!("zen_spans_dropped_total{{reason=\"{reason}\"}}")) as u64
}

#[test]
fn a_source_s_own_decision_to_sample_counts() {
    let (collector, messages) = clear_collector(Some(200));
    let (mesh, target) = start(collector);
    for flags in ["00", "01"] {
        let line = format!("traceparent: 00-{TRACE}-{SPAN}-{flags}\r\n");
        assert_eq!(mesh.source().ask(&github(GITHUB, BODY, &line)).status, 202);
    }
    wait_until("a span", || !messages.lock().unwrap().is_empty());
    let found: Vec<Span> = messages.lock().unwrap().iter().flat_map(|message| spans(message)).collect();
    let span = &found[0];
    assert_eq!((found.len(), &*span["traceId"], &*span["parentSpanId"]), (1, TRACE, SPAN));
    let deliveries = target.wait(2);
    assert!(deliveries.iter().all(|delivery| delivery.header("traceparent").contains(TRACE)));
}

#[test]
fn a_collector_that_refuses_or_hangs_delays_no_event() {
    for (status, reason) in [(Some(503), "refused"), (None, "unreachable")] {
        let (collector, messages) = clear_collector(status);
        let (mesh, target) = start(collector);
        mesh.send(BODY);
        wait_until("the collector has a message", || !messages.lock().unwrap().is_empty());
        mesh.send_many(20, 100);
        target.wait(21);
        wait_until("the loss is counted", || dropped(&mesh, reason) > 0);
        assert_eq!(mesh.edge.metric("zen_spans_exported_total") as u64, 0);
    }
    let nobody = support::free_address();
    let (mesh, target) = start(nobody);
    mesh.send(BODY);
    target.wait(1);
    wait_until("the loss is counted", || dropped(&mesh, "unreachable") == 1);
}

#[test]
fn what_is_said_about_a_collector_is_checked() {
    let lab = Lab::new();
    for (keys, complaint) in [
        ("otlp_endpoint = \"https://localhost:4318\"\notlp_ca_file = \"pki/public_ca.pem\"", ""),
        ("otlp_endpoint = \"http://127.0.0.1:4318\"", ""),
        ("otlp_endpoint = \"http://[::1]:4318/x\"", ""),
        ("otlp_endpoint = \"http://192.0.2.1:4318\"", "otlp_endpoint"),
        ("otlp_endpoint = \"http://collector:4318\"", "otlp_endpoint"),
        ("otlp_endpoint = \"http://localhost\"", ""),
        ("otlp_endpoint = \"collector:4318\"", "otlp_endpoint"),
        ("otlp_endpoint = \"https://user@collector\"", "otlp_endpoint"),
        ("otlp_endpoint = \"http://127.0.0.1:4318\"\notlp_ca_file = \"pki/public_ca.pem\"", "otlp_ca_file"),
        ("otlp_endpoint = \"https://collector\"\notlp_ca_file = \"pki/none.pem\"", "otlp_ca_file"),
        ("otlp_ca_file = \"pki/public_ca.pem\"", "otlp_ca_file"),
    ] {
        let text = tracing(keys)(&lab.ingester_text(Ports::pick()));
        let file = lab.write("checked.toml", &text);
        let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.success(), complaint.is_empty(), "{keys}: {said}");
        assert!(complaint.is_empty() || said.contains(&format!("tracing.{complaint}")), "{keys}: {said}");
    }
}
