//! A vault in a directory of its own, with a real daemon, asked over its real socket.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses what it needs; a test fails by panicking"
)]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use zen_lock::{
    Client, ClientError, GREETING_BYTES, Greeting, Listener, REPLY_HEAD_BYTES, Refusal, ReplyHead, Request,
    SecretName,
};
use zen_lockd::files::{create_new, replace};
use zen_lockd::vault::{AuthorKey, Envelope, Format, Identities, Recipients, Scope, seal};
use zeroize::Zeroizing;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// The program.
pub const LOCKD: &str = env!("CARGO_BIN_EXE_zen-lockd");

/// Own key, sealed files and configuration.
pub struct Vault {
    /// Everything of it; others may look in, not write.
    pub directory: TempDir,
    /// lockd's own.
    pub keys: Identities,
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
}

/// A connection whose bytes a test writes itself.
pub struct Wire {
    pub stream: UnixStream,
    pub greeting: Greeting,
}

pub fn name(text: &str) -> SecretName {
    SecretName::parse(text).unwrap()
}

impl Vault {
    /// A vault with an own key and no secrets.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(directory.path().join("sealed")).unwrap();
        let vault = Self { directory, keys: Identities::generate() };
        create_new(&vault.path("own.key"), vault.keys.text().as_bytes(), 0o400).unwrap();
        vault
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The file of a secret.
    pub fn sealed(&self, secret: &str) -> PathBuf {
        self.path("sealed").join(format!("{secret}.age"))
    }

    /// Seals a value to the vault's own key.
    pub fn seal(&self, secret: &str, value: &[u8]) {
        self.seal_by(secret, envelope(secret, value), None);
    }

    /// Seals an envelope, whatever its name is, where `secret` belongs.
    pub fn seal_by(&self, secret: &str, mut envelope: Envelope, author: Option<&AuthorKey>) {
        if let Some(author) = author {
            envelope.sign(author);
        }
        let recipients = self.keys.recipients();
        let recipients = Recipients::parse(recipients.iter().map(String::as_str)).unwrap();
        let sealed = seal(&mut envelope, &recipients, Format::Binary).unwrap();
        let path = self.sealed(secret);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        replace(&path, &sealed, 0o600).unwrap();
    }

    /// Writes a configuration with these rules, and with more in front of them.
    pub fn configure(&self, more: &str, rules: &str) {
        let text = format!(
            "socket = \"lockd.sock\"\nkey_file = \"own.key\"\n{more}\n[secrets]\ndirectory = \"sealed\"\n\
             [receipts]\ndirectory = \"receipts\"\n{rules}\n"
        );
        fs::write(self.path("lockd.toml"), text).unwrap();
    }

    /// A daemon with these rules, ready.
    pub fn start(&self, rules: &str) -> Daemon {
        self.configure("", rules);
        self.start_configured()
    }

    /// A daemon with the configuration that is there, ready.
    pub fn start_configured(&self) -> Daemon {
        let mut daemon = self.spawn(&mut Command::new(LOCKD));
        daemon.wait_ready(&self.socket());
        daemon
    }

    /// Starts `command` as the daemon, without waiting.
    pub fn spawn(&self, command: &mut Command) -> Daemon {
        command.arg("run").arg("--config").arg(self.path("lockd.toml"));
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Daemon { child, log }
    }

    pub fn socket(&self) -> PathBuf {
        self.path("lockd.sock")
    }

    /// Asks as this process.
    pub fn get(&self, secret: &str) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        Client::connect(&self.socket(), Listener::RootOrSelf)?.open(&name(secret))
    }

    /// Why this process gets no value.
    pub fn refusal(&self, secret: &str) -> Refusal {
        match self.get(secret) {
            Err(ClientError::Refused { refusal, .. }) => refusal,
            other => panic!("{secret}: {other:?}"),
        }
    }

    /// A connection that has been greeted.
    pub fn wire(&self) -> Wire {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let greeting = read_greeting(&mut stream);
        Wire { stream, greeting }
    }

    /// Files of receipts, oldest first.
    pub fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("receipts")).unwrap().map(|entry| entry.unwrap().path());
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jsonl");
        let mut segments: Vec<_> = entries.filter(is_segment).collect();
        segments.sort();
        segments
    }

    /// All lines: of who asked, and of acts.
    pub fn lines(&self) -> Vec<Value> {
        let texts = self.segments().into_iter().map(|path| fs::read_to_string(path).unwrap());
        let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.map(|line| serde_json::from_str(&line).unwrap()).collect()
    }

    /// All receipts of who asked.
    pub fn receipts(&self) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line.get("verdict").is_some()).collect()
    }

    /// All acts, as `ACT STAGE`.
    pub fn acts(&self) -> Vec<String> {
        let acts = self.lines().into_iter().filter(|line| line.get("act").is_some());
        acts.map(|act| format!("{} {}", act["act"].as_str().unwrap(), act["stage"].as_str().unwrap()))
            .collect()
    }

    /// Waits for a receipt with this verdict, and returns it.
    pub fn receipt(&self, verdict: &str) -> Value {
        let find = || self.receipts().into_iter().rev().find(|receipt| receipt["verdict"] == verdict);
        wait_until(&format!("a receipt of verdict {verdict}"), || find().is_some());
        find().unwrap()
    }

    /// A copy of `program` in the vault's directory, by which grants can name it.
    pub fn copy(&self, program: &Path, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::copy(program, &path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Runs `zen-lockd get` by a command line that begins with `words`.
    pub fn get_by(&self, words: &[&str], program: &Path, secret: &str) -> Output {
        let mut words = words.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg("get").arg("--socket").arg(self.socket());
        command.args(["--user", "0", secret]).stdin(Stdio::null()).output().unwrap()
    }
}

impl Daemon {
    fn wait_ready(&mut self, socket: &Path) {
        wait_until("the daemon listens", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the daemon ended while starting: {status}\n{}", self.log());
            }
            self.log().contains("ready") && socket.exists()
        });
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// SIGHUP, and waits for what the log says then.
    pub fn reload(&self, says: &str) {
        let before = self.log().matches(says).count();
        self.signal(Signal::SIGHUP);
        wait_until(says, || self.log().matches(says).count() > before);
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon does not end\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The number in a line of `/proc/PID/status`.
    pub fn status(&self, field: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of lockd ---\n{}", self.log());
        }
    }
}

impl Wire {
    /// The bytes of a request on this connection.
    pub fn request(&self, secret: &str) -> Vec<u8> {
        Request { nonce: self.greeting.nonce, name: name(secret) }.encode()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next reply's head; none if the connection ended instead.
    pub fn reply(&mut self) -> Option<ReplyHead> {
        let mut head = [0; REPLY_HEAD_BYTES];
        self.stream.read_exact(&mut head).ok()?;
        Some(ReplyHead::decode(head).unwrap())
    }
}

/// An envelope for its own place.
pub fn envelope(secret: &str, value: &[u8]) -> Envelope {
    Envelope::new(name(secret), Scope::Strict, Zeroizing::new(value.to_vec())).unwrap()
}

/// A grant of everything below `edge` with one more condition.
pub fn grant(condition: &str) -> String {
    format!("[[grants]]\n{condition}\nsecrets = [\"edge/*\"]\n")
}

pub fn read_greeting(stream: &mut UnixStream) -> Greeting {
    let mut greeting = [0; GREETING_BYTES];
    stream.read_exact(&mut greeting).unwrap();
    Greeting::decode(&greeting).unwrap()
}

/// Runs the program to its end.
pub fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(LOCKD);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Both outputs as one text.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
