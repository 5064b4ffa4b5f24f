//! The program as an operator has it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use zen_control_api::EnrollmentBundle;

fn run(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zen-control")).args(arguments).current_dir(directory).output().unwrap()
}

fn good(directory: &Path, arguments: &[&str]) -> String {
    let output = run(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn bad(directory: &Path, arguments: &[&str]) -> String {
    let output = run(directory, arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

const INIT: [&str; 7] = ["init", "--dir", "state", "--trust-domain", "acme.example", "--tenant", "acme"];
const BUNDLE: [&str; 9] = [
    "bundle",
    "create",
    "--dir",
    "state",
    "--cluster",
    "edge",
    "--url",
    "https://control.example:8444",
    "--out",
];

fn with<'a>(first: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [first, more].concat()
}

#[test]
fn commands_do_what_their_help_says() {
    let files = tempfile::tempdir().unwrap();
    let at = files.path();
    good(at, &INIT);
    assert!(bad(at, &INIT).contains("exists already"));
    good(at, &with(&BUNDLE, &["bundle.json"]));
    assert!(bad(at, &with(&BUNDLE, &["bundle.json"])).contains("exists"), "never over another file");
    let bundle = EnrollmentBundle::decode(&fs::read(at.join("bundle.json")).unwrap()).unwrap();
    let id = bundle.bundle_id.to_string();
    let list = good(at, &["bundle", "list", "--dir", "state"]);
    assert!(list.contains(&format!("{id} edge open")) && list.lines().count() == 1, "{list}");
    good(at, &["bundle", "revoke", "--dir", "state", &id]);
    assert!(good(at, &["bundle", "list", "--dir", "state"]).contains("revoked"));

    fs::write(
        at.join("edge.json"),
        r#"{"members": {"a": {"spiffe_id": "spiffe://acme.example/edge/a", "node": "[admin]"}}, "secrets": {"n/s/k": "c2VhbGVk"}}"#,
    )
    .unwrap();
    let set = ["configuration", "set", "--dir", "state", "--cluster", "edge", "edge.json"];
    assert_eq!(good(at, &set), "edge has version 1\n");
    good(at, &["deny", "--dir", "state", "--spiffe-id", "spiffe://acme.example/edge/a", "--reason", "left"]);
    good(at, &["deny", "--dir", "state", "--serial", "00aB", "--until", "99999999999999"]);
    good(at, &["deny", "--dir", "state", "--spki-sha256", &"ab".repeat(32)]);
    good(at, &["allow", "--dir", "state", "--serial", "AB"]);
    assert_eq!(good(at, &set), "edge has version 6\n");
    let status = good(at, &["status", "--dir", "state"]);
    assert_eq!(status, "edge: version 6, no agent\n");
    good(at, &["backup", "--dir", "state", "--out", "copy.db"]);
    assert!(fs::metadata(at.join("copy.db")).unwrap().len() > 4096);
    assert!(good(at, &["authority", "renew", "--dir", "state"]).is_empty(), "the next one waits");

    fs::rename(at.join("state/root.key"), at.join("offline.key")).unwrap();
    assert_eq!(good(at, &set), "edge has version 7\n", "the root's key is needed for nothing else");
    good(at, &with(&BUNDLE, &["another.json"]));
    assert!(good(at, &["authority", "renew", "--dir", "state"]).is_empty(), "it is prepared already");
}

#[test]
fn cas_and_recovery_are_looked_after_by_commands() {
    let files = tempfile::tempdir().unwrap();
    let at = files.path();
    good(at, &INIT);
    good(at, &with(&BUNDLE, &["bundle.json"]));
    let authority = |command: &str| good(at, &["authority", command, "--dir", "state"]);
    assert_eq!(
        authority("status"),
        "root 1: 1824 days left\nissuing CA 1 under root 1: signs, 89 days left\n"
    );
    assert!(
        bad(at, &["authority", "retire-root", "--dir", "state"]).contains("first: zen-control authority")
    );
    fs::rename(at.join("state/root.key"), at.join("offline.key")).unwrap();
    assert!(bad(at, &["authority", "renew", "--dir", "state"]).contains("root.key"));
    let renew = ["authority", "renew", "--dir", "state", "--root-key"];
    assert!(bad(at, &with(&renew, &["state/issuing.key"])).contains("not that of root 1"));
    assert!(good(at, &with(&renew, &["offline.key"])).is_empty());
    assert!(authority("status").contains("issuing CA 2 under root 1: is prepared"));
    assert!(!at.join("state/root.key").exists(), "it was read, and not kept");

    authority("rotate-root");
    let status = authority("status");
    assert!(
        status.contains("root 2: ") && status.contains("issuing CA 3 under root 2: is prepared"),
        "{status}"
    );
    assert!(status.contains("the second root waits until everybody knows it"), "{status}");
    assert!(good(at, &["status", "--dir", "state"]).contains("the second root waits"));
    assert!(bad(at, &["authority", "rotate-root", "--dir", "state"]).contains("a second root is there"));
    assert!(bad(at, &["authority", "retire-root", "--dir", "state"]).contains("signs yet"));
    good(at, &["authority", "rotate-root", "--dir", "state", "--force"]);
    assert!(authority("status").contains("issuing CA 3 under root 2: signs"));
    good(at, &with(&BUNDLE, &["both.json"]));
    let bundle = EnrollmentBundle::decode(&fs::read(at.join("both.json")).unwrap()).unwrap();
    assert_eq!(bundle.ca_pins.len(), 2);
    assert!(authority("retire-root").contains("the old root is gone; 0 good"));
    assert_eq!(authority("status").lines().count(), 2);
    assert!(!at.join("state/root.pem").exists() && at.join("state/root-2.pem").exists());

    let recovery = ["recovery", "--dir", "state", "--cluster", "edge"];
    assert_eq!(good(at, &recovery), "edge: recovery once, used 0 times\n");
    assert_eq!(good(at, &with(&recovery, &["--policy", "off"])), "edge: recovery off, used 0 times\n");
    assert_eq!(good(at, &with(&recovery, &["--reset"])), "edge: recovery off, used 0 times\n");
    assert!(bad(at, &with(&recovery, &["--policy", "always"])).contains("off, once or auto"));
    assert!(bad(at, &["recovery", "--dir", "state", "--cluster", "core"]).contains("no such cluster"));
}

#[test]
fn mistakes_are_said_with_their_remedy() {
    let files = tempfile::tempdir().unwrap();
    let at = files.path();
    good(at, &INIT);
    fs::write(at.join("more.json"), r#"{"members": {}, "version": 7}"#).unwrap();
    let url = ["--url", "http://control.example", "--out", "b"];
    for (arguments, said) in [
        (
            &["bundle", "create", "--dir", "state", "--cluster", "a/b", "--url", "https://c:1", "--out", "b"]
                [..],
            "cluster",
        ),
        (&with(&BUNDLE[..6], &url), "control_plane"),
        (&with(&BUNDLE, &["b", "--ttl", "25h"]), "1m to 24h"),
        (&with(&BUNDLE, &["b", "--ttl", "1s"]), "1m to 24h"),
        (&with(&BUNDLE, &["b", "--ttl", "h"]), "as in 1h"),
        (&["bundle", "revoke", "--dir", "state", &"0".repeat(32)], "no bundle"),
        (&["bundle", "revoke", "--dir", "state", "x"], "32 digits"),
        (&["configuration", "set", "--dir", "state", "--cluster", "edge", "more.json"], "unknown field"),
        (&["configuration", "set", "--dir", "state", "--cluster", "..", "more.json"], "unknown field"),
        (&["deny", "--dir", "state", "--serial", "ab", "--until", "1"], "over already"),
        (&["deny", "--dir", "state"], "required"),
        (&["deny", "--dir", "state", "--serial", "abc"], "hex"),
        (&["deny", "--dir", "state", "--spki-sha256", "ab"], "64 digits"),
        (&["deny", "--dir", "state", "--spiffe-id", "https://a"], "spiffe://"),
        (&["allow", "--dir", "state", "--serial", "ab"], "nothing denies"),
        (&["status", "--dir", "elsewhere"], "elsewhere"),
        (&["init", "--dir", "x", "--trust-domain", "Acme", "--tenant", "a"], "trust domain"),
        (&["init", "--dir", "x", "--trust-domain", "acme", "--tenant", "../a"], "tenant"),
    ] {
        let error = bad(at, arguments);
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
    assert!(!at.join("b").exists() && !at.join("x").exists());
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(at.join("state"), open).unwrap();
    assert!(bad(at, &["status", "--dir", "state"]).contains("chmod 0700"));
}
