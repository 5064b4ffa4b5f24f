//! A sink over real sockets and real TLS.

use std::sync::atomic::Ordering;

use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::http::Wire;
use crate::pki::{Pki, Role};
use crate::tls::{source_config, target_config};

const DELIVERY: &[u8] = b"POST /hooks/billing HTTP/1.1\r\nzen-event-id: e1\r\ncontent-length: 2\r\n\r\n{}";
const BOUND: Duration = Duration::from_secs(10);

/// A sink that listens, and what a client of it needs.
struct Stage {
    directory: TempDir,
    pki: Pki,
    address: std::net::SocketAddr,
    state: Arc<SinkState>,
}

impl Stage {
    /// Starts the sink with what `change` does to it.
    async fn start(record: Record, change: impl FnOnce(&mut Sink, &TempDir)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::make(directory.path(), &[(Role::Egress, "inside")]).unwrap();
        let state = Arc::new(SinkState::default());
        let target = |name: &str| Target { name: name.to_owned(), secret: "whsec_AAAA".to_owned() };
        // The target shows the public certificate, so that a plain client can check its name.
        let tls = target_config(&pki.certificate("public"), &pki.key("public"), &pki.bundle()).unwrap();
        let targets = [target("billing"), target("crm")];
        let mut sink = Sink::new(TlsAcceptor::from(tls), &targets, record, Arc::clone(&state));
        change(&mut sink, &directory);
        // Nobody else is to have it during an outage.
        let address = zen_ports::free_address();
        let listener = TcpListener::bind(address).await.unwrap();
        tokio::spawn(sink.serve(listener));
        Self { directory, pki, address, state }
    }

    /// A connection with the certificate of `name`.
    async fn connect(&self, name: &str) -> io::Result<Wire<TlsStream<TcpStream>>> {
        let mut config = ClientConfig::clone(&source_config(&self.pki.public_ca()).unwrap());
        let certificate = CertificateDer::from_pem_file(self.pki.certificate(name)).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.pki.key(name)).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let own = rustls::sign::CertifiedKey::new(vec![certificate], key);
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(own));
        let stream = TcpStream::connect(self.address).await?;
        let host = ServerName::try_from("localhost").unwrap();
        Ok(Wire::new(TlsConnector::from(Arc::new(config)).connect(host, stream).await?))
    }

    /// The status of one delivery, or nothing if the connection was refused.
    async fn deliver(&self, client: &str, request: &[u8]) -> Option<u16> {
        let mut wire = self.connect(client).await.ok()?;
        status(&mut wire, request).await.ok()
    }
}

async fn status(wire: &mut Wire<TlsStream<TcpStream>>, request: &[u8]) -> io::Result<u16> {
    wire.write(request).await?;
    let answer = wire.read().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(answer.status().unwrap())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(BOUND, future).await.expect("within the bound") })
}

#[test]
fn a_certificate_of_another_ca_is_refused() {
    block_on(async {
        let stage = Stage::start(Record::Events, |_, _| {}).await;
        assert_eq!((stage.deliver("public", DELIVERY).await, stage.state.distinct()), (None, 0));
    });
}

#[test]
fn an_unknown_target_is_not_counted() {
    block_on(async {
        let stage = Stage::start(Record::Events, |_, _| {}).await;
        let request = b"POST /hooks/x HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(stage.deliver("inside", request).await, Some(404));
        assert_eq!(stage.state.count.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn an_unsigned_delivery_is_noted_and_refused_only_if_asked() {
    block_on(async {
        let stage = Stage::start(Record::Events, |_, _| {}).await;
        assert_eq!(stage.deliver("inside", DELIVERY).await, Some(200));
        let fault = stage.state.arrivals().0["e1"].fault.clone();
        assert_eq!(fault.as_deref(), Some("header webhook-id is missing"));
        stage.state.refuses_invalid.store(true, Ordering::Relaxed);
        assert_eq!(stage.deliver("inside", DELIVERY).await, Some(401));
        assert_eq!((stage.state.count_of("billing"), stage.state.count_of("crm")), (1, 0));
    });
}

#[test]
fn counting_only_keeps_no_event_but_counts_by_target() {
    block_on(async {
        let stage = Stage::start(Record::Counts, |_, _| {}).await;
        assert_eq!(stage.deliver("inside", DELIVERY).await, Some(200));
        assert_eq!((stage.state.distinct(), stage.state.count_of("billing")), (0, 1));
    });
}

#[test]
fn an_error_is_neither_counted_nor_recorded() {
    block_on(async {
        let stage = Stage::start(Record::Counts, |sink, directory| {
            sink.faults = Arc::new(Faults::new(Duration::ZERO, 100, Vec::new(), 1).unwrap());
            sink.recorder = Some(Arc::new(Recorder::create(&directory.path().join("arrived")).unwrap()));
        })
        .await;
        assert_eq!(stage.deliver("inside", DELIVERY).await, Some(503));
        let seen = [&stage.state.count, &stage.state.refused].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(seen, [0, 1]);
        assert_eq!(std::fs::read_to_string(stage.directory.path().join("arrived")).unwrap(), "");
    });
}

#[test]
fn an_answer_waits_as_long_as_asked() {
    block_on(async {
        let wait = Duration::from_millis(30);
        let stage = Stage::start(Record::Counts, |sink, _| {
            sink.faults = Arc::new(Faults::new(wait, 0, Vec::new(), 1).unwrap());
        })
        .await;
        let mut wire = stage.connect("inside").await.unwrap();
        let begun = std::time::Instant::now();
        assert_eq!(status(&mut wire, DELIVERY).await.unwrap(), 200);
        assert!(begun.elapsed() >= wait);
    });
}

#[test]
fn a_recorded_arrival_is_a_line() {
    block_on(async {
        let mut recorder = None;
        let stage = Stage::start(Record::Counts, |sink, directory| {
            sink.recorder = Some(Arc::new(Recorder::create(&directory.path().join("arrived")).unwrap()));
            recorder = sink.recorder.clone();
        })
        .await;
        for _ in 0..2 {
            assert_eq!(stage.deliver("inside", DELIVERY).await, Some(200));
        }
        recorder.unwrap().finish().unwrap();
        let text = std::fs::read_to_string(stage.directory.path().join("arrived")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let begins = format!("e1\t{}\tbilling\t1", hex(&sha256(b"{}")));
        assert!(lines.len() == 2 && lines.iter().all(|line| line.starts_with(&begins)), "{text}");
    });
}

#[test]
fn an_outage_resets_and_refuses_and_ends() {
    block_on(async {
        let outage = "0.4:0.4".parse().unwrap();
        let stage = Stage::start(Record::Counts, |sink, _| {
            sink.faults = Arc::new(Faults::new(Duration::ZERO, 0, vec![outage], 1).unwrap());
        })
        .await;
        let mut wire = stage.connect("inside").await.unwrap();
        assert_eq!(status(&mut wire, DELIVERY).await.unwrap(), 200);
        let reset = wire.read().await.unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset, "{reset}");
        let refused = TcpStream::connect(stage.address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
        while stage.deliver("inside", DELIVERY).await != Some(200) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(stage.state.count.load(Ordering::Relaxed), 2);
    });
}
