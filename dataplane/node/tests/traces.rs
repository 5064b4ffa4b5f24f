//! Trace context from a source to its targets, as the specification has it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use mesh::{Mesh, SHORT_RETRIES, distinct, numbered, target, verifier};
use support::client::github;
use support::node::run;
use support::{GITHUB, Lab, change};
use target::{Answer, Delivery, Target};

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn ok(_: usize, _: &Delivery) -> Answer {
    Answer::status(200)
}

fn sampling(percent: &str) -> impl Fn(&str) -> String {
    let section = format!("[tracing]\nsample_percent = {percent}\n\n[identity]\n");
    move |text| change(text, "[identity]\n", &section)
}

fn start(percent: &str, extra: &str) -> (Mesh, Target) {
    let lab = Lab::new();
    let target = target(&lab, "demo", ok);
    let section = lab.target_text("demo", target.address, extra);
    (Mesh::start_with(lab, &section, sampling(percent), str::to_owned), target)
}

fn send(mesh: &Mesh, lines: &str) {
    let answer = mesh.source().ask(&github(GITHUB, b"{}", lines));
    assert_eq!(answer.status, 202, "nothing is refused for its trace: {lines}");
}

/// Trace id, parent id and flags of a delivery.
fn parts(delivery: &Delivery) -> (String, String, String) {
    let value = delivery.header("traceparent");
    let fields: Vec<&str> = value.split('-').collect();
    assert_eq!((fields[0], fields.len(), value.len()), ("00", 4, 55), "{value}");
    (fields[1].to_owned(), fields[2].to_owned(), fields[3].to_owned())
}

#[test]
fn a_trace_goes_on_with_each_attempt_as_the_parent() {
    let (mesh, target) = start("0", SHORT_RETRIES);
    target.script(|number, _| Answer::status(if number == 0 { 500 } else { 200 }));
    send(
        &mesh,
        &format!("TraceParent: 00-{TRACE}-{SPAN}-01\r\ntracestate: a=1 , b=2\r\nTraceState: c=3\r\n"),
    );
    let deliveries = target.wait(2);
    let spans = deliveries.iter().map(|delivery| {
        let (trace, span, flags) = parts(delivery);
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
        assert_eq!(delivery.values("tracestate"), ["a=1,b=2,c=3"]);
        assert!(delivery.header("zen-signature").contains(&format!("n={span}")));
        delivery.verify(&mut verifier("demo")).unwrap();
        span
    });
    let mut spans = distinct(spans);
    spans.retain(|span| span != SPAN && *span != "0".repeat(16));
    assert_eq!(spans.len(), 2, "each attempt is a span of its own");
}

#[test]
fn what_cannot_be_read_is_left_out_and_refuses_nothing() {
    let (mesh, target) = start("0", "");
    let good = format!("traceparent: 00-{TRACE}-{SPAN}-00\r\n");
    let long = format!("k={}", "v".repeat(200));
    for (count, (lines, parents, states)) in (1..).zip([
        (String::new(), 0, vec![]),
        ("tracestate: a=1\r\n".to_owned(), 0, vec![]),
        (format!("traceparent: ff-{TRACE}-{SPAN}-01\r\ntracestate: a=1\r\n"), 0, vec![]),
        (format!("traceparent: 00-{}-{SPAN}-01\r\n", "0".repeat(32)), 0, vec![]),
        (format!("traceparent: 00-{}-{SPAN}-01\r\n", TRACE.to_uppercase()), 0, vec![]),
        ("traceparent:\r\n".to_owned(), 0, vec![]),
        (format!("{good}{good}tracestate: a=1\r\n"), 0, vec![]),
        (format!("{good}tracestate: not a member\r\n"), 1, vec![]),
        (format!("{good}tracestate:\r\n"), 1, vec![]),
        (format!("{good}tracestate: {long},{long},{long},a=1\r\n"), 1, vec![format!("{long},{long},a=1")]),
        (good.clone(), 1, vec![]),
    ]) {
        send(&mesh, &lines);
        let delivery = target.wait(count).pop().unwrap();
        assert_eq!(delivery.values("traceparent").len(), parents, "{lines}");
        assert_eq!(delivery.values("tracestate"), states, "{lines}");
        delivery.verify(&mut verifier("demo")).unwrap();
    }
}

#[test]
fn a_share_of_events_without_a_trace_gets_one() {
    let (mesh, target) = start("100", "");
    for index in 0..20 {
        let answer = mesh.source().ask(&github(GITHUB, &numbered(index, 0), ""));
        assert_eq!(answer.status, 202);
    }
    let made: Vec<_> = target.wait(20).iter().map(parts).collect();
    assert_eq!(distinct(made.iter().map(|(trace, ..)| trace.clone())).len(), 20);
    assert!(made.iter().all(|(.., flags)| flags == "03"), "sampled, and random: {made:?}");
    send(&mesh, &format!("traceparent: 00-{TRACE}-{SPAN}-00\r\n"));
    let (trace, _, flags) = parts(&target.wait(21).pop().unwrap());
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "00"), "what a source has decided stays");
}

#[test]
fn a_share_is_a_percentage() {
    let lab = Lab::new();
    for (percent, is_good) in [("0.01", true), ("100", true), ("-1", false), ("100.5", false), ("nan", false)]
    {
        let text = sampling(percent)(&lab.ingester_text(support::Ports::pick()));
        let file = lab.write("checked.toml", &text);
        let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.success(), is_good, "{percent}: {complaint}");
        assert_eq!(complaint.contains("tracing.sample_percent"), !is_good, "{percent}: {complaint}");
    }
}
