//! Files and keys go to and fro between lockd and `age` of the distribution. Needs `age` and `age-keygen`; without
//! them it fails.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use age::secrecy::SecretString;
use age::{Encryptor, scrypt};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use tempfile::TempDir;
use zen_lock::{SecretName, VALUE_BYTES_MAX};
use zen_lockd::vault::{Expected, Identities, Scope, open};

const SECRET: &str = "swordfish";
const PLACE: &str = "edge/webhooks/github";
/// Little work: a test, not a defence.
const WORK_FACTOR: u8 = 4;

/// What a command left behind.
struct Said {
    is_good: bool,
    out: Vec<u8>,
    error: String,
}

/// A directory with keys and sealed files.
struct Desk(TempDir);

#[test]
fn age_reads_what_lockd_seals() {
    for armor in [&[][..], &["--armor"]] {
        for names in [&["one"][..], &["one", "two", "three"]] {
            let desk = Desk::new();
            let keys: Vec<_> = names.iter().map(|name| desk.age_key(name)).collect();
            let mut recipients: Vec<_> = keys.iter().map(|(_, recipient)| recipient.as_str()).collect();
            let sealed = desk.seal(&recipients, armor);
            assert_eq!(fs::read(&sealed).unwrap().starts_with(b"-----BEGIN"), !armor.is_empty());
            recipients.sort_unstable();
            for (key, _) in &keys {
                let envelope = age(&["-d", "-i", text(key), text(&sealed)], b"").good();
                assert_eq!(json_of(&envelope), envelope_for(&recipients), "{armor:?} {recipients:?}");
            }
        }
    }
}

#[test]
fn age_reads_the_largest_value_and_a_manifest() {
    let desk = Desk::new();
    let (key, recipient) = desk.age_key("one");
    let value: Vec<u8> = (0..VALUE_BYTES_MAX).map(|index| (index * 7 + index / 251) as u8).collect();
    let file = desk.write("value", &value);
    let manifest = desk.path("lock.yaml");
    let place = ["--recipient", &recipient, "--namespace", "edge", "--name", "webhooks"];
    let from = ["--key", "github", "--from-file", text(&file), "--manifest", text(&manifest)];
    lockd(&[&["seal"], &place[..], &from[..]].concat()).good();
    let manifest: Value = serde_saphyr::from_str(&fs::read_to_string(manifest).unwrap()).unwrap();
    let sealed = manifest["spec"]["encryptedData"]["github"].as_str().unwrap();
    let sealed = desk.write("github.age", &BASE64_STANDARD.decode(sealed).unwrap());
    let envelope = age(&["-d", "-i", text(&key), text(&sealed)], b"").good();
    assert_eq!(json_of(&envelope)["value"], BASE64_STANDARD.encode(value));
}

#[test]
fn lockd_opens_what_age_sealed_from_an_envelope_written_by_hand() {
    let desk = Desk::new();
    let (key, recipient) = desk.age_key("one");
    let place = SecretName::parse(PLACE).unwrap();
    let identities = Identities::parse(&fs::read_to_string(&key).unwrap()).unwrap();
    for armor in [&[][..], &["-a"]] {
        let sealed = age(&[armor, &["-r", &recipient]].concat(), by_hand().as_bytes()).good();
        let opened = open(&sealed, &identities, Expected { place: &place, authors: &[] }).unwrap();
        let envelope = opened.envelope;
        assert_eq!((&envelope.name, envelope.scope), (&place, Scope::Strict));
        assert!(envelope.recipients.is_empty() && envelope.author.is_none());
        assert_eq!(*envelope.value, SECRET.as_bytes());
        let sealed = desk.write("github.age", &sealed);
        assert_eq!(lockd_open(&key, PLACE, &sealed).good(), SECRET.as_bytes());
    }
}

#[test]
fn keys_of_age_are_keys_of_lockd_and_the_other_way_round() {
    let desk = Desk::new();
    let (of_age, recipient) = desk.age_key("age");
    assert_eq!(lockd(&["pubkey", text(&of_age)]).line(), recipient);
    let (of_lockd, recipient) = desk.lockd_key("lockd");
    assert_eq!(run("age-keygen", &["-y", text(&of_lockd)], b"").line(), recipient);

    let sealed = age(&["-e", "-i", text(&of_lockd)], by_hand().as_bytes()).good();
    let sealed = desk.write("github.age", &sealed);
    assert_eq!(lockd_open(&of_lockd, PLACE, &sealed).good(), SECRET.as_bytes());
    assert_eq!(age(&["-d", "-i", text(&of_lockd), text(&sealed)], b"").good(), by_hand().as_bytes());

    fs::set_permissions(&of_age, Permissions::from_mode(0o600)).unwrap();
    let refused = lockd(&["pubkey", text(&of_age)]);
    assert!(refused.bad().contains("has mode 0600; chmod 0400"), "as age-keygen leaves it");
}

#[test]
fn what_does_not_belong_here_is_refused_in_the_right_words() {
    let desk = Desk::new();
    let (key, recipient) = desk.age_key("one");
    let (other, _) = desk.lockd_key("other");
    let sealed = age(&["-r", &recipient], by_hand().as_bytes()).good();
    let file = desk.write("github.age", &sealed);
    let plain = age(&["-r", &recipient], SECRET.as_bytes()).good();
    let armored = age(&["-a", "-r", &recipient], by_hand().as_bytes()).good();
    for (name, key, place, bytes, words) in [
        (
            "place",
            &key,
            "edge/webhooks/gitlab",
            &*sealed,
            "it was sealed for edge/webhooks/github (scope Strict)",
        ),
        ("recipient", &other, PLACE, &sealed, "it is sealed to other keys"),
        ("passphrase", &key, PLACE, &with_passphrase(), "it is sealed with a passphrase, not to a key"),
        ("cut", &key, PLACE, &sealed[..sealed.len() - 1], "it is damaged or cut off"),
        ("cut armor", &key, PLACE, &armored[..armored.len() - 40], "it is damaged or cut off"),
        ("no envelope", &key, PLACE, &plain, "the plaintext is no envelope (line 1, column 1)"),
        ("no age file", &key, PLACE, by_hand().as_bytes(), "it is no age file, or its header is damaged"),
    ] {
        let file = desk.write(name, bytes);
        let error = lockd_open(key, place, &file).bad();
        assert!(error.starts_with(&format!("zen-lockd: {place}: {words}")), "{name}: {error}");
        assert!(!error.contains(SECRET), "{name}: {error}");
    }
    assert_eq!(lockd_open(&key, PLACE, &file).good(), SECRET.as_bytes(), "and nothing else was wrong");
}

#[test]
fn age_reads_what_lockd_sealed_anew() {
    for armor in [&[][..], &["--armor"]] {
        let desk = Desk::new();
        let [(one, first), (two, second), (three, third)] =
            ["one", "two", "three"].map(|name| desk.age_key(name));
        let sealed = desk.seal(&[&first, &second], armor);
        let secrets = desk.path("secrets");
        let rekey = |change: &[&str]| {
            lockd(&[&["rekey", "--identity", text(&one)], change, &[text(&secrets)]].concat()).good();
        };
        rekey(&["--add", &third, "--remove", &second]);
        let mut recipients = [&*first, &third];
        recipients.sort_unstable();
        for key in [&one, &three] {
            let envelope = age(&["-d", "-i", text(key), text(&sealed)], b"").good();
            assert_eq!(json_of(&envelope), envelope_for(&recipients));
        }
        assert!(age(&["-d", "-i", text(&two), text(&sealed)], b"").bad().contains("no identity matched"));
        assert_eq!(fs::read(&sealed).unwrap().starts_with(b"-----BEGIN"), !armor.is_empty());

        // What age sealed does not say to whom: all of them must be given.
        fs::write(&sealed, age(&["-r", &first], by_hand().as_bytes()).good()).unwrap();
        let unknown = lockd(&["rekey", "--identity", text(&one), "--add", &third, text(&secrets)]);
        assert!(!unknown.is_good && unknown.line().contains("give all of them with --recipient"));
        rekey(&["--recipient", &second]);
        let envelope = age(&["-d", "-i", text(&two), text(&sealed)], b"").good();
        assert_eq!(json_of(&envelope), envelope_for(&[&second]));
    }
}

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A key file of age, and its recipient.
    fn age_key(&self, name: &str) -> (PathBuf, String) {
        let path = self.path(name);
        run("age-keygen", &["-o", text(&path)], b"").good();
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        let recipient = run("age-keygen", &["-y", text(&path)], b"").line();
        (path, recipient)
    }

    /// A key file of lockd, and its recipient.
    fn lockd_key(&self, name: &str) -> (PathBuf, String) {
        let path = self.path(name);
        let recipient = lockd(&["keygen", "--out", text(&path)]).line();
        (path, recipient)
    }

    /// Seals the secret, and gives the sealed file.
    fn seal(&self, recipients: &[&str], more: &[&str]) -> PathBuf {
        let values = self.write("values.json", json!({"github": SECRET}).to_string().as_bytes());
        let secrets = self.path("secrets");
        let place = ["seal", "--namespace", "edge", "--name", "webhooks"];
        let files = ["--from-json", text(&values), "--out-dir", text(&secrets)];
        let recipients: Vec<_> = recipients.iter().flat_map(|recipient| ["--recipient", recipient]).collect();
        lockd(&[&place[..], &files[..], &recipients[..], more].concat()).good();
        secrets.join(format!("{PLACE}.age"))
    }
}

impl Said {
    /// The output of a command that went well.
    fn good(self) -> Vec<u8> {
        assert!(self.is_good, "{}", self.error);
        self.out
    }

    /// What a command that was to fail complained of; it gave nothing out.
    fn bad(self) -> String {
        assert!(!self.is_good && self.out.is_empty(), "{:?}", self.out);
        self.error
    }

    /// The first line of the output.
    fn line(self) -> String {
        String::from_utf8(self.out)
            .unwrap()
            .lines()
            .next()
            .unwrap_or_else(|| panic!("{}", self.error))
            .to_owned()
    }
}

fn age(arguments: &[&str], input: &[u8]) -> Said {
    run("age", arguments, input)
}

fn lockd(arguments: &[&str]) -> Said {
    run(env!("CARGO_BIN_EXE_zen-lockd"), arguments, b"")
}

fn lockd_open(key: &Path, place: &str, sealed: &Path) -> Said {
    lockd(&["open", "--identity", text(key), "--place", place, text(sealed)])
}

/// Runs a command to its end; inputs are shorter than a pipe.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Said {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let spawned = command.spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{program}: {error}; install the package \"age\""));
    // Whoever wants no input may be gone before it is written.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    Said { is_good: output.status.success(), out: output.stdout, error }
}

/// `age -p` wants a terminal; this is the same file.
fn with_passphrase() -> Vec<u8> {
    let mut recipient = scrypt::Recipient::new(SecretString::from(SECRET));
    recipient.set_work_factor(WORK_FACTOR);
    let encryptor = Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient)).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    writer.write_all(by_hand().as_bytes()).unwrap();
    writer.finish().unwrap()
}

/// An envelope as somebody with a text editor writes it.
fn by_hand() -> String {
    let value = BASE64_STANDARD.encode(SECRET);
    format!(
        "{{\n  \"version\": 1,\n  \"namespace\": \"edge\",\n  \"name\": \"webhooks\",\n  \"key\": \"github\",\n  \
         \"value\": \"{value}\"\n}}\n"
    )
}

/// What lockd puts into a sealed file.
fn envelope_for(recipients: &[&str]) -> Value {
    json!({
        "version": 1,
        "namespace": "edge",
        "name": "webhooks",
        "key": "github",
        "scope": "strict",
        "recipients": recipients,
        "value": BASE64_STANDARD.encode(SECRET),
    })
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
