//! Stands between agents and the control plane and writes down, in the clear, all that either says.
//!
//! It can, because the test has the keys of both ends: it shows the control plane's own `server.pem`, and comes to the control
//! plane with the identity of the agent that came to it, opened from that agent's lockd. An enrollment is bound to its
//! connection, so its signature, 64 bytes, is made anew with the bundle's key; all else goes on as it came.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use zen_control_api::{
    ENROLL, EXPORTER_BYTES, EXPORTER_LABEL, EnrollmentBundle, EnrollmentProof, EnrollmentRequest,
};
use zen_identity::{
    AgentPeer, PrivateKeySource, PrivateKeyVault, SvidFiles, SvidStore, TrustDomain, agent_peer,
    enrollment_client_config, spiffe_server_name,
};
use zen_lock::{Client, Listener, SecretName};
use zeroize::Zeroizing;

use crate::lab::TRUST_DOMAIN;

const ALPN: &[&[u8]] = &[b"http/1.1"];

/// A listener on loopback, which runs until the test ends.
pub struct Relay {
    pub port: u16,
    recorded: Arc<Mutex<Vec<u8>>>,
}

/// Where the relay finds what it needs.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The control plane's directory.
    pub control: PathBuf,
    pub control_port: u16,
    /// Of each agent, its cluster, and the directory of its host.
    pub hosts: Vec<(String, PathBuf)>,
}

/// An agent's key, in its lockd.
#[derive(Debug)]
struct KeyInLockd {
    socket: PathBuf,
    name: SecretName,
}

impl PrivateKeyVault for KeyInLockd {
    fn open(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut client = Client::connect(&self.socket, Listener::RootOrSelf).map_err(io::Error::other)?;
        client.open(&self.name).map_err(io::Error::other)
    }
}

impl std::fmt::Display for KeyInLockd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.name)
    }
}

impl Relay {
    pub fn start(ends: Ends) -> Self {
        let server = ends.control.join("server.pem");
        let store = SvidStore::load(SvidFiles {
            certificate_file: server.clone(),
            private_key: PrivateKeySource::File(server),
            trust_bundle_file: ends.control.join("roots.pem"),
            trust_domain: TrustDomain::parse(TRUST_DOMAIN).unwrap(),
        });
        let acceptor = TlsAcceptor::from(store.unwrap().agent_server_config(ALPN).unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let recorded: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = Arc::clone(&recorded);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (acceptor, ends, kept) = (acceptor.clone(), ends.clone(), Arc::clone(&kept));
                    // Either end may go at any time; what it said until then is written down.
                    tokio::spawn(async move {
                        let _ = relay(stream, acceptor, ends, &kept).await;
                    });
                }
            });
        });
        Self { port, recorded }
    }

    /// All that was said so far.
    pub fn recorded(&self) -> Vec<u8> {
        self.recorded.lock().unwrap().clone()
    }
}

/// The identity of the agent whose host has this directory, as it is now.
pub fn identity_of(host: &Path) -> Arc<SvidStore> {
    let current = host.join("state/identities/agent/current");
    let record = std::fs::read(current.join("record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let name = SecretName::parse(&format!("zen/agent/key-{}", record["key"])).unwrap();
    let files = SvidFiles {
        certificate_file: current.join("identity.pem"),
        private_key: PrivateKeySource::Vault(Arc::new(KeyInLockd { socket: host.join("lockd.sock"), name })),
        trust_bundle_file: current.join("bundle.pem"),
        trust_domain: TrustDomain::parse(TRUST_DOMAIN).unwrap(),
    };
    SvidStore::load(files).unwrap()
}

async fn relay(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    ends: Ends,
    recorded: &Mutex<Vec<u8>>,
) -> io::Result<()> {
    let mut agent = acceptor.accept(stream).await?;
    let peer = agent_peer(agent.get_ref().1.peer_certificates()).unwrap();
    let mut bundle = None;
    let config = match &peer {
        AgentPeer::Svid(svid) => {
            let cluster = svid.id.segments().last().unwrap();
            let (_, host) = ends.hosts.iter().find(|(name, _)| name == cluster).unwrap();
            identity_of(host).control_client_config(ALPN).unwrap()
        }
        AgentPeer::BundleKey(key) => {
            let bundles = ends.hosts.iter().filter_map(|(cluster, _)| {
                let file = ends.control.parent().unwrap().join(format!("bundle-{cluster}.json"));
                EnrollmentBundle::decode(&std::fs::read(file).ok()?).ok()
            });
            let found = bundles.into_iter().find(|bundle| bundle.key().public().0.0 == *key).unwrap();
            let pins: Vec<[u8; 32]> = found.ca_pins.iter().map(|pin| pin.0).collect();
            let domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
            let config = enrollment_client_config(found.key().seed(), &pins, &domain, ALPN).unwrap();
            bundle = Some(found);
            config
        }
    };
    let stream = TcpStream::connect(("127.0.0.1", ends.control_port)).await?;
    let mut control = TlsConnector::from(config).connect(spiffe_server_name(), stream).await?;
    let mut exporter = [0; EXPORTER_BYTES];
    control.get_ref().1.export_keying_material(&mut exporter, EXPORTER_LABEL, None).unwrap();
    while let Some(request) = message(&mut agent).await? {
        let request = match &bundle {
            Some(bundle) => proved(request, bundle, &exporter),
            None => request,
        };
        recorded.lock().unwrap().extend(&request);
        control.write_all(&request).await?;
        let Some(answer) = message(&mut control).await? else { break };
        recorded.lock().unwrap().extend(&answer);
        agent.write_all(&answer).await?;
    }
    control.shutdown().await?;
    agent.shutdown().await
}

/// The same enrollment, proved for our connection.
fn proved(request: Vec<u8>, bundle: &EnrollmentBundle, exporter: &[u8; EXPORTER_BYTES]) -> Vec<u8> {
    if !request.starts_with(format!("POST {ENROLL} ").as_bytes()) {
        return request;
    }
    let body = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut said: EnrollmentRequest = serde_json::from_slice(&request[body..]).unwrap();
    let proof = EnrollmentProof {
        bundle_id: said.bundle_id,
        nonce: &said.nonce,
        csr: &said.csr,
        binding_key: &said.binding_key,
        exporter,
    };
    said.signature = proof.sign(&bundle.key());
    let text = serde_json::to_vec(&said).unwrap();
    assert_eq!(text.len(), request.len() - body, "a signature is as long as another");
    [&request[..body], &text].concat()
}

/// The next request or answer, whole, or nothing at the end.
async fn message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut read = Vec::new();
    loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..at]).to_lowercase();
            assert!(!head.contains("transfer-encoding"), "lengths are said: {head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.map_or(0, |length| length.trim().parse::<usize>().unwrap());
            if read.len() >= at + 4 + length {
                assert_eq!(read.len(), at + 4 + length, "one message at a time");
                return Ok(Some(read));
            }
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
    }
}
