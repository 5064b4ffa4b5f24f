//! docs/audit.md says what the code does: bounds, fields, exit codes, and a test for each attack.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;

use zen_audit::{Entry, NOTE_BYTES_MAX, REQUEST_ID_BYTES_MAX, SIGNATURES_MAX, SIZE_MAX, TEXT_BYTES_MAX};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn page() -> String {
    read("../../docs/audit.md")
}

#[test]
fn bounds_are_those_of_the_code() {
    assert_eq!((NOTE_BYTES_MAX, SIZE_MAX), (64 * 1024, 1 << 62));
    let said = format!(
        "a note has at most 64 KiB and {SIGNATURES_MAX} signatures, a text of an entry {TEXT_BYTES_MAX} bytes, its request id {REQUEST_ID_BYTES_MAX}, a log 2^62 entries."
    );
    assert!(page().contains(&said), "{said}");
}

#[test]
fn fields_are_those_of_an_entry() {
    let entry = support::entry(0, "clusters/edge", Entry::before_the_first()).bytes().unwrap();
    let entry: serde_json::Value = serde_json::from_slice(&entry).unwrap();
    let page = page();
    for field in entry.as_object().unwrap().keys() {
        let line = page.lines().find(|line| line.starts_with("| `") && line.contains(&format!("`{field}`")));
        assert!(line.is_some(), "{field} has no line");
    }
}

#[test]
fn every_attack_has_its_test() {
    let tests = ["tests/attacks.rs", "tests/notes.rs"].map(read).concat();
    let page = page();
    let rows: Vec<&str> = page.lines().skip_while(|line| !line.starts_with("| attack |")).skip(2).collect();
    let rows: Vec<&str> = rows.into_iter().take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 8, "{} rows", rows.len());
    for row in rows {
        let test = row.rsplit('|').nth(1).unwrap().trim();
        let is_there = test == "the same" || tests.contains(&format!("fn {}()", test.trim_matches('`')));
        assert!(is_there, "{row}");
    }
}
