//! A control plane that lies, is busy, loses answers, or issues certificates for seconds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/fake.rs"]
mod fake;
#[path = "support/lab.rs"]
mod lab;
mod support;

use std::thread;
use std::time::Duration;

use fake::{Fake, member_id};
use lab::{Lab, Process, wait_until};
use nix::sys::signal::Signal;
use support::configuration;
use zen_control_api::{CertificateRequest, Configuration, Member, SignedConfiguration, SigningKey};

const NODE: &str = "private_key_file = \"{{private_key}}\"\n";

fn lab() -> (Lab, Fake) {
    let lab = Lab::without_control();
    let fake = Fake::start(lab.directory.path());
    fake.bundle(&lab.path("bundle.json"));
    (lab, fake)
}

fn enroll(lab: &Lab) {
    let output = lab.enroll(&lab.path("bundle.json"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn version(fake: &Fake, version: u64) -> Configuration {
    let mut made = configuration(version, &fake.says.lock().unwrap().authority.roots());
    let node = format!("{NODE}# version {version}\n");
    made.members.insert("edge-1".to_owned(), Member { spiffe_id: member_id("edge-1"), node });
    made
}

fn wait_said(lab: &Lab, words: &str) {
    wait_until(words, || lab.status().0.contains(words));
}

fn running() -> (Lab, Fake, lab::Node, Process) {
    let (lab, fake) = lab();
    enroll(&lab);
    fake.publish(&version(&fake, 1));
    let node = lab.start_node();
    let agent = lab.start_agent();
    wait_said(&lab, "applied version 1\n");
    (lab, fake, node, agent)
}

#[test]
fn a_lie_changes_nothing_but_a_status_line_and_the_log() {
    let (lab, fake, _node, agent) = running();
    let published = lab.published("node.toml");
    let signer = |configuration: &Configuration| {
        SignedConfiguration::sign(configuration, &fake.says.lock().unwrap().signer)
    };
    let roots = support::Authority::new().roots();
    let lies = [
        (SignedConfiguration::sign(&version(&fake, 99), &SigningKey::generate()), "signature does not hold"),
        (signer(&version(&fake, 1)), "it would be a step back"),
        (signer(&Configuration { cluster: "core".to_owned(), ..version(&fake, 99) }), "is for acme/core"),
        (
            signer(&Configuration { trust_bundle: roots, ..version(&fake, 99) }),
            "would end this agent's identity",
        ),
    ];
    for ((lie, said), truth) in lies.into_iter().zip((10..).step_by(10)) {
        fake.says.lock().unwrap().configurations.push_back(lie);
        wait_said(&lab, said);
        assert_eq!(agent.log().matches(said).count(), 1, "one line in the log: {said}");
        assert!(agent.log().contains("alarm:") && !lab.status().1);
        assert_eq!(lab.published("node.toml"), published);
        // The truth is taken after it.
        fake.publish(&version(&fake, truth));
        wait_said(&lab, &format!("applied version {truth}\n"));
        assert!(!lab.status().0.contains("was refused"));
        assert_ne!(lab.published("node.toml"), published);
        break_even(&lab, &fake, truth);
    }
    assert!(agent.stop());
}

/// The text of version 1 under a higher version.
fn break_even(lab: &Lab, fake: &Fake, after: u64) {
    let mut same = version(fake, after + 1);
    same.members.get_mut("edge-1").unwrap().node = format!("{NODE}# version 1\n");
    fake.publish(&same);
    wait_said(lab, &format!("applied version {}\n", after + 1));
}

#[test]
fn certificates_for_seconds_are_renewed_by_the_timer() {
    let (lab, fake) = lab();
    fake.says.lock().unwrap().life_ms = 20_000;
    enroll(&lab);
    fake.publish(&version(&fake, 1));
    let _node = lab.start_node();
    let agent = lab.start_agent();
    let renewed = |name: &str| agent.log().matches(&format!("identity=\"{name}\" spiffe_id")).count();
    wait_until("three renewals by the timer", || renewed("agent") >= 3 && renewed("edge-1") >= 3);
    let (said, _) = lab.status();
    assert!(said.contains("applied version 1\n"), "{said}");
    let key = lab.published("node.toml").unwrap();
    let key = key.split("lockd:").nth(1).unwrap().split('"').next().unwrap().to_owned();
    lab.open(&key).unwrap();
    assert!(agent.stop());
}

#[test]
fn a_busy_control_plane_is_asked_when_it_says() {
    let (lab, fake, _node, agent) = running();
    fake.says.lock().unwrap().busy_s = Some(4);
    let before = fake.asked("/agent/v1/certificates");
    agent.signal(Signal::SIGHUP);
    wait_said(&lab, "renewal fails");
    thread::sleep(Duration::from_secs(2));
    assert_eq!(fake.asked("/agent/v1/certificates") - before, 2, "the agent's and the member's, once each");
    fake.says.lock().unwrap().busy_s = None;
    wait_until("both are renewed", || !lab.status().0.contains("renewal fails"));
    assert!(agent.stop());
}

#[test]
fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let (lab, fake, _node, agent) = running();
    fake.says.lock().unwrap().lost_answers = 2;
    let before = fake.asked("/agent/v1/certificates");
    agent.signal(Signal::SIGHUP);
    wait_until("both are renewed", || {
        fake.asked("/agent/v1/certificates") >= before + 4 && !lab.status().0.contains("renewal fails")
    });
    // And over a restart: the agent's own key is opened again.
    fake.says.lock().unwrap().lost_answers = u32::MAX;
    let before = fake.asked("/agent/v1/certificates");
    agent.signal(Signal::SIGHUP);
    wait_until("it was asked", || fake.asked("/agent/v1/certificates") > before);
    agent.signal(Signal::SIGKILL);
    fake.says.lock().unwrap().lost_answers = 0;
    let asked_before = fake.asked("/agent/v1/certificates");
    drop(agent);
    let agent = lab.start_agent();
    wait_until("it runs", || agent.log().matches(" ready ").count() == 2);
    agent.signal(Signal::SIGHUP);
    wait_until("it asks", || fake.asked("/agent/v1/certificates") > asked_before);
    let says = fake.says.lock().unwrap();
    let keys: Vec<Vec<u8>> = says
        .requests
        .iter()
        .filter(|(target, _)| target == "/agent/v1/certificates")
        .filter_map(|(_, body)| serde_json::from_slice::<CertificateRequest>(body).ok())
        .filter(|request| request.member.is_none())
        .map(|request| {
            let request = rcgen::CertificateSigningRequestParams::from_pem(&request.csr).unwrap();
            rcgen::PublicKeyData::subject_public_key_info(&request.public_key)
        })
        .collect();
    drop(says);
    assert_eq!(keys[0], keys[1], "within one process");
    assert_ne!(keys[1], keys[2], "always a new key");
    assert_eq!(keys[2], *keys.last().unwrap(), "and in the next one");
    assert!(agent.stop());
}

#[test]
fn a_clock_that_is_off_does_not_enroll_and_says_both() {
    let (lab, fake) = lab();
    fake.says.lock().unwrap().ahead_ms = 301_000;
    let output = lab.enroll(&lab.path("bundle.json"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("clock_skew"), "{said}");
    assert_eq!(fake.asked("/v1/agents/bootstrap?") + fake.asked("/v1/agents/bootstrap/nonce"), 1);
    fake.says.lock().unwrap().ahead_ms = -6_000;
    let output = lab.enroll(&lab.path("bundle.json"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("are apart"), "{said}");
}
