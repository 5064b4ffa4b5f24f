//! The listener for agents: TLS 1.3 with a certificate on both sides, HTTP/1.1, a bounded number of both.
//!
//! A connection ends with the client's certificate, with the first answer after its identity was denied, locked or
//! superseded (a request that waits is answered then), and when it is idle. What is not HTTP is answered by hyper with a bare 400; everything else that is no success is a problem (RFC 9457).

mod connection;
mod places;
mod routes;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch as channel};
use tokio_rustls::TlsAcceptor;
use zen_identity::{PrivateKeySource, SvidFiles, SvidStore, TrustDomain};

use self::places::{Places, Shed};
use crate::directory::{self, Directory};
use crate::{Control, ControlError, Refusal};

/// Most connections at a time; more are closed as they come.
pub(crate) const CONNECTIONS_MAX: usize = 1024;
/// Most of them that one identity has.
pub(crate) const IDENTITY_CONNECTIONS_MAX: usize = 8;
/// Most of them that are not yet through their handshake.
pub(crate) const HANDSHAKES_MAX: usize = 128;
/// Most of them that hold a bundle's key only, for a minute at most.
pub(crate) const ENROLLING_MAX: usize = 64;
/// Most of them that hold a key only, which is no bundle's.
pub(crate) const STRANGERS_MAX: usize = 16;
/// Most requests that use the database at a time.
const WORK_MAX: usize = 16;
/// How long a request waits for its turn.
const WORK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a new connection may take to show who it is.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const ALPN: &[u8] = b"http/1.1";

/// How to listen.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where.
    pub listen: SocketAddr,
    /// How long a request for a configuration waits; a tenth more or less is drawn.
    pub long_poll: Duration,
}

/// A listener that has its address.
pub struct Listening {
    server: Arc<Server>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

/// What all connections share.
pub(crate) struct Server {
    control: Control,
    directory: Directory,
    store: Arc<SvidStore>,
    long_poll: Duration,
    /// Counts changes by other processes.
    changes: channel::Sender<u64>,
    work: Semaphore,
    connections: Arc<Semaphore>,
    by_identity: Places,
    shed: Shed,
    handshakes: Semaphore,
    enrolling: Semaphore,
    strangers: Semaphore,
}

impl Listening {
    /// Opens the directory, makes the listener's certificate if need be, and takes the address.
    pub async fn bind(directory: Directory, settings: &Settings) -> Result<Self, ControlError> {
        let control = Control::open(&directory)?;
        let store = watch::own_identity(&control, &directory, now_ms())?;
        let acceptor = TlsAcceptor::from(store.agent_server_config(&[ALPN])?);
        let bound = TcpListener::bind(settings.listen).await;
        let listener = bound.map_err(ControlError::file(settings.listen.to_string()))?;
        let server = Server {
            control,
            directory,
            store,
            long_poll: settings.long_poll,
            changes: channel::Sender::new(0),
            work: Semaphore::new(WORK_MAX),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            by_identity: Places::default(),
            shed: Shed::default(),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            enrolling: Semaphore::new(ENROLLING_MAX),
            strangers: Semaphore::new(STRANGERS_MAX),
        };
        Ok(Self { server: Arc::new(server), listener, acceptor })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until it is dropped.
    pub async fn run(self) {
        let watching = tokio::spawn(watch::watch(self.server.clone()));
        let _ends_with_us = AbortOnDrop(watching);
        loop {
            match self.listener.accept().await {
                Ok((stream, source)) => self.admit(stream, source),
                Err(error) => {
                    tracing::warn!(%error, "no connection could be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, source: SocketAddr) {
        let Ok(place) = self.server.connections.clone().try_acquire_owned() else {
            self.server.shed.note("too many are open");
            return;
        };
        let (server, acceptor) = (self.server.clone(), self.acceptor.clone());
        tokio::spawn(async move {
            let _place = place;
            connection::serve(server, acceptor, stream, source).await;
        });
    }
}

/// Listens and answers until the process is told to end.
pub async fn serve(directory: Directory, settings: &Settings) -> Result<(), ControlError> {
    let listening = Listening::bind(directory, settings).await?;
    let address = listening.address().map_err(ControlError::file("listener"))?;
    tracing::info!(%address, trust_domain = listening.server.control.trust_domain(), "listening for agents");
    let mut ending = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(ControlError::file("SIGTERM"))?;
    tokio::select! {
        () = listening.run() => {}
        _ = ending.recv() => tracing::info!("ending: SIGTERM"),
        _ = tokio::signal::ctrl_c() => tracing::info!("ending: SIGINT"),
    }
    Ok(())
}

impl Server {
    /// Runs what uses the database where it may block, when it is its turn.
    pub(crate) async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        step: impl FnOnce(&Control, u64) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = tokio::time::timeout(WORK_TIMEOUT, self.work.acquire()).await;
        let _turn = turn.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Ending)?;
        let server = self.clone();
        let done = tokio::task::spawn_blocking(move || step(&server.control, now_ms())).await;
        done.map_err(|_| Refusal::Ending)?
    }
}

/// Unix ms.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn svid_files(control: &Control, directory: &Directory) -> Result<SvidFiles, ControlError> {
    let trust_domain = TrustDomain::parse(control.trust_domain()).map_err(ControlError::TrustDomain)?;
    let file = directory.path(directory::SERVER);
    Ok(SvidFiles {
        certificate_file: file.clone(),
        private_key: PrivateKeySource::File(file),
        trust_bundle_file: directory.path(directory::ROOT),
        trust_domain,
    })
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
