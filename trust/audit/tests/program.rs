//! The program as an auditor runs it: what it prints, and its exit codes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use support::{Log, log_key, witness_key};
use tempfile::TempDir;
use zen_audit::{Export, Segment, SigningKey};

struct Desk {
    directory: TempDir,
    export: Export,
}

impl Desk {
    /// Ten entries, of which six are anchored and eight signed.
    fn new() -> Self {
        let mut anchored = Log::of(6).checkpoint();
        anchored.sign(&witness_key(1), 1_790_000_000);
        let log = Log::of(10);
        let export = Export { entries: log.entries, checkpoints: vec![anchored, Log::of(8).checkpoint()] };
        Self { directory: TempDir::new().unwrap(), export }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn verify(&self, more: &[&str]) -> (Option<i32>, String) {
        let export = self.write("export", self.export.text());
        run(&[&["verify", "--log-key", &text(&log_key()), export.to_str().unwrap()][..], more].concat())
    }
}

fn text(key: &SigningKey) -> String {
    key.public().to_string()
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_zen-audit")).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn ranges_are_told_apart_by_words_and_by_exit_code() {
    let mut desk = Desk::new();
    let witness = text(&witness_key(1));
    let witnessed = ["--witness-key", &witness];
    let (code, said) = desk.verify(&witnessed);
    assert_eq!(code, Some(3), "{said}");
    let expected = [
        "PASS        [0,6) signed by the log and by at least 1 of the witnesses",
        "UNANCHORED  [6,8) signed by the log alone",
        "UNANCHORED  [8,10) signed by nobody yet",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    assert!(desk.verify(&[]).1.starts_with("PASS        [0,0)"), "nobody is anchored by nobody");
    assert!(desk.verify(&[&witnessed[..], &["--quorum", "2"]].concat()).1.starts_with("PASS        [0,0)"));

    desk.export.entries.truncate(6);
    let (code, said) = desk.verify(&witnessed);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("FAIL        from 6: entries 6 to 8 are missing"), "{said}");
    desk.export.checkpoints.truncate(1);
    assert_eq!(desk.verify(&witnessed).0, Some(0));
    desk.export.entries.swap(2, 3);
    let (code, said) = desk.verify(&witnessed);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("FAIL        from 2: entry 2"), "{said}");
}

#[test]
fn one_entry_is_shown_without_the_others() {
    let desk = Desk::new();
    let export = desk.write("export", desk.export.text());
    let key = text(&log_key());
    let prove = |index: &str| run(&["prove", "--log-key", &key, "--index", index, export.to_str().unwrap()]);
    let (code, proof) = prove("5");
    assert_eq!(code, Some(0), "{proof}");
    let proof = desk.write("proof", proof);
    let check = |number: usize| {
        let entry = desk.write("entry", &desk.export.entries[number]);
        run(&["check", "--log-key", &key, "--entry", entry.to_str().unwrap(), proof.to_str().unwrap()])
    };
    assert_eq!(check(5), (Some(0), "PASS  the entry is number 5 of 8 in acme.example/log\n".to_owned()));
    assert_eq!(check(4), (Some(4), "FAIL  the proof leads to another root\n".to_owned()));
    let (code, said) = prove("8");
    assert_eq!(code, Some(2));
    assert!(
        said.contains("no checkpoint covers entry 8: the last one that the log signed has 8 entries"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_checked_is_said() {
    let desk = Desk::new();
    let (log, witness) = (text(&log_key()), text(&witness_key(1)));
    let export = desk.write("export", desk.export.text());
    let export = export.to_str().unwrap();
    let cut = desk.write("cut", &desk.export.text()[..1000]);
    let binary = desk.write("binary", b"\xff\xfe");
    for (arguments, expected) in [
        (vec!["verify", "--log-key", &log, "/nowhere/export"], "No such file"),
        (vec!["verify", "--log-key", &log, cut.to_str().unwrap()], "is not of an export"),
        (vec!["verify", "--log-key", &log, binary.to_str().unwrap()], "is not UTF-8"),
        (vec!["verify", "--log-key", "a+b+c", export], "a key is NAME+8 digits of hex+base64"),
        (vec!["verify", "--log-key", &witness, export], "is a key of a witness, and should be one of a log"),
        (vec!["verify", "--log-key", &log, "--witness-key", &log, export], "should be one of a witness"),
        (vec!["verify", "--log-key", &log, "--quorum", "0", export], "0 is not in 1.."),
        (vec!["check", "--log-key", &log, "--entry", export, export], "the proof is not"),
        (vec![], "Usage"),
    ] {
        let (code, said) = run(&arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

/// A directory of receipts: one segment that is closed, one that is not.
fn receipts(desk: &Desk) -> String {
    let (mut segment, mut bytes) = (Segment::behind(None), String::new());
    for sequence in 0..3 {
        let line = format!("{{\"sequence\":{sequence}}}");
        segment.handle_line(line.as_bytes(), 1_790_000_000_000);
        bytes.push_str(&(line + "\n"));
    }
    let digest = segment.digest(log_key().public().name(), None);
    let note = digest.sign(&log_key()).to_string();
    let line = serde_json::json!({ "segment": 0, "first": 0, "count": 3, "note": note });
    desk.write("segment-0000000000-0000000000000000.jsonl", bytes);
    desk.write("segment-0000000001-0000000000000003.jsonl", "{\"sequence\":3}\n{\"torn");
    desk.write("digests.jsonl", format!("{line}\n{{\"torn"));
    digest.hash().0.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn receipts_are_checked_against_their_digests_and_the_log() {
    let mut desk = Desk::new();
    let hash = receipts(&desk);
    let (key, directory) = (text(&log_key()), desk.directory.path().to_owned());
    let directory = directory.to_str().unwrap();
    let (code, said) = run(&["receipts", "--key", &key, directory]);
    assert_eq!(code, Some(3), "{said}");
    let passed = "PASS        [0,3) signed by acme.example/log";
    assert_eq!(said.lines().collect::<Vec<_>>(), [passed, "UNSIGNED    [3,4) signed by nobody yet"]);

    desk.write("segment-0000000001-0000000000000003.jsonl", "");
    assert_eq!(run(&["receipts", "--key", &key, directory]).0, Some(0));
    let anchors = |desk: &Desk| {
        let export = desk.write("export", desk.export.text());
        run(&["receipts", "--key", &key, "--export", export.to_str().unwrap(), "--log-key", &key, directory])
    };
    let (code, said) = anchors(&desk);
    assert_eq!((code, said.lines().last()), (Some(3), Some("ANCHORED    [0,0) by digests in the log")));
    let mut log = Log::of(4);
    log.add(&format!("tenants/acme/clusters/edge/members/inside/receipts/0/sha256:{hash}"));
    desk.export = Export { checkpoints: vec![log.checkpoint()], entries: log.entries };
    let (code, said) = anchors(&desk);
    assert_eq!((code, said.lines().last()), (Some(0), Some("ANCHORED    [0,3) by digests in the log")));
    desk.export.entries.swap(0, 1);
    let (code, said) = anchors(&desk);
    assert!(code == Some(4) && said.contains("FAIL        the log: entry 0"), "{said}");

    // As lockd keeps them.
    fs::create_dir(desk.directory.path().join("digests")).unwrap();
    let lines = fs::read_to_string(desk.directory.path().join("digests.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    desk.write("digests/0000000000.note", line["note"].as_str().unwrap());
    fs::remove_file(desk.directory.path().join("digests.jsonl")).unwrap();
    assert_eq!(run(&["receipts", "--key", &key, directory]).0, Some(0));

    desk.write("segment-0000000000-0000000000000000.jsonl", "{\"sequence\":0}\n{\"sequence\":1}\n");
    let (code, said) = run(&["receipts", "--key", &key, directory]);
    assert_eq!(code, Some(4), "{said}");
    assert!(
        said.contains("FAIL        from 0: segment 0 has 2 whole lines, and its digest is of 3"),
        "{said}"
    );
    fs::remove_dir_all(desk.directory.path().join("digests")).unwrap();
    desk.write("digests.jsonl", "{}\n");
    let (code, said) = run(&["receipts", "--key", &key, directory]);
    assert!(code == Some(2) && said.contains("digests.jsonl: line 1 is not a digest"), "{said}");
}
