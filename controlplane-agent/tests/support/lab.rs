//! A control plane, a vault, an agent and a node that is a socket: the real programs, on loopback, in one directory.
#![allow(dead_code, reason = "each test file uses what it needs")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;
use zen_lock::{Client, ClientError, Listener, SecretName};
use zen_ports::free_address;
use zeroize::Zeroizing;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
pub const AGENT: &str = env!("CARGO_BIN_EXE_zen-agent");
pub const TRUST_DOMAIN: &str = "acme.example";

/// All of it.
pub struct Lab {
    pub directory: TempDir,
    pub recipient: String,
    pub port: u16,
    pub people_port: u16,
    lockd: Option<Process>,
    pub control: Option<Process>,
    /// What every program is started with from now on: a clock, for instance.
    pub environment: Vec<(OsString, OsString)>,
}

/// A program that ends with the test.
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// What stands for a node's admin socket.
pub struct Node {
    /// What it answers next: the status, and the body; else it applies what the link leads to.
    pub refusal: Arc<Mutex<Option<String>>>,
    pub asked: Arc<Mutex<u32>>,
}

/// Other crates' programs, built beside ours.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let profile = Path::new(AGENT).parent().unwrap();
    BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        // A test of each package brings its program; all of the workspace, so that no dependency gets other features.
        cargo.args(["test", "--locked", "--workspace", "--no-run", "--test", "agents", "--test", "daemon"]);
        cargo.args(["--test", "architecture", "--target-dir"]).arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let output = cargo.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "zen-control, zen-lockd and zen-dataplane are needed, and cannot be built:\n{said}"
        );
    });
    profile.join(name)
}

/// Runs a program of another crate to its end, which has to be a good one.
pub fn run(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(program(name)).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

impl Lab {
    /// A control plane and a vault that run, and an agent that has not enrolled.
    pub fn new() -> Self {
        let mut lab = Self::without_control();
        let control = lab.text("control");
        run("zen-control", &["init", "--dir", &control, "--trust-domain", TRUST_DOMAIN, "--tenant", "acme"]);
        lab.start_control();
        lab
    }

    /// The same, where somebody else is the control plane.
    pub fn without_control() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let (port, people_port) = (free_address().port(), free_address().port());
        let mut lab = Self {
            directory,
            recipient: String::new(),
            port,
            people_port,
            lockd: None,
            control: None,
            environment: Vec::new(),
        };
        lab.clear_state();
        lab.start_lockd();
        lab.write_config("");
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// An agent that knows nothing.
    pub fn clear_state(&self) {
        let state = self.path("state");
        let _ = fs::remove_dir_all(&state);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state.join("secrets")).unwrap();
    }

    fn start_lockd(&mut self) {
        let key = self.text("own.key");
        let output = run("zen-lockd", &["keygen", "--out", &key]);
        let recipient = output.split_whitespace().find(|word| word.starts_with("age1")).unwrap();
        recipient.clone_into(&mut self.recipient);
        let user = geteuid();
        let config = format!(
            "socket = \"lockd.sock\"\nkey_file = \"own.key\"\n[secrets]\ngenerations = \"state/secrets\"\n\
             [receipts]\ndirectory = \"receipts\"\n[memory]\nlock = \"try\"\n\
             [[grants]]\nuser = \"{user}\"\nsecrets = [\"zen/*\", \"zen-link/*\", \"edge/*\"]\n"
        );
        fs::write(self.path("lockd.toml"), config).unwrap();
        let config = self.text("lockd.toml");
        let lockd =
            self.spawn("lockd.log", Command::new(program("zen-lockd")).args(["run", "--config", &config]));
        let socket = self.path("lockd.sock");
        wait_until("lockd listens", || socket.exists() && lockd.log().contains("ready"));
        self.lockd = Some(lockd);
    }

    pub fn start_control(&mut self) {
        self.start_control_by(|_| {});
    }

    /// The same, with a change of its command.
    pub fn start_control_by(&mut self, change: impl FnOnce(&mut Command)) {
        let (directory, address) = (self.text("control"), format!("127.0.0.1:{}", self.port));
        let mut command = Command::new(program("zen-control"));
        command.args(["run", "--dir", &directory, "--listen", &address, "--long-poll", "5s"]);
        command.args(["--people-listen", &format!("127.0.0.1:{}", self.people_port)]);
        change(&mut command);
        let control = self.spawn("control.log", &mut command);
        wait_until("the control plane listens", || TcpStream::connect(&address).is_ok());
        self.control = Some(control);
    }

    /// The agent's configuration, with one member.
    pub fn write_config(&self, more: &str) {
        let text = format!(
            "state_dir = \"state\"\nrecipient = \"{}\"\nlockd_program = \"{}\"\nmetrics_file = \"agent.prom\"\n{more}\n\
             [lockd]\nsocket = \"lockd.sock\"\n[[members]]\nname = \"edge-1\"\nadmin_socket = \"admin.sock\"\n",
            self.recipient,
            program("zen-lockd").display()
        );
        fs::write(self.path("agent.toml"), text).unwrap();
    }

    /// A new bundle for a cluster.
    pub fn bundle(&self, cluster: &str) -> PathBuf {
        self.bundle_at(cluster, self.port)
    }

    /// The same, with another port on loopback for the control plane.
    pub fn bundle_at(&self, cluster: &str, port: u16) -> PathBuf {
        let out = self.path(&format!("bundle-{cluster}.json"));
        let _ = fs::remove_file(&out);
        let url = format!("https://127.0.0.1:{port}");
        let (directory, file) = (self.text("control"), out.to_str().unwrap());
        run(
            "zen-control",
            &["bundle", "create", "--dir", &directory, "--cluster", cluster, "--url", &url, "--out", file],
        );
        out
    }

    /// Publishes a configuration for a cluster: one member, one secret.
    pub fn configure(&self, cluster: &str, spiffe_id: &str, node: &str) {
        let sealed = self.seal("edge", "webhooks", "github", "a secret");
        let input = serde_json::json!({
            "members": { "edge-1": { "spiffe_id": spiffe_id, "node": node } },
            "secrets": { "edge/webhooks/github": sealed },
        });
        fs::write(self.path("input.json"), input.to_string()).unwrap();
        let (directory, file) = (self.text("control"), self.text("input.json"));
        run("zen-control", &["configuration", "set", "--dir", &directory, "--cluster", cluster, &file]);
    }

    /// Base64 of a sealed file.
    pub fn seal(&self, namespace: &str, name: &str, key: &str, value: &str) -> String {
        use base64::prelude::{BASE64_STANDARD, Engine};
        fs::write(self.path("value.json"), serde_json::json!({ key: value }).to_string()).unwrap();
        let (json, out) = (self.text("value.json"), self.text("sealed"));
        run(
            "zen-lockd",
            &[
                "seal",
                "--recipient",
                &self.recipient,
                "--namespace",
                namespace,
                "--name",
                name,
                "--from-json",
                &json,
                "--out-dir",
                &out,
                "--replace",
            ],
        );
        let file = self.path(&format!("sealed/{namespace}/{name}/{key}.age"));
        BASE64_STANDARD.encode(fs::read(file).unwrap())
    }

    /// Runs a command of the agent.
    pub fn agent(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(AGENT);
        command.args(arguments).arg("--config").arg(self.path("agent.toml"));
        command.envs(self.environment.iter().cloned()).stdin(Stdio::null()).output().unwrap()
    }

    pub fn enroll(&self, bundle: &Path) -> Output {
        self.agent(&["enroll", "--bundle", bundle.to_str().unwrap()])
    }

    pub fn start_agent(&self) -> Process {
        self.start_agent_by(&["run"], |_| {})
    }

    /// A command of the agent that goes on for a while, with a change of it.
    pub fn start_agent_by(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Process {
        let mut command = Command::new(AGENT);
        command.args(arguments).args(["--config", &self.text("agent.toml")]);
        change(&mut command);
        self.spawn("agent.log", &mut command)
    }

    pub fn spawn(&self, log: &str, command: &mut Command) -> Process {
        let log = self.path(log);
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.envs(self.environment.iter().cloned());
        let child = command.stdin(Stdio::null()).stderr(file).spawn().unwrap();
        Process { child, log }
    }

    /// What `status` says, and whether all is well.
    pub fn status(&self) -> (String, bool) {
        let output = self.agent(&["status"]);
        (String::from_utf8(output.stdout).unwrap(), output.status.success())
    }

    /// Opens a secret as this user.
    pub fn open(&self, secret: &str) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let name = SecretName::parse(secret).unwrap();
        Client::connect(&self.path("lockd.sock"), Listener::RootOrSelf)?.open(&name)
    }

    /// A file of the member's generation in force.
    pub fn published(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path("state/members/edge-1/current").join(file)).ok()
    }

    /// A file of an identity's generation in force.
    pub fn identity(&self, name: &str, file: &str) -> String {
        fs::read_to_string(self.path("state/identities").join(name).join("current").join(file)).unwrap()
    }

    pub fn start_node(&self) -> Node {
        let socket = self.path("admin.sock");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let node = Node { refusal: Arc::default(), asked: Arc::default() };
        let (refusal, asked) = (Arc::clone(&node.refusal), Arc::clone(&node.asked));
        let current = self.path("state/members/edge-1/current");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                if length == 0 {
                    // Whoever asked was killed.
                    continue;
                }
                if request.starts_with(b"GET /") {
                    // It keeps no receipts and no dead letters.
                    let _ = write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
                    continue;
                }
                assert!(request[..length].starts_with(b"POST /reload HTTP/1.1\r\n"));
                let managed = fs::read_link(&current).unwrap();
                let managed = managed.to_str().unwrap().strip_prefix("gen-").unwrap().to_owned();
                let (status, body) = match &*refusal.lock().unwrap() {
                    Some(detail) => ("409 Conflict", format!("{{\"status\":409,\"detail\":\"{detail}\"}}\n")),
                    None => ("200 OK", format!("{{\"applied\":1,\"managed\":{managed}}}\n")),
                };
                let length = body.len();
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
                *asked.lock().unwrap() += 1;
            }
        });
        node
    }

    /// All files below a directory.
    pub fn files(&self, below: &str) -> Vec<PathBuf> {
        let mut folders = vec![self.path(below)];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                if metadata.is_dir() {
                    folders.push(path);
                } else if metadata.is_file() {
                    found.push(path);
                }
            }
        }
        found
    }
}

impl Process {
    /// An agent that has just started would be ended by a SIGHUP, so that waits until it is caught.
    pub fn signal(&self, signal: Signal) {
        if signal == Signal::SIGHUP {
            wait_until("SIGHUP is handled", || self.handles(signal));
        }
        kill(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        status.is_err() || status.is_ok_and(|text| text.rsplit(") ").next().unwrap().starts_with('Z'))
    }

    /// Waits until an agent has said so many times that it is ready.
    pub fn wait_ready(&self, times: usize) {
        wait_until("it is ready", || self.log().matches(" ready ").count() >= times);
    }

    /// Sends a signal as soon as it is caught.
    pub fn signal_when_ready(&self, signal: Signal) {
        wait_until("the signal is handled", || self.handles(signal));
        self.signal(signal);
    }

    /// Ends it as soon as it can be asked to, and says whether it ended well.
    pub fn stop(mut self) -> bool {
        wait_until("SIGTERM is handled", || self.handles(Signal::SIGTERM));
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap().success()
    }
}

impl Process {
    /// Whether a signal is caught or waited for, as `/proc/PID/status` says; a process that has ended needs none.
    pub fn handles(&self, signal: Signal) -> bool {
        let Ok(status) = fs::read_to_string(format!("/proc/{}/status", self.pid())) else { return true };
        let masks = status.lines().filter_map(|line| {
            let mask = line.strip_prefix("SigCgt:").or_else(|| line.strip_prefix("SigBlk:"))?;
            u64::from_str_radix(mask.trim(), 16).ok()
        });
        masks.fold(0, |all, mask| all | mask) & (1 << (signal as u64 - 1)) != 0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
