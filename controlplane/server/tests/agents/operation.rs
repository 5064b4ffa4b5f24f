//! A server in operation: settings of a file, metrics, an end in order, many agents, a copy that comes back.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use zen_control::{Directory, Subject, deny, restore};
use zen_control_api::{CONFIGURATION, Configuration, EnrollmentBundle, ProblemType, SignedConfiguration};
use zen_ports::free_address;

use crate::client::{Agent, Connection, csr, enroll, new_key};
use crate::lab::{Lab, TRUST_DOMAIN, now_ms};

const AGENTS: usize = 100;

/// The program, with its settings in a file; killed when dropped.
struct Server {
    child: Child,
    files: tempfile::TempDir,
    address: SocketAddr,
}

impl Server {
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let (address, people) = (free_address(), free_address());
        let settings = format!(
            "directory = \"state\"\nlog = \"warn\"\n[agents]\nlisten = \"{address}\"\nlong_poll_seconds = 60\n\
             [people]\nlisten = \"{people}\"\n[metrics]\nsocket = \"metrics.sock\"\n"
        );
        std::fs::write(files.path().join("control.toml"), settings).unwrap();
        good(files.path(), &["init", "--dir", "state", "--trust-domain", TRUST_DOMAIN, "--tenant", "acme"]);
        let child = start(files.path());
        Self { child, files, address }
    }

    async fn listening() -> Self {
        let server = Self::new();
        server.wait().await;
        server
    }

    async fn wait(&self) {
        for _ in 0..3000 {
            if tokio::net::TcpStream::connect(self.address).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the server does not listen");
    }

    fn at(&self) -> &Path {
        self.files.path()
    }

    fn bundle(&self, cluster: &str) -> EnrollmentBundle {
        let (url, out) = (format!("https://{}", self.address), format!("{cluster}.bundle"));
        let named = ["--cluster", cluster, "--url", &url, "--out", &out];
        good(self.at(), &[&["bundle", "create", "--dir", "state"], &named[..]].concat());
        EnrollmentBundle::decode(&std::fs::read(self.at().join(out)).unwrap()).unwrap()
    }

    fn configure(&self, cluster: &str) -> String {
        let member = format!(r#"{{"spiffe_id": "spiffe://{TRUST_DOMAIN}/{cluster}/a", "node": ""}}"#);
        std::fs::write(self.at().join("input.json"), format!(r#"{{"members": {{"a": {member}}}}}"#)).unwrap();
        good(self.at(), &["configuration", "set", "--dir", "state", "--cluster", cluster, "input.json"])
    }

    /// SIGTERM, as systemd does it.
    fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    async fn wait_metric(&self, line: &str) {
        for _ in 0..3000 {
            if self.metrics().lines().any(|found| found == line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never: {line}");
    }

    fn metrics(&self) -> String {
        let mut stream = UnixStream::connect(self.at().join("metrics.sock")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(files: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zen-control"));
    command.args(["run", "--config"]).arg(files.join("control.toml")).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn run(at: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zen-control")).args(arguments).current_dir(at).output().unwrap()
}

fn good(at: &Path, arguments: &[&str]) -> String {
    let output = run(at, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn bad(at: &Path, arguments: &[&str]) -> String {
    let output = run(at, arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

async fn version(connection: &mut Connection, bundle: &EnrollmentBundle, after: u64) -> Configuration {
    let answer = connection.get(&format!("{CONFIGURATION}?after={after}")).await.unwrap();
    let signed: SignedConfiguration = answer.read();
    signed.verify(&bundle.configuration_key, ("acme", "edge"), after).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_answered_when_the_server_ends() {
    let mut server = Server::listening().await;
    let agent = Agent::enroll(server.address, &server.bundle("edge")).await;
    let mut waiting = agent.connect(server.address).await.unwrap();
    waiting.send("GET", &format!("{CONFIGURATION}?after=0"), b"").await.unwrap();
    let mut idle = agent.connect(server.address).await.unwrap();
    assert_eq!(idle.get("/healthz").await.unwrap().status, 200);
    server.wait_metric("zen_control_waiting 1").await;
    server.terminate();
    let answer = waiting.answer().await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert!(idle.get("/healthz").await.is_err(), "an idle connection is closed");
    assert!(server.child.wait().unwrap().success());
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_say_what_happened() {
    let server = Server::listening().await;
    let bundle = server.bundle("edge");
    let agent = Agent::enroll(server.address, &bundle).await;
    assert_eq!(
        enroll(server.address, &bundle, &csr(&new_key())).await.problem(),
        ProblemType::BundleConsumed
    );
    server.configure("edge");
    let mut connection = agent.connect(server.address).await.unwrap();
    version(&mut connection, &bundle, 0).await;
    assert_eq!(connection.get("/label=1").await.unwrap().problem(), ProblemType::NotFound);
    let text = server.metrics();
    for line in [
        "zen_control_connections 1",
        "zen_control_clusters 1",
        "zen_control_clusters_behind 1",
        "zen_control_identities_locked 0",
        "zen_control_handshakes_total{outcome=\"ok\"} 3",
        "zen_control_requests_total{route=\"enroll\",outcome=\"ok\"} 1",
        "zen_control_requests_total{route=\"enroll\",outcome=\"bundle_consumed\"} 1",
        "zen_control_requests_total{route=\"configuration\",outcome=\"ok\"} 1",
        "zen_control_requests_total{route=\"none\",outcome=\"not_found\"} 1",
        "zen_control_alarms_total{alarm=\"bundle_consumed\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_comes_back_ahead_of_what_agents_have() {
    let mut server = Server::listening().await;
    let bundle = server.bundle("edge");
    let agent = Agent::enroll(server.address, &bundle).await;
    let open = server.bundle("later");
    server.configure("edge");
    good(server.at(), &["backup", "--dir", "state", "--out", "copy.db"]);
    for _ in 0..3 {
        server.configure("edge");
    }
    let mut connection = agent.connect(server.address).await.unwrap();
    assert_eq!(version(&mut connection, &bundle, 0).await.version, 4);
    server.configure("unknown");

    let restored = ["restore", "--dir", "state", "--from", "copy.db"];
    assert!(bad(server.at(), &restored).contains("in use"), "a server runs in it");
    server.terminate();
    assert!(server.child.wait().unwrap().success());
    std::fs::write(server.at().join("torn.db"), &std::fs::read(server.at().join("copy.db")).unwrap()[..9000])
        .unwrap();
    assert!(bad(server.at(), &["restore", "--dir", "state", "--from", "torn.db"]).contains("torn.db"));
    assert!(bad(server.at(), &["restore", "--dir", "state", "--from", "none.db"]).contains("none.db"));
    let said = good(server.at(), &restored);
    assert!(said.contains("1 clusters") && said.contains("1 bundles were open"), "{said}");
    assert!(server.at().join("state/control.db.old").exists());

    server.child = start(server.at());
    server.wait().await;
    let mut connection = agent.connect(server.address).await.unwrap();
    let first = version(&mut connection, &bundle, 4).await.version;
    assert!(first > 1 << 32, "{first}");
    assert_eq!(enroll(server.address, &open, &csr(&new_key())).await.problem(), ProblemType::BundleExpired);
    let next = server.configure("unknown");
    assert_eq!(
        next,
        format!("unknown has version {}\n", (1_u64 << 32) + 1),
        "its agent may have had version 1"
    );
    assert!(agent.renewed(server.address).await.generation == 2, "it goes on");
}

#[test]
fn a_copy_of_something_else_changes_nothing() {
    let files = tempfile::tempdir().unwrap();
    let at = files.path();
    good(at, &["init", "--dir", "state", "--trust-domain", TRUST_DOMAIN, "--tenant", "acme"]);
    let before = std::fs::read(at.join("state/control.db")).unwrap();
    for (name, bytes) in
        [("empty", Vec::new()), ("text", b"not a database, but long enough to be one".repeat(200))]
    {
        std::fs::write(at.join(name), bytes).unwrap();
        let from: PathBuf = at.join(name);
        assert!(restore(&at.join("state"), &from, now_ms()).is_err(), "{name}");
    }
    assert_eq!(std::fs::read(at.join("state/control.db")).unwrap(), before);
    let held = Directory::open(&at.join("state")).unwrap();
    assert!(restore(&at.join("state"), &at.join("state/control.db"), now_ms()).is_err());
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_reaches_a_hundred_connected_agents_and_ends_one_of_them() {
    let lab = Lab::start_with(Duration::from_mins(1)).await;
    let (mut waiting, mut keys) = (Vec::new(), Vec::new());
    let mut denied = None;
    for index in 0..AGENTS {
        let cluster = format!("c{index}");
        let bundle = lab.bundle(&cluster);
        let agent = Agent::enroll(lab.address, &bundle).await;
        lab.configure(&cluster);
        let mut connection = agent.connect(lab.address).await.unwrap();
        connection.send("GET", &format!("{CONFIGURATION}?after=1"), b"").await.unwrap();
        waiting.push(connection);
        keys.push((cluster, bundle.configuration_key));
        denied.get_or_insert(agent);
    }
    let subject = Subject::Id(format!("spiffe://{TRUST_DOMAIN}/agent/c0"));
    deny(&lab.directory, &mut lab.database(), &subject, (None, None), now_ms()).unwrap();
    let mut waiting = waiting.into_iter();
    let mut first = waiting.next().unwrap();
    assert_eq!(first.answer().await.unwrap().problem(), ProblemType::Forbidden);
    assert!(first.get("/healthz").await.is_err(), "its connection is closed");
    for (mut connection, (cluster, key)) in waiting.zip(&keys[1..]) {
        let signed: SignedConfiguration = connection.answer().await.unwrap().read();
        let configuration = signed.verify(key, ("acme", cluster), 1).unwrap();
        assert!(configuration.deny_list.contains("/agent/c0\""), "{}", configuration.deny_list);
    }
    // TLS 1.3: the client is through before the server has looked at its certificate.
    let refused = match denied.unwrap().connect(lab.address).await {
        Ok(mut connection) => connection.get("/healthz").await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "its next handshake is refused");
}
