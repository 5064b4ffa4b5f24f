//! What holds a target back: throttle, circuit breaker, rate, permanent answers, schedule, deadline.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use mesh::{Mesh, delivered, distinct, numbered, target};
use nix::sys::signal::Signal;
use support::node::{run, wait_until};
use support::{Lab, change};
use target::{Answer, Delivery};

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

fn attempts(deliveries: &[Delivery], id: &str) -> usize {
    deliveries.iter().filter(|delivery| delivery.event_id() == id).count()
}

/// The members of dead letters, one line each.
fn letters(mesh: &Mesh) -> Vec<serde_json::Value> {
    let socket = mesh.lab.path("inside.sock");
    let output = run(&["dead-letters", "list", "--json", "--socket", socket.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_429_holds_the_whole_target_back_and_counts_nothing() {
    let (mesh, target) = Mesh::with_target("retry_schedule_ms = [10]", |number, _| match number {
        0 => Answer::status(429).with("retry-after", "2"),
        _ => Answer::status(200),
    });
    let first = mesh.send(b"{}");
    mesh.inside.wait_metric("zen_targets_throttled", 1.0);
    let second = mesh.send(b"{}");
    let came = target.wait(3);
    let (said, next) = (came[0].at, came.iter().map(|delivery| delivery.at).nth(1).unwrap());
    assert!((next - said).as_millis() >= 1_950, "both waited for what the first was told");
    wait_until("both", || delivered(&target.deliveries()) == distinct([first.clone(), second.clone()]));
    assert_eq!((attempts(&came, &first), attempts(&came, &second)), (2, 1));
    wait_until("no longer", || mesh.inside.metric("zen_targets_throttled") == 0.0);
}

#[test]
fn a_broken_target_gets_one_probe_at_a_time_and_what_waits_uses_up_nothing() {
    let lab = Lab::new();
    let broken = target(&lab, "demo", |_, _| Answer::status(500));
    let breaker = "retry_schedule_ms = [10, 10, 10]\nbreaker = { failures_max = 3, pause_ms = 600000, pause_ms_max = 600000 }";
    let section = lab.target_text("demo", broken.address, breaker);
    let mesh = Mesh::start(lab, &section);
    let ids = mesh.send_many(20, 10);
    mesh.inside.wait_metric("zen_targets_breaker_open", 1.0);
    let tried = broken.deliveries().len();
    // Attempts that were under way when it opened are as many as were sent by then.
    mesh.inside.wait_metric("zen_events_live", ids.len() as f64);
    let quiet = mesh.send_many(20, 10);
    mesh.inside.wait_metric("zen_queue_depth", 40.0);
    assert!(broken.deliveries().len() < tried + 20, "the later ones wait");
    assert_eq!(mesh.inside.metric("zen_dead_letters_total") as u64, 0);
    broken.script(|_, _| Answer::status(200));
    // Changed limits forget what was learnt, so nobody waits ten minutes for the probe.
    mesh.lab.write("inside.toml", &change(&mesh.inside_text, "failures_max = 3", "failures_max = 4"));
    mesh.inside.signal(Signal::SIGHUP);
    let all = distinct(ids.into_iter().chain(quiet));
    wait_until("everything", || delivered(&broken.deliveries()) == all);
    wait_until("closed", || mesh.inside.metric("zen_targets_breaker_open") == 0.0);
}

#[test]
fn a_breaker_closes_by_its_probe() {
    let extra = "retry_schedule_ms = [10, 10]\nbreaker = { failures_max = 1, pause_ms = 300 }";
    let (mesh, target) =
        Mesh::with_target(extra, |number, _| Answer::status(if number == 0 { 500 } else { 200 }));
    let id = mesh.send(b"{}");
    let came = target.wait(2);
    assert!((came[1].at - came[0].at).as_millis() >= 230, "the schedule says 10 ms, the breaker 300");
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 1.0);
    assert_eq!(attempts(&came, &id), 2);
}

#[test]
fn a_rate_spreads_what_comes_at_once() {
    let (mesh, target) =
        Mesh::with_target("rate = { per_second = 10, burst = 2 }", |_, _| Answer::status(200));
    mesh.send_many(12, 10);
    mesh.inside.wait_metric("zen_targets_rate_limited", 1.0);
    let came = target.wait(12);
    let spread = came[11].at - came[0].at;
    assert!(spread.as_millis() >= 950, "ten intervals of 100 ms, not {spread:?}");
    wait_until("nothing waits", || mesh.inside.metric("zen_targets_rate_limited") == 0.0);
}

#[test]
fn attempts_adapt_to_a_slow_target_one_at_a_time() {
    let slow = |_: usize, _: &Delivery| Answer::status(200).after(Duration::from_millis(50));
    let (mesh, target) = Mesh::with_target("answer_ms_max = 10", slow);
    mesh.send_many(20, 10);
    target.wait(20);
    assert_eq!(target.busy_max(), 1, "every answer is late");
    wait_until("the cap", || mesh.inside.metric("zen_attempts_cap") as u64 == 1);
}

#[test]
fn permanent_answers_are_the_last_and_others_are_not() {
    let (mesh, target) = Mesh::with_target(
        "retry_schedule_ms = [10, 10]\npermanent_statuses = [404, \"3xx\"]",
        |_, delivery| Answer::status(String::from_utf8_lossy(&delivery.body[10..13]).parse().unwrap()),
    );
    for status in [404, 302, 422] {
        mesh.send(&numbered(status, 10));
    }
    mesh.inside.wait_metric("zen_dead_letters_kept", 3.0);
    assert_eq!(target.deliveries().len(), 5, "one, one, and the schedule of 422");
    let mut shown: Vec<_> = letters(&mesh)
        .iter()
        .map(|letter| (letter["status"].as_u64().unwrap(), letter["attempts"].as_u64().unwrap()))
        .collect();
    shown.sort_unstable();
    assert_eq!(shown, [(302, 1), (404, 1), (422, 3)]);
}

#[test]
fn a_computed_schedule_ends_after_its_attempts() {
    let retry =
        "retry = { first_ms = 10, factor = 3, max_ms = 40, attempts_max = 4 }\nretry_jitter_percent = 0";
    let (mesh, target) = Mesh::with_target(retry, |_, _| Answer::status(500));
    mesh.send(b"{}");
    mesh.inside.wait_metric("zen_dead_letters_kept", 1.0);
    let at: Vec<_> = target.deliveries().iter().map(|delivery| delivery.at).collect();
    assert_eq!(at.len(), 4);
    for (pair, least_ms) in at.windows(2).zip([10, 30, 40]) {
        assert!((pair[1] - pair[0]).as_millis() >= least_ms - 1, "{at:?}");
    }
}

#[test]
fn after_its_deadline_a_delivery_is_a_dead_letter_and_goes_out_again_when_told() {
    let section = "retry_schedule_ms = [400, 60000]\nretry_jitter_percent = 0\ndeadline_ms = 1000";
    let (mesh, target) = Mesh::with_target(section, |_, _| Answer::status(500));
    mesh.send(b"{}");
    mesh.inside.wait_metric("zen_dead_letters_kept", 1.0);
    let letter = &letters(&mesh)[0];
    assert_eq!((letter["reason"].as_str(), letter["status"].as_u64()), (Some("deadline_over"), Some(500)));
    assert_eq!(target.deliveries().len(), 2, "a third attempt would have come a minute later");
    target.script(|_, _| Answer::status(200));
    let socket = mesh.lab.path("inside.sock");
    run(&["dead-letters", "replay", "--all", "--socket", socket.to_str().unwrap()]);
    target.wait(3);
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"delivered\"}", 1.0);
}

#[test]
fn what_waited_past_its_deadline_is_not_sent() {
    let section = "retry_schedule_ms = [10]\ndeadline_ms = 1000\nthrottle = { pause_ms = 1500 }";
    let (mesh, target) =
        Mesh::with_target(section, |number, _| Answer::status(if number == 0 { 429 } else { 200 }));
    mesh.send(b"{}");
    target.wait(1);
    mesh.send(b"{\"late\":1}");
    mesh.inside.wait_metric("zen_dead_letters_kept", 2.0);
    assert_eq!(target.deliveries().len(), 1);
    assert!(letters(&mesh).iter().all(|letter| letter["reason"] == "deadline_over"));
    assert_eq!(mesh.inside.metric("zen_deliveries_total{outcome=\"deadline_over\"}") as u64, 1);
}

/// Bodies and heads without an end, answers that are none, silence: what a broken or hostile target may say.
fn bad_answers() -> Vec<(&'static str, Answer, &'static str)> {
    const TWO_GB: u64 = 2 << 30;
    let silent = Answer::status(200).after(Duration::from_mins(1));
    let long_line = "HTTP/1.1 200 OK\r\nx-long: ";
    let many_lines = format!("HTTP/1.1 200 OK\r\n{}", "x-many: 1\r\n".repeat(100_000));
    vec![
        (
            "says 2 GB",
            Answer::raw("HTTP/1.1 200 OK\r\ncontent-length: 2147483648\r\n\r\n", TWO_GB),
            "broken_answer",
        ),
        ("never ends", Answer::raw("HTTP/1.1 200 OK\r\n\r\n", TWO_GB), "broken_answer"),
        (
            "a chunk of 2 GB",
            Answer::raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n80000000\r\n", TWO_GB),
            "broken_answer",
        ),
        ("a header of 1 MB", Answer::raw(long_line, 1 << 20), "broken_answer"),
        ("1 MB of headers", Answer::raw(many_lines, 0), "broken_answer"),
        ("garbage", Answer::raw([0xff, 0, 13, 10, 13, 10].repeat(1000), 0), "broken_answer"),
        ("another protocol", Answer::raw("220 mail.example ESMTP\r\n", 0), "broken_answer"),
        (
            "two lengths",
            Answer::raw("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 9),
            "broken_answer",
        ),
        ("interim for ever", Answer::raw("HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000), 0), "broken_answer"),
        ("silence", silent, "timed_out"),
        ("half an answer", Answer::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", 1), "timed_out"),
        ("nothing", Answer::status(0), "connect_reset"),
    ]
}

#[test]
fn bad_answers_are_bounded_named_and_disturb_nobody() {
    let lab = Lab::new();
    let well = target(&lab, "demo", |_, _| Answer::status(200));
    let bad = target(&lab, "demo", |_, _| Answer::status(200));
    let extra = "retry_schedule_ms = []\nattempt_timeout_ms = 1500\nbreaker = { enabled = false }\nanswer_excerpt_bytes_max = 1024";
    let sections = lab.target_text("demo", bad.address, extra) + &lab.target_text("well", well.address, "");
    let both = |text: &str| text.replacen("targets = [\"demo\"]", "targets = [\"demo\", \"well\"]", 1);
    let mesh = Mesh::start_with(lab, &sections, both, str::to_owned);
    for (index, (name, answer, outcome)) in bad_answers().into_iter().enumerate() {
        bad.script(move |_, _| answer.clone());
        let metric = format!("zen_deliveries_total{{outcome=\"{outcome}\"}}");
        let (before, filled) = (mesh.inside.metric(&metric), bad.filled());
        mesh.send(b"{}");
        well.wait(index + 1);
        wait_until(name, || mesh.inside.metric("zen_dead_letters_kept") as usize == index + 1);
        assert_eq!(mesh.inside.metric(&metric) as u64, before as u64 + 1, "{name} is {outcome}");
        let letter = letters(&mesh).pop().unwrap();
        assert!(letter["kind"] == "destination" && letter["target"] == "demo", "{name}: {letter}");
        // What the kernels' buffers take is sent; what was asked for is not.
        assert!(bad.filled() - filled < 64 << 20, "{name}: {} bytes", bad.filled() - filled);
    }
    let resident = mesh.inside.metric("zen_memory_resident_bytes");
    assert!(resident < mesh.inside.metric("zen_memory_bound_bytes"), "{resident}");
}
