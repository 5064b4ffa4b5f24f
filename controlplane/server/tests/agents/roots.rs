//! CAs that follow each other on the disk and in a server that runs, and a root that is replaced.

use std::fs;
use std::path::Path;
use std::time::Duration;

use zen_control::{
    Authority, ConfigurationInput, ControlError, Force, Need, advance, open_database, renew_issuing,
    retire_root, root_spread, rotate_root, set_configuration,
};
use zen_control_api::{EnrollmentBundle, MemberReport, Outcome, StatusReport};

use crate::client::{Agent, Connection, csr, new_key};
use crate::lab::{Lab as Listening, TRUST_DOMAIN, now_ms};
use crate::time::{DAY_MS, Lab, START_MS};

const HOUR_MS: u64 = 3_600_000;

fn certificates(text: &str) -> usize {
    text.matches("-----BEGIN CERTIFICATE-----").count()
}

/// The issuing CA of a chain.
fn issuer(chain: &str) -> &str {
    let at = chain.rfind("-----BEGIN CERTIFICATE-----").unwrap();
    &chain[at..]
}

fn enroll_at(lab: &Lab, name: &str, at_ms: u64) -> String {
    lab.enroll(&lab.bundle(name, at_ms), &csr(&new_key()), (at_ms, at_ms)).unwrap().certificate_chain
}

fn file(lab: &Lab, name: &str) -> Option<String> {
    fs::read_to_string(lab.state().join(name)).ok()
}

#[test]
fn issuing_cas_follow_each_other_by_themselves() {
    let lab = Lab::new();
    let at = |days: u64| START_MS + days * DAY_MS;
    let first = file(&lab, "issuing.pem").unwrap();
    assert_eq!(lab.control.advance_authority(&lab.directory, at(44)).unwrap().done.len(), 0);
    assert_eq!(lab.control.advance_authority(&lab.directory, at(45)).unwrap().done.len(), 1);
    let second = file(&lab, "issuing-2.pem").expect("it is prepared");
    assert_eq!(issuer(&enroll_at(&lab, "a", at(60))), first);
    let advanced = lab.control.advance_authority(&lab.directory, at(75)).unwrap();
    assert_eq!(
        (advanced.done.as_slice(), advanced.need),
        (&["issuing CA 2 signs from now on".to_owned()][..], None)
    );
    assert_eq!(issuer(&enroll_at(&lab, "b", at(75))), second, "without another start");
    assert!(file(&lab, "issuing.key").is_some());
    lab.control.advance_authority(&lab.directory, at(91)).unwrap();
    assert!(
        file(&lab, "issuing.key").is_none() && file(&lab, "issuing.pem").is_none(),
        "a day after its end"
    );
    let again = zen_control::Control::open(&lab.directory).unwrap();
    assert_eq!(again.authority().not_after_ms(), lab.control.authority().not_after_ms());
}

#[test]
fn a_root_key_that_is_elsewhere_is_asked_for_in_time() {
    let lab = Lab::new();
    let at = |days: u64| START_MS + days * DAY_MS;
    let offline = lab.state().with_file_name("offline.key");
    fs::rename(lab.state().join("root.key"), &offline).unwrap();
    let need = |days| lab.control.advance_authority(&lab.directory, at(days)).unwrap().need;
    assert_eq!((need(44), need(45)), (None, Some(Need::RootKey { by_ms: at(90) })));
    let mut database = open_database(&lab.directory).unwrap();
    let wrong = renew_issuing(&lab.directory, &mut database, Some(&lab.state().join("issuing.key")), at(50));
    assert!(matches!(wrong, Err(ControlError::RootKey { number: 1 })), "{wrong:?}");
    assert!(renew_issuing(&lab.directory, &mut database, None, at(50)).is_err(), "it is not here");
    for _ in 0..2 {
        renew_issuing(&lab.directory, &mut database, Some(&offline), at(50)).unwrap();
        assert_eq!(need(50), None);
    }
    assert!(file(&lab, "issuing-3.pem").is_none(), "one is enough");
    need(75);
    assert_eq!(issuer(&enroll_at(&lab, "a", at(75))), file(&lab, "issuing-2.pem").unwrap());
    assert!(file(&lab, "root.key").is_none(), "the key was read, and not kept");
}

/// The version and the number of roots of a cluster's configuration.
fn configuration(lab: &Lab) -> (u64, usize) {
    let sql = "SELECT text FROM configurations WHERE cluster = 'edge'";
    let text: String = open_database(&lab.directory).unwrap().query_row(sql, (), |row| row.get(0)).unwrap();
    let read: zen_control_api::Configuration = serde_json::from_str(&text).unwrap();
    (read.version, certificates(&read.trust_bundle))
}

/// Keeps what the cluster's agent would report.
fn report(lab: &Lab, configuration: u64, outcome: Outcome) {
    let member = MemberReport { outcome, certificate_not_after_ms: 0 };
    let report = StatusReport {
        agent_version: "test".to_owned(),
        configuration,
        members: [("node-1".to_owned(), member)].into(),
    };
    let sql = "INSERT INTO statuses (cluster, received_at_ms, report) VALUES ('edge', 1, ?1)
        ON CONFLICT DO UPDATE SET report = excluded.report";
    let text = serde_json::to_string(&report).unwrap();
    open_database(&lab.directory).unwrap().execute(sql, (text,)).unwrap();
}

fn configured() -> Lab {
    let lab = Lab::new();
    let text = format!(
        r#"{{"members": {{"node-1": {{"spiffe_id": "spiffe://{TRUST_DOMAIN}/edge/node-1", "node": ""}}}}}}"#
    );
    let input: ConfigurationInput = serde_json::from_str(&text).unwrap();
    let mut database = open_database(&lab.directory).unwrap();
    set_configuration(&lab.directory, &mut database, "edge", input).unwrap();
    lab
}

#[test]
fn a_root_is_replaced_when_everybody_knows_the_next_one() {
    let lab = configured();
    let mut database = open_database(&lab.directory).unwrap();
    let at = |hours: u64| START_MS + hours * HOUR_MS;
    enroll_at(&lab, "a", START_MS);
    assert_eq!(root_spread(&lab.directory, &database, at(1)).unwrap(), None);
    assert_eq!(rotate_root(&lab.directory, &mut database, Force::No, at(1)).unwrap().len(), 1, "the agent");
    assert!(rotate_root(&lab.directory, &mut database, Force::No, at(1)).is_err(), "two at most");
    let (version, roots) = configuration(&lab);
    assert_eq!((version, roots), (2, 2));
    assert_eq!(lab.bundle("b", at(1)).ca_pins.len(), 2);
    assert!(lab.control.refresh_authority(&lab.directory).unwrap());
    assert_eq!(certificates(lab.control.authority().trust_bundle()), 2);
    assert_eq!(certificates(&file(&lab, "roots.pem").unwrap()), 2);

    let who = |database: &_| {
        let spread = root_spread(&lab.directory, database, at(30)).unwrap().unwrap();
        spread.stragglers.into_iter().map(|who| (who.member, who.knows)).collect::<Vec<_>>()
    };
    let signs = |hours: u64| {
        lab.control.advance_authority(&lab.directory, at(hours)).unwrap();
        issuer(&enroll_at(&lab, &format!("signs-{hours}"), at(hours))) == file(&lab, "issuing-2.pem").unwrap()
    };
    assert_eq!(who(&database), [(None, "has never reported".to_owned())]);
    report(&lab, 1, Outcome::Applied { version: 1 });
    assert_eq!(who(&database), [(None, "has version 1, 2 is needed".to_owned())]);
    report(&lab, 2, Outcome::Rejected { version: 2, reason: "no".to_owned() });
    assert_eq!(who(&database), [(Some("node-1".to_owned()), "has rejected its configuration".to_owned())]);
    assert!(!signs(30), "somebody does not know it");
    report(&lab, 2, Outcome::Applied { version: 2 });
    assert_eq!(who(&database), []);
    assert!(!Authority::load(&lab.directory).unwrap().trust_bundle().is_empty());
    let early = retire_root(&lab.directory, &mut database, Force::No, at(30));
    assert!(matches!(early, Err(ControlError::Argument(_))), "the old one signs yet");
    assert!(signs(31), "everybody knows it, and a day has passed");

    let in_use = retire_root(&lab.directory, &mut database, Force::No, at(65));
    assert!(matches!(in_use, Err(ControlError::RootInUse { stragglers: 0, leaves: 1 })), "{in_use:?}");
    let broken = retire_root(&lab.directory, &mut database, Force::No, at(67)).unwrap();
    assert_eq!((broken.stragglers.len(), broken.live_leaves), (0, 0));
    assert_eq!(configuration(&lab), (3, 1));
    assert_eq!(file(&lab, "roots.pem"), file(&lab, "root-2.pem"));
    for name in ["root.key", "root.pem", "issuing.key", "issuing.pem"] {
        assert!(file(&lab, name).is_none(), "{name}");
    }
    assert!(lab.control.refresh_authority(&lab.directory).unwrap());
    assert_eq!(issuer(&enroll_at(&lab, "z", at(68))), file(&lab, "issuing-2.pem").unwrap());
    // And once more, much later: numbers go on.
    rotate_root(&lab.directory, &mut database, Force::No, at(100)).unwrap();
    assert!(file(&lab, "root-3.key").is_some() && file(&lab, "issuing-3.key").is_some());
}

/// Whoever is killed between list and publication leaves it to the next one who looks.
#[test]
fn a_second_root_that_was_not_published_is_published() {
    let lab = configured();
    let mut database = open_database(&lab.directory).unwrap();
    let before: String = database.query_row("SELECT text FROM configurations", (), |row| row.get(0)).unwrap();
    rotate_root(&lab.directory, &mut database, Force::No, START_MS).unwrap();
    database.execute("UPDATE configurations SET text = ?1, version = 1", (before,)).unwrap();
    database.execute("DELETE FROM published_roots", ()).unwrap();
    assert_eq!(configuration(&lab), (1, 1));
    let advanced = advance(&lab.directory, &mut database, START_MS).unwrap();
    assert_eq!(advanced.done, ["the second root is published to all clusters"]);
    assert_eq!(configuration(&lab), (2, 2));
    assert!(advance(&lab.directory, &mut database, START_MS).unwrap().done.is_empty());
}

#[test]
fn a_directory_of_before_has_its_first_cas() {
    let lab = Lab::new();
    let text = file(&lab, "authority.json").unwrap();
    for name in ["authority.json", "roots.pem"] {
        fs::remove_file(lab.state().join(name)).unwrap();
    }
    let before = Authority::load(&lab.directory).unwrap();
    assert_eq!(before.trust_bundle(), lab.control.authority().trust_bundle());
    assert_eq!(file(&lab, "roots.pem").as_deref(), Some(before.trust_bundle()));
    lab.control.advance_authority(&lab.directory, START_MS + 46 * DAY_MS).unwrap();
    assert!(file(&lab, "issuing-2.pem").is_some() && file(&lab, "authority.json").is_some());
    for bad in [
        "",
        "{}",
        &text.replace("\"version\": 1", "\"version\": 2"),
        &text.replace("\"root\": 1", "\"root\": 7"),
    ] {
        fs::write(lab.state().join("authority.json"), bad).unwrap();
        assert!(Authority::load(&lab.directory).is_err(), "{bad}");
    }
}

async fn knows(lab: &Listening, bundle: &EnrollmentBundle, root: usize) -> bool {
    let text = String::from_utf8(bundle.encode().as_bytes().to_vec()).unwrap();
    let mut alone: serde_json::Value = serde_json::from_str(&text).unwrap();
    let pin = alone["ca_pins"][root].clone();
    alone["ca_pins"] = serde_json::json!([pin]);
    let alone = EnrollmentBundle::decode(alone.to_string().as_bytes()).unwrap();
    Connection::with_bundle(lab.address, &alone).await.is_ok()
}

/// A server that runs takes a new root over, and so does everybody who comes by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_takes_over_what_commands_do() {
    let lab = Listening::start().await;
    lab.configure("edge");
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let mut database = lab.database();
    rotate_root(&lab.directory, &mut database, Force::No, now_ms()).unwrap();
    let bundle = lab.bundle("core");
    assert_eq!(bundle.ca_pins.len(), 2);
    let mut renewed = agent.renewed(lab.address).await;
    while certificates(&renewed.trust_bundle()) < 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        renewed = renewed.renewed(lab.address).await;
    }
    assert!(knows(&lab, &bundle, 0).await && !knows(&lab, &bundle, 1).await, "the old one signs");
    let old = issuer(&renewed.chain).to_owned();

    let broken = rotate_root(&lab.directory, &mut database, Force::Yes, now_ms()).unwrap();
    assert_eq!(broken.len(), 1, "the agent has not reported: {broken:?}");
    while !knows(&lab, &bundle, 1).await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!knows(&lab, &bundle, 0).await);
    // With the old certificate and both roots: it is let in, and gets one under the new root.
    let next = renewed.renewed(lab.address).await;
    assert_ne!(issuer(&next.chain), old);
    assert_eq!(issuer(&next.chain), fs::read_to_string(lab.state().join("issuing-2.pem")).unwrap());
    // Whoever knows the old root alone does not know the control plane any more; that is what was forced.
    assert!(agent.connect(lab.address).await.is_err());
    assert_eq!(Agent::enroll(lab.address, &bundle).await.generation, 1);
    assert!(Path::new(&lab.state()).join("root-2.key").exists());
}
