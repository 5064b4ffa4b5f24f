//! A fast target: mutual TLS, answers 200, checks both signatures, remembers what came.
//!
//! In: deliveries to `/hooks/<target>`. Out: an [`Arrivals`] table, or only a count. A delivery whose
//! signature fails is noted as such and still gets its 200, so that one fault is not hidden by retries.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::error::LabError;
use crate::http::{Message, Wire};
use crate::lab::read_json;
use crate::load::{Record, unix_ms};
use crate::record::{Arrivals, Arrived, Comparison};
use crate::signature::{check_delivery, hex, secret_bytes, sha256};
use crate::stop::StopSignal;
use crate::tls::{KeyExchange, server_config};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const UNAUTHORIZED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

/// A target as the egress knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    /// Its name, the last segment of its URL.
    pub(crate) name: String,
    /// `whsec_<base64>`.
    pub(crate) secret: String,
}

/// What a sink has seen.
#[derive(Debug, Default)]
pub(crate) struct SinkState {
    /// Deliveries answered with 200.
    pub(crate) count: AtomicU64,
    /// From now on a delivery whose signature fails gets 401 and is not remembered, as at a real target.
    pub(crate) refuses_invalid: AtomicBool,
    arrivals: Mutex<Arrivals>,
    by_target: Mutex<HashMap<String, u64>>,
}

impl SinkState {
    /// How many different events came.
    pub(crate) fn distinct(&self) -> usize {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).0.len()
    }

    /// Deliveries that `target` answered with 200, if events are remembered.
    pub(crate) fn count_of(&self, target: &str) -> u64 {
        let counts = self.by_target.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(target).copied().unwrap_or(0)
    }

    /// Notes an arrival.
    pub(crate) fn add(&self, event_id: &str, body_sha256: String, fault: Option<String>) {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.add(event_id, body_sha256, fault);
    }

    /// Removes an event from the table.
    pub(crate) fn take(&self, event_id: &str) -> Option<Arrived> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).0.remove(event_id)
    }

    /// A copy of the table.
    pub(crate) fn arrivals(&self) -> Arrivals {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A sink's settings.
#[derive(Clone)]
pub(crate) struct Sink {
    /// Its side of TLS.
    pub(crate) tls: TlsAcceptor,
    /// The targets it stands for.
    pub(crate) targets: Arc<[Target]>,
    /// What to remember.
    pub(crate) record: Record,
    /// Where.
    pub(crate) state: Arc<SinkState>,
}

impl Sink {
    /// Serves until the task is dropped.
    pub(crate) async fn serve(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(self.clone().connection(stream))),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    }

    /// A connection that breaks is the egress's to notice; nothing is remembered of half a delivery.
    async fn connection(self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut wire = Wire::new(self.tls.accept(stream).await?);
        while let Some(delivery) = wire.read().await? {
            let answer = self.take(&delivery);
            wire.write(answer).await?;
        }
        Ok(())
    }

    fn take(&self, delivery: &Message) -> &'static [u8] {
        let name = delivery.target().and_then(|target| target.strip_prefix("/hooks/"));
        let Some(target) = self.targets.iter().find(|target| Some(target.name.as_str()) == name) else {
            return NOT_FOUND;
        };
        if self.record == Record::Events {
            let key = secret_bytes(&target.secret).expect("the lab wrote this secret");
            let checked = check_delivery(&key, &target.name, &delivery.headers, &delivery.body, unix_ms());
            let event_id = delivery.header("zen-event-id").unwrap_or("(no zen-event-id)");
            let fault = checked.err().map(|fault| fault.to_string());
            if fault.is_some() && self.state.refuses_invalid.load(Ordering::Relaxed) {
                return UNAUTHORIZED;
            }
            let body_sha256 = hex(&sha256(&delivery.body));
            self.state.add(event_id, body_sha256, fault);
            let mut counts = self.state.by_target.lock().unwrap_or_else(PoisonError::into_inner);
            *counts.entry(target.name.clone()).or_default() += 1;
        }
        self.state.count.fetch_add(1, Ordering::Relaxed);
        OK
    }
}

/// Options of `sink`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9443")]
    listen: SocketAddr,
    /// Its certificate, PEM.
    #[arg(long)]
    certificate: PathBuf,
    /// The certificate's key, PEM.
    #[arg(long)]
    key: PathBuf,
    /// CA of the client certificates it requires.
    #[arg(long)]
    client_ca: PathBuf,
    /// JSON list of targets: name, secret (a lab has one as `targets.json`).
    #[arg(long)]
    targets: PathBuf,
    /// Count only: no signature check, nothing remembered.
    #[arg(long)]
    count_only: bool,
    /// Offer no key exchange but X25519.
    #[arg(long)]
    x25519: bool,
}

/// Serves until SIGTERM or Ctrl-C, then prints what came; fails if a signature did.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let targets: Vec<Target> = read_json(&options.targets)?;
    let state = Arc::new(SinkState::default());
    let exchange = if options.x25519 { KeyExchange::X25519 } else { KeyExchange::All };
    let tls = server_config(&options.certificate, &options.key, &options.client_ca, exchange)?;
    let sink = Sink {
        tls: TlsAcceptor::from(tls),
        targets: targets.into(),
        record: if options.count_only { Record::Counts } else { Record::Events },
        state: Arc::clone(&state),
    };
    let mut stop = StopSignal::new()?;
    let listener =
        TcpListener::bind(options.listen).await.map_err(LabError::socket("cannot listen (--listen)"))?;
    let serving = tokio::spawn(sink.serve(listener));
    stop.wait().await;
    serving.abort();
    let comparison = Comparison::new(&[], &state.arrivals());
    println!(
        "deliveries {}, events {}, invalid {}",
        state.count.load(Ordering::Relaxed),
        state.distinct(),
        comparison.invalid.len()
    );
    Ok(if comparison.invalid.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use rustls::ClientConfig;
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::pki::{Pki, Role};
    use crate::tls::{source_config, target_config};

    const DELIVERY: &[u8] =
        b"POST /hooks/billing HTTP/1.1\r\nzen-event-id: e1\r\ncontent-length: 2\r\n\r\n{}";

    /// A client with the certificate of `name`, which does not look at the server's name.
    fn client(pki: &Pki, name: &str) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&source_config(&pki.public_ca()).unwrap());
        let certificate = CertificateDer::from_pem_file(pki.certificate(name)).unwrap();
        let key = PrivateKeyDer::from_pem_file(pki.key(name)).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let own = rustls::sign::CertifiedKey::new(vec![certificate], key);
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(own));
        Arc::new(config)
    }

    /// Sends one delivery as `client_name`; the status, or nothing if the connection was refused.
    fn deliver(client_name: &str, request: &'static [u8]) -> (Option<u16>, Arc<SinkState>) {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::make(directory.path(), &[(Role::Egress, "inside")]).unwrap();
        let state = Arc::new(SinkState::default());
        let target = Target { name: "billing".to_owned(), secret: "whsec_AAAA".to_owned() };
        // The target shows the public certificate, so that a plain client can check its name.
        let tls = target_config(&pki.certificate("public"), &pki.key("public"), &pki.bundle()).unwrap();
        let sink = Sink {
            tls: TlsAcceptor::from(tls),
            targets: vec![target].into(),
            record: Record::Events,
            state: Arc::clone(&state),
        };
        let tls = TlsConnector::from(client(&pki, client_name));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            tokio::spawn(sink.serve(listener));
            let name = ServerName::try_from("localhost").unwrap();
            let mut wire = Wire::new(tls.connect(name, stream).await.ok()?);
            wire.write(request).await.ok()?;
            wire.read().await.ok()??.status()
        });
        (status, state)
    }

    #[test]
    fn an_unsigned_delivery_is_noted() {
        let (status, state) = deliver("inside", DELIVERY);
        assert_eq!(status, Some(200));
        assert_eq!(state.count.load(Ordering::Relaxed), 1);
        let arrivals = state.arrivals();
        assert_eq!(arrivals.0["e1"].fault.as_deref(), Some("header webhook-id is missing"));
    }

    #[test]
    fn an_unknown_target_is_not_counted() {
        let (status, state) = deliver("inside", b"POST /hooks/x HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
        assert_eq!((status, state.count.load(Ordering::Relaxed)), (Some(404), 0));
    }

    #[test]
    fn a_certificate_of_another_ca_is_refused() {
        let (status, state) = deliver("public", DELIVERY);
        assert_eq!((status, state.distinct()), (None, 0));
    }
}
