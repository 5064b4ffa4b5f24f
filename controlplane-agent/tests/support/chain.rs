//! The whole chain on loopback: a control plane, and two clusters of which each has a vault, an agent and a node.
//!
//! A source signs events, `edge` takes and sends them over the link, `core` delivers them to a target on a unix socket.
#![allow(dead_code, reason = "each test file uses what it needs")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use aws_lc_rs::hmac;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use zen_ports::free_address;

use crate::lab::{Lab, Process, program, run, wait_until};

const ENDPOINT: &str = "00112233445566778899aabbccddeeff";
pub const LINK: &str = "edge-core";

/// All of it.
pub struct Chain {
    pub edge: Site,
    pub core: Site,
    pub target: Target,
    pub source: Source,
    ports: [u16; 2],
}

/// A cluster on its host.
pub struct Site {
    pub lab: Lab,
    pub cluster: &'static str,
    pub agent: Option<Process>,
    pub node: Option<Process>,
}

/// What events are delivered to: bodies as they came.
pub struct Target {
    /// What it answers.
    pub status: Arc<AtomicU16>,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    pub secret: String,
}

/// What events come from.
pub struct Source {
    port: u16,
    tls: Arc<ClientConfig>,
    pub secret: String,
    pub key: String,
    certificate: String,
}

/// A secret that no other test has, with a mark in it.
fn marked(what: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let bytes = [0; 24].map(|_: u8| getrandom::u32().unwrap() as u8);
    let text: String = bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    format!("{what}-{}-{text}", COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Chain {
    /// Everything runs.
    pub fn start(more_of_agent: &str) -> Self {
        Self::start_in(more_of_agent, &[])
    }

    /// The same, with this in the environment of control plane, agents and nodes.
    pub fn start_in(more_of_agent: &str, environment: &[(OsString, OsString)]) -> Self {
        Self::start_by(more_of_agent, environment, |edge, _| edge.port)
    }

    /// The same, where agents find the control plane at the port that `between` says, of both hosts.
    pub fn start_by(
        more_of_agent: &str,
        environment: &[(OsString, OsString)],
        between: impl FnOnce(&Lab, &Lab) -> u16,
    ) -> Self {
        let (mut edge, mut core) = (Lab::new(), Lab::without_control());
        for lab in [&mut edge, &mut core] {
            lab.write_config(more_of_agent);
            lab.environment = environment.to_vec();
        }
        if !environment.is_empty() {
            edge.control.take();
            edge.start_control();
        }
        let port = between(&edge, &core);
        let source = Source::new();
        let target = Target::listen(&core);
        let site = |lab, cluster| Site { lab, cluster, agent: None, node: None };
        let ports = [source.port, free_address().port()];
        let mut chain = Self { edge: site(edge, "edge"), core: site(core, "core"), target, source, ports };
        for cluster in ["edge", "core"] {
            let bundle = chain.edge.lab.bundle_at(cluster, port);
            let site = chain.site(cluster);
            let output = site.lab.enroll(&bundle);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            site.agent = Some(site.lab.start_agent());
        }
        chain.configure(1);
        for cluster in ["edge", "core"] {
            chain.site(cluster).start_node();
        }
        chain
    }

    pub fn site(&mut self, cluster: &str) -> &mut Site {
        if cluster == "edge" { &mut self.edge } else { &mut self.core }
    }

    /// Publishes what both clusters run by.
    pub fn configure(&self, change: u32) {
        let links = json!({ LINK: { "sender": "edge", "receiver": "core" } });
        let seal = |lab: &Lab, name: &str, key: &str, value: &str| lab.seal("edge", name, key, value);
        let (edge, core) = (&self.edge.lab, &self.core.lab);
        let of_edge = json!({
            "edge/webhooks/source": seal(edge, "webhooks", "source", &self.source.secret),
            "edge/public/key": seal(edge, "public", "key", &self.source.key),
        });
        let of_core = json!({ "edge/targets/sink": seal(core, "targets", "sink", &self.target.secret) });
        self.set("edge", &self.edge_text(change), &of_edge, &links);
        self.set("core", &self.core_text(change), &of_core, &links);
    }

    fn set(&self, cluster: &str, node: &str, secrets: &Value, links: &Value) {
        let id = format!("spiffe://acme.example/{cluster}/node");
        let member = json!({ "edge-1": { "spiffe_id": id, "node": node } });
        let input = json!({ "members": member, "secrets": secrets, "link_keys": links });
        let lab = &self.edge.lab;
        fs::write(lab.path("input.json"), input.to_string()).unwrap();
        let (directory, file) = (lab.text("control"), lab.text("input.json"));
        run("zen-control", &["configuration", "set", "--dir", &directory, "--cluster", cluster, &file]);
    }

    fn edge_text(&self, change: u32) -> String {
        let lab = &self.edge.lab;
        fs::write(lab.path("public.pem"), &self.source.certificate).unwrap();
        let [public, link] = self.ports;
        format!(
            "{}[ingester]\nlisten = [\"127.0.0.1:{public}\"]\ncertificate_file = \"{}\"\n\
             private_key_file = \"lockd:edge/public/key\"\nlink_listen = \"127.0.0.1:{link}\"\n\
             flows = [{{ endpoint = \"{ENDPOINT}\", egress = \"core\", targets = [\"sink\"] }}]\n\
             [[ingester.endpoints]]\nid = \"{ENDPOINT}\"\ntenant = \"acme\"\nscheme = \"hmac\"\n\
             secret_files = [\"lockd:edge/webhooks/source\"]\nforward_headers = [\"x-marked\"]\n\
             [ingester.endpoints.hmac]\nheader = \"x-signature\"\n\
             [[ingester.egresses]]\nname = \"core\"\ndirection = \"egress-dials\"\n\
             spiffe_ids = [\"spiffe://acme.example/core/node\"]\n\
             key_id = \"{{{{link_key_id:{LINK}}}}}\"\nkey_file = \"{{{{link_key:{LINK}}}}}\"\n",
            common(lab, "edge", change),
            lab.text("public.pem")
        )
    }

    fn core_text(&self, change: u32) -> String {
        let lab = &self.core.lab;
        format!(
            "{}[egress]\n[egress.receipts]\nbytes_max = 16777216\ndigest_receipts_max = 5\n[[egress.ingesters]]\nname = \"edge\"\ndirection = \"egress-dials\"\n\
             address = \"127.0.0.1:{}\"\nspiffe_ids = [\"spiffe://acme.example/edge/node\"]\n\
             keys = \"{{{{link_keys:{LINK}}}}}\"\n\
             [[egress.targets]]\nname = \"sink\"\nurl = \"http://localhost/hooks\"\nunix_socket = \"{}\"\n\
             peer_uid = {}\nkey_id = \"sink-1\"\nsecret_file = \"lockd:edge/targets/sink\"\n",
            common(lab, "core", change),
            self.ports[1],
            lab.text("sink.sock"),
            geteuid()
        )
    }

    /// The number of the key that `edge` signs with, and those that `core` takes, in force at the nodes.
    pub fn link_keys(&self) -> (Option<u64>, Vec<u64>) {
        let numbers = |text: String| {
            let places = text.split("zen-link/edge-core/key-").skip(1).filter_map(|rest| {
                rest.split(|letter: char| !letter.is_ascii_digit()).next().unwrap().parse().ok()
            });
            places.collect::<Vec<u64>>()
        };
        let of = |site: &Site| site.lab.published("node.toml").map(numbers).unwrap_or_default();
        (of(&self.edge).pop(), of(&self.core))
    }

    /// Waits until events come through, and the key in use is one that the receiver confirmed.
    pub fn wait_linked(&self) {
        wait_until("the ingester signs with a key that the egress takes", || {
            let (key, taken) = self.link_keys();
            key.is_some_and(|key| taken.contains(&key))
        });
        for site in [&self.edge, &self.core] {
            wait_until("all is well", || site.lab.status().1);
        }
    }

    /// A new link key, in use at both ends; the one that was before.
    pub fn rotate(&self) -> u64 {
        let before = self.link_keys().0.unwrap();
        self.edge.order();
        wait_until("another link key is in use", || {
            let (key, taken) = self.link_keys();
            key.is_some_and(|key| key > before && taken.contains(&key))
        });
        before
    }
}

/// What both nodes have.
fn common(lab: &Lab, name: &str, change: u32) -> String {
    format!(
        "# {change}\n[node]\nname = \"{name}\"\ndata_dir = \"{}\"\nworkers = 1\npin_workers = false\n\
         link_pause_ms_max = 500\n[admin]\nsocket = \"{}\"\n[lockd]\nsocket = \"{}\"\n\
         [identity]\ncertificate_file = \"identity.pem\"\nprivate_key_file = \"{{{{private_key}}}}\"\n\
         trust_bundle_file = \"bundle.pem\"\ndeny_list_file = \"deny.json\"\ntrust_domain = \"acme.example\"\n",
        lab.text("data"),
        lab.text("admin.sock"),
        lab.text("lockd.sock")
    )
}

impl Site {
    /// Starts the node with what the agent has published for it.
    pub fn start_node(&mut self) {
        let lab = &self.lab;
        wait_until("a generation is published", || lab.published("node.toml").is_some());
        let managed = lab.text("state/members/edge-1");
        let mut command = Command::new(program("zen-dataplane"));
        let node = lab.spawn("node.log", command.args(["--managed", &managed]));
        let ready = || {
            let mut stream = std::os::unix::net::UnixStream::connect(lab.path("admin.sock")).ok()?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        };
        wait_until("the node is ready", || {
            assert!(!node.has_ended(), "the node has ended:\n{}", node.log());
            ready().is_some()
        });
        self.node = Some(node);
    }

    /// The agent makes everything anew, as soon as it can be told so.
    pub fn order(&self) {
        let agent = self.agent.as_ref().unwrap();
        wait_until("SIGHUP is handled", || agent.handles(Signal::SIGHUP));
        assert!(!agent.has_ended(), "{}", agent.log());
        agent.signal(Signal::SIGHUP);
    }

    pub fn stop_node(&mut self) {
        assert!(self.node.take().unwrap().stop(), "the node drains");
    }
}

impl Target {
    fn listen(lab: &Lab) -> Self {
        let listener = UnixListener::bind(lab.path("sink.sock")).unwrap();
        let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let kept = Arc::clone(&bodies);
        let status = Arc::new(AtomicU16::new(200));
        let answers = Arc::clone(&status);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, kept, answers) = (stream.unwrap(), Arc::clone(&kept), Arc::clone(&answers));
                thread::spawn(move || {
                    while let Some(body) = request(&mut stream) {
                        let status = answers.load(Ordering::Relaxed);
                        if status == 200 {
                            kept.lock().unwrap().push(body);
                        }
                        if write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { status, bodies, secret: whsec() }
    }

    /// How often each body came, and was taken.
    pub fn counts(&self) -> BTreeMap<Vec<u8>, usize> {
        let mut counts = BTreeMap::new();
        for body in self.bodies.lock().unwrap().iter() {
            *counts.entry(body.clone()).or_insert(0) += 1;
        }
        counts
    }

    /// Bodies that came, each once.
    pub fn bodies(&self) -> BTreeSet<Vec<u8>> {
        self.bodies.lock().unwrap().iter().cloned().collect()
    }
}

/// The body of the next request.
fn request(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..at]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let end = at + 4 + length.map_or(0, |length| length.trim().parse::<usize>().unwrap());
            if read.len() >= end {
                return Some(read[at + 4..end].to_vec());
            }
        }
        let length = stream.read(&mut piece).ok().filter(|length| *length > 0)?;
        read.extend_from_slice(&piece[..length]);
    }
}

fn whsec() -> String {
    use base64::prelude::{BASE64_STANDARD, Engine};
    format!("whsec_{}", BASE64_STANDARD.encode([0; 32].map(|_: u8| getrandom::u32().unwrap() as u8)))
}

impl Source {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.pem();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        let tls = ClientConfig::builder_with_provider(zen_identity::provider());
        let tls = tls.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let tls = Arc::new(tls.with_no_client_auth());
        let key = made.signing_key.serialize_pem();
        Self { port: free_address().port(), tls, secret: marked("source-secret"), key, certificate }
    }

    /// The status of the answer to an event.
    pub fn send(&self, body: &[u8], header: &str) -> Option<u16> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        let signature = hmac::sign(&key, body);
        let signature: String = signature.as_ref().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let server = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.tls), server).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", self.port)).ok()?);
        let head = format!(
            "POST /hooks/{ENDPOINT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\
             x-signature: {signature}\r\nx-marked: {header}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
        let mut answer = Vec::new();
        // The end may come without a farewell.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
    }
}
