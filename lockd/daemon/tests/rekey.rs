//! The command line over many sealed values: seal, check, rekey, rotate-key; and a daemon that answers meanwhile.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Vault, envelope, grant, name, run, said};
use zen_lock::{Client, Listener};
use zen_lockd::vault::{Envelope, Identities, Recipients, Scope, seal};
use zeroize::Zeroizing;

/// Requests a second while everything is sealed anew.
const REQUESTS_PER_S: u64 = 1000;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a command that must succeed; what it said.
fn good(arguments: &[&str]) -> String {
    let output = run(arguments, b"");
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

fn bad(arguments: &[&str]) -> String {
    let output = run(arguments, b"");
    assert!(!output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

/// `zen-lockd rekey` of a place, with an own key and more options.
fn rekey<'a>(key: &'a Path, more: &[&'a str], place: &'a Path) -> Vec<&'a str> {
    [&["rekey", "--identity", text(key)], more, &[text(place)]].concat()
}

/// A second key, in a file of its own; its recipient.
fn other_key(vault: &Vault) -> String {
    good(&["keygen", "--out", text(&vault.path("other.key"))]).trim().to_owned()
}

#[test]
fn recipients_come_and_go_and_values_stay() {
    let vault = Vault::new();
    let (sealed, own, other) = (vault.path("sealed"), vault.path("own.key"), other_key(&vault));
    let own_recipient = vault.keys.recipients().remove(0);
    vault.seal("edge/webhooks/github", b"one");
    vault.seal("core/keys/link", b"two");
    let before = fs::read(vault.sealed("edge/webhooks/github")).unwrap();
    let dry = good(&rekey(&own, &["--add", &other, "--dry-run"], &sealed));
    assert!(dry.contains("2 would be sealed anew, 0 stragglers"), "{dry}");
    assert_eq!(fs::read(vault.sealed("edge/webhooks/github")).unwrap(), before);
    good(&rekey(&own, &["--add", &other], &sealed));
    let open = |key: &Path| {
        let file = vault.sealed("edge/webhooks/github");
        run(&["open", "--identity", text(key), "--place", "edge/webhooks/github", text(&file)], b"")
    };
    assert_eq!(
        (said(&open(&own)), said(&open(&vault.path("other.key")))),
        ("one".to_owned(), "one".to_owned())
    );
    let said_then = good(&rekey(&own, &["--remove", &own_recipient], &sealed));
    assert!(said_then.contains("can still open older copies"), "{said_then}");
    assert!(said(&open(&own)).contains("sealed to other keys"));
    assert_eq!(said(&open(&vault.path("other.key"))), "one");
    assert_ne!(fs::read(vault.sealed("edge/webhooks/github")).unwrap(), before, "the data key is new");
    let stragglers = bad(&rekey(&own, &["--add", &own_recipient], &sealed));
    assert!(stragglers.contains("straggler core/keys/link: it is sealed to other keys"), "{stragglers}");
    assert!(stragglers.contains("0 sealed anew, 2 stragglers"), "{stragglers}");
    let mode = fs::metadata(vault.sealed("edge/webhooks/github")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_set_without_recipients_is_refused_and_nothing_is_touched() {
    let vault = Vault::new();
    vault.seal("edge/webhooks/github", b"one");
    let before = fs::read(vault.sealed("edge/webhooks/github")).unwrap();
    let own = vault.keys.recipients().remove(0);
    let (key, sealed) = (vault.path("own.key"), vault.path("sealed"));
    for (more, says) in [
        (&["--remove", &own][..], "0 recipients"),
        (&["--add", "age1nobody"], "is no age recipient"),
        (&["--recipient", &own, "--add", &own], "cannot be used with"),
    ] {
        let refused = bad(&rekey(&key, more, &sealed));
        assert!(refused.contains(says), "{refused}");
    }
    assert_eq!(fs::read(vault.sealed("edge/webhooks/github")).unwrap(), before);
}

/// CVE-2026-22728 of Sealed Secrets: its rotation took the scope from annotations of whoever asked.
#[test]
fn scope_and_place_are_taken_from_the_envelope_alone() {
    let vault = Vault::new();
    let own = vault.keys.recipients();
    let recipients = Recipients::parse(own.iter().map(String::as_str)).unwrap();
    let manifest = |namespace: &str, scope: &str, mut inside: Envelope| {
        let sealed = seal(&mut inside, &recipients, zen_lockd::vault::Format::Binary).unwrap();
        let sealed = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, sealed);
        let path = vault.path("lock.yaml");
        let text = format!(
            "apiVersion: security.kube-zen.io/v1alpha1\nkind: ZenLock\nmetadata:\n  name: webhooks\n  namespace: \
             {namespace}\n  annotations: {{zen-lock/scope: {scope}, sealedsecrets.bitnami.com/cluster-wide: \"true\"}}\n\
             spec:\n  algorithm: age\n  encryptedData: {{github: {sealed}}}\n"
        );
        fs::write(&path, text).unwrap();
        path
    };
    let strict = || envelope("edge/webhooks/github", b"one");
    let key = vault.path("own.key");
    let to_own = ["--recipient", &*own[0]];
    // Copied into the attacker's namespace, with annotations that would let it.
    let moved = manifest("attacker", "cluster", strict());
    let before = fs::read(&moved).unwrap();
    let refused = bad(&rekey(&key, &to_own, &moved));
    assert!(
        refused.contains("straggler attacker/webhooks/github: it was sealed for edge/webhooks/github"),
        "{refused}"
    );
    assert_eq!(fs::read(&moved).unwrap(), before);
    // At its own place, the annotations change nothing of what is inside.
    let home = manifest("edge", "cluster", strict());
    good(&rekey(&key, &to_own, &home));
    let again: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(&home).unwrap()).unwrap();
    let sealed = again["spec"]["encryptedData"]["github"].as_str().unwrap();
    let file = vault.path("github.age");
    fs::write(&file, base64::Engine::decode(&base64::prelude::BASE64_STANDARD, sealed).unwrap()).unwrap();
    let open = |place: &str| run(&["open", "--identity", text(&key), "--place", place, text(&file)], b"");
    assert_eq!(said(&open("edge/webhooks/github")), "one");
    assert!(said(&open("attacker/webhooks/github")).contains("scope Strict"));
    // One that was made for the whole cluster may be anywhere, since its envelope says so.
    let wide = Envelope::new(name("edge/webhooks/github"), Scope::Cluster, Zeroizing::new(b"wide".to_vec()));
    good(&rekey(&key, &to_own, &manifest("attacker", "strict", wide.unwrap())));
}

#[test]
fn an_own_key_is_rotated_with_an_overlap() {
    let vault = Vault::new();
    vault.seal("edge/webhooks/github", b"one");
    vault.seal("edge/webhooks/gitlab", b"two");
    let daemon = vault.start(&grant("user = \"0\""));
    let (key, sealed) = (vault.path("own.key"), vault.path("sealed"));
    let old = vault.keys.recipients().remove(0);
    let new = good(&["rotate-key", "--key-file", text(&key)]).lines().next().unwrap().to_owned();
    assert_eq!(good(&["pubkey", text(&key)]), format!("{new}\n{old}\n"));
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o400);
    let early = bad(&["rotate-key", "--key-file", text(&key), "--finish", text(&sealed)]);
    assert!(early.contains("2 cannot be opened with the newest key alone"), "{early}");
    daemon.reload("configuration in force");
    good(&["rekey", "--identity", text(&key), "--add", &new, "--remove", &old, text(&sealed)]);
    assert_eq!(*vault.get("edge/webhooks/github").unwrap(), b"one");
    let checked = good(&["check", "--identity", text(&key), "--recipient", &new, text(&sealed)]);
    assert!(checked.contains("key 1 of 2 opens it") && checked.contains("2 good, 0 bad"), "{checked}");
    good(&["rotate-key", "--key-file", text(&key), "--finish", text(&sealed)]);
    assert_eq!(good(&["pubkey", text(&key)]), format!("{new}\n"));
    daemon.reload("configuration in force");
    assert_eq!(*vault.get("edge/webhooks/gitlab").unwrap(), b"two");
}

#[test]
fn check_says_what_cannot_be_opened_and_why() {
    let vault = Vault::new();
    let stranger = Identities::generate().recipients().remove(0);
    vault.seal("edge/webhooks/good", b"one");
    vault.seal("edge/webhooks/moved", b"two");
    fs::rename(vault.sealed("edge/webhooks/moved"), vault.sealed("edge/webhooks/here")).unwrap();
    fs::write(vault.sealed("edge/webhooks/broken"), "no age").unwrap();
    fs::set_permissions(vault.sealed("edge/webhooks/broken"), fs::Permissions::from_mode(0o666)).unwrap();
    let (key, sealed) = (vault.path("own.key"), vault.path("sealed"));
    let said = bad(&["check", "--identity", text(&key), text(&sealed)]);
    for line in [
        "good edge/webhooks/good: key 1 of 1 opens it, 1 recipients",
        "bad edge/webhooks/here: it was sealed for edge/webhooks/moved",
        "others may write there",
        "1 good, 2 bad",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    let said = bad(&["check", "--identity", text(&key), "--recipient", &stranger, text(&sealed)]);
    assert!(said.contains("edge/webhooks/good: it is not sealed to age1"), "{said}");
}

#[test]
fn values_are_sealed_from_each_format_to_files_and_manifests() {
    let vault = Vault::new();
    let (key, recipient) = (vault.path("own.key"), vault.keys.recipients().remove(0));
    let out = vault.path("out");
    let seal = |from: &str, input: &[u8], more: &[&str]| {
        let base = ["seal", "--recipient", &recipient, "--namespace", "edge", "--name", "n", from, "-"];
        run(&[&base, more].concat(), input)
    };
    let files = ["--out-dir", text(&out)];
    assert!(seal("--from-json", br#"{"a":"1"}"#, &files).status.success());
    assert!(seal("--from-yaml", b"b: two", &files).status.success());
    assert!(seal("--from-env", b"C=3", &files).status.success());
    let bytes = [0, 255, 10];
    assert!(seal("--from-file", &bytes, &[&files[..], &["--key", "d"]].concat()).status.success());
    let again = seal("--from-json", br#"{"a":"2"}"#, &files);
    assert!(said(&again).contains("is there already"), "{}", said(&again));
    assert!(seal("--from-json", br#"{"a":"2"}"#, &[&files[..], &["--replace"]].concat()).status.success());
    for (entry, value) in [("a", &b"2"[..]), ("b", b"two"), ("c", b"3"), ("d", &bytes)] {
        let entry = if entry == "c" { "C" } else { entry };
        let (file, place) = (out.join(format!("edge/n/{entry}.age")), format!("edge/n/{entry}"));
        let opened = run(&["open", "--identity", text(&key), "--place", &place, text(&file)], b"");
        assert_eq!(opened.stdout, value, "{entry}: {}", said(&opened));
    }
    let manifest = vault.path("lock.yaml");
    assert!(seal("--from-json", br#"{"a":"1","b":"2"}"#, &["--manifest", text(&manifest)]).status.success());
    assert!(good(&["check", "--identity", text(&key), text(&manifest)]).contains("2 good, 0 bad"));
    let shown = fs::read_to_string(&manifest).unwrap();
    assert!(shown.contains("kind: ZenLock") && shown.contains("encryptedData"), "{shown}");
}

#[test]
fn everything_is_sealed_anew_under_load_and_no_request_fails() {
    let vault = Vault::new();
    let names: Vec<_> = (0..50).map(|number| format!("edge/webhooks/key-{number}")).collect();
    for secret in &names {
        vault.seal(secret, secret.as_bytes());
    }
    let daemon = vault.start(&grant("user = \"0\""));
    let begun = Instant::now();
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let (key, sealed) = (vault.path("own.key"), vault.path("sealed"));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(&vault.socket(), Listener::RootOrSelf).unwrap();
                let begun = Instant::now();
                for (turn, secret) in (1..).zip(names.iter().cycle()) {
                    let value = client.open(&name(secret));
                    assert_eq!(value.unwrap().as_slice(), secret.as_bytes());
                    asked.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let due = begun + Duration::from_micros(turn * 4 * 1_000_000 / REQUESTS_PER_S);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            });
        }
        for _ in 0..3 {
            let old = good(&["pubkey", text(&key)]).trim().to_owned();
            let new = good(&["rotate-key", "--key-file", text(&key)]).lines().next().unwrap().to_owned();
            daemon.reload("configuration in force");
            good(&["rekey", "--identity", text(&key), "--add", &new, "--remove", &old, text(&sealed)]);
            good(&["rotate-key", "--key-file", text(&key), "--finish", text(&sealed)]);
            daemon.reload("configuration in force");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let asked = asked.into_inner();
    assert!(asked > 500, "{asked} requests were made meanwhile");
    let per_s = asked as f64 / begun.elapsed().as_secs_f64();
    println!("{asked} requests, {per_s:.0} a second, during three rotations of 50 secrets; none failed");
}
