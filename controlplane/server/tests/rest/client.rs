//! A small HTTP/1.1 client over TLS, which sends what it is told to and reads answers as the standard has them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let is_it =
            |line: &&str| line.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name));
        self.head.lines().find(is_it).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }

    /// The object of a success.
    pub fn json(&self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text());
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.head);
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The kind of a problem; that it is one as documented, is checked.
    pub fn problem(&self) -> String {
        let text = self.text();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{} {text}", self.status);
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status, "{text}");
        assert!(self.status >= 400 && self.status < 500, "nothing that a client sends is our fault: {text}");
        assert!(
            !problem["title"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty()
        );
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{text}");
        problem["type"].as_str().unwrap().to_owned()
    }

    /// Pointers of the fields that a problem names.
    pub fn pointers(&self) -> Vec<String> {
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection of a person.
pub struct Client {
    stream: TlsStream<TcpStream>,
}

impl Client {
    /// With the files that `person certificate` makes. The name of the host is compared, as any client does.
    pub async fn connect(address: SocketAddr, person: &Path) -> io::Result<Self> {
        let read = |name: &str| std::fs::read(person.join(name)).unwrap();
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&read("certificate.pem")).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(&read("key.pem")).unwrap();
        let root = CertificateDer::from_pem_slice(&read("root.pem")).unwrap();
        Self::with(address, root, Some((chain, key))).await
    }

    pub async fn with(
        address: SocketAddr,
        root: CertificateDer<'static>,
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let builder = ClientConfig::builder_with_provider(zen_identity::provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let socket = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
        // With TLS 1.3 the server's verdict on us comes after our handshake is done.
        stream.flush().await?;
        Ok(Self { stream })
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[], None).await
    }

    pub async fn put(&mut self, path: &str, body: &Value) -> Answer {
        self.request("PUT", path, &[], Some(body)).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, &[], Some(body)).await
    }

    pub async fn delete(&mut self, path: &str) -> Answer {
        self.request("DELETE", path, &[], None).await
    }

    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let body = body.map(|body| body.to_string().into_bytes());
        let mut all = headers.to_vec();
        if body.is_some() {
            all.push(("Content-Type", "application/json"));
        }
        self.send(method, path, &all, body.as_deref().unwrap_or_default()).await
    }

    /// A request with exactly these headers, and what HTTP needs.
    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, path, headers, body).await.unwrap()
    }

    pub async fn try_send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let length = (!body.is_empty()).then(|| body.len().to_string());
        let length = length.as_deref().map(|length| ("Content-Length", length));
        let lines = headers.iter().copied().chain(length).map(|(name, value)| format!("{name}: {value}\r\n"));
        let lines: String = lines.collect();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}");
        self.raw(&[head.as_bytes(), b"\r\n", body].concat(), method).await
    }

    /// Bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8], method: &str) -> io::Result<Answer> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        self.answer(method).await
    }

    async fn answer(&mut self, method: &str) -> io::Result<Answer> {
        let mut text = Vec::new();
        loop {
            if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(text[..end].to_vec()).unwrap();
                let status = head[9..12].parse().unwrap();
                let mut answer = Answer { status, head, body: Vec::new() };
                let length: usize =
                    answer.header("content-length").map_or(0, |length| length.parse().unwrap());
                let length = if method == "HEAD" || matches!(status, 204 | 304) { 0 } else { length };
                if text.len() >= end + 4 + length {
                    assert_eq!(text.len(), end + 4 + length, "nothing comes after an answer");
                    answer.body = text[end + 4..].to_vec();
                    return Ok(answer);
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
