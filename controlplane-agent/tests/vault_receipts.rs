//! The digests of a vault's receipts come into the control plane's log, and what was put back there is noticed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/lab.rs"]
mod lab;

use std::fs;
use std::path::Path;

use lab::{Lab, run, wait_until};
use zen_audit::{Digest, Entry, Export, Note};

/// All entries of the control plane's log that are of receipts.
fn entries(lab: &Lab) -> Vec<Entry> {
    let export = run("zen-control", &["audit", "export", "--dir", &lab.text("control")]);
    let entries = Export::parse(&export).unwrap().entries;
    let entries = entries.iter().map(|bytes| serde_json::from_slice::<Entry>(bytes).unwrap());
    entries.filter(|entry| entry.action.starts_with("receipts.")).collect()
}

/// How many digests are in the log, by their hashes.
fn anchored(lab: &Lab) -> Vec<bool> {
    let targets: Vec<String> = entries(lab).into_iter().map(|entry| entry.target).collect();
    let mut notes: Vec<_> =
        fs::read_dir(lab.path("receipts/digests")).unwrap().map(|entry| entry.unwrap().path()).collect();
    notes.sort();
    let is_anchored = |path: &std::path::PathBuf| {
        let note = Note::parse(&fs::read_to_string(path).unwrap()).unwrap();
        let hash = Digest::parse(note.text()).unwrap().hash();
        let hash = hash.0.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        targets.iter().any(|target| target.contains(&hash))
    };
    notes.iter().map(is_anchored).collect()
}

/// Commands beside the daemon, whose lines close segments: two each.
fn close_segments(lab: &Lab, name: &str) {
    let config = fs::read_to_string(lab.path("lockd.toml")).unwrap();
    let config =
        config.replace("directory = \"receipts\"", "directory = \"receipts\"\ndigest_receipts_max = 1");
    fs::write(lab.path("closing.toml"), config).unwrap();
    run("zen-lockd", &["keygen", "--config", &lab.text("closing.toml"), "--out", &lab.text(name)]);
}

fn copy(from: &Path, to: &Path) {
    let output = std::process::Command::new("cp").arg("-a").args([from, to]).output().unwrap();
    assert!(output.status.success());
}

#[test]
fn digests_of_the_vault_are_in_the_log_and_another_past_is_noticed() {
    let lab = Lab::new();
    let text = fs::read_to_string(lab.path("agent.toml")).unwrap();
    let with = "socket = \"lockd.sock\"\nreceipts = \"receipts\"";
    fs::write(lab.path("agent.toml"), text.replace("socket = \"lockd.sock\"", with)).unwrap();
    let output = lab.enroll(&lab.bundle("edge"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    close_segments(&lab, "first.key");
    copy(&lab.path("receipts"), &lab.path("earlier"));
    close_segments(&lab, "second.key");
    let _agent = lab.start_agent();
    wait_until("all digests are in the log", || {
        let anchored = anchored(&lab);
        anchored.len() >= 3 && anchored.iter().all(|is_anchored| *is_anchored)
    });
    assert!(entries(&lab).iter().all(|entry| entry.actor.contains("spiffe://acme.example/agent/edge")));

    // The directory as it was earlier, with its own key: on this host nothing is wrong with it.
    fs::rename(lab.path("receipts"), lab.path("later")).unwrap();
    copy(&lab.path("earlier"), &lab.path("receipts"));
    for name in ["third.key", "fourth.key", "fifth.key"] {
        close_segments(&lab, name);
    }
    wait_until("the log has the alarm", || {
        entries(&lab).iter().any(|entry| entry.action == "receipts.alarm")
    });
}
