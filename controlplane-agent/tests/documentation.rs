//! `docs/agent.md` says what the code does: configuration keys, commands, metrics, bounds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;

use zen_agent::Config;
use zen_agent::core::{CLOCK_REFUSED_MS, CLOCK_WARNED_MS, PLACEHOLDER, RETRY_MAX_MS};

const PAGE: &str = include_str!("../../docs/agent.md");
const CONFIG: &str = include_str!("../src/config.rs");
const METRICS: &str = include_str!("../src/metrics.rs");

/// Names of the fields of a struct.
fn fields(name: &str) -> Vec<String> {
    let body = CONFIG.split(&format!("struct {name} {{\n")).nth(1).unwrap().split("\n}").next().unwrap();
    let names = body.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    names.filter_map(|line| line.split_once(':')).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn each_key_of_the_configuration_has_its_row() {
    let nested = [("RawLockd", "lockd"), ("RawMember", "members")];
    let mut keys: Vec<String> =
        fields("Raw").into_iter().filter(|key| !["lockd", "members"].contains(&key.as_str())).collect();
    for (name, table) in nested {
        keys.extend(fields(name).into_iter().map(|key| format!("{table}.{key}")));
    }
    assert_eq!(keys.len(), 10, "{keys:?}");
    for key in keys {
        assert!(PAGE.contains(&format!("| `{key}` |")), "{key} has no row");
    }
}

#[test]
fn the_example_is_a_configuration() {
    let examples: Vec<&str> =
        PAGE.split("```toml\n").skip(1).map(|text| text.split("```").next().unwrap()).collect();
    let example = examples.iter().find(|text| text.contains("state_dir")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("zen-agent.toml");
    std::fs::write(&file, example).unwrap();
    let config = Config::read(&file).unwrap();
    assert_eq!(config.state_dir.to_str(), Some("/var/lib/zen-agent"));
    let node = examples.iter().find(|text| text.contains("[identity]")).unwrap();
    assert!(node.contains(PLACEHOLDER));
}

#[test]
fn each_command_and_metric_is_named() {
    let help = Command::new(env!("CARGO_BIN_EXE_zen-agent")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands = commands.lines().filter_map(|line| line.split_whitespace().next());
    let commands: BTreeSet<&str> = commands.filter(|command| *command != "help").collect();
    assert_eq!(commands, BTreeSet::from(["enroll", "run", "status"]));
    for command in commands {
        assert!(PAGE.contains(&format!("| `{command} ")), "{command} has no row");
    }
    let metrics: BTreeSet<&str> = METRICS
        .split(|byte: char| !byte.is_ascii_alphanumeric() && byte != '_')
        .filter(|word| word.starts_with("zen_agent_"))
        .filter(|word| *word != "zen_agent_")
        .collect();
    assert_eq!(metrics.len(), 11, "{metrics:?}");
    for metric in metrics {
        assert!(PAGE.contains(&format!("| `{metric}")), "{metric} has no row");
    }
}

#[test]
fn bounds_are_those_of_the_code() {
    for text in [
        format!("over {} s off is worth a warning", CLOCK_WARNED_MS / 1000),
        format!("over {} s off nobody enrolls", CLOCK_REFUSED_MS / 1000),
        format!("up to {} s", RETRY_MAX_MS / 1000),
    ] {
        assert!(PAGE.contains(&text), "{text}");
    }
}
