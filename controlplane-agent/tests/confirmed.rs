//! The time of a node's deny list says when it was last known to be the newest: set by the control plane's word that there is
//! nothing newer, and by nothing else. Time does not pass here: the file's time is set back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use fake::{Fake, member_id};
use lab::{Lab, wait_until};
use nix::sys::signal::Signal;
use zen_control_api::{Configuration, Member};

#[path = "support/fake.rs"]
mod fake;
#[path = "support/lab.rs"]
mod lab;
mod support;

const HOUR: Duration = Duration::from_hours(1);
const DENY_LIST: &str = "state/members/edge-1/current/deny.json";

fn version(fake: &Fake, version: u64) -> Configuration {
    let roots = fake.says.lock().unwrap().authority.roots();
    let node = "[identity]\nprivate_key_file = \"{{private_key}}\"\n".to_owned();
    let member = Member { spiffe_id: member_id("edge-1"), node };
    let members = BTreeMap::from([("edge-1".to_owned(), member)]);
    Configuration { members, ..support::configuration(version, &roots) }
}

/// How old the list is.
fn age(lab: &Lab) -> Duration {
    let modified = fs::metadata(lab.path(DENY_LIST)).unwrap().modified().unwrap();
    SystemTime::now().duration_since(modified).unwrap_or_default()
}

fn set_back(lab: &Lab) {
    let file = File::open(lab.path(DENY_LIST)).unwrap();
    file.set_modified(SystemTime::now() - HOUR).unwrap();
}

#[test]
fn only_the_word_that_there_is_nothing_newer_confirms_a_deny_list() {
    let mut lab = Lab::without_control();
    let fake = Fake::start(lab.directory.path());
    lab.port = fake.port;
    fake.bundle(&lab.path("bundle.json"));
    let output = lab.enroll(&lab.path("bundle.json"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fake.publish(&version(&fake, 1));
    let _node = lab.start_node();
    let agent = lab.start_agent();
    wait_until("it is published", || lab.path(DENY_LIST).exists());
    set_back(&lab);
    wait_until("it is confirmed", || age(&lab) < HOUR / 2);

    // Lies are not the word, and while they come there is none.
    let mut lie = version(&fake, 2);
    lie.cluster = "another".to_owned();
    for _ in 0..64 {
        fake.publish(&lie);
    }
    wait_until("a lie was refused", || agent.log().contains("alarm: a configuration is not taken"));
    set_back(&lab);
    let asked = fake.asked("/agent/v1/configuration");
    wait_until("it asks again", || fake.asked("/agent/v1/configuration") > asked + 1);
    assert!(age(&lab) > HOUR / 2, "nothing was confirmed");

    // A new certificate makes a generation, and the list stays as old as it is.
    let generation = fs::read_link(lab.path("state/members/edge-1/current")).unwrap();
    agent.signal(Signal::SIGHUP);
    wait_until("a generation with a new certificate", || {
        fs::read_link(lab.path("state/members/edge-1/current")).unwrap() != generation
    });
    assert!(age(&lab) > HOUR / 2, "a certificate confirms no list");

    fake.says.lock().unwrap().configurations.clear();
    agent.signal(Signal::SIGKILL);
    let _agent = lab.start_agent();
    wait_until("it is confirmed again", || age(&lab) < HOUR / 2);
}
