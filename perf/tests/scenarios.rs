//! The smallest whole run: `zen-perf scenarios` on real nodes, and what it refuses, with the words that help.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn scenarios(arguments: &[&str], directory: &Path) -> Output {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Command::new(env!("CARGO_BIN_EXE_zen-perf"))
        .arg("scenarios")
        .args(arguments)
        .arg("--dir")
        .arg(directory.join("lab"))
        .arg("--out")
        .arg(directory.join("out"))
        .current_dir(repository)
        .output()
        .unwrap()
}

/// Beside this package's program, if the workspace has been built.
fn node() -> Option<PathBuf> {
    let node = Path::new(env!("CARGO_BIN_EXE_zen-perf")).with_file_name("zen-dataplane");
    node.exists().then_some(node)
}

#[test]
fn what_nobody_knows_is_refused_with_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let node = env!("CARGO_BIN_EXE_zen-perf");
    for (arguments, words) in [
        (
            &["--quick", "--only", "nonsense"][..],
            "no scenario is called nonsense; there are: dead-target, duplicates",
        ),
        (
            &["--quick", "--systems", "apache"],
            "no system is called apache; there are: zen, zen-epoll, haproxy",
        ),
        (&["--quick", "--scenarios", "/nowhere"], "/nowhere"),
        (&["--quick", "--full"], "cannot be used with"),
        (&[], "--quick|--full"),
    ] {
        let arguments = [arguments, &["--node", node]].concat();
        let output = scenarios(&arguments, directory.path());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{arguments:?}: {said}");
    }
    assert!(!directory.path().join("out").exists(), "nothing was measured");
}

#[test]
fn a_tiny_run_leaves_a_result_a_page_and_a_line_for_each_goal() {
    let Some(node) = node() else { panic!("build the node first: cargo build -p zen-dataplane") };
    let directory = tempfile::tempdir().unwrap();
    let arguments = [
        "--quick",
        "--only",
        "workers,new-connections",
        "--systems",
        "zen",
        "--rounds",
        "1",
        "--seconds",
        "1",
    ];
    let output = scenarios(&[&arguments[..], &["--node", node.to_str().unwrap()]].concat(), directory.path());
    let (said, complaints) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complaints}");

    let result = std::fs::read(directory.path().join("out/result.json")).unwrap();
    let result: serde_json::Value = serde_json::from_slice(&result).unwrap();
    let row =
        result["rows"].as_array().unwrap().iter().find(|row| row["scenario"] == "new-connections").unwrap();
    let load = &row["rounds"][0]["load"];
    let (accepted, connects) = (load["accepted"].as_u64().unwrap(), load["connects"].as_u64().unwrap());
    assert!(accepted > 0 && connects >= accepted, "a connection for each event: {load}");
    assert_eq!(load["resumed"], 0, "a full handshake for each event: {load}");
    assert_eq!(load["failed"], 0, "{load}");
    assert!(row["rounds"][0]["cpu_us"]["first"].as_f64().unwrap() > 0.0, "{row}");
    assert!(directory.path().join("out/report.html").exists(), "{said}");

    // No peer took part, so both goals are missed, and the reason is above them.
    let goal = "goal new-connections-haproxy: not measured (wanted >= 2.00 ";
    assert!(said.lines().any(|line| line.starts_with(goal) && line.ends_with(" missed")), "{said}");
    assert!(said.contains("HAProxy has no figure in scenario new-connections"), "{said}");
    assert!(said.lines().last().unwrap().starts_with("goal "), "it ends with the goals: {said}");
}
