//! The daemon as its callers and its operator see it: answers, refusals, receipts, reload, bad input.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{LOCKD, Vault, envelope, grant, name, run, said, wait_until};
use zen_lock::{Client, Listener, Refusal, ReplyHead};
use zen_lockd::vault::{AuthorKey, Envelope, Scope};
use zeroize::Zeroizing;

const MINE: &str = "user = \"0\"";

#[test]
fn a_secret_is_handed_out_with_a_receipt_that_does_not_hold_it() {
    let vault = Vault::new();
    vault.seal("edge/webhooks/github", b"swordfish");
    let mut daemon = vault.start(&grant(MINE));
    let mut client = Client::connect(&vault.socket(), Listener::RootOrSelf).unwrap();
    for _ in 0..3 {
        assert_eq!(*client.open(&name("edge/webhooks/github")).unwrap(), b"swordfish");
    }
    let receipts = vault.receipts();
    assert_eq!(receipts.len(), 3);
    let own = std::env::current_exe().unwrap();
    for receipt in receipts {
        assert_eq!(receipt["secret"], "edge/webhooks/github");
        assert_eq!(receipt["verdict"], "opened");
        assert_eq!(receipt["pid"], std::process::id());
        assert_eq!((receipt["uid"].as_u64(), receipt["gid"].as_u64()), (Some(0), Some(0)));
        assert_eq!(receipt["executable"].as_str(), own.to_str());
        assert!(!receipt.to_string().contains("swordfish"));
    }
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
    assert!(!vault.socket().exists());
    assert!(!daemon.log().contains("swordfish"));
}

#[test]
fn whoever_is_not_granted_a_secret_does_not_learn_whether_it_is_there() {
    let vault = Vault::new();
    vault.seal("edge/webhooks/github", b"swordfish");
    vault.seal("core/webhooks/github", b"swordfish");
    let _daemon = vault.start(&grant(MINE));
    assert_eq!(vault.refusal("core/webhooks/github"), Refusal::Denied);
    assert_eq!(vault.refusal("core/webhooks/nothing"), Refusal::Denied);
    assert_eq!(vault.refusal("edge/webhooks/nothing"), Refusal::Missing);
    let verdicts: Vec<_> = vault.receipts().iter().map(|receipt| receipt["verdict"].to_string()).collect();
    assert_eq!(verdicts, ["\"denied\"", "\"denied\"", "\"missing\""]);
}

#[test]
fn what_does_not_open_is_refused_and_its_receipt_says_why() {
    let vault = Vault::new();
    let other = Vault::new();
    vault.seal("edge/webhooks/good", b"swordfish");
    let good = fs::read(vault.sealed("edge/webhooks/good")).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    other.seal("edge/webhooks/other", b"swordfish");
    let elsewhere =
        Envelope::new(name("core/webhooks/moved"), Scope::Namespace, Zeroizing::new(b"x".to_vec()));
    vault.seal_by("edge/webhooks/moved", elsewhere.unwrap(), None);
    let mut newer = good.clone();
    newer["age-encryption.org/v".len()] = b'2';
    let author = AuthorKey::generate();
    vault.seal_by("edge/signed/by-other", envelope("edge/signed/by-other", b"x"), Some(&author));
    vault.seal("edge/signed/by-nobody", b"x");
    let known = AuthorKey::generate();
    vault.seal_by("edge/signed/well", envelope("edge/signed/well", b"x"), Some(&known));
    let files = [
        ("truncated", good[..good.len() - 1].to_vec(), "damaged or cut off"),
        ("flipped", flipped, "damaged or cut off"),
        ("empty", Vec::new(), "no age file"),
        ("other", fs::read(other.sealed("edge/webhooks/other")).unwrap(), "sealed to other keys"),
        ("text", b"swordfish".to_vec(), "no age file"),
        ("newer", newer, "unknown version"),
        ("long", vec![b'x'; zen_lockd::vault::SEALED_BYTES_MAX + 1], "over"),
    ];
    for (key, bytes, _) in &files {
        fs::write(vault.sealed(&format!("edge/webhooks/{key}")), bytes).unwrap();
    }
    let rules = format!(
        "{}[[signed]]\nsecrets = [\"edge/signed/*\"]\nauthors = [\"{}\"]\n",
        grant(MINE),
        known.author()
    );
    let _daemon = vault.start(&rules);
    let further = [
        ("edge/webhooks/moved".to_owned(), "was sealed for core/webhooks/moved"),
        ("edge/signed/by-other".to_owned(), "is not one whom policy names"),
        ("edge/signed/by-nobody".to_owned(), "it is not signed"),
    ];
    let files = files.map(|(key, _, reason)| (format!("edge/webhooks/{key}"), reason));
    for (secret, reason) in files.into_iter().chain(further) {
        assert_eq!(vault.refusal(&secret), Refusal::Sealed, "{secret}");
        let receipts = vault.receipts();
        let receipt = receipts.last().unwrap();
        assert_eq!(
            (receipt["verdict"].as_str(), receipt["secret"].as_str()),
            (Some("sealed"), Some(&*secret))
        );
        assert!(receipt["reason"].as_str().unwrap().contains(reason), "{secret}: {receipt}");
    }
    assert_eq!(*vault.get("edge/signed/well").unwrap(), b"x");
    assert_eq!(*vault.get("edge/webhooks/good").unwrap(), b"swordfish", "and goes on");
}

#[test]
fn a_reload_is_whole_or_not_at_all() {
    let vault = Vault::new();
    vault.seal("edge/webhooks/github", b"one");
    let daemon = vault.start(&grant("user = \"1\""));
    assert_eq!(vault.refusal("edge/webhooks/github"), Refusal::Denied);
    vault.configure("", &grant(MINE));
    daemon.reload("configuration in force");
    assert_eq!(*vault.get("edge/webhooks/github").unwrap(), b"one");
    vault.seal("edge/webhooks/github", b"two");
    assert_eq!(*vault.get("edge/webhooks/github").unwrap(), b"two", "sealed files need no reload");
    for (rules, says) in [
        ("[[grants]]\nsecrets = [\"edge/*\"]\n".to_owned(), "names nobody"),
        (grant("user = \"nobody-of-this-name\""), "there is no user"),
        (grant(MINE).replace("edge/*", "edge*"), "is none"),
        (grant("unit = \"zen\""), "name of a service or scope"),
        (grant("executable = \"zen-dataplane\""), "absolute path"),
        (grant(MINE) + "more = 1\n", "unknown field"),
    ] {
        vault.configure("", &rules);
        daemon.reload("configuration refused");
        assert!(daemon.log().contains(says), "{says}\n{}", daemon.log());
        assert_eq!(*vault.get("edge/webhooks/github").unwrap(), b"two");
    }
}

#[test]
fn what_is_no_request_ends_the_connection_with_a_receipt() {
    let vault = Vault::new();
    vault.seal("edge/webhooks/github", b"swordfish");
    let _daemon = vault.start(&grant(MINE));
    let good = vault.wire().request("edge/webhooks/github");
    let with_byte = |at: usize, byte: u8| {
        let mut request = good.clone();
        request[at] = byte;
        request
    };
    for (request, reason) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "a frame of"),
        (vec![0xff; 4096], "a frame of 65535 bytes"),
        (vec![0, 0], "a frame of 0 bytes"),
        (with_byte(18, 9), "unknown kind"),
        (with_byte(19, b'.'), "does not begin with a dot"),
        (good.clone(), "nonce of another connection"),
    ] {
        let mut wire = vault.wire();
        wire.send(&request);
        assert_eq!(wire.reply(), Some(ReplyHead::Refused(Refusal::Malformed)), "{reason}");
        assert_eq!(wire.reply(), None, "{reason}");
        let receipt = vault.receipts().pop().unwrap();
        assert_eq!(receipt["verdict"], "malformed");
        assert!(receipt["reason"].as_str().unwrap().contains(reason), "{receipt}");
    }
    assert_eq!(*vault.get("edge/webhooks/github").unwrap(), b"swordfish");
}

#[test]
fn a_request_may_come_in_pieces_and_must_come_to_an_end() {
    let vault = Vault::new();
    vault.seal("edge/webhooks/github", b"swordfish");
    let _daemon = vault.start(&grant(MINE));
    let mut wire = vault.wire();
    for byte in wire.request("edge/webhooks/github") {
        wire.send(&[byte]);
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(wire.reply(), Some(ReplyHead::Value(9)));
    for cut in [1, 2, 20] {
        let mut wire = vault.wire();
        let request = wire.request("edge/webhooks/github");
        wire.send(&request[..cut]);
        wire.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(wire.reply(), Some(ReplyHead::Refused(Refusal::Malformed)));
        assert!(vault.receipt("malformed")["reason"].as_str().unwrap().contains("cut off"));
    }
    let mut wire = vault.wire();
    let request = wire.request("edge/webhooks/github");
    wire.send(&request[..20]);
    assert_eq!(
        wire.reply(),
        Some(ReplyHead::Refused(Refusal::Malformed)),
        "silence half-way is not waited for"
    );
    assert!(vault.receipt("malformed")["reason"].as_str().unwrap().contains("did not come to an end"));
}

#[test]
fn one_user_cannot_take_all_places() {
    let vault = Vault::new();
    vault.seal("edge/webhooks/github", b"swordfish");
    let program = vault.copy(LOCKD.as_ref(), "lockd-copy");
    let _daemon = vault.start(&(grant(MINE) + &grant("user = \"65534\"")));
    let held: Vec<_> = (0..16).map(|_| vault.wire()).collect();
    assert_eq!(vault.refusal("edge/webhooks/github"), Refusal::Busy);
    let other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let output = vault.get_by(&other, &program, "edge/webhooks/github");
    assert_eq!(said(&output), "swordfish");
    drop(held);
    wait_until("places are free again", || vault.get("edge/webhooks/github").is_ok());
}

#[test]
fn without_a_receipt_nothing_is_handed_out() {
    let vault = Vault::new();
    vault.seal("edge/webhooks/github", b"swordfish");
    fs::create_dir(vault.path("drive")).unwrap();
    vault.configure("", &grant(MINE));
    let text = fs::read_to_string(vault.path("lockd.toml")).unwrap();
    let small = text.replace("\"receipts\"", "\"drive/receipts\"");
    fs::write(vault.path("lockd.toml"), small).unwrap();
    // A file system of its own, which is filled when the daemon has written its first line.
    let script = "mount -t tmpfs -o size=64k tmpfs \"$1\"; shift; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script, "sh"]).arg(vault.path("drive")).arg(LOCKD);
    let daemon = vault.spawn(&mut command);
    wait_until("the daemon is ready", || daemon.log().contains("ready"));
    let seen = Path::new("/proc").join(daemon.id().to_string()).join("root");
    let drive = seen.join(vault.path("drive").strip_prefix("/").unwrap());
    let mut rest = fs::File::create(drive.join("rest")).unwrap();
    while rest.write_all(&[0; 512]).is_ok() {}
    drop(rest);
    // What is left of the segment's own page may still be written.
    wait_until("no receipt fits any more", || vault.get("edge/webhooks/github").is_err());
    assert_eq!(vault.refusal("edge/webhooks/github"), Refusal::Busy);
    wait_until("the log says it", || daemon.log().contains("a receipt cannot be written"));
    let text = fs::read_to_string(drive.join("receipts/segment-0000000000.jsonl")).unwrap();
    assert!(text.ends_with("}\n") && text.lines().count() > 1, "no half line stays: {text}");
    fs::remove_file(drive.join("rest")).unwrap();
    assert_eq!(*vault.get("edge/webhooks/github").unwrap(), b"swordfish", "with room it goes on");
}

#[test]
fn a_start_that_cannot_be_trusted_is_refused_with_its_reason() {
    for (mode, key_file, says) in [
        (0o644, "own.key", "mode 0644; chmod 0400"),
        (0o400, "sealed/own.key", "lies among what it opens"),
        (0o400, "link.key", "no symbolic link"),
        (0o400, "none.key", "No such file"),
    ] {
        let vault = Vault::new();
        fs::set_permissions(vault.path("own.key"), fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::symlink(vault.path("own.key"), vault.path("link.key")).unwrap();
        vault.configure("", &grant(MINE));
        let text = fs::read_to_string(vault.path("lockd.toml")).unwrap();
        fs::write(vault.path("lockd.toml"), text.replace("\"own.key\"", &format!("\"{key_file}\""))).unwrap();
        let output = run(&["run", "--config", vault.path("lockd.toml").to_str().unwrap()], b"");
        assert!(!output.status.success() && said(&output).contains(says), "{}", said(&output));
    }
    let vault = Vault::new();
    let output = run(&["run", "--config", vault.path("none.toml").to_str().unwrap()], b"");
    assert!(said(&output).contains("give the configuration with --config"), "{}", said(&output));
    let _daemon = vault.start(&grant(MINE));
    let output = run(&["run", "--config", vault.path("lockd.toml").to_str().unwrap()], b"");
    assert!(said(&output).contains("another lockd answers there"), "{}", said(&output));
}

#[test]
fn a_socket_that_was_left_behind_is_taken_over() {
    let vault = Vault::new();
    vault.seal("edge/webhooks/github", b"swordfish");
    let mut daemon = vault.start(&grant(MINE));
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    assert!(vault.socket().exists());
    let _next = vault.start(&grant(MINE));
    assert_eq!(*vault.get("edge/webhooks/github").unwrap(), b"swordfish");
}

#[test]
fn the_service_manager_and_the_collector_are_told() {
    let vault = Vault::new();
    vault.seal("edge/webhooks/github", b"swordfish");
    vault.configure("metrics_file = \"lockd.prom\"", &grant(MINE));
    let manager = std::os::unix::net::UnixDatagram::bind(vault.path("notify")).unwrap();
    let mut command = Command::new(LOCKD);
    command.env("NOTIFY_SOCKET", vault.path("notify"));
    let daemon = vault.spawn(&mut command);
    let mut message = [0; 64];
    let length = manager.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1");
    vault.get("edge/webhooks/github").unwrap();
    // A signal wakes the loop, which writes what is due.
    let has = |line: &str| fs::read_to_string(vault.path("lockd.prom")).is_ok_and(|text| text.contains(line));
    wait_until("the first file", || has("zen_lockd_own_keys 1"));
    wait_until("the count", || has("zen_lockd_requests_total{verdict=\"opened\"} 1"));
    drop(daemon);
}
