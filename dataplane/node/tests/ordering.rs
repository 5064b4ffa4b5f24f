//! Deliveries that share an ordering key go out in the order of their arrival, over failures and restarts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh::{Mesh, send};
use support::GITHUB;
use support::node::wait_until;
use target::{Answer, Delivery, Target};

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const BY_MEMBER: &str = "order_by = { json_path = \"key\" }\nretry_jitter_percent = 0\n\
                         breaker = { enabled = false }\n";

/// Sends events of these keys and numbers, in order.
fn send_all(mesh: &Mesh, events: &[(&str, u32)]) {
    let mut source = mesh.source();
    for (key, number) in events {
        send(&mut source, GITHUB, format!("{{\"key\":\"{key}\",\"number\":{number}}}").as_bytes());
    }
}

fn key_and_number(delivery: &Delivery) -> (String, u64) {
    let body: serde_json::Value = serde_json::from_slice(&delivery.body).unwrap();
    (body["key"].as_str().unwrap_or_default().to_owned(), body["number"].as_u64().unwrap())
}

/// Numbers of a key's deliveries, as they came.
fn numbers(target: &Target, key: &str) -> Vec<u64> {
    let came = target.deliveries();
    let of_key = came.iter().map(key_and_number).filter(|came| came.0 == key);
    of_key.map(|came| came.1).collect()
}

/// Answers 500 to number 1 of key `a` while it fails.
fn failing_first(fails: &'static AtomicBool) -> impl Fn(usize, &Delivery) -> Answer + Send + Sync + 'static {
    move |_, delivery| {
        let is_first = key_and_number(delivery) == ("a".to_owned(), 1);
        Answer::status(if is_first && fails.load(Ordering::Acquire) { 500 } else { 200 })
    }
}

#[test]
fn a_failed_first_holds_back_its_own_key_alone() {
    static FAILS: AtomicBool = AtomicBool::new(true);
    let extra = format!("{BY_MEMBER}retry_schedule_ms = [50, 50, 50, 50, 50, 50, 50, 50, 600000]");
    let (mesh, target) = Mesh::with_target(&extra, failing_first(&FAILS));
    send_all(&mesh, &[("a", 1), ("a", 2), ("b", 1), ("a", 3), ("b", 2), ("b", 3)]);
    wait_until("the other key", || numbers(&target, "b") == [1, 2, 3]);
    wait_until("some attempts", || numbers(&target, "a").len() >= 3);
    FAILS.store(false, Ordering::Release);
    wait_until("all of the key", || numbers(&target, "a").ends_with(&[1, 2, 3]));
    let came = numbers(&target, "a");
    assert!(came[..came.len() - 3].iter().all(|number| *number == 1), "{came:?}");
    assert_eq!(mesh.inside.metric("zen_order_keys_missing_total") as u64, 0);
}

#[test]
fn a_restart_keeps_the_order() {
    static FAILS: AtomicBool = AtomicBool::new(true);
    let extra = format!("{BY_MEMBER}retry_schedule_ms = [1500, 1500, 1500, 1500, 1500]");
    let (mut mesh, target) = Mesh::with_target(&extra, failing_first(&FAILS));
    send_all(&mesh, &[("a", 1), ("a", 2), ("b", 1), ("a", 3)]);
    wait_until("the other key", || numbers(&target, "b") == [1]);
    mesh.inside.wait_metric("zen_retries_total", 1.0);
    mesh.inside.kill();
    mesh.restart_inside();
    // What came later has no pause to wait for, so it would go first.
    send_all(&mesh, &[("b", 2), ("a", 4)]);
    wait_until("the other key again", || numbers(&target, "b").ends_with(&[2]));
    FAILS.store(false, Ordering::Release);
    wait_until("all of the key", || numbers(&target, "a").ends_with(&[1, 2, 3, 4]));
    let came = numbers(&target, "a");
    assert!(came[..came.len() - 4].iter().all(|number| *number == 1), "{came:?}");
}

#[test]
fn what_follows_a_dead_letter_goes_on() {
    static FAILS: AtomicBool = AtomicBool::new(true);
    let extra = format!("{BY_MEMBER}retry_schedule_ms = [200]");
    let (mesh, target) = Mesh::with_target(&extra, failing_first(&FAILS));
    send_all(&mesh, &[("a", 1), ("a", 2), ("a", 3)]);
    wait_until("all of the key", || numbers(&target, "a") == [1, 1, 2, 3]);
    mesh.inside.wait_metric("zen_dead_letters_kept", 1.0);
}

#[test]
fn keys_come_from_headers_and_endpoints_and_what_has_none_is_not_ordered() {
    for (order_by, ordered) in [
        ("order_by = { header = \"X-GitHub-Event\" }", true),
        ("order_by = \"endpoint\"", true),
        ("order_by = { header = \"x-nobody-sends-it\" }", false),
        ("order_by = { json_path = \"data.id\" }", false),
    ] {
        let (mesh, slow) =
            Mesh::with_target(order_by, |_, _| Answer::status(200).after(Duration::from_millis(100)));
        let events: Vec<(&str, u32)> = (0..6).map(|number| ("a", number)).collect();
        send_all(&mesh, &events);
        slow.wait(6);
        let missing = mesh.inside.metric("zen_order_keys_missing_total") as u64;
        assert_eq!((slow.busy_max() == 1, missing), (ordered, if ordered { 0 } else { 6 }), "{order_by}");
    }
}
