//! The program as an auditor runs it: what it prints, and its exit codes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use support::{Log, log_key, witness_key};
use tempfile::TempDir;
use zen_audit::{Export, SigningKey};

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
