//! Who depends on whom, as the design draws it, and what may be named where.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// What each crate may depend on among ours; a crate that is not here does not belong to the house.
const ARROWS: [(&str, &[&str]); 19] = [
    ("zen-core", &[]),
    ("zen-rules", &["zen-core"]),
    ("zen-hmac", &["zen-core"]),
    ("zen-uring", &[]),
    ("zen-ebpf-abi", &[]),
    ("zen-ebpf", &["zen-ebpf-abi"]),
    ("zen-identity", &[]),
    ("zen-audit", &[]),
    ("zen-svid-faults", &[]),
    ("zen-control-api", &[]),
    ("zen-control", &["zen-audit", "zen-control-api", "zen-identity"]),
    ("zen-agent", &["zen-audit", "zen-control-api", "zen-identity", "zen-lock"]),
    ("zen-lock", &[]),
    ("zen-lockd", &["zen-audit", "zen-lock"]),
    (
        "zen-dataplane",
        &[
            "zen-audit",
            "zen-core",
            "zen-ebpf",
            "zen-hmac",
            "zen-identity",
            "zen-lock",
            "zen-rules",
            "zen-uring",
        ],
    ),
    ("zen-search", &[]),
    ("zen-ports", &[]),
    (
        "zen-perf",
        &["zen-control-api", "zen-core", "zen-hmac", "zen-lock", "zen-ports", "zen-search", "zen-uring"],
    ),
    ("zen-sim", &["zen-core", "zen-rules"]),
];
/// Who may use what others must not.
const RESERVED: [(&str, &[&str]); 5] = [
    ("age", &["zen-lockd"]),
    ("aya", &["zen-ebpf", "zen-ebpf-abi"]),
    ("io-uring", &["zen-uring"]),
    ("rustls", &["zen-dataplane", "zen-identity", "zen-perf"]),
    ("tokio", &["zen-agent", "zen-control", "zen-dataplane", "zen-perf"]),
];
/// Second implementations of TLS or cryptography that must not come in by a side door.
const UNWANTED: [&str; 8] =
    ["ring", "openssl", "openssl-sys", "native-tls", "boring", "mbedtls", "tokio-uring", "rustls-graviola"];
/// Crates that may hold unsafe code.
const UNSAFE: [&str; 4] = ["zen-ebpf-abi", "zen-hmac", "zen-lockd", "zen-uring"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn metadata() -> Metadata {
    let mut command = MetadataCommand::new();
    command.manifest_path(workspace().join("Cargo.toml"));
    command.other_options(["--locked".to_owned(), "--offline".to_owned()]).exec().unwrap()
}

/// Names of what a crate depends on to run, not to be tested.
fn dependencies(package: &Package) -> BTreeSet<String> {
    let built =
        package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
    built.map(|dependency| dependency.name.clone()).collect()
}

fn sources(package: &Package) -> Vec<(PathBuf, String)> {
    let mut folders = vec![package.manifest_path.parent().unwrap().join("src").into_std_path_buf()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{}", package.name);
    found
}

/// Lines without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split("//").next().unwrap_or_default())
}

#[test]
fn arrows_point_as_drawn() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let members = metadata.workspace_packages();
    let ours: BTreeSet<String> = members.iter().map(|package| package.name.to_string()).collect();
    assert_eq!(ours, allowed.keys().map(ToString::to_string).collect(), "the crates of the house");
    for package in members {
        let arrows: Vec<String> = dependencies(package).intersection(&ours).cloned().collect();
        for to in &arrows {
            assert!(allowed[package.name.as_str()].contains(&to.as_str()), "{} -> {to}", package.name);
        }
    }
}

#[test]
fn what_is_reserved_is_used_by_its_owner_only() {
    let metadata = metadata();
    for (name, owners) in RESERVED {
        let users: BTreeSet<String> = metadata
            .workspace_packages()
            .into_iter()
            .filter(|package| dependencies(package).contains(name))
            .map(|package| package.name.to_string())
            .collect();
        assert!(!users.is_empty(), "{name} is used");
        assert!(users.iter().all(|user| owners.contains(&user.as_str())), "{name} is used by {users:?}");
    }
}

#[test]
fn there_is_one_cryptography() {
    // Not cargo metadata: it lists optional crates of the lock file that no feature turns on.
    let arguments = ["tree", "--workspace", "--locked", "--offline", "--target", "all", "--prefix", "none"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(workspace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let all: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(all.contains("aws-lc-rs"));
    for name in UNWANTED {
        assert!(!all.contains(name), "{name} is in the graph; find it with cargo tree -i {name}");
    }
}

#[test]
fn unsafe_code_is_where_it_is_expected() {
    let metadata = metadata();
    let mut holders = BTreeSet::new();
    for package in metadata.workspace_packages() {
        for (path, text) in sources(package) {
            let is_unsafe = |line: &str| {
                line.split(|byte: char| !byte.is_alphanumeric() && byte != '_').any(|word| word == "unsafe")
            };
            if let Some(line) = code(&text).find(|line| is_unsafe(line)) {
                holders.insert(package.name.to_string());
                assert!(UNSAFE.contains(&package.name.as_str()), "{}: {line}", path.display());
                let is_of_lockd = package.name.as_str() == "zen-lockd";
                assert!(!is_of_lockd || path.ends_with("src/memory.rs"), "{}: {line}", path.display());
            }
        }
    }
    assert_eq!(holders, UNSAFE.into_iter().map(str::to_owned).collect(), "the check sees unsafe code");
}

#[test]
fn the_core_is_pure() {
    let metadata = metadata();
    let core = metadata.workspace_packages().into_iter().find(|package| package.name == "zen-core").unwrap();
    let root = core.manifest_path.parent().unwrap().join("src/lib.rs");
    let root = fs::read_to_string(root).unwrap();
    assert!(root.contains("#![no_std]") && root.contains("#![forbid(unsafe_code)]"), "{root}");
    for (path, text) in sources(core) {
        let is_test = path.components().any(|part| part.as_os_str() == "tests")
            || path.file_name().is_some_and(|name| name == "tests.rs");
        let production = text.split("mod tests {").next().unwrap_or_default();
        let impure = code(production)
            .find(|line| line.contains("std::") && !line.contains("#!["))
            .filter(|_| !is_test);
        assert_eq!(impure, None, "{}", path.display());
    }
}

/// Its clippy.toml forbids what reads a clock, a file or a socket; it must forbid it in all of the crate.
#[test]
fn the_rules_are_pure() {
    let metadata = metadata();
    let rules =
        metadata.workspace_packages().into_iter().find(|package| package.name == "zen-rules").unwrap();
    let folder = rules.manifest_path.parent().unwrap();
    let forbidden = fs::read_to_string(folder.join("clippy.toml")).unwrap();
    for name in
        ["std::time::Instant::now", "std::time::SystemTime::now", "std::fs::File", "std::net::TcpStream"]
    {
        assert!(forbidden.contains(name), "{name}");
    }
    let root = fs::read_to_string(folder.join("src/lib.rs")).unwrap();
    assert!(root.contains("#![forbid(unsafe_code)]"), "{root}");
    for (path, text) in sources(rules) {
        let allowed = code(&text).find(|line| line.contains("clippy::disallowed"));
        assert_eq!(allowed, None, "{}", path.display());
    }
}

#[test]
fn rustls_is_named_in_one_module_of_the_node() {
    let metadata = metadata();
    let node =
        metadata.workspace_packages().into_iter().find(|package| package.name == "zen-dataplane").unwrap();
    let users: Vec<String> = sources(node)
        .into_iter()
        .filter(|(_, text)| code(text).any(|line| line.contains("rustls::") || line.contains("use rustls;")))
        .map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(users, ["tls.rs", "outgoing.rs"]);
}
