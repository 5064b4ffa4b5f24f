//! A control plane that says what a test wants: other lives, lies, refusals.
#![allow(dead_code, reason = "each test file uses what it needs")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateSigningRequestParams, KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use zen_control_api::{
    CaPin, CertificateAnswer, CertificateRequest, Configuration, EnrollmentBundle, EnrollmentRequest, Hex16,
    NonceAnswer, ProblemType, SignedConfiguration, SigningKey,
};
use zen_identity::{PrivateKeySource, SvidFiles, SvidStore, TrustDomain, public_key_hash};

use crate::support::{AGENT_ID, Authority, TRUST_DOMAIN};

/// What it says; a test changes it while it runs.
pub struct Says {
    pub authority: Authority,
    pub signer: SigningKey,
    /// Of leaves, ms.
    pub life_ms: u64,
    /// How far its clock is ahead, ms.
    pub ahead_ms: i64,
    /// The next answers to questions for a configuration.
    pub configurations: VecDeque<SignedConfiguration>,
    /// Certificates are refused until so many seconds are over.
    pub busy_s: Option<u64>,
    /// Ids of members by name are this and the name.
    pub generation: u64,
    /// Answers that get lost on the way: so many more.
    pub lost_answers: u32,
    /// Each request: the target and the body.
    pub requests: Vec<(String, Vec<u8>)>,
}

/// A listener on loopback.
pub struct Fake {
    pub says: Arc<Mutex<Says>>,
    pub port: u16,
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

impl Fake {
    /// With its files in a directory.
    pub fn start(directory: &Path) -> Self {
        let authority = Authority::new();
        let key = KeyPair::generate().unwrap();
        let public = SubjectPublicKeyInfo::from_der(&key.subject_public_key_info()).unwrap();
        let control = format!("spiffe://{TRUST_DOMAIN}/control");
        let leaf = authority.certify(&public, &control, now_ms() - 60_000);
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let store = SvidStore::load(SvidFiles {
            certificate_file: file("fake.pem", &format!("{leaf}{}", authority.roots())),
            private_key: PrivateKeySource::File(file("fake.key", &key.serialize_pem())),
            trust_bundle_file: file("fake-roots.pem", &authority.roots()),
            trust_domain: TrustDomain::parse(TRUST_DOMAIN).unwrap(),
        });
        let acceptor = TlsAcceptor::from(store.unwrap().agent_server_config(&[b"http/1.1"]).unwrap());
        let says = Says {
            authority,
            signer: SigningKey::generate(),
            life_ms: 36 * 3_600_000,
            ahead_ms: 0,
            configurations: VecDeque::new(),
            busy_s: None,
            generation: 0,
            lost_answers: 0,
            requests: Vec::new(),
        };
        let says = Arc::new(Mutex::new(says));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::clone(&says);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (acceptor, says) = (acceptor.clone(), Arc::clone(&shared));
                    tokio::spawn(async move {
                        if let Ok(mut stream) = acceptor.accept(stream).await {
                            while serve(&mut stream, &says).await.is_some() {}
                        }
                    });
                }
            });
        });
        Self { says, port }
    }

    /// A bundle for `edge`, in a file.
    pub fn bundle(&self, file: &Path) {
        let says = self.says.lock().unwrap();
        let root = CertificateDer::from_pem_slice(says.authority.roots().as_bytes()).unwrap();
        let pins = vec![CaPin(public_key_hash(&root).unwrap())];
        let places = (vec![format!("https://127.0.0.1:{}", self.port)], pins);
        let names = (Hex16([1; 16]), "acme", "edge");
        let key = says.signer.public();
        let expires_at_ms = now_ms() + 3_600_000;
        let bundle =
            EnrollmentBundle::new(&SigningKey::generate(), names, TRUST_DOMAIN, places, key, expires_at_ms);
        fs::write(file, bundle.unwrap().encode().as_bytes()).unwrap();
    }

    /// Answers the next question with a configuration, signed.
    pub fn publish(&self, configuration: &Configuration) {
        let mut says = self.says.lock().unwrap();
        let signed = SignedConfiguration::sign(configuration, &says.signer);
        says.configurations.push_back(signed);
    }

    /// How often a target was asked for.
    pub fn asked(&self, target: &str) -> usize {
        let says = self.says.lock().unwrap();
        says.requests.iter().filter(|(asked, _)| asked.starts_with(target)).count()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, says: &Mutex<Says>) -> Option<()> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(read[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    while read.len() < end + length {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
    let target = head.split(' ').nth(1).unwrap().to_owned();
    let body = read.split_off(end);
    says.lock().unwrap().requests.push((target.clone(), body.clone()));
    if target.starts_with("/agent/v1/configuration") && says.lock().unwrap().configurations.is_empty() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (status, more, text) = says.lock().unwrap().answer(&target, &body)?;
    let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n{more}\r\n", text.len());
    let head = if status == 204 { format!("HTTP/1.1 204 x\r\n{more}\r\n") } else { head };
    stream.write_all(&[head.as_bytes(), &text].concat()).await.ok()
}

impl Says {
    /// Status, more of the head, body; none closes without a word.
    fn answer(&mut self, target: &str, body: &[u8]) -> Option<(u16, String, Vec<u8>)> {
        let server_time_ms = now_ms().saturating_add_signed(self.ahead_ms);
        let json =
            |status, value: serde_json::Value| Some((status, String::new(), value.to_string().into_bytes()));
        let path = target.split('?').next().unwrap();
        match path {
            "/v1/agents/bootstrap/nonce" => {
                let nonce = NonceAnswer { nonce: zen_control_api::Base64([9; 32]), server_time_ms };
                json(200, serde_json::to_value(nonce).unwrap())
            }
            "/v1/agents/bootstrap" => {
                let request: EnrollmentRequest = serde_json::from_slice(body).unwrap();
                json(201, self.certify(&request.csr, AGENT_ID, server_time_ms))
            }
            "/agent/v1/certificates" => {
                if let Some(seconds) = self.busy_s {
                    let problem = serde_json::to_vec(&ProblemType::Busy.with("later")).unwrap();
                    return Some((429, format!("Retry-After: {seconds}\r\n"), problem));
                }
                let request: CertificateRequest = serde_json::from_slice(body).unwrap();
                let id = request.member.as_ref().map_or(AGENT_ID.to_owned(), |name| member_id(name));
                let answer = self.certify(&request.csr, &id, server_time_ms);
                if self.lost_answers > 0 {
                    self.lost_answers -= 1;
                    return None;
                }
                json(201, answer)
            }
            "/agent/v1/configuration" => match self.configurations.pop_front() {
                Some(signed) => json(200, serde_json::to_value(signed).unwrap()),
                None => Some((204, String::new(), Vec::new())),
            },
            "/agent/v1/status" => Some((204, String::new(), Vec::new())),
            // It is of a version that has no audit log, no orders and no deliveries.
            "/agent/v1/sync" | "/agent/v1/receipts" | "/agent/v1/deliveries" | "/agent/v1/dead-letters" => {
                json(404, serde_json::to_value(ProblemType::NotFound.with("no such route")).unwrap())
            }
            other => panic!("{other}"),
        }
    }

    fn certify(&mut self, csr: &str, id: &str, server_time_ms: u64) -> serde_json::Value {
        let request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let from_ms = now_ms() - 1000;
        let life = (from_ms, from_ms + self.life_ms);
        self.generation += 1;
        let answer = CertificateAnswer {
            certificate_chain: self.authority.certify_until(&request.public_key, id, life),
            trust_bundle: self.authority.roots(),
            generation: self.generation,
            server_time_ms,
        };
        serde_json::to_value(answer).unwrap()
    }
}

pub fn member_id(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ingester/{name}")
}
