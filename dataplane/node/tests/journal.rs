//! Journals of real nodes: full disks, bounds, torn tails, damage, reading back, and carrying forward.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use mesh::{Mesh, delivered, distinct, numbered, send, target};
use support::client::{Client, github};
use support::node::{Node, wait_until};
use support::{GITHUB, JOURNAL_BYTES_MAX, Lab, Ports, change, endpoint};
use target::{Answer, Target};

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const BLOCK_BYTES: usize = 4096;
const COMMIT_HEADER_BYTES: usize = 96;

#[test]
fn a_full_disk_is_503_and_the_egress_makes_room() {
    let disk = Tmpfs::mount(36);
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let (ports, inside_ports) = (Ports::pick(), Ports::pick());
    let text = lab.ingester_text(ports);
    let text = change(&text, "data_dir = \"edge\"", &format!("data_dir = \"{}\"", disk.path.display()));
    let text = change(&text, &format!("bytes_max = {JOURNAL_BYTES_MAX}"), "bytes_max = 1073741824");
    let edge = lab.start("edge", ports, &text);
    let ids = fill(&lab, &edge, ports);
    edge.wait_log("no journal segment can be prepared");
    edge.wait_log("No space left on device");

    let section = lab.target_text("demo", target.address, "");
    let inside = lab.start("inside", inside_ports, &lab.egress_text(inside_ports, ports.link, &section));
    wait_until("everything that was accepted is delivered", || delivered(&target.deliveries()) == ids);
    wait_until("the ingester is ready again", || edge.get("/readyz").0 == 200);
    let mut source = Client::connect(&lab, ports.listen);
    let id = send(&mut source, GITHUB, &numbered(0, 100_000));
    wait_until("what comes now is delivered", || delivered(&target.deliveries()).contains(&id));
    assert_eq!(inside.metric("zen_dead_letters_total") as u64, 0);
}

#[test]
fn space_that_somebody_else_frees_is_used() {
    let disk = Tmpfs::mount(36);
    fs::write(disk.path.join("filler"), vec![1; 12 << 20]).unwrap();
    let lab = Lab::new();
    let ports = Ports::pick();
    let text = lab.ingester_text(ports);
    let text = change(&text, "data_dir = \"edge\"", &format!("data_dir = \"{}\"", disk.path.display()));
    let mut edge = lab.start("edge", ports, &text);
    let before = fill(&lab, &edge, ports).len();
    fs::remove_file(disk.path.join("filler")).unwrap();
    wait_until("the ingester is ready again", || edge.get("/readyz").0 == 200);
    let mut source = Client::connect(&lab, ports.listen);
    let more = (0..8).map(|index| send(&mut source, GITHUB, &numbered(index, 500_000))).count();
    edge.kill();
    let edge = lab.start("edge", ports, &text);
    assert_eq!(edge.metric("zen_link_lag_events") as usize, before + more, "all of it is still there");
}

#[test]
fn a_journal_at_its_bound_is_503_and_the_egress_makes_room() {
    let (mut mesh, target) = Mesh::with_target("", |_, _| Answer::status(200));
    mesh.inside.kill();
    let ids = fill(&mesh.lab, &mesh.edge, mesh.edge_ports);
    let live = mesh.edge.metric("zen_journal_live_bytes") as u64;
    assert!(live <= JOURNAL_BYTES_MAX, "{live} bytes");
    mesh.restart_inside();
    wait_until("everything that was accepted is delivered", || delivered(&target.deliveries()) == ids);
    wait_until("the ingester is ready again", || mesh.edge.get("/readyz").0 == 200);
    mesh.send(b"after");
    target.wait(ids.len() + 1);
}

#[test]
fn a_torn_last_commit_is_cut_off_and_everything_before_it_is_delivered() {
    type Tear = fn(&Path, u64, u64);
    let tears: [(&str, Tear); 4] = [
        ("zeroed", |file, at, bytes| write_at(file, at, &vec![0; bytes as usize])),
        ("half written", |file, at, bytes| write_at(file, at + bytes / 2, &vec![0; (bytes / 2) as usize])),
        ("flipped", |file, at, _| flip(file, at + 200)),
        ("truncated", |file, at, bytes| {
            fs::File::options().write(true).open(file).unwrap().set_len(at + bytes / 2).unwrap();
        }),
    ];
    for (name, tear) in tears {
        let (mut mesh, target) = Mesh::with_target("", |_, _| Answer::status(200));
        mesh.inside.kill();
        let mut ids = mesh.send_many(10, 10_000);
        mesh.edge.kill();
        let (file, commits) = newest_commits(&mesh.lab.path("edge/ingester/worker-0"));
        let (at, bytes) = *commits.last().unwrap();
        assert!(commits.len() >= 10 && bytes > 8192, "{commits:?}");
        tear(&file, at, bytes);
        // As if the crash had come before the last answer.
        ids.pop();
        mesh.restart_edge();
        ids.push(mesh.send(b"after"));
        mesh.restart_inside();
        let ids = distinct(ids);
        wait_until(name, || delivered(&target.deliveries()) == ids);
        mesh.edge.kill();
        mesh.restart_edge();
        let last = mesh.send(b"after another start");
        wait_until(name, || delivered(&target.deliveries()).contains(&last));
    }
}

#[test]
fn newest_commits_that_rot_behind_an_acknowledgement_cost_no_later_event() {
    type Rot = fn(&Path, u64, u64);
    let rots: [(&str, usize, Rot); 3] = [
        ("the newest record", 1, |file, at, _| flip(file, at + 200)),
        ("both headers", 2, |file, at, _| flip(file, at + 20)),
        ("nothing is left", 2, |file, at, bytes| write_at(file, at, &vec![0; bytes as usize])),
    ];
    for (name, count, rot) in rots {
        let (mut mesh, target) = Mesh::with_target("", |_, _| Answer::status(200));
        let mut ids = mesh.send_many(10, 3_000);
        wait_until("all is acknowledged", || mesh.edge.metric("zen_link_lag_events") as u64 == 0);
        mesh.edge.kill();
        let (file, commits) = newest_commits(&mesh.lab.path("edge/ingester/worker-0"));
        assert!(commits.len() >= 10, "{commits:?}");
        for &(at, bytes) in &commits[commits.len() - count..] {
            rot(&file, at, bytes);
        }
        mesh.restart_edge();
        mesh.edge.wait_log("this journal has lost its newest records");
        ids.extend((0..5).map(|index| mesh.send(&numbered(index, 100))));
        let ids = distinct(ids);
        wait_until(name, || delivered(&target.deliveries()) == ids);
        wait_until("all is acknowledged", || mesh.edge.metric("zen_link_lag_events") as u64 == 0);
        assert_eq!(target.deliveries().len(), ids.len(), "each once");
    }
}

#[test]
fn an_older_copy_of_a_journal_is_not_sent_under_sequences_that_the_egress_has_seen() {
    let (mut mesh, target) = Mesh::with_target("", |_, _| Answer::status(200));
    mesh.send_many(3, 100);
    target.wait(3);
    mesh.edge.kill();
    let (journal, copy) = (mesh.lab.path("edge/ingester"), mesh.lab.path("copy"));
    copy_directory(&journal, &copy);
    mesh.restart_edge();
    let sent = mesh.send(b"{}");
    wait_until("it is delivered", || delivered(&target.deliveries()).contains(&sent));
    wait_until("it is acknowledged", || mesh.edge.metric("zen_link_lag_events") as u64 == 0);
    mesh.edge.kill();
    mesh.inside.kill();
    fs::remove_dir_all(&journal).unwrap();
    copy_directory(&copy, &journal);
    mesh.restart_edge();
    // More than the egress had from the run that the copy does not know of.
    let sent = mesh.send_many(3, 100);
    mesh.restart_inside();
    mesh.edge.wait_metric("zen_link_errors_total{reason=\"resume_ahead\"}", 2.0);
    mesh.edge.wait_log("this journal is older than what the egress has");
    assert!(mesh.edge.metric("zen_link_lag_events") >= 3.0, "they wait");
    assert!(delivered(&target.deliveries()).iter().all(|id| !sent.contains(id)));
}

#[test]
fn a_copy_taken_while_it_is_written_holds_what_was_answered_before() {
    let (mut mesh, target) = Mesh::with_target("", |_, _| Answer::status(200));
    mesh.inside.kill();
    let copy = mesh.lab.path("copy");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let answered = std::sync::Mutex::new(Vec::new());
    let before = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut source = mesh.source();
                while !stop.load(std::sync::atomic::Ordering::Acquire) {
                    let id = send(&mut source, GITHUB, &numbered(0, 3_000));
                    answered.lock().unwrap().push(id);
                }
            });
        }
        wait_until("some are answered", || answered.lock().unwrap().len() > 200);
        let before = answered.lock().unwrap().clone();
        let copied = Command::new("cp").arg("-r").arg(mesh.lab.path("edge")).arg(&copy).status().unwrap();
        assert!(copied.success());
        stop.store(true, std::sync::atomic::Ordering::Release);
        before
    });
    mesh.edge.kill();
    mesh.edge_text = change(&mesh.edge_text, "data_dir = \"edge\"", "data_dir = \"copy\"");
    mesh.restart_edge();
    mesh.restart_inside();
    wait_until("everything answered before the copy is delivered", || {
        let delivered = delivered(&target.deliveries());
        before.iter().all(|id| delivered.binary_search(id).is_ok())
    });
}

#[test]
fn damage_in_the_middle_is_refused_by_name_and_skipped_if_told() {
    let (mut mesh, target) = Mesh::with_target("", |_, _| Answer::status(200));
    mesh.inside.kill();
    let ids = mesh.send_many(20, 10_000);
    mesh.edge.kill();
    let directory = mesh.lab.path("edge/ingester/worker-0");
    let (file, commits) = newest_commits(&directory);
    let at = commits[commits.len() - 15].0;
    flip(&file, at + 5_000);

    let config = mesh.lab.path("edge.toml");
    let mut refused = Node::spawn(&config, mesh.edge_ports.admin);
    assert!(!refused.wait().success());
    refused.wait_log("on_damage");
    let log = refused.log();
    let segment = u64::from_str_radix(file.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
    assert!(log.contains(directory.to_str().unwrap()), "{log}");
    let offset = log.split(&format!("segment {segment} at offset ")).nth(1).expect(&log);
    let offset: u64 = offset.split(':').next().unwrap().parse().unwrap();
    assert!((at..at + 12_288).contains(&offset), "{offset}, the damage is in the commit at {at}");

    mesh.edge_text = change(&mesh.edge_text, "[journal]\n", "[journal]\non_damage = \"skip\"\n");
    mesh.restart_edge();
    mesh.edge.wait_log("the journal is damaged here");
    mesh.restart_inside();
    wait_until("all but one are delivered", || delivered(&target.deliveries()).len() == 19);
    let delivered = delivered(&target.deliveries());
    assert_eq!(ids.iter().filter(|id| !delivered.contains(id)).count(), 1);
    let last = mesh.send(b"after");
    wait_until("what comes now is delivered", || mesh::delivered(&target.deliveries()).contains(&last));
}

#[test]
fn damage_in_the_egress_journal_is_refused_too() {
    let (mut mesh, target) =
        Mesh::with_target("in_flight_max = 1", |_, _| Answer::status(200).after(Duration::from_mins(1)));
    for index in 0..10 {
        mesh.send(&numbered(index, 10_000));
        mesh.inside.wait_metric("zen_link_events_received_total", (index + 1) as f64);
    }
    mesh.inside.kill();
    let (file, commits) = newest_commits(&mesh.lab.path("inside/egress/worker-0"));
    let (at, _) = commits[commits.len() - 6];
    flip(&file, at + 5_000);
    let mut refused = Node::spawn(&mesh.lab.path("inside.toml"), mesh.inside_ports.admin);
    assert!(!refused.wait().success());
    refused.wait_log("inside/egress/worker-0: 1 damaged places");

    target.script(|_, _| Answer::status(200));
    mesh.inside_text = change(&mesh.inside_text, "[journal]\n", "[journal]\non_damage = \"skip\"\n");
    mesh.restart_inside();
    wait_until("all but one are delivered", || delivered(&target.deliveries()).len() >= 9);
}

#[test]
fn a_long_outage_is_read_back_from_disk() {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let section = lab.target_text("demo", target.address, "");
    let small = |text: &str| change(text, "[journal]\n", "[journal]\nrecent_bytes_max = 1048576\n");
    let mut mesh = Mesh::start_with(lab, &section, small, small);
    mesh.inside.kill();
    // 12 MiB and several segments, against 1 MiB in memory; many small events between large ones.
    let mut ids = Vec::new();
    for round in 0..12 {
        ids.extend(mesh.send_many(4, 250_000));
        ids.extend(mesh.send_many(40, 100 + round));
    }
    mesh.restart_inside();
    let ids = distinct(ids);
    wait_until("everything is delivered", || delivered(&target.deliveries()) == ids);
    assert_eq!(target.deliveries().len(), ids.len(), "each once");
    let large = target.deliveries().iter().filter(|delivery| delivery.body.len() == 250_000).count();
    assert_eq!(large, 48);
}

#[test]
fn a_backlog_beyond_the_memory_of_the_egress_is_fetched_from_disk() {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200).after(Duration::from_mins(1)));
    let section = lab.target_text("demo", target.address, "in_flight_max = 2\nattempt_timeout_ms = 1000");
    let small = |text: &str| change(text, "[egress]\n", "[egress]\ncached_bytes_max = 2097152\n");
    let mesh = Mesh::start_with(lab, &section, str::to_owned, small);
    let ids = distinct(mesh.send_many(60, 150_000));
    mesh.inside.wait_metric("zen_link_events_received_total", 60.0);
    target.script(|_, _| Answer::status(200));
    wait_until("everything is delivered", || delivered(&target.deliveries()) == ids);
    for delivery in target.deliveries() {
        delivery.verify(&mut mesh::verifier("demo")).unwrap();
    }
}

#[test]
fn live_records_are_carried_forward_past_a_dead_target() {
    let (mut mesh, dead, well) = two_targets("retry_schedule_ms = [30000]");
    let kept = distinct((0..5).map(|index| mesh.send(&numbered(index, 100_000))));
    // Four times the journal's bound goes past the five that wait.
    let events = 4 * JOURNAL_BYTES_MAX as usize / 500_000;
    fill_past(&mesh, events);
    well.wait(events);
    assert!((mesh.inside.metric("zen_journal_live_bytes") as u64) <= JOURNAL_BYTES_MAX);
    wait_until("only those that wait are live", || mesh.inside.metric("zen_events_live") as u64 == 5);
    assert_eq!(dead.deliveries().len(), 5, "carried, not tried again");

    mesh.inside.kill();
    mesh.restart_inside();
    dead.script(|_, _| Answer::status(200));
    mesh.inside.wait_metric("zen_events_live", 5.0);
    // The retry may be due later than a test waits otherwise.
    let until = Instant::now() + Duration::from_secs(45);
    while dead.deliveries().len() < 10 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    let deliveries = dead.wait(10);
    assert_eq!(delivered(&deliveries[5..]), kept, "found again after a kill, and tried when due");
    assert!(deliveries[5..].iter().all(|delivery| delivery.header("zen-attempt") == "2"));
}

#[test]
fn a_damaged_live_record_is_given_up_when_the_journal_needs_its_room() {
    let (mesh, dead, well) = two_targets("retry_schedule_ms = [60000, 60000]");
    let kept: Vec<String> = (0..5).map(|index| mesh.send(&numbered(index, 100_000))).collect();
    dead.wait(5);
    let (file, _) = oldest_commits(&mesh.lab.path("inside/egress/worker-0"));
    let lost = &kept[2];
    flip(&file, place_of(&file, lost) + 50_000);
    let events = 4 * JOURNAL_BYTES_MAX as usize / 500_000;
    fill_past(&mesh, events);
    well.wait(events);
    wait_until("the others are live", || mesh.inside.metric("zen_events_live") as u64 == 4);
    assert_eq!(mesh.inside.metric("zen_events_lost_total") as u64, 1);
    assert!((mesh.inside.metric("zen_journal_live_bytes") as u64) <= JOURNAL_BYTES_MAX);
    let line = mesh.inside.log().lines().find(|line| line.contains("its event is lost")).unwrap().to_owned();
    for part in ["ERROR", "egress/worker-0", "segment=1", "record=", lost.as_str()] {
        assert!(line.contains(part), "{part} in {line}");
    }

    // Nothing damaged is left: it starts without being told to skip anything.
    let mut mesh = mesh;
    mesh.inside.kill();
    mesh.restart_inside();
    wait_until("the others are live again", || mesh.inside.metric("zen_events_live") as u64 == 4);
}

#[test]
fn a_damaged_record_is_tried_by_schedule_and_then_a_dead_letter() {
    let schedule = "retry_schedule_ms = [500, 500, 500, 500, 500, 500, 500, 500]";
    let (mesh, dead, well) = two_targets(schedule);
    let id = mesh.send(&numbered(0, 100_000));
    dead.wait(1);
    let (file, _) = oldest_commits(&mesh.lab.path("inside/egress/worker-0"));
    flip(&file, place_of(&file, &id) + 50_000);
    fill_past(&mesh, 12);
    well.wait(12);
    mesh.inside.wait_metric("zen_dead_letters_kept", 1.0);
    let unreadable = mesh.inside.metric("zen_deliveries_total{outcome=\"unreadable\"}") as usize;
    assert!(unreadable >= 1, "it is read from disk");
    assert_eq!(unreadable + dead.deliveries().len(), 9, "each attempt is one of the schedule");
    assert_eq!(mesh.inside.metric("zen_events_lost_total") as u64, 0, "there is room");
}

#[test]
fn a_record_that_cannot_be_read_just_now_is_delivered_later() {
    let schedule = format!("retry_schedule_ms = [{}1000]", "1000, ".repeat(31));
    let (mesh, demo, well) = two_targets(&schedule);
    // The answer waits: a second attempt before the file is cut would read it, and keep what it has read.
    let (cut, is_cut) = mpsc::channel::<()>();
    let is_cut = Mutex::new(is_cut);
    demo.script(move |_, _| {
        let _ = is_cut.lock().unwrap().recv();
        Answer::status(500)
    });
    let id = mesh.send(&numbered(0, 100_000));
    demo.wait(1);
    fill_past(&mesh, 12);
    well.wait(12);
    let (file, _) = oldest_commits(&mesh.lab.path("inside/egress/worker-0"));
    let bytes = fs::read(&file).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_len(BLOCK_BYTES as u64).unwrap();
    drop(cut);
    mesh.inside.wait_metric("zen_journal_read_errors_total", 2.0);
    mesh.inside.wait_log("a journal segment cannot be read back");
    fill_past(&mesh, 1);
    well.wait(13);
    demo.script(|_, _| Answer::status(200));
    write_at(&file, 0, &bytes);
    wait_until("it is delivered", || demo.deliveries().last().is_some_and(|last| last.event_id() == id));
    wait_until("nothing is left", || mesh.inside.metric("zen_events_live") as u64 == 0);
    assert!(mesh.inside.metric("zen_deliveries_total{outcome=\"unreadable\"}") >= 1.0);
    assert_eq!(mesh.inside.metric("zen_events_lost_total") as u64, 0);
}

#[test]
fn a_journal_full_of_live_events_stands_still() {
    let (mesh, target) =
        Mesh::with_target("in_flight_max = 1", |_, _| Answer::status(200).after(Duration::from_mins(1)));
    let ids = fill(&mesh.lab, &mesh.edge, mesh.edge_ports);
    target.wait(1);
    std::thread::sleep(Duration::from_secs(1));
    let before = mesh.inside.metric("zen_journal_bytes_total");
    std::thread::sleep(Duration::from_secs(1));
    let written = mesh.inside.metric("zen_journal_bytes_total") - before;
    assert!(written < 1e6, "{written} bytes were written in a second without anything to do");
    drop((ids, mesh));
}

/// A tmpfs of its own; unmounted at the end.
struct Tmpfs {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Tmpfs {
    fn mount(mebibytes: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let options = format!("size={mebibytes}m,mode=0700");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        let output = output.expect("mount(8) is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "this test mounts a tmpfs and must run as root: {said}");
        Self { path, _directory: directory }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a node that is still being killed may hold files.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Sends until 503; the ids of what was accepted.
fn fill(lab: &Lab, node: &Node, ports: Ports) -> Vec<String> {
    let mut source = Client::connect(lab, ports.listen);
    let mut ids = Vec::new();
    let refused = loop {
        let answer = source.ask(&github(GITHUB, &numbered(ids.len(), 200_000), ""));
        if answer.status != 202 {
            break answer;
        }
        ids.push(answer.json()["id"].as_str().unwrap().to_owned());
        assert!(ids.len() < 1_000, "nothing is ever full");
    };
    assert_eq!(refused.status, 503);
    let seconds: u64 = refused.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    wait_until("/readyz says why", || {
        let (status, text) = node.get("/readyz");
        status == 503 && text.contains("1 without journal room")
    });
    assert!(!ids.is_empty());
    distinct(ids)
}

/// `demo` answers 500 and has the keys `extra`, `well` answers 200; what is not new is read from disk.
fn two_targets(extra: &str) -> (Mesh, Target, Target) {
    let lab = Lab::new();
    let demo = target(&lab, "demo", |_, _| Answer::status(500));
    let well = target(&lab, "demo", |_, _| Answer::status(200));
    let sections = lab.target_text("demo", demo.address, &format!("{extra}\nretry_jitter_percent = 0"))
        + &lab.target_text("well", well.address, "");
    let small = |text: &str| change(text, "[journal]\n", "[journal]\nrecent_bytes_max = 1048576\n");
    (Mesh::start_with(lab, &sections, well_at_standard, small), demo, well)
}

/// Sends events of 500 kB for the target `well`, each until it is taken.
fn fill_past(mesh: &Mesh, events: usize) {
    let mut source = mesh.source();
    let body = numbered(0, 500_000);
    for _ in 0..events {
        let until = Instant::now() + Duration::from_secs(20);
        while source.ask(&standard(&body)).status != 202 {
            assert!(Instant::now() < until, "the busy target starves");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The oldest segment file, and where its commits are.
fn oldest_commits(directory: &Path) -> (PathBuf, Vec<(u64, u64)>) {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let file = files.filter(|path| path.extension().is_some_and(|name| name == "seg")).min().unwrap();
    let commits = commits(&fs::read(&file).unwrap());
    (file, commits)
}

/// Where an event begins in a segment file, which may hold others in the same commit.
fn place_of(file: &Path, id: &str) -> u64 {
    let digits: Vec<char> = id.chars().filter(|digit| *digit != '-').collect();
    let id: Vec<u8> =
        digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap()).collect();
    let bytes = fs::read(file).unwrap();
    bytes.windows(16).position(|window| window == id).expect("the event is in the file") as u64
}

/// The newest segment file with commits, and where they are: offset and bytes.
fn newest_commits(directory: &Path) -> (PathBuf, Vec<(u64, u64)>) {
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    // One that is being made has no commits, and another name in a moment.
    files.retain(|path| path.extension().is_some_and(|name| name == "seg"));
    files.sort_unstable();
    let mut all = files.into_iter().rev().map(|file| (commits(&fs::read(&file).unwrap()), file));
    let (commits, file) = all.find(|(commits, _)| !commits.is_empty()).unwrap();
    (file, commits)
}

/// Commits from the first block on, by the lengths in their headers (`docs/journal-format.md`).
fn commits(bytes: &[u8]) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut at = BLOCK_BYTES;
    while bytes.get(at..at + 4) == Some(b"ZCMT") {
        let payload = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        let size = (COMMIT_HEADER_BYTES + payload).next_multiple_of(BLOCK_BYTES);
        found.push((at as u64, size as u64));
        at += size;
    }
    found
}

fn copy_directory(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(copied.success());
}

fn write_at(file: &Path, at: u64, bytes: &[u8]) {
    fs::File::options().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
}

fn flip(file: &Path, at: u64) {
    let mut byte = [0];
    fs::File::open(file).unwrap().read_exact_at(&mut byte, at).unwrap();
    write_at(file, at, &[byte[0] ^ 1]);
}

/// The GitHub endpoint leads to `demo`, the HMAC endpoint (up to 1 MiB) to `well`.
fn well_at_standard(text: &str) -> String {
    let from = endpoint(support::HMAC, "hmac", "source", "");
    let flow = from.split_once("[[ingester.endpoints]]").unwrap().0;
    let text = change(text, flow, &flow.replace("demo", "well"));
    change(&text, "body_bytes_max = 65536\n", "")
}

/// An event for the HMAC endpoint.
fn standard(body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /hooks/{} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         X-Signature: {}\r\nContent-Length: {}\r\n\r\n",
        support::HMAC,
        support::client::signature(body),
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}
