//! The control plane over mutual TLS 1.3: one connection an exchange, except where a proof is bound to its connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zen_control_api::{
    CERTIFICATES, CONFIGURATION, CONFIGURATION_BYTES_MAX, CertificateAnswer, CertificateRequest, ENROLL,
    EXPORTER_BYTES, EXPORTER_LABEL, EnrollmentAnswer, EnrollmentBundle, EnrollmentRequest, LINK_KEYS,
    LinkStatement, NONCE, NonceAnswer, Problem, ProblemType, RECOVER, RECOVERY_NONCE, RecoveryRequest,
    RelayAnswer, STATUS, SYNC, SignedConfiguration, SigningKey, StatusReport, SyncAnswer, SyncRequest,
};
use zen_identity::{
    IdentityError, SvidFiles, SvidStore, TrustDomain, control_refused, enrollment_client_config,
    public_key_hash, spiffe_server_name,
};

use crate::core::EnrolledWith;
use crate::http::{Answer, HttpError, Request, exchange};

const ALPN: &[&[u8]] = &[b"http/1.1"];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The control plane holds a question for a configuration for up to a minute.
const CONFIGURATION_TIMEOUT: Duration = Duration::from_secs(90);
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// A text in JSON may be twice as long.
const SIGNED_BYTES_MAX: usize = 2 * CONFIGURATION_BYTES_MAX + 1024;
const PORT: u16 = 443;

/// Where the control plane is, and as whom we come.
#[derive(Clone)]
pub(crate) struct ControlPlane {
    urls: Vec<String>,
    connector: TlsConnector,
}

/// One connection.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    url: String,
    host: String,
}

/// Why an exchange came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No connection.
    #[error("{url}: {reason}")]
    Unreachable {
        /// Where.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// No answer.
    #[error("{url}: {source}")]
    Http {
        /// Where.
        url: String,
        /// What went wrong.
        source: HttpError,
    },
    /// An answer that is none of a control plane.
    #[error("{url}: answered {status} with what is no message of a control plane of this version")]
    Answer {
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// It refused.
    #[error("{url}: {}{}", problem.title, problem.detail.as_ref().map_or(String::new(), |detail| format!(": {detail}")))]
    Refused {
        /// Where.
        url: String,
        /// Its words.
        problem: Problem,
        /// When to ask again, ms.
        retry_after_ms: Option<u64>,
    },
}

impl ControlPlane {
    /// Before there is an identity.
    pub(crate) fn by_bundle(bundle: &EnrollmentBundle) -> Result<Self, IdentityError> {
        let domain = TrustDomain::parse(&bundle.trust_domain).expect("checked when the bundle was read");
        let pins: Vec<[u8; 32]> = bundle.ca_pins.iter().map(|pin| pin.0).collect();
        let config = enrollment_client_config(bundle.key().seed(), &pins, &domain, ALPN)?;
        Ok(Self { urls: bundle.control_plane.clone(), connector: config.into() })
    }

    /// With the binding key, when the certificate has ended; `roots`, PEM, are those that were in force then.
    pub(crate) fn by_binding(
        enrolled: &EnrolledWith,
        binding: &SigningKey,
        roots: &str,
    ) -> Result<Self, IdentityError> {
        let domain = TrustDomain::parse(&enrolled.trust_domain).expect("checked when the bundle was read");
        let roots = CertificateDer::pem_slice_iter(roots.as_bytes());
        let pins: Vec<[u8; 32]> = roots.filter_map(|root| public_key_hash(&root.ok()?)).collect();
        let config = enrollment_client_config(binding.seed(), &pins, &domain, ALPN)?;
        Ok(Self { urls: enrolled.control_plane.clone(), connector: config.into() })
    }

    /// With an identity, which is read once.
    pub(crate) fn by_identity(enrolled: &EnrolledWith, files: SvidFiles) -> Result<Arc<Self>, IdentityError> {
        let config = SvidStore::load(files)?.control_client_config(ALPN)?;
        Ok(Arc::new(Self { urls: enrolled.control_plane.clone(), connector: config.into() }))
    }

    /// To the first address that answers.
    pub(crate) async fn connect(&self) -> Result<Connection, ControlError> {
        let mut last = None;
        for url in &self.urls {
            match timeout(CONNECT_TIMEOUT, self.connect_to(url)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = Some(unreachable(url, reason_of(&error))),
                Err(_) => last = Some(unreachable(url, format!("no connection within {CONNECT_TIMEOUT:?}"))),
            }
        }
        Err(last.expect("a bundle has an address"))
    }

    async fn connect_to(&self, url: &str) -> io::Result<Connection> {
        let (host, port) = host_and_port(url).ok_or(io::ErrorKind::InvalidInput)?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(spiffe_server_name(), stream).await?;
        let authority = url.trim_start_matches("https://").to_owned();
        Ok(Connection { stream, url: url.to_owned(), host: authority })
    }

    /// A certificate for a new key.
    pub(crate) async fn certificate(
        &self,
        request: &CertificateRequest,
    ) -> Result<CertificateAnswer, ControlError> {
        self.connect().await?.post(CERTIFICATES, request).await
    }

    /// A configuration that is newer than `after`, or nothing after a while.
    pub(crate) async fn configuration(
        &self,
        after: u64,
    ) -> Result<Option<SignedConfiguration>, ControlError> {
        let mut connection = self.connect().await?;
        let target = format!("{CONFIGURATION}?after={after}");
        let limits = (CONFIGURATION_TIMEOUT, SIGNED_BYTES_MAX);
        let answer = connection.ask("GET", &target, None, limits).await?;
        match answer.status {
            204 => Ok(None),
            _ => connection.read(&answer).map(Some),
        }
    }

    /// Says what is in force.
    pub(crate) async fn report(&self, report: &StatusReport) -> Result<(), ControlError> {
        self.say(STATUS, report).await
    }

    /// Says something of links to the agent at their other end.
    pub(crate) async fn state_links(&self, statement: &LinkStatement) -> Result<(), ControlError> {
        self.say(LINK_KEYS, statement).await
    }

    async fn say(&self, target: &str, message: &impl Serialize) -> Result<(), ControlError> {
        let mut connection = self.connect().await?;
        let body = serde_json::to_vec(message).expect("a message is JSON");
        let answer = connection.ask("POST", target, Some(&body), (ANSWER_TIMEOUT, ANSWER_BYTES_MAX)).await?;
        match answer.status {
            200..=299 => Ok(()),
            _ => Err(connection.refused(&answer)),
        }
    }
}

impl Connection {
    /// What both ends export from this connection.
    pub(crate) fn exporter(&self) -> [u8; EXPORTER_BYTES] {
        let (_, connection) = self.stream.get_ref();
        connection
            .export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)
            .expect("the handshake is complete and the length is one that a hash gives")
    }

    /// A nonce for a bundle.
    pub(crate) async fn nonce(&mut self, bundle: &EnrollmentBundle) -> Result<NonceAnswer, ControlError> {
        let target = format!("{NONCE}?bundle_id={}", bundle.bundle_id);
        let answer = self.ask("GET", &target, None, (ANSWER_TIMEOUT, ANSWER_BYTES_MAX)).await?;
        self.read(&answer)
    }

    /// An identity for a bundle.
    pub(crate) async fn enroll(
        &mut self,
        request: &EnrollmentRequest,
    ) -> Result<EnrollmentAnswer, ControlError> {
        self.post(ENROLL, request).await
    }

    /// A nonce for a binding key.
    pub(crate) async fn recovery_nonce(&mut self, cluster: &str) -> Result<NonceAnswer, ControlError> {
        let target = format!("{RECOVERY_NONCE}?cluster={cluster}");
        let answer = self.ask("GET", &target, None, (ANSWER_TIMEOUT, ANSWER_BYTES_MAX)).await?;
        self.read(&answer)
    }

    /// A certificate for a binding key.
    pub(crate) async fn recover(
        &mut self,
        request: &RecoveryRequest,
    ) -> Result<CertificateAnswer, ControlError> {
        self.post(RECOVER, request).await
    }

    /// What both say of the audit log and of orders.
    pub(crate) async fn sync(&mut self, request: &SyncRequest) -> Result<SyncAnswer, ControlError> {
        self.post(SYNC, request).await
    }

    /// Something that a node keeps; how far the control plane has come with it.
    pub(crate) async fn relay(
        &mut self,
        target: &str,
        report: &impl Serialize,
    ) -> Result<RelayAnswer, ControlError> {
        self.post(target, report).await
    }

    async fn post<T: DeserializeOwned>(
        &mut self,
        target: &str,
        request: &impl Serialize,
    ) -> Result<T, ControlError> {
        let body = serde_json::to_vec(request).expect("a message is JSON");
        let answer = self.ask("POST", target, Some(&body), (ANSWER_TIMEOUT, ANSWER_BYTES_MAX)).await?;
        self.read(&answer)
    }

    async fn ask(
        &mut self,
        method: &'static str,
        target: &str,
        body: Option<&[u8]>,
        (patience, body_bytes_max): (Duration, usize),
    ) -> Result<Answer, ControlError> {
        let request = Request { method, target, host: &self.host, body };
        match timeout(patience, exchange(&mut self.stream, request, body_bytes_max)).await {
            Ok(Ok(answer)) => Ok(answer),
            // TLS 1.3 servers refuse a client's certificate after the client's handshake is over.
            Ok(Err(HttpError::Io(error))) => Err(unreachable(&self.url, reason_of(&error))),
            Ok(Err(source)) => Err(ControlError::Http { url: self.url.clone(), source }),
            Err(_) => Err(unreachable(&self.url, format!("no answer within {patience:?}"))),
        }
    }

    fn read<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, ControlError> {
        let Answer { status, body, .. } = answer;
        if !(200..=299).contains(status) {
            return Err(self.refused(answer));
        }
        let read = serde_json::from_slice(body);
        read.map_err(|_| ControlError::Answer { url: self.url.clone(), status: *status })
    }

    fn refused(&self, answer: &Answer) -> ControlError {
        let url = self.url.clone();
        match serde_json::from_slice(&answer.body) {
            Ok(problem) => ControlError::Refused { url, problem, retry_after_ms: answer.retry_after_ms },
            Err(_) => ControlError::Answer { url, status: answer.status },
        }
    }
}

impl ControlError {
    /// When the control plane wants to be asked again, ms.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Refused { retry_after_ms, .. } => *retry_after_ms,
            Self::Unreachable { .. } | Self::Http { .. } | Self::Answer { .. } => None,
        }
    }

    /// Whether it is of a version that has no such route.
    pub(crate) fn is_unknown_route(&self) -> bool {
        matches!(self, Self::Refused { problem, .. } if problem.kind == ProblemType::NotFound)
    }

    /// Whether the control plane answered at all.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

fn unreachable(url: &str, reason: String) -> ControlError {
    ControlError::Unreachable { url: url.to_owned(), reason }
}

/// Our own reason, if the handshake failed for one.
fn reason_of(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    inner.and_then(control_refused).map_or_else(|| error.to_string(), |refused| refused.to_string())
}

/// Of `https://HOST[:PORT]`.
fn host_and_port(url: &str) -> Option<(&str, u16)> {
    let authority = url.strip_prefix("https://")?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (authority, PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (url, expected) in [
            ("https://control.example:8444", Some(("control.example", 8444))),
            ("https://control.example", Some(("control.example", 443))),
            ("https://[::1]:8444", Some(("::1", 8444))),
            ("https://[::1]", Some(("::1", 443))),
            ("https://127.0.0.1:1", Some(("127.0.0.1", 1))),
            ("https://host:99999", None),
            ("https://:1", None),
            ("http://host:1", None),
        ] {
            assert_eq!(host_and_port(url), expected, "{url}");
        }
    }
}
