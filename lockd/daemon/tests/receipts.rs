//! Receipts as evidence: what somebody does to their directory is found, what was killed or torn goes on, and commands and
//! signals leave theirs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;
use support::{LOCKD, Vault, grant, run, said, wait_until};

const MINE: &str = "user = \"0\"";
const SECRET: &str = "edge/webhooks/github";

/// What somebody does who can write there.
type Attack = fn(&Vault);

/// A vault whose segments are closed after four lines.
fn vault() -> Vault {
    let vault = Vault::new();
    vault.seal(SECRET, b"swordfish");
    configure(&vault, "digest_receipts_max = 4");
    vault
}

fn configure(vault: &Vault, more: &str) {
    let rules = format!("{more}\n{}", grant(MINE));
    vault.configure("", &rules);
}

/// A directory of receipts with four closed segments, as a daemon leaves it that was stopped.
fn made() -> Vault {
    let vault = vault();
    let mut daemon = vault.start_configured();
    for _ in 0..12 {
        vault.get(SECRET).unwrap();
    }
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
    assert_eq!((vault.lines().len(), vault.receipts().len()), (14, 12), "and a start and a stop");
    vault
}

fn segment(vault: &Vault, number: u64) -> PathBuf {
    vault.path(&format!("receipts/segment-{number:010}.jsonl"))
}

fn digest(vault: &Vault, number: u64) -> PathBuf {
    vault.path(&format!("receipts/digests/{number:010}.note"))
}

/// Status and words of `zen-lockd receipts`.
fn verified(vault: &Vault, more: &[&str]) -> (Option<i32>, String) {
    let directory = vault.path("receipts");
    let output = run(&[&["receipts", directory.to_str().unwrap()][..], more].concat(), b"");
    (output.status.code(), said(&output))
}

fn edit(path: &PathBuf, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn what_is_done_to_the_files_is_found() {
    let key = fs::read_to_string(made().path("receipts/receipts.pub")).unwrap();
    let attacks: [(&str, Attack, &str); 10] = [
        ("a line edited", |vault| edit(&segment(vault, 1), "opened", "denied"), "the lines of segment 1"),
        (
            "a line cut out",
            |vault| {
                let text = fs::read_to_string(segment(vault, 1)).unwrap();
                fs::write(segment(vault, 1), &text[text.find('\n').unwrap() + 1..]).unwrap();
            },
            "segment 1 has 3 whole lines, and its digest is of 4",
        ),
        (
            "two lines swapped",
            |vault| {
                let text = fs::read_to_string(segment(vault, 1)).unwrap();
                let mut lines: Vec<&str> = text.lines().collect();
                // All lines of one caller look alike but for their time, so one is made to differ.
                let other = lines[0].replace("opened", "denied");
                lines[0] = &other;
                lines.swap(0, 1);
                fs::write(segment(vault, 1), lines.join("\n") + "\n").unwrap();
            },
            "the lines of segment 1",
        ),
        ("a tail torn", |vault| edit(&segment(vault, 2), "}\n", "}"), "segment 2"),
        ("a segment taken", |vault| fs::remove_file(segment(vault, 2)).unwrap(), "segment 2 is missing"),
        (
            "two segments swapped",
            |vault| {
                fs::rename(segment(vault, 1), vault.path("held")).unwrap();
                fs::rename(segment(vault, 2), segment(vault, 1)).unwrap();
                fs::rename(vault.path("held"), segment(vault, 2)).unwrap();
            },
            "the lines of segment 1",
        ),
        ("a digest taken", |vault| fs::remove_file(digest(vault, 1)).unwrap(), "does not continue"),
        ("a digest edited", |vault| edit(&digest(vault, 1), "count 4", "count 5"), "digest 1 does not hold"),
        (
            "a digest of another one",
            |vault| fs::rename(digest(vault, 2), digest(vault, 1)).unwrap(),
            "does not continue",
        ),
        (
            "everything made anew under another key",
            |vault| {
                let other = made();
                fs::remove_dir_all(vault.path("receipts")).unwrap();
                fs::rename(other.path("receipts"), vault.path("receipts")).unwrap();
            },
            "nobody who is known signed",
        ),
    ];
    for (what, attack, says) in attacks {
        let vault = made();
        let key = if what.contains("another key") {
            key.clone()
        } else {
            fs::read_to_string(vault.path("receipts/receipts.pub")).unwrap()
        };
        if !what.contains("another key") {
            let (status, words) = verified(&vault, &["--key", key.trim_end()]);
            assert_eq!(status, Some(0), "{what}: {words}");
            assert!(words.contains("PASS        [0,14)"), "{words}");
        }
        attack(&vault);
        let (status, words) = verified(&vault, &["--key", key.trim_end()]);
        assert_eq!(status, Some(4), "{what}: {words}");
        assert!(words.contains(says), "{what}: {words}");
    }
}

#[test]
fn a_start_refuses_what_was_taken_away() {
    let attacks: [(Attack, &str); 4] = [
        (|vault| fs::remove_file(vault.path("receipts/receipts.key")).unwrap(), "somebody took it"),
        (|vault| fs::remove_file(digest(vault, 2)).unwrap(), "somebody took digests away"),
        (|vault| edit(&digest(vault, 3), "count 2", "count 1"), "somebody changed it"),
        (
            |vault| {
                let directory = vault.path("receipts");
                fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
            },
            "group or others may write there",
        ),
    ];
    for (attack, says) in attacks {
        let vault = made();
        if says.contains("took digests") {
            // Without the last one as well: else the newest digest is whole, and only an auditor sees the gap.
            fs::remove_file(digest(&vault, 3)).unwrap();
        }
        attack(&vault);
        let output = run(&["run", "--config", vault.path("lockd.toml").to_str().unwrap()], b"");
        assert!(!output.status.success() && said(&output).contains(says), "{says}: {}", said(&output));
    }
}

#[test]
fn a_torn_line_costs_itself_alone_and_numbers_go_on() {
    let vault = vault();
    let mut daemon = vault.start_configured();
    vault.get(SECRET).unwrap();
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    let whole = fs::read_to_string(segment(&vault, 0)).unwrap();
    assert_eq!(whole.lines().count(), 2, "{whole}");
    let line = whole.lines().next_back().unwrap();
    for cut in 0..line.len() {
        fs::write(segment(&vault, 0), format!("{whole}{}", &line[..cut])).unwrap();
        let (status, words) = verified(&vault, &[]);
        assert_eq!(status, Some(3), "{words}");
        assert!(words.contains("UNSIGNED    [0,2)"), "{cut}: {words}");
    }
    let _next = vault.start_configured();
    vault.get(SECRET).unwrap();
    assert_eq!(vault.acts(), ["start done", "start done"]);
    assert_eq!(vault.receipts().len(), 2);
    vault.get(SECRET).unwrap();
    let (status, words) = verified(&vault, &[]);
    assert_eq!(status, Some(3), "{words}");
    assert!(words.contains("PASS        [0,4)") && words.contains("UNSIGNED    [4,5)"), "{words}");
}

#[test]
fn whatever_is_killed_each_answer_has_its_line() {
    let vault = vault();
    let mut answered = 0;
    for _ in 0..10 {
        let mut daemon = vault.start_configured();
        let counts: Vec<usize> = thread::scope(|scope| {
            let askers: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| (0..1_000).take_while(|_| vault.get(SECRET).is_ok()).count()))
                .collect();
            let before = answered;
            wait_until("some answers", || vault.receipts().len() > before + 20);
            daemon.signal(Signal::SIGKILL);
            askers.into_iter().map(|asker| asker.join().unwrap()).collect()
        });
        daemon.wait();
        answered += counts.into_iter().sum::<usize>();
        let lines = vault.receipts().len();
        // A line without its answer is of one who was being answered when it was killed.
        assert!(answered <= lines && lines <= answered + 3, "{answered} answers, {lines} lines");
        answered = lines;
    }
    let mut daemon = vault.start_configured();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
    let (status, words) = verified(&vault, &[]);
    assert_eq!(status, Some(0), "{words}");
}

#[test]
fn commands_signals_starts_and_ends_leave_lines_in_one_log() {
    let vault = vault();
    let config = vault.path("lockd.toml");
    let config = config.to_str().unwrap();
    let daemon = vault.start_configured();
    let recipient = vault.keys.recipients().remove(0);
    let (out, own) = (vault.path("sealed"), vault.path("own.key"));
    let (out, own) = (out.to_str().unwrap(), own.to_str().unwrap());
    let json = "{\"stripe\":\"hunter2\"}";
    let seal = ["--namespace", "edge", "--name", "more", "--from-json", "-", "--out-dir", out];
    let seal = [&["seal", "--config", config, "--recipient", &recipient][..], &seal].concat();
    assert!(run(&seal, json.as_bytes()).status.success());
    assert!(!run(&seal, json.as_bytes()).status.success(), "it is there already");
    vault.get("edge/more/stripe").unwrap();
    let rekey = ["rekey", "--config", config, "--identity", own, "--recipient", &recipient, out];
    assert!(run(&rekey, b"").status.success());
    assert!(run(&[&rekey[..], &["--dry-run"]].concat(), b"").status.success(), "which leaves none");
    daemon.reload("configuration in force");
    fs::write(config, "nothing").unwrap();
    daemon.reload("configuration refused");
    let acts =
        ["start done", "seal begun", "seal done", "seal begun", "seal failed", "rekey begun", "rekey done"];
    assert_eq!(vault.acts(), [&acts[..], &["reload done", "reload failed"]].concat());
    assert_eq!(vault.receipts().len(), 1);
    let lines = vault.lines();
    let sealed = lines.iter().find(|line| line["act"] == "seal").unwrap();
    assert_eq!(
        (sealed["uid"].as_u64(), sealed["target"].as_str()),
        (Some(0), Some(&*format!("edge/more in {out}")))
    );
    let failed = lines.iter().find(|line| line["stage"] == "failed").unwrap();
    assert!(failed["reason"].as_str().unwrap().contains("is there already"), "{failed}");
    let reload = lines.iter().find(|line| line["act"] == "reload").unwrap();
    assert_eq!(reload["pid"], std::process::id(), "who sent the signal");
    let (status, words) = verified(&vault, &[]);
    assert_eq!(status, Some(3), "{words}");
    assert!(words.contains("[0,8)"), "two segments of both writers: {words}");
    assert!(!lines.iter().any(|line| line.to_string().contains("hunter2")));
}

#[test]
fn without_a_line_a_command_does_nothing() {
    let vault = vault();
    let out = vault.path("new.key");
    let keygen =
        ["keygen", "--config", vault.path("lockd.toml").to_str().unwrap(), "--out", out.to_str().unwrap()]
            .map(str::to_owned);
    let keygen = keygen.each_ref().map(String::as_str);
    fs::write(vault.path("receipts"), "no directory").unwrap();
    let output = run(&keygen, b"");
    assert!(
        !output.status.success() && said(&output).contains("without a receipt nothing is done"),
        "{}",
        said(&output)
    );
    assert!(!out.exists());
    fs::remove_file(vault.path("receipts")).unwrap();
    assert!(run(&keygen, b"").status.success());
    assert_eq!(vault.acts(), ["keygen begun", "keygen done"]);
    // Who may not write there has nothing there to act on, and leaves no line.
    let directory = vault.path("theirs");
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, Some(65534), Some(65534)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(vault.copy(LOCKD.as_ref(), "lockd-copy")).args(["keygen", "--config"]);
    let output =
        command.arg(vault.path("lockd.toml")).arg("--out").arg(directory.join("key")).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(vault.acts().len(), 2);
}

#[test]
fn the_bound_holds_and_refusals_push_nothing_out() {
    let vault = Vault::new();
    vault.seal(SECRET, b"swordfish");
    configure(&vault, "bytes_max = 65536");
    let _daemon = vault.start_configured();
    let bytes = || -> u64 {
        // A segment may go between listing and asking.
        vault.segments().iter().map(|path| fs::metadata(path).map_or(0, |metadata| metadata.len())).sum()
    };
    vault.get(SECRET).unwrap();
    // Twice the bound, unless most of them had no line.
    for _ in 0..600 {
        let _ = vault.get("core/of/others");
        assert!(bytes() <= 65536);
    }
    wait_until("a segment is let go", || {
        vault.get(SECRET).unwrap();
        assert!(bytes() <= 65536);
        !segment(&vault, 0).exists()
    });
    let counted: u64 = vault.receipts().iter().filter_map(|line| line["more_refusals"].as_u64()).sum();
    let denied = vault.receipts().iter().filter(|line| line["verdict"] == "denied").count() as u64;
    assert!(counted + denied <= 600, "{counted} counted, {denied} with lines");
    let (status, words) = verified(&vault, &[]);
    assert!(matches!(status, Some(0 | 3)), "{words}");
    assert!(!words.contains("[0,"), "the oldest are gone, their digests hold: {words}");
}

#[test]
fn a_segment_is_closed_when_it_is_old_and_digests_can_be_read_by_others() {
    let vault = Vault::new();
    vault.seal(SECRET, b"swordfish");
    configure(&vault, "digest_interval_s = 1");
    let _daemon = vault.start_configured();
    vault.get(SECRET).unwrap();
    wait_until("a digest by the clock", || digest(&vault, 0).exists());
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(segment(&vault, 0)), 0o600);
    assert_eq!(mode(vault.path("receipts/receipts.key")), 0o400);
    assert_eq!(mode(vault.path("receipts")), 0o711);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"]);
    let output = command.arg(digest(&vault, 0)).arg(vault.path("receipts/receipts.pub")).output().unwrap();
    assert!(output.status.success() && said(&output).contains("zen-receipts-digest-v1"), "{}", said(&output));
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"])
        .arg(segment(&vault, 0))
        .output()
        .unwrap();
    assert!(!output.status.success(), "lines are for their owner");
}
