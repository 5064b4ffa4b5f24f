//! Link keys from end to end: made by one agent, taken by another, used by two nodes, and rotated under traffic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/chain.rs"]
mod chain;
#[path = "support/lab.rs"]
mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use chain::{Chain, LINK};
use lab::wait_until;

/// An event every few milliseconds until `is_over`; what was taken.
fn send_until(chain: &Chain, is_over: &AtomicBool) -> BTreeSet<Vec<u8>> {
    let mut taken = BTreeSet::new();
    for number in 0.. {
        let body = format!("{{\"event\":{number}}}").into_bytes();
        if chain.source.send(&body, "a header") == Some(202) {
            taken.insert(body);
        }
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    taken
}

fn delivered(chain: &Chain, taken: &BTreeSet<Vec<u8>>) {
    wait_until("everything that was taken is delivered", || chain.target.bodies().is_superset(taken));
}

#[test]
fn a_rotation_under_traffic_loses_nothing() {
    let mut chain = Chain::start("");
    chain.wait_linked();
    let is_over = AtomicBool::new(false);
    let taken = thread::scope(|scope| {
        let sender = scope.spawn(|| send_until(&chain, &is_over));
        let first = chain.rotate();
        let second = chain.rotate();
        assert!(second > first);
        let (_, kept) = chain.link_keys();
        assert_eq!(kept.len(), 2, "two overlap: {kept:?}");
        // The vaults have those that are in use, and no others.
        for site in [&chain.edge, &chain.core] {
            wait_until("the old key goes", || {
                site.lab.open(&format!("zen-link/{LINK}/key-{first}")).is_err()
            });
            for key in &kept {
                let value = site.lab.open(&format!("zen-link/{LINK}/key-{key}")).unwrap();
                assert!(value.starts_with(b"whsec_"));
            }
        }
        is_over.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    assert!(taken.len() > 20, "{}", taken.len());
    delivered(&chain, &taken);
    // A new connection is made with the new key: none before it would be known any more.
    chain.core.stop_node();
    chain.core.start_node();
    assert_eq!(chain.source.send(b"after", "a header"), Some(202));
    delivered(&chain, &BTreeSet::from([b"after".to_vec()]));
    for site in [&chain.edge, &chain.core] {
        for path in site.lab.files("state") {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            assert!(!text.contains("whsec_"), "{}", path.display());
        }
    }
    chain.edge.stop_node();
}

#[test]
fn whoever_is_killed_or_away_there_is_a_key_that_both_ends_have() {
    let mut chain = Chain::start("");
    chain.wait_linked();
    let mut sent = BTreeSet::new();
    for round in 0..6_u32 {
        // The order is given; then one of the two agents is killed somewhere on the way, later each time.
        chain.edge.order();
        thread::sleep(Duration::from_millis(u64::from(round) * 60));
        let site = chain.site(if round % 2 == 0 { "edge" } else { "core" });
        drop(site.agent.take());
        let body = format!("round {round}").into_bytes();
        assert_eq!(chain.source.send(&body, "a header"), Some(202));
        sent.insert(body);
        // A new link, by what is in force at either end now.
        chain.core.stop_node();
        chain.core.start_node();
        delivered(&chain, &sent);
        let site = chain.site(if round % 2 == 0 { "edge" } else { "core" });
        site.agent = Some(site.lab.start_agent());
    }
    chain.wait_linked();
    // An egress cluster that is behind: its agent is away, and the ingester goes on with the key that it has.
    drop(chain.core.agent.take());
    let before = chain.link_keys().0;
    chain.edge.order();
    let waits = format!("{}/edge-core", chain.edge.lab.text("state/secrets/current/secrets/zen-link"));
    wait_until("the next key is made", || {
        let keys = fs::read_dir(&waits).into_iter().flatten().filter_map(Result::ok);
        let newest = keys.filter_map(|key| {
            key.file_name().to_str()?.strip_prefix("key-")?.strip_suffix(".age")?.parse::<u64>().ok()
        });
        newest.max() > before
    });
    assert_eq!(chain.source.send(b"behind", "a header"), Some(202));
    sent.insert(b"behind".to_vec());
    delivered(&chain, &sent);
    assert_eq!(chain.link_keys().0, before);
    chain.core.agent = Some(chain.core.lab.start_agent());
    wait_until("it is used when the other end has it", || chain.link_keys().0 > before);
    chain.wait_linked();
    for site in [&mut chain.edge, &mut chain.core] {
        site.stop_node();
        assert!(site.agent.take().unwrap().stop());
    }
}
