//! The page says what the program does: problems, commands, bounds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use zen_control_api::ProblemType;

/// Parts that have a page of their own have their bounds there.
fn pages() -> String {
    let read = |name: &str| {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)).unwrap()
    };
    ["control-plane.md", "people.md", "audit.md", "dashboard.md"].map(read).concat()
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/control-plane.md")).unwrap()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn each_bound_is_on_the_page() {
    let (page, mut found) = (pages(), Vec::new());
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let mut count = 0;
    for path in found {
        for line in fs::read_to_string(&path).unwrap().lines() {
            let Some((_, rest)) = line.split_once("const ") else { continue };
            let name = rest.split(':').next().unwrap();
            if name.ends_with("_MAX") || name.ends_with("_TIMEOUT") {
                assert!(page.contains(&format!("`{name}`")), "{name} of {}", path.display());
                count += 1;
            }
        }
    }
    assert!(count > 15, "the check sees bounds: {count}");
}

#[test]
fn each_problem_is_on_the_page() {
    use ProblemType as P;
    let page = page();
    for kind in [
        P::Malformed,
        P::Forbidden,
        P::NotFound,
        P::TooLarge,
        P::NonceRefused,
        P::ProofRefused,
        P::CsrRefused,
        P::BundleExpired,
        P::BundleConsumed,
        P::RecoveryRefused,
        P::CloneSuspected,
        P::Conflict,
        P::Busy,
        P::Internal,
    ] {
        let name = serde_json::to_value(kind).unwrap();
        let row = format!("| `{}` | {} |", name.as_str().unwrap(), kind.status());
        assert!(page.contains(&row), "{row}");
    }
}

#[test]
fn each_command_is_on_the_page() {
    let output = Command::new(env!("CARGO_BIN_EXE_zen-control")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let names: Vec<&str> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 9, "{names:?}");
    for name in names {
        assert!(page().contains(&format!("`{name} ")), "{name}");
    }
}
