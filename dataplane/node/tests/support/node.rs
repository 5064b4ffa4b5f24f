//! The real binary as a process: start, signals, log, admin answers and metrics.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longest that anything expected of a node may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running node; killed when dropped, its log shown if the test panics.
pub struct Node {
    child: Child,
    admin: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts a node and waits until it is ready.
    pub fn start(config: &Path, admin: SocketAddr) -> Self {
        let mut node = Self::spawn(config, admin);
        node.wait_ready();
        node
    }

    /// Starts a node with the generation that an agent published in `directory`, and waits until it is ready.
    pub fn start_managed(directory: &Path, admin: SocketAddr) -> Self {
        let mut command = command();
        command.arg("--managed").arg(directory);
        let mut node = Self::spawn_by(command, admin);
        node.wait_ready();
        node
    }

    /// Starts a node with more in its environment, and waits until it is ready.
    pub fn start_with(config: &Path, admin: SocketAddr, environment: &[(&str, OsString)]) -> Self {
        let mut command = command();
        command.envs(environment.iter().map(|(name, value)| (name, value))).arg("--config").arg(config);
        let mut node = Self::spawn_by(command, admin);
        node.wait_ready();
        node
    }

    /// Starts a node by the shell, in a mount namespace of its own, after `script`; waits until it is ready. Needs root.
    pub fn start_behind(script: &str, config: &Path, admin: SocketAddr) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", &format!("{script}\nexec \"$@\""), "sh"]);
        command.arg(env!("CARGO_BIN_EXE_zen-dataplane")).stdin(Stdio::null()).arg("--config").arg(config);
        let mut node = Self::spawn_by(command, admin);
        node.wait_ready();
        node
    }

    /// Starts a node by the shell, which gets its command as `"$@"`, without waiting.
    pub fn spawn_behind(script: &str, config: &Path, admin: SocketAddr) -> Self {
        let mut command = Command::new("sh");
        command.args(["-ec", script, "sh", env!("CARGO_BIN_EXE_zen-dataplane")]).stdin(Stdio::null());
        command.arg("--config").arg(config);
        Self::spawn_by(command, admin)
    }

    /// Starts a node without waiting.
    pub fn spawn(config: &Path, admin: SocketAddr) -> Self {
        let mut command = command();
        command.arg("--config").arg(config);
        Self::spawn_by(command, admin)
    }

    fn spawn_by(mut command: Command, admin: SocketAddr) -> Self {
        command.arg("--io").arg(io());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        let reader = thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, admin, log, reader: Some(reader) }
    }

    /// Waits for `/readyz`.
    pub fn wait_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.try_get("/readyz").is_none_or(|(status, _)| status != 200) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the node ended while starting: {status}\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the node is not ready\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log holds `text`.
    pub fn wait_log(&self, text: &str) {
        wait_until(&format!("\"{text}\" in the log"), || self.log().contains(text));
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// SIGTERM, and the exit status after the drain.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// SIGKILL: nothing is finished.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end, and for all that was written until then.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.reader.take().into_iter().for_each(|reader| reader.join().unwrap());
                return status;
            }
            assert!(Instant::now() < deadline, "the node does not end\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Status and body of an admin page.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).unwrap_or_else(|| panic!("no answer to {path}\n{}", self.log()))
    }

    /// Sum of a metric over its labels, or one series if `name` has its labels; 0 if it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let family = series.split('{').next()?;
            (series == name || family == name).then(|| value.parse::<f64>().unwrap())
        });
        values.sum()
    }

    /// Waits until a metric is at least `least`.
    pub fn wait_metric(&self, name: &str, least: f64) {
        wait_until(&format!("{name} >= {least}"), || self.metric(name) >= least);
    }

    fn try_get(&self, path: &str) -> Option<(u16, String)> {
        let stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        get(stream, path)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of the node ---\n{}", self.log());
        }
    }
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().unwrap()
}

/// Asks the admin socket at `path`.
pub fn get_unix(socket: &Path, path: &str) -> Option<(u16, String)> {
    get(UnixStream::connect(socket).ok()?, path)
}

/// Gives an order over the admin socket at `path`.
pub fn post_unix(socket: &Path, path: &str, body: &str) -> Option<(u16, String)> {
    ask(UnixStream::connect(socket).ok()?, "POST", path, body)
}

/// Gives an order over loopback, where none is taken.
pub fn post(admin: SocketAddr, path: &str) -> Option<(u16, String)> {
    ask(TcpStream::connect(admin).ok()?, "POST", path, "")
}

/// Waits until `is_so` holds.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What drives the nodes of the tests, so that all of them can be run on each backend.
pub fn io() -> String {
    std::env::var("ZEN_TEST_IO").unwrap_or_else(|_| "uring".to_owned())
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zen-dataplane"));
    command.stdin(Stdio::null());
    command
}

fn get(stream: impl Read + Write, path: &str) -> Option<(u16, String)> {
    ask(stream, "GET", path, "")
}

fn ask(mut stream: impl Read + Write, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}
