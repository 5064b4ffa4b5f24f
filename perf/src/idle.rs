//! The `idle` command: connections that finish their handshake and then say nothing.
//!
//! Done when every one of them, after its silence, still gets an answer to a request. It is a process
//! of its own because ten thousand connections and their node do not fit under one descriptor limit.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::LabError;
use crate::http::Wire;
use crate::stop::StopSignal;
use crate::tls::source_config;

const AT_ONCE: usize = 32;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Nobody's endpoint: the answer is 404, and it is an answer.
const REQUEST: &[u8] = b"POST /hooks/idle HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";

/// Options of `idle`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The ingester's public listener.
    #[arg(long, default_value = "127.0.0.1:8443")]
    address: SocketAddr,
    /// CA of its certificate, which names localhost.
    #[arg(long)]
    ca: PathBuf,
    /// Connections at once.
    #[arg(long, default_value_t = 1000)]
    connections: usize,
}

type Connection = Wire<TlsStream<TcpStream>>;

/// Connects, idles until SIGTERM or Ctrl-C, then asks each connection for a last answer.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let mut stop = StopSignal::new()?;
    let tls = TlsConnector::from(source_config(&options.ca)?);
    let mut open = Vec::with_capacity(options.connections);
    while open.len() < options.connections {
        let count = AT_ONCE.min(options.connections - open.len());
        let connecting: Vec<_> =
            (0..count).map(|_| tokio::spawn(connect(options.address, tls.clone()))).collect();
        for connection in connecting {
            open.push(connection.await.expect("connecting does not panic")?);
        }
    }
    println!("{} open", open.len());
    stop.wait().await;
    let mut alive = 0;
    for connection in &mut open {
        alive += usize::from(answers(connection).await);
    }
    println!("{alive} of {} still answered", open.len());
    Ok(if alive == open.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn connect(address: SocketAddr, tls: TlsConnector) -> Result<Connection, LabError> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        tls.connect(ServerName::try_from("localhost").expect("a valid name"), stream).await
    };
    let connected = timeout(CONNECT_TIMEOUT, connecting).await;
    let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    connected.map(Wire::new).map_err(LabError::socket("an idle connection was not taken"))
}

async fn answers(connection: &mut Connection) -> bool {
    let exchange = async {
        connection.write(REQUEST).await.ok()?;
        connection.read().await.ok()??.status()
    };
    timeout(CONNECT_TIMEOUT, exchange).await.is_ok_and(|status| status == Some(404))
}
