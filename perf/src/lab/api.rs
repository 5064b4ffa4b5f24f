//! A client of the control plane's API for people: HTTP/1.1 and JSON over mutual TLS 1.3, one request after the other.

use std::net::SocketAddr;
use std::path::Path;

use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::LabError;
use crate::http::Wire;
use crate::tls::{KeyExchange, client_config};

/// What the certificate of the control plane says to people on its host.
const HOST: &str = "localhost";

/// A connection of one person.
#[derive(Debug)]
pub(super) struct Api {
    wire: Wire<TlsStream<TcpStream>>,
}

impl Api {
    /// Connects with the certificate in `person`, as `zen-control person certificate` makes it.
    pub(super) async fn connect(address: SocketAddr, person: &Path) -> Result<Self, LabError> {
        let identity = (&*person.join("certificate.pem"), &*person.join("key.pem"));
        let config = client_config(&person.join("root.pem"), Some(identity), KeyExchange::All)?;
        let name = ServerName::try_from(HOST).expect("a name of a host");
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            TlsConnector::from(config).connect(name, stream).await
        };
        let stream = connecting.await.map_err(LabError::socket("the API of the control plane"))?;
        Ok(Self { wire: Wire::new(stream) })
    }

    /// Asks, and reads what a success says; a problem is an error with its words.
    pub(super) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, LabError> {
        let failed = |reason: String| LabError::Tool { what: format!("{method} {path}"), reason };
        let text = body.map_or(String::new(), Value::to_string);
        let kind = if body.is_some() { "content-type: application/json\r\n" } else { "" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {HOST}\r\n{kind}content-length: {}\r\n\r\n",
            text.len()
        );
        let exchange = async {
            self.wire.write(format!("{head}{text}").as_bytes()).await?;
            self.wire.read().await
        };
        let answer = exchange.await.map_err(|error| failed(error.to_string()))?;
        let answer = answer.ok_or_else(|| failed("the connection ended".to_owned()))?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        match answer.status() {
            Some(200..=299) if body.is_empty() => Ok(Value::Null),
            Some(200..=299) => serde_json::from_str(&body).map_err(|error| failed(error.to_string())),
            _ => Err(failed(format!("{} {body}", answer.start))),
        }
    }
}
