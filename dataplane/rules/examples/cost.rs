//! What rules cost for one event: `cargo run --release -p zen-rules --example cost`.
#![expect(clippy::disallowed_methods, clippy::disallowed_macros, reason = "measures, and is no rule")]

use std::hint::black_box;
use std::time::Instant;

use zen_rules::{Document, Flows, Headers, Matching, RawFlow, RawTransform, Subject, Transform};

const BODY: &[u8] = include_bytes!("../fixtures/github-push.json");
const HEADERS: &str = "content-length:8012\nuser-agent:GitHub-Hookshot/044aadd\nx-github-delivery:72d3162e-cc78-11e3\n\
                       x-github-event:push\nx-hub-signature-256:sha256=00\n";
const EVENTS: u32 = 20_000;
/// Rounds of all cases in turn; the median and its spread are shown.
const ROUNDS: usize = 9;

const TRANSFORM: &str = "
    fields = [
        { direct = 'repository.full_name', to = 'repository' },
        { jsonpath = '$.commits[*].id', to = 'commits' },
        { direct = 'head_commit.timestamp', to = 'day', functions = [{ formatDate = { to = '%Y-%m-%d' } }] },
        { direct = 'pusher.name', to = 'who', functions = ['trim', 'lowercase'] },
        { static = 'github', to = 'source' },
        { template = '{{ $.pusher.name }} pushed to {{ $.repository.name }}', to = 'title' },
    ]";

struct Case {
    name: &'static str,
    run: Box<dyn Fn()>,
    ns: Vec<f64>,
}

fn main() {
    let cases = [
        routed("no condition", ""),
        routed("one header condition", "when = { header = 'x-github-event', exact = 'push' }"),
        routed(
            "one header condition, regex",
            "when = { header = 'x-github-event', regex = '^(push|create)$' }",
        ),
        parsed(),
        routed("one JSONPath condition", "when = { jsonpath = '$.ref', exact = 'refs/heads/main' }"),
        routed("one JSONPath condition, regex", "when = { jsonpath = '$.ref', regex = '^refs/heads/' }"),
        routed(
            "one JSONPath condition over all values",
            "when = { jsonpath = '$..nothing', exists = false }",
        ),
        transformed(),
    ];
    let mut cases = Vec::from(cases);
    for _ in 0..ROUNDS {
        for case in &mut cases {
            let begun = Instant::now();
            (0..EVENTS).for_each(|_| (case.run)());
            case.ns.push(begun.elapsed().as_nanos() as f64 / f64::from(EVENTS));
        }
    }
    println!("body of {} bytes, {EVENTS} events, {ROUNDS} rounds; ns per event", BODY.len());
    for case in &mut cases {
        case.ns.sort_by(f64::total_cmp);
        let (least, median, most) = (case.ns[0], case.ns[ROUNDS / 2], case.ns[ROUNDS - 1]);
        println!("{:<42} {median:>9.0} ({least:.0} to {most:.0})", case.name);
    }
}

fn routed(name: &'static str, when: &str) -> Case {
    let raw: RawFlow = toml::from_str(&format!("name = 'f'\ntargets = ['t']\n{when}")).expect("written here");
    let flows = Flows::compile(&[raw], Matching::All).expect("written here");
    let run = move || {
        let document = Document::new(black_box(BODY));
        let (endpoint, content_type) = ("github", "application/json");
        let headers = Headers::Lines(black_box(HEADERS));
        let subject = Subject { endpoint, content_type, headers, document: &document };
        let routed = flows.route(&subject);
        assert!(routed.is_matched(0));
    };
    Case { name, run: Box::new(run), ns: Vec::new() }
}

fn parsed() -> Case {
    let run = || {
        let document = Document::new(black_box(BODY));
        assert!(document.value().is_ok());
    };
    Case { name: "parse alone", run: Box::new(run), ns: Vec::new() }
}

fn transformed() -> Case {
    let raw: RawTransform = toml::from_str(TRANSFORM).expect("written here");
    let transform = Transform::compile(&raw, "transform").expect("written here");
    let run = move || {
        let document = Document::new(black_box(BODY));
        assert!(black_box(transform.apply(&document)).is_ok());
    };
    Case { name: "one transform of six fields", run: Box::new(run), ns: Vec::new() }
}
