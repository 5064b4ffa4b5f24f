//! Events that are done stay on disk for replay, within their bounds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use mesh::{Mesh, target};
use support::node::wait_until;
use support::{Lab, SEGMENT_BYTES, change};
use target::{Answer, Delivery};

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

/// Files on their way from the oldest kept to the newest written.
const SPARES_MAX: usize = 2;
const BODY_BYTES: usize = 250_000;
/// Enough for a segment.
const EVENTS_PER_SEGMENT: usize = 16;

fn ok(_: usize, _: &Delivery) -> Answer {
    Answer::status(200)
}

/// Names of the segments kept by the egress, oldest first.
fn retained(mesh: &Mesh) -> Vec<PathBuf> {
    let directory = mesh.lab.path("inside/egress/worker-0/retained");
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

fn start(bytes_max: u64) -> (Mesh, target::Target) {
    let lab = Lab::new();
    let target = target(&lab, "demo", ok);
    let section = lab.target_text("demo", target.address, "");
    let keep = format!("[egress.retention]\nbytes_max = {bytes_max}\n\n[[egress.ingesters]]");
    let edit = |text: &str| change(text, "[[egress.ingesters]]", &keep);
    (Mesh::start_with(lab, &section, str::to_owned, edit), target)
}

#[test]
fn finished_segments_are_kept_up_to_the_bound_and_over_a_restart() {
    let (mut mesh, target) = start(2 * SEGMENT_BYTES);
    mesh.send_many(4 * EVENTS_PER_SEGMENT, BODY_BYTES);
    target.wait(4 * EVENTS_PER_SEGMENT);
    let kept = || mesh.inside.metric("zen_retained_segments") as u64;
    wait_until("two segments are kept, and the next are made of the third", || {
        kept() == 2 && (2..=2 + SPARES_MAX).contains(&retained(&mesh).len())
    });
    let before = retained(&mesh);
    assert!(mesh.inside.terminate().success());
    mesh.restart_inside();
    wait_until("they are still there", || mesh.inside.metric("zen_retained_segments") as u64 == 2);
    assert_eq!(retained(&mesh).last(), before.last());
    mesh.send_many(3 * EVENTS_PER_SEGMENT, BODY_BYTES);
    target.wait(7 * EVENTS_PER_SEGMENT);
    wait_until("the oldest have left", || retained(&mesh).first().is_some_and(|oldest| *oldest > before[0]));
    assert!(retained(&mesh).len() <= 2 + SPARES_MAX);
}

#[test]
fn nothing_is_kept_where_the_bound_is_nothing() {
    let (mesh, target) = start(0);
    mesh.send_many(3 * EVENTS_PER_SEGMENT, BODY_BYTES);
    target.wait(3 * EVENTS_PER_SEGMENT);
    wait_until("all is done", || mesh.inside.metric("zen_events_live") as u64 == 0);
    assert_eq!(retained(&mesh), Vec::<PathBuf>::new());
}
