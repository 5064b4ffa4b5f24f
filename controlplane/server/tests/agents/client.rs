//! A small agent: TLS, one HTTP/1.1 request at a time, keys and requests for certificates.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::TLS13;
use zen_control_api::{
    CERTIFICATES, CertificateAnswer, CertificateRequest, ENROLL, EXPORTER_LABEL, EnrollmentAnswer,
    EnrollmentBundle, EnrollmentProof, EnrollmentRequest, NONCE, NonceAnswer, PROBLEM_CONTENT_TYPE, Problem,
    ProblemType, SigningKey,
};
use zen_identity::{
    PrivateKeySource, SvidFiles, SvidStore, TrustDomain, enrollment_client_config, spiffe_server_name,
};

use crate::lab::TRUST_DOMAIN;

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The object of a success.
    pub fn read<T: DeserializeOwned>(&self) -> T {
        assert!((200..300).contains(&self.status), "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Which problem it is; that it is one, as documented, is checked.
    pub fn problem(&self) -> ProblemType {
        assert_eq!(self.content_type, PROBLEM_CONTENT_TYPE, "{}", String::from_utf8_lossy(&self.body));
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!((problem.status, self.status), (problem.kind.status(), problem.kind.status()));
        assert_ne!(problem.kind, ProblemType::Internal, "nothing that a client sends is our fault");
        problem.kind
    }
}

/// A connection to the control plane.
pub struct Connection {
    stream: TlsStream<TcpStream>,
}

impl Connection {
    pub async fn with_bundle(address: SocketAddr, bundle: &EnrollmentBundle) -> io::Result<Self> {
        Self::with_seed(address, bundle, bundle.key().seed()).await
    }

    pub async fn with_seed(
        address: SocketAddr,
        bundle: &EnrollmentBundle,
        seed: &[u8; 32],
    ) -> io::Result<Self> {
        let pins: Vec<[u8; 32]> = bundle.ca_pins.iter().map(|pin| pin.0).collect();
        let trust_domain = TrustDomain::parse(&bundle.trust_domain).unwrap();
        let config = enrollment_client_config(seed, &pins, &trust_domain, &[b"http/1.1"]).unwrap();
        Self::open(address, config).await
    }

    pub async fn with_svid(address: SocketAddr, store: &Arc<SvidStore>) -> io::Result<Self> {
        Self::open(address, store.control_client_config(&[b"http/1.1"]).unwrap()).await
    }

    pub async fn open(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        let stream = TlsConnector::from(config).connect(spiffe_server_name(), socket).await?;
        Ok(Self { stream })
    }

    pub fn port(&self) -> u16 {
        self.stream.get_ref().0.local_addr().unwrap().port()
    }

    pub fn exporter(&self) -> [u8; 32] {
        self.stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap()
    }

    pub async fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send("GET", path, b"").await?;
        self.answer().await
    }

    pub async fn post(&mut self, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.send("POST", path, body).await?;
        self.answer().await
    }

    pub async fn send(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<()> {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        self.stream.write_all(&[head.as_bytes(), body].concat()).await?;
        self.stream.flush().await
    }

    pub async fn answer(&mut self) -> io::Result<Answer> {
        let mut text = Vec::new();
        loop {
            if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(text[..end].to_vec()).unwrap().to_lowercase();
                let header = |name: &str| {
                    let line = head.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().trim().to_owned()
                };
                let status = head[9..12].parse().unwrap();
                let length: usize = header("content-length:").parse().unwrap_or(0);
                if text.len() >= end + 4 + length {
                    let body = text[end + 4..end + 4 + length].to_vec();
                    return Ok(Answer { status, content_type: header("content-type:"), body });
                }
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => text.extend(&piece[..count]),
            }
        }
    }
}

pub fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

pub fn csr(key: &KeyPair) -> String {
    csr_with(key, |_| {})
}

pub fn csr_with(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    change(&mut params);
    params.serialize_request(key).unwrap().pem().unwrap()
}

/// A nonce and a whole request for this connection.
pub async fn enrollment_request(
    connection: &mut Connection,
    bundle: &EnrollmentBundle,
    csr: &str,
) -> Result<EnrollmentRequest, Answer> {
    let answer = connection.get(&format!("{NONCE}?bundle_id={}", bundle.bundle_id)).await.unwrap();
    if answer.status != 200 {
        return Err(answer);
    }
    let nonce = answer.read::<NonceAnswer>().nonce;
    let binding_key = SigningKey::from_seed([5; 32].into()).public();
    let exporter = connection.exporter();
    let proof = EnrollmentProof {
        bundle_id: bundle.bundle_id,
        nonce: &nonce,
        csr,
        binding_key: &binding_key,
        exporter: &exporter,
    };
    let signature = proof.sign(&bundle.key());
    Ok(EnrollmentRequest { bundle_id: bundle.bundle_id, nonce, csr: csr.to_owned(), binding_key, signature })
}

/// A whole enrollment on a connection of its own.
pub async fn enroll(address: SocketAddr, bundle: &EnrollmentBundle, csr: &str) -> Answer {
    let mut connection = Connection::with_bundle(address, bundle).await.unwrap();
    match enrollment_request(&mut connection, bundle, csr).await {
        Ok(request) => connection.post(ENROLL, &serde_json::to_vec(&request).unwrap()).await.unwrap(),
        Err(answer) => answer,
    }
}

/// An agent with an identity.
pub struct Agent {
    pub store: Arc<SvidStore>,
    pub chain: String,
    /// PKCS #8 PEM.
    pub key: String,
    pub generation: u64,
    files: tempfile::TempDir,
}

impl Agent {
    pub async fn enroll(address: SocketAddr, bundle: &EnrollmentBundle) -> Self {
        let key = new_key();
        let answer: EnrollmentAnswer = enroll(address, bundle, &csr(&key)).await.read();
        Self::new(&key, answer.certificate_chain, &answer.trust_bundle, answer.generation)
    }

    pub fn of(key: &KeyPair, answer: CertificateAnswer) -> Self {
        Self::new(key, answer.certificate_chain, &answer.trust_bundle, answer.generation)
    }

    pub fn new(key: &KeyPair, chain: String, trust_bundle: &str, generation: u64) -> Self {
        let files = tempfile::tempdir().unwrap();
        let path = |name: &str| files.path().join(name);
        std::fs::write(path("bundle.pem"), trust_bundle).unwrap();
        write_private(&path("svid.pem"), &(chain.clone() + &key.serialize_pem()));
        let store = SvidStore::load(SvidFiles {
            certificate_file: path("svid.pem"),
            private_key: PrivateKeySource::File(path("svid.pem")),
            trust_bundle_file: path("bundle.pem"),
            trust_domain: TrustDomain::parse(TRUST_DOMAIN).unwrap(),
        });
        Self { store: store.unwrap(), chain, key: key.serialize_pem(), generation, files }
    }

    /// The roots that it knows, PEM.
    pub fn trust_bundle(&self) -> String {
        std::fs::read_to_string(self.files.path().join("bundle.pem")).unwrap()
    }

    pub async fn connect(&self, address: SocketAddr) -> io::Result<Connection> {
        Connection::with_svid(address, &self.store).await
    }

    /// Asks for a certificate on a connection of its own.
    pub async fn certificate(
        &self,
        address: SocketAddr,
        member: Option<&str>,
        csr: &str,
        generation: u64,
    ) -> io::Result<Answer> {
        let request =
            CertificateRequest { member: member.map(str::to_owned), csr: csr.to_owned(), generation };
        let mut connection = self.connect(address).await?;
        connection.post(CERTIFICATES, &serde_json::to_vec(&request).unwrap()).await
    }

    /// The next certificate, for a new key.
    pub async fn renewed(&self, address: SocketAddr) -> Self {
        let key = new_key();
        let answer = self.certificate(address, None, &csr(&key), self.generation).await.unwrap();
        Self::of(&key, answer.read())
    }
}

/// A client that takes any server, and shows this chain and key.
pub fn trusting(identity: Option<(&str, &str)>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(zen_identity::provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(zen_svid_faults::Anybody));
    let Some((chain, key)) = identity else { return Arc::new(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    Arc::new(builder.with_client_auth_cert(chain, key).unwrap())
}

fn write_private(path: &Path, text: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}
