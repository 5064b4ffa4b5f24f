//! `docs/secrets.md` says what the code does: configuration keys, commands, metrics, verdicts, bounds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;

const PAGE: &str = include_str!("../../../docs/secrets.md");
const CONFIG: &str = include_str!("../src/daemon/config.rs");
const METRICS: &str = include_str!("../src/daemon/metrics.rs");
const RECEIPTS: &str = include_str!("../src/receipts/mod.rs");

/// Names of the fields of a struct.
fn fields(source: &str, name: &str) -> Vec<String> {
    let body = source.split(&format!("struct {name} {{\n")).nth(1).unwrap().split("\n}").next().unwrap();
    let names = body.lines().map(str::trim).filter(|line| !line.starts_with(['#', '/']));
    let names = names.filter_map(|line| line.trim_start_matches("pub ").split_once(':'));
    names.map(|(name, _)| name.to_owned()).collect()
}

fn named(text: &str) -> bool {
    PAGE.contains(&format!("`{text}`"))
}

#[test]
fn each_key_of_the_configuration_has_its_row() {
    let tables = [("RawSecrets", "secrets."), ("RawReceipts", "receipts."), ("RawMemory", "memory.")];
    let nested = tables.iter().flat_map(|(name, prefix)| {
        fields(CONFIG, name).into_iter().map(move |field| format!("{prefix}{field}"))
    });
    let lists = ["grants", "signed"];
    let top = fields(CONFIG, "Raw").into_iter().filter(|field| {
        !["secrets", "receipts", "memory"].contains(&field.as_str()) && !lists.contains(&field.as_str())
    });
    let keys: Vec<String> = nested.chain(top).collect();
    assert!(keys.len() > 6, "{keys:?}");
    for key in keys {
        assert!(PAGE.contains(&format!("| `{key}` |")), "{key} has no row");
    }
    for key in lists.into_iter().map(|list| format!("[[{list}]]")).chain(fields(CONFIG, "RawGrant")) {
        assert!(named(&key), "{key} is not named");
    }
}

#[test]
fn the_example_is_a_configuration() {
    let example = PAGE.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lockd.toml");
    // Users and programs of the example need not be here; keys, patterns and authors are what is checked.
    let own = env!("CARGO_BIN_EXE_zen-lockd");
    let example = example
        .replace("/etc/zen-lockd", directory.path().to_str().unwrap())
        .replace("\"zen\"", "\"0\"")
        .replace("/usr/bin/zen-dataplane", own);
    std::fs::write(&file, &example).unwrap();
    std::fs::create_dir(directory.path().join("sealed")).unwrap();
    let output = Command::new(own).args(["run", "--config"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // All that is missing is the key, which is read after the file and before its policy.
    assert!(said.contains("key_file: ") && said.contains("own.key"), "{said}");
    let made = Command::new(own).args(["keygen", "--out"]).arg(directory.path().join("own.key")).status();
    assert!(made.unwrap().success());
    let output = Command::new(own).args(["run", "--config"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/run/zen-lockd") || said.contains("/var/lib/zen-lockd"), "{said}");
}

#[test]
fn each_command_metric_and_verdict_is_named() {
    let help = Command::new(env!("CARGO_BIN_EXE_zen-lockd")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    let commands: BTreeSet<&str> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() >= 9, "{commands:?}");
    for command in commands {
        assert!(PAGE.contains(&format!("| `{command}")), "{command} has no row");
    }
    let metrics: BTreeSet<&str> = METRICS
        .split(|byte: char| !byte.is_ascii_alphanumeric() && byte != '_')
        .filter(|word| word.starts_with("zen_lockd_"))
        .map(|word| word.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count"))
        .collect();
    assert_eq!(metrics.len(), 4, "{metrics:?}");
    for metric in metrics {
        assert!(PAGE.contains(&format!("| `{metric}")), "{metric} has no row");
    }
    let verdicts = RECEIPTS.split("enum Verdict {").nth(1).unwrap().split('}').next().unwrap();
    let verdicts =
        verdicts.lines().map(str::trim).filter(|line| line.ends_with(',') && !line.starts_with("//"));
    for verdict in verdicts {
        assert!(named(&verdict.trim_end_matches(',').to_lowercase()), "{verdict}");
    }
    for field in fields(RECEIPTS, "Receipt").into_iter().chain(fields(RECEIPTS, "Act")) {
        assert!(named(&field), "{field} of a receipt");
    }
}

#[test]
fn bounds_are_those_of_the_code() {
    for text in [
        format!("`value` | the secret, base64 of 1 to {} bytes", "65,536"),
        format!(
            "{} KiB; {} bytes",
            zen_lock::VALUE_BYTES_MAX / 1024,
            thousands(zen_lockd::vault::ENVELOPE_BYTES_MAX)
        ),
        format!("64; {}", zen_lockd::vault::IDENTITIES_MAX),
    ] {
        assert!(PAGE.contains(&text), "{text}");
    }
}

fn thousands(number: usize) -> String {
    format!("{},{:03}", number / 1000, number % 1000)
}
