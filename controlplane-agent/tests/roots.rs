//! Another root, from end to end: two clusters with agents, vaults and nodes learn it, get certificates under it, and lose the old
//! one, by a clock that the test sets. Events come through at each step, and none is lost.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/chain.rs"]
mod chain;
#[path = "support/clock.rs"]
mod clock;
#[path = "support/lab.rs"]
mod lab;

use std::collections::BTreeSet;
use std::process::Command;

use chain::{Chain, Site};
use clock::WallClock;
use lab::{program, wait_until};
use nix::sys::signal::Signal;

const HOUR_S: i64 = 3600;
const CLUSTERS: [&str; 2] = ["edge", "core"];

/// `zen-control authority ...` by this clock; what it said, and whether it did it.
fn authority(chain: &Chain, clock: &WallClock, command: &str) -> (bool, String) {
    let mut program = Command::new(program("zen-control"));
    program.args(["authority", command, "--dir", &chain.edge.lab.text("control")]);
    clock.give(&mut program);
    let output = program.output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// Both sites, `edge` first.
fn sites(chain: &Chain) -> [&Site; 2] {
    [&chain.edge, &chain.core]
}

/// How many roots the nodes run by.
fn roots(site: &Site) -> usize {
    site.lab.published("bundle.pem").map_or(0, |text| text.matches("BEGIN CERTIFICATE").count())
}

/// The identities of a site as their chains are.
fn chains(site: &Site) -> Vec<String> {
    ["agent", "edge-1"].map(|name| site.lab.identity(name, "identity.pem")).to_vec()
}

/// Certificates of everybody are renewed.
fn renew(chain: &Chain) {
    let before = sites(chain).map(chains);
    for site in sites(chain) {
        site.agent.as_ref().unwrap().signal(Signal::SIGHUP);
    }
    for (site, before) in sites(chain).iter().zip(before) {
        wait_until("all have another certificate", || {
            chains(site).iter().zip(&before).all(|(now, before)| now != before)
        });
        wait_until("all is well", || site.lab.status().1);
    }
}

/// Events are taken and delivered; all that were before, too.
fn send(chain: &Chain, step: &str, taken: &mut BTreeSet<Vec<u8>>) {
    for number in 0..5 {
        let body = format!("{{\"step\":\"{step}\",\"event\":{number}}}").into_bytes();
        wait_until("an event is taken", || chain.source.send(&body, "a header") == Some(202));
        taken.insert(body);
    }
    wait_until(step, || chain.target.bodies().is_superset(taken));
}

/// The control plane looks at its CAs when it starts, and each minute.
fn restart_control(chain: &mut Chain) {
    chain.edge.lab.control.take();
    chain.edge.lab.start_control();
}

#[test]
fn another_root_comes_and_the_old_one_goes_under_traffic() {
    let directory = tempfile::tempdir().unwrap();
    let clock = WallClock::new(directory.path().join("clock"));
    let mut chain = Chain::start_in("", &clock.environment());
    chain.wait_linked();
    let mut taken = BTreeSet::new();
    send(&chain, "one root", &mut taken);

    let (is_done, said) = authority(&chain, &clock, "rotate-root");
    assert!(is_done, "{said}");
    for site in sites(&chain) {
        wait_until("the node runs by both roots", || roots(site) == 2 && site.lab.status().1);
    }
    send(&chain, "both roots", &mut taken);
    wait_until("nobody lags behind", || {
        let (_, said) = authority(&chain, &clock, "status");
        said.contains("the second root waits") && !said.contains("does not know the new root")
    });
    let (is_done, said) = authority(&chain, &clock, "retire-root");
    assert!(!is_done, "the old one is in use: {said}");

    // The new root signs a day after it was made; a node that starts meanwhile is none the wiser.
    let mut now_s = 25 * HOUR_S;
    clock.set(now_s);
    restart_control(&mut chain);
    renew(&chain);
    send(&chain, "certificates of the new root", &mut taken);
    let node = chain.core.node.take().unwrap();
    node.signal(Signal::SIGKILL);
    drop(node);
    chain.core.start_node();
    send(&chain, "a start in between", &mut taken);

    // Until no good certificate leads to the old one.
    while !authority(&chain, &clock, "retire-root").0 {
        now_s += 13 * HOUR_S;
        assert!(now_s < 100 * HOUR_S, "{}", authority(&chain, &clock, "retire-root").1);
        clock.set(now_s);
        // Hours pass in a second here, and it looks after its own certificate each minute.
        restart_control(&mut chain);
        renew(&chain);
        send(&chain, &format!("hour {}", now_s / HOUR_S), &mut taken);
    }
    for site in sites(&chain) {
        wait_until("the node runs by the new root alone", || roots(site) == 1 && site.lab.status().1);
    }
    send(&chain, "the new root alone", &mut taken);
    for cluster in CLUSTERS {
        chain.site(cluster).stop_node();
        chain.site(cluster).start_node();
    }
    send(&chain, "after a start", &mut taken);
    assert_eq!(chain.target.bodies(), taken, "and nothing else came");
}
