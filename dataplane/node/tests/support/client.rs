//! A blocking TLS 1.3 client that sends raw bytes and reads answers, and signs as the sources do.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::hmac;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, NamedGroup, RootCertStore, StreamOwned};

use super::node::PATIENCE;
use super::{Lab, SECRET};

/// A connection.
pub struct Client {
    /// TLS and the socket under it.
    pub tls: StreamOwned<ClientConnection, TcpStream>,
    received: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Three digits.
    pub status: u16,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    /// By Content-Length.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Client {
    /// A source's connection; the handshake is complete when this returns.
    pub fn connect(lab: &Lab, address: SocketAddr) -> Self {
        Self::connect_with(&source_config(lab), address).unwrap()
    }

    /// A connection with any configuration; the handshake is complete as seen from here.
    pub fn connect_with(config: &Arc<ClientConfig>, address: SocketAddr) -> io::Result<Self> {
        Self::over(config, TcpStream::connect(address)?)
    }

    /// The same over a connection that is there.
    pub fn over(config: &Arc<ClientConfig>, socket: TcpStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = StreamOwned::new(
            ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?,
            socket,
        );
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(Self { tls, received: Vec::new() })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    /// Sends bytes to a peer that may have closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.write_all(bytes)?;
        self.tls.flush()
    }

    /// Reads one answer.
    pub fn answer(&mut self) -> Answer {
        self.try_answer().unwrap()
    }

    /// Reads one answer; an error if the peer closes before it is whole.
    pub fn try_answer(&mut self) -> io::Result<Answer> {
        let end = loop {
            match self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(at) => break at,
                None => self.receive()?,
            }
        };
        let head = String::from_utf8(self.received[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
        while self.received.len() < end + 4 + length {
            self.receive()?;
        }
        let body = self.received[end + 4..end + 4 + length].to_vec();
        self.received.drain(..end + 4 + length);
        Ok(Answer { status, headers, body })
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, request: &[u8]) -> Answer {
        self.send(request);
        self.answer()
    }

    /// Whether the peer closes, and has sent nothing more.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let end = self.tls.read_to_end(&mut rest);
        self.received.append(&mut rest);
        let is_open = end.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        !is_open && self.received.is_empty()
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.tls.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.received.extend_from_slice(&buffer[..length]);
                Ok(())
            }
        }
    }
}

/// Trusts the lab's public CA, presents nothing.
pub fn source_config(lab: &Lab) -> Arc<ClientConfig> {
    Arc::new(builder(&lab.path("pki/public_ca.pem")).with_no_client_auth())
}

/// As [`source_config`], presenting `pki/NAME.pem`.
pub fn client_certificate_config(lab: &Lab, name: &str) -> Arc<ClientConfig> {
    let (chain, key) = identity(&lab.path(&format!("pki/{name}.pem")), &lab.path(&format!("pki/{name}.key")));
    Arc::new(builder(&lab.path("pki/public_ca.pem")).with_client_auth_cert(chain, key).unwrap())
}

/// As [`source_config`], offering one key exchange group only.
pub fn source_config_with_group(lab: &Lab, group: NamedGroup) -> Arc<ClientConfig> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups.retain(|offered| offered.name() == group);
    assert_eq!(provider.kx_groups.len(), 1);
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(&lab.path("pki/public_ca.pem")))
        .with_no_client_auth();
    Arc::new(config)
}

/// Presents `certificate` and `key`; the server is not verified, since an SVID has no DNS name.
pub fn link_config(certificate: &Path, key: &Path) -> Arc<ClientConfig> {
    let (chain, key) = identity(certificate, key);
    let mut config = anyone().with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"zen-link/1".to_vec()];
    Arc::new(config)
}

fn identity(certificate: &Path, key: &Path) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().collect::<Result<_, _>>().unwrap();
    (chain, PrivateKeyDer::from_pem_file(key).unwrap())
}

/// Presents nothing to a link listener.
pub fn link_config_without_certificate() -> Arc<ClientConfig> {
    let mut config = anyone().with_no_client_auth();
    config.alpn_protocols = vec![b"zen-link/1".to_vec()];
    Arc::new(config)
}

/// A `ClientHello` of TLS 1.2 (RFC 5246 section 7.4.1.2): no `supported_versions`, what a browser of then offered.
pub fn hello_of_tls_12() -> Vec<u8> {
    let extensions: &[u8] = &[
        0x00, 0x0a, 0x00, 0x06, 0x00, 0x04, 0x00, 0x1d, 0x00,
        0x17, // supported_groups: x25519, secp256r1
        0x00, 0x0b, 0x00, 0x02, 0x01, 0x00, // ec_point_formats: uncompressed
        0x00, 0x0d, 0x00, 0x06, 0x00, 0x04, 0x04, 0x03, 0x08, 0x04, // signature_algorithms
        0x00, 0x17, 0x00, 0x00, // extended_master_secret
    ];
    let mut body = vec![0x03, 0x03];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut record = vec![0x16, 0x03, 0x01];
    record.extend((body.len() as u16 + 4).to_be_bytes());
    record.extend([0x01, 0x00]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// `sha256=<hex>` over `body` with [`SECRET`]: GitHub's signature, and that of the generic endpoint.
pub fn signature(body: &[u8]) -> String {
    signature_with(SECRET, body)
}

/// The same with another secret.
pub fn signature_with(secret: &str, body: &[u8]) -> String {
    use std::fmt::Write;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut text = String::from("sha256=");
    for byte in hmac::sign(&key, body).as_ref() {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

/// A whole request to an endpoint with GitHub's scheme, a new event with each call; `extra` holds header lines with their CRLF.
pub fn github(endpoint: &str, body: &[u8], extra: &str) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\n{extra}", body.len());
    let mut request = github_head(endpoint, body, &length).into_bytes();
    request.extend_from_slice(body);
    request
}

/// The head of such a request without any framing but what `extra` says.
pub fn github_head(endpoint: &str, body: &[u8], extra: &str) -> String {
    format!(
        "POST /hooks/{endpoint} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         X-GitHub-Event: push\r\nX-GitHub-Delivery: {}\r\n\
         X-Hub-Signature-256: {}\r\n{extra}\r\n",
        delivery_id(),
        signature(body)
    )
}

/// An id that no other event of this process has.
fn delivery_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("72d3162e-cc78-11e3-81ab-{:012x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn builder(authorities: &Path) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(authorities))
}

fn roots(file: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}

fn anyone() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
}

/// Takes any server: these tests are about what the server makes of the client.
#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
