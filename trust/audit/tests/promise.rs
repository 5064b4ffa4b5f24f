//! docs/security-model.md has a row for each sentence of the promise, and docs/threat-model.md one for each attack: what they name is there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const SENTENCES: &str = include_str!("fixtures/promise.txt");
/// Words before a path that is named in a page.
const ROOTS: [&str; 9] = [
    "controlplane",
    "controlplane-agent",
    "dataplane",
    "deploy",
    "ebpf",
    "lockd",
    "perf",
    "scripts",
    "trust",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// Cells of the table whose head begins with `first`; bars in a cell are written `\|`.
fn rows(page: &str, first: &str) -> Vec<Vec<String>> {
    let head = format!("| {first} |");
    let table = page.lines().skip_while(|line| !line.starts_with(&head)).skip(2);
    let table = table.take_while(|line| line.starts_with('|'));
    let cells = |line: &str| {
        let line = line.trim_matches('|').replace("\\|", "\u{1}");
        line.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
    };
    table.map(cells).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Directories of the workspace's packages.
fn packages() -> BTreeMap<String, PathBuf> {
    let manifest = page("Cargo.toml");
    let members = manifest.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    let members = quoted_by(members, '"').map(|member| root().join(member));
    let named = members.map(|directory| {
        let manifest = fs::read_to_string(directory.join("Cargo.toml")).unwrap();
        let name = manifest.lines().find(|line| line.starts_with("name = ")).unwrap();
        (quoted_by(name, '"').next().unwrap().to_owned(), directory)
    });
    named.collect()
}

fn quoted_by(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

/// All text of the Rust files at a place: a file, or everything below a directory.
fn sources(place: &Path) -> String {
    if place.is_file() {
        return fs::read_to_string(place).unwrap();
    }
    let mut text = String::new();
    for entry in fs::read_dir(place).unwrap_or_else(|error| panic!("{}: {error}", place.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "rs") {
            text += &sources(&path);
        }
    }
    text
}

/// Panics unless a test command runs a test that is there: `cargo nextest run -p PACKAGE [--test NAME] [TEST]`.
fn check_test_command(command: &str, packages: &BTreeMap<String, PathBuf>) {
    let mut words = command.strip_prefix("cargo nextest run ").unwrap().split(' ');
    let (mut place, mut filter) = (None, None);
    while let Some(word) = words.next() {
        match word {
            "-p" => {
                let directory = &packages.get(words.next().unwrap()).unwrap_or_else(|| panic!("{command}"));
                place = Some(directory.join("src"));
            }
            "--test" => {
                let tests = place.unwrap().with_file_name("tests");
                let name = words.next().unwrap();
                let file = tests.join(format!("{name}.rs"));
                place = Some(if file.is_file() { file } else { tests.join(name) });
            }
            word => assert_eq!(filter.replace(word), None, "{command}"),
        }
    }
    let text = sources(&place.unwrap());
    let name = filter.unwrap_or("").trim_end_matches("::").rsplit("::").next().unwrap();
    let is_there = text.lines().any(|line| {
        let line = line.trim_start().trim_start_matches("pub ").trim_start_matches("async ");
        (line.starts_with("fn ") || line.starts_with("mod ")) && line.contains(name)
    });
    let has_tests = text.contains("#[test]") || text.contains("#[tokio::test");
    assert!(is_there && has_tests, "no test: {command}");
}

/// Panics unless every command, file and directory that is named in a text is there.
fn check_named(text: &str, packages: &BTreeMap<String, PathBuf>) {
    for quote in quoted(text) {
        if quote.starts_with("cargo nextest run ") {
            check_test_command(quote, packages);
        } else if let Some(script) = quote.strip_prefix("./") {
            assert!(root().join(script.split(' ').next().unwrap()).is_file(), "{quote}");
            if let Some(only) = script.strip_prefix("scripts/browser --only ") {
                let test = format!("controlplane/server/browser/tests/{only}.test.js");
                assert!(root().join(test).is_file(), "{quote}");
            }
        } else if quote.split_once('/').is_some_and(|(first, _)| ROOTS.contains(&first)) {
            assert!(root().join(quote).exists(), "{quote}");
        }
    }
}

#[test]
fn every_sentence_of_the_promise_has_its_row_and_a_command() {
    let (page, packages) = (page("docs/security-model.md"), packages());
    let rows = rows(&page, "the promise says");
    let said: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(said, SENTENCES.lines().collect::<Vec<_>>(), "sentences in their order");
    for row in &rows {
        assert_eq!(row.len(), 4, "{row:?}");
        assert!(row[..3].iter().all(|cell| !cell.is_empty()), "{row:?}");
        let is_shown = quoted(&row[2]).any(|quote| quote.starts_with("cargo ") || quote.starts_with("./"));
        assert!(is_shown || row[2] == "nothing yet", "a command, or nothing yet: {row:?}");
        assert_eq!(row[2] == "nothing yet", row[1].starts_with("**Not"), "{row:?}");
        check_named(&row.join(" "), &packages);
    }
}

#[test]
fn the_promises_of_the_page_name_files_that_are_there() {
    let (page, packages) = (page("docs/security-model.md"), packages());
    let rows = rows(&page, "promise");
    assert!(rows.len() > 30, "{}", rows.len());
    for row in rows {
        check_named(&row.join(" "), &packages);
    }
}

#[test]
fn every_attack_on_the_log_is_caught_by_somebody_or_said_not_to_be() {
    let page = page("docs/threat-model.md");
    let rows = rows(&page, "attack on the log");
    assert!(rows.len() >= 12, "{} rows", rows.len());
    for row in &rows {
        let [attack, who, how, test] = row.as_slice() else { panic!("{row:?}") };
        assert!(!attack.is_empty() && !who.is_empty() && !how.is_empty(), "{row:?}");
        let tests: Vec<&str> = quoted(test).collect();
        assert!(!tests.is_empty(), "{row:?}");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("FILE::TEST: {test}"));
            let text =
                fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{test}: {error}"));
            assert!(text.contains(&format!("fn {name}()")), "{test}");
        }
    }
}

#[test]
fn the_threat_model_names_what_is_there() {
    let (page, packages) = (page("docs/threat-model.md"), packages());
    for (first, least) in [("asset", 8), ("actor", 10), ("actor and act", 20), ("not protected", 8)] {
        let rows = rows(&page, first);
        assert!(rows.len() >= least, "{first}: {}", rows.len());
        for row in rows {
            check_named(&row.join(" "), &packages);
        }
    }
}

#[test]
fn the_checks_see_what_is_missing() {
    let packages = packages();
    assert!(packages.len() > 15 && packages.contains_key("zen-audit"), "{packages:?}");
    for bad in [
        "`cargo nextest run -p zen-nothing`",
        "`cargo nextest run -p zen-audit --test nothing`",
        "`cargo nextest run -p zen-audit --test promise no_such_test_is_here`",
        "`trust/nothing.rs`",
        "`./scripts/nothing`",
        "`./scripts/browser --only nothing`",
        "`cargo nextest run -p zen-audit nothing_of_this_name::`",
    ] {
        assert!(std::panic::catch_unwind(|| check_named(bad, &packages)).is_err(), "{bad}");
    }
    check_named("`cargo nextest run -p zen-audit --test promise the_checks`, `trust/audit`", &packages);
    let table = "| a | b |\n|---|---|\n| x \\| y | z |\n\n| c |";
    assert_eq!(rows(table, "a"), [["x | y", "z"]]);
}
