//! Configurations: signed, ever newer, and there within a second.

use std::time::{Duration, Instant};

use zen_control::{ConfigurationInput, Subject, deny, overview, set_configuration};
use zen_control_api::{
    CONFIGURATION, Configuration, MemberReport, Outcome, STATUS, SignedConfiguration, StatusReport,
};

use crate::client::Agent;
use crate::lab::{Lab, TRUST_DOMAIN, now_ms};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_configuration_reaches_a_waiting_agent_at_once() {
    let lab = Lab::start_with(Duration::from_mins(1)).await;
    let bundle = lab.bundle("edge");
    let agent = Agent::enroll(lab.address, &bundle).await;
    let mut connection = agent.connect(lab.address).await.unwrap();
    let read = |signed: SignedConfiguration, in_force| -> Configuration {
        signed.verify(&bundle.configuration_key, ("acme", "edge"), in_force).unwrap()
    };
    connection.send("GET", &format!("{CONFIGURATION}?after=0"), b"").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let since = Instant::now();
    lab.configure("edge");
    let first = read(connection.answer().await.unwrap().read(), 0);
    assert!(since.elapsed() < Duration::from_secs(20), "it does not wait to its end");
    assert_eq!((first.version, first.deny_list.as_str()), (1, r#"{"version":1,"entries":[]}"#));
    assert!(first.trust_bundle.contains("BEGIN CERTIFICATE") && first.members.contains_key("node-1"));

    connection.send("GET", &format!("{CONFIGURATION}?after=1"), b"").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let since = Instant::now();
    let subject = Subject::Id(format!("spiffe://{TRUST_DOMAIN}/edge/node-9"));
    let end = now_ms() + 60_000;
    deny(&lab.directory, &mut lab.database(), &subject, (Some("le\"ft"), Some(end)), now_ms()).unwrap();
    let second = read(connection.answer().await.unwrap().read(), 1);
    assert!(since.elapsed() < Duration::from_secs(20), "it does not wait to its end");
    let entry = format!(
        r#"{{"version":1,"entries":[{{"spiffe_id":"spiffe://{TRUST_DOMAIN}/edge/node-9","reason":"le\"ft","until_ms":{end}}}]}}"#
    );
    assert_eq!((second.version, second.deny_list), (2, entry));
    assert_eq!(second.members, first.members);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_news_there_is_no_content() {
    let lab = Lab::start_with(Duration::from_millis(200)).await;
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    lab.configure("core");
    let mut connection = agent.connect(lab.address).await.unwrap();
    for _ in 0..2 {
        let answer = connection.get(&format!("{CONFIGURATION}?after=0")).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (204, 0), "nothing of another cluster");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_wait_longer_than_it_may_be_idle() {
    let lab = Lab::start_with(Duration::from_secs(13)).await;
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let mut connection = agent.connect(lab.address).await.unwrap();
    assert_eq!(connection.get(&format!("{CONFIGURATION}?after=0")).await.unwrap().status, 204);
    assert_eq!(connection.get("/healthz").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_kept_and_the_last_one_counts() {
    let lab = Lab::start().await;
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let mut connection = agent.connect(lab.address).await.unwrap();
    for configuration in [1, 2] {
        let outcome =
            Outcome::Rejected { version: 2, reason: "'; DROP TABLE statuses; <script>\u{1b}[2J".to_owned() };
        let member = MemberReport { outcome, certificate_not_after_ms: u64::MAX };
        let report = StatusReport {
            agent_version: "1.0".to_owned(),
            configuration,
            members: [("node-1".to_owned(), member)].into(),
        };
        let answer = connection.post(STATUS, &serde_json::to_vec(&report).unwrap()).await.unwrap();
        assert_eq!(answer.status, 204);
        let clusters = overview(&lab.database()).unwrap();
        assert_eq!(clusters.len(), 1);
        assert_eq!(clusters[0].report.as_ref().unwrap().1, report);
        assert_eq!(clusters[0].agent.unwrap().0, 1);
    }
    let mut status = std::process::Command::new(env!("CARGO_BIN_EXE_zen-control"));
    let output = status.args(["status", "--dir"]).arg(lab.state()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("edge: no configuration, agent's certificate 1 ends 2"), "{text}");
    assert!(
        text.contains(r"node-1: REJECTED 2: \'; DROP TABLE statuses; <script>\u{1b}[2J, certificate ends"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_not_published() {
    let lab = Lab::start().await;
    lab.configure("core");
    let member = |id: &str| format!(r#"{{"members": {{"a": {{"spiffe_id": "{id}", "node": ""}}}}}}"#);
    for text in [
        member("spiffe://acme.example/agent/edge"),
        member("spiffe://acme.example/control"),
        member("spiffe://acme.example"),
        member("spiffe://other.example/a"),
        member("https://acme.example/a"),
        member("spiffe://acme.example/core/node-1"),
        member("spiffe://acme.example/a").replace("\"a\":", "\"../a\":"),
        r#"{"members": {"a": {"spiffe_id": "spiffe://acme.example/a", "node": ""}, "b": {"spiffe_id": "spiffe://acme.example/a", "node": ""}}}"#.to_owned(),
        r#"{"members": {}, "secrets": {"a/../b": ""}}"#.to_owned(),
    ] {
        let input: ConfigurationInput = serde_json::from_str(&text).unwrap();
        let refused = set_configuration(&lab.directory, &mut lab.database(), "edge", input);
        assert!(refused.is_err(), "{text}");
    }
    assert_eq!(lab.count("configurations"), 1);
    assert_eq!((lab.configure("edge"), lab.configure("edge")), (1, 2));
}
