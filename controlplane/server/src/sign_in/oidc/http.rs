//! One request to a provider: within its time, an answer within its length, and no way elsewhere.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use zen_identity::{TargetRoots, target_client_config};

use crate::ControlError;

/// How long a provider may take for an answer.
pub(crate) const PROVIDER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer of a provider, bytes.
pub(crate) const PROVIDER_ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Who asks providers; without TLS, those on this host only.
pub(in crate::sign_in) struct Client(Option<TlsConnector>);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("the provider cannot be reached, or does not show who it is: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the provider's name is none")]
    Name,
    #[error("the provider's answer breaks off, or is too long")]
    Broken,
    #[error("the provider takes too long")]
    Slow,
    #[error("the provider answers {0}")]
    Status(u16),
}

/// A form and who sends it, for POST.
pub(in crate::sign_in) struct Posted {
    pub(in crate::sign_in) authorization: Option<String>,
    pub(in crate::sign_in) form: String,
}

impl Client {
    /// Under the CAs of this PEM text, or the system's, of which a provider on this host needs none.
    pub(in crate::sign_in) fn new(provider: &Uri, ca: Option<Vec<u8>>) -> Result<Self, ControlError> {
        if provider.scheme_str() == Some("http") && ca.is_none() {
            return Ok(Self(None));
        }
        let roots = ca.map_or(TargetRoots::System, TargetRoots::Pem);
        Ok(Self(Some(TlsConnector::from(target_client_config(roots, None)?))))
    }

    /// The body of an answer whose status is 200.
    pub(super) async fn ask(&self, uri: &Uri, posted: Option<Posted>) -> Result<Bytes, NoAnswer> {
        match self.exchange(uri, posted).await? {
            (200, body) => Ok(body),
            (status, _) => Err(NoAnswer::Status(status)),
        }
    }

    /// Status and body of an answer.
    pub(in crate::sign_in) async fn exchange(
        &self,
        uri: &Uri,
        posted: Option<Posted>,
    ) -> Result<(u16, Bytes), NoAnswer> {
        let asked = self.exchange_in_time(uri, posted);
        tokio::time::timeout(PROVIDER_TIMEOUT, asked).await.map_err(|_| NoAnswer::Slow)?
    }

    async fn exchange_in_time(&self, uri: &Uri, posted: Option<Posted>) -> Result<(u16, Bytes), NoAnswer> {
        let host = uri.host().ok_or(NoAnswer::Name)?.trim_start_matches('[').trim_end_matches(']');
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await?;
        if !is_tls {
            return exchange(stream, uri, posted).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| NoAnswer::Name)?;
        let connector = self.0.as_ref().ok_or(NoAnswer::Name)?;
        exchange(connector.connect(name, stream).await?, uri, posted).await
    }
}

async fn exchange<S>(stream: S, uri: &Uri, posted: Option<Posted>) -> Result<(u16, Bytes), NoAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|_| NoAnswer::Broken)?;
    let connection = tokio::spawn(connection);
    let answered = async {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::builder().uri(path).header(HOST, host).header(ACCEPT, "application/json");
        let mut body = String::new();
        if let Some(posted) = posted {
            request = request.method(Method::POST).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            if let Some(authorization) = posted.authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            body = posted.form;
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|_| NoAnswer::Name)?;
        let answer = sender.send_request(request).await.map_err(|_| NoAnswer::Broken)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), PROVIDER_ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|_| NoAnswer::Broken)?.to_bytes()))
    };
    let answer = answered.await;
    connection.abort();
    answer
}
