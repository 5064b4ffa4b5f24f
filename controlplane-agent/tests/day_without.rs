//! A day without a control plane, from end to end: certificates are as old as they get before a renewal, then nobody answers for
//! 24 hours of a clock that the test sets. Traffic goes on, also over restarts, and nothing is lost; then all catches up.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/chain.rs"]
mod chain;
#[path = "support/clock.rs"]
mod clock;
#[path = "support/lab.rs"]
mod lab;

use std::collections::BTreeSet;

use chain::{Chain, Site};
use clock::WallClock;
use lab::wait_until;
use nix::sys::signal::Signal;
use serde_json::Value;

const HOUR_S: i64 = 3600;
/// Just before the earliest renewal: 27 % of 36 hours.
const OLDEST_S: i64 = 9 * HOUR_S + 40 * 60;

/// Sends some events, of which each must be taken.
fn send(chain: &Chain, hour: i64, taken: &mut BTreeSet<Vec<u8>>) {
    for number in 0..5 {
        let body = format!("{{\"hour\":{hour},\"event\":{number}}}").into_bytes();
        wait_until("an event is taken", || chain.source.send(&body, "a header") == Some(202));
        taken.insert(body);
    }
}

fn delivered(chain: &Chain, taken: &BTreeSet<Vec<u8>>) {
    wait_until("everything that was taken is delivered", || chain.target.bodies().is_superset(taken));
}

fn status(site: &Site) -> String {
    site.lab.status().0
}

/// How many certificates an identity has had.
fn generation(site: &Site, name: &str) -> u64 {
    let record: Value = serde_json::from_str(&site.lab.identity(name, "record.json")).unwrap();
    record["generation"].as_u64().unwrap()
}

fn generations(chain: &Chain) -> Vec<u64> {
    let sites = [&chain.edge, &chain.core];
    sites.iter().flat_map(|site| ["agent", "edge-1"].map(|name| generation(site, name))).collect()
}

fn kill(site: &mut Site, what: &str) {
    let process = if what == "node" { site.node.take() } else { site.agent.take() };
    process.unwrap().signal(Signal::SIGKILL);
}

#[test]
fn a_day_without_a_control_plane_stops_nothing_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let clock = WallClock::new(directory.path().join("clock"));
    let mut chain = Chain::start_in("", &clock.environment());
    chain.wait_linked();
    let mut taken = BTreeSet::new();
    send(&chain, 0, &mut taken);
    delivered(&chain, &taken);
    let before = generations(&chain);

    chain.edge.lab.control.take();
    clock.set(OLDEST_S);
    for hour in 1..=24 {
        clock.set(OLDEST_S + hour * HOUR_S);
        send(&chain, hour, &mut taken);
        delivered(&chain, &taken);
        // Whoever starts meanwhile has what is on its disk, and needs nobody.
        match hour {
            6 => {
                kill(&mut chain.edge, "node");
                chain.edge.start_node();
            }
            12 => {
                kill(&mut chain.core, "node");
                chain.core.start_node();
            }
            18 => {
                for cluster in ["edge", "core"] {
                    let site = chain.site(cluster);
                    kill(site, "agent");
                    site.agent = Some(site.lab.start_agent());
                }
            }
            _ => {}
        }
    }
    for site in [&chain.edge, &chain.core] {
        wait_until("it says that nobody answers", || status(site).contains("control plane: not reachable"));
        wait_until("and that certificates get old", || status(site).contains("degraded"));
        assert!(!status(site).contains("failing"), "{}", status(site));
        assert!(!site.lab.status().1, "all is not well");
    }
    assert_eq!(generations(&chain), before, "nobody could issue anything");

    chain.edge.lab.start_control();
    chain.configure(2);
    for site in [&chain.edge, &chain.core] {
        wait_until("all is well again", || site.lab.status().1);
        wait_until("what was set meanwhile is in force", || {
            site.lab.published("node.toml").is_some_and(|text| text.starts_with("# 2\n"))
        });
    }
    let after = generations(&chain);
    assert!(before.iter().zip(&after).all(|(before, after)| before < after), "{before:?} {after:?}");
    send(&chain, 25, &mut taken);
    delivered(&chain, &taken);
    assert_eq!(chain.target.bodies(), taken, "and nothing else came");
}
