//! Flows with conditions at the ingester: where events go, what cannot be decided, what leads nowhere, and why.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use mesh::{Mesh, distinct, numbered, send, target};
use nix::sys::signal::Signal;
use support::client::github;
use support::node::wait_until;
use support::{GITHUB, Lab, change};
use target::{Answer, Target};

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

/// The flow of the endpoint as the lab writes it.
fn plain_flow() -> String {
    format!("[[ingester.flows]]\nendpoint = \"{GITHUB}\"\negress = \"inside\"\ntargets = [\"demo\"]\n")
}

/// A flow of that endpoint.
fn flow(name: &str, target: &str, keys: &str) -> String {
    format!(
        "[[ingester.flows]]\nname = \"{name}\"\nendpoint = \"{GITHUB}\"\negress = \"inside\"\n\
         targets = [\"{target}\"]\n{keys}\n"
    )
}

/// Two targets, and these flows to them.
fn mesh(flows: &str) -> (Mesh, Target, Target) {
    let lab = Lab::new();
    let demo = target(&lab, "demo", |_, _| Answer::status(200));
    let audit = target(&lab, "demo", |_, _| Answer::status(200));
    let targets = [("demo", &demo), ("audit", &audit)];
    let sections = targets.map(|(name, target)| lab.target_text(name, target.address, "")).concat();
    let edit = |text: &str| change(text, &plain_flow(), flows);
    (Mesh::start_with(lab, &sections, edit, str::to_owned), demo, audit)
}

fn ids(target: &Target) -> Vec<String> {
    distinct(target.deliveries().iter().map(|delivery| delivery.event_id().to_owned()))
}

const MAIN_ONLY: &str = "when = { all = [{ header = \"x-github-event\", exact = \"push\" }, \
     { jsonpath = \"$.ref\", regex = \"^refs/heads/main$\" }] }";

#[test]
fn each_event_goes_where_the_conditions_say() {
    let (mesh, demo, audit) =
        mesh(&format!("{}{}", flow("main", "demo", MAIN_ONLY), flow("all", "audit", "")));
    let main = mesh.send(br#"{"ref":"refs/heads/main"}"#);
    let branch = mesh.send(br#"{"ref":"refs/heads/other"}"#);
    demo.wait(1);
    audit.wait(2);
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 3.0);
    assert_eq!(ids(&audit), distinct([main.clone(), branch]));
    assert_eq!(ids(&demo), vec![main]);
    assert_eq!(mesh.edge.metric("zen_events_unrouted_total") as u64, 0);
    assert_eq!(mesh.edge.metric("zen_flows_undecided_total") as u64, 0);
}

#[test]
fn the_first_flow_that_matches_can_be_the_only_one() {
    let flows = [
        flow("main", "demo", &format!("priority = 10\n{MAIN_ONLY}")),
        flow("rest", "audit", "priority = 20"),
    ];
    let lab_text = format!("id = \"{GITHUB}\"\n");
    let lab = Lab::new();
    let demo = target(&lab, "demo", |_, _| Answer::status(200));
    let audit = target(&lab, "demo", |_, _| Answer::status(200));
    let targets = [("demo", &demo), ("audit", &audit)];
    let sections = targets.map(|(name, target)| lab.target_text(name, target.address, "")).concat();
    let edit = |text: &str| {
        let text = change(text, &plain_flow(), &flows.concat());
        change(&text, &lab_text, &format!("{lab_text}match = \"first\"\n"))
    };
    let mesh = Mesh::start_with(lab, &sections, edit, str::to_owned);
    let main = mesh.send(br#"{"ref":"refs/heads/main"}"#);
    let branch = mesh.send(br#"{"ref":"refs/heads/other"}"#);
    demo.wait(1);
    audit.wait(1);
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 2.0);
    assert_eq!((ids(&demo), ids(&audit)), (vec![main], vec![branch]));
}

#[test]
fn what_cannot_be_decided_is_left_or_taken_as_the_flow_says() {
    let condition = "when = { jsonpath = \"$.ref\", exact = \"a\" }";
    let (mesh, demo, audit) = mesh(&format!(
        "{}{}",
        flow("closed", "demo", condition),
        flow("open", "audit", &format!("{condition}\non_error = \"open\""))
    ));
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let not_json = mesh.send(b"not JSON");
    let too_deep = mesh.send(deep.as_bytes());
    let twice = mesh.send(br#"{"ref":"a","ref":"b"}"#);
    audit.wait(3);
    assert_eq!(ids(&audit), distinct([not_json, too_deep, twice]));
    assert_eq!(demo.deliveries().len(), 0);
    for reason in ["not_json", "too_deep", "duplicate_member"] {
        let metric = format!("zen_flows_undecided_total{{reason=\"{reason}\"}}");
        assert_eq!(mesh.edge.metric(&metric) as u64, 1, "{reason}");
    }
}

#[test]
fn what_no_flow_takes_is_accepted_and_goes_nowhere() {
    let (mut mesh, demo, _audit) = mesh(&flow("main", "demo", MAIN_ONLY));
    let body = br#"{"ref":"refs/heads/other"}"#;
    let request = github(GITHUB, body, "");
    let first = mesh.source().ask(&request);
    assert_eq!(first.status, 202);
    let id = first.json()["id"].clone();
    mesh.edge.wait_metric("zen_events_unrouted_total", 1.0);
    // It is an event like any other: its key is remembered, also after a kill.
    mesh.edge.kill();
    mesh.restart_edge();
    let again = mesh.source().ask(&request);
    assert_eq!((again.status, &again.json()["id"]), (200, &id));
    let routed = mesh.send(br#"{"ref":"refs/heads/main"}"#);
    assert_eq!(demo.wait(1)[0].event_id(), routed);
    assert_eq!(ids(&demo), [routed]);
}

fn reload(mesh: &Mesh, text: &str, generation: usize) {
    mesh.lab.write("edge.toml", text);
    mesh.edge.signal(Signal::SIGHUP);
    let expected = format!("generation {generation} ");
    wait_until("the reload", || mesh.edge.get("/status").1.contains(&expected));
}

#[test]
fn a_flow_is_switched_off_and_on_by_a_reload() {
    let (mesh, demo, _audit) = mesh(&flow("main", "demo", "enabled = true"));
    let first = mesh.send(b"1");
    demo.wait(1);
    reload(&mesh, &change(&mesh.edge_text, "enabled = true", "enabled = false"), 2);
    mesh.send(b"2");
    mesh.edge.wait_metric("zen_events_unrouted_total", 1.0);
    reload(&mesh, &mesh.edge_text, 3);
    let third = send(&mut mesh.source(), GITHUB, b"3");
    demo.wait(2);
    assert_eq!(ids(&demo), distinct([first, third]));
}

#[test]
fn a_regex_that_is_made_to_explode_does_not() {
    let condition = "when = { jsonpath = \"$.padding\", regex = \"^(x+x+)+y$\" }";
    let (mesh, demo, audit) =
        mesh(&format!("{}{}", flow("explosive", "demo", condition), flow("all", "audit", "")));
    for index in 0..5 {
        mesh.send(&numbered(index, 200_000));
    }
    audit.wait(5);
    assert_eq!(demo.deliveries().len(), 0);
}

/// `route` with the edge's configuration; the body comes from a file.
fn route(lab: &Lab, arguments: &[&str], body: &[u8]) -> Output {
    std::fs::write(lab.path("body"), body).unwrap();
    let (config, body) = (lab.path("edge.toml"), lab.path("body"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_zen-dataplane"));
    command.args(["route", "--config"]).arg(config).arg("--explain").arg(body).args(arguments);
    command.output().unwrap()
}

#[test]
fn an_explanation_names_each_flow_and_no_value() {
    let lab = Lab::new();
    let flows = format!("{}{}", flow("main", "demo", MAIN_ONLY), flow("all", "audit", ""));
    let text = change(&lab.ingester_text(support::Ports::pick()), &plain_flow(), &flows);
    lab.write("edge.toml", &text);
    let body = br#"{"ref":"refs/heads/other"}"#;
    let shown = route(&lab, &["--endpoint", GITHUB, "--header", "X-GitHub-Event: push"], body);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let expected = "flow main (priority 100): does not match\n  all: does not hold\n    \
        header x-github-event exact \"push\": holds; saw a string of 4 bytes\n    \
        jsonpath $.ref regex ^refs/heads/main$: does not hold; saw a string of 16 bytes\n\
        flow all (priority 100): matches, it has no condition\ntargets: audit\n";
    assert_eq!(String::from_utf8(shown.stdout).unwrap(), expected);

    let shown = route(&lab, &["--endpoint", GITHUB, "--json"], body);
    let json: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&json["targets"][0], json["flows"].as_array().unwrap().len()), (&"audit".into(), 2));

    for (arguments, expected) in [
        (&["--endpoint", "nope"][..], "no endpoint nope; give the id of one"),
        (
            &["--endpoint", GITHUB, "--header", "no colon"][..],
            "--header \"no colon\": give it as name: value",
        ),
        (&["--output", "chat"][..], "no output \"chat\" under [egress]"),
    ] {
        let refused = route(&lab, arguments, body);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.contains(expected), "{said}");
    }
}

#[test]
fn the_body_that_an_output_makes_is_shown() {
    let lab = Lab::new();
    let output = "[[egress.outputs]]\nname = \"chat\"\nprimary = \"demo\"\n\
        transform = { fields = [{ direct = \"a\", to = \"b.c\" }] }\n";
    let demo = lab.target_text("demo", support::free_address(), "");
    let text = lab.egress_text(support::Ports::pick(), support::free_address(), &format!("{demo}{output}"));
    lab.write("edge.toml", &text);
    let shown = route(&lab, &["--output", "chat"], br#"{"a":[1]}"#);
    assert_eq!(
        String::from_utf8(shown.stdout).unwrap(),
        "content-type: application/json\n\n{\"b\":{\"c\":[1]}}\n"
    );
    let refused = route(&lab, &["--output", "chat"], b"{}");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("field b.c: the body does not have it"), "{said}");
}
