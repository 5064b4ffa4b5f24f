//! The real thing: an ingester and an egress, with a target.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::PERF;

/// A side of a lab that is stopped with the test.
struct Side(Child);

impl Drop for Side {
    fn drop(&mut self) {
        if let Ok(id) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

/// Starts a side and waits until it says that it is there.
fn start(side: &str, directory: &Path) -> Side {
    let node = Path::new(PERF).with_file_name("zen-dataplane");
    assert!(node.exists(), "{} is missing: cargo build -p zen-dataplane", node.display());
    let mut command = Command::new(PERF);
    command.args(["machines", side, "--dir"]).arg(directory).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    output.read_line(&mut line).expect("text");
    let side = Side(child);
    assert!(!line.is_empty(), "the side has ended; its log is in {}", directory.display());
    side
}

#[test]
fn a_node_takes_each_event_once_and_refuses_what_it_must() {
    let directory = tempfile::tempdir().expect("a directory");
    let lab = directory.path().join("lab");
    let mut make = Command::new(PERF);
    let made =
        make.args(["machines", "make", "--edge", "127.0.0.1", "--dir"]).arg(&lab).output().expect("it runs");
    assert!(made.status.success(), "{made:?}");
    let place = String::from_utf8(made.stdout).expect("text");
    let _inside = start("inside", &lab);
    let _edge = start("edge", &lab);
    let (json, record) = (directory.path().join("load.json"), directory.path().join("record.tsv"));
    let load = |words: &str| {
        let mut command = Command::new(PERF);
        command
            .arg("load")
            .args(place.split_whitespace())
            .arg("--json")
            .arg(&json)
            .arg("--record")
            .arg(&record);
        command.args(["--warm-up-seconds", "0", "--seconds", "60", "--quiet"]).args(words.split(' '));
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        let load: serde_json::Value =
            serde_json::from_slice(&fs::read(&json).expect("a result")).expect("JSON");
        let text = fs::read_to_string(&record).expect("a record");
        let ids: HashSet<String> =
            text.lines().map(|line| line.split('\t').nth(1).expect("an id").to_owned()).collect();
        assert_eq!(ids.len(), text.lines().count(), "each id once");
        (load, ids.len() as u64)
    };
    let (mixed, ids) = load("--connections 8 --events-max 1000 --duplicates 10 --bad-signatures 5 --junk 1");
    let count = |name: &str| mixed[name].as_u64().expect("a count");
    assert_eq!((count("sent"), count("failed"), count("wrongly_accepted")), (1000, 0, 0), "{mixed}");
    assert_eq!(
        (count("duplicates"), count("accepted")),
        (count("repeated"), ids + count("repeated")),
        "{mixed}"
    );
    assert_eq!(mixed["refused"]["401"].as_u64(), Some(count("expected_refusals")), "{mixed}");
    assert_eq!(mixed["refused"].as_object().map(serde_json::Map::len), Some(1), "{mixed}");
    assert!(count("junk") > 0 && count("repeated") > 0, "{mixed}");

    let (fresh, ids) = load("--connections 4 --events-max 100 --new-connections");
    assert_eq!((fresh["accepted"].as_u64(), ids), (Some(100), 100), "{fresh}");
    assert_eq!(fresh["connects"].as_u64(), Some(101), "{fresh}");
    assert!(fresh["resumed"].as_u64() >= Some(80), "{fresh}");
    let (full, _) = load("--connections 4 --events-max 100 --new-connections --no-resumption");
    assert_eq!(full["resumed"].as_u64(), Some(0), "{full}");
}
